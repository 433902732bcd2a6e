"""What the cleaning steps find of dirt that was put into a corpus, and what they cost its good pairs.

    python benchmarks/dirt.py data/multi30k/train en de --third data/multi30k/train.fr.gz
    python benchmarks/dirt.py data/tatoeba/train en de

With --third, a file of sentences in a third language, of each six pairs in ten one is made a duplicate, swapped,
shifted, HTML, of the wrong language or a copy, and the table says how many of each kind were dropped. Without it, the
corpus stays as it is, and the table says what each step drops, with examples. The steps are the default ones of
`data.clean`; with --third, `language` is on too.
"""

import argparse
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nmt.data.encoding import blocks
from nmt.data.sieve import Sieve
from nmt.recipe import Clean, Data
from nmt.text import one_line, read_lines, read_pairs
from nmt.text.cleaning import REASONS, Cleaner
from nmt.text.duplicates import hashes
from nmt.text.lexicon import Lexicon, Sample

Pair = tuple[str, str]
GOOD, DUPLICATE, SWAPPED, SHIFTED, HTML, FOREIGN, COPY = (
    "good", "duplicate", "swapped", "shifted", "HTML", "wrong language", "copy",
)  # fmt: skip
KINDS = (DUPLICATE, SWAPPED, SHIFTED, HTML, FOREIGN, COPY)
RUNS = (5, 50)  # lines that slip together
MARKUP = ("<p>{}</p>", '<a href="index.html">{}</a>', "{}<br />", '<span class="x">{}</span>', "<b>{}</b>")


def dirty(
    pairs: Sequence[Pair], third: Sequence[str], share: float = 0.1, seed: int = 1
) -> tuple[list[Pair], list[str]]:
    """The pairs with a `share` of them made dirt of each kind, where they stand; and the kind of each."""
    dice = random.Random(seed)
    made, kinds = list(pairs), [GOOD] * len(pairs)
    wanted = int(share * len(pairs))
    while kinds.count(SHIFTED) < wanted:
        length, far = dice.randint(*RUNS), dice.choice((-2, -1, 1, 2))
        start = dice.randrange(len(pairs) - length)
        if all(kind == GOOD for kind in kinds[start : start + length]):
            for at in range(start, start + length):
                made[at] = (pairs[at][0], pairs[start + (at - start + far) % length][1])
                kinds[at] = SHIFTED if made[at] != pairs[at] else GOOD
    rest = [at for at, kind in enumerate(kinds) if kind == GOOD]
    dice.shuffle(rest)
    foreign = iter(dice.sample(list(third), len(third)) * (wanted // len(third) + 1))
    for kind in (SWAPPED, HTML, FOREIGN, COPY, DUPLICATE):
        for at in [rest.pop() for _ in range(wanted)]:
            source, target = pairs[at]
            made[at] = {
                SWAPPED: (target, source),
                HTML: (dice.choice(MARKUP).format(source), dice.choice(MARKUP).format(target)),
                FOREIGN: (source, next(foreign)) if kind == FOREIGN else ("", ""),
                COPY: (source, source),
                DUPLICATE: pairs[dice.choice(rest)],
            }[kind]
            kinds[at] = kind
    return made, kinds


def reasons(pairs: Sequence[Pair], data: Data) -> list[str]:
    """Why each pair is dropped, or nothing, by the steps of `nmt prepare` that need no tokenizer."""
    sample, quick = Sample(), Cleaner(data, language=False)
    cut = [block.pairs for block in blocks(0, pairs, True)]
    for block in cut:
        sample.add(list(quick(block).kept()))
    lexicon = Lexicon.learn(sample.pairs()) if data.clean.misaligned else None
    clean, sieve, found = Cleaner(data, lexicon=lexicon), Sieve(data.clean, len(pairs), []), []
    for block in cut:
        cleaned = clean(block)
        left = np.flatnonzero(cleaned.reasons == 0)
        cleaned.reasons[left], _ = sieve(hashes(cleaned.kept(), data.clean.near_duplicates))
        found += [REASONS[code] for code in cleaned.reasons]
    return found


def confusion(pairs: Sequence[Pair], kinds: Sequence[str], why: Sequence[str]) -> dict[str, Counter[str]]:
    """For each kind how many pairs each reason dropped, and how many stay, under "".

    Of a pair and its duplicate it does not matter which one stays: that counts as the good one.
    """
    table = {kind: Counter[str]() for kind in (GOOD, *KINDS)}
    stay = {pair for pair, kind, reason in zip(pairs, kinds, why, strict=True) if kind == DUPLICATE and not reason}
    swap = Counter[Pair]()
    for pair, kind, reason in zip(pairs, kinds, why, strict=True):
        if kind == GOOD and reason == "duplicate" and pair in stay:
            swap[pair] += 1
            reason = ""
        table[kind][reason] += 1
    table[DUPLICATE][""] -= len(swap)
    table[DUPLICATE]["duplicate"] += len(swap)
    return table


def configured(source: str, target: str, language: bool) -> Data:
    """The default steps of cleaning, with or without that of languages."""
    return Data(source=source, target=target, train=("x",), valid="x", clean=Clean(language=language))


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prefix")
    parser.add_argument("source")
    parser.add_argument("target")
    parser.add_argument("--third", type=Path, help="a file of sentences in another language")
    parser.add_argument("--shuffle", action="store_true", help="take each pair once, in random order")
    parser.add_argument("--examples", type=int, default=3, help="of each step that drops good pairs")
    asked = parser.parse_args()
    pairs = [(one_line(a), one_line(b)) for a, b in read_pairs(asked.prefix, asked.source, asked.target)]
    if asked.shuffle:
        pairs = list(dict.fromkeys(pairs))
        random.Random(1).shuffle(pairs)
    kinds = [GOOD] * len(pairs)
    if asked.third:
        pairs, kinds = dirty(pairs, [one_line(line) for line in read_lines(asked.third)])
    why = reasons(pairs, configured(asked.source, asked.target, bool(asked.third)))
    print("| pairs | number | dropped | by the steps |\n|---|--:|--:|---|")
    for kind, counts in confusion(pairs, kinds, why).items():
        if number := counts.total():
            told = ", ".join(f"{count:,} {reason}" for reason, count in counts.most_common() if reason and count)
            print(f"| {kind} | {number:,} | {1 - counts[''] / number:.2%} | {told} |")
    for reason in sorted(set(why) - {""}):
        lost = [at for at, kind in enumerate(kinds) if kind == GOOD and why[at] == reason]
        for at in random.Random(2).sample(lost, min(asked.examples, len(lost))):
            print(f"    {reason}: line {at + 1}: {pairs[at][0][:80]} | {pairs[at][1][:80]}")


if __name__ == "__main__":
    main()
