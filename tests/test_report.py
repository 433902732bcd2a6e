"""The page about a training shows what its run folder has, at any time, and works in a browser, offline."""

import json
import random
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import Shell
from sacrebleu.metrics import BLEU, CHRF

from nmt import recipe as recipes
from nmt.errors import NmtError
from nmt.evaluation import Kept, by_length, groups, keep, score, sentences
from nmt.report.runs import Run
from nmt.report.training import page
from nmt.training import history

RECIPE = """
run: {run}
data: {{source: en, target: de, train: "{text}", valid: "{text}", test: {{held: "{text}"}}}}
tokenizer: {{vocab_size: 400}}
model: {{layers: 2, d_model: 64}}
train: {{steps: 100, log_every: 5, valid_every: 20}}
"""
NOW = time.time()
NASTY = '</script><b>bold</b> & "quoted" {{title}} \u2028 ?'


WORDS = ["der", "die", "das", "Hund", "Katze", "Maus", "sieht", "läuft", "schnell"]


def words(count: int, seed: int) -> list[str]:
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=n % 23 + 2)) for n in range(count)]


def progress(step: int, **more: Any) -> dict[str, Any]:
    line = {"kind": "train", "step": step, "time": NOW - 1000 + step, "loss": 9 / step, "nll": 8 / step}
    line |= {"gradient_norm": 0.5, "gradient_norm_max": 0.7, "skipped_updates": 0, "learning_rate": step / 1000}
    return line | {"target_tokens": 500, "target_tokens_per_second": 100 + step, "share_of_peak": 0.25} | more


def measured(step: int) -> dict[str, Any]:
    entropy = {"encoder": [2.0, 1.5], "decoder": [1.0, 0.5], "cross": [2.5, 1.25]}
    line = {"kind": "valid", "step": step, "time": NOW - 1000 + step, "loss": 5 - step / 50, "bleu": step / 4}
    return line | {"chrf": step / 3, "attention_entropy": entropy}


def write(path: Path, lines: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def made(folder: Path, *, seed: int = 1, steps: int = 100, changes: tuple[str, ...] = ()) -> Path:
    """A run folder with all that a training leaves, of so many updates."""
    text = folder.parent / "text"
    (folder / "checkpoints").mkdir(parents=True)
    for language, lines in (("en", words(120, 0)), ("de", words(120, 9))):
        Path(f"{text}.{language}").write_text("\n".join([NASTY, *lines[1:]]) + "\n", encoding="utf-8")
    recipe = recipes.loads(RECIPE.format(run=folder, text=text), overrides=changes)
    begun = {"kind": "begin", "step": 0, "time": NOW - 1000, "device": "cpu", "precision": "fp32", "processes": 1}
    begun |= {"parameters": 12345678, "peak": 2e11, "peak_is": "measured", "recipe": recipe.model_dump(mode="json")}
    write(folder / "sessions.jsonl", [begun])
    every = [
        each for step in range(5, steps + 1, 5) for each in (progress(step), *([] if step % 20 else [measured(step)]))
    ]
    write(folder / "metrics.jsonl", every)
    said = [
        {"kind": "sample", "step": step, "time": NOW, "sentence": n, "source": f"source {n}", "reference": "der Hund"}
        | {"translation": f"said {step} {n}"}
        for step in range(20, steps + 1, 20)
        for n in range(2)
    ]
    write(folder / "samples.jsonl", said)
    (folder / "translations").mkdir()
    lines = [
        NASTY,
        *(line if n % 3 else f"{line} Unsinn" for n, line in enumerate(words(120, 9 if seed == 1 else seed)[1:])),
    ]
    (folder / "translations" / "held.de").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def told(*folders: Path) -> dict[str, Any]:
    """What the page holds."""
    text = page([Run.at(folder) for folder in folders], "0.0")
    values: dict[str, Any] = json.loads(text.split('id="data">')[1].split("</script>")[0])
    return values


# What the folder says


def test_what_was_done_again_is_not_drawn_twice(tmp_path: Path) -> None:
    run = made(tmp_path / "run", steps=40)
    again = [progress(35, nll=0.5), progress(40, nll=0.25), measured(40), progress(45, nll=0.125)]
    with (run / "metrics.jsonl").open("a") as file:  # it went on from 30, and 45 was cut short
        file.write("".join(json.dumps(line) + "\n" for line in again)[:-4])
    train = told(run)["runs"][0]["train"]
    assert train["step"] == [5, 10, 15, 20, 25, 30, 35, 40]
    assert train["nll"][-3:] == [0.26667, 0.5, 0.25]
    assert told(run)["runs"][0]["valid"]["step"] == [20, 40]


def test_of_lines_the_last_of_an_update_counts_and_none_from_beyond_it() -> None:
    lines = [
        {"kind": kind, "step": step, "n": n}
        for n, (kind, step) in enumerate(zip("abaabb", (1, 1, 2, 3, 2, 3), strict=True))
    ]
    assert [line["n"] for line in history.settled(lines)] == [0, 1, 2, 4, 5]


def test_tokens_and_hours_count_what_a_stop_took_out_of_the_log(tmp_path: Path) -> None:
    run = made(tmp_path / "run", steps=40)
    lines = history.read(run / "metrics.jsonl")
    for line in lines:
        if line["step"] == 25 and line["kind"] == "train":
            line["target_tokens"] = 100  # it went on from 24
    write(run / "metrics.jsonl", lines)
    train = told(run)["runs"][0]["train"]
    assert train["tokens"] == [500.0 * n for n in range(1, 9)]
    assert train["hours"] == pytest.approx(
        [sum(500 / (100 + 5 * k) for k in range(1, n + 1)) / 3600 for n in range(1, 9)], rel=1e-4
    )


def test_long_trainings_are_thinned_without_losing_a_peak(tmp_path: Path) -> None:
    run = made(tmp_path / "run")
    write(
        run / "metrics.jsonl", [progress(step, gradient_norm_max=99 if step == 2502 else 1) for step in range(1, 5001)]
    )
    train = told(run)["runs"][0]["train"]
    assert len(train["step"]) == len(train["nll"]) == 1000
    assert train["step"][-1] == 5000
    assert max(train["gradient_norm_max"]) == 99


@pytest.mark.parametrize(
    ("steps", "ago", "end", "kind", "words"),
    [
        (100, 9999, "done: 100 updates", "done", "done"),
        (60, 5, None, "going", "training, last heard of"),
        (60, 5000, None, "silent", "stopped or killed"),
        (60, 5000, "stopped by SIGTERM with 60 updates done and saved", "stopped", "SIGTERM"),
        (60, 5000, "done: 60 updates in 0:01 of training (no better bleu)", "done", "no better"),
        (60, 5000, "training broke off at update 60", "failed", "broke off"),
    ],
)
def test_how_a_training_is_can_be_told_from_its_folder(
    steps: int, ago: float, end: str | None, kind: str, words: str, tmp_path: Path
) -> None:
    run = made(tmp_path / "run", steps=steps)
    lines = history.read(run / "metrics.jsonl")
    now = time.time()  # the suite may be at it for longer than a training may be silent
    shift = now - ago - lines[-1]["time"]
    write(run / "metrics.jsonl", [line | {"time": line["time"] + shift} for line in lines])
    if end:
        with (run / "sessions.jsonl").open("a") as file:
            file.write(json.dumps({"kind": "end", "step": steps, "time": now - ago, "why": end}) + "\n")
    found = told(run)["runs"][0]
    assert found["kind"] == kind
    assert words in found["state"]
    assert (found["facts"]["left"] is not None) == (kind == "going")
    if kind == "going":
        assert found["facts"]["left"] == pytest.approx(40)  # an update a second


def test_every_key_of_the_recipe_is_listed_with_its_default(tmp_path: Path) -> None:
    settings = {one["key"]: one for one in told(made(tmp_path / "run"))["settings"]}
    assert settings["model.d_model"]["values"] == [64]
    assert settings["model.d_model"]["default"] == 512
    assert (
        settings["train.optimizer.betas"]["values"] == [settings["train.optimizer.betas"]["default"]] == [[0.9, 0.98]]
    )
    assert "default" not in settings["data.train"]
    same = [key for key, one in settings.items() if "default" in one and one["values"] == [one["default"]]]
    assert {"train.schedule.warmup", "decode.beam", "data.clean.tags"} <= {*same}
    assert not {"model.layers", "train.steps", "tokenizer.vocab_size"} & {*same}
    assert all(one["about"] for key, one in settings.items() if key not in ("model",))


def test_a_run_just_begun_says_what_is_not_there_yet(tmp_path: Path) -> None:
    (tmp_path / "run" / "data").mkdir(parents=True)
    (tmp_path / "run" / "data" / "manifest.json").touch()
    found = told(tmp_path / "run")
    assert found["runs"][0]["kind"] == "new"
    assert (found["tests"], found["settings"], found["runs"][0]["samples"]) == ([], [], [])


@pytest.mark.parametrize("file", ["metrics.jsonl", "samples.jsonl", "sessions.jsonl", "translations/held.de"])
def test_whatever_is_missing_the_rest_is_shown(file: str, tmp_path: Path) -> None:
    run = made(tmp_path / "run")
    (run / file).unlink()
    assert told(run)["runs"][0]["name"] == "run"


def test_what_is_no_run_and_what_is_named_twice_is_told(tmp_path: Path) -> None:
    with pytest.raises(NmtError, match="no run folder"):
        Run.at(tmp_path)
    (tmp_path / "recipe.yaml").write_text(RECIPE.format(run=tmp_path / "none", text="x"))
    with pytest.raises(NmtError, match=r"no run of this recipe is in .*none yet: nmt prepare"):
        Run.at(tmp_path / "recipe.yaml")
    run = made(tmp_path / "run")
    with pytest.raises(NmtError, match="named twice"):
        told(run, tmp_path / "." / "run")


# Test sets


def test_bleu_by_length_is_sacrebleus_of_the_sentences_of_each_length(tmp_path: Path) -> None:
    run = made(tmp_path / "run")
    [test] = told(run)["tests"]
    hypotheses, references = (
        (tmp_path / name).read_text().split("\n")[:-1] for name in ("run/translations/held.de", "text.de")
    )
    counted = [len(reference.split()) for reference in references]
    counted[0] = BLEU().corpus_score([NASTY], [[NASTY]]).ref_len
    lengths = test["lengths"]
    assert sum(part[0] for part in lengths["parts"][0]) == 120
    for (first, last), (count, bleu, ratio) in zip(lengths["groups"], lengths["parts"][0], strict=True):
        places = [place for place, length in enumerate(counted) if first <= length <= last]
        said, meant = ([lines[place] for place in places] for lines in (hypotheses, references))
        found = BLEU().corpus_score(said, [meant])
        assert (count, bleu, ratio) == (
            len(places),
            pytest.approx(found.score, rel=1e-4),
            pytest.approx(found.sys_len / found.ref_len, rel=1e-4),
        )


@pytest.mark.parametrize("lengths", [[7], [5] * 100, [*range(1, 13)], [3] * 50 + [80], [*range(1, 200)]])
def test_groups_hold_every_length_once_and_not_too_few(lengths: list[int]) -> None:
    found = groups(lengths)
    assert [sum(group.first <= length <= group.last for group in found) for length in lengths] == [1] * len(lengths)
    assert len(found) == 1 or all(sum(g.first <= length <= g.last for length in lengths) >= 10 for g in found)
    assert by_length(["a"] * len(lengths), ["a"] * len(lengths), lengths, found)[0].ratio == 1


def test_the_worst_and_the_best_are_so_by_sentence_chrf(tmp_path: Path) -> None:
    run = made(tmp_path / "run")
    [test] = told(run)["tests"]
    hypotheses, references = (
        (tmp_path / name).read_text().split("\n")[:-1] for name in ("run/translations/held.de", "text.de")
    )
    scores = [CHRF().sentence_score(h, [r]).score for h, r in zip(hypotheses, references, strict=True)]
    shown = {kind: [scores[place] for place in places] for kind, places in test["chosen"].items()}
    assert shown["worst"] == sorted(scores)[: len(shown["worst"])]
    assert shown["best"] == sorted(scores)[::-1][: len(shown["best"])]
    assert sentences(hypotheses[:3], references[:3])[2].chrf == scores[2]
    place = test["chosen"]["worst"][0]
    assert test["texts"][str(place)]["outputs"] == [hypotheses[place]]
    assert test["texts"][str(place)]["reference"] == references[place]


def test_two_runs_are_compared_on_the_same_test_set(tmp_path: Path) -> None:
    runs = made(tmp_path / "one"), made(tmp_path / "two", seed=5, changes=("model.layers=3",))
    found = told(*runs)
    [test] = found["tests"]
    assert test["runs"] == [0, 1]
    assert test["scores"][0][0]["score"] > test["scores"][1][0]["score"]
    gains = [
        [
            test["texts"][str(place)]["scores"][1][1] - test["texts"][str(place)]["scores"][0][1]
            for place in test["chosen"][kind]
        ]
        for kind in ("better in the second", "better in the first")
    ]
    assert gains[0] == sorted(gains[0])[::-1]
    assert gains[1] == sorted(gains[1])
    assert gains[1][0] < 0
    differ = [one["key"] for one in found["settings"] if one["values"][0] != one["values"][1]]
    assert differ == ["run", "model.layers"]


def test_another_text_under_the_same_name_is_another_test_set(tmp_path: Path) -> None:
    runs = made(tmp_path / "a" / "one"), made(tmp_path / "b" / "one")
    text = tmp_path / "b" / "text.en"
    text.write_text(text.read_text().replace("Hund", "Wolf"))
    found = told(*runs)
    assert [one["runs"] for one in found["tests"]] == [[0], [1]]
    assert [run["name"] for run in found["runs"]] == ["a/one", "b/one"]


def test_a_test_set_that_is_gone_or_has_changed_is_told_in_its_place(tmp_path: Path) -> None:
    run = made(tmp_path / "run")
    text = tmp_path / "text.en"
    for language in ("en", "de"):
        text = tmp_path / f"text.{language}"
        text.write_text(text.read_text() + "one more\n")
    [test] = told(run)["tests"]
    assert "120 lines, and the test set now has 121: run nmt score again" in test["notes"][0]
    text.unlink()
    [test] = told(run)["tests"]
    assert "no such file" in test["notes"][0]
    assert "scores" not in test
    keep(run / "scores.json", {"held": Kept(score(["a b c d"], {"run": ["a b c d"]}), None, False, "")})
    [test] = told(run)["tests"]
    assert test["scores"][0][0]["score"] == 100


def test_nmt_score_leaves_what_the_report_shows_until_translations_change(trained: Shell, tmp_path: Path) -> None:
    shutil.copytree(trained.folder, tmp_path / "copy")
    shell = Shell(trained._server, tmp_path / "copy")
    printed = json.loads(shell("score", "recipe.yaml", "--json", "--lowercase").out)["held"]["rows"]
    place = shell("report", "recipe.yaml").lines
    assert place == ["run/report.html"]
    text = (shell.folder / "run/report.html").read_text()
    [test] = json.loads(text.split('id="data">')[1].split("</script>")[0])["tests"]
    assert test["notes"] == []
    for row, shown in zip(printed, test["scores"][0], strict=True):
        assert shown["signature"] == row["signature"]
        assert shown["score"] == pytest.approx(row["score"], rel=1e-4)
        assert shown["ci"] == pytest.approx(row["ci"], rel=1e-4)
    assert "case:lc" in test["scores"][0][0]["signature"]
    translations = shell.folder / "run/translations/held.de"
    translations.write_text("Hallo\n" * 20)
    shell("report", "run", "--output", "other.html")
    [test] = json.loads((shell.folder / "other.html").read_text().split('id="data">')[1].split("</script>")[0])["tests"]
    assert "scores.json is about other translations" in test["notes"][0]
    assert "case:lc" in test["scores"][0][0]["signature"]
    (shell.folder / "run/scores.json").write_text('{"held": 3}')
    shell("report", "run")
    assert shell.fails("report", "nowhere.yaml").startswith("nowhere.yaml: cannot be read")


def test_the_command_works_while_training_goes_on(trained: Shell, tmp_path: Path) -> None:
    shutil.copytree(trained.folder, tmp_path / "copy", ignore=shutil.ignore_patterns("checkpoints", "model", "*.jsonl"))
    shell = Shell(trained._server, tmp_path / "copy")
    running = shell.start("train", "recipe.yaml", "--device", "cpu", "--set", "train.steps=4000")
    running.wait_for("update      10")
    shell("report", "run")
    running.kill(signal.SIGTERM)
    text = (shell.folder / "run/report.html").read_text()
    [run] = json.loads(text.split('id="data">')[1].split("</script>")[0])["runs"]
    assert (run["kind"], run["steps"]) == ("going", 4000)
    assert run["step"] >= 10


# In a browser


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    return [made(tmp_path / "one"), made(tmp_path / "two", seed=5, steps=60, changes=("model.layers=3",))]


@pytest.fixture
def show(browser: Any, tmp_path: Path) -> Iterator[Any]:
    """Opens a page in a browser that has no network; what it asked for and complained of must be nothing."""
    context = browser.new_context(offline=True, viewport={"width": 1300, "height": 900})
    context.set_default_timeout(5000)
    tab, path = context.new_page(), tmp_path / "report.html"
    requests: list[str] = []
    complaints: list[str] = []
    tab.on("request", lambda request: requests.append(request.url))
    tab.on("console", lambda message: complaints.append(message.text))
    tab.on("pageerror", lambda error: complaints.append(str(error)))

    def opened(*folders: Path) -> Any:
        path.write_text(page([Run.at(folder) for folder in folders], "0.0"), encoding="utf-8")
        tab.goto(path.as_uri())
        return tab

    yield opened
    context.close()
    assert {*requests} == {path.as_uri()}
    assert complaints == []


def chart(tab: Any, title: str) -> Any:
    return tab.locator(".chart").filter(has=tab.get_by_role("heading", name=title))


def point_at(tab: Any, title: str, share: float) -> None:
    """The pointer moves to a place on a plot, as a share of its x axis."""
    plot = chart(tab, title).locator(".plot")
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    tab.mouse.move(box["x"] + 46 + share * (box["width"] - 56), box["y"] + 90)


def test_whatever_is_pointed_at_every_plot_tells_its_figures_there(show: Any, runs: list[Path]) -> None:
    tab = show(runs[0])
    titles = tab.locator(".chart h3").all_inner_texts()
    assert len(titles) == 9
    assert all(tab.locator(".chart").nth(n).locator("path.curve").count() for n in range(9))
    point_at(tab, "Learning rate", 0.4)
    assert chart(tab, "Learning rate").locator(".at").inner_text() == "update 40"
    assert chart(tab, "Learning rate").locator("b").all_inner_texts() == ["0.0400"]
    assert chart(tab, "−log p per target token").locator("b").all_inner_texts() == ["0.20", "4.20", "0.23"]
    assert chart(tab, "BLEU on the valid corpus").locator("b").all_inner_texts() == ["10.00"]
    assert chart(tab, "Attention entropy, cross").locator("b").all_inner_texts() == ["2.50", "1.25"]
    tab.mouse.move(5, 5)
    assert chart(tab, "Learning rate").locator(".at").inner_text() == ""
    assert chart(tab, "Learning rate").locator("b").all_inner_texts() == ["0.100"]


def test_curves_are_drawn_where_their_figures_are(show: Any, runs: list[Path]) -> None:
    tab = show(runs[0])
    plot = chart(tab, "Learning rate")
    numbers = [
        float(text)
        for text in plot.locator("path.curve").get_attribute("d").replace("M", " ").replace("L", " ").split()
    ]
    xs, ys = numbers[0::2], numbers[1::2]
    assert len(xs) == 20
    slopes = [(b - a) / (d - c) for a, b, c, d in zip(ys, ys[1:], xs, xs[1:], strict=False)]
    assert slopes == pytest.approx([slopes[0]] * 19, abs=0.02)  # a rate that rises in a line is a line
    assert slopes[0] < 0  # upwards


def test_plots_go_along_tokens_and_hours_and_closer_too(show: Any, runs: list[Path]) -> None:
    tab = show(*runs)
    tab.get_by_role("radio", name="target tokens", exact=True).check()
    point_at(tab, "Learning rate", 1.0)
    assert chart(tab, "Learning rate").locator(".at").inner_text() == "10 k tokens"
    tab.get_by_role("radio", name="updates", exact=True).check()
    tab.get_by_role("radio", name="last half", exact=True).check()
    point_at(tab, "Learning rate", 0.0)
    assert chart(tab, "Learning rate").locator(".at").inner_text() == "update 50"
    tab.get_by_role("radio", name="all", exact=True).check()
    point_at(tab, "Learning rate", 0.5)
    box = chart(tab, "Learning rate").locator(".plot").bounding_box()
    left, wide = box["x"] + 46, box["width"] - 56
    tab.mouse.move(left + 0.2 * wide, box["y"] + 50)
    tab.mouse.down()
    tab.mouse.move(left + 0.4 * wide, box["y"] + 60, steps=3)
    tab.mouse.up()
    point_at(tab, "Learning rate", 0.5)
    assert chart(tab, "Learning rate").locator(".at").inner_text() == "update 30"
    assert chart(tab, "Learning rate").locator("b").all_inner_texts() == ["0.0300", "0.0300"]
    chart(tab, "Learning rate").locator(".plot").dblclick()
    point_at(tab, "Learning rate", 0.8)
    assert chart(tab, "Learning rate").locator(".at").inner_text() == "update 80"


def test_a_plot_is_read_by_keyboard(show: Any, runs: list[Path]) -> None:
    tab = show(runs[0])
    chart(tab, "Learning rate").locator(".plot").focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowRight", "ArrowLeft"):
        tab.keyboard.press(key)
    assert chart(tab, "Learning rate").locator(".at").inner_text() == "update 10"
    tab.keyboard.press("Escape")
    assert chart(tab, "Learning rate").locator(".at").inner_text() == ""


def test_runs_side_by_side_share_their_plots_under_a_legend(show: Any, runs: list[Path]) -> None:
    tab = show(*runs)
    assert tab.title() == "Training: one and two"
    legend = chart(tab, "Training: −log p per target token").locator(".legend li")
    assert [text.split()[0] for text in legend.all_inner_texts()] == ["one", "two"]
    assert chart(tab, "Training: −log p per target token").locator("path.curve").count() == 2
    rows = tab.locator("#head table tbody tr")
    assert rows.filter(has_text="BLEU on held").locator("td.top").count() == 1
    assert tab.locator(".lengths rect").count() == 2 * len(told(*runs)["tests"][0]["lengths"]["groups"])
    tab.get_by_role("radio", name="better in the first", exact=True).check()
    first = tab.locator("#translations .sentence").first
    assert first.locator(".outputs > div").count() == 2
    assert tab.locator("#settings tbody td:first-child").all_inner_texts() == ["run", "layers"]
    tab.get_by_label("only what differs between the runs").uncheck()
    assert tab.locator("#settings tbody tr.own").count() == 2
    assert tab.locator("#settings tbody tr:not(.group)").count() == len(told(*runs)["settings"])


def test_the_slider_shows_how_sentences_were_translated_by_and_by(show: Any, runs: list[Path]) -> None:
    tab = show(runs[0])
    outputs = tab.locator("#learning .outputs p")
    assert outputs.all_inner_texts() == ["said 100 0", "said 100 1"]
    tab.locator("#learning input").focus()
    tab.keyboard.press("Home")
    assert outputs.all_inner_texts() == ["said 20 0", "said 20 1"]
    assert tab.locator("#learning output").inner_text() == "after update 20"


def test_what_an_output_does_not_share_with_its_reference_is_marked(show: Any, runs: list[Path]) -> None:
    tab = show(runs[0])
    assert {*tab.locator("#translations .outputs mark").all_inner_texts()} == {"Unsinn"}
    tab.get_by_role("radio", name="best", exact=True).check()
    assert tab.locator("#translations .outputs mark").count() == 0


def test_what_happened_on_the_way_is_shown(show: Any, runs: list[Path]) -> None:
    with (runs[0] / "sessions.jsonl").open("a") as file:
        for line in ({"kind": "begin", "step": 30}, {"kind": "rewind", "step": 50, "to": 40, "why": "3 in a row"}):
            file.write(json.dumps({"time": NOW} | line) + "\n")
    write(runs[0] / "skipped.jsonl", [{"step": 50, "time": NOW, "not_finite": ["loss"]}])
    tab = show(runs[0])
    titles = tab.locator(".plot g title").evaluate_all("all => all.map(one => one.textContent)")
    assert titles == [
        "update 30: gone on from a checkpoint",
        "update 50: 3 in a row: back to update 40",
        "update 50: skipped: loss not finite",
    ]


def test_text_stays_text_on_light_and_dark_wide_and_narrow_pages(show: Any, runs: list[Path], tmp_path: Path) -> None:
    (tmp_path / "new" / "checkpoints").mkdir(parents=True)
    for folders in ((runs[0],), runs, (tmp_path / "new",)):
        tab = show(*folders)
        for width, scheme in ((390, "dark"), (390, "light"), (1400, "dark")):
            tab.set_viewport_size({"width": width, "height": 800})
            tab.emulate_media(color_scheme=scheme)
            assert tab.evaluate("document.documentElement.scrollWidth") == width
    assert tab.locator(".empty").count() == 5
    (tmp_path / "text.en").rename(tmp_path / "gone.en")
    assert "no such file" in show(*runs).locator("#scores").inner_text()
    (tmp_path / "gone.en").rename(tmp_path / "text.en")
    tab = show(runs[0])
    tab.get_by_role("radio", name="best", exact=True).check()
    shown = tab.locator("#translations .sentence > div:first-child p").all_text_contents()
    assert NASTY in shown
