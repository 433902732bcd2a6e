"""What is given of a line."""

from typing import NamedTuple

Links = tuple[tuple[int, int], ...]
"""The links between the words of a pair of lines, source and target, each counted from 0; sorted."""


class Translation(NamedTuple):
    """One translation of a line: its text, its score in nats, and links if asked for.

    The score is log p divided by the length penalty, plus the coverage penalty if there is one; of a translation that
    was drawn, log p. Of a line that was translated in pieces it is the sum of theirs. `flaws` are what looked wrong in
    what the search held best, names out of `nmt.text.flaws`; if that was `mended`, this is another translation, which
    has none.
    """

    text: str
    score: float
    alignment: Links = ()
    flaws: tuple[str, ...] = ()
    mended: bool = False
