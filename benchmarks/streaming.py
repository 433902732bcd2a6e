"""What a pipe through `nmt translate` costs in memory and in waiting, however many lines go through it.

    python benchmarks/streaming.py --lines 1000000

A model of random weights, as small as can be, is made for it: what is measured is the way of lines, not the model.
Lines are sent as fast as they are taken. Told are the resident memory of the process, from Linux, after so many lines,
and how many lines beyond its own had been sent at most when an answer came, which are to be fewer than 10,000. The last
line is all figures as JSON.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import threading
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any

from nmt import recipe as recipes
from nmt.model.folder import build, save, weights_of
from nmt.text import Tokenizers, train_tokenizer
from nmt.text.tokenizer import Tokenizer

RECIPE = """
run: run
data: {source: en, target: de, train: train, valid: valid}
tokenizer: {vocab_size: 600}
model: {layers: 1, d_model: 16, heads: 1, d_ffn: 16}
decode: {beam: 1, max_extra: 0}
"""
WARM = 10_000  # lines, after which memory is to stay as it is
LIMIT = 10_000  # lines that may be sent after a line, before its answer has come


def make_model(folder: Path, words: list[str]) -> None:
    """A model whose vocabulary are these words, about one token each, with random weights."""
    tokenizer = Tokenizer(train_tokenizer(words, 600))
    recipe, tokenizers = recipes.loads(RECIPE), Tokenizers(tokenizer, tokenizer)
    save(folder, recipe, tokenizers, weights_of(build(recipe, tokenizers)))


def send(pipe: IO[bytes], words: list[str], lines: int, sent: list[int]) -> None:
    """Sends so many lines of two words, and counts them in `sent`."""
    drawn = random.Random(1)
    with pipe:
        for _ in range(lines):
            pipe.write(f"{drawn.choice(words)} {drawn.choice(words)}\n".encode())
            sent[0] += 1


def resident(process: int) -> float:
    """MB of memory that a process holds."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def measure(folder: Path, words: list[str], lines: int, options: list[str]) -> dict[str, Any]:
    """Pipes so many lines through the model in a folder."""
    command = [sys.executable, "-m", "nmt", "translate", str(folder), "--device", "cpu", *options]
    start, sent, memory, furthest = time.monotonic(), [0], dict[int, float](), 0
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as running:
        assert running.stdin
        assert running.stdout
        threading.Thread(target=send, args=(running.stdin, words, lines, sent), daemon=True).start()
        with os.fdopen(os.dup(running.stdout.fileno()), "rb") as answers:
            got = 0
            for got, _ in enumerate(answers, 1):
                furthest = max(furthest, sent[0] - got)
                if got % max(1, min(WARM, lines // 10)) == 0:
                    memory[got] = resident(running.pid)
                    print(f"{got:>10,} lines {memory[got]:8.1f} MB", file=sys.stderr)
    assert got == lines, f"{got} answers to {lines} lines"
    seconds = time.monotonic() - start
    warm = next(mb for count, mb in memory.items() if count >= min(WARM, lines // 10))
    return {
        "lines": lines, "lines_per_second": round(lines / seconds, 1), "warm_mb": round(warm, 1),
        "largest_mb": round(max(memory.values()), 1), "furthest_ahead": furthest, "limit": LIMIT,
    }  # fmt: skip


def main() -> None:
    """Measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines", type=int, default=1_000_000, help="lines to send [1000000]")
    parser.add_argument("options", nargs="*", help="options of nmt translate, after --, such as --workers 2")
    arguments = parser.parse_args()
    drawn = random.Random(0)
    words = ["".join(drawn.choices("abcdefghijklmnopqrst", k=12)) for _ in range(40)]
    with TemporaryDirectory() as folder:
        make_model(Path(folder) / "model", words)
        found = measure(Path(folder) / "model", words, arguments.lines, arguments.options)
    print(
        f"{found['lines']:,} lines, {found['lines_per_second']:,} a second: {found['warm_mb']} MB when warm, "
        f"{found['largest_mb']} MB at most; {found['furthest_ahead']:,} lines sent ahead of an answer at most"
    )
    print(json.dumps(found))


if __name__ == "__main__":
    main()
