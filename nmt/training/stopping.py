"""Signals that ask training to stop: it leaves undone what changes nothing, saves, and leaves."""

import signal
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self, TypeVar

from nmt.errors import NmtError

T = TypeVar("T")
TIME_IS_UP = getattr(signal, "SIGALRM", None)  # it, too, is a signal; Windows has none
# A terminal that is closed sends SIGHUP, a scheduler SIGUSR1 some time before it ends a job.
NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGALRM")
SIGNALS = [getattr(signal, name) for name in NAMES if hasattr(signal, name)]


class Stopping:
    """While the block runs, Ctrl-C, SIGTERM, SIGHUP and SIGUSR1 only set `signal`; a second Ctrl-C ends at once.

    After so many `seconds`, if given, it is as if SIGALRM came. Raises `NmtError` where the system has no such clock.
    """

    def __init__(self, seconds: float | None = None) -> None:
        if seconds is not None and TIME_IS_UP is None:
            raise NmtError("this system has no clock that ends a training: leave --max-time out")
        self._seconds = seconds
        self.signal: signal.Signals | None = None
        self._at_once = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        try:
            for number in SIGNALS:
                if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup wants SIGHUP to be
                    self._before[number] = signal.signal(number, self._note)
        except ValueError:  # not the main thread: signals are another's business
            pass
        else:
            if self._seconds is not None:
                signal.setitimer(signal.ITIMER_REAL, self._seconds)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self._seconds is not None:
            signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def attempt(self, work: Callable[[], T]) -> T | None:
        """What `work` gives; or None when a signal comes, which ends it where it is, however long it would take."""
        try:
            try:
                self._at_once = True
                return None if self.signal else work()
            finally:
                self._at_once = False
        except _Left:
            return None

    def _note(self, number: int, _: FrameType | None) -> None:
        first = self.signal is None
        if number == signal.SIGINT and not first:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number)
        if first and self._at_once:
            raise _Left


class _Left(BaseException):
    """Out of what is attempted. Like KeyboardInterrupt, no `except Exception` holds it up."""
