"""One update of the model: an update is defined in tokens, whatever the chunks it is computed in."""

import hashlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from nmt.data.batches import Chunk, parts
from nmt.errors import DeviceError
from nmt.ids import BOS, EOS
from nmt.model.device import without_denormals
from nmt.model.dropout import seeded
from nmt.model.streams import Cut, sent
from nmt.model.transformer import Transformer
from nmt.model.views import packed_on_cpu
from nmt.recipe import Recipe
from nmt.training.cores import Lanes, at_once, keep_memory
from nmt.training.loss import FILL, Loss, cross_entropy
from nmt.training.mean import RunningMean
from nmt.training.optimizer import Optimizer
from nmt.training.schedule import learning_rate
from nmt.training.sharding import gathered, like, local, shard
from nmt.training.world import World, told

_NOTHING = Chunk(*(np.array([number]) for number in (EOS, 1, BOS, EOS, 1)))  # a pair of two empty sentences


class Update(NamedTuple):
    """What an update saw. The tensors stay on the device, so that only who reads them waits for it.

    loss, nll: the smoothed loss and -log p, summed over the target tokens, in nats. gradient_norm: before clipping.
    """

    loss: Tensor
    nll: Tensor
    gradient_norm: Tensor
    target_tokens: int
    source_tokens: int
    rate: float


class Sums(NamedTuple):
    """What an update's chunks add up to, beside the gradients that now lie in the parameters. As in `Update`.

    leave: above 0 where a process of the training has to leave before this update is taken.
    """

    loss: Tensor
    nll: Tensor
    gradient_norm: Tensor
    leave: Tensor
    target_tokens: int
    source_tokens: int

    @property
    def finite(self) -> bool:
        """Whether loss and gradients are; waits for the device. A gradient whose square overflows is not."""
        return bool(torch.stack([self.loss, self.gradient_norm]).isfinite().all())


class Learner:
    """The model, its optimizer and how they go one update further."""

    def __init__(
        self,
        recipe: Recipe,
        model: Transformer,
        device: torch.device,
        precision: torch.dtype,
        world: World = World(),  # noqa: B008 - it cannot be changed
        sharded: bool = False,
    ) -> None:
        """`sharded`: each process of `world` keeps a share of the model, which it is given whole, on any device."""
        self.model = model
        self.world = world
        self._recipe = recipe
        self.device = device
        self.precision = precision
        self._sharded = sharded and world.size > 1
        self.mean = RunningMean(model, recipe.train.ema, apart=self._sharded) if recipe.train.ema else None
        self._whole: Transformer | None = None
        if self._sharded:
            for each in (self.model, self.mean.model) if self.mean else (self.model,):
                shard(each, device, world)
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = Optimizer(recipe, model)
        bf16_on_cpu = device.type == "cpu" and precision == torch.bfloat16 and not recipe.train.r_drop
        # What is padded would be as long as the filler.
        self._fills = bf16_on_cpu and recipe.model.longest >= FILL and packed_on_cpu(recipe.model)
        self.warn: Callable[[str], None] = lambda line: print(line, file=sys.stderr)
        self._parts = 1  # that each chunk is computed in
        # Processes that share a model compute a chunk together.
        self.lanes = Lanes(model, 1 if self._sharded else at_once(device))
        if device.type == "cpu":
            keep_memory()

    @property
    def parameter_counts(self) -> tuple[int, int]:
        """Numbers in the model, each counted once, and how many of them learn."""
        return self.model.parameter_count(), sum(parameter.numel() for parameter in self._parameters)

    @property
    def measured(self) -> Transformer:
        """The model that is measured and averaged: that of the running mean, where there is one. See `gathered`."""
        return self._whole or (self.mean.model if self.mean else self.model)

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """In the block `measured` is whole, in the first process; all must enter it."""
        if self._sharded:
            self._whole = gathered(self.measured, self.device, self.world)
        try:
            yield
        finally:
            self._whole = None

    def gradients(
        self,
        step: int,
        chunks: Mapping[int, Chunk],
        tokens: tuple[int, int] | None = None,
        leave: bool = False,
        turns: int = 0,
    ) -> Sums:
        """The gradients of update `step`, counted from 1: summed over the chunks and divided by their target tokens.

        `chunks`, by number, are those of this process; `tokens` the source and target tokens of all, where others have
        some, and `turns` how many chunks the process has that has most. `leave` tells them that this one is about to.

        Until `apply` takes them the update has not begun: left half done, it is as if this had not been called, so
        long as no other gradients are asked for.
        """
        self.model.train()
        source, target = tokens or (
            sum(len(chunk.source) for chunk in chunks.values()),
            sum(chunk.target_tokens for chunk in chunks.values()),
        )
        while (sums := self._summed(step, chunks, target)) is None:
            self._make_room(chunks)
        for _ in range(turns - len(chunks) if self._sharded else 0):
            self._sit_out()
        sums[2] = float(leave)
        with self.lanes.apart():
            if self.world.size > 1:
                self._share(sums)
            return Sums(sums[0], sums[1], self._gradient_norm(), sums[2], target, source)

    def _summed(self, step: int, chunks: Mapping[int, Chunk], target_tokens: int) -> Tensor | None:
        """Smoothed loss and -log p of these chunks, and a 0, [3]; None where the device's memory does not suffice."""
        sums = torch.zeros(3, device=self.device)
        try:
            for loss in self._backward(step, chunks, target_tokens):
                sums[:2] += torch.stack([loss.smoothed.detach(), loss.nll])
        except torch.OutOfMemoryError:
            self.forget()  # what was summed up before, and half of what was not
            return None
        return sums

    def _pieces(self, chunk: Chunk) -> Iterator[tuple[int, Chunk]]:
        """The parts that a chunk is computed in, numbered."""
        return enumerate(parts(chunk, self._parts) if self._parts > 1 else [chunk])

    def _make_room(self, chunks: Mapping[int, Chunk]) -> None:
        """Has every chunk from here on computed in twice as many parts. Raises `DeviceError` where that is in vain."""
        if all(len(chunk.source_lengths) <= self._parts for chunk in chunks.values()):
            raise DeviceError(
                f"{self.device}: too little memory for one pair at a time: lower data.max_length, or make the model "
                "smaller, in section model"
            )
        if self._sharded:  # the others wait for what was to come of it
            raise DeviceError(f"{self.device}: out of memory: lower train.chunk_tokens, or train on more GPUs")
        self._parts *= 2
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        self.warn(
            f"out of memory: each chunk is computed in {self._parts} parts from here on, which changes no update but "
            "in what dropout picks; with train.chunk_tokens that much lower it would not come to this"
        )

    def _share(self, sums: Tensor) -> None:
        """Sums up what the processes of this training have found."""
        if self._sharded:  # gradients have been, layer by layer
            return self.world.sum([sums])
        for parameter in self._parameters:
            if parameter.grad is None:  # this process had no chunk of this update
                parameter.grad = torch.zeros_like(parameter)
        self.world.sum([sums, *(p.grad for p in self._parameters if p.grad is not None)])

    def apply(self, step: int, sums: Sums) -> Update:
        """Moves the parameters by their gradients, which must be finite."""
        rate = learning_rate(self._recipe, step)
        with self.lanes.apart():
            if longest := self._recipe.train.clip_norm:
                torch.nn.utils.clip_grads_with_norm_(self._parameters, longest, sums.gradient_norm)
            with without_denormals():
                self.optimizer.step(rate)
                self.optimizer.zero_grad()
                if self.mean:
                    self.mean.update(step)
        return Update(sums.loss, sums.nll, sums.gradient_norm, sums.target_tokens, sums.source_tokens, rate)

    def fits(self, chunk: Chunk, kept: int) -> bool:
        """Whether the gradients of this chunk find room on the device beside so many bytes more; leaves none."""
        self.model.train()
        try:
            room = torch.empty(kept, dtype=torch.uint8, device=self.device)
        except torch.OutOfMemoryError:
            return False
        found = self._summed(0, {0: chunk}, chunk.target_tokens) is not None
        self.forget()
        del room
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        return found

    def forget(self) -> None:
        """Leaves the gradients out, as if they had not been asked for."""
        self.optimizer.zero_grad()

    def suspects(self, step: int, chunks: Mapping[int, Chunk], target_tokens: int, count: int) -> list[int]:
        """Which of these chunks of update `step` have, each alone, a loss or gradient that is not finite.

        Computes them again, with the same dropout, and leaves no gradients. `count`: of the chunks of all processes.
        """
        found = []
        for number in range(count) if self._sharded else chunks:
            self.forget()
            mine = {number: chunks[number]} if number in chunks else {}
            losses = self._backward(step, mine, target_tokens)
            if not losses:
                self._sit_out()
            if not torch.stack([*(loss.smoothed for loss in losses), self._gradient_norm()]).isfinite().all():
                found.append(number)
        self.forget()
        return [number for number in found if number in chunks]

    def finite(self) -> bool:
        """Whether all weights are; waits for the device."""
        wrong = torch.stack([~local(p).isfinite().all() for p in self._parameters]).sum()
        if self._sharded:
            self.world.sum([wrong])
        return not wrong

    def restart(self, weights: dict[str, Tensor]) -> None:
        """Takes up these weights, and an optimizer that has seen nothing."""
        parameters = dict(self.model.named_parameters())
        with torch.no_grad():
            for name, tensor in weights.items():
                parameters[name].copy_(like(tensor, parameters[name]))
        self.optimizer.forget()
        if self.mean:
            self.mean.restart()

    def _backward(self, step: int, chunks: Mapping[int, Chunk], tokens: int) -> list[Loss]:
        """Adds to the gradients those of the chunks, by number, of an update of so many target tokens."""
        train = self._recipe.train

        def add(model: Transformer, piece: tuple[int, int, Chunk]) -> Loss:
            number, part, chunk = piece
            # Dropout is a function of these. The first part is the whole, where there is but one.
            seed = _seed(self._recipe.seed, step, number, *([part] if part else []))
            with told(computing=True) if self._sharded else nullcontext():
                with seeded(seed, self.device):
                    loss = self._loss(model, self._filled(chunk), train.label_smoothing, train.r_drop)
                (loss.smoothed / tokens).backward()
            return loss

        pieces = [(number, part, piece) for number in chunks for part, piece in self._pieces(chunks[number])]
        return self.lanes.run(add, pieces)

    def _sit_out(self) -> None:
        """Takes part in a chunk of others, whose layers are gathered and gradients summed by all, with a loss of 0."""
        with told(computing=True):
            (self.loss(_NOTHING, 0.0).smoothed * 0).backward()

    def _gradient_norm(self) -> Tensor:
        norm = torch.nn.utils.get_total_norm([local(p.grad) for p in self._parameters if p.grad is not None])
        if not self._sharded:
            return norm
        square = norm.square()
        self.world.sum([square])
        return square.sqrt()

    @torch.no_grad()
    def negative_log_likelihood(self, chunks: Sequence[Chunk]) -> float:
        """-log p per target token of these chunks, in nats, without dropout and smoothing, by the model `measured`."""
        self.measured.eval()
        tokens = sum(chunk.target_tokens for chunk in chunks)
        with without_denormals():
            return sum(float(self._loss(self.measured, chunk, 0.0).nll) for chunk in chunks) / tokens

    def loss(self, chunk: Chunk, smoothing: float, consistency: float = 0.0) -> Loss:
        """The loss of one chunk, summed over its target tokens; `consistency` is R-Drop's, of two passes at once."""
        return self._loss(self.model, chunk, smoothing, consistency)

    def _loss(self, model: Transformer, chunk: Chunk, smoothing: float, consistency: float = 0.0) -> Loss:
        passes = 2 if consistency else 1
        source_cut = Cut.of(np.tile(chunk.source_lengths, passes), self.device)
        target_cut = Cut.of(np.tile(chunk.target_lengths, passes), self.device)
        source, fed = (sent(np.tile(ids, passes), self.device) for ids in (chunk.source, chunk.decoder_input))
        said = sent(chunk.labels, self.device)
        with torch.autocast(self.device.type, self.precision, enabled=self.precision != torch.float32):
            states = model(source, source_cut, fed, target_cut)
            return cross_entropy(states, model.projection, said, smoothing, consistency)

    def _filled(self, chunk: Chunk) -> Chunk:
        """The chunk, its streams filled up to lengths that have been before where new ones take time; see `FILL`."""
        large = min(len(chunk.source), len(chunk.labels)) >= 8 * FILL
        return chunk.filled(FILL) if self._fills and large else chunk


def _seed(*numbers: int) -> int:
    """A seed of 63 bits that differs for every tuple of numbers."""
    return int.from_bytes(hashlib.blake2b(repr(numbers).encode(), digest_size=8).digest()) >> 1
