"""Parts joined: what only the whole of the text can tell is found out, and the shards are written without it."""

import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import repeat
from pathlib import Path

import numpy as np

from nmt.data.accounts import EXAMPLES, Account, Example, Found
from nmt.data.parts import Kept, Made, Part
from nmt.data.shards import ShardRecord, ShardWriter, SplitRecord, read_shard, select, shard_files
from nmt.data.sieve import HeldOut, PartSieve
from nmt.data.unfinished import Survey
from nmt.recipe import Clean, tag_of
from nmt.text import Corpus, Tokenizers
from nmt.text.cleaning import ENTITIES, OVERLAP, REASONS
from nmt.text.duplicates import Hashes, hash_of

Sieved = tuple[np.ndarray | None, dict[str, np.ndarray]]


class Joiner:
    """Joins the parts in a folder as shards in another; a function of the parts, whoever made them."""

    def __init__(self, folder: Path, survey: Survey, clean: Clean, held_out: Sequence[HeldOut]) -> None:
        self._folder, self._survey, self._clean, self._held_out = folder, survey, clean, held_out
        self._tokenizers = Tokenizers.load(folder)

    def join(self, split: str, corpora: Sequence[Corpus], new: Path) -> tuple[SplitRecord, list[Account]]:
        """Writes the shards of a split into `new`, and accounts for what was dropped."""
        skipped = self._survey.skipped[split]
        accounts = [Account(corpus, Counter(units)) for corpus, units in zip(corpora, skipped, strict=True)]
        parts = [part for part in self._survey.parts if part.split == split]
        sieved: Iterable[Sieved] = repeat((None, {}))
        if split == "train":
            sieved = PartSieve(self._clean, self._held_out, lambda: self._hashes(parts, corpora))
        shards: list[ShardRecord] = []
        for part, (reasons, overlaps) in zip(parts, sieved, strict=False):
            made = Made.load(self._folder, part.name)
            found = made.found
            if reasons is not None and any(which.any() for which in (reasons, *overlaps.values())):
                found = tuple(self._settled(part, made, reasons, overlaps))
            for some in found:
                accounts[some.corpus].absorb(some)
            shard = self._write(made.shard, reasons, new, f"{split}-{len(shards):05d}")
            shards += [shard] if shard.pairs else []
        return SplitRecord(corpora=tuple(account.record for account in accounts), shards=tuple(shards)), accounts

    def _hashes(self, parts: Sequence[Part], corpora: Sequence[Corpus]) -> Iterator[tuple[Hashes, np.ndarray]]:
        """The hashes of each part, and for each pair that of the tag of its corpus."""
        for part in parts:
            kept = Kept.load(self._folder, part.name)
            tags = [tag_of(corpora[span.corpus].entry) for span in part.spans]
            tasks = np.array([hash_of(tag) if tag else 0 for tag in tags], np.uint64)
            ends = np.cumsum([span.pairs for span in part.spans])
            yield kept.hashes, tasks[np.searchsorted(ends, kept.places, "right")]

    def _write(self, shard: ShardRecord, reasons: np.ndarray | None, new: Path, name: str) -> ShardRecord:
        """The shard of a part without the pairs that have a reason to be dropped; nothing is written for none."""
        wanted = np.ones(shard.pairs, bool) if reasons is None else reasons == 0
        if not wanted.any():
            return ShardRecord(name=name, pairs=0, source_tokens=0, target_tokens=0)
        if wanted.all():
            for old, file in zip(shard_files(shard.name), shard_files(name), strict=True):
                _link(self._folder / old, new / file)
            return shard.model_copy(update={"name": name})
        with ShardWriter(new, name) as writer:
            writer.add(select(read_shard(self._folder, shard.name), wanted))
            return writer.close()

    def _settled(
        self, part: Part, made: Made, reasons: np.ndarray, overlaps: Mapping[str, np.ndarray]
    ) -> Iterator[Found]:
        """What was found in a part, of each corpus in it, with what is dropped now."""
        kept, pairs, at = Kept.load(self._folder, part.name), read_shard(self._folder, part.name), 0
        starts = [np.cumsum(side.lengths, dtype=np.int64) - side.lengths for side in pairs]

        def example(place: int) -> Example:
            sides = zip(pairs, starts, strict=True)
            ids = (side.tokens[start[place] :][: side.lengths[place]].tolist() for side, start in sides)
            pair = (tokenizer.decode([one])[0] for tokenizer, one in zip(self._tokenizers, ids, strict=True))
            return Example(int(numbers[place]), *pair)

        for span, found in zip(part.spans, made.found, strict=True):
            inside = (at <= kept.places) & (kept.places < at + span.pairs)
            numbers = kept.places.astype(np.int64) - at + span.first + 1
            found.unmend(ENTITIES, numbers[inside & kept.repaired & (reasons > 0)].tolist())
            for key, which in overlaps.items():
                places = np.flatnonzero(inside & which)[:EXAMPLES].tolist()
                found.examples[f"{OVERLAP} with {key}"] = list(map(example, places))
            for code in np.unique(reasons[inside & (reasons > 0)]).tolist():
                places = np.flatnonzero(inside & (reasons == code)).tolist()
                found.dropped[REASONS[code]] = len(places)
                found.examples[REASONS[code]] = list(map(example, places[:EXAMPLES]))
            at += span.pairs
            yield found


def _link(old: Path, new: Path) -> None:
    """The same file under another name; where the disk has no such thing, a copy."""
    try:
        os.link(old, new)
    except OSError:
        shutil.copyfile(old, new)
