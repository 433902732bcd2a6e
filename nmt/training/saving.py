"""Saving while training goes on: a thread writes what was copied."""

from collections.abc import Callable
from threading import Thread
from types import TracebackType
from typing import Self


class Saving:
    """Work in a thread, one piece at a time; a context manager that waits for the last.

    What goes wrong with it is raised by whichever of the methods is called next. Where an error ends the block, the
    work is still waited for, and the error is what is told; a second Ctrl-C, which wants to be out, leaves it undone.
    """

    def __init__(self) -> None:
        self._thread: Thread | None = None
        self._error: BaseException | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if kind is None:
            self.wait()
        elif self._thread and not issubclass(kind, KeyboardInterrupt):
            self._thread.join()

    def begin(self, work: Callable[[], object]) -> None:
        """Does `work` in the background, after that which is under way."""
        self.wait()
        self._thread = Thread(target=self._do, args=(work,), name="saving", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Until nothing is under way."""
        if self._thread:
            self._thread.join()
        self.check()

    def settle(self, seconds: float) -> None:
        """Waits so long, at most, for what is under way; tells nothing."""
        if self._thread:
            self._thread.join(seconds)

    def check(self) -> None:
        """Whether all went well so far; waits for nothing."""
        if self._thread and not self._thread.is_alive():
            error, self._thread, self._error = self._error, None, None
            if error:
                raise error

    def _do(self, work: Callable[[], object]) -> None:
        try:
            work()
        except BaseException as error:  # whatever it is, the training's own thread is to raise it
            self._error = error
