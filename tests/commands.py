"""Commands as a user types them, without the two seconds that each would take to import torch.

A server process imports `nmt` once and forks for each command; the child has its own standard streams, which are files,
and goes through `nmt.cli.main` like any other.
"""

import json
import os
import signal
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, Self, TextIO

LIMIT = 60  # seconds that a command may take


class Done(NamedTuple):
    """What a command left: its exit code (minus the signal, if one killed it) and what it wrote."""

    code: int
    out: bytes
    err: str

    @property
    def lines(self) -> list[str]:
        """Standard output, cut at line feeds only."""
        return self.out.decode().removesuffix("\n").split("\n") if self.out else []


class Running:
    """A command under way."""

    def __init__(self, server: "Server", pid: int, folder: Path) -> None:
        self._server = server
        self._pid = pid
        self._folder = folder

    def wait(self) -> Done:
        """Waits until it ends."""
        code = self._server.ask({"wait": self._pid})
        return Done(code, (self._folder / "out").read_bytes(), (self._folder / "err").read_text())

    def wait_for(self, text: str) -> Self:
        """Waits until it has written this on standard error."""
        give_up = time.monotonic() + LIMIT
        while text not in (self._folder / "err").read_text():
            assert time.monotonic() < give_up, (self._folder / "err").read_text()
            time.sleep(0.005)
        return self

    def kill(self, number: signal.Signals) -> Done:
        """Sends a signal, and waits for the end."""
        os.kill(self._pid, number)
        return self.wait()


class Server:
    """Starts commands by forking; a context manager."""

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch
        self._count = 0

    def __enter__(self) -> Self:
        root = str(Path(__file__).parent.parent)
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": root, "no_proxy": "127.0.0.1"}
        command = [sys.executable, __file__]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=LIMIT)

    def ask(self, job: dict[str, Any]) -> int:
        """One question to the process, and its answer."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def start(self, folder: Path, *arguments: object, stdin: bytes | Path = b"", **limits: Any) -> Running:
        """`nmt ARGUMENTS` begins in a folder.

        limits: `largest`, the bytes that a file may have; `memory`, those that it may take beyond what it begins with;
        `out`, a file to be standard output; `signal`, the number of a signal and the text that brings it, once it is
        written on standard error; `change`, other values for names in modules; `dies_at`, the number of the file
        opened, renamed, linked or removed in RUN at which it is killed.
        """
        self._count += 1
        streams = self._scratch / str(self._count)
        streams.mkdir()
        for name in ("out", "err"):
            (streams / name).touch()
        if isinstance(stdin, bytes):
            (streams / "in").write_bytes(stdin)
            stdin = streams / "in"
        places = {"in": str(stdin), "out": str(streams / "out"), "err": str(streams / "err")}
        job = {"folder": str(folder), "arguments": [str(argument) for argument in arguments], **places, **limits}
        return Running(self, self.ask(job), streams)


class Shell:
    """Runs commands in one folder."""

    def __init__(self, server: Server, folder: Path) -> None:
        self._server = server
        self.folder = folder

    def start(self, *arguments: object, **how: Any) -> Running:
        """Begins a command."""
        return self._server.start(self.folder, *arguments, **how)

    def __call__(self, *arguments: object, code: int = 0, **how: Any) -> Done:
        """Runs a command, which must end with this exit code."""
        done = self.start(*arguments, **how).wait()
        assert done.code == code, f"exit code {done.code}\n{done.err}"
        return done

    def fails(self, *arguments: object, **how: Any) -> str:
        """Runs a command that must fail as a user may expect; gives what it says, without `nmt: error: `."""
        done = self(*arguments, code=2, **how)
        *before, last = done.err.splitlines()
        assert last.startswith("nmt: error: "), done.err
        assert not [line for line in before if "rror" in line or "Traceback" in line], done.err
        assert half_written(self.folder) == []
        return last.removeprefix("nmt: error: ")


def half_written(folder: Path) -> list[Path]:
    """What lies about under its temporary name."""
    return list(folder.rglob("*.tmp"))


def _serve() -> None:
    """Answers each line of standard input: a process to wait for with its exit code, a job with its process."""
    for room in ("cli", "data", "evaluation", "training", "translation"):
        import_module(f"nmt.{room}")
    import_module("torch._dynamo")  # every optimizer does it, and takes two seconds

    for line in sys.stdin:
        job = json.loads(line)
        if "wait" in job:
            print(os.waitstatus_to_exitcode(os.waitpid(job["wait"], 0)[1]), flush=True)
        elif pid := os.fork():
            print(pid, flush=True)
        else:
            os._exit(_run(job))


class _Trigger:
    """A stream that sends its own process a signal once a text has been written on it."""

    def __init__(self, stream: TextIO, number: int, text: str) -> None:
        self._stream, self._number, self._text = stream, number, text

    def write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()
        if self._text in text:
            os.kill(os.getpid(), self._number)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _die_at(moment: int) -> None:
    """Kills this process when it touches a file in a run folder for the time of this number."""
    touched = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal touched
        if event in ("open", "os.rename", "os.link", "os.remove", "os.mkdir", "os.rmdir") and "run/" in str(arguments):
            touched += 1
            if touched == moment:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def _run(job: dict[str, Any]) -> int:
    """One command in a process of its own; gives its exit code, as Python would."""
    import resource
    import traceback

    import nmt.cli

    signal.alarm(LIMIT)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a suite that runs in the background ignores it
    for number, (name, flags) in enumerate((("in", os.O_RDONLY), ("out", os.O_WRONLY), ("err", os.O_WRONLY))):
        os.dup2(os.open(job[name], flags), number)
    sys.stdin, sys.stdout, sys.stderr = (os.fdopen(n, mode, closefd=False) for n, mode in enumerate("rww"))
    sys.stderr.reconfigure(errors="backslashreplace")  # as Python has it
    sys.argv = ["nmt", *job["arguments"]]
    os.chdir(job["folder"])
    if "signal" in job:
        sys.stderr = _Trigger(sys.stderr, *job["signal"])  # type: ignore[assignment]
    for name, value in job.get("change", {}).items():
        module, _, attribute = name.rpartition(".")
        setattr(import_module(module), attribute, value)
    if "dies_at" in job:
        _die_at(job["dies_at"])
    if "largest" in job:
        resource.setrlimit(resource.RLIMIT_FSIZE, (job["largest"], job["largest"]))
    if "memory" in job:
        mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (mapped + job["memory"],) * 2)
    try:
        nmt.cli.main()
        code = 0
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    try:
        sys.stdout.flush()
    except OSError:
        traceback.print_exc()
        code = 120
    sys.stderr.flush()
    return code


if __name__ == "__main__":
    _serve()
