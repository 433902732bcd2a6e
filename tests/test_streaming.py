"""Whoever pipes text is answered in time, in order and within bounded memory, by however many processes, and left alone
when they have heard enough."""

import gzip
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import Any, Self

import pytest
from commands import Done, Shell

from nmt.errors import DataError, NmtError
from nmt.processes import Shard, affordable, working, working_here_first
from nmt.text import Arriving, count_lines, lines_of, share_of
from nmt.text.arriving import AHEAD
from nmt.translation import Translator
from nmt.translation.batching import Flow, Window, windows

FAST = ("--device", "cpu", "--precision", "fp32", "--beam", 1)
LINES = [f"line {number} " + "word " * (number * 7 % 11) for number in range(100)]


@pytest.fixture(scope="module")
def translator(trained: Shell) -> Translator:
    return Translator.load(trained.folder / "run" / "model", "cpu", "fp32")


def text(lines: list[str]) -> bytes:
    return "".join(line + "\n" for line in lines).encode()


class Piped:
    """`nmt translate` between two pipes, whose ends we hold."""

    def __init__(self, shell: Shell, folder: Path, *options: object, **how: Any) -> None:
        for name in ("in", "out"):
            os.mkfifo(folder / name)
        how |= {"stdin": folder / "in", "out": str(folder / "out")}
        self.command = shell.start("translate", "run/model", *FAST, *options, **how)
        self.to = (folder / "in").open("wb", buffering=0)
        self.back = (folder / "out").open("rb", buffering=0)

    def ask(self, line: str) -> str:
        """Sends a line, and waits for its answer."""
        self.to.write(line.encode() + b"\n")
        return self.back.readline().decode()

    def end(self, number: signal.Signals | None = None) -> Done:
        """Waits for the end, after a signal if one is given, else after that of the input."""
        if number is None:
            self.to.close()
            return self.command.wait()
        return self.command.kill(number)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.to.close()
        self.back.close()

    @property
    def pid(self) -> int:
        return self.command._pid

    @property
    def memory(self) -> int:
        """Bytes that it has resident."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    @property
    def workers(self) -> list[int]:
        """Its worker processes."""
        found = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return [pid for pid in map(int, found) if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


# Lines that arrive


def waiting(come: list[str], more: Event) -> Iterator[str]:
    yield from come
    assert more.wait(20)


def test_what_has_come_is_given_and_nobody_waits_for_more() -> None:
    more = Event()
    lines = Arriving(waiting(["one", "two", "three"], more))
    taken = lines.take(2)
    while len(taken) < 3:
        taken += lines.take(2, wait=False)
    assert taken == ["one", "two", "three"]
    assert lines.take(wait=False) == []
    more.set()
    assert lines.take() == []


def test_a_fault_is_told_only_after_all_lines_before_it() -> None:
    def faulty() -> Iterator[str]:
        yield from ("one", "two")
        raise DataError("three")

    for lines in (Arriving(faulty()), faulty()):
        seen: list[str] = []
        with pytest.raises(DataError, match="three"):
            collect(windows(lines, 5), seen)
        assert seen == ["one", "two"]


def collect(parts: Iterator[list[str]], into: list[str]) -> None:
    for part in parts:
        into += part


def test_lines_are_read_ahead_only_so_far() -> None:
    read = 0

    def endless() -> Iterator[str]:
        nonlocal read
        while True:
            read += 1
            yield "more"

    lines = Arriving(endless())
    for taken in range(0, 5 * AHEAD, AHEAD // 2):
        assert read <= taken + AHEAD + 1
        for _ in range(AHEAD // 2):
            lines.take(1)


def test_windows_of_what_is_there_are_full() -> None:
    assert [len(window) for window in windows(LINES, 30)] == [30, 30, 30, 10]
    assert list(windows([], 30)) == []


def test_files_are_there_and_pipes_are_awaited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "plain").write_text("one\n\ntwo")
    (tmp_path / "packed").write_bytes(gzip.compress(b"three\nfour\n"))
    os.mkfifo(tmp_path / "pipe")
    files = [tmp_path / "plain", tmp_path / "packed"]
    assert not isinstance(lines_of(files), Arriving)
    assert list(lines_of(files)) == ["one", "", "two", "three", "four"]
    assert count_lines(files) == 5
    assert count_lines([*files, tmp_path / "pipe"]) is None
    with (tmp_path / "plain").open() as file:
        monkeypatch.setattr("sys.stdin", file)
        assert count_lines(["-"]) == 3
        assert list(lines_of(["-"])) == ["one", "", "two"]


# Batches


def through(lines: list[str], window: int, most: int) -> tuple[list[str], list[int]]:
    """Lines made loud in windows and batches of so many, and what is told of how many are done."""
    told: list[int] = []
    flow = Flow(
        (Window(part, [len(line) for line in part], "", most) if part else None for part in windows(lines, window)),
        told.append,
    )
    return list(flow.through(lambda pieces: ((p, [line.upper() for line in p]) for p in pieces if p is not None))), told


def test_lines_come_out_in_order_whatever_the_windows_and_batches() -> None:
    lines = ["", *LINES, "", ""]
    for window in (1, 2, 7, 200):
        for most in (1, 5, 300):
            found, told = through(lines, window, most)
            assert found == [line.upper() for line in lines]
            assert sum(told) == len(lines)


def test_a_line_is_given_as_soon_as_it_is_known_and_those_before_it() -> None:
    begun: list[str] = []

    def work(pieces: Any) -> Iterator[Any]:
        for piece in pieces:
            begun.extend(piece)
            yield piece, piece

    lines = ["the longest of all", "", "short", "not so short"]
    flow = Flow([Window(lines, [len(line) for line in lines], "", 1)], lambda more: None)
    assert [(line, len(begun)) for line in flow.through(work)] == [
        ("the longest of all", 1), ("", 1), ("short", 3), ("not so short", 3)
    ]  # fmt: skip


# Processes

SHOUTING = partial(partial, str.upper)  # what a worker makes needs no import of this file, and of torch


def test_work_begun_here_is_gone_on_with_by_workers_in_order() -> None:
    seen: list[str] = []

    def pieces() -> Iterator[str]:
        for number in range(30_000):
            yield f"line {number}"
            time.sleep(0.001)
            if sum(map(str.isupper, seen)) > 9:
                return

    with working_here_first(str, SHOUTING, 2, lambda seconds, done: done == 3) as work:
        for _, found in work(pieces()):
            seen.append(found)
    here = [line for line in seen if line.islower()]
    assert [line.lower() for line in seen] == [f"line {number}" for number in range(len(seen))]
    assert seen[: len(here)] == here
    assert 3 <= len(here) < len(seen)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (partial(Shard.parse, "no share"), "must be I/N"),
        (partial(partial, signal.raise_signal), r"a worker process died \(exit code -9"),
    ],
)
def test_what_ends_a_worker_ends_all_with_a_line(make: Any, told: str) -> None:
    with pytest.raises(NmtError, match=told), working(make, 2) as work:
        list(work([int(signal.SIGKILL)] * 3))
    assert not multiprocessing.active_children()


def test_all_that_is_under_way_is_collected_before_a_wait() -> None:
    collected = 0

    def pieces() -> Iterator[str | None]:
        for number in range(5):
            yield "a line"
            yield None
            assert collected == number + 1

    with working(SHOUTING, 3) as work:
        for _ in work(pieces()):
            collected += 1
    assert collected == 5


def test_workers_are_no_more_than_memory_holds() -> None:
    assert affordable(1) == 1
    assert 1 <= affordable(2) <= 2
    assert affordable(10**9) < 10**7


# Shares of a file


@pytest.mark.parametrize("of", [1, 2, 3, 7, 30])
def test_the_shares_one_after_another_are_the_text(tmp_path: Path, of: int) -> None:
    (tmp_path / "text").write_bytes(text(LINES))
    shares = [share_of([tmp_path / "text"], Shard(number, of), 8) for number in range(1, of + 1)]
    assert [line for share in shares for line in share.lines] == LINES
    assert sum(share.total for share in shares if share.total) == len(LINES)
    assert all(share.first % 8 == 0 for share in shares)


def test_what_cannot_be_counted_cannot_be_shared_out(tmp_path: Path) -> None:
    for path in ("-", tmp_path / "pipe"):
        if path != "-":
            os.mkfifo(path)
        with pytest.raises(DataError, match="name a file, not a pipe"):
            share_of([path], Shard(1, 2), 8)


def test_torchrun_and_on_demand_srun_say_which_share_is_whose(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {"SLURM_PROCID": "1", "SLURM_NTASKS": "4"})
    assert Shard.of_torchrun() == Shard(1, 1)
    assert Shard.parse("auto") == Shard(2, 4)
    os.environ |= {"SLURM_STEP_NUM_TASKS": "3"}
    assert Shard.parse("auto") == Shard(2, 3)
    os.environ |= {"RANK": "7", "WORLD_SIZE": "8"}
    assert Shard.parse("auto") == Shard.of_torchrun() == Shard(8, 8)
    os.environ.clear()
    with pytest.raises(NmtError, match="--shard auto: torchrun or srun must have started this process"):
        Shard.parse("auto")


def test_each_process_of_a_machine_takes_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    from nmt.model.device import pick_device

    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    monkeypatch.setattr(os, "environ", {})
    assert str(pick_device()) == "cuda"
    os.environ |= {"SLURM_LOCALID": "2"}
    assert str(pick_device()) == "cuda:2"
    os.environ |= {"LOCAL_RANK": "3"}
    assert [str(pick_device(name)) for name in ("auto", "cuda", "cuda:1", "cpu")] == [
        "cuda:3",
        "cuda:3",
        "cuda:1",
        "cpu",
    ]
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    del os.environ["LOCAL_RANK"]
    assert str(pick_device()) == "cuda"


def test_the_parts_of_a_file_one_after_another_are_the_whole_translation(trained: Shell, tmp_path: Path) -> None:
    lines = (trained.folder / "train.en").read_text().splitlines()[:70]
    (tmp_path / "text").write_bytes(text(["", *lines]))
    how = ("translate", "run/model", tmp_path / "text", *FAST[:-1], 2, "--batch-size", 1, "--n-best", 2)
    whole = trained(*how).out
    for number in (2, 1, 3):
        trained(*how, "--shard", f"{number}/3", "--output", tmp_path / "out")
    parts = sorted(tmp_path.glob("out.*"))
    assert [path.name for path in parts] == ["out.1-of-3", "out.2-of-3", "out.3-of-3"]
    assert b"".join(path.read_bytes() for path in parts) == whole
    assert b"".join(trained(*how, "--shard", f"{number}/2").out for number in (1, 2)) == whole


def test_a_part_of_a_file_begins_as_its_part_of_the_prefixes_says(trained: Shell, tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(text((trained.folder / "train.en").read_text().splitlines()[:40]))
    (tmp_path / "prefixes").write_bytes(text(["Die", "", "Ein Haus", "Das"] * 10))
    how = ("translate", "run/model", tmp_path / "text", *FAST, "--batch-size", 1, "--prefix", tmp_path / "prefixes")
    whole = trained(*how).out
    assert b"".join(trained(*how, "--shard", f"{number}/2").out for number in (1, 2)) == whole
    for prefixes, told in ((41, "more prefixes than the 40 lines"), (39, "line 40 has no prefix")):
        (tmp_path / "prefixes").write_bytes(text(["Die"] * prefixes))
        assert told in trained.fails(*how, "--shard", "2/2")


def test_of_torchruns_processes_each_writes_its_part_to_its_own_file(trained: Shell, tmp_path: Path) -> None:
    ranks = [{"change": {"os.environ": {"RANK": str(rank), "WORLD_SIZE": "2"}}} for rank in (0, 1)]
    how = ("translate", "run/model", trained.folder / "test.en", *FAST)
    assert "add --output FILE" in trained.fails(*how, **ranks[0])
    for rank in ranks:
        trained(*how, "--output", tmp_path / "out", **rank)
    assert b"".join((tmp_path / f"out.{i}-of-2").read_bytes() for i in (1, 2)) == trained(*how).out
    assert "name a file, not a pipe" in trained.fails(*how[:2], *FAST, "--output", tmp_path / "out", **ranks[0])


# A translator that streams


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="what is mapped is read from /proc")
def test_processes_with_one_model_share_its_weights(translator: Translator, trained: Shell) -> None:
    mapped = [line.split() for line in Path("/proc/self/maps").read_text().splitlines()]
    weights = next(translator.models[0].parameters()).data_ptr()
    (holding,) = (
        fields for fields in mapped if int(fields[0].split("-")[0], 16) <= weights < int(fields[0].split("-")[1], 16)
    )
    assert holding[-1] == str(trained.folder / "run" / "model" / "model.safetensors")


def test_no_line_waits_for_more_than_a_few_windows_after_it(translator: Translator, monkeypatch: Any) -> None:
    assert 3 * AHEAD + (1 << 16) // 20 < 10_000  # with what a pipe holds of lines as short as 20 bytes
    monkeypatch.setattr("nmt.text.arriving.AHEAD", 32)
    monkeypatch.setattr(Translator, "_answer", lambda self, batch, how: [[] for _ in batch])
    sent = 0

    def sending() -> Iterator[str]:
        nonlocal sent
        while True:
            sent += 1
            yield "The file is open."

    found = translator.stream(Arriving(sending()), beam=1, batch_size=8)
    for number, _ in enumerate(islice(found, 1000), 1):
        assert sent <= number + 3 * 32


def test_workers_join_in_only_when_there_is_enough_to_do(translator: Translator, monkeypatch: Any) -> None:
    monkeypatch.setattr("nmt.translation.workers.cores", lambda: 2)
    monkeypatch.setattr("torch.get_num_threads", lambda: 2)
    lines = ["Open.", "Close.", ""] * 9
    alone = list(translator.stream(lines, beam=1, batch_size=4))

    def joined(worth: float) -> bool:
        monkeypatch.setattr("nmt.translation.workers.WORTH", worth)
        most, found = 0, []
        for best in translator.stream(lines, beam=1, batch_size=4, workers=None):
            found.append(best)
            most = max(most, len(multiprocessing.active_children()))
        assert [best[0].text for best in found] == [best[0].text for best in alone]
        return most == 2

    assert not joined(1e9)
    assert joined(1e-9)
    assert not multiprocessing.active_children()


def test_what_is_done_is_told_line_for_line(translator: Translator) -> None:
    told: list[int] = []
    list(translator.stream(["", "Open.", "", "Close."] * 9, beam=1, batch_size=7, done=told.append))
    assert sum(told) == 36
    assert max(told) == 18


def test_workers_need_a_cpu_and_a_model_in_a_folder(translator: Translator) -> None:
    made = Translator(
        translator.models,
        translator.tokenizers,
        translator._decode,
        translator.device,
        translator.precision,
        print,
        99,
        "en",
    )
    assert len(list(made.stream(["Open."], workers=None))) == 1
    with pytest.raises(NmtError, match=r"take a translator made by Translator\.load"):
        next(made.stream(["Open."], workers=2))
    made.device = SimpleNamespace(type="cuda")  # type: ignore[assignment]
    with pytest.raises(NmtError, match="--workers 2: workers share the cores of a CPU"):
        next(made.stream(["Open."], workers=2))


# The command in a pipe


@pytest.mark.parametrize("options", [(), ("--workers", 2), ("--threads", 1)])
def test_a_co_process_that_waits_for_each_answer_gets_it(trained: Shell, tmp_path: Path, options: Any) -> None:
    lines = (trained.folder / "test.en").read_text().splitlines()[:8]
    lines[3] = ""
    quiet = ("--on-suspect", "off")
    with Piped(trained, tmp_path, *options, *quiet) as piped:
        found = [piped.ask(line) for line in lines]
        piped.to.write(b"half a line")
        piped.to.write(b", then its end\nand more\n")
        found += [piped.back.readline().decode() for _ in range(2)]
        assert piped.end() == (0, b"", "")
        expected = trained(
            "translate", "run/model", *FAST, *quiet, stdin=text([*lines, "half a line, then its end", "and more"])
        )
        assert "".join(found).encode() == expected.out


@pytest.mark.parametrize(
    "options",
    [("--beam", 3, "--n-best", 2, "--alignments"), ("--mbr", 4, "--prefix", "prefixes"), ("--beam", 3)],
)
def test_workers_change_no_byte(trained: Shell, options: Any) -> None:
    lines = (trained.folder / "train.en").read_text().splitlines()[:100]
    lines[8] = " ".join(lines)  # which is split
    (trained.folder / "prefixes").write_bytes(text(["", "Die"] * 50))
    how = ("translate", "run/model", *FAST[:-2], "--batch-size", 16, *options)
    one, two = (trained(*how, "--workers", number, stdin=text(lines)) for number in (1, 2))
    assert (one.out, one.err) == (two.out, two.err)


def test_scoring_with_workers_gives_the_same_translations(trained: Shell) -> None:
    how = ("score", "recipe.yaml", *FAST, "--json")
    assert trained(*how, "--workers", 2).out == trained(*how).out


@pytest.mark.parametrize("options", [(), ("--workers", 2)])
def test_a_reader_who_leaves_ends_it_quietly_though_more_may_come(trained: Shell, tmp_path: Path, options: Any) -> None:
    with Piped(trained, tmp_path, *options) as piped:
        piped.ask("Open the file.")
        piped.back.close()
        piped.to.write(b"Close the file.\n")
        assert piped.command.wait() == (141, b"", "")


@pytest.mark.parametrize("options", [(), ("--workers", 2)])
def test_ctrl_c_ends_it_quietly_while_it_waits_or_its_workers_begin(
    trained: Shell, tmp_path: Path, options: Any
) -> None:
    with Piped(trained, tmp_path, *options) as piped:
        if options:
            while len(piped.workers) < 2:
                time.sleep(0.01)
            for pid in piped.workers:
                os.kill(pid, signal.SIGINT)  # a terminal sends it to all
        else:
            piped.ask("Open the file.")
        assert piped.end(signal.SIGINT) == (130, b"", "nmt: interrupted\n")


def test_nothing_is_left_to_say_when_it_ends_while_it_waits(trained: Shell) -> None:
    """A process of its own, for the end of Python itself is asked after."""
    command = [sys.executable, "-m", "nmt", "translate", "run/model", *map(str, FAST)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=trained.folder,
        env=environment, bufsize=0,
    ) as process:  # fmt: skip
        assert process.stdin
        assert process.stdout
        assert process.stderr
        process.stdin.write(b"Open the file.\n")
        assert process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        assert (process.wait(60), process.stderr.read()) == (143, b"")


def test_a_killed_worker_ends_it_with_a_line(trained: Shell, tmp_path: Path) -> None:
    with Piped(trained, tmp_path, "--workers", 2) as piped:
        piped.ask("Open the file.")
        for pid in piped.workers:
            os.kill(pid, signal.SIGKILL)
        piped.to.write(b"Close the file.\n")
        code, _, said = piped.command.wait()
        assert code == 2
        assert said.startswith("nmt: error: a worker process died (exit code -9)")
        assert said.count("\n") == 1


def test_lines_before_a_fault_are_translated(trained: Shell, tmp_path: Path) -> None:
    lines = (trained.folder / "test.en").read_text().splitlines()[:5]
    (tmp_path / "text").write_bytes(text(lines) + b"Gr\xfc\xdfe\n")
    expected = trained("translate", "run/model", *FAST, stdin=text(lines)).out
    done = trained("translate", "run/model", tmp_path / "text", *FAST, code=2)
    assert done.out == expected
    assert done.err.startswith(f"nmt: error: {tmp_path / 'text'}:6: not UTF-8")
    with Piped(trained, tmp_path) as piped:
        piped.to.write((tmp_path / "text").read_bytes())
        assert b"".join(piped.back) == expected
        assert piped.end().code == 2


def test_memory_stays_flat_however_much_is_piped_through(trained: Shell, tmp_path: Path) -> None:
    with Piped(trained, tmp_path, change={"nmt.text.arriving.AHEAD": 64}) as piped:
        taken = []
        for count in range(1, 31):
            piped.to.write(b"Open\n" * 64)
            for _ in range(64):
                piped.back.readline()
            if count % 10 == 0:
                taken.append(piped.memory)
        assert piped.end().code == 0
        assert taken[-1] - taken[0] < 2 << 20
