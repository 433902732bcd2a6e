"""Whether the other processes of a training are still there: each says so every few seconds, and listens to the next.

Who waits for a sum of gradients waits inside the engine, and of NCCL it is not told that another process is gone, nor
does it hear signals. So a thread beats beside it, over the store in which the processes found one another.
"""

import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from types import TracebackType
from typing import Self

import torch.distributed as dist

from nmt.errors import LostError
from nmt.training.world import World, gone

EVERY = 3.0  # seconds between two beats
MISSED = 14  # beats of another that fail to come before it is given up: 42 seconds
LOST = "lost"  # the key under which the first who sees it, or dies of it, says what is wrong


class Heartbeat:
    """While the block runs, this process beats; where another falls silent or says why it ended, `lost` is called.

    By default that ends this process, with exit code 2 and a line that says so.
    """

    def __init__(self, world: World, lost: Callable[[LostError], None] | None = None) -> None:
        self._world, self._lost = world, lost or _leave
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def __enter__(self) -> Self:
        if self._world.size > 1:
            self._store = _store()
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self._world.size == 1:
            return
        if kind is None:
            self._world.gather(None)  # nobody is to be missed by who has not ended yet
        self._ended.set()
        self._thread.join(2 * EVERY)
        if kind and not issubclass(kind, LostError):
            with suppress(RuntimeError):  # nobody is there to be told
                self._store.compare_set(LOST, "", f"process {self._world.rank} ended: {error or kind.__name__}")

    def _beat(self) -> None:
        beats, last, missed = 0, b"", 0
        while not self._ended.wait(EVERY):
            beats += 1
            try:
                heard, why = self._exchanged(beats)
                missed = 0 if heard != last else missed + 1  # counted, for a clock goes on while all are suspended
                last = heard
                if missed >= MISSED and not why:
                    why = f"process {self._watched} has been silent for {missed * EVERY:.0f} seconds"
                    self._store.compare_set(LOST, "", why)
            except RuntimeError as error:  # the store was that of a process, or of an agent, that is gone
                why = str(error).splitlines()[0][:200]
            if why:  # all may be about to end; and the others are to hear of it from the first, whose store it may be
                self._ended.wait(2 * EVERY if self._world.first else EVERY)
            if why and not self._ended.is_set():
                return self._lost(gone(why))

    def _exchanged(self, beats: int) -> tuple[bytes, str]:
        """Says how many beats this process has had; gives what the one that it watches said, and what is wrong."""
        store, watched = self._store, str(self._watched)
        store.set(str(self._world.rank), str(beats))
        heard = store.get(watched) if store.check([watched]) else b""
        return heard, store.get(LOST).decode() if store.check([LOST]) else ""

    @property
    def _watched(self) -> int:
        return (self._world.rank + 1) % self._world.size


def _store() -> dist.Store:
    """The store that the processes met at, over a connection of its own."""
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = dist.TCPStore(address, port, is_master=False, wait_for_workers=False, timeout=timedelta(seconds=60))
    return dist.PrefixStore(f"nmt-{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)


def _leave(error: LostError) -> None:
    """Ends this process, whatever its other threads wait for."""
    print(f"nmt: error: {error}", file=sys.stderr, flush=True)
    os._exit(2)
