"""What the benchmarks that train models share: a run by `nmt`'s own commands, its result, and many of them in turn.

A run is a folder with `recipe.yaml`, `log.txt` and in the end `result.json`. What is finished is passed over and what
was interrupted goes on, so a benchmark may be killed and started again at any time.
"""

import ctypes
import gzip
import json
import math
import os
import shutil
import signal
import statistics
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any, TypeVar

from safetensors import safe_open

from nmt import recipe as recipes
from nmt.errors import RecipeError
from nmt.files import whole_file
from nmt.recipe import Layout, Recipe

LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None

Work = TypeVar("Work")


def train_and_score(folder: Path, recipe: Recipe) -> dict[str, Any]:
    """Trains a model and scores it on its one test set; gives its figures, which are kept in `result.json`.

    Raises RuntimeError where a command fails.
    """
    file = folder / "recipe.yaml"
    folder.mkdir(parents=True, exist_ok=True)
    with whole_file(file, "w") as text:
        text.write(recipes.dump(recipe))
    nmt(folder, "prepare", file, "--workers", 1)
    nmt(folder, "train", file, "--device", "cpu")
    nmt(folder, "average", file)
    [test] = json.loads(nmt(folder, "score", file, "--device", "cpu", "--json")).values()
    found = figures(recipe, test) | {"recipe": recipe.model_dump(mode="json")}
    with whole_file(folder / "result.json", "w") as text:
        json.dump(found, text, indent=2)
    shutil.rmtree(Layout.of(recipe).checkpoints)  # all runs together would fill gigabytes
    return found


def result(folder: Path) -> dict[str, Any] | None:
    """What came of a run, None if it is not finished."""
    path = folder / "result.json"
    return json.loads(path.read_text("utf-8")) if path.exists() else None


def is_finished(folder: Path, recipe: Recipe) -> bool:
    """Whether a run is done, and by the recipe as it now is."""
    found = result(folder)
    try:
        return found is not None and recipes.loads(json.dumps(found["recipe"])) == recipe
    except RecipeError:  # of another version of nmt
        return False


def nmt(folder: Path, *arguments: object) -> str:
    """What `nmt ARGUMENTS` prints, on one thread; what it tells goes into log.txt in the folder."""
    with (folder / "log.txt").open("a") as log:
        done = subprocess.run(
            [sys.executable, "-m", "nmt", *map(str, arguments)],
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent.parent)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            preexec_fn=politely,
        )
    if done.returncode:
        command = " ".join(map(str, arguments))
        raise RuntimeError(f"nmt {command} ended with exit code {done.returncode}: see {log.name}")
    return done.stdout


def politely() -> None:
    """In a new process: lets others go first and, on Linux, ends when we do, so that no run is left behind."""
    os.nice(10)
    if LIBC:
        LIBC.prctl(1, signal.SIGTERM)  # 1 is PR_SET_PDEATHSIG


def figures(recipe: Recipe, test: dict[str, Any]) -> dict[str, Any]:
    """What is to be told of a finished run."""
    layout = Layout.of(recipe)
    [bleu] = [row for row in test["rows"] if row["metric"] == "BLEU"]
    [*_, last] = sorted(layout.checkpoints.glob("step-*"))
    metrics = map(json.loads, layout.metrics.read_text("utf-8").splitlines())
    with safe_open(layout.model / "model.safetensors", "numpy") as weights:
        shapes = [weights.get_slice(name).get_shape() for name in weights.keys()]  # noqa: SIM118
    return {
        "bleu": bleu["score"],
        "signature": bleu["signature"],
        "parameters": sum(math.prod(shape) for shape in shapes),
        "seconds": json.loads((last / "state.json").read_text("utf-8"))["seconds"],
        "valid": [{key: line[key] for key in ("step", "loss", "bleu")} for line in metrics if line["kind"] == "valid"],
    }


def do_all(todo: list[Work], do: Callable[[Work], str], at_once: int) -> int:
    """Does what there is to do, and prints the line that each gives; gives the number of those that failed."""
    failed = 0
    with ThreadPoolExecutor(at_once) as pool:
        under_way = [pool.submit(do, work) for work in todo]
        try:
            for number, future in enumerate(as_completed(under_way), start=1):
                error = future.exception()
                failed += error is not None
                print(f"{number} of {len(todo)}: {error or future.result()}", flush=True)
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return failed


def lines(path: Path) -> list[str]:
    """The lines of a file, plain or gzipped."""
    raw = path.read_bytes() if path.exists() else gzip.decompress(path.with_name(f"{path.name}.gz").read_bytes())
    return raw.decode("utf-8").removesuffix("\n").split("\n")


def write(path: Path, text: list[str]) -> None:
    """Writes lines to a file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path, "w") as file:
        file.writelines(f"{line}\n" for line in text)


def valid_bleu(found: dict[str, Any]) -> float:
    """What the valid corpus said at the end."""
    return float(found["valid"][-1]["bleu"])


def mean(found: list[dict[str, Any]], key: str) -> float:
    """The mean of a figure over some results."""
    return statistics.fmean(one[key] for one in found)


def spread(found: list[dict[str, Any]]) -> str:
    """The standard deviation of BLEU over the seeds, if there are several."""
    return f" ± {statistics.stdev(one['bleu'] for one in found):.2f}" if len(found) > 1 else ""


def numbers(text: str) -> list[int]:
    """The whole numbers in a list with commas."""
    return [int(part) for part in text.split(",")]
