"""Signals that ask training to stop: it leaves undone what changes nothing, saves, and leaves."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Self


class Stopping:
    """While the block runs, SIGINT (Ctrl-C) and SIGTERM only set `signal`; a second Ctrl-C ends at once."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._at_once = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        except ValueError:  # not the main thread: signals are another's business
            pass
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """What the block does may be left undone, however long it takes: a signal ends it where it is."""
        self._at_once = True
        try:
            if self.signal is None:
                yield
        except _Left:
            pass
        finally:
            self._at_once = False

    def _note(self, number: int, _: FrameType | None) -> None:
        if self.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number)
        if self._at_once:
            raise _Left


class _Left(BaseException):
    """Out of the block of `at_once`. As KeyboardInterrupt, no `except Exception` holds it up."""
