"""Lines of text in, their translations out: one line for one line, in order."""

import hashlib
import math
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from itertools import count, islice, repeat
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import torch

from nmt.data.batches import pack_sources
from nmt.errors import DataError, DeviceError, ModelError, NmtError
from nmt.model.cache import Decoding
from nmt.model.device import pick_device, pick_precision, without_denormals
from nmt.model.engine import Engine, why_plain
from nmt.model.folder import load
from nmt.model.streams import Cut, sent
from nmt.model.transformer import Transformer
from nmt.model.watching import WatchedDecoding
from nmt.recipe import Decode, Recipe, redecide
from nmt.search import (
    Constraint,
    Ensemble,
    Hypothesis,
    Judge,
    Judged,
    MinLength,
    NoRepeat,
    Sampling,
    Settings,
    Steps,
    beam_search,
    sample,
    together,
)
from nmt.text import Tokenizers, one_line, tagged
from nmt.translation.alignment import align
from nmt.translation.batching import WINDOW, Batch, Flow, Window, cut, windows
from nmt.translation.forcing import Forced, judge
from nmt.translation.splitting import Split, Splitter, joined, told
from nmt.translation.static import StaticSearches
from nmt.translation.suspects import OnSuspect, Review, check, refused
from nmt.translation.translation import Links, Translation
from nmt.translation.workers import Hands

Constrain = Callable[[Sequence[str]], Judge]
"""Gives for lines who judges what may be said of them."""


class _Source(NamedTuple):
    """A line to be translated, with its tags, its tokens, and those that its translation begins with."""

    line: str
    tokens: Sequence[int]
    forced: Sequence[int] = ()


class _How(NamedTuple):
    """How lines are to be translated: as in `Translator.stream`."""

    choices: Decode
    n_best: int
    alignments: bool
    constrain: Constrain | None
    tag: str
    sampling: Sampling | None
    split: bool
    on_suspect: OnSuspect

    @property
    def mends(self) -> bool:
        """Whether another hypothesis may take the place of the best: not where those that were found are asked for."""
        return self.on_suspect in ("retry", "fail") and self.n_best == 1 and self.sampling is None

    @property
    def lines(self) -> int:
        """How many are translated at once: fewer where each is drawn more often than a beam is wide."""
        size, beam = self.choices.batch_size, self.choices.beam
        return max(1, size * beam // max(beam, self.n_best)) if self.sampling else size


def _settings(c: Decode, n_best: int = 1, others: bool = False) -> Settings:
    return Settings(c.beam, c.length_penalty, c.penalty_form, n_best, c.coverage_penalty, c.groups, c.diversity, others)


def _tell(warning: str) -> None:
    print(warning, file=sys.stderr)


class Translator:
    """A model with its tokenizers and the way it searches; or several models of one vocabulary, an ensemble."""

    def __init__(
        self,
        models: Sequence[Transformer],
        tokenizers: Tokenizers,
        decode: Decode,
        device: torch.device,
        precision: torch.dtype,
        warn: Callable[[str], None],
        longest: int,
        language: str,
    ) -> None:
        """`decode` holds the defaults of the search; lines of more than `longest` tokens, in `language`, are split."""
        self.models = models
        self.tokenizers = tokenizers
        self._decode = decode
        self.device = device
        self.precision = precision
        self._warn = warn
        self._longest = longest
        self._engines: list[Callable[[torch.Tensor, Cut], Steps]] = []
        self.static = device.type == "cuda"
        """Whether searches are static (`nmt.search.static`) where they can be: quick, for much memory."""
        self.room = "--batch-size"
        """What is to be lowered where memory does not suffice."""
        self._language = language
        self._again: Callable[[], Translator] | None = None  # how another process gets the same one

    @classmethod
    def load(
        cls, folder: str | Path, device: str = "auto", precision: str = "auto", others: Sequence[str | Path] = ()
    ) -> Self:
        """The translator in a model folder; with those in `others`, their ensemble, which searches as the first does.

        The probability of a token is then the mean of theirs. Raises `ModelError`, also where the others have another
        vocabulary, or `DeviceError`.
        """
        where = pick_device(device)
        recipe, tokenizers, model = load(folder, where)
        translator = cls.of(model, tokenizers, recipe, where, pick_precision(precision, where))
        translator._again = partial(cls.load, folder, device, precision, others)
        for other in others:
            found = load(other, where)
            if found.tokenizers.models != tokenizers.models:
                raise ModelError(
                    f"{other}: has another vocabulary than {folder}: an ensemble takes models that were trained from "
                    "the same prepared data"
                )
            translator.models = [*translator.models, found.model]
        return translator

    @classmethod
    def of(
        cls,
        model: Transformer,
        tokenizers: Tokenizers,
        recipe: Recipe,
        device: torch.device,
        precision: torch.dtype,
        warn: Callable[[str], None] = _tell,
    ) -> Self:
        """The translator of a model already in memory on `device`; `warn` is told of lines that may come out badly."""
        data = recipe.data
        return cls([model], tokenizers, recipe.decode, device, precision, warn, data.longest_source, data.source)

    @property
    def longest(self) -> int:
        """The most tokens that a line may have to be translated as well as those trained on."""
        return min(self._longest, self._limit)

    @property
    def _limit(self) -> int:
        """The most tokens, EOS not counted, that a line may have at all."""
        return min(model.config.longest for model in self.models) - 1

    def translate(self, lines: Iterable[str], **decode: Any) -> list[str]:
        """The best translation of each line. Keywords override keys of the recipe's `decode` section: beam=1."""
        return [best[0].text for best in self.stream(lines, **decode)]

    def stream(
        self,
        lines: Iterable[str],
        n_best: int = 1,
        *,
        alignments: bool = False,
        constrain: Constrain | None = None,
        tag: str = "",
        sampling: Sampling | None = None,
        prefixes: Iterable[str] | None = None,
        split: bool = True,
        on_suspect: OnSuspect = "retry",
        workers: int | None = 1,
        threads: int = 1,
        first: int = 1,
        done: Callable[[int], object] = lambda lines: None,
        **decode: Any,
    ) -> Generator[list[Translation], None, None]:
        """The n best translations of each line, best first, in order; a blank line gives one blank translation.

        Reads a window of lines ahead and sorts it by length, so memory does not grow with the input. Of lines that are
        `Arriving` it takes as many as have come, and never waits for more while it owes an answer. `alignments` links
        the words of each translation with those of its line. `constrain` says of some lines what their translations may
        be. With `sampling`, translations are drawn instead of searched for, n of them; those of a line then follow from
        the line and the seed alone. `tag` is put before each line, as in training text of a corpus with that tag.
        `prefixes` are what the translations begin with, one for each line, an empty one where they are free; scores
        count them.

        A line of more than `longest` tokens is translated in pieces, with a warning; without `split`, or with a prefix,
        as a whole. `on_suspect` says what is done where the best translation of a line looks wrong; where the n best or
        samples are asked for, "retry" only marks it.

        On a CPU, so many `workers` share the work, processes of so many `threads` each; None is one per core, once
        there is so much to do that they pay. Their number changes no translation. `done` is told how many more lines
        are done. Messages count the lines from `first`. Raises `NmtError` also for a tag with symbols that the model
        does not know, and where a worker dies; `DataError` for more or fewer prefixes than lines.
        """
        choices = redecide(self._decode, **decode)
        if n_best > choices.beam and sampling is None:
            raise NmtError(
                f"{n_best} translations a line are more than a beam of {choices.beam} finds: "
                f"widen the beam, with --beam {n_best}"
            )
        self._check_tag(tag)
        check(on_suspect)
        how = _How(choices, n_best, alignments, constrain, tag, sampling, split, on_suspect)
        hands = Hands(self.device, workers, threads, several=self._again is not None)
        splits = deque[Split]()
        flow = Flow(self._windows(lines, prefixes, first, how, hands, splits), done)
        with hands.at_work(partial(self._answer, how=how), partial(_another, self._again, how, threads), flow) as work:
            found = joined(splits, flow.through(work))
            yield from refused(found, first) if on_suspect == "fail" else found

    def score(self, pairs: Iterable[tuple[str, str]], *, tag: str = "", **decode: Any) -> Iterator[Forced]:
        """What the model thinks of each line and its translation, in order: forced decoding.

        The score is the one that `stream` gives a translation that it finds, as long as its tokens are those that its
        text is cut into. A window of pairs is read ahead, as there. Raises `DataError` where a side is beyond learned
        positions, and as `stream` does.
        """
        choices = redecide(self._decode, **decode)
        self._check_tag(tag)
        rest, number = iter(pairs), 1
        while window := list(islice(rest, WINDOW * choices.batch_size)):
            sources = [source.tokens for source in self._sources([line for line, _ in window], tag)]
            for place, source in enumerate(sources, number):
                self._check_length(place, len(source))
            targets = self._said("translation", [text for _, text in window], number)
            lengths = [max(map(len, pair)) for pair in zip(sources, targets, strict=True)]
            found: dict[int, Forced] = {}
            for batch in cut(sorted(range(len(window)), key=lengths.__getitem__), lengths, choices.batch_size):
                some = [sources[i] for i in batch], [targets[i] for i in batch]
                with self.computing(), self._memory_told(choices):
                    found |= zip(batch, judge(self.models, *some, self.device, _settings(choices)), strict=True)
            yield from (found[i] for i in range(len(window)))
            number += len(window)

    def window(self, **decode: Any) -> int:
        """How many lines are read ahead; a share of a text that begins where a window does has the same batches."""
        return WINDOW * redecide(self._decode, **decode).batch_size

    def _windows(
        self,
        lines: Iterable[str],
        prefixes: Iterable[str] | None,
        number: int,
        how: _How,
        hands: Hands,
        splits: deque[Split],
    ) -> Iterator[Window[_Source, list[Translation]] | None]:
        """Windows of these lines, of which the first is line `number`, in pieces; `splits` gets what these are of."""
        starts = None if prefixes is None else iter(prefixes)
        for window in windows(lines, WINDOW * how.choices.batch_size):
            if not window:
                yield None
                continue
            forced = [[]] * len(window) if starts is None else self._forced(starts, number, len(window))
            parts = [self._split(*each, how) for each in zip(count(number), window, forced, strict=False)]
            splits += parts
            number += len(window)
            begun = [ids for split, ids in zip(parts, forced, strict=True) for _ in split.texts]
            items = self._sources([text for split in parts for text in split.texts], how.tag, begun)
            size = hands.each(len(items), how.lines) * (WINDOW if self._static(how) else 1)
            yield Window(items, [len(item.tokens) for item in items], [Translation("", 0.0)], size, len(window))
        if starts is not None and next(starts, None) is not None:
            raise DataError(f"there are more prefixes than the {number - 1} lines: give one for each line")

    def _split(self, number: int, line: str, forced: Sequence[int], how: _How) -> Split:
        """The line of this number in pieces, with a warning; whole, if it is short enough or is not to be split."""
        if forced or not how.split:
            self._check_length(number, self._splitter.count(tagged(how.tag, line)))
            return Split(line)
        split = self._splitter(line, how.tag)
        if split.pieces:
            self._warn(told(number, self._splitter.count(tagged(how.tag, line)), self.longest, split))
        return split

    @cached_property
    def _splitter(self) -> Splitter:
        return Splitter(self.tokenizers.source, self._language, self.longest)

    def _sources(self, lines: Sequence[str], tag: str, forced: Sequence[Sequence[int]] = ()) -> list[_Source]:
        """What there is to translate of these lines, which get the tag, if they are not blank."""
        lines = [tagged(tag, line) if one_line(line) else "" for line in lines] if tag else lines
        tokens = self.tokenizers.source.encode(lines)
        return [_Source(*each) for each in zip(lines, tokens, forced or repeat(()), strict=False)]

    def _answer(self, batch: Batch[_Source], how: _How) -> list[list[Translation]]:
        """The translations of each line of a batch; one of score -inf where the search finds none."""
        if not batch:
            return []
        review = self._review(how)
        with self._memory_told(how.choices):
            found = self._batch(batch, how, review)
            if how.alignments:
                found = self._aligned([source.line for source in batch], found, how)
        if review:  # what begins as it is told to stays whole
            lines = ["" if source.forced else source.line.removeprefix(how.tag).lstrip() for source in batch]
            found = review.apart(lines, found)
        return [best or [Translation("", -math.inf)] for best in found]

    @contextmanager
    def _memory_told(self, choices: Decode) -> Iterator[None]:
        """Says what to lower where memory does not suffice."""
        try:
            yield
        except torch.OutOfMemoryError:
            told = f"{self.device}: out of memory: lower {self.room}, now {choices.batch_size}"
            raise DeviceError(told) from None

    def _review(self, how: _How) -> Review | None:
        if how.on_suspect == "off" or how.constrain:
            return None
        decode = self.tokenizers.target.decode
        return Review(self._splitter, decode, lambda parts: list(self._whole(parts, how)), how.mends)

    def _whole(self, lines: Sequence[str], how: _How) -> Iterator[list[Translation]]:
        """The translations of these lines, each of them whole."""
        items = self._sources(lines, how.tag)
        window = Window(items, [len(item.tokens) for item in items], [Translation("", 0.0)], how.lines)
        for batch in window:
            yield from window.put(self._answer(batch, how))

    def _check_tag(self, tag: str) -> None:
        known = self.tokenizers.source.symbols if tag else []
        for symbol in tag.split():
            if symbol not in known:
                its = f"it knows {', '.join(known)}" if known else "it knows none"
                raise NmtError(f"{symbol}: not a symbol of this model; {its}")

    def _check_length(self, line: int, tokens: int) -> None:
        """Warns of a line longer than those trained on. Raises `DataError` for one beyond learned positions."""
        if (limit := self._limit) < tokens:
            raise DataError(
                f"line {line} has {tokens} tokens, and this model, whose positions are learned, can take {limit}: "
                "split it into sentences"
            )
        if tokens > self._longest:
            self._warn(
                f"line {line} has {tokens} tokens, more than the {self._longest} the model was trained on: it is "
                "translated whole, but may come out worse than if split into sentences"
            )

    def _forced(self, prefixes: Iterator[str], number: int, count: int) -> list[list[int]]:
        """What the translations of so many lines, from line `number` on, begin with. Raises `DataError`."""
        texts = list(islice(prefixes, count))
        if len(texts) < count:
            line = number + len(texts)
            raise DataError(f"line {line} has no prefix: give one for each line, an empty one where it is to be free")
        return self._said("prefix", texts, number)

    def _said(self, what: str, texts: Sequence[str], number: int) -> list[list[int]]:
        """The ids of these texts as the model would say them. Raises `DataError` for one beyond learned positions."""
        said = self.tokenizers.target.encode(texts)
        for line, ids in enumerate(said, number):
            if len(ids) > self._longest_output:
                raise DataError(
                    f"{what} {line} has {len(ids)} tokens, and this model, whose positions are learned, can say "
                    f"{self._longest_output}: shorten it"
                )
        return said

    @property
    def _longest_output(self) -> int:
        return min(model.longest_output for model in self.models)

    def _batch(self, batch: Batch[_Source], how: _How, review: Review | None) -> list[list[Translation]]:
        sizes = [len(source.tokens) for source in batch]
        wanted = (max(how.choices.limit(size), len(source.forced)) for size, source in zip(sizes, batch, strict=True))
        limits = [min(limit, self._longest_output) for limit in wanted]
        found = self._found(batch, limits, how)
        asked = [hypotheses[: how.n_best] for hypotheses in found]
        texts = iter(self.tokenizers.target.decode([h.ids for hypotheses in asked for h in hypotheses]))
        said = [[Translation(next(texts), h.score) for h in hypotheses] for hypotheses in asked]
        if review is None:
            return said
        lines = [source.line for source in batch]
        return [review.best(*each) for each in zip(lines, sizes, limits, found, said, strict=True)]

    def _found(self, batch: Batch[_Source], limits: Sequence[int], how: _How) -> list[list[Hypothesis]]:
        """What the search finds for each line, sorted by length, with outputs of at most so many tokens."""
        searches, settings = self._static(how), _settings(how.choices, how.n_best, others=how.mends)
        if searches and searches.take(settings, limits) and not any(source.forced for source in batch):
            return searches(*pack_sources([source.tokens for source in batch]), limits, settings, how.lines)
        sizes = [len(source.tokens) for source in batch]
        found: list[list[Hypothesis]] = []
        for part in cut(range(len(batch)), sizes, how.lines):
            found += self._searched([batch[i] for i in part], [limits[i] for i in part], how)
        return found

    @torch.inference_mode()
    def _searched(self, batch: Batch[_Source], limits: Sequence[int], how: _How) -> list[list[Hypothesis]]:
        """The same, of all lines at once, step by step."""
        choices, sampling = how.choices, how.sampling
        constraint = self._constraint(batch, how)
        stream, lengths = pack_sources([source.tokens for source in batch])
        with self.computing(), without_denormals():
            cut, tokens = Cut.of(lengths, self.device), sent(stream, self.device)
            watching = choices.coverage_penalty and not sampling  # of the engines only the plain one can
            starts = [partial(WatchedDecoding, model) for model in self.models] if watching else self._starts()
            steps = Ensemble.of([start(tokens, cut) for start in starts])
            if sampling:
                keys = [_key(sampling.seed, source.tokens) for source in batch]
                return sample(steps, limits, sampling, keys, how.n_best, self.device, constraint)
            settings = _settings(choices, how.n_best, others=how.mends)
            return beam_search(steps, limits, settings, self.device, constraint)

    def _static(self, how: _How) -> StaticSearches | None:
        """The searches that a GPU does by itself, where this model and what is asked for allow them."""
        choices = how.choices
        plain = how.sampling or how.constrain or choices.min_length or choices.no_repeat_ngram
        if plain or not self.static or len(self.models) > 1 or why_plain(self.models[0].config):
            return None
        return self._searches

    @cached_property
    def _searches(self) -> StaticSearches:
        return StaticSearches(self.models[0], self.precision)

    def _constraint(self, batch: Batch[_Source], how: _How) -> Constraint | None:
        """What may be said of these lines."""
        constraints = list[Constraint]()
        if how.constrain:
            constraints.append(Judged(how.constrain([source.line for source in batch])))
        if how.choices.min_length:
            constraints.append(MinLength(how.choices.min_length))
        if how.choices.no_repeat_ngram:
            constraints.append(NoRepeat(how.choices.no_repeat_ngram))
        return together(constraints, [source.forced for source in batch], self.device)

    def _aligned(
        self, lines: Sequence[str], found: Sequence[Sequence[Translation]], how: _How
    ) -> list[list[Translation]]:
        """The translations of these lines with their links; their first words are tags, which are not counted."""
        pairs = [(line, best.text) for line, several in zip(lines, found, strict=True) for best in several]
        with self.computing():
            links = iter(align(self.models[0], self.tokenizers, pairs, self.device, how.lines))
        tags = len(how.tag.split())
        return [[best._replace(alignment=_without(tags, next(links))) for best in several] for several in found]

    def _starts(self) -> list[Callable[[torch.Tensor, Cut], Steps]]:
        """What begins the decoding of sentences, for each model: an engine, or where there is none for it, the plain.

        They are made when they are first asked for; weights that change later are not seen.
        """
        if not self._engines:
            for model in self.models:
                why = why_plain(model.config) if self.device.type == "cpu" else "a GPU"
                if why and self.precision == torch.int8:
                    self._warn(f"this model is translated with in fp32, for int8 cannot have {why}")
                self._engines.append(partial(Decoding, model) if why else Engine(model, self.precision).start)
        return self._engines

    def computing(self) -> torch.autocast:
        """The block in which the model computes in the precision of this translator; in fp32 for int8."""
        return torch.autocast(self.device.type, self.precision, enabled=self.precision == torch.bfloat16)


def _another(
    load: Callable[[], Translator] | None, how: _How, threads: int
) -> Callable[[Batch[_Source]], list[list[Translation]]]:
    """What answers batches in another process, with so many threads."""
    assert load
    torch.set_num_threads(threads)
    return partial(load()._answer, how=how)


def _without(tags: int, links: Links) -> Links:
    """The links of a line without its tags."""
    return tuple((source - tags, target) for source, target in links if source >= tags)


def _key(seed: int, source: Sequence[int]) -> int:
    """The number that the samples of a line follow from; a function of its tokens, the same on every machine."""
    content = np.array([seed, *source], "<i8").tobytes()
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")
