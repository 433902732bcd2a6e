"""What attention looks at in one sentence and its translation, and a web page that shows it.

Axes: H heads, Lq and Lk lengths of the queries and keys.
"""

import re
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from nmt.errors import NmtError
from nmt.model.device import pick_device, pick_precision
from nmt.model.folder import ModelFolder, load
from nmt.model.watching import unfolded, watched
from nmt.report import pages
from nmt.text import Tokenizer, Tokenizers, one_line
from nmt.translation import Translator
from nmt.translation.alignment import force

LONGEST = 128  # tokens a side: what is longer can be computed, but not be seen
DIGITS = 10_000  # weights are kept as whole numbers of this part of 1

Role = Literal["begins", "continues", "byte", "special"]
AXES = {"encoder": ("source", "source"), "decoder": ("written", "read"), "cross": ("written", "source")}
"""Of each kind of attention, which tokens look and which are looked at."""


class Token(NamedTuple):
    """A token as it is shown: its text, and whether it begins or continues a word, is a byte of one, or is no text."""

    text: str
    role: Role


class Choice(NamedTuple):
    """What of the attention is shown; layer and head count from 0. No layer: all of them; no head: their mean."""

    kind: str
    layer: int | None = None
    head: int | None = None


class Attention(NamedTuple):
    """A sentence, its translation, and the weights of a pass over both.

    tokens: of the "source"; "read", what the decoder is fed; and "written", what it says to that, each in its place.
    weights: of each kind of attention one array [H, Lq, Lk] a layer, with the tokens of `AXES`.
    facts: what there is to know about the model.
    """

    source: str
    target: str
    given: bool
    tokens: dict[str, list[Token]]
    weights: dict[str, list[NDArray[np.float32]]]
    languages: tuple[str, str]
    facts: dict[str, str]


def look(
    folder: Path, source: str, target: str | None = None, device: str = "auto", precision: str = "auto", **decode: Any
) -> Attention:
    """What the model in `folder` looks at in `source` and its translation `target`, which it makes if none is given.

    Keywords override keys of the recipe's `decode` section. Raises `NmtError` for a sentence that is blank, or longer
    than `LONGEST` tokens.
    """
    where = pick_device(device)
    loaded = load(folder, where)
    computing = pick_precision(precision, where)
    translator = Translator.of(loaded.model, loaded.tokenizers, loaded.recipe, where, computing)
    source_ids = _ids(loaded.tokenizers.source, source, "source")
    given = target is not None
    if target is None:
        target = translator.translate([source], split=False, on_suspect="off", **decode)[0]
    target_ids = _ids(loaded.tokenizers.target, target, "translation", may_be_blank=not given)
    with torch.inference_mode(), translator.computing(), watched(loaded.model) as seen:
        force(loaded.model, [source_ids], [target_ids], where)
    tokens = _tokens(loaded.tokenizers, source_ids, target_ids)
    lengths = {kind: len(tokens[rows]) for kind, (rows, _) in AXES.items()}
    heads = loaded.recipe.model.heads
    weights = {
        kind: [unfolded(layer, heads, lengths[kind]).float().numpy(force=True) for layer in layers]
        for kind, layers in seen.items()
    }
    languages = loaded.recipe.data.source, loaded.recipe.data.target
    return Attention(one_line(source), one_line(target), given, tokens, weights, languages, _facts(loaded, computing))


def page(attention: Attention, start: Choice, version: str) -> str:
    """The web page, whole in itself, that shows the attention and begins with what is chosen."""
    weights = {
        kind: [[np.rint(head * DIGITS).astype(int).ravel().tolist() for head in layer] for layer in layers]
        for kind, layers in attention.weights.items()
    }
    data = {
        "source": attention.source,
        "target": attention.target,
        "given": attention.given,
        "languages": attention.languages,
        "tokens": attention.tokens,
        "axes": AXES,
        "digits": DIGITS,
        "weights": weights,
        "facts": attention.facts | {"made by": f"nmt {version}"},
        "start": start._asdict(),
    }
    return pages.filled("attention.html", attention.source, data=pages.script_data(data))


def check(attention: Attention, choice: Choice) -> None:
    """Raises `NmtError` where the model has no such layer or head."""
    layers = attention.weights[choice.kind]
    if choice.layer is not None and not choice.layer < len(layers):
        where = "encoder" if choice.kind == "encoder" else "decoder"
        raise NmtError(f"--layer {choice.layer + 1}: the {where} of this model has the layers 1 to {len(layers)}")
    if choice.head is not None and not choice.head < len(layers[0]):
        raise NmtError(f"--head {choice.head + 1}: this model has the heads 1 to {len(layers[0])}")


def _ids(tokenizer: Tokenizer, line: str, what: str, may_be_blank: bool = False) -> list[int]:
    """The ids of the line. Raises `NmtError` where there is nothing to draw, or too much."""
    ids = tokenizer.encode([line])[0]
    if not ids and not may_be_blank:
        raise NmtError(f"the {what} is blank: there is nothing to look at")
    if len(ids) > LONGEST:
        raise NmtError(f"the {what} has {len(ids)} tokens, of which at most {LONGEST} can be drawn: shorten it")
    return ids


def _tokens(tokenizers: Tokenizers, source: list[int], target: list[int]) -> dict[str, list[Token]]:
    """The tokens of a sentence and its translation, as `Attention` has them."""
    of_source, of_target = (
        [_token(piece) for piece in side.pieces(ids)] for side, ids in zip(tokenizers, (source, target), strict=True)
    )
    begin, end = Token("begin", "special"), Token("end", "special")
    return {"source": [*of_source, end], "read": [begin, *of_target], "written": [*of_target, end]}


def _token(piece: str) -> Token:
    """A piece of SentencePiece as it is shown."""
    if re.fullmatch(r"<0x[0-9A-F]{2}>", piece):
        return Token(piece[1:-1], "byte")
    if piece.startswith("▁"):
        return Token(piece[1:] or "▁", "begins")
    return Token(piece, "continues")


def _facts(loaded: ModelFolder, precision: torch.dtype) -> dict[str, str]:
    """What there is to know about a model, in the words of the page."""
    recipe, model = loaded.recipe.model, loaded.model
    encoder, decoder = len(model.encoder.layers), len(model.decoder.layers)
    layers = str(encoder) if encoder == decoder else f"{encoder} encoder, {decoder} decoder"
    return {
        "recipe": Path(loaded.recipe.run).name,
        "layers": layers,
        "heads": str(recipe.heads),
        "width": str(recipe.d_model),
        "parameters": f"{model.parameter_count() / 1e6:.1f} M",
        "precision": "bf16" if precision == torch.bfloat16 else "fp32",
    }
