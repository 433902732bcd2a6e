"""The recipes of table 3 of "Attention Is All You Need" (Vaswani et al., 2017): the base model, varied.

`ROWS` is the whole table. A row is what it changes in the base recipe, as `--set` would, and the paper's figures.
`Table` puts beside them how many parameters we count.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from pydantic import ValidationError

from nmt.errors import RecipeError
from nmt.recipe.mistakes import mistakes
from nmt.recipe.reading import dump, loads
from nmt.recipe.schema import Recipe
from nmt.recipe.yaml12 import Place, parse

Count = Callable[[Recipe], int]
"""How many parameters the model of a recipe has: `parameter_count` of nmt/model/size.py, for this room has no torch."""

# recipes/wmt14-en-de-base.yaml without the keys that have the default value, which is the paper's.
_BASE = """
run: runs/wmt14-en-de-base
data:
  source: en
  target: de
  train:
    - data/wmt14/training/europarl-v7.de-en
    - data/wmt14/commoncrawl.de-en
    - data/wmt14/training/news-commentary-v9.de-en
  valid: data/wmt14/newstest2013
  test: {newstest2014: data/wmt14/newstest2014-ende}
tokenizer: {vocab_size: 37000}
train: {valid_every: 1500, checkpoint_every: 1250}
"""
BASE = loads(_BASE, "the base recipe of table 3")
"""The paper's base model as it is trained in section 5, which is recipes/wmt14-en-de-base.yaml."""

SAID_VOCABULARY = 37_000
"""The vocabulary that section 5.1 speaks of: about 37,000."""
DEVELOPMENT_VOCABULARY = 40_960
"""The vocabulary that the parameter counts of table 3 imply, those of all rows but big.

Each count, rounded to a million as it is, leaves a range of sizes. The ranges of all ten have 40,932 to 41,160 in
common (`tests/test_table3.py` works it out), and 37,000 lies in none of them. 40,960 is the size that the authors'
first release of their code gives its WMT English-German BPE data, `wmt_ende_bpe32k` (tensorflow/tensor2tensor, issue
55). That it is the one of table 3 is our reading: the paper does not say so. Big's 213 million imply another size,
35,296 to 36,272.
"""

_ALL_ROWS = ("average.last=1",)  # "no checkpoint averaging" (6.2)
_NEWSTEST = ("data.test={newstest2013: data/wmt14/newstest2013}",)  # the development set is what is scored (6.2)
_OWN_WIDTH = (
    "model.d_k=auto",
    "model.d_v=auto",
)  # d_model / heads: in these rows the paper's d_k and d_v are just that

# A key that says a size: for another base recipe it is multiplied as the paper multiplies its own.
_SIZES = {
    "model.layers",
    "model.d_model",
    "model.heads",
    "model.d_k",
    "model.d_ffn",
    "model.max_positions",
    "train.steps",
}

_MULTIPLIED = "Sizes are multiplied as the paper multiplies its own; text and vocabulary are the base recipe's."


class Row(NamedTuple):
    """A row of the table."""

    name: str
    """Ours: the paper's letter, and a number where it has several rows."""
    changes: tuple[str, ...]
    """What it changes in the base recipe, as KEY=VALUE."""
    perplexity: float
    """On newstest2013, per subword."""
    bleu: float
    """On newstest2013."""
    millions: int | None = None
    """Of parameters; None where the paper leaves the cell blank, for it is that of base."""
    steps: int = 100_000
    """Updates."""
    vocabulary: int = DEVELOPMENT_VOCABULARY
    """Subwords that the paper's number of parameters goes with."""

    @property
    def parameters(self) -> int:
        """The paper's number of parameters, in millions; base's where the cell is blank."""
        return self.millions or BASE_MILLIONS


BASE_MILLIONS = 65

ROWS = (
    Row("base", (), 4.92, 25.8, BASE_MILLIONS),
    # (A) heads; d_k = d_v = 512, 128, 32, 16, so that the computation stays the same
    Row("A1", ("model.heads=1", *_OWN_WIDTH), 5.29, 24.9),
    Row("A2", ("model.heads=4", *_OWN_WIDTH), 5.00, 25.5),
    Row("A3", ("model.heads=16", *_OWN_WIDTH), 4.91, 25.8),
    Row("A4", ("model.heads=32", *_OWN_WIDTH), 5.01, 25.4),
    # (B) the width of queries and keys alone
    Row("B1", ("model.d_k=16",), 5.16, 25.1, 58),
    Row("B2", ("model.d_k=32",), 5.01, 25.4, 60),
    # (C) the size: depth, width, inner width; with d_model go d_k = d_v = 32 and 128
    Row("C1", ("model.layers=2",), 6.11, 23.7, 36),
    Row("C2", ("model.layers=4",), 5.19, 25.3, 50),
    Row("C3", ("model.layers=8",), 4.88, 25.5, 80),
    Row("C4", ("model.d_model=256", *_OWN_WIDTH), 5.75, 24.5, 28),
    Row("C5", ("model.d_model=1024", *_OWN_WIDTH), 4.66, 26.0, 168),
    Row("C6", ("model.d_ffn=1024",), 5.12, 25.4, 53),
    Row("C7", ("model.d_ffn=4096",), 4.75, 26.2, 90),
    # (D) regularisation: dropout, then label smoothing
    Row("D1", ("model.dropout=0.0",), 5.77, 24.6),
    Row("D2", ("model.dropout=0.2",), 4.95, 25.5),
    Row("D3", ("train.label_smoothing=0.0",), 4.67, 25.3),
    Row("D4", ("train.label_smoothing=0.2",), 5.47, 25.7),
    # (E) learned positions; the paper does not say how many: as many as the longest sentence has, and its end
    Row("E", ("model.positions=learned", "model.max_positions=257"), 4.92, 25.7),
    Row(
        "big",
        (
            "model.d_model=1024",
            "model.d_ffn=4096",
            "model.heads=16",
            *_OWN_WIDTH,
            "model.dropout=0.3",
            "train.steps=300000",
        ),
        4.33,
        26.4,
        213,
        steps=300_000,
        vocabulary=SAID_VOCABULARY,
    ),
)


def row(name: str) -> Row:
    """The row of that name, in upper or lower case. Raises `RecipeError`, which names them all."""
    for found in ROWS:
        if found.name.lower() == name.lower():
            return found
    names = ", ".join(found.name for found in ROWS)
    raise RecipeError(f"table 3 has no row {name!r}: its rows are {names}")


def recipe_of(row: Row, base: Recipe | None = None, name: str = "the base recipe") -> Recipe:
    """The recipe of a row: the paper's, or as the row would change the recipe `base`, which errors call `name`.

    Of another base only the model and its training change. Sizes (layers, widths, heads, updates) are multiplied by
    what the paper multiplies its own by, and rounded to a whole number, at least 1. Rates and kinds become what the row
    says.
    Raises `RecipeError` where the base does not allow the change.
    """
    try:
        return _recipe_of(row, base)
    except RecipeError as error:
        raise RecipeError(f"{name}: row {row.name} of table 3 cannot be: {error}") from None


def differences(recipe: Recipe, base: Recipe) -> list[str]:
    """What a row's model and training have other than its base, in the paper's symbols: h = 1, d_k = 512."""
    ours, theirs = (_in_symbols(one) for one in (recipe, base))
    return [f"{symbol} = {value}" for symbol, value in ours.items() if value != theirs[symbol]]


def commented(row: Row, count: Count, base: Recipe | None = None, name: str = "the base recipe") -> str:
    """The recipe of a row as YAML, with a comment above that says what it is. Otherwise as `recipe_of`."""
    recipe = recipe_of(row, base, name)
    of, by = (name, ", for this row of its own base model") if base else ("the paper's base model", "")
    lines = [
        f'# Table 3 of "Attention Is All You Need" (Vaswani et al., 2017), row {row.name}.',
        "#",
        f"# Differs from {of} in: {', '.join(differences(recipe, base or BASE)) or 'nothing'}.",
        f"# The paper{by}, on newstest2013, the last checkpoint alone: perplexity {row.perplexity:.2f} per subword, "
        f"BLEU {row.bleu:.1f}; {row.parameters} million parameters.",
        f"# This recipe: {_millions(count(recipe))} million parameters with a vocabulary of "
        f"{recipe.tokenizer.vocab_size:,}.",
        *([f"# {_MULTIPLIED}"] if base else []),
    ]
    return "\n".join([*lines, "", dump(recipe)])


class Entry(NamedTuple):
    """A row of the table with what we count; where the base recipe does not allow it, only the reason."""

    row: Row
    differences: list[str]
    vocabulary: int = 0
    parameters: int = 0
    with_said_vocabulary: int = 0
    """The parameters with the vocabulary of section 5.1; nothing for another base than the paper's."""
    reason: str = ""


class Table(NamedTuple):
    """The whole table, of the paper's base model or of another."""

    entries: list[Entry]
    base: str = ""
    """The name of the other base; empty for the paper's."""

    @classmethod
    def of(cls, count: Count, base: Recipe | None = None, name: str = "the base recipe") -> "Table":
        """The table, with `count` to say how many parameters the model of a recipe has."""
        return cls([_entry(row, count, base) for row in ROWS], name if base else "")

    @property
    def title(self) -> str:
        """What it is."""
        return "Table 3 of “Attention Is All You Need”" + (self.base and f", of {self.base}")

    @property
    def headings(self) -> list[str]:
        """Of the columns; the first two are words, the others numbers."""
        papers = ["paper", "off by", "with 37,000", "off by", "PPL", "BLEU"]
        return ["row", "differs in", "vocabulary", "parameters", *([] if self.base else papers)]

    @property
    def cells(self) -> list[list[str]]:
        """Of each row."""
        return [_cells(entry) for entry in self.entries]

    @property
    def notes(self) -> list[str]:
        """What to know in order to read it."""
        if self.base:
            return [_MULTIPLIED, "Parameters are in millions."]
        return [
            "PPL and BLEU are the paper's, on newstest2013; parameters are in millions.",
            "(65): blank in the paper, which means that of base. Vocabularies: docs/table3.md.",
        ]

    def lines(self) -> list[str]:
        """The table as plain text, with its notes."""
        rows = [self.headings, *self.cells]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        aligned = []
        for row in rows:
            columns = enumerate(zip(row, widths, strict=True))
            cells = [cell.ljust(width) if i < 2 else cell.rjust(width) for i, (cell, width) in columns]
            aligned.append("  ".join(cells).rstrip())
        return [*aligned, "", *self.notes]

    def to_json(self) -> list[dict[str, Any]]:
        """The rows as values that `json` can write."""
        return [_values(entry) for entry in self.entries]


def _entry(row: Row, count: Count, base: Recipe | None) -> Entry:
    try:
        recipe = _recipe_of(row, base)
    except RecipeError as error:
        return Entry(row, [], reason=str(error))
    said = recipe.tokenizer.model_copy(update={"vocab_size": SAID_VOCABULARY})
    with_said = 0 if base else count(recipe.model_copy(update={"tokenizer": said}))
    changes = differences(recipe, base or BASE)
    return Entry(row, changes, recipe.tokenizer.vocab_size or 0, count(recipe), with_said)


def _cells(entry: Entry) -> list[str]:
    row = entry.row
    if entry.reason:
        return [row.name, f"cannot be: {entry.reason}", "", ""]
    cells = [row.name, ", ".join(entry.differences) or "—", f"{entry.vocabulary:,}", _millions(entry.parameters)]
    if not entry.with_said_vocabulary:
        return cells
    cells += [f"{row.millions}" if row.millions else f"({row.parameters})", _off(entry.parameters, row)]
    cells += [_millions(entry.with_said_vocabulary), _off(entry.with_said_vocabulary, row)]
    return [*cells, f"{row.perplexity:.2f}", f"{row.bleu:.1f}"]


def _values(entry: Entry) -> dict[str, Any]:
    row = entry.row
    if entry.reason:
        return {"row": row.name, "cannot_be": entry.reason}
    values: dict[str, Any] = {"row": row.name, "differs": entry.differences}
    values |= {"parameters": entry.parameters, "vocabulary": entry.vocabulary}
    if not entry.with_said_vocabulary:
        return values
    paper = {name: getattr(row, name) for name in ("millions", "steps", "perplexity", "bleu")}
    return values | {"parameters_with_37000": entry.with_said_vocabulary, "paper": paper}


def _millions(parameters: int) -> str:
    return f"{parameters / 1e6:.1f}"


def _off(parameters: int, row: Row) -> str:
    """How far a count is from the paper's."""
    percent = round(100 * (parameters / (row.parameters * 1e6) - 1), 1)
    return f"{percent + 0.0:+.1f} %"  # -0.0 + 0.0 is 0.0


def _recipe_of(row: Row, base: Recipe | None) -> Recipe:
    """As `recipe_of`; what it raises says only what must hold."""
    if base is None:
        text = (f"tokenizer.vocab_size={row.vocabulary}", *_NEWSTEST)
        return _changed(BASE, row, (*row.changes, *_ALL_ROWS, *text))
    return _changed(base, row, (*(_scaled(change, base) for change in row.changes), *_ALL_ROWS))


def _changed(base: Recipe, row: Row, changes: tuple[str, ...]) -> Recipe:
    said = base.model_dump() | {"run": f"{base.run}-{row.name}"}
    for change in changes:
        key, _, value = change.partition("=")
        section, name = key.split(".")
        said[section][name] = parse(value, lambda line: Place(line, "table 3")).value
    try:
        return Recipe.model_validate(said)
    except ValidationError as error:
        told = (mistake.text for mistake in mistakes(error, {(): Place(0, "")}))
        raise RecipeError("; ".join(told)) from None


def _scaled(change: str, base: Recipe) -> str:
    """A change as it is for another base."""
    key, _, value = change.partition("=")
    if key not in _SIZES or value == "auto":
        return change
    sizes = [round(int(value) / paper * ours) for paper, ours in zip(_size(BASE, key), _size(base, key), strict=True)]
    anew = [max(1, size) for size in sizes]
    return f"{key}={anew[0]}" if len(set(anew)) == 1 else f"{key}={{encoder: {anew[0]}, decoder: {anew[1]}}}"


def _size(recipe: Recipe, key: str) -> tuple[int, ...]:
    """A size of the encoder and of the decoder."""
    if key == "model.layers":
        return recipe.model.encoder_layers, recipe.model.decoder_layers
    if key == "model.d_k":
        return (recipe.model.key_width,) * 2
    if key == "model.max_positions":
        return (recipe.data.max_length + 1,) * 2
    section, name = key.split(".")
    return (getattr(getattr(recipe, section), name),) * 2


def _in_symbols(recipe: Recipe) -> dict[str, object]:
    """The columns of the table."""
    model = recipe.model
    layers = dict.fromkeys((model.encoder_layers, model.decoder_layers))
    return {
        "N": "+".join(map(str, layers)),
        "d_model": model.d_model,
        "d_ff": model.d_ffn,
        "h": model.heads,
        "d_k": model.key_width,
        "d_v": model.value_width,
        "P_drop": model.dropout,
        "ε_ls": recipe.train.label_smoothing,
        "positions": model.positions,
        "steps": f"{recipe.train.steps:,}",
    }
