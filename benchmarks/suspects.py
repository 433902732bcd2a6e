"""How often translations are suspected that are right, and that are wrong; and what mending does to BLEU.

    python benchmarks/suspects.py references train.en.gz train.de.gz
    python benchmarks/suspects.py model runs/multi30k-en-de/model test.en.gz test.de.gz

`references` takes each pair of lines as a line and its translation by people, and tells how many are suspected of what:
false alarms, but for what is wrong with the corpus. Then it breaks the same translations in one way at a time and tells
how many are found out. Lengths are counted in tokens of a vocabulary learned from the text, both sides together.

`model` translates the lines with `on_suspect` "off" and "retry", and tells the BLEU of both and what looked wrong.
"""

import argparse
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from nmt.evaluation import bleu
from nmt.text import Tokenizer, one_line, read_lines, train_tokenizer
from nmt.text.flaws import COPY, EMPTY, FLAWS, LENGTH, LOOP, MARKUP, NUMBERS, flaws
from nmt.translation import Tally, Translator

LONGEST = 256  # tokens of a side: what is longer is split before it is translated
BROKEN = 20_000  # translations at most, from all over the text, that are broken
MARK = "<b>%s</b>"


def looped(source: str, target: str) -> tuple[str, str]:
    """The last words said five times more."""
    words = target.split()
    return source, " ".join(words + words[-3:] * 5)


def cut_off(source: str, target: str) -> tuple[str, str]:
    """The first fifth of the words."""
    words = target.split()
    return source, " ".join(words[: max(1, len(words) // 5)])


def other_numbers(source: str, target: str) -> tuple[str, str]:
    """Each digit another one."""
    return source, re.sub(r"\d", lambda digit: str((int(digit[0]) + 3) % 10), target)


Break = Callable[[str, str], tuple[str, str]]
BREAKS: dict[str, tuple[str, Break]] = {
    "empty": (EMPTY, lambda source, target: (source, "")),
    "the source instead": (COPY, lambda source, target: (source, source)),
    "the last three words five times more": (LOOP, looped),
    "the first fifth only": (LENGTH, cut_off),
    "other digits": (NUMBERS, other_numbers),
    "markup in the source alone": (MARKUP, lambda source, target: (f"{source} {MARK}", target)),
}


def references(source: str, target: str, count: int, vocab_size: int) -> Iterator[str]:
    """The table of false alarms, and that of broken translations found out."""
    pairs = [
        (one_line(a), one_line(b)) for a, b in islice(zip(read_lines(source), read_lines(target), strict=True), count)
    ]
    tokenizer = Tokenizer(train_tokenizer((side for pair in pairs for side in pair), vocab_size, sample=200_000))

    def tokens(lines: Sequence[str]) -> list[int]:
        return [len(ids) for ids in tokenizer.encode(lines)]

    lengths = list(zip(*(tokens(side) for side in zip(*pairs, strict=True)), strict=True))
    whole = [i for i, both in enumerate(lengths) if min(both) and max(both) <= LONGEST]
    pairs, lengths = [pairs[i] for i in whole], [lengths[i] for i in whole]
    begun = time.perf_counter()
    told = [flaws(*pair, both) for pair, both in zip(pairs, lengths, strict=True)]
    took = (time.perf_counter() - begun) / len(pairs)
    counts = Counter(flaw for found in told for flaw in found)
    yield f"{len(pairs):,} pairs, {1e6 * took:.0f} µs each; suspected: {sum(map(bool, told)) / len(pairs):.3%}"
    yield from (f"  {flaw}: {counts[flaw]:,} ({counts[flaw] / len(pairs):.3%})" for flaw in FLAWS if counts[flaw])
    good = [pair for pair, found in zip(pairs, told, strict=True) if not found]
    good = good[:: len(good) // BROKEN + 1]
    for name, (flaw, change) in BREAKS.items():
        broken = [(pair, after) for pair in good if (after := change(*pair)) != pair]
        both = zip(*(tokens([after[side] for _, after in broken]) for side in (0, 1)), strict=True)
        found = sum(bool(flaws(*after, each)) for (_, after), each in zip(broken, both, strict=True))
        yield f"broken: {name} ({flaw}): found {found:,} of {len(broken):,} ({found / max(1, len(broken)):.1%})"


def model(folder: Path, source: str, reference: str, beam: int) -> Iterator[str]:
    """BLEU without and with mending, and what looked wrong."""
    translator = Translator.load(folder, "cpu", "fp32")
    lines, right = list(read_lines(source)), list(read_lines(reference))
    said = {}
    for on_suspect in ("off", "retry"):
        tally, begun = Tally(), time.perf_counter()
        found = tally.over(translator.stream(lines, on_suspect=on_suspect, beam=beam))
        said[on_suspect] = [best[0].text for best in found]
        took = time.perf_counter() - begun
        yield f"{on_suspect}: BLEU {bleu(said[on_suspect], right):.2f}, {took:.1f} s. {tally.summary}"
    yield f"{sum(a != b for a, b in zip(*said.values(), strict=True)):,} of {len(lines):,} lines differ"


def main() -> None:
    """Runs one of the two."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = parser.add_subparsers(dest="kind", required=True)
    pairs = kinds.add_parser("references")
    translated = kinds.add_parser("model")
    translated.add_argument("model", type=Path)
    for one in (pairs, translated):
        one.add_argument("source")
        one.add_argument("target")
    pairs.add_argument("--pairs", type=int, default=150_000, help="at most so many")
    pairs.add_argument("--vocab-size", type=int, default=8000)
    translated.add_argument("--beam", type=int, default=4)
    a = parser.parse_args()
    told = (
        references(a.source, a.target, a.pairs, a.vocab_size)
        if a.kind == "references"
        else model(a.model, a.source, a.target, a.beam)
    )
    for line in told:
        print(line, flush=True)


if __name__ == "__main__":
    main()
