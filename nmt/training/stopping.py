"""Signals that ask training to stop: it finishes the update at hand, saves, and leaves."""

import signal
from types import FrameType, TracebackType
from typing import Any, Self


class Stopping:
    """While the block runs, SIGINT (Ctrl-C) and SIGTERM only set `signal`; a second Ctrl-C ends at once."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
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

    def _note(self, number: int, _: FrameType | None) -> None:
        if self.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number)
