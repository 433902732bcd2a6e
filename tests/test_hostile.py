"""Laws of hostile input: whatever comes in works as documented, or ends with one clear line and exit code 2.

No traceback, nothing half-written, bounded memory; and the originals are as they were.
"""

import gzip
import hashlib
import json
import lzma
import os
import re
import shutil
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import Done, Server, Shell, half_written
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from nmt.data import prepare
from nmt.errors import DataError
from nmt.recipe import loads

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MEMORY = 400 << 20  # that a command may take beyond what it begins with
GOOD = [("A dog runs.", "Ein Hund läuft."), ("The cat sleeps.", "Die Katze schläft."), ("We read.", "Wir lesen.")] * 9
TSV = "".join(f"{source}\t{target}\n" for source, target in GOOD).encode()
RECIPE = """
run: run
data: {source: en, target: de, train: {tsv: bad}, valid: {tsv: good}, clean: {duplicates: false}}
tokenizer: {vocab_size: 300}
"""
TRANSLATE = ("translate", "run/model", "--device", "cpu", "--beam", 1)


def seen(folder: Path) -> dict[str, str]:
    """What lies in a folder beside what `nmt` makes: its hash where it is a file, otherwise of what kind it is."""
    paths = (path for path in folder.rglob("*") if "run" not in path.relative_to(folder).parts)
    return {
        ascii(path): hashlib.sha256(path.read_bytes()).hexdigest()
        if path.is_file() and os.access(path, os.R_OK)
        else f"{path.lstat().st_mode}"
        for path in paths
    }


def outcome(shell: Shell, *arguments: object, stdin: bytes | Path = b"", **how: Any) -> Done:
    """Runs a command, which must end well or with one line, and must leave what was there."""
    before = seen(shell.folder)
    done = shell.start(*arguments, stdin=stdin, memory=MEMORY, **how).wait()
    assert done.code in (0, 2), done.err
    errors = [line for line in done.err.splitlines() if "rror" in line or "Traceback" in line]
    assert len(errors) == (done.code == 2), done.err
    if errors:
        assert errors[0].startswith("nmt: error: ")
        assert errors[0] == done.err.splitlines()[-1]
        assert len(errors[0]) < 1000
        assert errors[0].isprintable()
    assert half_written(shell.folder) == []
    assert seen(shell.folder) == before
    return done


def matches(done: Done, told: str | None) -> None:
    """The command went well, or told what this regular expression says."""
    assert done.code == (2 if told else 0), done.err
    if told:
        message = done.err.splitlines()[-1].removeprefix("nmt: error: ")
        assert re.fullmatch(told, message), message


@pytest.fixture
def empty(server: Server, tmp_path: Path) -> Shell:
    """A folder with a recipe, a good corpus, and none yet to train on."""
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    (tmp_path / "good").write_bytes(TSV)
    return Shell(server, tmp_path)


@pytest.fixture(scope="module")
def model(server: Server, trained: Shell, tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """A folder with a model."""
    folder = tmp_path_factory.mktemp("hostile")
    shutil.copytree(trained.folder / "run" / "model", folder / "run" / "model")
    (folder / "reference").write_text("".join(f"{target}\n" for _, target in GOOD))
    return Shell(server, folder)


def preparing(shell: Shell, kind: str = "tsv", *options: object) -> Done:
    return outcome(shell, "prepare", "recipe.yaml", "--workers", 1, "--set", f"data.train={{{kind}: bad}}", *options)


# Known traps, as lines among good ones

ACUTE = "\u0301"
NOT_UTF8 = r"bad:{}: not UTF-8 \(byte 0x.. at position \d+\): convert the file, with `iconv .*"
LINES: dict[str, tuple[bytes, str | None]] = {
    "a byte order mark in the middle": (b"\xef\xbb\xbfone\teins\n", None),
    "a NUL": (b"o\0ne\tei\0ns\n", None),
    "all control characters": (bytes(set(range(32)) - {9, 10}) + b"\x7f\tb\n", None),
    "a lone surrogate": (b"one\t\xed\xa0\x80\n", NOT_UTF8.format(28)),
    "a code beyond Unicode": (b"one\t\xf4\x90\x80\x80\n", NOT_UTF8.format(28)),
    "an overlong NUL": (b"one\t\xc0\x80\n", NOT_UTF8.format(28)),
    "Latin-1 in UTF-8": ("zwei\tfünf\n".encode("latin-1"), NOT_UTF8.format(28)),
    "Windows-1252 read as Latin-1": ("It\x92s\tEs\n".encode(), None),
    "separators of Unicode": ("a\u2028b\u2029c\u0085d\t\u2028e\n".encode(), None),
    "nothing but separators": ("\u2028\u2029\u0085\t\u3000\u00a0\n".encode(), None),
    "what is no character": ("a\ufffe\uffff\ufffdb\tc\U0010ffff\n".encode(), None),
    "writing that turns around": ("a\u202e\u2066b\u200b\u200d\ufeff\tc\u061c\n".encode(), None),
    "a hundred marks on a letter": (f"a{ACUTE * 100}\tb{ACUTE * 100}\n".encode(), None),
    "flags, families and skin": ("🇩🇪👨‍👩‍👧‍👦👍🏿\t🏴\U000e0067\U000e0062\U000e007f\n".encode(), None),
    "the space of SentencePiece": ("▁one▁▁\teins▁\n".encode(), None),
    "names of special tokens": (b"<s> </s> <unk> <pad> <0x0A> <0xFF>\t<s></s><unk><pad>\n", None),
    "line ends of Windows": (TSV.replace(b"\n", b"\r\n"), None),
    "line ends of old Macs": (b"one\teins\rtwo zwei\r\n", None),
    "no last line end": (b"one\teins", None),
    "a line of a megabyte": (b"a" * 1_000_000 + b"\tb\n", None),
    "a megabyte of words": (b"dog " * 250_000 + b"\t" + b"Hund " * 200_000 + b"\n", None),
    "a line of seventeen megabytes": (b"a" * (17 << 20) + b"\tb\n", r"bad:28: a line of over 16,777,216 bytes: .*"),
    "one side empty": (b"one\t\n\teins\n\t\n", None),
    "a tab too many": (b"one\teins\tun\n", r"bad:28: must be two columns with a tab between, found 3"),
    "a line too empty": (b"\n", r"bad:28: must be two columns with a tab between, found 1"),
    "entities of entities": (b"&amp;" * 9 + b"&#0;&#1114112;&#xD800;&#99999999;\t&amp;amp;lt;b&gt;&#55296;\n", None),
    "markup without end": (b"<a href='\t" + b"<" * 9999 + b"!--" * 9999 + b"\n", None),
    "digits of all kinds": ("x ²³½ ௧௨௩ ٤٥ Ⅷ 一二\ty 𝟘𝟙 ①\n".encode(), None),
}


@pytest.mark.parametrize(("line", "told"), LINES.values(), ids=LINES)
def test_a_line_works_or_is_told_with_its_number(empty: Shell, line: bytes, told: str | None):
    (empty.folder / "bad").write_bytes(TSV + line)
    matches(preparing(empty), told)


def test_lines_that_work_alone_work_together_with_all_steps_on(empty: Shell):
    pytest.importorskip("py3langid")
    lines = [line if line.endswith(b"\n") else line + b"\n" for line, told in LINES.values() if not told]
    (empty.folder / "bad").write_bytes(TSV + b"".join(lines))
    steps = "{numbers: true, language: true, near_duplicates: true, overlap: drop}"
    matches(
        preparing(empty, "tsv", "--set", f"data.clean={steps}", "--set", "data.valid={tsv: bad}"), r"data\.train: .*"
    )
    matches(preparing(empty, "tsv", "--set", f"data.clean={steps.replace('drop', 'warn')}"), None)


# Known traps, as files

Make = Callable[[Path], object]


def content(text: bytes) -> Make:
    return lambda path: path.write_bytes(text)


def unread(path: Path) -> None:
    path.write_bytes(TSV)
    path.chmod(0)


def listening(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        os.chdir(path.parent)  # names of sockets are short
        one.bind(path.name)


PACKED = {
    "gzip": gzip.compress(TSV * 2000, 6), "xz": lzma.compress(TSV * 2000), "zst": zstd.compress(TSV * 2000)
}  # fmt: skip
REGULAR = r"bad: must be a regular file.*"
FILES: dict[str, tuple[Make, str]] = {
    "nothing": (lambda path: None, r"bad: no such file"),
    "an empty file": (content(b""), r"bad: the corpus is empty"),
    "a byte order mark alone": (content(b"\xef\xbb\xbf"), r"bad: the corpus is empty"),
    "blank lines": (content(b"\t\n \t \n" * 9), r"there is no text to learn .*: every line is blank"),
    "UTF-16": (content(TSV.decode().encode("utf-16")), r"bad: UTF-16: convert the file, with `iconv .*"),
    "UTF-16 without a mark": (content(TSV.decode().encode("utf-16-be")), r"bad: UTF-16: .*"),
    "UTF-32": (content(TSV.decode().encode("utf-32")), r"bad: UTF-16: .*|bad:1: .*"),
    "a folder": (Path.mkdir, REGULAR),
    "a pipe": (os.mkfifo, REGULAR),
    "a socket": (listening, REGULAR),
    "a device without end": (lambda path: path.symlink_to("/dev/zero"), REGULAR),
    "a terminal": (lambda path: path.symlink_to("/dev/tty"), REGULAR),
    "a link to nowhere": (lambda path: path.symlink_to("nowhere"), r"bad: no such file"),
    "a link to itself": (lambda path: path.symlink_to("bad"), r"bad: (no such file|cannot be read: .*)"),
    "a file that may not be read": (unread, r"bad: cannot be read: Permission denied"),
    "a picture": (content(b"\x89PNG\r\n\x1a\n" + bytes(range(256))), r"bad:1: not UTF-8 .*"),
    "a program": (lambda path: shutil.copy(sys.executable, path), r"bad:\d+: .*"),
    "zeros": (content(bytes(20 << 20)), r"bad:1: a line of over 16,777,216 bytes: .*"),
    "100 MB of zeros, packed": (content(gzip.compress(bytes(100 << 20), 1)), r"bad:1: a line of over 16,777,216 .*"),
    "100 MB of zeros, as zst": (content(zstd.compress(bytes(100 << 20))), r"bad:1: a line of over 16,777,216 .*"),
    "gzip in gzip": (content(gzip.compress(gzip.compress(TSV))), r"bad:1: .*"),
    "gzip by its name alone": (content(b"\x1f\x8b" + TSV), r"bad: gzip file damaged .*"),
    **{f"{name} cut short": (content(packed[: len(packed) // 2]), rf"bad: {name} file cut short: .*")
       for name, packed in PACKED.items()},
    **{f"{name} with rubbish behind": (content(packed + b"rubbish"), rf"bad: {name} file (damaged|cut short).*")
       for name, packed in PACKED.items() if name != "xz"},
}  # fmt: skip


@pytest.mark.parametrize(("make", "told"), FILES.values(), ids=FILES)
def test_a_file_that_is_no_corpus_is_told(empty: Shell, make: Make, told: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(empty.folder)
    make(empty.folder / "bad")
    if "Permission" in told and os.access(empty.folder / "bad", os.R_OK):
        pytest.skip("this user may read everything")
    matches(preparing(empty), told)


LINED = "".join(json.dumps({"en": source, "de": target}) + "\n" for source, target in GOOD).encode()
LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(2, 20))
FORMATS = {
    "deep JSON": ("jsonl", b'{"en": ' + b"[" * 200_000, r"bad:1: .*"),
    "JSON of deep objects": ("jsonl", b'{"en":' * 99_999 + b"1" + b"}" * 99_999, r"bad:1: .*"),
    "JSON with a huge number": ("jsonl", b'{"en": ' + b"9" * 99_999 + b', "de": "b"}', r"bad:1: .*"),
    "JSON that is not a number": ("jsonl", b'{"en": NaN, "de": Infinity}', r"bad:1: en: must be text, found NaN"),
    "JSON of halves of pairs": ("jsonl", b'{"en": "a \\ud800 b", "de": "\\udfff\\ud800 c"}\n' + LINED, None),
    "JSON with keys twice": ("jsonl", b'{"en": "a b", "en": "c d", "de": "b"}\n' + LINED, None),
    "JSON with keys that print nothing": ("jsonl", b'{"\\u0000\\u2028\\ud800": "a"}', r"bad:1: no key en among .*"),
    "XML bomb": ("tmx", f'<!DOCTYPE tmx [<!ENTITY l1 "ha">{LAUGHS}]><tmx>&l19;</tmx>'.encode(), r"bad:1: entity l2 .*"),
    "XML bomb of one long entity": (
        "tmx", b'<!DOCTYPE tmx [<!ENTITY a "' + b"a" * 99_999 + b'">]><tmx>' + b"&a;" * 99_999, r"bad:1: entity a .*"
    ),
    "a file as entity": (
        "xliff", b'<!DOCTYPE x [<!ENTITY a SYSTEM "/etc/passwd">]><xliff>&a;</xliff>', r"bad:1: entity a .*"
    ),
    "XML without end": ("tmx", b"<tmx><tu>" * 99_999, r"bad:1: over 1,000 elements inside one another.*"),
    "attributes without end": ("xliff", b"<xliff " + b"".join(b"a%d='' " % n for n in range(99_999)), r"bad:1: .*"),
    "XML of zeros, packed": ("tmx", gzip.compress(b"<tmx>" + bytes(100 << 20), 1), r"bad:1: not well-formed XML .*"),
    "text that says it is TMX": ("tmx", TSV, r"bad:1: not well-formed XML .*"),
}  # fmt: skip


@pytest.mark.parametrize(("kind", "text", "told"), FORMATS.values(), ids=FORMATS)
def test_bombs_are_told_before_they_go_off(empty: Shell, kind: str, text: bytes, told: str | None):
    (empty.folder / "bad").write_bytes(text)
    matches(preparing(empty, kind), told)


ENGLISH, GERMAN = ("".join(f"{pair[side]}\n" for pair in GOOD).encode() for side in (0, 1))


@pytest.mark.parametrize(
    ("source", "target", "told"),
    [
        (b"a b\n" * 20, b"c d\n" * 19, r"x\.en has 20 lines but x\.de has 19: .*"),
        (b"a b\n" * 20, b"c d\r" * 20, r"x\.en has 20 lines but x\.de has 1: .*"),
        (b"a b\n" * 20, "c d\u2028".encode() * 20, r"x\.en has 20 lines but x\.de has 1: .*"),
        (b"a b\n" * 20, b"", r"x\.en has 20 lines but x\.de has 0: .*"),
        (b"", b"", r"x\.en: the corpus is empty"),
        (b"\n" * 20, b"c d\n" * 20, r".*(blank|no pair is left).*"),
        (b"a b\n" * 20, b"c d\n" * 19 + b"\xff\n", r"x\.de:20: not UTF-8 .*"),
        (b"a b\n" * 20, "c d\n".encode("utf-16") * 20, r"x\.de: UTF-16: .*"),
        (ENGLISH.replace(b"\n", b"\r\n"), GERMAN, None),
        (ENGLISH, GERMAN[:-1], None),
    ],
)
def test_sides_that_do_not_match_are_told(empty: Shell, source: bytes, target: bytes, told: str | None):
    for language, text in (("en", source), ("de", target)):
        (empty.folder / f"x.{language}").write_bytes(text)
    matches(outcome(empty, "prepare", "recipe.yaml", "--workers", 1, "--set", "data.train=x"), told)


# Names


@pytest.mark.parametrize("name", [b"\xff\xfe", b"a\nb", b"a\x1b[31mb", b" ", b"-", b"a" * 255, "ä\u2028漢".encode()])
def test_a_file_may_be_called_what_it_likes(model: Shell, name: bytes):
    folder = os.fsencode(model.folder)
    given = os.fsdecode(b"./" + name)
    for text, told in ((b"A dog.\n", None), (b"\xff\n", r".*:1: not UTF-8 .*")):
        with open(os.path.join(folder, name), "wb") as file:
            file.write(text)
        done = outcome(model, *TRANSLATE, given)
        matches(done, told)
        assert told or len(done.lines) == 1
        matches(outcome(model, "score", "--reference", given, given), told)
    os.unlink(os.path.join(folder, name))


def test_a_corpus_may_be_called_what_it_likes(empty: Shell):
    for name in ("ä\u2028漢", "a b", "a'b", "{x}", "a" * 200, "..."):
        (empty.folder / name).write_bytes(TSV)
        outcome(empty, "prepare", "recipe.yaml", "--workers", 1, "--set", f"data.train={{tsv: {json.dumps(name)}}}")
    done = outcome(empty, "prepare", "recipe.yaml", "--set", os.fsdecode(b"data.train={tsv: \xff}"))
    assert done.code == 2
    for train in ('{tsv: "a\\0b"}', '{tsv: "' + "a" * 300 + '"}', '"\\0"', '{tmx: "/proc/self/mem"}', "{tsv: good/x}"):
        assert outcome(empty, "prepare", "recipe.yaml", "--set", f"data.train={train}").code == 2


# What changes under our hands

MEDDLE: dict[str, Make] = {
    "is changed": content(b"another text\n"),
    "grows": lambda path: path.write_bytes(path.read_bytes() * 2),
    "is cut short": lambda path: os.truncate(path, 9),
    "is removed": Path.unlink,
    "becomes a folder": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("when", ["learning", "train: "])
@pytest.mark.parametrize("meddle", MEDDLE.values(), ids=MEDDLE)
def test_a_file_that_is_not_what_it_was_is_told(empty: Shell, meddle: Make, when: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(empty.folder)
    Path("bad").write_bytes(TSV)
    done = []

    def report(line: str) -> None:
        if line.startswith(when) and not done:
            done.append(meddle(Path("bad")))

    with pytest.raises(DataError, match=r"^bad\b.*"):
        prepare(loads(RECIPE), workers=1, report=report)
    assert done
    assert not Path("run/data").exists()
    assert half_written(empty.folder) == []


# Any bytes at all

PIECES = st.sampled_from(
    [
        b"\n", b"\r\n", b"\t", b"\0", b"\xef\xbb\xbf", b"\xff\xfe", b"\xed\xa0\x80", b"\xe2\x80\xa8", b"\xc2\x85",
        b"\x1b[0m", b"\x1f\x8b", b"&amp;", b"&#0;", b"<b>", b"\xe2\x96\x81", b"\xcc\x81", b"word ", b"Wort",
        b"\xf0\x9f\x87\xa9", b"|||",
    ]
)  # fmt: skip
RUBBISH = st.lists(PIECES | st.binary(max_size=4) | st.text(max_size=4).map(str.encode), max_size=30).map(b"".join)
ANY = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@ANY
@given(rubbish=RUBBISH, kind=st.sampled_from(["tsv", "jsonl", "tmx"]))
def test_any_bytes_are_prepared_or_told(empty: Shell, rubbish: bytes, kind: str):
    (empty.folder / "bad").write_bytes((TSV if kind == "tsv" else b"") + rubbish)
    preparing(empty, kind)


@ANY
@given(rubbish=RUBBISH)
@example(rubbish=b"\xef\xbb\xbf")
def test_any_bytes_are_translated_line_by_line_or_told(model: Shell, rubbish: bytes):
    done = outcome(model, *TRANSLATE, stdin=rubbish)
    if not done.code:
        lines = rubbish.count(b"\n") + (not rubbish.endswith(b"\n") and rubbish not in (b"", b"\xef\xbb\xbf"))
        assert done.out.count(b"\n") == lines
    else:
        assert re.search(r"standard input(:\d+)?: ", done.err)


@ANY
@given(rubbish=RUBBISH)
def test_any_bytes_are_scored_or_told(model: Shell, rubbish: bytes):
    (model.folder / "any").write_bytes(rubbish)
    for reference, hypotheses in (("any", "any"), ("reference", "-")):
        outcome(model, "score", "--reference", reference, hypotheses, stdin=rubbish)


PIPED: dict[str, tuple[bytes | str, str | None]] = {
    "nothing": (b"", None),
    "zeros without end": ("/dev/zero", r"standard input:1: a line of over 16,777,216 bytes: .*"),
    "noise without end": ("/dev/urandom", r"standard input:\d+: not UTF-8 .*"),
    "a packed line without end": (gzip.compress(bytes(100 << 20), 1), r"standard input:1: a line of over .*"),
    "a gzip cut short": (PACKED["gzip"][:999], r"standard input: gzip file cut short.*"),
    "a zst cut short": (zstd.compress(TSV * 200)[:-9], r"standard input: zst file cut short.*"),
    "UTF-16": ("A dog.\n".encode("utf-16"), r"standard input: UTF-16: .*"),
    "blank lines": (b"\n\r\n \n\0\n", None),
    "a line of 1,000 letters": (b"a" * 1_000 + b"\n", None),
}


@pytest.mark.parametrize(("stdin", "told"), PIPED.values(), ids=PIPED)
@pytest.mark.parametrize("command", ["translate", "score"])
def test_what_is_piped_in_works_or_is_told(model: Shell, stdin: bytes | str, told: str | None, command: str):
    given = TRANSLATE if command == "translate" else ("score", "--reference", "reference", "-")
    if command == "score" and not told:
        told = r".* (line|lines), the reference has .*|.*empty.*"
    matches(outcome(model, *given, stdin=Path(stdin) if isinstance(stdin, str) else stdin), told)
