"""What `nmt export` does: a folder for CTranslate2, written only if it translates as our model does."""

import math
import os
from pathlib import Path
from typing import Any, NamedTuple

from nmt.errors import ModelError, OutputError
from nmt.files import check_place, whole_folder, write_json
from nmt.ids import EOS
from nmt.interop import decoding, proof, sample
from nmt.interop.weights import LONGEST, check, require, specification
from nmt.model.folder import ModelFolder, load, read_recipe
from nmt.recipe import Decode, Recipe, redecide
from nmt.search import Settings

MARK = "nmt.json"  # says that a folder is ours, for others make folders of the same names
FILES = ("model.bin", "config.json", "*_vocabulary.json", "tokenizer*.model", MARK, "README.md")
EXACT = "float32"
EXTRA = 50  # tokens that an output of the sample may have beyond the longest source; a model may never end
TYPICAL = 8  # outputs at least, to say what lengths are typical


class Exported(NamedTuple):
    """What came of an export."""

    told: list[str]
    """What was compared, and how decoding differs, a sentence or two each."""
    snippet: str
    """Python that translates by it."""


def export(
    folder: str | Path, output: str | Path, quantization: str = "float32", *, watched: proof.Watched, **choices: Any
) -> Exported:
    """Writes the model of a folder to `output` as one of CTranslate2, once both have translated the sample alike.

    `choices` override keys of the recipe's `decode` section. What must agree is the model in float32; how far another
    quantisation then is from it is told. Raises `ModelError` for a model that CTranslate2 cannot hold, or that
    translates otherwise there; `NmtError` without CTranslate2; `OutputError`.
    """
    require()
    check(read_recipe(Path(folder)).model)
    _check_place(output)
    ours = load(folder)
    decode = redecide(ours.recipe.decode, **choices)
    with whole_folder(output, FILES) as new:
        batches = _said(ours, decode, watched)
        typical = _typical(ours, [said for batch in batches for said in batch if said.ended])
        lengths = [len(said.tokens) for said in typical]
        alpha = decoding.nearest_alpha(decode, lengths)
        told, agreements = [], {}
        for kind in dict.fromkeys((EXACT, quantization)):
            theirs = _written(ours, new, kind)
            found = agreements[kind] = proof.compare(ours.model, theirs, batches, watched)
            _insist(kind, found)
            told.append(_told(kind, found, typical))
            if kind == EXACT:
                told += _searched(ours, theirs, decode, alpha, typical)
        told += decoding.differences(ours.recipe, decode, alpha, lengths)
        snippet = decoding.snippet(str(output), ours.recipe, decode, ours.tokenizers, alpha)
        ours.tokenizers.save(new)
        write_json(new / MARK, _record(ours.recipe, decode, alpha, quantization, agreements))
        (new / "README.md").write_text(_page(ours.recipe, quantization, told, snippet), encoding="utf-8")
    return Exported(told, snippet)


def _check_place(output: str | Path) -> None:
    """Raises `OutputError` where `output` holds what is not ours."""
    check_place(output, FILES)
    place = Path(output)
    if place.is_dir() and os.listdir(place) and not (place / MARK).exists():
        raise OutputError(
            f"{output}: would be replaced, but `nmt export` did not make it, for it has no {MARK}: write somewhere else"
        )


def _said(ours: ModelFolder, decode: Decode, watched: proof.Watched) -> list[list[proof.Said]]:
    """What ours says of the sample."""
    longest = min(ours.model.longest_output, LONGEST // 2)
    tokenizer = ours.tokenizers.source
    sources = [*sample.sentences(tokenizer, longest), *sample.drawn(tokenizer, longest)]
    return proof.say(ours.model, sources, min(decode.max_extra, EXTRA), watched)


def _written(ours: ModelFolder, folder: Path, kind: str) -> proof.Theirs:
    """The model, written with weights of this kind and read again."""
    spec = specification(ours.model, ours.tokenizers)
    spec.validate()
    spec.optimize(kind)
    spec.save(str(folder))
    return proof.Theirs(folder, ours.tokenizers, kind)


def _insist(kind: str, found: proof.Agreement) -> None:
    """Raises `ModelError` where not all agrees in float32, or scores of another kind are no numbers."""
    if not (found.whole if kind == EXACT else found.gap < math.inf):
        example = ""
        for said, ids in found.different[:1]:
            example = f": of {list(said.source)} ours says {said.tokens}, CTranslate2 {ids}"
        raise ModelError(
            f"the exported model is not ours, so nothing was written: in {kind}, of {found.outputs} outputs "
            f"{found.same} are the same, and scores differ by up to {found.gap:.2g} nats a token{example}. "
            "Please report it"
        )


def _typical(ours: ModelFolder, ended: list[proof.Said]) -> list[proof.Said]:
    """Of outputs that ended by themselves, those of sentences the vocabulary is made for; of all, where these are few.

    Others it spells in bytes, and they are longer than what the model will meet.
    """
    tokenizer = ours.tokenizers.source
    sentences = {tuple(ids): tokenizer.pieces(ids) for ids in tokenizer.encode(sample.SENTENCES)}
    known = {ids for ids, pieces in sentences.items() if not any(piece.startswith("<0x") for piece in pieces)}
    for some in (known, sentences.keys()):
        found = [said for said in ended if tuple(said.source) in some]
        if len(found) >= TYPICAL:
            return found
    return ended


def _told(kind: str, found: proof.Agreement, typical: list[proof.Said]) -> str:
    """What the comparison of one kind has found, in words."""
    different = [said for said, _ in found.different]
    same = sum(said not in different for said in typical)
    return (
        f"Greedy search, {kind}: {found.same} of {found.outputs} outputs of the sample are the same ({found.tokens} "
        f"tokens), and {same} of the {len(typical)} that are of sentences it knows the letters of. "
        f"Scores of outputs differ by at most {found.gap:.1g} nats a token."
    )


def _searched(
    ours: ModelFolder, theirs: proof.Theirs, decode: Decode, alpha: float, typical: list[proof.Said]
) -> list[str]:
    """How many outputs are the same where both search with their beams."""
    if decode.beam == 1 or not typical:
        return []
    settings = Settings(decode.beam, decode.length_penalty, decode.penalty_form)
    sources, limit = [said.source for said in typical], max(said.limit for said in typical)
    best = proof.search(ours.model, sources, limit, settings)
    found = theirs.translate(sources, limit, **decoding.options(decode, alpha))
    same = sum([*said.ids, EOS] == ids for said, (ids, _) in zip(best, found, strict=True))
    return [f"Beam search, beam {decode.beam}, {EXACT}: {same} of {len(best)} outputs of such sentences are the same."]


def _record(
    recipe: Recipe, decode: Decode, alpha: float, quantization: str, agreements: dict[str, proof.Agreement]
) -> dict[str, Any]:
    """All that the page says, as values."""
    return {
        "model": recipe.run,
        "source": recipe.data.source,
        "target": recipe.data.target,
        "quantization": quantization,
        "text": "NFC, each run of white space and control characters one space, then SentencePiece to pieces",
        "translate_batch": decoding.options(decode, alpha),
        "max_decoding_length": {"tokens_of_longest_source_plus": decode.max_extra + 1},
        "agreement": {
            kind: {"outputs": found.outputs, "tokens": found.tokens, "same": found.same, "gap": found.gap}
            for kind, found in agreements.items()
        },
    }


def _page(recipe: Recipe, quantization: str, told: list[str], snippet: str) -> str:
    """What lies beside the model for whoever finds it."""
    return "\n".join(
        [
            f"# {recipe.run}, {recipe.data.source} to {recipe.data.target}, for CTranslate2 ({quantization})",
            "",
            "Made by `nmt export`. This translates as `nmt translate` does; `FOLDER` is where this folder lies:",
            "",
            "```python",
            snippet + "```",
            "",
            "What was compared, and what is not the same:",
            "",
            *(f"- {line}" for line in told),
            "",
        ]
    )
