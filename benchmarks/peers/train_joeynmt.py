"""Trains with JoeyNMT, by its own command line, for `training.py`. Runs where JoeyNMT is installed."""

import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import yaml
from joeynmt.__main__ import main
from joeynmt.batch import Batch
from joeynmt.training import TrainManager
from watch import Watch


def recipe(order: dict[str, Any]) -> dict[str, Any]:
    """Its configuration. Its one dropout is on attention and inside the feed-forward layers too."""
    texts, warmup = Path(order["pieces"]), order["warmup"]
    first = order["width"] ** -0.5 * warmup**-1.5  # the rate of update 1, after which noam begins to be asked
    side = {"level": "word", "voc_file": str(texts / "vocabulary")}
    stack = {
        "type": "transformer", "num_layers": order["layers"], "num_heads": order["heads"],
        "hidden_size": order["width"], "ff_size": order["ffn"], "dropout": order["dropout"], "layer_norm": "post",
        "embeddings": {"embedding_dim": order["width"], "scale": True, "dropout": order["dropout"]},
    }  # fmt: skip
    return {
        "name": "benchmark", "model_dir": order["folder"] + "/model", "use_cuda": order["device"] == "cuda",
        "random_seed": order["seed"],
        "data": {
            "train": str(texts / "train"), "dev": str(texts / "valid"), "dataset_type": "plain",
            "src": side | {"lang": "source"}, "trg": side | {"lang": "target"},
        },
        "testing": {"batch_size": 4096, "batch_type": "token"},
        "training": {
            "overwrite": True, "batch_size": order["batch_tokens"], "batch_type": "token", "normalization": "tokens",
            "updates": order["updates"], "epochs": 1000, "validation_freq": order["updates"],
            "logging_freq": order["updates"], "label_smoothing": order["smoothing"], "optimizer": "adam",
            "adam_betas": [0.9, 0.98], "learning_rate": first, "learning_rate_min": 0.0, "scheduling": "noam",
            "learning_rate_factor": 1, "learning_rate_warmup": warmup,
        },
        "model": {
            "initializer": "xavier_uniform", "embed_initializer": "xavier_uniform", "tied_embeddings": True,
            "tied_softmax": True, "encoder": stack, "decoder": stack,
        },
    }  # fmt: skip


def told(watch: Watch) -> None:
    """Has JoeyNMT tell the watch what it trains on; in the end it measures the valid text and translates nothing."""
    train_step = TrainManager._train_step

    def train(self: TrainManager, batch: Batch) -> tuple[float, int]:
        watch.saw(batch.ntokens)
        found: tuple[float, int] = train_step(self, batch)
        return found

    @torch.no_grad()
    def validate(self: TrainManager, valid_data: Any) -> None:
        self.model.eval()
        self.model.loss_function = ("crossentropy", 0.0)
        valid_data.reset_indices()
        marks = {"eos_index": self.model.eos_index, "pad_index": self.model.pad_index}
        nll, tokens = 0.0, 0
        for batch in valid_data.make_iter(4096, "token", device=self.device, **marks):
            nll += self.model(return_type="loss", **vars(batch))[0].item()
            tokens += batch.ntokens
        parameters = sum(parameter.numel() for parameter in self.model.parameters())
        watch.report(parameters, nll / tokens, joeynmt=version("joeynmt"))

    TrainManager._train_step, TrainManager._validate = train, validate


if __name__ == "__main__":
    watch = Watch.ordered()
    watch.hook()
    told(watch)
    path = Path(watch.order["folder"], "joeynmt.yaml")
    path.write_text(yaml.safe_dump(recipe(watch.order)), "utf-8")
    sys.argv[1:] = ["train", str(path), "--skip-test"]
    main()
