"""Laws of prepared text: all of it is there, made once, whole or not at all, and what was dropped is told."""

import errno
import gzip
import json
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from itertools import chain, product
from pathlib import Path

import numpy as np
import pytest

from nmt.data import Manifest, Shards, encoding, fingerprint, prepare
from nmt.data.encoding import Block
from nmt.data.shards import ShardWriter, SplitRecord, Stream, StreamPair
from nmt.errors import DataError, NmtError, OutputError
from nmt.recipe import Recipe, loads
from nmt.text import Tokenizers, one_line, read_pairs

WHO = ["the dog", "a cat", "the old man", "a small child", "my neighbour", "the queen\u2028of hearts"]
WER = ["der Hund", "eine Katze", "der alte Mann", "ein kleines Kind", "mein Nachbar", "die Herzkönigin\t"]
DOES = ["sleeps", "runs", "sings a song", "reads", "sees the house", "likes tea", "has no time", "laughs"]
TUT = ["schläft", "läuft", "singt ein Lied", "liest", "sieht das Haus", "mag Tee", "hat keine Zeit", "lacht"]
EN = [f"{who} {does}." for who, does in product(WHO, DOES)]
DE = [f"{wer} {tut}." for wer, tut in product(WER, TUT)]

RECIPE = """
run: run
data: {source: en, target: de, train: train, valid: valid}
tokenizer: {vocab_size: 320}
"""


def write(prefix: str, english: list[str], german: list[str]) -> None:
    Path(f"{prefix}.en").write_text("".join(f"{line}\n" for line in english), newline="")
    Path(f"{prefix}.de").write_text("".join(f"{line}\n" for line in german), newline="")


@pytest.fixture(autouse=True)
def _corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write("train", EN, DE)
    write("valid", EN[:5], DE[:5])


class Told(list[str]):
    """Keeps what is reported."""

    def __call__(self, line: str) -> None:
        self.append(line)


def recipe(*overrides: str) -> Recipe:
    return loads(RECIPE, overrides=overrides)


def run(*overrides: str, workers: int = 1) -> str:
    """Prepares; gives what was told."""
    told = Told()
    prepare(recipe(*overrides), workers=workers, report=told)
    return "\n".join(told)


def contents(folder: str = "run/data") -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def decoded(split: str) -> list[tuple[str, str]]:
    tokenizers, shards = Tokenizers.load("run/data"), Shards.open("run/data", split)
    pairs = [shards.pair(index) for index in range(len(shards))]
    sources = tokenizers.source.decode([source.tolist() for source, _ in pairs])
    targets = tokenizers.target.decode([target.tolist() for _, target in pairs])
    return list(zip(sources, targets, strict=True))


def left_behind() -> set[str]:
    return {str(path) for path in Path("run").iterdir()} - {"run/data"} if Path("run").exists() else set()


def half_written() -> list[Path]:
    return [*Path("run").rglob("*.tmp")]


# What is prepared


@pytest.mark.parametrize("shared", ["true", "false"])
def test_every_pair_is_there_in_order(shared: str) -> None:
    run(f"tokenizer.shared={shared}", "model.embeddings=separate", "tokenizer.vocab_size=300")
    assert Tokenizers.load("run/data").shared == (shared == "true")
    assert decoded("train") == [(one_line(a), one_line(b)) for a, b in zip(EN, DE, strict=True)]
    assert decoded("valid") == decoded("train")[:5]


def test_corpora_of_every_kind_follow_one_another() -> None:
    Path("more.tsv").write_text("".join(f"{a}\t{b}\n" for a, b in zip(EN[:3], ["x"] * 3, strict=True)))
    Path("zipped.en.gz").write_bytes(gzip.compress(b"one\ntwo\n"))
    Path("zipped.de").write_text("eins\nzwei\n")
    run("data.train=[zipped, {tsv: more.tsv}, train]")
    assert decoded("train")[:3] == [("one", "eins"), ("two", "zwei"), (EN[0], "x")]
    assert len(decoded("train")) == 2 + 3 + len(EN)
    names = [corpus.name for corpus in Manifest.load("run/data").splits["train"].corpora]
    assert names == ["zipped", "more.tsv", "train"]


def test_lengths_are_those_of_the_pairs_and_add_up_to_the_manifests_count() -> None:
    run()
    shards, split = Shards.open("run/data", "train"), Manifest.load("run/data").splits["train"]
    for index in range(len(shards)):
        assert [len(side) for side in shards.pair(index)] == [side[index] for side in shards.lengths]
    assert (len(shards), *(side.sum() for side in shards.lengths)) == (
        split.pairs,
        split.source_tokens,
        split.target_tokens,
    )


def packed(sentences: list[list[int]]) -> Stream:
    return Stream(np.array(list(chain(*sentences)), np.uint16), np.array([len(ids) for ids in sentences], np.int32))


def test_shards_are_read_as_if_they_were_one(tmp_path: Path) -> None:
    sentences = [[10 + n] * (n % 4 + 1) for n in range(20)]
    records = []
    for start in range(0, 20, 4):
        with ShardWriter(tmp_path, f"train-{start:05d}") as writer:
            for some in (sentences[start : start + 3], [], sentences[start + 3 : start + 4]):
                writer.add(StreamPair(packed(some), packed(some)))
            records.append(writer.close())
    shards = Shards(tmp_path, SplitRecord(corpora=(), shards=tuple(records)))
    assert [shards.pair(n)[1].tolist() for n in range(len(shards))] == sentences
    assert shards.lengths[0].tolist() == [len(ids) for ids in sentences]


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="what is held is read from /proc")
def test_what_shards_let_go_is_no_memory_of_ours_and_is_read_again() -> None:
    def held() -> int:
        """Kilobytes of the shards that this process holds."""
        lines = iter(Path("/proc/self/smaps").read_text().splitlines())
        return sum(int(next(line for line in lines if line.startswith("Rss:")).split()[1])
                   for line in lines if "train-00000.source.tokens" in line)  # fmt: skip

    run()
    shards = Shards.open("run/data", "train")
    before = [shards.pair(n)[0].tolist() for n in range(len(shards))]
    ids = shards.pair(0)[0]
    assert held() > 0
    shards.let_go()
    assert held() == 0
    assert ids.tolist() == before[0]
    assert [shards.pair(n)[0].tolist() for n in range(len(shards))] == before


@pytest.mark.parametrize("kind", [np.uint16, np.uint32])
def test_a_shard_that_grows_on_disk_is_the_array_that_numpy_would_save(tmp_path: Path, kind: type) -> None:
    tokens, lengths = np.arange(1000, dtype=kind), np.array([400, 600], np.int32)
    with ShardWriter(tmp_path, "x") as writer:
        for start, length in zip((0, 400), lengths, strict=True):
            part = Stream(tokens[start : start + length], np.array([length], np.int32))
            writer.add(StreamPair(part, part))
        writer.close()
    np.save(tmp_path / "saved.npy", tokens)
    assert (tmp_path / "x.source.tokens.npy").read_bytes() == (tmp_path / "saved.npy").read_bytes()


def test_the_number_of_workers_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nmt.data.encoding.BLOCK_PAIRS", 7)
    run(workers=1)
    alone = contents()
    prepare(recipe(), workers=2, force=True, report=Told())
    assert contents() == alone


def test_long_lines_make_small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nmt.data.encoding.BLOCK_CHARACTERS", 100)
    blocks = list(encoding.blocks(3, [("a" * 60, "b")] * 5, True))
    assert [len(block.pairs) for block in blocks] == [2, 2, 1]


# What is dropped


def test_what_is_dropped_is_told_with_reasons() -> None:
    write("train", ["", *EN, "dog " * 90, "a"], ["leer", *DE, "Hund " * 90, "der alte Mann " * 5])
    told = run("data.max_length=80", "data.max_ratio=9.0")
    assert (
        "train: 51 pairs read from train, 3 dropped (5.88%): "
        "1 empty, 1 length ratio (over 9), 1 too long (over 80 tokens)" in told
    )
    assert Manifest.load("run/data").splits["train"].corpora[0].dropped == {
        "empty": 1,
        "length ratio": 1,
        "too long": 1,
    }
    assert len(decoded("train")) == len(EN)


def test_of_the_valid_pairs_only_blank_ones_are_dropped() -> None:
    write("valid", [" ", "dog " * 90, "a"], ["leer", "Hund " * 90, "der alte Mann " * 5])
    assert "valid: 3 pairs read from valid, 1 dropped (33.33%): 1 empty" in run("data.max_length=80")
    assert len(decoded("valid")) == 2


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ("train", "every line is blank"),
        ("valid", r"data\.valid: no pair is left of the 2 read from valid"),
    ],
)
def test_a_corpus_of_blank_lines_is_told(split: str, message: str) -> None:
    write(split, ["", "\0"], [" ", ""])
    with pytest.raises(DataError, match=message):
        run()
    assert not left_behind()


def test_an_empty_corpus_is_told() -> None:
    write("nothing", [], [])
    with pytest.raises(DataError, match=r"nothing\.en: the corpus is empty"):
        run("data.train=[train, nothing]")


def test_a_corpus_of_which_nothing_is_left_is_told() -> None:
    with pytest.raises(DataError, match=r"data\.train: no pair is left of the 48 read"):
        run("data.max_length=1")


# Preparing again


def test_preparing_twice_does_nothing() -> None:
    assert "preparing for the first time" in run()
    before = [(path, path.stat().st_mtime_ns, path.stat().st_ino) for path in Path("run/data").iterdir()]
    assert run() == "run/data: prepared already, and nothing has changed since"
    assert before == [(path, path.stat().st_mtime_ns, path.stat().st_ino) for path in Path("run/data").iterdir()]


def test_touching_an_input_does_nothing_but_changing_it_prepares_again() -> None:
    run()
    first = fingerprint("run/data")
    os.utime("train.en", ns=(0, 0))
    assert "nothing has changed" in run()
    Path("train.en").write_text(Path("train.en").read_text().replace("dog", "god"))
    assert "preparing again: train.en has changed" in run()
    assert fingerprint("run/data") != first


@pytest.mark.parametrize("override", ["seed=2", "data.max_length=99", "tokenizer.vocab_size=330"])
def test_changing_the_recipe_prepares_again_and_says_for_what(override: str) -> None:
    run()
    assert f"preparing again: the recipe has changed in {override.split('=')[0]}" in run(override)


@pytest.mark.parametrize("override", ["data.test.new=valid", "train.steps=7", "model.layers=2"])
def test_choices_that_do_not_concern_the_text_change_nothing(override: str) -> None:
    run()
    assert "nothing has changed" in run(override)


def test_equal_text_has_one_fingerprint_whenever_and_wherever_prepared() -> None:
    run()
    for path in ("train.en", "train.de", "valid.en", "valid.de"):
        os.utime(path, ns=(0, 0))
    run("run=elsewhere")
    assert fingerprint("run/data") == fingerprint("elsewhere/data")
    run("run=other", "tokenizer.vocab_size=330")
    assert fingerprint("other/data") != fingerprint("run/data")


# Whole or not at all


def damage(how: str) -> None:
    path = Path("run/data/train-00000.target.tokens.npy")
    manifest = Path("run/data/manifest.json")
    if how == "a file is missing":
        path.unlink()
    elif how == "a file is cut short":
        path.write_bytes(path.read_bytes()[:-2])
    elif how == "the manifest is cut short":
        manifest.write_bytes(manifest.read_bytes()[:-9])
    elif how == "the manifest is of another version":
        manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "format": 0}))


@pytest.mark.parametrize(
    "how",
    [
        "a file is missing",
        "a file is cut short",
        "the manifest is cut short",
        "the manifest is of another version",
    ],
)
def test_damage_is_told_and_preparing_again_mends_it(how: str) -> None:
    run()
    whole = contents()
    damage(how)
    with pytest.raises(DataError, match=r"run/data/.*: run `nmt prepare` again"):
        Shards.open("run/data", "train")
    assert "preparing again: run/data/" in run()
    assert contents() == whole


def test_a_file_of_the_right_size_that_is_no_shard_is_told() -> None:
    run()
    path = Path("run/data/valid-00000.source.tokens.npy")
    path.write_bytes(bytes(path.stat().st_size))
    with pytest.raises(DataError, match=r"valid-00000\.source\.tokens\.npy: missing or damaged"):
        Shards.open("run/data", "valid")


def test_what_was_never_prepared_is_told() -> None:
    with pytest.raises(DataError, match="nothing is prepared here: run `nmt prepare` first"):
        Shards.open("run/data", "train")


def interrupt(line: str) -> None:
    if line.startswith("train: 48 pairs read"):
        raise KeyboardInterrupt


def test_an_interrupted_preparation_leaves_what_was_there() -> None:
    with pytest.raises(KeyboardInterrupt):
        prepare(recipe(), workers=1, report=interrupt)
    assert not Path("run/data").exists()
    run()
    before = contents()
    with pytest.raises(KeyboardInterrupt):
        prepare(recipe("seed=2"), workers=1, report=interrupt)
    assert contents() == before
    assert left_behind() == {"run/data.partial"}
    assert not half_written()
    run()
    assert not left_behind()


def test_a_full_disk_is_told_and_nothing_takes_the_place_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    def save(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("numpy.save", save)
    with pytest.raises(OutputError, match=r"run/data: cannot be written: the disk is full"):
        run()
    assert left_behind() == {"run/data.partial"}


def test_a_run_that_cannot_be_a_folder_is_told() -> None:
    Path("run").write_text("in the way")
    with pytest.raises(OutputError, match="run: cannot be written"):
        run()


def test_unequal_sides_are_told_and_leave_nothing() -> None:
    write("train", EN, DE[:-1])
    with pytest.raises(DataError, match=r"train\.en has 48 lines but train\.de has 47"):
        run()
    assert not left_behind()


def test_a_pipe_is_told_for_it_could_be_read_only_once() -> None:
    Path("train.de").unlink()
    os.mkfifo("train.de")
    with pytest.raises(DataError, match=r"train\.de: must be a regular file"):
        run()


def test_an_input_that_changes_while_it_is_read_is_told() -> None:
    def meddle(line: str) -> None:
        if line.startswith("learning"):
            Path("valid.en").write_text("another text\n" * 5)

    with pytest.raises(DataError, match=r"valid\.en: changed while it was being read"):
        prepare(recipe(), workers=1, report=meddle)


def test_a_worker_that_dies_is_told_and_nobody_waits_for_it() -> None:
    run()

    def blocks() -> Iterator[Block]:
        yield Block(0, [("a", "b")], True)
        for worker in multiprocessing.active_children():
            os.kill(worker.pid or 0, signal.SIGKILL)
        yield Block(0, [("a", "b")], True)

    with (
        pytest.raises(NmtError, match=r"a worker process died \(exit code -9\)"),
        encoding.encoding(Path("run/data"), recipe().data, 2) as encode,
    ):
        list(encode(blocks()))


KILLED = f"""
import os, signal
from nmt.data import prepare
from nmt.recipe import loads

def die(line):
    if line.startswith("train: 48 pairs read"):
        os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    prepare(loads({RECIPE!r}), workers=2, report=die)
"""


def test_a_killed_preparation_leaves_nothing_that_is_taken_for_whole_and_no_workers(tmp_path: Path) -> None:
    Path("killed.py").write_text(KILLED)
    house = str(Path(prepare.__globals__["__file__"]).parents[2])
    # The workers hold the other end of these pipes: reading them to the end waits until the last has gone.
    killed = subprocess.run(
        [sys.executable, "killed.py"],
        env={**os.environ, "PYTHONPATH": house},
        capture_output=True,
        timeout=60,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not Path("run/data").exists()
    assert "preparing for the first time" in run()
    assert len(decoded("train")) == len(list(read_pairs("train", "en", "de")))
