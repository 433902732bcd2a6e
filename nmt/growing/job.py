"""A long piece of work over lines of text, done in chunks and put together at the end.

The lines are cut into chunks, always at the same places, and what becomes of a chunk is a function of its lines alone.
So it may be done by any process, at any time, on any machine: stopping, resuming, sharing out among workers or shards
changes no byte. A finished chunk is a file in the folder PREFIX.parts, whole or not there; `job.json` beside them says
what they are parts of. PREFIX.json says the same of the finished files.
"""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from nmt.data.prepare import Report, tell
from nmt.errors import DataError, NmtError, OutputError
from nmt.files import alone_in, output_error, read_json, whole_file, whole_folder, write_json
from nmt.processes import WHOLE, Shard, working

FORMAT = 1
JOB = "job.json"
OURS = (JOB, "*.chunk", "*.tmp", "whole.*")  # all that the folder of parts holds

Row = tuple[str, ...]
"""The texts that belong together on a line, be it one alone; none holds a line feed."""


class Part(NamedTuple):
    """What became of a chunk: its rows of output, and how many lines came to what end."""

    rows: list[Row]
    counts: dict[str, int]


Do = Callable[[list[Row]], Part]


class Finished(NamedTuple):
    """A finished job: how many lines it read, how many rows it wrote, and what became of lines that gave none."""

    lines: int
    rows: int
    counts: dict[str, int]


@dataclass(frozen=True)
class Job:
    """What is to be done: `make` gives what does it, `read` the rows of the input, each time anew.

    `depends` is what the result depends on beside the input, under names that the user knows. `columns` are the
    endings of the files PREFIX.ENDING, one for each text of an output row.
    """

    prefix: str
    columns: tuple[str, ...]
    read: Callable[[], Iterable[Row]]
    make: Callable[[], Do]
    depends: dict[str, Any]
    chunk: int
    shard: Shard = WHOLE

    @property
    def files(self) -> list[Path]:
        """The files that it makes."""
        return [Path(f"{self.prefix}.{ending}") for ending in self.columns]

    @property
    def parts(self) -> Path:
        """Where finished chunks lie."""
        return Path(f"{self.prefix}.parts")

    @property
    def record(self) -> Path:
        """What says of the finished files what they are."""
        return Path(f"{self.prefix}.json")

    def part(self, number: int) -> Path:
        """The file of a finished chunk."""
        return self.parts / f"{number:08}.chunk"


def run(job: Job, workers: int, force: bool = False, report: Report = tell) -> Finished:
    """Does what is not done yet of a job, and writes its files.

    Where they are there already, made of the same, nothing is done; with `force`, all is done anew.
    Raises `OutputError` where a file cannot be written or is in the way and not ours, `DataError` for text that cannot
    be used, and `NmtError` where what is there was made of something else.
    """
    lines, digest = _measured(job.read())
    chunks = job.shard.share(-(-lines // job.chunk))
    depends = {**job.depends, "shard": str(job.shard), "chunk": job.chunk, "input": digest}
    job_record = {"format": FORMAT, **depends}
    if not force and _is_finished(job, job_record):
        report(f"{job.files[0]}: made already, and nothing has changed since")
    else:
        if force or not _is_begun(job, job_record):
            _begin(job, job_record, force)
        with alone_in(job.parts):
            _work(job, chunks, lines, workers, report)
            _put_together(job, chunks, job_record)
    _clear(job, job_record)
    found = read_json(job.record)
    return Finished(found["lines"], found["rows"], found["counts"])


def _measured(rows: Iterable[Row]) -> tuple[int, str]:
    """How many rows there are, and what they are known by."""
    digest, count = hashlib.sha256(), 0
    for row in rows:
        count += 1
        digest.update("\n".join((*row, "")).encode())
    if not count:
        raise DataError("there is no text to translate: every file is empty")
    return count, digest.hexdigest()


def _is_begun(job: Job, record: dict[str, Any]) -> bool:
    return _told(job.parts / JOB) == record


def _begin(job: Job, record: dict[str, Any], force: bool) -> None:
    """An empty folder of parts, in the place of another job's; nobody may be at work in that."""
    _check_free(job, record, force)
    with alone_in(job.parts) if job.parts.exists() else nullcontext(), whole_folder(job.parts, OURS) as folder:
        write_json(folder / JOB, record)
    job.record.unlink(missing_ok=True)


def _is_finished(job: Job, record: dict[str, Any]) -> bool:
    """Whether the files are there as this job leaves them."""
    found = _told(job.record)
    return found is not None and found.get("job") == record and found.get("bytes") == _sizes(job)


def _told(path: Path) -> dict[str, Any] | None:
    """What a record says; None where there is none, or a file that is not ours."""
    with suppress(DataError):
        found = read_json(path)
        if isinstance(found, dict) and isinstance(found.get("job", found), dict) and "input" in found.get("job", found):
            return found
    return None


def _sizes(job: Job) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in job.files if path.exists()}


def _check_free(job: Job, record: dict[str, Any], force: bool) -> None:
    """Raises where something stands in the place of the job's files that it must not take."""
    places = {"begun": job.parts / JOB, "made": job.record}
    ours = {kind: found for kind, path in places.items() if (found := _told(path)) is not None}
    for path in [job.record] * ("made" not in ours) + job.files * (not ours):
        if path.exists():
            raise OutputError(f"{path}: would be replaced, but was not made by this command: write somewhere else")
    if ours and not force:
        kind, found = next(iter(ours.items()))
        before = found.get("job", found)
        differing = sorted(key for key in before.keys() | record.keys() if before.get(key) != record.get(key))
        why = f"with another {', another '.join(differing)}" if differing else "but its files have changed since"
        raise NmtError(f"{places[kind]}: {kind} {why}: write somewhere else, or begin anew with --force")


def _work(job: Job, chunks: range, lines: int, workers: int, report: Report) -> None:
    """Does the chunks that are not there yet."""
    todo = [number for number in chunks if not job.part(number).exists()]
    if len(todo) < len(chunks):
        report(f"{job.parts}: going on, with {len(chunks) - len(todo):,} of {len(chunks):,} chunks done")
    if not todo:
        return
    ends = min(chunks.stop * job.chunk, lines) - chunks.start * job.chunk
    left = sum(min(job.chunk, lines - number * job.chunk) for number in todo)
    shown = tqdm(desc="translating", total=ends, initial=ends - left, unit=" lines", dynamic_ncols=True, disable=None)
    with working(job.make, min(workers, len(todo))) as do, shown as bar:
        numbers = iter(todo)
        for rows, part in do(_chunks(job, set(todo))):
            with whole_file(job.part(next(numbers)), "w") as file:
                json.dump(part, file, ensure_ascii=False)
            bar.update(len(rows))


def _chunks(job: Job, wanted: set[int]) -> Iterator[list[Row]]:
    rows = iter(job.read())
    for number in range(max(wanted) + 1):
        chunk = list(islice(rows, job.chunk))
        if not chunk:
            raise DataError("the text has become shorter while it was being read: run it again")
        if number in wanted:
            yield chunk


def _put_together(job: Job, chunks: range, record: dict[str, Any]) -> None:
    """The files from the parts. They are renamed from among these, so that no kill leaves half of one beside them."""
    counts, rows = Counter[str](), 0
    whole = [job.parts / f"whole.{number}" for number in range(len(job.files))]
    with ExitStack() as stack:
        files = [stack.enter_context(whole_file(path, "w")) for path in whole]
        for number in chunks:
            part = Part(*read_json(job.part(number)))
            counts.update(part.counts)
            rows += len(part.rows)
            for row in part.rows:
                for file, text in zip(files, row, strict=True):
                    file.write(text + "\n")
    for path, final in zip(whole, job.files, strict=True):
        _move(path, final)
    told = {"lines": sum(counts.values()), "rows": rows, "counts": dict(counts), "bytes": _sizes(job), "job": record}
    write_json(job.parts / "whole.json", told)
    _move(job.parts / "whole.json", job.record)


def _clear(job: Job, record: dict[str, Any]) -> None:
    """Removes the parts, of a run before this one too; what says whose they are goes last, for a kill in between."""
    if _is_begun(job, record):
        for path in sorted(job.parts.iterdir(), key=lambda path: path.name == JOB):
            path.unlink()
    with suppress(OSError):  # not there, or not ours
        job.parts.rmdir()


def _move(path: Path, final: Path) -> None:
    try:
        os.replace(path, final)
    except OSError as error:
        raise output_error(final, error) from None
