"""Trains Hugging Face's Marian model by a plain loop of PyTorch, for `training.py`: it brings none of its own.

The loop is what a careful user writes: pairs of like length in a batch, Adam in one kernel, autocast for bf16.
Axes: S sentences, T tokens with padding, V vocabulary.
"""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import MarianConfig, MarianMTModel, __version__
from watch import Watch

PAD, BOS, EOS, SPECIALS = 0, 1, 2, 4
POOL = 100  # updates whose pairs are sorted by length together

Pair = tuple[list[int], list[int]]


def model_of(order: dict[str, Any], vocabulary: int) -> MarianMTModel:
    """The model; its attention is PyTorch's own on a GPU, and on a CPU plain, whose backward is faster on some."""
    stacks = {
        f"{side}_{key}": value
        for side in ("encoder", "decoder")
        for key, value in {
            "layers": order["layers"], "attention_heads": order["heads"], "ffn_dim": order["ffn"]
        }.items()
    }  # fmt: skip
    config = MarianConfig(
        vocab_size=vocabulary, d_model=order["width"], activation_function="relu", dropout=order["dropout"],
        scale_embedding=True, init_std=order["width"] ** -0.5, pad_token_id=PAD, bos_token_id=BOS, eos_token_id=EOS,
        forced_eos_token_id=None, decoder_start_token_id=BOS, use_cache=False,
        **stacks,
    )  # fmt: skip
    config._attn_implementation = "sdpa" if order["device"] == "cuda" else "eager"
    return MarianMTModel(config).to(order["device"])


def read(texts: Path, name: str) -> list[Pair]:
    """The pairs of a text as ids, each with its EOS."""
    pieces = (texts / "vocabulary").read_text("utf-8").removesuffix("\n").split("\n")
    ids = {piece: number for number, piece in enumerate(pieces, SPECIALS)}
    sides = (
        [[*(ids[piece] for piece in line.split(" ")), EOS] for line in file.read_text("utf-8").splitlines()]
        for file in (texts / f"{name}.source", texts / f"{name}.target")
    )
    return list(zip(*sides, strict=True))


def longest(pair: Pair) -> int:
    """The tokens of the longer side."""
    return max(map(len, pair))


def batches(pairs: list[Pair], tokens: int) -> Iterator[list[Pair]]:
    """Batches of at most so many tokens, padding counted, of pairs of like length."""
    batch: list[Pair] = []
    for pair in sorted(pairs, key=lambda pair: (len(pair[1]), len(pair[0]))):
        if batch and max(longest(pair), *map(longest, batch)) * (len(batch) + 1) > tokens:
            yield batch
            batch = []
        batch.append(pair)
    yield batch


def endless(pairs: list[Pair], tokens: int, seed: int) -> Iterator[list[Pair]]:
    """Batches for ever, in an order of chance."""
    chance = random.Random(seed)
    while True:
        chance.shuffle(pairs)
        pool = max(1, round(POOL * tokens * len(pairs) / sum(map(longest, pairs))))
        for begin in range(0, len(pairs), pool):
            ready = list(batches(pairs[begin : begin + pool], tokens))
            chance.shuffle(ready)
            yield from ready


def padded(sentences: list[list[int]], device: str) -> Tensor:
    """[S, T]"""
    return torch.nn.utils.rnn.pad_sequence(list(map(torch.tensor, sentences)), True, PAD).to(device, non_blocking=True)


class Learner:
    """The model and how it learns."""

    def __init__(self, order: dict[str, Any], model: MarianMTModel) -> None:
        self._order, self.model = order, model
        self._bf16 = torch.autocast(order["device"], torch.bfloat16, enabled=order["precision"] == "bf16")
        self._adam = torch.optim.Adam(model.parameters(), betas=(0.9, 0.98), eps=1e-9, fused=True)

    def nll(self, batch: list[Pair], smoothing: float) -> Tensor:
        """-log p, summed over the target tokens."""
        device = self._order["device"]
        source, said = (padded(list(side), device) for side in zip(*batch, strict=True))
        fed = F.pad(said[:, :-1], (1, 0), value=BOS)
        with self._bf16:
            logits = self.model(input_ids=source, attention_mask=source.ne(PAD), decoder_input_ids=fed).logits
            return F.cross_entropy(
                logits.flatten(0, 1), said.flatten(), ignore_index=PAD, label_smoothing=smoothing, reduction="sum"
            )

    def update(self, number: int, batch: list[Pair], tokens: int) -> None:
        """Takes a step at noam's rate."""
        width, warmup = self._order["width"], self._order["warmup"]
        self._adam.param_groups[0]["lr"] = width**-0.5 * min(number**-0.5, number * warmup**-1.5)
        (self.nll(batch, self._order["smoothing"]) / tokens).backward()
        self._adam.step()
        self._adam.zero_grad()


def main() -> None:
    """Trains, measures, reports."""
    watch = Watch.ordered()
    order, texts = watch.order, Path(watch.order["pieces"])
    pairs, valid = read(texts, "train"), read(texts, "valid")
    vocabulary = SPECIALS + len((texts / "vocabulary").read_text("utf-8").splitlines())
    learner = Learner(order, model_of(order, vocabulary))
    watch.hook()
    learner.model.train()
    ready = endless(pairs, order["batch_tokens"], order["seed"])
    for number in range(1, order["updates"] + 1):
        batch = next(ready)
        tokens = sum(len(target) for _, target in batch)
        watch.saw(tokens)
        learner.update(number, batch, tokens)
    learner.model.eval()
    with torch.no_grad():
        nll = sum(learner.nll(batch, 0.0).item() for batch in batches(valid, 4096))
    parameters = sum(each.numel() for each in learner.model.parameters() if each.requires_grad)
    watch.report(parameters, nll / sum(len(target) for _, target in valid), transformers=__version__)


if __name__ == "__main__":
    main()
