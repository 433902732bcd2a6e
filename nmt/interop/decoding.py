"""How CTranslate2 is told to search as ours does, as nearly as it can, and what is left of a difference.

Its score of an output Y is log p / |Y|^α, where |Y| counts EOS: `finalize_hypothesis_score` in its src/decoding.cc
divides by the length of what was found, and EOS is taken from that only afterwards.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from nmt.interop.weights import LONGEST
from nmt.recipe import Decode, Recipe
from nmt.text import Tokenizers

PATIENCE = 2  # as many beams' worth of outputs must have ended; ours goes on until nothing can overtake the best
GREEDY: dict[str, Any] = {"beam_size": 1}
CARRIED = {"beam", "length_penalty", "penalty_form", "max_extra", "batch_size"}  # keys that `options` are made of


def nearest_alpha(decode: Decode, lengths: Sequence[int]) -> float:
    """The α for which |Y|^α ranks outputs of these lengths, EOS counted, most nearly as our penalty does.

    What ranks is the logarithm of the penalty, up to a constant; α is its slope over log |Y|, by least squares.
    """
    if decode.penalty_form == "power":
        return decode.length_penalty
    n = np.array(lengths or [20], dtype=float)
    x, y = np.log(n), np.log((5 + n) / 6)
    slope = np.cov(x, y, bias=True)[0, 1] / x.var() if np.ptp(n) else n[0] / (5 + n[0])
    return round(float(decode.length_penalty * slope), 3)


def options(decode: Decode, alpha: float) -> dict[str, Any]:
    """What `translate_batch` of CTranslate2 is to be told, but for the limit of the output."""
    how = {"beam_size": decode.beam, "patience": PATIENCE, "length_penalty": alpha} if decode.beam > 1 else GREEDY
    return {**how, "min_decoding_length": 0, "max_input_length": 0, "max_batch_size": decode.batch_size}


def positions(recipe: Recipe) -> int | None:
    """How many tokens a sentence may have there, EOS counted; None where there is no limit."""
    return {"sinusoidal": LONGEST, "learned": recipe.model.max_positions}.get(recipe.model.positions)


def differences(recipe: Recipe, decode: Decode, alpha: float, lengths: Sequence[int]) -> list[str]:
    """What CTranslate2 does otherwise than nmt, one sentence or two each."""
    if decode.penalty_form == "power":
        penalty = f"that of CTranslate2 is ours, log p / |Y|^{decode.length_penalty:g}, and |Y| counts EOS in both."
    else:
        typical = f"{min(lengths)} to {max(lengths)}" if lengths else "about 20"
        penalty = (
            f"ours is log p / ((5 + |Y|) / 6)^{decode.length_penalty:g}, CTranslate2's log p / |Y|^α, and |Y| counts "
            f"EOS in both. For outputs of {typical} tokens α = {alpha:g} ranks most nearly alike."
        )
    told = [
        f"Length penalty: {penalty}",
        "End of the search: ours ends when nothing can overtake the best output, CTranslate2 when as many have ended "
        f"as the beam is wide, times `patience`: {PATIENCE} is near, and 1, its default, ends a little sooner.",
        f"Longest output: ours gives each line its own number of tokens and {decode.max_extra} more, and then ends it "
        "with EOS; CTranslate2 has one limit for a call, which counts EOS, and cuts there.",
        "Shortest output: CTranslate2 says a token at least, unless min_decoding_length=0; ours may say nothing.",
        "Longest input: CTranslate2 cuts at 1024 tokens unless max_input_length=0; nmt cuts nothing.",
        "Scores: neither ever says <pad>, <s> or <unk>; CTranslate2 shares out what the model gives to them, ours "
        "counts it as lost.",
    ]
    if last := positions(recipe):
        told.append(f"Positions: there are {last}; for a line with more tokens CTranslate2 raises RuntimeError.")
    defaults = Decode().model_dump()
    told += [
        f"decode.{name}: {value} is not carried over."
        for name, value in decode.model_dump().items()
        if name not in CARRIED and value != defaults[name]
    ]
    return told


def snippet(folder: str, recipe: Recipe, decode: Decode, tokenizers: Tokenizers, alpha: float) -> str:
    """Python that translates lines of text by an exported folder, as `nmt translate` does."""
    names = ["tokenizer"] * 2 if tokenizers.shared else ["tokenizer.source", "tokenizer.target"]
    told = "".join(f"        {name}={value!r},\n" for name, value in options(decode, alpha).items())
    symbols = tokenizers.source.symbols
    begun = f"    pieces = [p[1:] if p[:1] == ['▁'] and p[1:2] and p[1] in {symbols!r} else p for p in pieces]\n"
    limit = f"max(map(len, pieces), default=0) + {decode.max_extra + 1}"
    if last := positions(recipe):
        limit = f"min({limit}, {last})"
    return f"""\
import re
import unicodedata

import ctranslate2
import sentencepiece

FOLDER = {folder!r}
source = sentencepiece.SentencePieceProcessor(model_file=FOLDER + "/{names[0]}.model")
target = sentencepiece.SentencePieceProcessor(model_file=FOLDER + "/{names[1]}.model")
translator = ctranslate2.Translator(FOLDER, device="cpu")


def one_line(text):
    text = unicodedata.normalize("NFC", text)
    return " ".join(re.sub("[\\x00-\\x1f\\x7f-\\x9f\\ud800-\\udfff\\u2581]", " ", text).split())


def translate(lines):
    pieces = source.encode([one_line(line) for line in lines], out_type=str)
{begun if symbols else ""}\
    found = translator.translate_batch(
        pieces,
{told}\
        max_decoding_length={limit},
    )
    return [one_line(target.decode(best.hypotheses[0])) for best in found]
"""
