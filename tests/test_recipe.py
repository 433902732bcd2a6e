"""A recipe says everything and is read strictly; a mistake is told with its file, line, key and mend."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nmt.errors import RecipeError
from nmt.recipe import Data, Depths, Model, Recipe, Section, Tokenizer, Tsv, dump, load, loads
from nmt.recipe.yaml12 import Place, parse

LISTED = {("data", "train"), ("data", "test")}  # the entries of these are explained together, above them
RECIPES = sorted((Path(__file__).parent.parent / "recipes").glob("*.yaml"))

GOOD = """\
run: runs/test
seed: 1
data:
  source: en
  target: de
  train:
    - data/one
    - {tsv: data/two.tsv}
  valid: data/valid
  test:
    news: data/news
tokenizer:
  type: bpe
  vocab_size: 4000
  shared: true
model:
  layers: 6
  d_model: 512
  heads: 8
  dropout: 0.1
  norm: post
  positions: sinusoidal
  max_positions: 1024
train:
  steps: 1000
  chunk_tokens: auto
  optimizer:
    betas: [0.9, 0.98]
    eps: 1e-9
  schedule:
    warmup: 4000
  label_smoothing: 0.1
  keep: 5
average:
  last: 5
decode:
  beam: 4
"""

# What stands in the recipe above, what is put in its place, and what is said of it: the line told of is the
# first of those put there. One row for every kind of mistake.
MISTAKES = [
    # a key that is none
    ("  label_smoothing: 0.1", "  label_smothing: 0.1",
     "train.label_smothing: unknown key; did you mean train.label_smoothing?"),
    ("  steps: 1000", "  warmup: 4000",
     "train.warmup: unknown key; did you mean train.schedule.warmup?"),
    ("seed: 1", "sede: 1", "sede: unknown key; did you mean seed?"),
    ("decode:", "xyz:",
     "xyz: unknown key; the keys of a recipe are run, seed, data, tokenizer, model, train, "
     "average, decode"),
    ("    - {tsv: data/two.tsv}", "    - {tsv: data/two.tsv, gz: true}",
     "data.train[1].gz: unknown key; the keys of data.train[1] are languages, tag, weight, tsv"),
    # a key that must be there, or be there once
    ("data:\n  source: en\n", "data:\n",
     "data.source: must be given: the language translated from, as file names end: en reads PREFIX.en"),
    ("tokenizer:\n  type: bpe\n  vocab_size: 4000\n", "tokenizer:\n  type: bpe\n",
     "tokenizer.vocab_size: must be given: entries in all, of which 256 spell single bytes and 4 are "
     "special; of each side when not shared"),
    ("  layers: 6", "  layers: {encoder: 6}", "model.layers.decoder: must be given: layers of the decoder"),
    ("  beam: 4", "  beam: 4\n  beam: 5", "decode.beam: must be given once, first given at r.yaml:37"),
    # a value of another type
    ("run: runs/test", "run: 2014", 'run: must be text, found 2014; did you mean "2014"?'),
    ("run: runs/test", "run: true", 'run: must be text, found true; did you mean "true"?'),
    ("run: runs/test", 'run: ""', 'run: must not be empty, found ""'),
    ("  steps: 1000", "  steps: many", 'train.steps: must be a whole number, found "many"'),
    ("  steps: 1000", "  steps: true", "train.steps: must be a whole number, found true"),
    ("  steps: 1000", "  steps: 1e3",
     "train.steps: must be a whole number, found 1000.0; did you mean 1000?"),
    ("  steps: 1000", "  steps: 0.5", "train.steps: must be a whole number, found 0.5"),
    ("  steps: 1000", "  steps: 1_000",
     'train.steps: must be a whole number, found "1_000"; did you mean 1000?'),
    ("  steps: 1000", "  steps:", "train.steps: must be a whole number, found nothing"),
    ("  dropout: 0.1", '  dropout: "0.1"', 'model.dropout: must be a number, found "0.1"; did you mean 0.1?'),
    ("  dropout: 0.1", "  dropout: false", "model.dropout: must be a number, found false"),
    ("  dropout: 0.1", "  dropout: 1e999", "model.dropout: must be a finite number, found Infinity"),
    ("  shared: true", "  shared: yes",
     'tokenizer.shared: must be true or false, found "yes"; did you mean true?'),
    ("  shared: true", "  shared: 1", "tokenizer.shared: must be true or false, found 1"),
    ("average:\n  last: 5", "average: 5", "average: must be a section of keys, found 5"),
    ("  test:\n    news: data/news", "  test: data/news",
     'data.test: must be a section of keys, found "data/news"'),
    ("    news: data/news", "    a/b: data/news",
     "data.test.a/b: must be a name of letters, digits and . _ -, a letter or digit first, found \"a/b\""),
    ("    betas: [0.9, 0.98]", "    betas: [0.9]",
     "train.optimizer.betas: must be two numbers, [β1, β2], found [0.9]"),
    ("    betas: [0.9, 0.98]", "    betas: 0.9",
     "train.optimizer.betas: must be two numbers, [β1, β2], found 0.9"),
    # a value where several kinds may stand
    ("  chunk_tokens: auto", "  chunk_tokens: fast",
     'train.chunk_tokens: must be auto or a whole number, found "fast"'),
    ("  layers: 6", "  layers: six",
     'model.layers: must be a whole number, or {encoder: N, decoder: N}, found "six"'),
    ("  valid: data/valid", "  valid: 5",
     "data.valid: must be the PREFIX of two files PREFIX.SOURCE and PREFIX.TARGET, "
     "or one of {tsv: FILE}, {jsonl: FILE}, {tmx: FILE}, {xliff: FILE}, found 5"),
    ("    - data/one", "    - 1",
     "data.train[0]: must be the PREFIX of two files PREFIX.SOURCE and PREFIX.TARGET, "
     "or one of {tsv: FILE}, {jsonl: FILE}, {tmx: FILE}, {xliff: FILE}, "
     "found 1"),
    # a value out of its range
    ("  beam: 4", "  beam: 0", "decode.beam: must be at least 1, found 0"),
    ("  dropout: 0.1", "  dropout: 1", "model.dropout: must be below 1, found 1"),
    ("  vocab_size: 4000", "  vocab_size: 2000000",
     "tokenizer.vocab_size: must be at most 1000000, found 2000000"),
    ("    eps: 1e-9", "    eps: 0", "train.optimizer.eps: must be above 0, found 0"),
    ("    betas: [0.9, 0.98]", "    betas: [0.9, 1]", "train.optimizer.betas[1]: must be below 1, found 1"),
    ("  d_model: 512", "  d_model: 500.5", "model.d_model: must be a whole number, found 500.5"),
    ("  d_model: 512", "  d_model: 511", "model.d_model: must be a multiple of 2, found 511"),
    ("  train:\n    - data/one\n    - {tsv: data/two.tsv}", "  train: []",
     "data.train: must have at least 1 entry, found []"),
    ("  norm: post", "  norm: prae", 'model.norm: must be post or pre, found "prae"; did you mean pre?'),
    ("  type: bpe", "  type: unigram", 'tokenizer.type: must be bpe, found "unigram"'),
    # keys that do not go together, told where one of them is written
    ("  heads: 8", "  heads: 7", "model.heads: must divide model.d_model (512), found 7"),
    ("  d_model: 512\n  heads: 8", "  d_model: 500", "model.heads: must divide model.d_model (500), found 8"),
    ("  last: 5", "  last: 6", "average.last: must be at most train.keep (5), found 6"),
    ("  shared: true", "  shared: false",
     'model.embeddings: must be decoder or separate, for tokenizer.shared is false, found "shared"'),
    ("  positions: sinusoidal\n  max_positions: 1024", "  max_positions: 256\n  positions: learned",
     "model.max_positions: must be above data.max_length (256), for a sentence and its end, found 256"),
    ("  target: de", "  target: en", 'data.target: must differ from data.source, found "en"'),
    # text that is no recipe at all
    ("  norm: post", "\tnorm: post", "not YAML: found character '\\t' that cannot start any token"),
    ("  norm: post", "  norm: post: post", "not YAML: mapping values are not allowed here"),
    ("  norm: post", "  norm: \x01", "not YAML: a character that may not stand in a text, '\\x01'"),
    ("average:", "average: &name",
     "not YAML: anchors, aliases and tags have no place in a recipe: write the value out"),
    ("  steps: 1000", "  steps: !!int 1000",
     "not YAML: anchors, aliases and tags have no place in a recipe: write the value out"),
    ("seed: 1", "[seed]: 1", "a recipe: a key must be text, found more than that"),
]  # fmt: skip


def wrong(text: str, *overrides: str) -> list[str]:
    """The lines that reading the text as r.yaml is refused with."""
    with pytest.raises(RecipeError) as told:
        loads(text, "r.yaml", overrides)
    return str(told.value).split("\n")


@pytest.mark.parametrize(("stands", "put", "said"), MISTAKES, ids=[said[:60] for *_, said in MISTAKES])
def test_each_mistake_is_told_with_its_file_line_key_and_mend(stands: str, put: str, said: str) -> None:
    assert GOOD.count(stands) == 1
    line = GOOD[: GOOD.index(stands)].count("\n") + 1 + ("once" in said)  # the second of two is the mistake
    assert wrong(GOOD.replace(stands, put)) == [f"r.yaml:{line}: {said}"]


def test_all_mistakes_are_told_at_once_in_the_order_of_the_file() -> None:
    text = GOOD
    for stands, put in [("seed: 1", "seed: one"), ("heads: 8", "heads: 7"), ("beam: 4", "baem: 4"),
                        ("type: bpe", "type: bpe\n  type: bpe")]:  # fmt: skip
        text = text.replace(stands, put)
    assert [line.split(": ")[:2] for line in wrong(text, "train.keep=-1")] == [
        ["r.yaml:2", "seed"],
        ["r.yaml:14", "tokenizer.type"],
        ["r.yaml:20", "model.heads"],
        ["r.yaml:38", "decode.baem"],
        ["--set train.keep=-1", "train.keep"],
    ]


def test_the_unchanged_recipe_of_the_table_is_right() -> None:
    assert loads(GOOD).data.train == ("data/one", Tsv(tsv="data/two.tsv"))


@pytest.mark.parametrize(
    ("text", "found"),
    [("", "nothing"), ("# only a comment\n", "nothing"), ("- a", '["a"]'), ("word", '"word"')],
)
def test_a_text_without_sections_is_told(text: str, found: str) -> None:
    assert wrong(text) == [f"r.yaml:1: must have sections such as data and tokenizer, found {found}"]


def test_a_text_nested_without_end_is_told() -> None:
    assert wrong("[" * 10_000)[0].startswith("r.yaml:1: not YAML: ")


def test_a_mistake_is_one_line_whatever_the_key_and_value_hold() -> None:
    assert len(wrong(GOOD + '"a\\nb\\u2028": "c\\nd"\n')) == 1


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"none.yaml: cannot be read: No such file or directory"):
        load(tmp_path / "none.yaml")
    with pytest.raises(RecipeError, match="must be a recipe file, found a folder"):
        load(tmp_path)
    (tmp_path / "latin1.yaml").write_bytes(b"run: a\ndata: \xe9\n")
    with pytest.raises(RecipeError, match=r"latin1.yaml:2: not UTF-8: save the file as UTF-8 text"):
        load(tmp_path / "latin1.yaml")


def test_a_byte_order_mark_and_windows_line_ends_are_read_over(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_bytes(b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode())
    assert load(tmp_path / "r.yaml") == loads(GOOD)


@pytest.mark.parametrize(
    ("said", "value"),
    [
        ("1e-9", 1e-9), ("1.0e-9", 1e-9), ("1E5", 1e5), (".5", 0.5), ("5.", 5.0), ("0", 0), ("010", 10),
        ("-3", -3), ("true", True), ("False", False), ("no", "no"), ("on", "on"), ("yes", "yes"), ("y", "y"),
        ("1:30", "1:30"), ("2014-01-01", "2014-01-01"), ("1_000", "1_000"), ("0x10", "0x10"), ("~", None),
        ("null", None), ("'1'", "1"), ('"true"', "true"), ("<<", "<<"), ("=", "="), ("1e", "1e"), (".", "."),
    ],
)  # fmt: skip
def test_a_scalar_is_what_it_looks_like(said: str, value: Any) -> None:
    found = parse(said, lambda line: Place(line, "")).value
    assert (type(found), found) == (type(value), value)


def test_norwegian_is_a_language_and_a_year_is_a_name() -> None:
    recipe = loads(GOOD.replace("target: de", "target: no").replace("news:", "2014:"))
    assert recipe.data.target == "no"
    assert recipe.data.test == {"2014": "data/news"}


def test_a_corpus_alone_is_a_list_of_one() -> None:
    text = GOOD.replace("  train:\n    - data/one\n    - {tsv: data/two.tsv}", "  train: {tsv: two}")
    assert loads(text).data.train == (Tsv(tsv="two"),)


def test_layers_are_one_number_or_two() -> None:
    assert (Model(layers=3).encoder_layers, Model(layers=3).decoder_layers) == (3, 3)
    deep = Model(layers=Depths(encoder=12, decoder=2))
    assert (deep.encoder_layers, deep.decoder_layers) == (12, 2)


def test_a_recipe_does_not_change_once_made() -> None:
    with pytest.raises(ValueError, match="frozen"):
        loads(GOOD).seed = 2


def test_an_override_says_anew_what_the_file_says() -> None:
    overrides = ["train.steps=7", "model.layers.encoder=2", "model.layers.decoder=1"]
    overrides += [
        "data.train=[a, {tsv: b}]",
        "train.optimizer={eps: 1e-6}",
        "train.steps=8",
        "run=runs/other=1",
    ]
    recipe = loads(GOOD, overrides=overrides)
    assert recipe.train.steps == 8
    assert (recipe.model.encoder_layers, recipe.model.decoder_layers) == (2, 1)
    assert recipe.data.train == ("a", Tsv(tsv="b"))
    assert recipe.train.optimizer.eps == 1e-6
    assert recipe.run == "runs/other=1"


def test_an_override_mends_a_mistake_of_the_file() -> None:
    assert loads(GOOD.replace("beam: 4", "beam: four"), overrides=["decode.beam=4"]) == loads(GOOD)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("train.stpes=5", "train.stpes: unknown key; did you mean train.steps?"),
        ("trian.steps=5", "trian: unknown key; did you mean train?"),
        ("train.steps=five", 'train.steps: must be a whole number, found "five"'),
        ("train.steps=", "train.steps: must be a whole number, found nothing"),
        ("train=5", "train: must be a section of keys, found 5"),
        ("model.heads=7", "model.heads: must divide model.d_model (512), found 7"),
        ("train.keep=4", "average.last: must be at most train.keep (4), found 5"),
        ("model.layers.encoder=2", "model.layers.decoder: must be given: layers of the decoder"),
        ("decode={beam: 4, beam: 5}",
         "decode.beam: must be given once, first given at --set decode={beam: 4, beam: 5}"),
        ("data.train=[a", "not YAML: expected ',' or ']', but got '<stream end>'"),
        ("train.steps", "must be section.key=value, such as train.steps=1000"),
        ("=5", "must be section.key=value, such as train.steps=1000"),
        ("train..steps=5", "must be section.key=value, such as train.steps=1000"),
    ],
)  # fmt: skip
def test_a_mistake_in_an_override_is_told_with_the_override(override: str, said: str) -> None:
    place = "r.yaml:35" if said.startswith("average.last") else f"--set {override}"
    assert wrong(GOOD, override) == [f"{place}: {said}"]


names = st.from_regex(r"\A[a-z0-9_][a-z0-9_.-]{0,8}\Z").filter(lambda name: not name.startswith("."))
text = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
corpora = text | st.builds(Tsv, tsv=text)
counts = st.integers(1, 99)
rates = st.floats(0, 1, exclude_max=True)
positive = st.floats(0, exclude_min=True, allow_infinity=False)


@st.composite
def recipes(draw: st.DrawFn) -> Recipe:
    source, target = draw(st.lists(names, min_size=2, max_size=2, unique=True))
    layers = draw(st.integers(1, 99) | st.builds(Depths, encoder=st.integers(1, 99), decoder=st.integers(1, 99)))
    train = {
        "chunk_tokens": draw(st.just("auto") | st.integers(1, 10**6)),
        "label_smoothing": draw(rates),
        "optimizer": {"betas": (draw(rates), draw(rates)), "eps": draw(positive)},
    }
    return Recipe(
        run=draw(text),
        data=Data(
            source=source,
            target=target,
            train=tuple(draw(st.lists(corpora, min_size=1, max_size=3))),
            valid=draw(corpora),
            test=draw(st.dictionaries(names, corpora, max_size=3)),
        ),
        tokenizer=Tokenizer(vocab_size=draw(st.integers(300, 10**6))),
        model=Model(layers=layers, dropout=draw(rates)),
        train=train,  # type: ignore[arg-type]
    )


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(recipes())
def test_a_recipe_dumped_and_loaded_is_the_same(recipe: Recipe) -> None:
    assert loads(dump(recipe)) == recipe


@pytest.mark.parametrize("run", ["\x85", "a\u2028b", "\0", "a\n\nb ", "\ufeff", "'\"#: ", "Übung/数据", "1e-9", "- a"])
def test_a_strange_name_survives_being_dumped_and_loaded(run: str) -> None:
    assert loads(dump(loads(GOOD).model_copy(update={"run": run}))).run == run


def test_a_dumped_recipe_reads_the_same_in_yaml_1_1() -> None:
    yaml = pytest.importorskip("yaml")
    recipe = loads(GOOD, overrides=["data.target='no'", "run='1e-9'", "data.test={'2014': 'on'}"])
    assert yaml.safe_load(dump(recipe)) == parse(dump(recipe), lambda line: Place(line, "")).value


def test_the_promised_recipes_are_there() -> None:
    named = {"quickstart", "multi30k-en-de", "wmt14-en-de-base", "wmt14-en-de-big", "wmt14-en-fr-big"}
    assert named <= {path.stem for path in RECIPES}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_is_whole(path: Path) -> None:
    """It states every key: written out with all defaults, it says what it said before."""
    said = parse(path.read_text(encoding="utf-8"), lambda line: Place(line, "")).value
    whole = parse(dump(load(path)), lambda line: Place(line, "")).value
    if isinstance(said["data"]["train"], str):
        said["data"]["train"] = [said["data"]["train"]]
    assert said == whole


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_explains_every_key_on_its_line(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").split("\n")
    said = parse("\n".join(lines), lambda line: Place(line, "")).places
    last = [key for key in said if not any(other[:-1] == key for other in said)]
    bare = {key for key in last if " # " not in lines[said[key].order - 1] and key[:2] not in LISTED}
    assert bare == set()


# "Attention Is All You Need": what it says of every recipe, and of the models it names, by section or table.
PAPER = {
    "model.layers": (6, 6, 6),  # table 3
    "model.d_model": (512, 1024, 1024),  # table 3
    "model.heads": (8, 16, 16),  # table 3
    "model.d_ffn": (2048, 4096, 4096),  # table 3
    "model.dropout": (0.1, 0.3, 0.1),  # table 3; 6.1 for English-French
    "model.norm": ("post", "post", "post"),  # 3.1
    "model.positions": ("sinusoidal", "sinusoidal", "sinusoidal"),  # 3.5
    "model.embeddings": ("shared", "shared", "shared"),  # 3.4
    "tokenizer.vocab_size": (37_000, 37_000, 32_000),  # 5.1
    "tokenizer.shared": (True, True, True),  # 5.1
    "train.batch_tokens": (25_000, 25_000, 25_000),  # 5.1
    "train.steps": (100_000, 300_000, 300_000),  # 5.2
    "train.optimizer.betas": ((0.9, 0.98), (0.9, 0.98), (0.9, 0.98)),  # 5.3
    "train.optimizer.eps": (1e-9, 1e-9, 1e-9),  # 5.3
    "train.schedule.warmup": (4000, 4000, 4000),  # 5.3
    "train.schedule.scale": (1.0, 1.0, 1.0),  # 5.3
    "train.label_smoothing": (0.1, 0.1, 0.1),  # 5.4
    "average.last": (5, 20, 20),  # 6.1
    "decode.beam": (4, 4, 4),  # 6.1
    "decode.length_penalty": (0.6, 0.6, 0.6),  # 6.1
    "decode.penalty_form": ("gnmt", "gnmt", "gnmt"),  # 6.1, after Wu et al. 2016
    "decode.max_extra": (50, 50, 50),  # 6.1
}


def value(recipe: Recipe, key: str) -> Any:
    found: Any = recipe
    for name in key.split("."):
        found = getattr(found, name)
    return found


@pytest.mark.parametrize("key", PAPER)
def test_the_wmt14_recipes_are_the_papers(key: str) -> None:
    recipes = [load(path) for path in RECIPES if path.stem.startswith("wmt14")]
    assert tuple(value(recipe, key) for recipe in recipes) == PAPER[key]


@pytest.mark.parametrize("key", [key for key in PAPER if key != "tokenizer.vocab_size"])
def test_a_key_left_out_has_the_value_of_the_papers_base_model(key: str) -> None:
    bare = loads("{run: r, data: {source: a, target: b, train: c, valid: d}, tokenizer: {vocab_size: 300}}")
    assert value(bare, key) == PAPER[key][0]


def undocumented(section: type[Section]) -> Iterator[str]:
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            yield from undocumented(field.annotation)
        elif not field.description:
            yield f"{section.__name__}.{name}"


def test_every_key_is_documented() -> None:
    assert list(undocumented(Recipe)) == []


def test_reading_a_recipe_does_not_wait_for_torch() -> None:
    code = "import sys, nmt.recipe; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
