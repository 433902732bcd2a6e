"""What to mend: what was found in text, held against what is usual, with the key or the command that helps."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from nmt.diagnosis.figures import TRAIN, UNLIKELY, CorpusFigures, Diagnosis
from nmt.recipe import Recipe
from nmt.text.cleaning import EMPTY, ENTITIES, NUMBERS, TOO_LONG

# Shares from which a thing is said. Clean text has been seen to stay well below them.
_DROPPED = 0.1
_LONG = 0.01
_DIRTY = 0.01
_SWAPPED, _SWAPPED_ALL = 0.03, 0.5
_WRONG = 0.05
_ODD = 0.01
_NUMBERS = 0.02
_NEAR = 0.05
_BYTES = 0.005
_UNSEEN = 0.1
_RARE = 0.5
_FITS = 0.3  # correlation of lengths
_PIECES = 4.0  # a word
_FEW_PAIRS, _FEW_HELD = 10_000, 500


@dataclass(frozen=True)
class Advice:
    """Something to mend. An error makes the text unusable, a warning makes a worse translator, a note may be well."""

    level: Literal["error", "warning", "note"]
    key: str
    """What it is about: a key of the recipe."""
    what: str
    mend: str


def advise(found: Diagnosis, recipe: Recipe) -> list[Advice]:
    """What to mend in text."""
    rules = (_usable, _languages, _alignment, _dirt, _held_out, _overlaps, _vocabulary, _coverage, _sizes)
    return [advice for rule in rules for advice in rule(found, recipe)]


def _usable(found: Diagnosis, _: Recipe) -> Iterator[Advice]:
    if not any(one.kept for one in found.train):
        why = ", ".join(f"{finding.pairs:,} {finding.kind}" for one in found.train for finding in one.findings)
        yield Advice("error", TRAIN, f"no pair is left ({why})", "see data.clean, data.max_length and data.max_ratio")
    for one in found.held_out:
        if not one.kept:
            yield Advice("error", one.key, f"{one.name} has no pair with text on both sides", "name another corpus")
    for key, why in found.unread.items():
        yield Advice("warning", key, f"cannot be read: {why}", "fetch it, or take it out of the recipe")


def _languages(found: Diagnosis, _: Recipe) -> Iterator[Advice]:
    for one in found.corpora:
        if not one.languages or not one.languages.checked:
            continue
        checked = one.languages.checked
        ends = " and ".join(side.language for side in one.sides)
        swapped, wrong = one.languages.swapped / checked, one.languages.wrong / checked
        if swapped > _SWAPPED_ALL:
            what = f"{one.name}: the sides are swapped: what should be {ends} is the other way round"
            yield Advice("error", one.key, what, "swap the two files or columns, or data.source and data.target")
        elif swapped > _SWAPPED:
            what = f"{one.name}: about {swapped:.0%} of the pairs have swapped sides"
            yield Advice("warning", one.key, what, "data.clean.language: true drops them")
        if wrong > _WRONG:
            what = f"{one.name}: about {wrong:.0%} of the pairs are not in {ends}"
            mend = "data.clean.language: true drops them" if one.key == TRAIN else "look at it by hand"
            yield Advice("warning", one.key, what, mend)
    if not found.languages_checked:
        mend = "pip install nmt[langid], if py3langid knows both languages"
        yield Advice("note", TRAIN, "whether text is in its language was not checked", mend)


def _alignment(found: Diagnosis, _: Recipe) -> Iterator[Advice]:
    for one in found.corpora:
        for shift in one.shifts[:3]:
            where = f"{one.unit}s {shift.first:,} to {shift.last:,}"
            way = "later" if shift.lines > 0 else "earlier"
            what = f"{one.name}: {where} are misaligned: sources fit the targets {abs(shift.lines)} {one.unit}(s) {way}"
            mend = f"look for a line that is missing, or one too many, a little before {one.unit} {shift.first:,}"
            yield Advice("warning", one.key, what, mend)
        if one.correlation is not None and one.correlation < _FITS and not one.shifts:
            what = f"{one.name}: the lengths of the sides hardly go together (correlation {one.correlation:.2f})"
            yield Advice("warning", one.key, what, "see whether each line translates its partner")


def _share(one: CorpusFigures, pairs: int) -> float:
    return pairs / max(1, one.pairs)


def _dirt(found: Diagnosis, recipe: Recipe) -> Iterator[Advice]:
    for one in found.train:
        dropped = one.pairs - one.kept
        if one.kept and _share(one, dropped) > _DROPPED:
            worst = max((f for f in one.findings if f.fate == "dropped"), key=lambda finding: finding.pairs)
            what = f"{one.name}: {_share(one, dropped):.0%} of the pairs are dropped, most as {worst.kind}"
            yield Advice("warning", TRAIN, what, "see the examples: is the text as bad, or the step too strict?")
        if _share(one, long := one.found(TOO_LONG)) > _LONG:
            what = f"{one.name}: {long:,} pairs are longer than data.max_length ({recipe.data.max_length})"
            yield Advice("warning", "data.max_length", what, "raise it, or split the text into sentences")
        yield from _suspicions(one)


def _suspicions(one: CorpusFigures) -> Iterator[Advice]:
    """What is kept although it is odd."""
    kept = {finding.kind: finding.pairs for finding in one.findings if finding.fate == "kept"}
    rows: tuple[tuple[str, float, Literal["warning", "note"], str], ...] = (
        (UNLIKELY, _ODD, "warning", "see the examples; a smaller data.max_ratio drops the worst"),
        (NUMBERS, _NUMBERS, "note", "data.clean.numbers: true drops them, where no numbers are written out in words"),
        ("duplicate", _NEAR, "note", "data.clean.duplicates: true drops them"),
        ("near duplicate", _NEAR, "note", "data.clean.near_duplicates: true drops them"),
        ("control characters", _DIRTY, "warning", "data.clean.control_characters: true drops them"),
        ("tags", _DIRTY, "warning", "data.clean.tags: true drops them"),
        ("identical sides", _DIRTY, "warning", "data.clean.identical: true drops them"),
        ("few letters", _DIRTY, "note", "data.clean.min_letters: 0.2 drops them"),
        ("wrong script", _DIRTY, "warning", "data.clean.script: true drops them"),
        (ENTITIES, 0, "note", "data.clean.entities: true repairs them; leave it if text to translate has them too"),
    )
    for kind, least, level, mend in rows:
        share = _share(one, kept.get(kind, 0))
        if share > least:
            what = f"{one.name}: {kept[kind]:,} pairs ({share:.1%}) are kept though suspicious ({kind})"
            yield Advice(level, TRAIN, what, mend)


def _held_out(found: Diagnosis, recipe: Recipe) -> Iterator[Advice]:
    for one in found.held_out:
        kinds = [finding for finding in one.findings if not finding.kind.startswith("overlap")]
        odd = [finding for finding in kinds if finding.kind not in (NUMBERS, ENTITIES)]
        pairs = sum(finding.pairs for finding in odd)
        if one.kept and _share(one, pairs) > _DIRTY:
            worst = ", ".join(f"{finding.pairs:,} {finding.kind}" for finding in odd[:3])
            what = f"{one.name}: up to {pairs:,} of {one.pairs:,} pairs are suspicious ({worst})"
            yield Advice("warning", one.key, what, "clean it by hand: nmt prepare drops only empty pairs of it")
        if recipe.data.clean.entities and (escaped := one.found(ENTITIES)):
            what = f"{one.name}: {escaped:,} pairs with HTML entities, which are repaired in training text only"
            yield Advice("warning", one.key, what, "data.clean.entities: false if text to translate has them too")
        if (empty := one.found(EMPTY)) and one.kept:
            what = f"{one.name}: {empty:,} pairs with an empty side"
            yield Advice("warning", one.key, what, "fill them or take them out")


def _overlaps(found: Diagnosis, recipe: Recipe) -> Iterator[Advice]:
    for overlap in found.overlaps:
        if not overlap.found:
            continue
        share = f"{overlap.found:,} of {overlap.sources:,} sources ({overlap.found / overlap.sources:.1%})"
        if overlap.other != TRAIN:
            yield Advice("warning", overlap.key, f"{share} are in {overlap.other} too", "keep one text in one of them")
        elif recipe.data.clean.overlap == "drop":
            what = f"{share} are in the training text; its {overlap.pairs:,} pairs are dropped"
            yield Advice("note", overlap.key, what, "as data.clean.overlap: drop says")
        else:
            what = f"{share} are in the training text, {overlap.same:,} with the same translation"
            yield Advice(
                "warning", overlap.key, what, "scores will be too good: data.clean.overlap: drop takes them out"
            )


def _vocabulary(found: Diagnosis, _: Recipe) -> Iterator[Advice]:
    for one in found.vocabularies:
        rare = 1 - one.seen_10 / max(1, one.entries)
        if one.used and rare > _RARE and found.sampled is None:
            what = f"{rare:.0%} of the {one.entries:,} learned entries for {one.language} are seen less than ten times"
            mend = f"a smaller one is learned better: try {_round(one.seen_10 + one.asked - one.entries):,}"
            yield Advice("warning", "tokenizer.vocab_size", what, mend)


def _round(number: int) -> int:
    """To two digits."""
    step = 10 ** max(0, len(str(number)) - 2)
    return max(300, number // step * step)


def _coverage(found: Diagnosis, recipe: Recipe) -> Iterator[Advice]:
    for one in found.corpora:
        for side in one.sides:
            if side.byte_share > _BYTES:
                some = " ".join(list(side.lacking)[:6])
                what = f"{one.name}: {side.byte_share:.1%} of the {side.language} pieces are bytes of characters {some}"
                if recipe.tokenizer.character_coverage < 1 and one.key == TRAIN:
                    mend = "raise tokenizer.character_coverage"
                else:
                    mend = "is this the text that is meant? training text has none of them, or few"
                yield Advice("warning", one.key, what, mend)
            if one.key == TRAIN and side.fertility > _PIECES and side.words > 4 * one.kept:
                what = f"{one.name}: {side.fertility:.1f} pieces a word in {side.language}, so sentences are long"
                yield Advice("note", "tokenizer.vocab_size", what, "a larger one makes shorter sentences")
    for key, sides in found.unseen.items():
        for unseen, side in zip(sides, found.corpora[-1].sides, strict=True):
            if unseen.words and (share := unseen.unseen / unseen.words) > _UNSEEN and found.sampled is None:
                some = ", ".join(unseen.examples[:4])
                what = f"{share:.0%} of the {side.language} words are not in the training text ({some})"
                yield Advice("warning", key, what, "is it text of another kind? train on some that is like it")


def _sizes(found: Diagnosis, _: Recipe) -> Iterator[Advice]:
    kept = sum(one.kept for one in found.train)
    if 0 < kept < _FEW_PAIRS and found.sampled is None:
        mend = "a small model and a small vocabulary suit it; more text helps most"
        yield Advice("note", TRAIN, f"{kept:,} pairs are few", mend)
    for one in found.held_out:
        if 0 < one.kept < _FEW_HELD and found.sampled is None:
            yield Advice("note", one.key, f"{one.kept:,} pairs are few: scores will be uncertain", "take 1,000 or more")
    if found.sampled is not None:
        what = f"only the first {found.sampled:,} pairs of each corpus were read"
        yield Advice("note", TRAIN, what, "leave out --sample to see all")
