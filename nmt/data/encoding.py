"""From pairs of lines to pairs of token ids, by many processes, in the order of the text."""

import multiprocessing
import os
import signal
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nmt.data.shards import Packed, PackedPairs
from nmt.errors import NmtError
from nmt.recipe import Data
from nmt.text import Tokenizer, Tokenizers, reason_to_drop
from nmt.text.corpora import Pair

CHUNK_PAIRS = 2_000
CHUNK_CHARACTERS = 1_000_000  # bounds the memory of a chunk where lines are long
_QUEUED_PER_WORKER = 3  # chunks read ahead, so that no worker waits while the next one is read


class Chunk(NamedTuple):
    """Some pairs in a row of corpus number `corpus`; `data` says which to drop (None: only empty ones)."""

    corpus: int
    pairs: list[Pair]
    data: Data | None


class Encoded(NamedTuple):
    """What became of a chunk of `read` pairs: those kept, and the number dropped for each reason."""

    corpus: int
    read: int
    kept: PackedPairs
    dropped: Counter[str]


class Encoder:
    """Encodes chunks, and drops the pairs that are not worth keeping."""

    def __init__(self, tokenizers: Tokenizers) -> None:
        self._tokenizers = tokenizers

    def __call__(self, chunk: Chunk) -> Encoded:
        """The pairs of a chunk as token ids."""
        source, target = (
            tokenizer.encode(lines)
            for tokenizer, lines in zip(self._tokenizers, zip(*chunk.pairs, strict=True), strict=True)
        )
        reasons = [reason_to_drop(len(a), len(b), chunk.data) for a, b in zip(source, target, strict=True)]
        kept = (
            _packed(tokenizer, [ids for ids, reason in zip(side, reasons, strict=True) if reason is None])
            for tokenizer, side in zip(self._tokenizers, (source, target), strict=True)
        )
        return Encoded(chunk.corpus, len(reasons), PackedPairs(*kept), Counter(filter(None, reasons)))


Encode = Callable[[Iterable[Chunk]], Iterator[Encoded]]


def chunks(corpus: int, pairs: Iterable[Pair], data: Data | None) -> Iterator[Chunk]:
    """The pairs of a corpus, cut into chunks: always at the same places, however many workers there are."""
    held: list[Pair] = []
    characters = 0
    for pair in pairs:
        held.append(pair)
        characters += len(pair[0]) + len(pair[1])
        if len(held) == CHUNK_PAIRS or characters >= CHUNK_CHARACTERS:
            yield Chunk(corpus, held, data)
            held, characters = [], 0
    if held:
        yield Chunk(corpus, held, data)


@contextmanager
def encoding(folder: Path, workers: int) -> Iterator[Encode]:
    """Gives the function that encodes chunks, in their order, with the tokenizers in `folder`.

    With one worker that is done in this process. Memory is bounded: chunks are read only as they are needed.
    Raises `NmtError` when a worker dies.
    """
    if workers == 1:
        encoder = Encoder(Tokenizers.load(folder))
        yield lambda chunks: map(encoder, chunks)
        return
    # Spawned, not forked: the fork of a process with threads (of a progress bar, of torch) can hang for ever.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, _start_worker, (folder,)) as pool:
        try:
            yield lambda chunks: _in_order(pool, chunks, workers * _QUEUED_PER_WORKER)
        except BrokenProcessPool:
            mend = "run it again with fewer workers (one works in this process)"
            raise NmtError(f"a worker process died, perhaps for want of memory: {mend}") from None


def _in_order(pool: ProcessPoolExecutor, chunks: Iterable[Chunk], most: int) -> Iterator[Encoded]:
    waiting: deque[Future[Encoded]] = deque()
    for chunk in chunks:
        waiting.append(pool.submit(_encode_in_worker, chunk))
        if len(waiting) == most:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


_worker: Encoder | None = None


def _start_worker(folder: Path) -> None:
    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends us
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    _worker = Encoder(Tokenizers.load(folder))


def _leave_with_parent() -> None:
    """A worker whose parent was killed would wait for work for ever."""
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)


def _encode_in_worker(chunk: Chunk) -> Encoded:
    assert _worker is not None
    return _worker(chunk)


def _packed(tokenizer: Tokenizer, sentences: list[list[int]]) -> Packed:
    """The smallest type that holds every id is used: it is what fills the disk, and the memory of workers."""
    kind = np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.uint32
    return Packed(np.fromiter(chain.from_iterable(sentences), kind), np.fromiter(map(len, sentences), np.int32))
