"""Whether the other processes of a training are still there: each says so every few seconds, and listens to the next.

Who waits for a sum of gradients waits inside the engine, and of NCCL it is not told that another process is gone, nor
does it hear signals. So two threads stand beside it: one talks to the store in which the processes found one another,
and may be held up there; the other, which nothing holds up, judges by what comes of that.
"""

import os
import sys
import threading
import uuid
from collections.abc import Callable
from datetime import timedelta
from types import TracebackType
from typing import Self

import torch.distributed as dist

from nmt.errors import LostError
from nmt.training.world import World, gone

EVERY = 3.0  # seconds between two beats
MISSED = 14  # beats of another that fail to come before it is given up: 42 seconds, and all have left within 60
LOST = "lost"  # the key under which the first who sees it, or dies of it, says what is wrong
PATIENCE = 60.0  # seconds that a checkpoint that is being written has to be whole


class Heartbeat:
    """While the block runs, this process beats; where another falls silent or says why it ended, `lost` is called.

    By default that ends this process, with exit code 2 and a line that says so, after `before_leaving`.
    """

    def __init__(self, world: World, lost: Callable[[LostError], None] | None = None) -> None:
        self._world, self._lost = world, lost or self._leave
        self.before_leaving: Callable[[float], object] = lambda seconds: None
        """Finishes what must not be left half done; it is given the seconds it has."""
        self._ended = threading.Event()
        self._watched = (world.rank + 1) % world.size
        self._heard, self._why, self._tells = b"", "", ""
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._talk, self._judge)]

    def __enter__(self) -> Self:
        if self._world.size > 1:
            self._store = _store(self._world)
            for thread in self._threads:
                thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self._world.size == 1:
            return
        try:
            if kind is None:
                self._world.gather(None)  # nobody is to be missed by who has not ended yet
            elif not issubclass(kind, LostError):
                why = (str(error) or kind.__name__).splitlines()[0][:200]
                self._tells = f"process {self._world.rank} ended: {why}"
        finally:
            self._ended.set()
            for thread in self._threads:
                thread.join(2 * EVERY)  # no longer, for the store may be held up

    def _talk(self) -> None:
        """Beats, and takes note of what the others say, until the end; then says what is still to be told."""
        store, watched, beats = self._store, str(self._watched), 0
        try:
            while not self._ended.wait(EVERY):
                beats += 1
                store.set(str(self._world.rank), str(beats))
                if store.check([watched]):
                    self._heard = store.get(watched)
                self._tell()
                if store.check([LOST]):
                    self._why = store.get(LOST).decode()
            self._tell()
        except RuntimeError as error:  # the store was that of a process, or of an agent, that is gone
            self._why = self._why or str(error).splitlines()[0][:200]

    def _tell(self) -> None:
        if self._tells:
            self._store.compare_set(LOST, "", self._tells)

    def _judge(self) -> None:
        last, missed = self._heard, 0
        while not self._ended.wait(EVERY):
            missed = 0 if self._heard != last else missed + 1  # counted, for a clock goes on while all are suspended
            last = self._heard
            if missed >= MISSED and not self._why:
                self._why = f"process {self._watched} has been silent for {missed * EVERY:.0f} seconds"
                self._tells = self._why
            if self._why:
                # All may be about to end. And the others are to hear of it from the first, whose store it may be.
                if not self._ended.wait(4 * EVERY if self._world.first else EVERY):
                    self._lost(gone(self._why))
                return

    def _leave(self, error: LostError) -> None:
        """Ends this process, whatever its other threads wait for."""
        try:
            self.before_leaving(PATIENCE)
            print(f"nmt: error: {error}", file=sys.stderr, flush=True)
        finally:  # also where nobody reads that any more
            os._exit(2)


def _store(world: World) -> dist.Store:
    """The store that the processes met at, over a connection of its own; each training has its own part of it."""
    [token, *_] = world.gather(uuid.uuid4().hex)
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = dist.TCPStore(address, port, is_master=False, wait_for_workers=False, timeout=timedelta(seconds=60))
    return dist.PrefixStore(f"nmt-{token}", store)
