"""Reading all of a recipe's text in bounded memory to find out what is in it: `diagnose`."""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import combinations, islice
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from nmt.data.accounts import Account, shown
from nmt.data.changes import record_input
from nmt.data.encoding import Block, Encode, Encoded, blocks, encoding
from nmt.data.shards import StreamPair, select
from nmt.data.sieve import HeldOut, Sieve
from nmt.diagnosis.counting import Drawn, SideCounter, UnseenWords
from nmt.diagnosis.drawing import Draw, learned, lexicon_of, prepared, watched
from nmt.diagnosis.figures import (
    TRAIN,
    UNLIKELY,
    VALID,
    CorpusFigures,
    Diagnosis,
    Example,
    Finding,
    Overlap,
    Vocabulary,
    unit_of,
)
from nmt.diagnosis.suspicions import Alignment, Balance, Tongues, lengths
from nmt.errors import DataError
from nmt.recipe import Clean, Data, Layout, Recipe, tag_of
from nmt.text import Corpus, Tokenizers, locate, reason_to_drop
from nmt.text.cleaning import DUPLICATE, ENTITIES, NEAR_DUPLICATE, OVERLAP, REASONS, Cleaner, unescape
from nmt.text.corpora import Pair

_LOOKED_AT = 200  # pairs of a corpus whose languages are told
_MEASURED = 20_000  # pairs whose lengths are given
_LONGEST = 300  # characters of a side of an example


def diagnose(recipe: Recipe, *, sample: int | None = None, workers: int = 1) -> Diagnosis:
    """What is in the text of a recipe, before it is prepared or after; the run folder is not written to.

    The text is read twice: to draw pairs, which a vocabulary is learned from where none is prepared, and to examine
    all of it, with `workers` processes that encode; their number changes no figure. `sample` reads only the first so
    many pairs of each corpus. Memory: 36 bytes a training pair, the held-out corpora, and what does not grow.
    Raises `DataError` for text that cannot be used, and `NmtError` as `nmt prepare` does.
    """
    data = recipe.data
    train = [locate(entry, data.source, data.target) for entry in data.train]
    held_out, unread = _held_out(data)
    for corpus in (*train, *held_out.values()):
        _check_twice(corpus)
    for entry in data.train:
        Cleaner(data.of(entry))  # what it lacks is told before all is read
    draw = Draw.of(train, recipe.seed, sample)
    tokenizers, pairs = prepared(recipe, train, list(held_out.values())), 0
    if tokenizers is None:
        tokenizers, pairs = learned(recipe, train, draw, sample)
    drawn = "all" if draw.complete and sample is None else f"{pairs:,} drawn"
    origin = f"learned from {drawn} pairs" if pairs else f"the one in {Layout.of(recipe).data}"
    if pairs and recipe.tokenizer.reuse is not None:
        origin = f"the one in {recipe.tokenizer.reuse}"
    near = data.model_copy(update={"clean": data.clean.model_copy(update={"near_duplicates": True})})
    with TemporaryDirectory(prefix="nmt-check-") as folder:
        tokenizers.save(folder)
        if lexicon := lexicon_of(recipe, train, draw):
            lexicon.save(Path(folder))
        with encoding(Path(folder), near, workers) as encode:
            examination = _Examination(recipe, tokenizers, encode, draw, sample)
            return examination.run(train, held_out, origin, unread)


def _held_out(data: Data) -> tuple[dict[str, Corpus], dict[str, str]]:
    """The corpora that are held out, by their keys; and why test sets cannot be read, which may be made later."""
    found, unread = {VALID: locate(data.valid, data.source, data.target)}, {}
    for name, entry in data.test.items():
        try:
            found[f"data.test.{name}"] = locate(entry, data.source, data.target)
        except DataError as error:
            unread[f"data.test.{name}"] = str(error)
    return found, unread


def _check_twice(corpus: Corpus) -> None:
    """Raises `DataError` for what cannot be read twice."""
    for path in corpus.files:
        if str(path) == "-":
            raise DataError(
                "data.train: standard input can be read only once, and nmt check reads twice: write it to a file first"
            )
        if not path.is_file():
            record_input(path)


def _off(clean: Clean) -> Clean:
    """The steps that a recipe leaves out; entities are looked at apart, and languages of drawn pairs only."""
    steps = ("control_characters", "tags", "identical", "script", "numbers")
    others = {step: not getattr(clean, step) for step in steps}
    letters = 0.0 if clean.min_letters else Clean().min_letters
    return clean.model_copy(update={**others, "min_letters": letters, "language": False})


class _Corpus:
    """A corpus as it is being examined."""

    def __init__(self, key: str, corpus: Corpus, number: int, data: Data, tokenizers: Tokenizers) -> None:
        """`number` is its place among the corpora to train on."""
        self.key, self.number, self.account = key, number, Account(corpus)
        data = data.of(corpus.entry)
        self.own = Cleaner(data, language=False)
        self.other = Cleaner(data.model_copy(update={"clean": _off(data.clean)}))
        self._tongues = Tongues(data)
        languages = data.source, data.target
        self.sides = [SideCounter(*side) for side in zip(languages, tokenizers, strict=True)]
        self.alignment = Alignment()
        self._noted = Counter[str]()

    def note(self, kind: str, pairs: Sequence[Pair], places: np.ndarray) -> None:
        """Enters suspicious pairs that are kept, of those that `account.add` is given next."""
        if len(places):
            self._noted[kind] += len(places)
            self.account.show(kind, pairs, places)

    def note_reasons(self, pairs: Sequence[Pair], reasons: np.ndarray) -> None:
        """The same, with the reasons as places in `REASONS`."""
        for code in np.unique(reasons[reasons > 0]).tolist():
            self.note(REASONS[code], pairs, np.flatnonzero(reasons == code))

    def figures(self, drawn: Sequence[Pair]) -> CorpusFigures:
        """What was found; `drawn` are pairs to tell the languages of."""
        account = self.account
        record = account.record
        source, target = (side.figures for side in self.sides)
        return CorpusFigures(
            key=self.key,
            name=account.corpus.name,
            files=tuple(map(str, account.corpus.files)),
            unit=unit_of(account.corpus),
            pairs=record.pairs,
            kept=account.read - account.dropped.total(),
            sides=(source, target),
            findings=tuple(self._findings()),
            shifts=tuple(self.alignment.shifts),
            correlation=self.alignment.correlation,
            languages=self._tongues.look(drawn[:_LOOKED_AT]),
        )

    def _findings(self) -> Iterator[Finding]:
        account = self.account
        repaired = {f"repaired {kind}": count for kind, count in account.repaired.items()}
        fates = {"dropped": account.dropped + account.skipped, "repaired": repaired, "kept": self._noted}
        for fate, kinds in fates.items():
            for kind, pairs in sorted(kinds.items(), key=lambda one: (-one[1], one[0])):
                examples = (
                    Example(number, shown(source, _LONGEST), shown(target, _LONGEST))
                    for number, source, target in account.examples.get(kind, ())
                )
                yield Finding(kind.removeprefix("repaired "), fate, pairs, tuple(examples))


class _Examination:
    """One examination of the text of a recipe."""

    def __init__(self, recipe: Recipe, tokenizers: Tokenizers, encode: Encode, draw: Draw, sample: int | None) -> None:
        self._recipe, self._data = recipe, recipe.data
        self._tokenizers, self._encode, self._draw, self._sample = tokenizers, encode, draw, sample
        self._plain = Cleaner(None)
        self._balance = Balance(lengths(draw.pairs))
        self._unseen = UnseenWords(), UnseenWords()
        self._lengths = Drawn(_MEASURED, recipe.seed)
        self._counts: list[SideCounter] = []

    def run(
        self, train: Sequence[Corpus], held_out: dict[str, Corpus], origin: str, unread: dict[str, str]
    ) -> Diagnosis:
        """Reads the held-out corpora, then all there is to train on."""
        held = [HeldOut.read(key, corpus) for key, corpus in held_out.items()]
        others = [self._examine_held_out(key, corpus) for key, corpus in held_out.items()]
        clean = self._data.clean.model_copy(update={"duplicates": True, "near_duplicates": True})
        sieve = Sieve(clean, self._draw.read.total(), held)
        ours = [self._examine_training(number, corpus, sieve) for number, corpus in enumerate(train)]
        unseen = {key: tuple(side.figures(key) for side in self._unseen) for key in held_out}
        return Diagnosis(
            corpora=(*ours, *others),
            vocabularies=tuple(self._vocabularies()),
            tokenizer=origin,
            unseen=unseen,  # type: ignore[arg-type]  # two sides
            overlaps=tuple(_overlaps(held)),
            unread=unread,
            sampled=self._sample,
            languages_checked=all(one.languages is not None for one in (*ours, *others)),
            lengths=self._lengths.rows,
        )

    def _examine_training(self, number: int, corpus: Corpus, sieve: Sieve) -> CorpusFigures:
        one = _Corpus(TRAIN, corpus, number, self._data, self._tokenizers)
        for block, part in self._encode(self._blocks(one, self._draw.read[number], True)):
            places, kept = self._sieved(one, block, part, sieve)
            text = one.other(block.pairs)
            self._suspect(one, block, places, text.reasons, lengths(list(zip(text.sources, text.targets, strict=True))))
            for side, lines, stream, unseen in zip(
                one.sides, (text.sources, text.targets), kept, self._unseen, strict=True
            ):
                some = [lines[place] for place in places.tolist()]
                side.add(some, stream)
                unseen.meet(some)
            self._lengths.add(np.stack([side.lengths for side in kept], 1))
            one.account.add(block.pairs, part.reasons, part.repaired)
        self._sum(one)
        return one.figures(self._draw.from_corpus(number))

    def _sieved(self, one: _Corpus, block: Block, part: Encoded, sieve: Sieve) -> tuple[np.ndarray, StreamPair]:
        """The places of the pairs that are kept in the end, and their ids; `part` is told the others' reasons."""
        assert part.hashes
        places = np.flatnonzero(part.reasons == 0)
        found, overlaps = sieve(part.hashes, tag_of(one.account.corpus.entry))
        clean = self._data.clean
        for kind, on in ((DUPLICATE, clean.duplicates), (NEAR_DUPLICATE, clean.near_duplicates)):
            if not on:
                again = found == REASONS.index(kind)
                one.note(kind, block.pairs, places[again])
                found = np.where(again, 0, found)
        for key, there in overlaps.items():
            one.note(f"{OVERLAP} with {key}", block.pairs, places[there & (found == 0)])
        part.reasons[places] = found
        return places[found == 0], select(part.kept, found == 0)

    def _examine_held_out(self, key: str, corpus: Corpus) -> CorpusFigures:
        one = _Corpus(key, corpus, 0, self._data, self._tokenizers)
        drawn: list[Pair] = []
        for block, part in self._encode(self._blocks(one, None, False)):
            text, ours = self._plain(block.pairs), one.own(block.pairs)
            places = np.flatnonzero(part.reasons == 0)
            sizes = zip(part.kept.source.lengths.tolist(), part.kept.target.lengths.tolist(), strict=True)
            long = [REASONS.index(reason_to_drop(*size, self._data) or "") for size in sizes]
            reasons = ours.reasons.copy()
            reasons[places] = np.where(reasons[places] > 0, reasons[places], long)
            reasons[part.reasons > 0] = 0
            one.note_reasons(block.pairs, reasons)
            others = np.where(reasons > 0, 0, one.other(block.pairs).reasons)
            pairs = list(zip(text.sources, text.targets, strict=True))
            self._suspect(one, block, places, others, lengths(pairs))
            for side, lines, stream, unseen in zip(
                one.sides, (text.sources, text.targets), part.kept, self._unseen, strict=True
            ):
                side.add([lines[place] for place in places.tolist()], stream)
                unseen.expect(key, lines)
            one.account.add(block.pairs, part.reasons, part.repaired)
            drawn += block.pairs[: max(0, _LOOKED_AT - len(drawn))]
        return one.figures(drawn)

    def _suspect(self, one: _Corpus, block: Block, places: np.ndarray, reasons: np.ndarray, sizes: np.ndarray) -> None:
        """Notes what else is odd about the pairs that are kept."""
        there = np.zeros(len(block.pairs), bool)
        there[places] = True
        one.note_reasons(block.pairs, np.where(there, reasons, 0))
        one.note(UNLIKELY, block.pairs, places[self._balance.unlikely(sizes[places])])
        if not (block.train and self._data.clean.entities):
            escaped = [at for at in places.tolist() if any(_escaped(side) for side in block.pairs[at])]
            one.note(ENTITIES, block.pairs, np.array(escaped, np.intp))
        one.alignment.add(sizes)

    def _blocks(self, one: _Corpus, total: int | None, train: bool) -> Iterator[Block]:
        corpus = one.account.corpus
        pairs = islice(corpus.pairs(one.account.skipped), self._sample)
        return blocks(one.number, watched(pairs, f"examining {corpus.name}", total), train)

    def _sum(self, one: _Corpus) -> None:
        if not self._counts:
            self._counts = one.sides
            return
        for total, side in zip(self._counts, one.sides, strict=True):
            total.counts += side.counts

    def _vocabularies(self) -> Iterator[Vocabulary]:
        source, target = self._counts
        data, made = self._data, self._tokenizers
        if made.shared:
            yield source.vocabulary(f"{data.source} and {data.target}", made.source.vocab_size, target)
            return
        yield source.vocabulary(data.source, made.source.vocab_size)
        yield target.vocabulary(data.target, made.target.vocab_size)


def _escaped(text: str) -> bool:
    return "&" in text and unescape(text) != text


def _overlaps(held: Sequence[HeldOut]) -> Iterator[Overlap]:
    """Of each held-out corpus with the training text, and of each two of them."""
    for one in held:
        found = one.record
        yield Overlap(one.key, TRAIN, found.sources, found.found, found.pairs, found.training)
    for one, other in combinations(held, 2):
        sources = np.intersect1d(one.known.sources, other.known.sources)
        same = np.intersect1d(one.known.pairs, other.known.pairs)
        yield Overlap(other.key, one.key, len(other.known.sources), len(sources), len(same), len(sources))
