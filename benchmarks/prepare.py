"""Memory and speed of `nmt prepare`, on any corpus.

    python benchmarks/prepare.py CORPUS --valid VALID --source en --target fr --times 10

Memory: the largest resident set of each process, as Linux counts it (VmHWM), with the corpus and with so many times its
text. Speed: CPU seconds, user and system, of all processes together, for the clock counts what else the machine does.
`nmt prepare --shard 1/1` reads, cleans, encodes, hashes and writes pairs whose vocabulary is learned already; beside it
SentencePiece encodes the same lines in as many processes and throws the result away: by its Python package, and by its
program spm_encode where that is given. They take turns.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import date
from itertools import islice
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory, TemporaryFile
from typing import Any

import sentencepiece

from nmt.data.shards import Manifest
from nmt.errors import NmtError
from nmt.text import read_pairs

BARE = """
import sys, sentencepiece
from itertools import islice
encoder = sentencepiece.SentencePieceProcessor(model_file=sys.argv[1])
with open(sys.argv[2], encoding="utf-8", newline="\\n") as file:
    while lines := [line.rstrip("\\n") for line in islice(file, 2000)]:
        encoder.encode(lines, num_threads=1)
"""


def family(process: int) -> Iterator[int]:
    """A process, and all that it has started."""
    yield process
    with suppress(OSError):
        for task in os.listdir(f"/proc/{process}/task"):
            for child in Path(f"/proc/{process}/task/{task}/children").read_text().split():
                yield from family(int(child))


def peaks(command: Sequence[str]) -> tuple[list[float], float]:
    """Runs a command; the largest resident set of each of its processes in MB, its own first, and all CPU seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    found: dict[int, float] = {}
    with TemporaryFile("w+") as told, subprocess.Popen(command, stderr=told, text=True) as running:
        while running.poll() is None:
            for process in family(running.pid):
                with suppress(OSError, IndexError):
                    status = Path(f"/proc/{process}/status").read_text()
                    found[process] = int(status.split("VmHWM:")[1].split()[0]) * 1024e-6
            time.sleep(0.1)
        told.seek(0)
        if running.returncode:
            raise NmtError(told.read().strip().rpartition("\n")[2])
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return list(found.values()), after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


class Bench:
    """A corpus as plain files in a folder, and what is measured with it."""

    def __init__(self, asked: argparse.Namespace, folder: Path) -> None:
        self._asked, self._folder = asked, folder
        self._languages = (asked.source, asked.target)

    def write(self, name: str, times: int = 1, most: int | None = None) -> None:
        """Writes the corpus, `times` over, or its first pairs."""
        one, two = (open(self._folder / f"{name}.{language}", "w", newline="\n") for language in self._languages)  # noqa: SIM115
        with one, two:
            for _ in range(times):
                for source, target in islice(read_pairs(self._asked.corpus, *self._languages), most):
                    one.write(f"{source}\n")
                    two.write(f"{target}\n")

    def command(self, name: str, run: str, *more: str) -> list[str]:
        """How it is prepared."""
        (self._folder / "recipe.yaml").write_text(
            f"data: {{source: {self._asked.source}, target: {self._asked.target}, train: {self._folder / name}, "
            f"valid: {Path(self._asked.valid).resolve()}}}\ntokenizer: {{vocab_size: {self._asked.vocab_size}}}\n"
            f"run: {self._folder / run}\n"
        )
        command = [sys.executable, "-m", "nmt", "prepare", str(self._folder / "recipe.yaml")]
        return [*command, "--workers", str(self._asked.workers), *more]

    def memory(self, times: int, duplicates: bool) -> dict[str, Any]:
        """The memory of preparing `times` the corpus."""
        self.write("train", times)
        _tell(f"memory: {times} times, duplicates {'dropped' if duplicates else 'kept'}")
        change = f"data.clean.duplicates={json.dumps(duplicates)}"
        (parent, *workers), seconds = peaks(self.command("train", "memory", "--force", "--set", change))
        train = Manifest.load(self._folder / "memory/data").splits["train"]
        return {
            "times": times,
            "duplicates": "dropped" if duplicates else "kept",
            "read": sum(corpus.pairs for corpus in train.corpora),
            "kept": train.pairs,
            "parent_mb": round(parent),
            "worker_mb": round(max(workers, default=0)),
            "cpu_seconds": round(seconds, 1),
        }

    def speed(self) -> dict[str, Any]:
        """CPU seconds of preparing, and of encoding alone, in turns."""
        self.write("some", most=self._asked.pairs)
        peaks(self.command("some", "speed", "--shard", "1/1"))
        partial = self._folder / "speed/data.partial"
        model, texts = str(partial / "tokenizer.model"), [str(self._folder / f"some.{one}") for one in self._languages]
        found: dict[str, list[float]] = {}
        for number in range(self._asked.rounds):
            _tell(f"speed: round {number + 1} of {self._asked.rounds}")
            for path in (*partial.glob("train-*"), *partial.glob("valid-*")):
                path.unlink()
            found.setdefault("nmt prepare --shard 1/1", []).append(
                peaks(self.command("some", "speed", "--shard", "1/1"))[1]
            )
            name = f"sentencepiece {sentencepiece.__version__}, Python"
            found.setdefault(name, []).append(sum(peaks([sys.executable, "-c", BARE, model, one])[1] for one in texts))
            if program := self._asked.spm_encode:
                encode = [program, f"--model={model}", "--output_format=id", f"--output={os.devnull}"]
                found.setdefault(_version(program), []).append(sum(peaks([*encode, one])[1] for one in texts))
        pairs = sum(1 for _ in islice(read_pairs(self._asked.corpus, *self._languages), self._asked.pairs))
        return {"pairs": pairs, "cpu_seconds": {name: [round(one, 2) for one in each] for name, each in found.items()}}


def _version(program: str) -> str:
    return subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout.strip()


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def lines(found: dict[str, Any]) -> Iterator[str]:
    """The figures as two tables."""
    yield "  text  duplicates        read        kept  parent MB  worker MB    CPU s"
    for one in found["memory"]:
        yield (
            f"{one['times']:>5}×  {one['duplicates']:10}  {one['read']:>10,}  {one['kept']:>10,}  "
            f"{one['parent_mb']:>9,}  {one['worker_mb']:>9,}  {one['cpu_seconds']:>7,}"
        )
    pairs, speed = found["speed"]["pairs"], found["speed"]["cpu_seconds"]
    yield ""
    yield f"{f'{pairs:,} pairs':32}  {'CPU s':>7}  {'least':>7}  {'most':>7}  {'pairs a CPU second':>18}"
    for name, each in speed.items():
        middle = median(each)
        yield f"{name:32}  {middle:>7.2f}  {min(each):>7.2f}  {max(each):>7.2f}  {pairs / middle:>18,.0f}"


def main() -> None:
    """Measures as the command line says; the tables are for reading, the last line is JSON."""
    parser = argparse.ArgumentParser(description="Memory and speed of nmt prepare, on any corpus.")
    parser.add_argument("corpus", help="the PREFIX of two files")
    parser.add_argument("--valid", required=True, help="the PREFIX of the valid corpus")
    parser.add_argument("--source", default="en")
    parser.add_argument("--target", default="de")
    parser.add_argument("--vocab-size", type=int, default=32_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--times", type=int, default=10, help="how many times the text, for memory; 0 leaves it out")
    parser.add_argument("--pairs", type=int, default=200_000, help="pairs encoded, for speed")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of speed; 0 leaves them out")
    parser.add_argument("--spm-encode", metavar="PROGRAM", help="SentencePiece's own program, to compare with")
    asked = parser.parse_args()
    with TemporaryDirectory(prefix="nmt-prepare-") as folder:
        bench = Bench(asked, Path(folder))
        try:
            speed = bench.speed() if asked.rounds else {"pairs": 0, "cpu_seconds": {}}
            sizes = [(times, drop) for times in (1, asked.times) for drop in (True, False)] if asked.times else []
            found: dict[str, Any] = {"memory": [bench.memory(*one) for one in sizes], "speed": speed}
        except NmtError as error:
            sys.exit(f"prepare: error: {error}")
    found |= {"workers": asked.workers, "machine": processor(), "date": date.today().isoformat()}
    print(*lines(found), sep="\n")
    print(json.dumps(found))


def processor() -> str:
    """The name of the processor, as far as the system tells."""
    told = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return told[0].partition(": ")[2] if told else ""


if __name__ == "__main__":
    main()
