"""Training, from the prepared data to the last checkpoint; run again, it goes on where it stopped."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple

import numpy as np
import torch

from nmt.data import check_prepared
from nmt.data.batches import Cursor, Sampler, pack, split
from nmt.data.mixing import Order, parts_of, told
from nmt.data.segmentation import Segmenter
from nmt.data.shards import Manifest, Shards
from nmt.errors import DeviceError, NmtError
from nmt.files import alone_in, make_folder
from nmt.model.device import pick_device, pick_precision
from nmt.model.folder import weights_of
from nmt.model.views import why_padded
from nmt.recipe import Layout, Recipe
from nmt.text import Tokenizers
from nmt.training import checkpoint, finetuning
from nmt.training.ahead import DEPTH, Ahead, Batch
from nmt.training.checkpoint import Origin, State
from nmt.training.determinism import repeatable
from nmt.training.fitting import chunk_tokens, fitting
from nmt.training.health import IN_A_ROW, REWINDS, Fault, examine, hopeless
from nmt.training.heartbeat import Heartbeat
from nmt.training.journal import Journal
from nmt.training.learner import Learner, Sums
from nmt.training.pace import Pace
from nmt.training.saving import Saving
from nmt.training.stopping import TIME_IS_UP, Stopping
from nmt.training.validation import Validation
from nmt.training.world import World, joined


def train(
    recipe: Recipe,
    device: str = "auto",
    seconds: float | None = None,
    sharded: bool = False,
    deterministic: bool = False,
) -> signal.Signals | None:
    """Trains as the recipe says, from the last checkpoint if there is one; checkpoints land in RUN/checkpoints.

    After so many seconds, if given, it saves and leaves, as at a signal. Where it is `sharded`, each of several
    processes holds a share of the model. Gives the signal that ended it early, or None.
    `deterministic` has a GPU give the same bits each time, as a CPU does, if more slowly (`nmt.training.determinism`).
    Raises `DataError`, `CheckpointError`, `DeviceError`, `OutputError`, and `TrainingError` where the numbers do not
    stay finite.
    """
    if sharded and recipe.train.optimizer.name == "muon":
        raise NmtError(
            "--fsdp: Muon (train.optimizer.name) needs whole matrices, of which each process would hold some rows: "
            "train with adam, or without --fsdp"
        )
    if sharded and recipe.train.lora.rank:
        raise NmtError("--fsdp: not with train.lora, which keeps gradients and optimizer small: train without --fsdp")
    if device.startswith("cuda:") and int(os.environ.get("LOCAL_WORLD_SIZE", "1")) > 1:
        raise NmtError(f"--device {device}: several processes would share this GPU: --device cuda gives each its own")
    begun = time.monotonic()
    where = pick_device(device)
    with repeatable(deterministic), joined(where) as world, Heartbeat(world) as heart:
        training = _begun(recipe, where, world, sharded)
        heart.before_leaving = training.settle
        alone = alone_in(training.layout.checkpoints) if world.first else nullcontext()
        left = None if seconds is None else max(begun + seconds - time.monotonic(), 1e-3)  # to load took some of it
        with alone, Stopping(left) as stopping:
            pace = Pace.of(training.learner, recipe) if world.first else None
            with Journal.of(training.layout, recipe, training.state, pace) as journal:
                journal.begin(training.describe(), training.facts())
                training.run(journal, stopping)
                journal.end(said := training.farewell(journal, stopping.signal))
            journal.say(said)
    return stopping.signal


def _begun(recipe: Recipe, device: torch.device, world: World, sharded: bool) -> "Training":
    try:
        return Training(recipe, device, world, sharded)
    except torch.OutOfMemoryError:
        raise DeviceError(
            f"{device}: too little memory for the model and what training keeps of it: make it smaller, in section "
            "model, or share it among several GPUs, with --fsdp"
        ) from None


class Tried(NamedTuple):
    """An update as far as it changes nothing: where the data goes on, what it sums up to, and what is wrong with it."""

    end: Cursor
    sums: Sums
    fault: Fault | None = None


class Training:
    """One training run: the learner, its data, and how far it has come."""

    def __init__(
        self,
        recipe: Recipe,
        device: torch.device,
        world: World = World(),  # noqa: B008 - it cannot be changed
        sharded: bool = False,
    ) -> None:
        self.recipe = recipe
        self.world = world
        self.layout = Layout.of(recipe)
        check_prepared(self.layout.data, recipe)
        self._shards = Shards.open(self.layout.data, "train")
        self._split = Manifest.load(self.layout.data).splits["train"]
        self._origin = Origin.of(recipe)
        self._tokenizers = tokenizers = Tokenizers.load(self.layout.data)
        model, self._new = finetuning.new_model(recipe, tokenizers)
        self._asked_to_share, self._sharded = sharded, sharded and world.size > 1
        if not self._sharded:
            model = model.to(device)
        precision = pick_precision(recipe.train.precision, device)
        self.learner = Learner(recipe, model, device, precision, world, self._sharded)
        order = Order(len(self._shards), recipe.seed, parts_of(recipe.data, self._split))
        self._sampler = Sampler(self._shards, recipe.train.batch_tokens, order)
        self._segmenter = Segmenter(self._shards, tokenizers, recipe)
        self._chunk_tokens = chunk_tokens(recipe, device, precision, world)
        # as many chunks to all processes, and to all cores of a CPU
        self._multiple = world.size * len(self.learner.lanes) if recipe.train.chunk_tokens == "auto" else 1
        make_folder(self.layout.checkpoints)  # refused now rather than when an hour's work is to be saved
        self._found = checkpoint.last(self.layout.checkpoints)
        self.state = State()
        if self._found:
            self.state = checkpoint.restore(self._found, self.learner, recipe, self._origin)
        self._check_alike()
        # A share of a model is computed by all together, and where one has no room for it they cannot try again.
        tried = device.type == "cuda" and not self._sharded and not torch.are_deterministic_algorithms_enabled()
        if tried and recipe.train.chunk_tokens == "auto":
            self._chunk_tokens = fitting(recipe, self.learner, self._chunk_tokens, new=not self._found)
        self._validation = Validation(recipe, tokenizers, self._chunk_tokens)
        self._saved = self.state.step
        self._saving = Saving()
        self._ahead = Ahead(self._batch, DEPTH if device.type == "cuda" else 0)

    def _check_alike(self) -> None:
        """Raises `NmtError` where the processes of this training do not begin with the same."""
        each = self.world.gather((self.state[:2], self._origin, self.recipe))
        for rank, other in enumerate(each[1:], start=1):
            kinds = ("checkpoint", "prepared data", "recipe")
            if apart := [kind for kind, *two in zip(kinds, each[0], other, strict=True) if two[0] != two[1]]:
                raise NmtError(
                    f"process {rank} has another {' and '.join(apart)} than process 0: all processes of a training "
                    "take the same recipe and --set, and see the same files"
                )

    def run(self, journal: Journal, stopping: Stopping) -> None:
        """Does the updates that are left, or as many as it may before it is to stop; the last one is saved."""
        self.learner.warn = journal.say
        with self._saving, self._ahead, self._memory_told():
            self._measure(journal, stopping)  # the run before may have been stopped in the midst of it
            while self.state.step < self.recipe.train.steps and self._advance(journal, stopping):
                self._saving.check()
                if self._due(self.recipe.train.checkpoint_every):
                    self._save(journal)
                self._measure(journal, stopping)
            if self._saved != self.state.step and self.learner.finite():
                self._save(journal)

    def settle(self, seconds: float) -> None:
        """Waits so long, at most, for a checkpoint that is being written."""
        self._saving.settle(seconds)

    @contextmanager
    def _memory_told(self) -> Iterator[None]:
        """Says what to mend where memory does not suffice for what is beside the gradients of an update."""
        try:
            yield
        except torch.OutOfMemoryError:
            raise DeviceError(
                f"{self.learner.device}: out of memory beside an update's gradients: lower train.chunk_tokens, now "
                f"{self._chunk_tokens}"
            ) from None

    def describe(self) -> str:
        """What is about to happen, in a line."""
        learner, step = self.learner, self.state.step
        kind = {torch.float32: "fp32", torch.bfloat16: "bf16"}[learner.precision]
        threads = f", {torch.get_num_threads()} threads" if learner.device.type == "cpu" else ""
        share = ", a share of the model each" if self._sharded else ""
        others = f", {self.world.size} processes{share}" if self.world.size > 1 else ""
        others += ", the whole model, for --fsdp has only this process" if self._asked_to_share and not share else ""
        start = "from the beginning"
        if self.recipe.train.init:
            start = finetuning.told(self.recipe.train.init, self._new)
        if self._found:
            start = f"going on from {self._found}"
        total, learning = learner.parameter_counts
        part = f"{learning / 1e6:.2f} of " if learning < total else ""
        same = ", deterministic" if torch.are_deterministic_algorithms_enabled() else ""
        on_gpu = learner.device.type == "cuda"
        slow = why_padded(self.recipe.model, learner.device, learner.precision) if on_gpu else None
        return (
            f"{part}{total / 1e6:.1f} M parameters on {learner.device} in {kind}{threads}{others}{same}; "
            f"{start}, {step:,} of {self.recipe.train.steps:,} updates done"
            + (f"; {mix}" if (mix := told(self.recipe.data, self._split)) else "")
            + (f"; up to {self._chunk_tokens:,} tokens at once" if on_gpu else "")
            + (f"; attention pads, for the kernel without padding cannot take {slow}" if slow else "")
        )

    def facts(self) -> dict[str, Any]:
        """What it computes, and on what."""
        device = self.learner.device
        return {
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
            "precision": "bf16" if self.learner.precision == torch.bfloat16 else "fp32",
            "threads": torch.get_num_threads(),
            "processes": self.world.size,
            "torch": torch.__version__,
            "parameters": self.learner.model.parameter_count(),
            "recipe": self.recipe.model_dump(mode="json"),
        }

    def farewell(self, journal: Journal, stopped: signal.Signals | None) -> str:
        """How it ended, in a line."""
        step, seconds = self._saved, self.state.seconds
        clock = f"{int(seconds // 3600)}:{int(seconds // 60 % 60):02}:{int(seconds % 60):02}"
        if stopped:
            cause = "the time is up" if stopped == TIME_IS_UP else f"stopped by {stopped.name}"
            return f"{cause} with {step:,} updates done and saved; run it again to go on"
        early = f" ({self._out_of_patience(journal)})" if step < self.recipe.train.steps else ""
        return f"done: {step:,} updates in {clock} of training{early}; the model comes next: nmt average"

    def _out_of_patience(self, journal: Journal) -> str | None:
        """Why training ends before its last update, if it does: the valid corpus has long said nothing better."""
        scores, patience = journal.scores, self.recipe.train.patience
        best = max(sorted(scores), key=scores.__getitem__, default=0)
        if not patience or sum(step > best for step in scores) < patience:
            return None
        by = self.recipe.train.best_by
        shown = f"{by} {abs(scores[best]):.4f}" if by == "loss" else f"{by} {scores[best]:.2f}"
        return f"no better {shown} than that of update {best:,} for train.patience, {patience} measurings"

    def _advance(self, journal: Journal, stopping: Stopping) -> bool:
        """One update, left out where it is not finite; False where a signal comes before it has changed anything."""
        begun = time.perf_counter()
        step, health = self.state.step + 1, self.state.health
        tried = self._together(step, journal, stopping) if self.world.size > 1 else self._alone(step, journal, stopping)
        if tried is None:
            return False
        cursor, sums, fault = tried
        if fault:
            journal.skip(step, fault)
        else:
            journal.update(step, self.learner.apply(step, sums))
        health = health.skipped() if fault else health.taken(step)
        self.state = State(step, cursor, self.state.seconds + time.perf_counter() - begun, health)
        if why := self._why_rewind(fault):
            self._rewind(journal, why)
        return True

    def _alone(self, step: int, journal: Journal, stopping: Stopping) -> Tried | None:
        """An update as far as it changes nothing; None where training ends before it."""
        return None if self._out_of_patience(journal) else stopping.attempt(lambda: self._try(step))

    def _together(self, step: int, journal: Journal, stopping: Stopping) -> Tried | None:
        """The same, with others: who is to leave tells them with its gradients, for they wait for these."""
        tried = self._try(step, leave=stopping.signal is not None or self._out_of_patience(journal) is not None)
        if tried.sums.leave > 0:
            stopping.signal = max(filter(None, self.world.gather(stopping.signal)), default=None)
            return None
        return tried

    def _try(self, step: int, leave: bool = False) -> Tried:
        """The gradients of an update and where the data goes on; or else what is wrong with it."""
        batch = self._ahead.take(step, self.state.cursor)
        turns = -(-len(batch.pairs) // self.world.size)
        sums = self.learner.gradients(step, batch.chunks, batch.tokens, leave, turns)
        if sums.finite:
            return Tried(batch.end, sums)
        fault = examine(self.learner, self._tokenizers, step, batch.chunks, batch.pairs, sums)
        return Tried(batch.end, sums, fault)

    def _batch(self, step: int, begin: Cursor) -> Batch:
        pairs, end = self._sampler.update(begin)
        segmented = self._segmenter.update(step, pairs)
        parts = split(np.arange(len(pairs)), segmented.lengths, self._chunk_tokens, self._multiple)
        chunks = {number: pack(segmented, parts[number]) for number in self.world.share(len(parts))}
        source, target = (int(side.sum()) + len(pairs) for side in segmented.lengths)
        self._shards.let_go()
        return Batch(step, begin, end, [pairs[part] for part in parts], chunks, (source, target))

    def _why_rewind(self, fault: Fault | None) -> str | None:
        """Why training is to go back to earlier weights, if it is; weights are looked at before they are saved."""
        looked_at = self._due(self.recipe.train.checkpoint_every) or self._due(self.recipe.train.valid_every)
        if (fault and "weights" in fault.what) or (looked_at and not self.learner.finite()):
            return "the weights are no longer finite"
        return f"{IN_A_ROW} updates in a row were not finite" if self.state.health.row == IN_A_ROW else None

    def _rewind(self, journal: Journal, why: str) -> None:
        """Takes up earlier weights and goes on with the data from here. Raises `TrainingError` if that was in vain."""
        step, cursor, seconds, health = self.state
        if health.rewinds == REWINDS:
            raise hopeless(step, self.layout.skipped)
        self._saving.wait()
        place, *_ = self.world.gather(checkpoint.good(self.layout.checkpoints, self.recipe))
        if place:  # as the first process finds it, which alone knows that nothing is under way
            to = checkpoint.restore(place, self.learner, self.recipe, self._origin).step
        else:
            to = 0
            self.learner.restart(weights_of(finetuning.new_model(self.recipe, self._tokenizers)[0]))
        if self.world.first:
            checkpoint.remove_after(self.layout.checkpoints, to)
        self.state = State(to, cursor, seconds, health.rewound(step))
        journal.rewind(step, to, why)

    def _measure(self, journal: Journal, stopping: Stopping) -> None:
        """Measures the valid corpus where that is due; where a signal comes, the next run does it."""
        step = self.state.step
        if not step or not self._due(self.recipe.train.valid_every):
            return
        with journal.pause(), self.learner.gathered():
            measure = self._validation.measure
            found = None if journal.measured >= step else stopping.attempt(lambda: measure(self.learner, step))
        if found:
            journal.validation(step, found)

    def _save(self, journal: Journal) -> None:
        """Copies what is to be saved; a thread writes it while training goes on."""
        # Of a training that was rewound to its beginning there is nothing to save: all of it follows from the seed.
        if self.state.step:
            self._saving.wait()  # before anything is copied, so that there is never more than one copy
            copy = checkpoint.snapshot(self.learner, self.recipe, self._origin, self.state)
            where, scores = self.layout.checkpoints, dict(journal.scores)
            if self.world.first:
                self._saving.begin(lambda: checkpoint.save(where, copy, scores))
        self._saved = self.state.step

    def _due(self, every: int) -> bool:
        return self.state.step % every == 0 or self.state.step == self.recipe.train.steps
