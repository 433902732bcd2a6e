"""Translations that look wrong: what is done about them, and how they are counted.

Only what has flaws costs more than a look. Its other hypotheses are there, for the search has finished them on its way;
where all of them have flaws, a line of several sentences is translated sentence by sentence.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from math import inf
from typing import Literal, get_args

from nmt.errors import NmtError
from nmt.search import Hypothesis
from nmt.text.flaws import FLAWS, flaws
from nmt.translation.splitting import Splitter
from nmt.translation.translation import Translation

OnSuspect = Literal["retry", "warn", "fail", "off"]
"""What is done about translations that look wrong.

- "retry": another hypothesis is taken that has fewer flaws, or the sentences of the line are translated apart
- "warn": nothing, but they are marked
- "fail": as "retry"; the first that still looks wrong is an error
- "off": they are not looked for
"""

Found = list[list[Translation]]


def check(on_suspect: str) -> None:
    """Raises `NmtError` for what is no `OnSuspect`."""
    if on_suspect not in get_args(OnSuspect):
        raise NmtError(f"--on-suspect: must be {', '.join(get_args(OnSuspect))}, found {on_suspect}")


class Review:
    """Looks over what the search has found of lines, marks what looks wrong, and with `mend` takes what looks better.

    `decode` gives the texts of ids, `translate` the translations of lines, looked over like these.
    """

    def __init__(
        self,
        splitter: Splitter,
        decode: Callable[[Sequence[Sequence[int]]], list[str]],
        translate: Callable[[list[str]], Found],
        mend: bool,
    ) -> None:
        self._splitter, self._decode, self._translate, self._mend = splitter, decode, translate, mend

    def best(
        self, line: str, tokens: int, limit: int, hypotheses: Sequence[Hypothesis], said: list[Translation]
    ) -> list[Translation]:
        """What is said of a line of so many tokens: the first of its hypotheses, at most `limit` tokens each."""
        source = self._splitter.plain(line)

        def wrong(text: str, hypothesis: Hypothesis) -> tuple[str, ...]:
            length = len(hypothesis.ids)
            return flaws(source, text, (tokens, length if length < limit else inf))  # it was cut off there

        if not said or not (found := wrong(said[0].text, hypotheses[0])):
            return said
        best, left = said[0], found
        others = hypotheses[1:] if self._mend else ()
        for other, text in zip(others, self._decode([other.ids for other in others]), strict=True):
            if len(less := wrong(text, other)) < len(left):
                best, left = best._replace(text=text, score=other.score), less
        return [best._replace(flaws=found, mended=not left), *said[1:]]

    def apart(self, lines: Sequence[str], found: Found) -> Found:
        """The same, but of lines that still look wrong what their sentences give apart, where that has fewer flaws."""
        left = [i for i, several in enumerate(found) if self._mend and several and is_suspect(several[0])]
        splits = {i: split for i in left if (split := self._splitter.apart(lines[i])).pieces}
        texts = [text for split in splits.values() for text in split.texts]
        again, found = iter(self._translate(texts) if texts else []), list(found)
        for i, split in splits.items():
            [best] = split.joined([next(again) for _ in split.pieces])
            of_parts = best.flaws if is_suspect(best) else ()
            after = {*self._flaws(lines[i], best.text), *of_parts}
            if len(after) < len(self._flaws(lines[i], found[i][0].text)):
                found[i] = [best._replace(flaws=found[i][0].flaws, mended=not after)]
        return found

    def _flaws(self, line: str, text: str) -> tuple[str, ...]:
        tokens = self._splitter.count(line), self._splitter.count(text)
        return flaws(self._splitter.plain(line), text, tokens)


def is_suspect(best: Translation) -> bool:
    """Whether a translation looks wrong."""
    return bool(best.flaws) and not best.mended


def refused(found: Iterable[list[Translation]], first: int) -> Iterator[list[Translation]]:
    """The same translations, of lines from `first` on, until one looks wrong: then raises `NmtError` with its line."""
    for number, best in enumerate(found, first):
        if is_suspect(best[0]):
            raise NmtError(
                f"line {number}: its translation looks wrong ({', '.join(best[0].flaws)}), and no other that was found "
                "is better: translate it otherwise, or go on with --on-suspect warn"
            )
        yield best


class Tally:
    """Counts the lines whose translation looked wrong, by what was wrong with it."""

    def __init__(self, before: int = 0) -> None:
        """There are so many lines `before` those that are counted."""
        self._before, self._lines, self._suspects = before, 0, 0
        self._flaws, self._mended = Counter[str](), Counter[str]()
        self._first: dict[str, int] = {}

    def over(self, found: Iterable[list[Translation]]) -> Iterator[list[Translation]]:
        """The same translations, counted as they go by."""
        for best in found:
            self._lines += 1
            self._suspects += bool(best[0].flaws)
            for flaw in best[0].flaws:
                self._flaws[flaw] += 1
                self._mended[flaw] += best[0].mended
                self._first.setdefault(flaw, self._before + self._lines)
            yield best

    @property
    def summary(self) -> str:
        """The counts in a line; empty where nothing looked wrong."""
        if not self._suspects:
            return ""
        kinds = "; ".join(self._told(flaw) for flaw in FLAWS if self._flaws[flaw])
        return f"{self._suspects:,} of {self._lines:,} lines looked wrong: {kinds}"

    def _told(self, flaw: str) -> str:
        mended = f"{self._mended[flaw]:,} mended, " if self._mended[flaw] else ""
        return f"{flaw} {self._flaws[flaw]:,} ({mended}first: line {self._first[flaw]:,})"
