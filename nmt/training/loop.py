"""Training, from the prepared data to the last checkpoint; run again, it goes on where it stopped."""

import signal
import time

import torch

from nmt.data import check_prepared
from nmt.data.batches import Sampler, pack, split
from nmt.data.shards import Shards, fingerprint
from nmt.files import alone_in, make_folder
from nmt.model.device import pick_device, pick_precision
from nmt.model.folder import build
from nmt.recipe import Layout, Recipe
from nmt.text import Tokenizers
from nmt.training import checkpoint
from nmt.training.checkpoint import State
from nmt.training.journal import Journal
from nmt.training.learner import Learner
from nmt.training.stopping import Stopping
from nmt.training.validation import Validation


def train(recipe: Recipe, device: str = "auto") -> signal.Signals | None:
    """Trains as the recipe says, from the last checkpoint if there is one; checkpoints land in RUN/checkpoints.

    Gives the signal that ended it early, or None. Raises `DataError`, `CheckpointError`, `DeviceError`, `OutputError`.
    """
    training = Training(recipe, pick_device(device))
    with alone_in(training.layout.checkpoints), Stopping() as stopping:
        journal = Journal(training.layout.metrics, recipe.train.steps, training.state.step, recipe.train.log_every)
        with journal:
            journal.say(training.describe())
            training.run(journal, stopping)
        journal.say(training.farewell(stopping.signal))
    return stopping.signal


class Training:
    """One training run: the learner, its data, and how far it has come."""

    def __init__(self, recipe: Recipe, device: torch.device) -> None:
        self.recipe = recipe
        self.layout = Layout.of(recipe)
        check_prepared(self.layout.data, recipe)
        self._shards = Shards.open(self.layout.data, "train")
        self._fingerprint = fingerprint(self.layout.data)
        tokenizers = Tokenizers.load(self.layout.data)
        torch.manual_seed(recipe.seed)
        model = build(recipe, tokenizers).to(device)
        self.learner = Learner(recipe, model, device, pick_precision(recipe.train.precision, device))
        self._sampler = Sampler(self._shards, recipe.train.batch_tokens, recipe.seed)
        chosen = recipe.train.chunk_tokens
        self._chunk_tokens = _chunk_tokens(device, self.learner.precision) if chosen == "auto" else chosen
        self._validation = Validation(recipe, tokenizers, self._chunk_tokens)
        make_folder(self.layout.checkpoints)  # refused now rather than when an hour's work is to be saved
        self._found = checkpoint.last(self.layout.checkpoints)
        self.state = State()
        if self._found:
            self.state = checkpoint.restore(self._found, self.learner, recipe, self._fingerprint)
        self._saved = self.state.step

    def run(self, journal: Journal, stopping: Stopping) -> None:
        """Does the updates that are left, or as many as it may before it is to stop; the last one is saved."""
        self._measure(journal, stopping)  # the run before may have been stopped in the midst of it
        while self.state.step < self.recipe.train.steps and self._advance(journal, stopping):
            if self._due(self.recipe.train.checkpoint_every):
                self._save()
            self._measure(journal, stopping)
        if self._saved != self.state.step:
            self._save()

    def describe(self) -> str:
        """What is about to happen, in a line."""
        learner, step = self.learner, self.state.step
        kind = {torch.float32: "fp32", torch.bfloat16: "bf16"}[learner.precision]
        threads = f", {torch.get_num_threads()} threads" if learner.device.type == "cpu" else ""
        start = f"going on from {self._found}" if self._found else "from the beginning"
        return (
            f"{learner.model.parameter_count() / 1e6:.1f} M parameters on {learner.device} in {kind}{threads}; "
            f"{start}, {step:,} of {self.recipe.train.steps:,} updates done"
        )

    def farewell(self, stopped: signal.Signals | None) -> str:
        """How it ended, in a line."""
        step, seconds = self.state.step, self.state.seconds
        clock = f"{int(seconds // 3600)}:{int(seconds // 60 % 60):02}:{int(seconds % 60):02}"
        if stopped:
            return f"stopped by {stopped.name} with {step:,} updates done and saved; run it again to go on"
        return f"done: {step:,} updates in {clock} of training; the model comes next: nmt average"

    def _advance(self, journal: Journal, stopping: Stopping) -> bool:
        """One update; False where a signal comes before it has changed anything."""
        begun = time.perf_counter()
        step = self.state.step + 1
        pairs, cursor = self._sampler.update(self.state.cursor)
        parts = split(pairs, self._shards.lengths, self._chunk_tokens)
        sums = stopping.attempt(lambda: self.learner.gradients(step, [pack(self._shards, part) for part in parts]))
        if sums is None:
            return False
        journal.update(step, self.learner.apply(step, sums))
        self.state = State(step, cursor, self.state.seconds + time.perf_counter() - begun)
        return True

    def _measure(self, journal: Journal, stopping: Stopping) -> None:
        """Measures the valid corpus where that is due; where a signal comes, the next run does it."""
        step = self.state.step
        if not self._due(self.recipe.train.valid_every) or journal.measured >= step:
            return
        with journal.pause():
            found = stopping.attempt(lambda: self._validation.measure(self.learner, step))
        if found:
            journal.validation(step, found)

    def _save(self) -> None:
        checkpoint.save(self.layout.checkpoints, self.learner, self.recipe, self._fingerprint, self.state)
        self._saved = self.state.step

    def _due(self, every: int) -> bool:
        return self.state.step % every == 0 or self.state.step == self.recipe.train.steps


def _chunk_tokens(device: torch.device, precision: torch.dtype) -> int:
    """Tokens a side to go through the model at once, where the recipe leaves it to us.

    Short chunks hold sentences of like length, so little is padded where attention is (2048 trained a fifth faster than
    4096 on two CPU cores); CUDA's kernel for bf16 does not pad, and fills with long ones.
    """
    if device.type == "cpu":
        return 2048
    return 32768 if precision == torch.bfloat16 else 4096
