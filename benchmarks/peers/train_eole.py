"""Trains with eole, by its own command line, for `training.py`. Runs where eole is installed."""

import math
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml
from eole.bin.main import main
from eole.trainer import BatchProcessor, Trainer
from watch import Watch


def recipe(order: dict[str, Any]) -> dict[str, Any]:
    """Its configuration. The norm stands before each sub-layer, for its decoder knows no other place."""
    texts = Path(order["pieces"])
    corpora = {
        name: {"path_src": f"{texts / name}.source", "path_tgt": f"{texts / name}.target"}
        for name in ("train", "valid")
    }
    devices = {"world_size": 1, "gpu_ranks": [0] if order["device"] == "cuda" else []}
    return {
        "data": corpora, "src_vocab": str(texts / "vocabulary"), "share_vocab": True, "seed": order["seed"],
        "src_vocab_size": 1 << 20, "tgt_vocab_size": 1 << 20, "report_every": 10, "overwrite": True,
        "model": {
            "architecture": "transformer", "layers": order["layers"], "hidden_size": order["width"],
            "heads": order["heads"], "transformer_ff": order["ffn"], "share_embeddings": True,
            "share_decoder_embeddings": True, "add_qkvbias": True, "add_ffnbias": True,
            "embeddings": {
                "word_vec_size": order["width"], "position_encoding": True,
                "position_encoding_type": "SinusoidalInterleaved",
            },
        },
        "training": devices | {
            "model_path": order["folder"] + "/model", "train_steps": order["updates"], "valid_steps": order["updates"],
            "save_checkpoint_steps": 0, "batch_type": "tokens", "batch_size": order["batch_tokens"],
            "valid_batch_size": 4096, "normalization": "tokens", "num_workers": 0, "bucket_size": 1 << 15,
            "compute_dtype": order["precision"], "dropout": [order["dropout"]], "attention_dropout": [0.0],
            "label_smoothing": order["smoothing"], "param_init_method": "xavier_uniform", "max_grad_norm": 0,
            "optim": "adam", "adam_beta2": 0.98, "adam_eps": 1e-9, "decay_method": "noam", "learning_rate": 1.0,
            "warmup_steps": order["warmup"], "log_attention_entropy": False,
        },
    }  # fmt: skip


def told(watch: Watch) -> None:
    """Has eole tell the watch what it trains on, and what the valid text says."""
    train, validate = BatchProcessor.process_batch, Trainer.validate

    def process_batch(self: BatchProcessor, batch: dict[str, Any], *arguments: Any, **options: Any) -> bool:
        watch.saw(int(batch["tgt"][:, 1:].ne(self.train_loss.padding_idx).sum()))
        return bool(train(self, batch, *arguments, **options))

    def validated(self: Trainer, *arguments: Any, **options: Any) -> Any:
        self.valid_loss.criterion.label_smoothing = 0.0
        found = validate(self, *arguments, **options)
        parameters = sum(parameter.numel() for parameter in self.model.parameters())
        watch.report(parameters, math.log(found.ppl()), eole=version("eole"))
        return found

    BatchProcessor.process_batch, Trainer.validate = process_batch, validated


if __name__ == "__main__":
    watch = Watch.ordered()
    watch.hook()
    told(watch)
    path = Path(watch.order["folder"], "eole.yaml")
    path.write_text(yaml.safe_dump(recipe(watch.order)), "utf-8")
    sys.argv[1:] = ["train", "-config", str(path)]
    main()
