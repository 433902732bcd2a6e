"""How fast training is: nmt, and other toolkits that train the same model on the same text, in turns.

    python benchmarks/training.py --text data/multi30k/train --valid data/multi30k/val --install

On a CPU: 3+3 layers of width 256, one vocabulary of 8,000, updates of 4,096 tokens as each toolkit counts them, label
smoothing, dropout, Adam and noam. Beside nmt stand eole, JoeyNMT and Hugging Face's Marian (`peers/`), each in an
environment of its own, a folder in `--envs`; `--install` makes those that are not there. Whoever is missing is said and
left out. All read the tokens that `nmt prepare` has made, with as many threads in one process.

In each round each of them trains in a new process from the beginning. What counts is what lies between the end of the
warm-up and the end of the last update, and there only target tokens without padding. Figures are medians over the
rounds, ratios those of the rounds. In the end -log p of the valid text says whether all have learned alike.

    python benchmarks/training.py --device cuda --model base --text data/multi30k/train --valid data/multi30k/val

On a GPU: the models of the paper, base and big, in bf16, beside Marian. The text is made up: lengths are drawn from the
real one, tokens from a vocabulary of 37,000. Of arithmetic an update has 6 · N operations for each pair of a source and
a target token, where N are the parameters: 0.378 GFLOP for base and 1.284 for big. The fraction of the peak is of what
the maker says of bf16 without sparsity, by the name of the device, or `--peak`.

The last line is a JSON object of all figures. Ratios carry over to other machines, times do not. It runs on Linux, for
memory and CPU seconds are read from /proc.
"""

import argparse
import json
import os
import platform
import shlex
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator
from datetime import date
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402

from nmt import recipe as recipes  # noqa: E402
from nmt.data import prepare  # noqa: E402
from nmt.data.shards import Shards  # noqa: E402
from nmt.errors import NmtError  # noqa: E402
from nmt.ids import SPECIALS  # noqa: E402
from nmt.model.device import has_bf16  # noqa: E402
from nmt.model.peak import published  # noqa: E402
from nmt.recipe import Layout  # noqa: E402
from nmt.text import Tokenizers  # noqa: E402

# Characters that Unicode's normal forms leave as they are.
CHARACTERS = np.concatenate([np.arange(0x4E00, 0xA000), np.arange(0x20000, 0x2A6D0)])


class Size(NamedTuple):
    """A model, and how many tokens a side an update of it has."""

    layers: int
    width: int
    heads: int
    ffn: int
    vocabulary: int
    batch_tokens: int


SIZES = {
    "tiny": Size(1, 32, 2, 64, 500, 256),
    "small": Size(3, 256, 4, 1024, 8000, 4096),
    "base": Size(6, 512, 8, 2048, 37000, 25000),
    "big": Size(6, 1024, 16, 4096, 37000, 25000),
}


class Tool(NamedTuple):
    """A toolkit: its package, what pip is to install for it, and in what it computes on a CPU."""

    package: str
    requirements: str
    precisions: tuple[str, ...] = ("fp32", "bf16")


OURS = "nmt"
PEERS = {
    "eole": Tool("eole", "eole==0.6.4 aiohttp"),
    "joeynmt": Tool("joeynmt", "joeynmt==2.3.0 importlib_metadata sentencepiece==0.2.0", ("fp32",)),
    "marian": Tool("transformers", "transformers==5.23.0"),
}

RECIPE = """
run: "{run}"
data: {{source: {source}, target: {target}, train: "{text}", valid: "{valid}", max_length: 1024, max_ratio: 1000,
  clean: {{control_characters: false, entities: false, tags: false, identical: false, min_letters: 0, script: false,
  misaligned: false, duplicates: false}}}}
tokenizer: {{vocab_size: {vocabulary}}}
model: {{layers: {layers}, d_model: {width}, heads: {heads}, d_ffn: {ffn}, dropout: {dropout}}}
train: {{steps: {updates}, batch_tokens: {batch_tokens}, precision: {precision}, label_smoothing: {smoothing},
  schedule: {{name: noam, warmup: {warmup}}}, valid_every: {updates}, valid_bleu: 0, checkpoint_every: {updates}}}
"""


class Text(NamedTuple):
    """What all train on: the prefixes of two corpora, what `nmt prepare` made of them, and the same for the peers."""

    train: str
    valid: str
    data: Path
    pieces: Path


Order = dict[str, Any]
"""What a toolkit is to do, as JSON can say it."""


def ordered(asked: argparse.Namespace, size: Size) -> Order:
    """The part of all orders that is the same."""
    return {
        **size._asdict(), "batch_tokens": asked.batch_tokens or size.batch_tokens, "updates": asked.updates,
        "warm_up": asked.warm_up, "device": asked.device, "threads": asked.threads, "precision": "fp32",
        "dropout": 0.1, "smoothing": 0.1, "warmup": 1000, "seed": 1, "source": asked.source, "target": asked.target,
    }  # fmt: skip


def prepared(order: Order, folder: Path, train: str, valid: str) -> Text:
    """Two corpora, prepared in a folder."""
    recipe = recipes.loads(RECIPE.format(**order, run=folder, text=train, valid=valid))
    prepare(recipe)
    text = Text(train, valid, Layout.of(recipe).data, folder / "pieces")
    write_pieces(text)
    return text


def write_pieces(text: Text) -> None:
    """Writes what is prepared as peers read it: a line of tokens for each sentence, and the vocabulary."""
    text.pieces.mkdir(exist_ok=True)
    tokenizer = Tokenizers.load(text.data).source
    pieces = tokenizer.pieces(range(tokenizer.vocab_size))
    (text.pieces / "vocabulary").write_text("".join(f"{piece}\n" for piece in pieces[SPECIALS:]), "utf-8")
    for split in ("train", "valid"):
        pairs = Shards.open(text.data, split)
        with (
            open(text.pieces / f"{split}.source", "w", encoding="utf-8") as source,
            open(text.pieces / f"{split}.target", "w", encoding="utf-8") as target,
        ):
            for number in range(len(pairs)):
                for file, ids in zip((source, target), pairs.pair(number), strict=True):
                    print(*(pieces[token] for token in ids), file=file)


def made_up(asked: argparse.Namespace, order: Order, real: Text, folder: Path) -> Text:
    """Text of characters drawn at random, each of them a token, in sentences as long as those of the real text."""
    folder.mkdir(exist_ok=True)
    chance = np.random.default_rng(order["seed"])
    alphabet = CHARACTERS[: order["vocabulary"] - 256 - SPECIALS - 1]  # beside bytes, and "▁", which begins a line
    lengths = np.stack(Shards.open(real.data, "train").lengths)
    for split, pairs in {"train": asked.pairs, "valid": 200}.items():
        drawn = lengths[:, chance.integers(lengths.shape[1], size=pairs)]
        for side, language in zip(drawn, (asked.source, asked.target), strict=True):
            ends = np.maximum(1, side - 1).cumsum()
            stream = chance.permutation(np.resize(alphabet, ends[-1]))  # each as often as any other
            with open(folder / f"{split}.{language}", "w", encoding="utf-8") as file:
                for line in np.split(stream, ends[:-1]):
                    print("".join(map(chr, line)), file=file)
    return prepared(order, folder, str(folder / "train"), str(folder / "valid"))


def text_of(asked: argparse.Namespace, model: str, out: Path) -> Text:
    """What a model trains on: the real text, or for base and big one that is made up."""
    small = "small" if model in ("base", "big") else model
    train, valid = (str(Path(prefix).resolve()) for prefix in (asked.text, asked.valid))
    real = prepared(ordered(asked, SIZES[small]), out / f"{small}-text", train, valid)
    return real if small == model else made_up(asked, ordered(asked, SIZES[model]), real, out / "made-up-text")


def train(name: str, python: str, order: Order, text: Text) -> dict[str, Any]:
    """One training, in a process of its own; gives what its watch found. Raises RuntimeError where it fails."""
    folder = Path(order["folder"])
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    environment = os.environ | {"OMP_NUM_THREADS": str(order["threads"]), "HF_HUB_OFFLINE": "1"}
    environment["PYTHONPATH"] = str(ROOT) if name == OURS else ""
    if name == OURS:
        recipe = RECIPE.format(**order, run=folder, text=text.train, valid=text.valid)
        (folder / "recipe.yaml").write_text(recipe, "utf-8")
        (folder / "data").symlink_to(text.data)
    (folder / "order.json").write_text(json.dumps(order), "utf-8")
    program = ROOT / "benchmarks/peers" / f"train_{'ours' if name == OURS else name}.py"
    log = folder / "log.txt"
    with log.open("w") as told:
        done = subprocess.run([python, program, folder / "order.json"], env=environment, stdout=told, stderr=told)
    if done.returncode:
        *_, last = ["", *log.read_text("utf-8", "replace").splitlines()]
        raise RuntimeError(f"{name} ended with exit code {done.returncode}: {last}: see {log}")
    found: dict[str, Any] = json.loads((folder / "result.json").read_text("utf-8"))
    return found


def measured(
    asked: argparse.Namespace, model: str, pythons: dict[str, str], out: Path
) -> dict[str, list[dict[str, Any]]]:
    """What came of all rounds, by toolkit and precision."""
    text = text_of(asked, model, out)
    who = [
        (name, precision)
        for precision in asked.precision.split(",")
        for name in pythons
        if name == OURS or precision in PEERS[name].precisions
    ]
    found: dict[str, list[dict[str, Any]]] = {f"{name} {precision}": [] for name, precision in who}
    for number in range(asked.rounds):
        for name, precision in who:
            order = ordered(asked, SIZES[model]) | {"precision": precision, "pieces": str(text.pieces)}
            order["folder"] = str(out / f"{model}-{name}-{precision}")
            result = train(name, pythons[name], order, text)
            found[f"{name} {precision}"].append(result)
            speed = result["tokens"] / result["seconds"]
            tell(f"{model}, round {number + 1} of {asked.rounds}: {name} {precision}, {speed:,.0f} tokens/s")
    return found


def figures(found: dict[str, list[dict[str, Any]]], peak: float | None) -> dict[str, dict[str, Any]]:
    """Medians over the rounds, by toolkit and precision."""
    rates = {label: [one["tokens"] / one["seconds"] for one in rounds] for label, rounds in found.items()}
    told: dict[str, dict[str, Any]] = {}
    for label, rounds in found.items():
        name, precision = label.split()
        ratios = [ours / theirs for ours, theirs in zip(rates[f"{OURS} {precision}"], rates[label], strict=True)]
        speed = statistics.median(rates[label])
        told[label] = {
            "tokens_per_second": speed,
            "each_round": rates[label],
            "tokens_per_cpu_second": statistics.median(one["tokens"] / one["cpu_seconds"] for one in rounds),
            "ours_to_theirs": None if name == OURS else statistics.median(ratios),
            "memory_mb": max(one["memory_mb"] for one in rounds),
            "device_memory_mb": max(one["device_memory_mb"] for one in rounds),
            "valid_nll": statistics.median(one["valid_nll"] for one in rounds),
            "parameters": rounds[-1]["parameters"],
            "fraction_of_peak": speed * operations(found) / peak if peak else None,
            "versions": rounds[-1]["versions"],
        }
    return told


def operations(found: dict[str, list[dict[str, Any]]]) -> int:
    """What training computes for a pair of tokens, by our count of parameters, each of which is in one product."""
    [ours, *_] = [rounds for label, rounds in found.items() if label.startswith(OURS)]
    return 6 * int(ours[-1]["parameters"])


def table(found: dict[str, dict[str, Any]]) -> Iterator[str]:
    """The figures as Markdown."""
    peak = any(one["fraction_of_peak"] for one in found.values())
    last = "of peak" if peak else "valid -log p"
    yield f"| toolkit | tokens/s | least to most | tokens/CPU-s | nmt is faster by | memory, MB | {last} |"
    yield "|---|--:|--:|--:|--:|--:|--:|"
    for label, one in found.items():
        ratio = "" if one["ours_to_theirs"] is None else f"{one['ours_to_theirs']:.2f}×"
        spread = f"{min(one['each_round']):,.0f}–{max(one['each_round']):,.0f}"
        end = f"{one['fraction_of_peak']:.1%}" if peak else f"{one['valid_nll']:.3f}"
        memory = one["device_memory_mb"] or one["memory_mb"]
        rates = f"{one['tokens_per_second']:,.0f} | {spread} | {one['tokens_per_cpu_second']:,.0f}"
        yield f"| {label} | {rates} | {ratio} | {memory:,.0f} | {end} |"


def install(names: list[str], folder: Path, pip: list[str]) -> None:
    """Makes the environments that are not there: torch first, of the version that is here, and it stays.

    Raises RuntimeError where that fails; of what is half made nothing is left.
    """
    release = torch.__version__.partition("+")[0]
    for name in names:
        environment = folder / name
        if (environment / "bin/python").exists():
            continue
        tell(f"{environment}: installing {PEERS[name].requirements}")
        command = [str(environment / "bin/python"), "-m", "pip", "install", "--quiet", *pip]
        constraints = ["-c", str(environment / "constraints.txt")]
        try:
            subprocess.run([sys.executable, "-m", "venv", environment], check=True)
            (environment / "constraints.txt").write_text(f"torch=={release}\n")
            subprocess.run([*command, f"torch=={release}"], check=True)
            subprocess.run([*command, *constraints, *PEERS[name].requirements.split()], check=True)
        except subprocess.CalledProcessError:
            shutil.rmtree(environment, ignore_errors=True)
            raise RuntimeError(f"{name} could not be installed: what pip said stands above") from None


def pythons(names: list[str], folder: Path) -> dict[str, str]:
    """The Python of each toolkit that is there, ours first; this one where it has the package itself."""
    found = {OURS: sys.executable}
    for name in names:
        python = folder / name / "bin/python"
        if python.exists():
            found[name] = str(python.absolute())
        elif find_spec(PEERS[name].package):
            found[name] = sys.executable
        else:
            tell(f"{name}: not in {folder}, and left out: --install makes its environment")
    return found


def peak_of(asked: argparse.Namespace) -> float | None:
    """Operations a second that the device does at most, if that is known."""
    if asked.peak or asked.device == "cpu":
        return asked.peak and asked.peak * 1e12
    peaks = published(torch.cuda.get_device_name())
    return peaks.bf16 * 1e12 if peaks else None


def machine(asked: argparse.Namespace) -> dict[str, Any]:
    """What the figures were measured on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    processor = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), "")
    gpu = torch.cuda.get_device_name() if asked.device == "cuda" else None
    python, today = platform.python_version(), date.today().isoformat()
    return {"processor": processor, "threads": asked.threads, "gpu": gpu, "python": python, "date": today}


def tell(line: str) -> None:
    """Says how far it is, on standard error."""
    print(line, file=sys.stderr, flush=True)


def command_line() -> argparse.Namespace:
    """What the command line says, and what follows from it."""
    parser = argparse.ArgumentParser(description="How fast nmt and other toolkits train the same model.")
    parser.add_argument("--text", default="data/multi30k/train", help="the PREFIX of the text to train on")
    parser.add_argument("--valid", default="data/multi30k/val", help="the PREFIX of the valid text")
    parser.add_argument("--source", default="en")
    parser.add_argument("--target", default="de")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--model", help=f"{', '.join(SIZES)}; several with commas")
    parser.add_argument("--precision", help="fp32, bf16 or both with a comma; by default what the device has")
    parser.add_argument("--peers", help=f"which of {', '.join(PEERS)}; none is an empty word")
    parser.add_argument("--envs", type=Path, default=Path("runs/peers"), help="a folder of environments, one a peer")
    parser.add_argument("--install", action="store_true", help="make the environments that are not there")
    parser.add_argument("--pip", default="", metavar="OPTIONS", help="for pip, such as the index of CPU-only torch")
    parser.add_argument("--out", type=Path, default=Path("runs/training-benchmark"), help="where all is kept")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--updates", type=int, help="of each training")
    parser.add_argument("--warm-up", type=int, help="those at the beginning that do not count")
    parser.add_argument("--batch-tokens", type=int, help="tokens of an update, a side")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--pairs", type=int, default=100_000, help="of the text that is made up")
    parser.add_argument("--peak", type=float, metavar="TFLOPS", help="what the device does at most")
    parser.add_argument("--quick", action="store_true", help="a tiny model, to see that all works")
    found = parser.parse_args()
    gpu, quick = found.device == "cuda", found.quick
    hardware = "bf16" if gpu else "fp32,bf16" if has_bf16(torch.device("cpu")) else "fp32"
    found.precision = found.precision or hardware
    found.model = found.model or ("tiny" if quick else "base,big" if gpu else "small")
    found.peers = ("marian" if gpu else ",".join(PEERS)) if found.peers is None else found.peers
    found.updates = found.updates or (4 if quick else 200 if gpu else 50)
    found.warm_up = found.warm_up or (2 if quick else 50 if gpu else 10)
    found.rounds = min(found.rounds, 2) if quick else found.rounds
    for key, known in {"model": list(SIZES), "peers": list(PEERS), "precision": ["fp32", "bf16"]}.items():
        if unknown := {*filter(None, getattr(found, key).split(","))}.difference(known):
            parser.error(f"--{key}: must be of {', '.join(known)}, found {', '.join(sorted(unknown))}")
    if found.warm_up >= found.updates:
        parser.error(f"--warm-up: must be less than --updates, {found.updates}, found {found.warm_up}")
    if gpu and not torch.cuda.is_available():
        parser.error(f"--device: PyTorch {torch.__version__} finds no GPU here")
    return found


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All figures; prints a table for each model. Raises `NmtError` and RuntimeError."""
    names, out = list(filter(None, options.peers.split(","))), options.out.absolute()
    if options.install:
        install(names, options.envs, shlex.split(options.pip))
    out.mkdir(parents=True, exist_ok=True)
    there, peak = pythons(names, options.envs), peak_of(options)
    report: dict[str, Any] = {"machine": machine(options)}
    for model in options.model.split(","):
        found = figures(measured(options, model, there, out), peak)
        setting = ordered(options, SIZES[model]) | {"precision": options.precision, "rounds": options.rounds}
        report[model] = {"setting": setting, "figures": found}
        print(f"\n{model}, updates of {setting['batch_tokens']:,} tokens\n", *table(found), sep="\n", flush=True)
    return report


def main() -> int:
    """Measures, prints tables and the JSON object; gives the exit code."""
    try:
        print(json.dumps(measure(command_line())))
    except (NmtError, RuntimeError) as error:
        tell(f"training: error: {error}")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
