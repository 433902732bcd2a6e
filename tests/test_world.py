"""Several processes train what one trains: `torchrun`, with gloo on the CPU."""

import json
import math
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from nmt import recipe as recipes
from nmt.data import prepare
from nmt.errors import DeviceError, LostError, NmtError
from nmt.model.folder import read_weights
from nmt.training import heartbeat, train
from nmt.training.world import World

RECIPE = """
run: {run}
data: {{source: en, target: de, train: {text}, valid: {text}}}
tokenizer: {{vocab_size: 300}}
model: {{layers: 1, d_model: 16, heads: 2, d_ffn: 32, dropout: 0.1}}
train: {{steps: 30, batch_tokens: 200, chunk_tokens: 60, schedule: {{warmup: 20, scale: 0.2}}, optimizer: {{eps: 1e-3}},
        valid_every: 15, valid_bleu: 2, checkpoint_every: 10, keep: 3, log_every: 10}}
average: {{last: 2}}
"""
SHARDED = pytest.param(("--fsdp",), marks=pytest.mark.slow, id="sharded")
BOTH = pytest.mark.parametrize("how", [pytest.param((), id="whole"), SHARDED])
LIMIT = 120  # seconds that a training here may take, on a busy machine


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    prefix = tmp_path_factory.mktemp("text") / "train"
    numbers = [f"{a} {b} {c}" for a in ("one", "two", "ten") for b in ("red", "big") for c in ("cats", "dogs", "cows")]
    for language in ("en", "de"):
        Path(f"{prefix}.{language}").write_text("".join(f"{line} {language}\n" for line in numbers), "utf-8")
    return prefix


def prepared(text: Path, run: Path, *changes: str) -> Path:
    """A recipe, in a file, whose text is prepared."""
    recipe = recipes.loads(RECIPE.format(run=run, text=text), overrides=changes)
    prepare(recipe, workers=1, report=lambda line: None)
    path = run.with_suffix(".yaml")
    path.write_text(recipes.dump(recipe), "utf-8")
    return path


def start(
    processes: int, recipe: Path, *options: str, device: str = "cpu", program: Sequence[str] = ("-m", "nmt")
) -> list[subprocess.Popen[str]]:
    """The processes of a training, as torchrun starts them: each with its place in its environment."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent.parent)}
    common |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(processes)}
    command = [sys.executable, *program, "train", str(recipe), "--device", device, *options]
    return [
        subprocess.Popen(
            command, env=common | {"RANK": str(rank), "LOCAL_RANK": str(rank)}, stderr=subprocess.PIPE, text=True
        )
        for rank in range(processes)
    ]


def ended(processes: list[subprocess.Popen[str]]) -> tuple[list[int], list[str]]:
    """The exit codes, and what each said."""
    said = [process.communicate(timeout=LIMIT)[1] for process in processes]
    return [process.returncode for process in processes], said


def wait_for(run: Path, file: str) -> None:
    give_up = time.monotonic() + LIMIT
    while not (run / file).exists():
        assert time.monotonic() < give_up
        time.sleep(0.02)


def checkpoint(run: Path, file: str, step: int = 30) -> Path:
    return run / "checkpoints" / f"step-{step:08d}" / f"{file}.safetensors"


def measured(run: Path) -> list[dict[str, float]]:
    lines = map(json.loads, (run / "metrics.jsonl").read_text("utf-8").splitlines())
    return [{key: line[key] for key in ("step", "loss")} for line in lines]


@pytest.mark.parametrize(
    ("how", "changes"),
    [
        ((), ()),
        (
            ("--fsdp",),
            (
                "train.ema=0.9",
                "train.clip_norm=2",
                "train.r_drop=1",
                "train.freeze=[encoder]",
                "model.embeddings=separate",
            ),
        ),
    ],
)
def test_the_number_of_processes_changes_nothing_and_only_the_first_speaks(
    how: tuple[str, ...], changes: tuple[str, ...], text: Path, tmp_path: Path
) -> None:
    changes = "train.precision=fp32", *changes  # in bf16 the gradients of each chunk are rounded
    train(recipes.load(prepared(text, tmp_path / "whole", *changes)), "cpu")
    recipe = prepared(text, tmp_path / "parts", *changes)
    train(recipes.load(recipe, ["train.steps=8"]), "cpu")
    codes, said = ended(start(3, recipe, "--set", "train.steps=19", *how))
    assert codes == [0, 0, 0]
    assert ("3 processes, a share of the model each" if how else "3 processes; ") in said[0]
    assert "done: 19 updates" in said[0]
    assert said[1:] == ["", ""]
    train(recipes.load(recipe), "cpu")
    whole, parts = (measured(tmp_path / name)[-1] for name in ("whole", "parts"))
    assert whole["step"] == parts["step"] == 30
    assert abs(whole["loss"] - parts["loss"]) < 1e-6
    for file in ("model", "optimizer", "mean"):
        if (whole := checkpoint(tmp_path / "whole", file)).exists():
            theirs = read_weights(checkpoint(tmp_path / "parts", file))
            for name, tensor in read_weights(whole).items():
                torch.testing.assert_close(theirs[name], tensor, rtol=1e-4, atol=1e-6)


QUICK = """
from nmt.cli import main
from nmt.training import heartbeat

heartbeat.EVERY = 0.5
"""


def test_torchrun_starts_them(text: Path, tmp_path: Path) -> None:
    recipe, quick = prepared(text, tmp_path / "run"), tmp_path / "quick.py"
    quick.write_text(QUICK + "main()")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(quick)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent.parent)}
    done = subprocess.run(
        [*command, "train", str(recipe), "--device", "cpu"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    assert done.returncode == 0, done.stderr
    assert "2 processes; from the beginning" in done.stderr
    assert "done: 30 updates" in done.stderr
    assert "one of them is gone" not in done.stderr


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_share_of_the_model_on_each_gpu_learns_what_one_gpu_does(precision: str, text: Path, tmp_path: Path) -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("takes two GPUs")
    changes = f"train.precision={precision}", "train.ema=0.9", "model.dropout=0"
    train(recipes.load(prepared(text, tmp_path / "whole", *changes)), "cuda")
    codes, said = ended(start(2, prepared(text, tmp_path / "parts", *changes), "--fsdp", device="cuda"))
    assert codes == [0, 0], said
    whole, parts = (measured(tmp_path / name)[-1]["loss"] for name in ("whole", "parts"))
    assert parts == pytest.approx(whole, abs=1e-4 if precision == "fp32" else 3e-2)


def test_muon_which_needs_whole_matrices_is_refused_where_they_are_shared_out(text: Path, tmp_path: Path) -> None:
    recipe = prepared(text, tmp_path / "run", "train.optimizer.name=muon")
    with pytest.raises(NmtError, match=r"--fsdp: Muon \(train\.optimizer\.name\) needs whole matrices"):
        train(recipes.load(recipe), "cpu", sharded=True)


@BOTH
def test_a_signal_to_one_process_ends_all_with_a_checkpoint(how: tuple[str, ...], text: Path, tmp_path: Path) -> None:
    recipe = prepared(text, tmp_path / "run", "train.steps=1000000", "train.valid_every=1000000")
    processes = start(2, recipe, *how)
    wait_for(tmp_path / "run", "checkpoints/step-00000010/state.json")
    begun = time.monotonic()
    processes[1].send_signal(signal.SIGTERM)
    codes, said = ended(processes)
    assert codes == [143, 143]
    assert time.monotonic() - begun < 20  # alone on a machine it is less than one
    saved = max((tmp_path / "run" / "checkpoints").glob("step-*")).name
    assert f"stopped by SIGTERM with {int(saved[5:]):,} updates done and saved" in said[0]


def test_a_process_that_falls_silent_is_missed_and_the_others_end(text: Path, tmp_path: Path) -> None:
    recipe = prepared(text, tmp_path / "run", "train.steps=1000000", "train.valid_every=1000000")
    processes = start(3, recipe, program=("-c", QUICK + "main()"))
    try:
        wait_for(tmp_path / "run", "checkpoints/step-00000010/state.json")
        processes[1].send_signal(signal.SIGSTOP)  # as one that hangs in a driver, or whose machine lost its network
        begun = time.monotonic()
        codes, said = ended([processes[0], processes[2]])
    finally:
        processes[1].kill()
        processes[1].communicate()
    assert codes == [2, 2]
    assert time.monotonic() - begun < 60
    for told in said:
        [line] = [line for line in told.splitlines() if line.startswith("nmt: error:")]
        assert "one of them is gone (process 1 has been silent for 7 seconds): run it again, and it goes on" in line


FULL = """
import os
from nmt.errors import DeviceError
from nmt.training.loop import Training

attempt = Training._try

def full(training, step, leave=False):
    if os.environ["RANK"] == "1" and step == 12:
        raise DeviceError("cuda:1: too little memory")
    return attempt(training, step, leave)

Training._try = full
"""


def test_an_error_of_one_process_ends_the_others(text: Path, tmp_path: Path) -> None:
    codes, said = ended(start(2, prepared(text, tmp_path / "run"), program=("-c", QUICK + FULL + "main()")))
    assert codes == [2, 2]
    assert "nmt: error: cuda:1: too little memory" in said[1]
    assert "one of them is gone" in said[0]
    assert "Traceback" not in said[0] + said[1]


def test_a_heart_that_beats_is_not_missed_and_what_one_says_is_told_to_all(monkeypatch: pytest.MonkeyPatch) -> None:
    store, told = torch.distributed.HashStore(), [list[LostError]() for _ in range(3)]
    monkeypatch.setattr(heartbeat, "_store", lambda world: store)
    monkeypatch.setattr(heartbeat, "EVERY", 0.05)
    monkeypatch.setattr(World, "gather", lambda world, value: [value])
    hearts = [heartbeat.Heartbeat(World(3, rank), told[rank].append) for rank in range(3)]
    for heart in hearts:
        heart.__enter__()
    time.sleep(60 * 0.05)
    assert told == [[], [], []]
    hearts[1].__exit__(DeviceError, DeviceError("full"), None)
    give_up = time.monotonic() + 30
    while not (told[0] and told[2]):
        assert time.monotonic() < give_up
        time.sleep(0.01)
    assert "(process 1 ended: full)" in str(told[0][0])
    assert len(told[0]) == len(told[2]) == 1
    assert not told[1]


ANOTHER = """
import os, sys
from nmt.cli import main

if os.environ["RANK"] == "1":
    sys.argv += ["--set", "train.schedule.warmup=21"]
main()
"""


def test_processes_that_do_not_begin_with_the_same_are_told_so(text: Path, tmp_path: Path) -> None:
    codes, said = ended(start(2, prepared(text, tmp_path / "run"), program=("-c", ANOTHER)))
    assert codes == [2, 2]
    assert "nmt: error: process 1 has another recipe than process 0: all processes of a training" in said[0]
    assert not list((tmp_path / "run" / "checkpoints").iterdir())


def test_several_processes_are_not_given_one_gpu(text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(NmtError, match="--device cuda:1: several processes would share this GPU: --device cuda gives"):
        train(recipes.load(prepared(text, tmp_path / "run")), "cuda:1")


def test_one_process_has_nobody_to_share_a_model_with_and_says_so(
    text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(recipes.load(prepared(text, tmp_path / "run"), ["train.steps=2"]), "cpu", sharded=True)
    assert ", the whole model, for --fsdp has only this process;" in capsys.readouterr().err


def test_patience_ends_all_processes(text: Path, tmp_path: Path) -> None:
    changes = "train.patience=1", "train.steps=200", "train.valid_every=10", "train.schedule.scale=1e-9"
    codes, said = ended(start(2, prepared(text, tmp_path / "run", *changes)))
    assert codes == [0, 0]
    assert "for train.patience, 1 measurings" in said[0]


@BOTH
def test_a_process_that_is_killed_ends_the_others_with_a_line_that_says_so(
    how: tuple[str, ...], text: Path, tmp_path: Path
) -> None:
    recipe = prepared(text, tmp_path / "run", "train.steps=1000000", "train.valid_every=1000000")
    processes = start(2, recipe, *how)
    wait_for(tmp_path / "run", "checkpoints/step-00000010/state.json")
    begun = time.monotonic()
    processes[1].kill()
    codes, said = ended(processes)
    assert codes == [2, -signal.SIGKILL]
    assert time.monotonic() - begun < 60
    [line] = [line for line in said[0].splitlines() if line.startswith("nmt: error:")]
    assert "one of them is gone" in line
    assert "goes on from the last checkpoint" in line
    assert "Traceback" not in said[0]


@BOTH
def test_lines_of_an_update_that_is_not_finite_are_told_whichever_process_had_them(
    how: tuple[str, ...], text: Path, tmp_path: Path
) -> None:
    recipe = prepared(text, tmp_path / "run", "train.steps=200", "train.schedule={name: inverse-sqrt, rate: 1e30}")
    codes, _ = ended(start(2, recipe, *how))
    assert codes == [2, 2]
    [first, *_] = map(json.loads, (tmp_path / "run" / "skipped.jsonl").read_text("utf-8").splitlines())
    assert first["pairs"] == len(first["lines"]) > 8  # of all chunks of the update, whose every second one is another's


SLOW_AND_BROKEN = """
import math, time
from nmt.cli import main
from nmt.training import checkpoint
from nmt.training.health import Fault
from nmt.training.loop import Training

save, attempt = checkpoint.save, Training._try

def slowly(*given):
    time.sleep(2)
    return save(*given)

def broken(training, step, leave=False):
    tried = attempt(training, step, leave)
    if not 11 <= step <= 13 or training.state.health.rewinds:
        return tried
    training.learner.forget()
    return tried._replace(fault=Fault(["loss"], math.nan, math.nan, [], 0))

checkpoint.save, Training._try = slowly, broken
main()
"""


def test_all_processes_rewind_to_a_checkpoint_that_the_first_is_still_writing(text: Path, tmp_path: Path) -> None:
    recipe = prepared(text, tmp_path / "run", "train.steps=20", "train.valid_every=20")
    codes, said = ended(start(2, recipe, program=("-c", SLOW_AND_BROKEN)))
    assert codes == [0, 0], said
    assert "3 updates in a row were not finite: back to the weights of update 10," in said[0]
    assert checkpoint(tmp_path / "run", "model", 20).exists()


def test_chunks_are_dealt_out_once_each_and_evenly() -> None:
    for size in (1, 2, 3, 8):
        shares = [World(size, rank).share(13) for rank in range(size)]
        assert sorted(number for share in shares for number in share) == [*range(13)]
        assert {len(share) for share in shares} <= {13 // size, math.ceil(13 / size)}
