"""The commands as a user meets them: what goes in, what comes out, and on which stream."""

import json
import os
import pty
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from commands import Server, Shell

from nmt.cli.app import patient

ROOT = Path(__file__).parent.parent
ODD = "a tab\there\nNUL\0inside\ncarriage\rreturn\nU+2028\u2028and\u2029more\x85\x0b\x0c\x1c\n"
ONE_BY_ONE = ("--device", "cpu", "--precision", "fp32")


def sentences(shell: Shell, count: int = 20) -> list[str]:
    return (shell.folder / "test.en").read_text().splitlines()[:count]


def text(lines: list[str]) -> bytes:
    return "".join(line + "\n" for line in lines).encode()


def translated(shell: Shell, lines: list[str], *options: object) -> list[str]:
    done = shell("translate", "run/model", *ONE_BY_ONE, *options, stdin=text(lines))
    assert done.out.endswith(b"\n")
    return done.lines


@pytest.fixture
def shell(server: Server, trained: Shell, tmp_path: Path) -> Shell:
    """A copy of what was trained, to do with as one likes."""
    shutil.copytree(trained.folder, tmp_path / "copy")
    return Shell(server, tmp_path / "copy")


# The road


def test_five_commands_lead_from_raw_text_to_a_translation_and_a_score(server: Server, corpus: Path, tmp_path: Path):
    shutil.copytree(corpus, tmp_path / "new", ignore=shutil.ignore_patterns("run"))
    nmt = Shell(server, tmp_path / "new")
    assert nmt("prepare", "recipe.yaml", "--workers", 1).out == b""
    assert nmt("train", "recipe.yaml", "--set", "train.steps=8", "--device", "cpu").out == b""
    assert nmt("average", "recipe.yaml").out == b"run/model\n"
    assert len(nmt("translate", "recipe.yaml", stdin=text(sentences(nmt, 3))).lines) == 3
    scored = nmt("score", "recipe.yaml", "--show", 2)
    for shown in ("held:", "BLEU", "chrF2++", "TER", "|tok:13a|", "±", "source ", "reference ", "translation "):
        assert shown in scored.out.decode()
    assert len((nmt.folder / "run/translations/held.de").read_text().splitlines()) == 20
    assert {path.name for path in (nmt.folder / "run/model").iterdir()} == {
        "recipe.yaml", "tokenizer.model", "model.safetensors",
    }  # fmt: skip


def test_help_names_the_commands_in_the_order_of_the_road(server: Server, tmp_path: Path):
    told = Shell(server, tmp_path)("--help").out.decode()
    road = ["prepare", "train", "average", "translate", "score"]
    assert re.findall(r"nmt (prepare|train|average|translate|score)\b", told) == road
    assert re.findall(r"^\W*(prepare|train|average|translate|score) {2}", told, re.MULTILINE) == road


def test_a_file_of_translations_without_its_reference_is_told_how_to_be_scored(shell: Shell):
    (shell.folder / "ours.de").write_text("Der Hund bellt.\nDie Katze: schläft.\n", "utf-8")
    assert shell.fails("score", "ours.de").endswith("to score a file of translations, add --reference FILE")


def test_set_changes_a_key_of_the_recipe_for_one_command(trained: Shell):
    told = trained("train", "recipe.yaml", "--set", "train.steps=30", "--set", "decode.beam=2", "--device", "cpu").err
    assert "40 of 30 updates done" in told


def test_decoding_follows_the_recipe_that_is_named(trained: Shell):
    greedy = trained("score", "recipe.yaml", "--beam", 1, "--json", *ONE_BY_ONE).out
    assert trained("score", "recipe.yaml", "--set", "decode.beam=1", "--json", *ONE_BY_ONE).out == greedy


def test_averaging_says_which_checkpoints(trained: Shell, tmp_path: Path):
    told = trained("average", "recipe.yaml", "--last", 9, "--output", tmp_path / "model").err
    assert "4 checkpoints" in told
    assert "step-00000010" in told


def test_the_checkpoints_named_are_averaged(trained: Shell, tmp_path: Path):
    from safetensors.torch import load_file

    checkpoints = [f"run/checkpoints/step-000000{step}" for step in (20, 40)]
    named = [part for path in checkpoints for part in ("--checkpoint", path)]
    trained("average", "recipe.yaml", *named, "--output", tmp_path / "model")
    one, other, mean = (
        load_file(path / "model.safetensors")
        for path in (*(trained.folder / path for path in checkpoints), tmp_path / "model")
    )
    for name in mean:
        apart = ((one[name].double() + other[name].double()) / 2 - mean[name]).abs()
        assert bool((apart <= 2**-23 * one[name].abs().maximum(other[name].abs())).all()), name  # but for rounding


# Lines


def test_a_line_in_is_a_line_out_and_a_blank_line_stays_blank(trained: Shell):
    lines = sentences(trained, 5)
    found = translated(trained, ["", lines[0], lines[1], " \t ", lines[2], lines[3], lines[4], ""])
    assert [bool(line) for line in found] == [False, True, True, False, True, True, True, False]


def test_the_order_of_the_output_is_that_of_the_input(trained: Shell):
    lines = sentences(trained)
    assert translated(trained, lines[::-1]) == translated(trained, lines)[::-1]


def test_no_input_gives_no_output(trained: Shell):
    assert trained("translate", "run/model").out == b""


def test_a_line_without_its_line_end_is_a_line(trained: Shell):
    lines = sentences(trained, 2)
    assert trained("translate", "run/model", *ONE_BY_ONE, stdin="\n".join(lines).encode()).lines == translated(
        trained, lines
    )


def test_only_a_line_feed_ends_a_line(trained: Shell):
    assert len(translated(trained, ODD.split("\n")[:-1])) == 4
    out = trained("translate", "run/model", stdin=ODD.encode()).out.decode()
    assert len(out.splitlines()) == 4


def test_windows_line_ends_change_nothing(trained: Shell):
    lines = sentences(trained, 3)
    windows = trained("translate", "run/model", *ONE_BY_ONE, stdin=text(lines).replace(b"\n", b"\r\n"))
    assert windows.lines == translated(trained, lines)


def test_the_output_does_not_depend_on_the_batch_size(trained: Shell):
    lines = [
        *sentences(trained),
        *(f"{one} {other}" for one in sentences(trained, 5) for other in sentences(trained, 10)),
    ]
    assert len(lines) >= 64
    assert len({tuple(translated(trained, lines, "--batch-size", size)) for size in (1, 7, 64)}) == 1


def test_a_recipe_stands_for_its_model(trained: Shell):
    lines = sentences(trained, 5)
    out = trained("translate", "recipe.yaml", *ONE_BY_ONE, stdin=text(lines)).lines
    assert out == translated(trained, lines)


def test_files_are_translated_one_after_another_and_a_dash_is_standard_input(trained: Shell, tmp_path: Path):
    lines = sentences(trained, 6)
    (tmp_path / "first").write_bytes(text(lines[:2]))
    (tmp_path / "last").write_bytes(text(lines[4:]))
    files = (tmp_path / "first", "-", tmp_path / "last")
    out = trained("translate", "run/model", *files, *ONE_BY_ONE, stdin=text(lines[2:4])).lines
    assert out == translated(trained, lines)


def test_output_is_utf8_whatever_the_locale(trained: Shell):
    done = nmt(trained, "score", "--reference", "test.de", "test.de", PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, b"")
    assert "TER ↓" in done.stdout.decode()


def test_n_best_prints_moses_format_best_first(trained: Shell):
    lines = [sentences(trained, 2)[0], "", sentences(trained, 2)[1]]
    rows = [row.split(" ||| ") for row in translated(trained, lines, "--n-best", 3, "--beam", 3)]
    assert [row[0] for row in rows] == ["0"] * 3 + ["1"] + ["2"] * 3
    assert rows[3] == ["1", "", "0.0000"]
    for number in ("0", "2"):
        scores = [float(score) for line, _, score in rows if line == number]
        assert scores == sorted(scores, reverse=True)
        assert len({best for line, best, _ in rows if line == number}) == 3
    assert [rows[0][1], "", rows[4][1]] == translated(trained, lines, "--beam", 3)


def test_logs_go_to_standard_error_and_translations_alone_to_standard_output(trained: Shell):
    done = trained("translate", "run/model", "--on-suspect", "off", stdin=text(sentences(trained, 3)))
    assert done.err == ""
    assert len(done.lines) == 3


# Scores


def test_score_compares_systems_with_a_reference(trained: Shell, tmp_path: Path):
    lines = [f"{line} and so on to the end ." for line in sentences(trained)]
    (tmp_path / "ref").write_bytes(text(lines))
    (tmp_path / "bad").write_bytes(text([line.replace("and so", "oder") for line in lines]))
    said = ("score", "--reference", tmp_path / "ref", "-", tmp_path / "bad")
    table = trained(*said, stdin=text(lines)).out.decode()
    assert "100.00" in table
    assert "p = " in table
    assert str(tmp_path / "bad") in table
    rows = json.loads(trained(*said, "--json", "--lowercase", "--tokenize", "none", stdin=text(lines)).out)
    bleu = [row for row in rows["files"]["rows"] if row["metric"] == "BLEU"]
    assert [row["system"] for row in bleu] == ["-", str(tmp_path / "bad")]
    assert bleu[0]["score"] > 99.9 > bleu[1]["score"]
    assert "case:lc|eff:no|tok:none" in bleu[0]["signature"]


@pytest.mark.parametrize(
    "idle", ["--show 5", "--set train.steps=1", "--beam 9", "--workers 7", "--length-penalty 0", "--threads 2",
             "--device cuda:9", "--precision fp32"]
)  # fmt: skip
def test_what_files_are_not_scored_by_is_refused(shell: Shell, idle: str):
    said = shell.fails("score", "--reference", "test.de", *idle.split(), "test.de")
    assert said == f"{idle.split()[0]}: nothing to do with --reference: leave it out"


def test_a_system_is_compared_with_others_only(shell: Shell):
    assert shell.fails("score", "--reference", "a", "b", "c", "b").startswith("b: given twice: a system is compared")


def test_the_score_of_a_recipe_is_the_score_of_its_files(trained: Shell):
    whole = json.loads(trained("score", "recipe.yaml", "--json", *ONE_BY_ONE).out)["held"]["rows"]
    files = json.loads(trained("score", "--reference", "test.de", "run/translations/held.de", "--json").out)
    assert [row["score"] for row in whole] == [row["score"] for row in files["files"]["rows"]]


# From Python, and as a process of its own


def nmt(shell: Shell, *arguments: object, stdin: bytes = b"", **variables: str) -> subprocess.CompletedProcess[bytes]:
    """Runs `python -m nmt` itself."""
    command = [sys.executable, "-m", "nmt", *map(str, arguments)]
    return subprocess.run(
        command, input=stdin, capture_output=True, cwd=shell.folder, env=environment(**variables), timeout=60
    )


def environment(**variables: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **variables}


def test_python_translates_in_a_few_lines(trained: Shell):
    import nmt

    translator = nmt.Translator.load(trained.folder / "run" / "model", "cpu", "fp32")
    lines = sentences(trained, 3)
    assert translator.translate(lines) == translated(trained, lines)
    assert translator.translate([]) == []
    with pytest.raises(nmt.NmtError, match="not a model folder"):
        nmt.Translator.load(trained.folder / "run")
    with pytest.raises(nmt.NmtError, match=r"decode\.beam: must be at least 1, found 0"):
        translator.translate(lines, beam=0)
    with pytest.raises(nmt.NmtError, match=r"decode\.baem: unknown key; did you mean decode\.beam"):
        translator.translate(lines, baem=1)


def test_a_reader_who_has_seen_enough_ends_translating_without_a_word(trained: Shell):
    lines = text(sentences(trained, 4) * 60)
    command = [sys.executable, "-m", "nmt", "translate", "run/model", "--batch-size", "1", "--beam", "1"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=trained.folder,
        env=environment(),
    ) as process:  # fmt: skip
        assert process.stdout
        process.stdout.close()
        _, said = process.communicate(lines, timeout=60)
    assert said == b""
    assert process.returncode == 141


def test_in_a_pipe_training_prints_plain_lines(shell: Shell):
    shutil.rmtree(shell.folder / "run" / "checkpoints")
    done = nmt(shell, "train", "recipe.yaml", "--set", "train.steps=10", "--device", "cpu", FORCE_COLOR="1")
    assert (done.returncode, done.stdout) == (0, b"")
    said = done.stderr.decode().splitlines()
    assert "\x1b" not in "".join(said)
    assert [line.split()[:2] for line in said if "learning rate" in line] == [["update", "5"], ["update", "10"]]
    assert said[0].startswith("0.0 M parameters on cpu in fp32")
    assert said[-1].startswith("done: 10 updates in 0:00:0")


def test_on_a_terminal_training_shows_a_bar_and_keeps_lines_whole(shell: Shell):
    shutil.rmtree(shell.folder / "run" / "checkpoints")
    screen = on_a_terminal(shell, "train", "recipe.yaml", "--set", "train.steps=20", "--device", "cpu")
    assert "20/20" in screen
    assert "━" in screen
    assert "valid loss" in screen
    assert screen.count("learning rate") == 0
    assert screen.endswith("nmt average\r\n")


def on_a_terminal(shell: Shell, *arguments: str) -> str:
    """What a command writes on a terminal of its own."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "nmt", *arguments]
    with subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, cwd=shell.folder, env=environment(TERM="xterm")
    ) as process:
        os.close(theirs)
        seen = bytearray()
        while part := _read(ours):
            seen += part
        assert process.wait(60) == 0, seen.decode()
    os.close(ours)
    return seen.decode()


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 1 << 16)
    except OSError:  # on Linux, how a terminal says that nobody writes to it any more
        return b""


@pytest.mark.parametrize("said", [{}, {"OMP_WAIT_POLICY": "active"}, {"GOMP_SPINCOUNT": "5"}])
def test_idle_threads_sleep_soon_unless_the_user_says_how_they_wait(said: dict[str, str]):
    environment = dict(said)
    patient(environment)
    assert environment == (said or {"GOMP_SPINCOUNT": "1000"})


def test_the_command_says_so_before_torch_is_there(tmp_path: Path):
    """libgomp reads it once, when it is loaded."""
    code = (
        "import sys, os; from nmt.cli import main; sys.argv = ['nmt', '--help']\ntry: main()\nexcept SystemExit: pass\n"
    )
    code += "assert 'torch' not in sys.modules; print(os.environ['GOMP_SPINCOUNT'], file=sys.stderr)"
    free = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=free, cwd=Path(__file__).parent.parent
    )
    assert done.stderr == "1000\n"
