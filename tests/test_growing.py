"""Back-translation and distillation: killed, shared out or interrupted in any way, they write the same bytes."""

import gzip
import lzma
import os
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
from commands import Server, Shell, half_written
from sacrebleu.metrics import BLEU, CHRF

from nmt import recipe as recipes
from nmt.errors import DataError, NmtError, OutputError
from nmt.evaluation import closest
from nmt.growing import job as jobs
from nmt.growing.job import Job, Part, Row, run
from nmt.processes import Shard

PLAIN = ("--device", "cpu", "--precision", "fp32")
GREEDY = (*PLAIN, "--beam", 1)
FEW = ("--batch-size", 1, "--workers", 1)  # chunks of 16 lines
SMALL = (*GREEDY, *FEW)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# The job, with shouting in the place of translating


class Shouting:
    """Writes a line and the line in capitals; `done` has the lines it was given."""

    done: ClassVar[Counter[str]] = Counter()

    def __call__(self, rows: list[Row]) -> Part:
        self.done.update(line for (line,) in rows)
        kept = [(line, line.upper()) for (line,) in rows if line]
        return Part(kept, {"done": len(kept), "blank": len(rows) - len(kept)})


LINES = [f"line {number}\u2028" if number % 5 else "" for number in range(47)]


def shouting(prefix: Path, **changes: Any) -> Job:
    what: dict[str, Any] = {"lines": LINES, "depends": {"beam": 4}, "chunk": 4, "make": Shouting} | changes
    lines = what.pop("lines")
    return Job(str(prefix), ("a", "b"), lambda: ((line,) for line in lines), **what)


def quietly(job: Job, **how: Any) -> Any:
    return run(job, 1, report=lambda line: None, **how)


@pytest.fixture(autouse=True)
def unheard() -> None:
    Shouting.done.clear()


def test_what_is_written_is_there_line_by_line_and_accounted_for(tmp_path: Path) -> None:
    told = quietly(shouting(tmp_path / "out"))
    kept = [line for line in LINES if line]
    assert (tmp_path / "out.a").read_text("utf-8").split("\n")[:-1] == kept
    assert (tmp_path / "out.b").read_text("utf-8").split("\n")[:-1] == [line.upper() for line in kept]
    assert told == (47, len(kept), {"done": len(kept), "blank": 47 - len(kept)})
    assert {path.name for path in tmp_path.iterdir()} == {"out.a", "out.b", "out.json"}


@pytest.mark.parametrize("of", [1, 2, 3, 5, 12, 20])
def test_the_shards_one_after_another_are_the_whole(tmp_path: Path, of: int) -> None:
    quietly(shouting(tmp_path / "whole"))
    shards = [Shard(number, of) for number in range(1, of + 1)]
    for shard in random.Random(of).sample(shards, of):
        quietly(shouting(Path(shard.named(str(tmp_path / "part"))), shard=shard))
    assert Shouting.done.total() == 2 * len(LINES)
    for side in "ab":
        if of > 1:
            files = sorted(tmp_path.glob(f"part.*-of-*.{side}"))
            assert len(files) == of
            parts = b"".join(path.read_bytes() for path in files)
            assert parts == (tmp_path / f"whole.{side}").read_bytes()


class Killed(BaseException):
    """What comes instead of SIGKILL: nothing catches it, and with it nothing is tidied up that a kill would leave."""


def deadly(monkeypatch: pytest.MonkeyPatch, steps: int) -> list[str]:
    """Everything that changes the disk is counted, and the process ends instead of doing the one after `steps`."""
    said: list[str] = []

    def counted(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def do(*arguments: Any, **options: Any) -> Any:
            if len(said) == steps:
                raise Killed
            said.append(name)
            return real(*arguments, **options)

        return do

    for name in ("replace", "rename", "mkdir", "unlink", "rmdir"):
        monkeypatch.setattr(os, name, counted(name, getattr(os, name)))
    return said


def test_ended_before_any_change_of_the_disk_and_run_again_it_writes_the_same(tmp_path: Path) -> None:
    quietly(shouting(tmp_path / "wanted"))
    wanted = [(tmp_path / f"wanted.{side}").read_bytes() for side in "ab"]
    for steps in range(1000):
        Shouting.done.clear()
        folder = tmp_path / str(steps)
        folder.mkdir()
        with pytest.MonkeyPatch.context() as patch:
            said = deadly(patch, steps)
            with suppress(Killed):
                quietly(shouting(folder / "out"))
            ended = len(said) < steps
        before = set(folder.glob("out.parts/*.chunk"))
        finished = (folder / "out.json").exists()
        Shouting.done.clear()
        quietly(shouting(folder / "out"))
        assert [(folder / f"out.{side}").read_bytes() for side in "ab"] == wanted
        left = 0 if finished else len(LINES) - sum(_lines_in(path.name) for path in before)
        assert Shouting.done.total() == left
        assert not (folder / "out.parts").exists()
        if ended:
            break
    else:
        pytest.fail("it never came to its end")
    assert steps > 15


def _lines_in(chunk: str) -> int:
    number = int(chunk.removesuffix(".chunk"))
    return len(LINES[4 * number : 4 * number + 4])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"depends": {"beam": 5}}, "another beam"),
        ({"lines": [*LINES, "more"]}, "another input"),
        ({"lines": ["less", *LINES[1:]]}, "another input"),
        ({"chunk": 5, "depends": {"beam": 4, "tag": "x"}}, "another chunk, another tag"),
    ],
)
@pytest.mark.parametrize("finished", [True, False])
def test_what_was_made_of_something_else_is_neither_mixed_nor_replaced_unless_forced(
    tmp_path: Path, change: dict[str, Any], told: str, finished: bool
) -> None:
    if finished:
        quietly(shouting(tmp_path / "out"))
    else:
        begun(tmp_path / "out")
    before = contents(tmp_path)
    with pytest.raises(NmtError, match=rf"{'made' if finished else 'begun'} with {told}: .* --force"):
        quietly(shouting(tmp_path / "out", **change))
    assert contents(tmp_path) == before
    quietly(shouting(tmp_path / "out", **change), force=True)
    quietly(shouting(tmp_path / "anew", **change))
    assert (tmp_path / "out.b").read_bytes() == (tmp_path / "anew.b").read_bytes()


def begun(prefix: Path, chunks: int = 3) -> None:
    """A job that ended after so many chunks."""

    class Tired(Shouting):
        def __call__(self, rows: list[Row]) -> Part:
            if len(list(Path(f"{prefix}.parts").glob("*.chunk"))) == chunks:
                raise KeyboardInterrupt
            return super().__call__(rows)

    with pytest.raises(KeyboardInterrupt):
        quietly(shouting(prefix, make=Tired))


def test_what_is_finished_is_not_done_again(tmp_path: Path) -> None:
    quietly(shouting(tmp_path / "out"))
    before = contents(tmp_path)
    Shouting.done.clear()
    told = quietly(shouting(tmp_path / "out"))
    assert told.rows == sum(map(bool, LINES))
    assert not Shouting.done
    assert contents(tmp_path) == before
    (tmp_path / "out.b").write_text("my own\n")
    with pytest.raises(NmtError, match=r"made but its files have changed since: .*--force"):
        quietly(shouting(tmp_path / "out"))


@pytest.mark.parametrize("force", [False, True])
def test_files_of_the_user_are_never_replaced(tmp_path: Path, force: bool) -> None:
    (tmp_path / "out.b").write_text("my own\n")
    with pytest.raises(OutputError, match=r"out\.b: would be replaced, but was not made by this command"):
        quietly(shouting(tmp_path / "out"), force=force)
    (tmp_path / "out.b").unlink()
    (tmp_path / "out.parts").mkdir()
    (tmp_path / "out.parts" / "diary").write_text("dear diary")
    with pytest.raises(OutputError, match="diary"):
        quietly(shouting(tmp_path / "out"), force=force)
    (tmp_path / "out.parts" / "diary").rename(tmp_path / "out.json")
    (tmp_path / "out.parts").rmdir()
    for text in ("dear diary", '["mine"]', '{"job": "gardener"}', "{}"):
        (tmp_path / "out.json").write_text(text)
        with pytest.raises(OutputError, match=r"out\.json: would be replaced"):
            quietly(shouting(tmp_path / "out"), force=force)
        assert contents(tmp_path) == {"out.json": text.encode()}


def test_text_that_becomes_shorter_meanwhile_is_told(tmp_path: Path) -> None:
    lines = list(LINES)
    job = shouting(tmp_path / "out", lines=lines)

    class Cutting(Shouting):
        def __call__(self, rows: list[Row]) -> Part:
            del lines[20:]
            return super().__call__(rows)

    with pytest.raises(DataError, match="shorter while it was being read"):
        quietly(replace(job, make=Cutting))
    assert not (tmp_path / "out.a").exists()


def test_two_at_once_in_one_place_are_told(tmp_path: Path) -> None:
    begun(tmp_path / "out")
    with jobs.alone_in(tmp_path / "out.parts"):
        for force in (False, True):
            with pytest.raises(OutputError, match="another process is at work in it"):
                quietly(shouting(tmp_path / "out"), force=force)


def test_the_names_of_shards_are_in_their_order() -> None:
    names = [Shard(number, 12).named("out") for number in range(1, 13)]
    assert names == sorted(names)
    assert names[1] == "out.02-of-12"


# Which translation is closest


@pytest.mark.parametrize(("measure", "metric"), [("bleu", BLEU(effective_order=True)), ("chrf", CHRF())])
def test_the_closest_is_the_one_that_sacrebleu_scores_highest(measure: str, metric: Any) -> None:
    reference = "the cat sat on the mat ."
    texts = ["a dog", "the cat sat on a mat .", "the cat sat on the mat", "cats sit", "the cat sat on the mat"]
    scores = [metric.sentence_score(text, [reference]).score for text in texts]
    assert closest(texts, reference, measure) == scores.index(max(scores)) == 2


# The commands


@pytest.fixture
def shell(server: Server, trained: Shell, tmp_path: Path) -> Shell:
    """A copy of what was trained, and mono.en, 50 lines of which two are blank and one is too long."""
    shutil.copytree(trained.folder, tmp_path / "copy")
    folder = tmp_path / "copy"
    lines = (folder / "train.en").read_text().splitlines()[:47]
    mono = [*lines[:5], "", *lines[5:20], "very " * 300, *lines[20:], " \t "]
    (folder / "mono.en").write_text("".join(line + "\n" for line in mono))
    return Shell(server, folder)


def sides(folder: Path, prefix: str = "out") -> tuple[list[str], list[str]]:
    de, en = ((folder / f"{prefix}.{side}").read_text().split("\n")[:-1] for side in ("de", "en"))
    return de, en


def backtranslate(shell: Shell, *options: object, output: str = "out", **how: Any) -> Any:
    search = (*PLAIN, *FEW) if "--sample" in options else SMALL
    return shell("backtranslate", "run/model", "mono.en", "--output", output, *search, *options, **how)


def test_each_good_line_is_a_target_with_its_translation_as_source(shell: Shell) -> None:
    done = backtranslate(shell)
    good = [line for line in (shell.folder / "mono.en").read_text().splitlines() if 0 < len(line.strip()) < 500]
    de, en = sides(shell.folder)
    assert en == good
    assert len(good) == 47
    stdin = "".join(line + "\n" for line in good).encode()
    assert de == shell("translate", "run/model", *GREEDY, stdin=stdin).lines
    assert done.err == "out.de: 47 pairs from 50 lines; left out: 2 blank, 1 too long\n"


def test_what_it_prints_is_what_the_next_recipe_lists(shell: Shell) -> None:
    listed = backtranslate(shell).out.decode()
    assert "source: de\n  target: en\n  train:\n  - train\n  - path: out\n    tag: <BT>\n" in listed
    text = (shell.folder / "recipe.yaml").read_text().replace("run: run", "run: next")
    own = "data: {source: en, target: de, train: train, valid: valid, test: {held: test}}\n"
    assert own in text
    (shell.folder / "next.yaml").write_text(text.replace(own, listed + "  valid: valid\n  test: {held: test}\n"))
    recipes.load(shell.folder / "next.yaml")
    assert "out" in shell("prepare", "next.yaml", "--workers", 1).err


def test_the_tag_is_the_next_recipes_and_changes_no_text(shell: Shell) -> None:
    backtranslate(shell)
    plain = sides(shell.folder)
    listed = backtranslate(shell, "--tag", "<2en>").out.decode()
    assert listed.endswith("  - path: out\n    tag: <2en>\n")
    assert backtranslate(shell, "--tag", "").out.decode().endswith("  - train\n  - out\n")
    assert sides(shell.folder) == plain


def test_shards_and_workers_change_no_byte(shell: Shell) -> None:
    how = ("--sample", "--top-p", 0.9, "--n-best", 2, "--seed", 7)
    backtranslate(shell, *how)
    backtranslate(shell, *how, "--workers", 2, output="two")
    for number in (3, 1, 2):
        backtranslate(shell, *how, "--shard", f"{number}/3", output="part")
    for side in ("de", "en"):
        whole = (shell.folder / f"out.{side}").read_bytes()
        assert whole == (shell.folder / f"two.{side}").read_bytes()
        assert whole == b"".join((shell.folder / f"part.{n}-of-3.{side}").read_bytes() for n in (1, 2, 3))
    assert len(sides(shell.folder)[0]) == 2 * 47


def test_the_listing_of_a_shard_names_all_of_them(shell: Shell) -> None:
    listed = backtranslate(shell, "--shard", "1/2").out.decode()
    assert "  - path: out.1-of-2\n    tag: <BT>\n  - path: out.2-of-2\n    tag: <BT>\n" in listed


def test_killed_at_any_moment_and_run_again_the_result_is_the_same_and_no_chunk_is_done_twice(shell: Shell) -> None:
    backtranslate(shell, output="wanted")
    parts = shell.folder / "out.parts"
    for chunks in (0, 1, 2, 3):
        running = shell.start("backtranslate", "run/model", "mono.en", "--output", "out", *SMALL)
        give_up = time.monotonic() + 60
        while len(list(parts.glob("*.chunk"))) < chunks and not (shell.folder / "out.json").exists():
            assert time.monotonic() < give_up
            time.sleep(0.001)
        before = {path: path.stat().st_mtime_ns for path in parts.glob("*.chunk")}
        running.kill(signal.SIGKILL)
        assert all(path.stat().st_mtime_ns == made for path, made in before.items() if path.exists())
    backtranslate(shell)
    assert sides(shell.folder) == sides(shell.folder, "wanted")
    assert half_written(shell.folder) == []
    assert not parts.exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stopped_it_keeps_what_is_done(shell: Shell, number: signal.Signals) -> None:
    running = shell.start("backtranslate", "run/model", "mono.en", "--output", "out", *SMALL)
    while not (shell.folder / "out.parts" / "00000000.chunk").exists():
        time.sleep(0.001)
    if running.kill(number).code:
        assert half_written(shell.folder) == []
        assert "out.parts: going on, with " in backtranslate(shell).err


def test_a_full_disk_is_told_and_what_is_done_stays(shell: Shell) -> None:
    large = ("--batch-size", 64, "--n-best", 4, "--beam", 4)
    message = shell.fails("backtranslate", "run/model", "mono.en", "--output", "out", *SMALL, *large, largest=2000)
    assert message.startswith("out.parts/")
    assert "cannot be written: the file is larger than " in message
    assert not (shell.folder / "out.de").exists()
    backtranslate(shell, *large)
    message = shell.fails("backtranslate", "run/model", "mono.en", "--output", "no/out", *SMALL)
    assert message == "no/out.parts: cannot be written: there is no such folder: make it first"


def test_a_reader_who_has_left_costs_nothing(shell: Shell) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no such device here")
    assert "standard output: cannot be written" in backtranslate(shell, out="/dev/full", code=2).err
    assert "made already" in backtranslate(shell).err
    assert len(sides(shell.folder)[0]) == 47


def test_another_model_or_option_is_told(shell: Shell) -> None:
    backtranslate(shell)
    again = ("backtranslate", "run/model", "mono.en", "--output", "out", *SMALL)
    assert "another max_extra" not in shell.fails(*again, "--length-penalty", 2)
    assert "another sampling" in shell.fails(*again[: -len(SMALL)], *PLAIN, *FEW, "--sample")
    shell("average", "recipe.yaml", "--last", 1)
    assert "made with another models: " not in (told := shell.fails(*again))
    assert "made with another model: " in told
    shell(*again, "--force")


def test_packed_text_and_standard_input_give_the_same(shell: Shell) -> None:
    backtranslate(shell)
    text = (shell.folder / "mono.en").read_bytes()
    (shell.folder / "packed").write_bytes(gzip.compress(text))
    shell("backtranslate", "run/model", "packed", "--output", "file", *SMALL)
    shell("backtranslate", "run/model", "--output", "pipe", *SMALL, stdin=lzma.compress(text))
    assert sides(shell.folder) == sides(shell.folder, "file") == sides(shell.folder, "pipe")
    assert not list(shell.folder.glob("*standard-input*"))


def test_distillation_translates_the_training_text_of_the_teachers_recipe(shell: Shell) -> None:
    done = shell("distill", "run/model", "--output", "out", *GREEDY, "--workers", 1)
    de, en = sides(shell.folder)
    assert en == (shell.folder / "train.en").read_text().splitlines()
    stdin = (shell.folder / "train.en").read_bytes()
    assert de == shell("translate", "run/model", *GREEDY, stdin=stdin).lines
    assert done.out.decode() == "data:\n  source: en\n  target: de\n  train:\n  - out\n"


def test_distillation_takes_files_too_or_another_recipe(shell: Shell) -> None:
    shell("distill", "run/model", "valid.en", "--output", "files", *GREEDY, "--workers", 1)
    other = (shell.folder / "recipe.yaml").read_text().replace("train: train,", "train: valid,")
    (shell.folder / "other.yaml").write_text(other)
    shell("distill", "run/model", "--recipe", "other.yaml", "--output", "recipe", *GREEDY, "--workers", 1)
    assert sides(shell.folder, "files") == sides(shell.folder, "recipe")
    (shell.folder / "back.yaml").write_text(other.replace("source: en, target: de", "source: de, target: en"))
    told = shell.fails("distill", "run/model", "--recipe", "back.yaml", "--output", "x", *GREEDY)
    assert told == "--recipe: must translate from en to de, as the teacher does, found de to en"


@pytest.mark.parametrize("measure", ["bleu", "chrf"])
def test_the_target_may_be_that_of_the_beam_which_is_closest_to_the_reference(shell: Shell, measure: str) -> None:
    how = ("--device", "cpu", "--precision", "fp32", "--beam", 3)
    valid = (shell.folder / "recipe.yaml").read_text().replace("train: train,", "train: valid,")
    (shell.folder / "other.yaml").write_text(valid)
    options = ("--recipe", "other.yaml", "--closest", measure, *how, "--workers", 1)
    shell("distill", "run/model", "--output", "out", *options)
    several = shell("translate", "run/model", "valid.en", "--n-best", 3, *how).lines
    rows = [row.split(" ||| ") for row in several]
    references = (shell.folder / "valid.de").read_text().splitlines()
    wanted = []
    for number, reference in enumerate(references):
        texts = [text for line, text, _ in rows if line == str(number) and text]
        wanted.append(texts[closest(texts, reference, measure)])
    assert sides(shell.folder)[0] == wanted


FAULTS = {
    "no model": ("backtranslate nowhere mono.en --output out", "nowhere: no such file or folder: name a model folder"),
    "no text": ("backtranslate run/model nowhere.en --output out", "nowhere.en: cannot be read: No such file"),
    "an empty text": ("backtranslate run/model empty --output out", "there is no text to translate"),
    "a pipe with a name": ("backtranslate run/model fifo --output out", "fifo: must be a regular file, for its text"),
    "nothing piped in": ("backtranslate run/model --output out", "standard input is empty: pipe the text in"),
    "no shard": ("distill run/model --output out --shard 4/3", "--shard: must be I/N, such as 2/8"),
    "no sampling": ("backtranslate run/model mono.en --output out --top-k 3", "--top-k says how to sample: add"),
    "no probability": ("backtranslate run/model mono.en --output out --sample --top-p 2", "top_p: must be above 0"),
    "no references": ("distill run/model mono.en --output out --closest bleu", "--closest: needs references"),
    "nothing to choose": (
        "distill run/model --output out --closest bleu --beam 1", "--closest: needs several translations"
    ),
    "another vocabulary": ("backtranslate run/model mono.en --output out --with other", "other: has another"),
    "in the way": ("distill run/model mono.en --output train", "train.en: would be replaced, but was not made by this"),
    "more than the beam": (
        "distill run/model mono.en --output out --n-best 5 --beam 2", "5 translations a line are more than a beam of 2"
    ),
}  # fmt: skip


@pytest.mark.parametrize(("command", "told"), FAULTS.values(), ids=FAULTS.keys())
def test_a_mistake_is_told_in_a_line(shell: Shell, command: str, told: str) -> None:
    (shell.folder / "empty").touch()
    os.mkfifo(shell.folder / "fifo")
    if "--with" in command:
        shell("prepare", "recipe.yaml", "--set", "run=second", "--set", "tokenizer.sample=99", "--workers", 1)
        shutil.copytree(shell.folder / "run/model", shell.folder / "other")
        shutil.copy(shell.folder / "second/data/tokenizer.model", shell.folder / "other")
    before = contents(shell.folder)
    arguments = [part.replace("a=", "a b") for part in command.split()]
    assert shell.fails(*arguments, "--workers", 1, "--device", "cpu").startswith(told)
    left = contents(shell.folder)
    assert {name: left[name] for name in before} == before
    assert {name for name in left.keys() - before.keys() if not name.endswith("parts/job.json")} == set()


def test_a_fault_in_a_worker_process_is_told_in_a_line_too(shell: Shell) -> None:
    (shell.folder / "run/model/model.safetensors").write_bytes(b"")
    command = ("distill", "run/model", "--output", "out", "--batch-size", 1, "--workers", 2, "--device", "cpu")
    assert shell.fails(*command).startswith("run/model/model.safetensors: cut short")


# nmt translate by several models, and by sampling


def translated(shell: Shell, *options: object) -> list[str]:
    done = shell("translate", "run/model", "valid.en", "--device", "cpu", "--precision", "fp32", *options)
    return done.lines


def test_an_ensemble_of_a_model_with_itself_translates_as_the_model(trained: Shell) -> None:
    for options in ((), ("--sample", "--seed", 2)):
        alone = translated(trained, *options)
        assert translated(trained, *options, "--with", "run/model", "--with", "recipe.yaml") == alone


def test_an_ensemble_of_two_models_is_neither_of_them_and_the_same_in_either_order(
    trained: Shell, tmp_path: Path
) -> None:
    trained("average", "recipe.yaml", "--checkpoint", "run/checkpoints/step-00000010", "--output", tmp_path / "early")
    both = translated(trained, "--n-best", 4, "--with", tmp_path / "early")
    swapped = trained("translate", tmp_path / "early", "valid.en", "--n-best", 4, "--device", "cpu",
                      "--precision", "fp32", "--with", "run/model").lines  # fmt: skip
    assert [row.split(" ||| ")[:2] for row in both] == [row.split(" ||| ")[:2] for row in swapped]
    assert both != translated(trained, "--n-best", 4)


def test_what_is_drawn_for_a_line_follows_from_line_and_seed_alone(trained: Shell) -> None:
    lines = (trained.folder / "valid.en").read_text().splitlines()
    options = ("--device", "cpu", "--precision", "fp32", "--sample", "--seed", 3)
    found = translated(trained, "--sample", "--seed", 3)
    backwards = trained("translate", "run/model", *options, "--batch-size", 5, stdin="\n".join(lines[::-1]).encode())
    assert backwards.lines[::-1] == found
    assert trained("translate", "run/model", *options, stdin=lines[4].encode()).lines == [found[4]]
    assert translated(trained, "--sample", "--seed", 4) != found
    several = [row.split(" ||| ") for row in translated(trained, "--sample", "--seed", 3, "--n-best", 6)]
    assert [text for _, text, _ in several][::6] == found
    assert len(several) == 6 * len(lines)


def test_a_temperature_of_0_translates_greedily(trained: Shell) -> None:
    assert translated(trained, "--sample", "--temperature", 0) == translated(trained, "--beam", 1)
