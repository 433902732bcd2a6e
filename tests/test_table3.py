"""The rows of table 3 are the paper's, each is a recipe, and each model has the paper's size."""

import json
from math import ceil
from pathlib import Path

import pytest
from commands import Server, Shell

from nmt.errors import RecipeError
from nmt.model.size import parameter_count
from nmt.recipe import Model, dump, load, loads
from nmt.recipe.table3 import BASE, DEVELOPMENT_VOCABULARY, ROWS, SAID_VOCABULARY, Row, differences, recipe_of, row

RECIPES = Path(__file__).parent.parent / "recipes"
MULTI30K = RECIPES / "multi30k-en-de.yaml"

# The paper's table 3: N, d_model, d_ff, h, d_k, d_v, P_drop, ε_ls, thousand steps; PPL, BLEU, million parameters.
TABLE = {
    "base": (6, 512, 2048, 8, 64, 64, 0.1, 0.1, 100, 4.92, 25.8, 65),
    "A1": (6, 512, 2048, 1, 512, 512, 0.1, 0.1, 100, 5.29, 24.9, None),
    "A2": (6, 512, 2048, 4, 128, 128, 0.1, 0.1, 100, 5.00, 25.5, None),
    "A3": (6, 512, 2048, 16, 32, 32, 0.1, 0.1, 100, 4.91, 25.8, None),
    "A4": (6, 512, 2048, 32, 16, 16, 0.1, 0.1, 100, 5.01, 25.4, None),
    "B1": (6, 512, 2048, 8, 16, 64, 0.1, 0.1, 100, 5.16, 25.1, 58),
    "B2": (6, 512, 2048, 8, 32, 64, 0.1, 0.1, 100, 5.01, 25.4, 60),
    "C1": (2, 512, 2048, 8, 64, 64, 0.1, 0.1, 100, 6.11, 23.7, 36),
    "C2": (4, 512, 2048, 8, 64, 64, 0.1, 0.1, 100, 5.19, 25.3, 50),
    "C3": (8, 512, 2048, 8, 64, 64, 0.1, 0.1, 100, 4.88, 25.5, 80),
    "C4": (6, 256, 2048, 8, 32, 32, 0.1, 0.1, 100, 5.75, 24.5, 28),
    "C5": (6, 1024, 2048, 8, 128, 128, 0.1, 0.1, 100, 4.66, 26.0, 168),
    "C6": (6, 512, 1024, 8, 64, 64, 0.1, 0.1, 100, 5.12, 25.4, 53),
    "C7": (6, 512, 4096, 8, 64, 64, 0.1, 0.1, 100, 4.75, 26.2, 90),
    "D1": (6, 512, 2048, 8, 64, 64, 0.0, 0.1, 100, 5.77, 24.6, None),
    "D2": (6, 512, 2048, 8, 64, 64, 0.2, 0.1, 100, 4.95, 25.5, None),
    "D3": (6, 512, 2048, 8, 64, 64, 0.1, 0.0, 100, 4.67, 25.3, None),
    "D4": (6, 512, 2048, 8, 64, 64, 0.1, 0.2, 100, 5.47, 25.7, None),
    "E": (6, 512, 2048, 8, 64, 64, 0.1, 0.1, 100, 4.92, 25.7, None),
    "big": (6, 1024, 4096, 16, 64, 64, 0.3, 0.1, 300, 4.33, 26.4, 213),
}

each_row = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
STATED = [found for found in ROWS if found.millions]


def body(model: Model) -> int:
    """What is trained outside the embedding, by the paper's sections; every projection has a bias."""
    d, f, h = model.d_model, model.d_ffn, model.heads
    keys, values = h * model.key_width, h * model.value_width
    attention = 2 * (d * keys + keys) + (d * values + values) + (values * d + d)  # 3.2.2: W^Q, W^K; W^V; W^O
    feed_forward = (d * f + f) + (f * d + d)  # 3.3
    norm = 2 * d  # 3.1, around each sub-layer
    encoder = model.encoder_layers * (attention + feed_forward + 2 * norm)
    decoder = model.decoder_layers * (2 * attention + feed_forward + 3 * norm)
    positions = 2 * model.max_positions * d if model.positions == "learned" else 0
    return encoder + decoder + positions


def implied(row: Row) -> range:
    """The vocabularies with which a row has as many million parameters as the paper says, once rounded."""
    model = recipe_of(row).model
    first, last = (((row.parameters + half) * 10**6 - body(model)) / model.d_model for half in (-0.5, 0.5))
    return range(ceil(first), ceil(last))


def test_the_list_has_each_row_of_the_paper_once_and_in_order() -> None:
    assert [found.name for found in ROWS] == list(TABLE)


@each_row
def test_a_row_is_the_papers(row: Row) -> None:
    recipe = recipe_of(row)
    model, train = recipe.model, recipe.train
    assert TABLE[row.name] == (
        model.layers, model.d_model, model.d_ffn, model.heads, model.key_width, model.value_width,
        model.dropout, train.label_smoothing, train.steps / 1000, row.perplexity, row.bleu, row.millions,
    )  # fmt: skip
    assert row.steps == train.steps
    assert model.positions == ("learned" if row.name == "E" else "sinusoidal")


@each_row
def test_a_row_is_a_whole_recipe_that_survives_being_dumped_and_loaded(row: Row) -> None:
    assert loads(dump(recipe_of(row))) == recipe_of(row)


@each_row
def test_a_model_has_the_papers_size_to_within_two_percent(row: Row) -> None:
    assert parameter_count(recipe_of(row)) == pytest.approx(row.parameters * 1e6, rel=0.02)


@each_row
def test_a_model_has_as_many_parameters_as_the_papers_sections_make(row: Row) -> None:
    recipe = recipe_of(row)
    assert parameter_count(recipe) == body(recipe.model) + recipe.tokenizer.vocab_size * recipe.model.d_model


def test_one_vocabulary_explains_every_development_row_to_the_last_digit_and_37000_none() -> None:
    ranges = {found.name: implied(found) for found in STATED if found.name != "big"}
    common = range(max(sizes.start for sizes in ranges.values()), min(sizes.stop for sizes in ranges.values()))
    assert len(ranges) == 10
    assert (common.start, common.stop - 1) == (40_932, 41_160)
    assert DEVELOPMENT_VOCABULARY in common
    assert not [name for name, sizes in ranges.items() if SAID_VOCABULARY in sizes]


def test_the_least_squares_vocabulary_of_the_development_rows_is_near() -> None:
    """The size that makes the squared differences from the paper's ten counts, as shares of them, smallest."""
    rows = [found for found in STATED if found.name != "big"]
    models = [recipe_of(found).model for found in rows]
    slopes = [model.d_model / (found.parameters * 1e6) for found, model in zip(rows, models, strict=True)]
    rest = [1 - body(model) / (found.parameters * 1e6) for found, model in zip(rows, models, strict=True)]
    best = sum(a * b for a, b in zip(slopes, rest, strict=True)) / sum(a * a for a in slopes)
    assert best == pytest.approx(41_094, abs=1)


def test_no_vocabulary_brings_every_row_within_two_percent() -> None:
    """Big's count goes with a smaller one."""
    (big,) = (found for found in ROWS if found.name == "big")
    sizes = implied(big)
    assert (sizes.start, sizes.stop - 1) == (35_296, 36_272)

    def fit(row: Row) -> tuple[float, float]:
        model = recipe_of(row).model
        low, high = ((share * row.parameters * 1e6 - body(model)) / model.d_model for share in (0.98, 1.02))
        return low, high

    assert max(fit(found)[0] for found in STATED) > min(fit(found)[1] for found in STATED)


def test_the_base_of_the_rows_is_the_recipe_of_the_base_model() -> None:
    assert load(RECIPES / "wmt14-en-de-base.yaml") == BASE


def test_the_big_row_is_the_model_of_the_big_recipe() -> None:
    big, whole = recipe_of(row("big")), load(RECIPES / "wmt14-en-de-big.yaml")
    assert big.model == whole.model
    assert (big.tokenizer, big.train.steps) == (whole.tokenizer, whole.train.steps)


@each_row
def test_the_rows_are_scored_as_the_paper_did(row: Row) -> None:
    """6.2: on the development set newstest2013, without averaging checkpoints."""
    recipe = recipe_of(row)
    assert recipe.average.last == 1
    assert recipe.data.test == {"newstest2013": recipe.data.valid}


@each_row
def test_a_row_varies_another_recipe_as_it_varies_the_papers(row: Row) -> None:
    base = load(MULTI30K)
    recipe = recipe_of(row, base)
    assert (recipe.data, recipe.tokenizer, recipe.run) == (base.data, base.tokenizer, f"{base.run}-{row.name}")
    of_the_paper = {one.split(" = ")[0] for one in differences(recipe_of(row), BASE)}
    assert {one.split(" = ")[0] for one in differences(recipe, base)} == of_the_paper - (
        {"P_drop"} if row.name == "big" else set()  # its 0.3 is what this base has already
    )


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("A2", ["h = 2", "d_k = 64", "d_v = 64"]),
        ("B1", ["d_k = 8"]),
        ("C1", ["N = 1"]),
        ("C5", ["d_model = 256", "d_k = 64", "d_v = 64"]),
        ("D2", ["P_drop = 0.2"]),
        ("E", ["positions = learned"]),
        ("big", ["d_model = 256", "d_ff = 512", "h = 8", "steps = 24,000"]),
    ],
)
def test_sizes_are_multiplied_and_rates_and_kinds_are_taken(name: str, told: list[str]) -> None:
    base = load(MULTI30K)
    assert differences(recipe_of(row(name), base), base) == told


def test_encoder_and_decoder_are_varied_each_by_itself() -> None:
    base = load(MULTI30K, ["model.layers={encoder: 12, decoder: 3}"])
    assert differences(recipe_of(row("C2"), base), base) == ["N = 8+2"]


def test_learned_positions_reach_as_far_as_the_text_that_is_trained_on() -> None:
    assert recipe_of(row("e"), load(MULTI30K, ["data.max_length=400"])).model.max_positions == 401


ODD = "{d_model: 66, heads: 6}"
CANNOT_BE = "model.d_model: must be a multiple of 2, found 33"


def test_a_base_that_a_row_does_not_suit_is_told() -> None:
    with pytest.raises(RecipeError) as caught:
        recipe_of(row("C4"), load(MULTI30K, [f"model={ODD}"]), "mine.yaml")
    assert str(caught.value) == f"mine.yaml: row C4 of table 3 cannot be: {CANNOT_BE}"


def odd_base(folder: Path) -> Path:
    """A recipe that some rows do not suit."""
    base = folder / "mine.yaml"
    base.write_text(
        f"run: run\ndata: {{source: a, target: b, train: t, valid: v}}\ntokenizer: {{vocab_size: 1000}}\nmodel: {ODD}\n"
    )
    return base


def test_a_row_that_does_not_suit_the_base_is_told_in_its_place_and_the_table_goes_on(
    server: Server, tmp_path: Path
) -> None:
    shell = Shell(server, tmp_path)
    odd_base(tmp_path)
    told = shell("table3", "--base", "mine.yaml").lines
    assert [line.split()[0] for line in told[1 : len(ROWS) + 1]] == list(TABLE)
    (line,) = (line for line in told if line.startswith("C4"))
    assert line == f"C4    cannot be: {CANNOT_BE}"
    entries = json.loads(shell("table3", "--base", "mine.yaml", "--json").out)
    assert entries[list(TABLE).index("C4")] == {"row": "C4", "cannot_be": CANNOT_BE}
    assert entries[0]["parameters"] == parameter_count(load(tmp_path / "mine.yaml"))
    assert shell.fails("table3", "C4", "--base", "mine.yaml").startswith("mine.yaml: row C4 of table 3 cannot be: ")


def test_beside_another_base_the_papers_figures_are_left_out(server: Server, tmp_path: Path) -> None:
    shell = Shell(server, tmp_path)
    told = shell("table3", "--base", MULTI30K).lines
    assert told[0].split() == ["row", "differs", "in", "vocabulary", "parameters"]
    assert not [line for line in told if "PPL" in line or "4.92" in line]
    assert "paper" not in json.loads(shell("table3", "--base", MULTI30K, "--json").out)[0]


def test_the_command_prints_every_row_with_both_counts(server: Server, tmp_path: Path) -> None:
    told = Shell(server, tmp_path)("table3").lines
    assert [line.split()[0] for line in told[1 : len(ROWS) + 1]] == list(TABLE)
    (line,) = (line for line in told if line.startswith("C1"))
    assert line.split() == ["C1", *"N=2", "40,960", "35.7", "36", "-0.9", "%", "33.7", "-6.5", "%", "6.11", "23.7"]


def test_the_page_shows_what_the_command_prints(server: Server, tmp_path: Path) -> None:
    page = (RECIPES.parent / "docs" / "table3.md").read_text(encoding="utf-8")
    assert Shell(server, tmp_path)("table3").out.decode() in page
    for found in STATED:
        sizes = implied(found)
        cells = (found.name, f"{body(recipe_of(found).model):,}", found.millions, f"{sizes[0]:,} to {sizes[-1]:,}")
        assert f"| {' | '.join(map(str, cells))} |" in page


def test_the_command_prints_the_table_for_a_program(server: Server, tmp_path: Path) -> None:
    told = json.loads(Shell(server, tmp_path)("table3", "--json").out)
    assert [entry["row"] for entry in told] == list(TABLE)
    assert told[-1]["paper"] == {"millions": 213, "steps": 300_000, "perplexity": 4.33, "bleu": 26.4}
    assert told[0]["parameters"] == parameter_count(recipe_of(row("base")))


def test_the_command_prints_a_row_as_a_recipe(server: Server, tmp_path: Path) -> None:
    shell = Shell(server, tmp_path)
    printed = shell("table3", "c1").out.decode()
    assert loads(printed) == recipe_of(row("C1"))
    assert "row C1" in printed
    assert "N = 2" in printed
    varied = shell("table3", "C1", "--base", MULTI30K).out.decode()
    assert loads(varied) == recipe_of(row("C1"), load(MULTI30K))


def test_a_row_that_is_none_is_told_with_those_there_are(server: Server, tmp_path: Path) -> None:
    told = Shell(server, tmp_path).fails("table3", "F")
    assert told == f"table 3 has no row 'F': its rows are {', '.join(TABLE)}"
