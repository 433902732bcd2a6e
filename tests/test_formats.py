"""Laws of what corpora may be written in: every format and packing gives the same pairs, and every trap is told."""

import errno
import gzip
import io
import json
import lzma
import os
import re
import sys
import tracemalloc
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.sax.saxutils import escape, quoteattr

import pytest
from commands import Server, Shell
from hypothesis import given, settings
from hypothesis import strategies as st

from nmt.data import Manifest, prepare
from nmt.errors import DataError, RecipeError
from nmt.recipe import Recipe, dump, loads
from nmt.recipe.schema import Jsonl, Tmx, Tsv, Xliff
from nmt.text import locate, read_pairs

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

Pair = tuple[str, str]
KINDS = {"tsv": Tsv, "jsonl": Jsonl, "tmx": Tmx, "xliff": Xliff}


def tmx(*units: str) -> str:
    return f'<?xml version="1.0"?>\n<tmx version="1.4"><header srclang="en"/><body>\n{"".join(units)}</body></tmx>\n'


def tu(**texts: str) -> str:
    """A unit; the texts are XML already."""
    variants = (f'<tuv xml:lang="{code}"><seg>{text}</seg></tuv>' for code, text in texts.items())
    return f"<tu><note>note</note>{''.join(variants)}</tu>\n"


def xliff1(*units: str, languages: str = 'source-language="en" target-language="de"') -> str:
    return f'<xliff version="1.2"><file {languages}><body>\n{"".join(units)}</body></file></xliff>'


def xliff2(*segments: str, languages: str = 'srcLang="en" trgLang="de"') -> str:
    return f'<xliff version="2.0" {languages}><file><unit>\n{"".join(segments)}</unit></file></xliff>'


def sides(one: str, other: str, inside: str = "segment", state: str = "") -> str:
    return f"<{inside} {state}><source>{one}</source><target>{other}</target></{inside}>\n"


FORMATS: dict[str, tuple[str, Callable[[list[Pair]], str]]] = {
    "tsv": ("tsv", lambda pairs: "".join(f"{a}\t{b}\n" for a, b in pairs)),
    "json lines": ("jsonl", lambda pairs: "".join(json.dumps({"en": a, "de": b}) + "\r\n" for a, b in pairs)),
    "tmx": ("tmx", lambda pairs: tmx(*(tu(en=escape(a), de=escape(b)) for a, b in pairs))),
    "xliff 1.2": ("xliff", lambda pairs: xliff1(*(sides(escape(a), escape(b), "trans-unit") for a, b in pairs))),
    "xliff 2": ("xliff", lambda pairs: xliff2(*(sides(escape(a), escape(b)) for a, b in pairs))),
}
PACKINGS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".zst": lambda data: zstd.compress(data, options={zstd.CompressionParameter.checksum_flag: 1}),
    ".gz of two members": lambda data: gzip.compress(data[:9]) + gzip.compress(data[9:]),
    ".xz of two streams": lambda data: lzma.compress(data[:9]) + lzma.compress(data[9:]),
    ".zst of two frames": lambda data: zstd.compress(data[:9]) + zstd.compress(data[9:]),
}


def read(path: Path, kind: str, content: str | bytes, skipped: Counter[str] | None = None, **keys: str) -> list[Pair]:
    """The pairs of a file of this kind and content."""
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return list(locate(KINDS[kind](**{kind: str(path)}, **keys), "en", "de").pairs(skipped))


def told(path: Path, kind: str, content: str | bytes, **keys: str) -> str:
    """What is said of a file that cannot be used, with the file's name alone."""
    with pytest.raises(DataError) as error:
        read(path, kind, content, **keys)
    message = str(error.value)
    assert len(message.splitlines()) == 1
    return message.replace(str(path), path.name)


# The same pairs from everything

anything = st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufffe\uffff\ufeff")
sentences = st.text(anything | st.sampled_from("&<>\"'äß漢\u2028\u00a0"), min_size=1, max_size=20).filter(
    lambda text: text.strip()
)


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=15, deadline=None)
@given(pairs=st.lists(st.tuples(sentences, sentences), max_size=8))
def test_what_was_written_is_read_from_every_format_and_packing(
    tmp_path_factory: pytest.TempPathFactory, name: str, packing: str, pairs: list[Pair]
) -> None:
    kind, written = FORMATS[name]
    path = tmp_path_factory.getbasetemp() / "any"
    assert read(path, kind, PACKINGS[packing](written(pairs).encode())) == pairs


@pytest.mark.parametrize("packing", [".gz", ".xz", ".zst"])
def test_a_prefix_stands_for_packed_files_too(tmp_path: Path, packing: str) -> None:
    (tmp_path / "x.en").write_text("one\ntwo\n")
    (tmp_path / f"x.de{packing}").write_bytes(PACKINGS[packing](b"eins\nzwei\n"))
    assert list(read_pairs(f"{tmp_path}/x", "en", "de")) == [("one", "eins"), ("two", "zwei")]


@pytest.mark.parametrize(("name", "packing"), [(".gz", "gzip"), (".xz", "xz"), (".zst", "zst")])
@pytest.mark.parametrize("kind", ["tsv", "tmx"])
def test_a_packed_file_cut_short_is_told(tmp_path: Path, name: str, packing: str, kind: str) -> None:
    pairs = [(f"line {n * n}", f"Zeile {n * n * n}") for n in range(20_000)]
    whole = PACKINGS[name](FORMATS[kind][1](pairs).encode())
    assert told(tmp_path / "x", kind, whole[: len(whole) // 2]) == f"x: {packing} file cut short: copy or make it again"
    spoiled = bytearray(whole)
    spoiled[len(whole) // 2] ^= 255
    assert re.fullmatch(
        rf"x(: {packing} file damaged \(.*\): copy or make it again|:\d+: .*)",
        told(tmp_path / "x", kind, bytes(spoiled)),
    )


def test_zst_without_its_package_is_told_with_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, zstd.__name__, None)
    if sys.version_info < (3, 14):
        monkeypatch.delattr(sys.modules["backports"], "zstd")
    assert re.fullmatch(
        "x: a zst file, which cannot be read here: `pip install backports.zstd`, or .*",
        told(tmp_path / "x", "tsv", zstd.compress(b"a\tb\n")),
    )


def test_a_dash_is_standard_input_in_every_format(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind, written in FORMATS.values():
        stream = io.BufferedReader(io.BytesIO(gzip.compress(written([("one", "eins")]).encode())))  # type: ignore[arg-type]
        monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=stream))
        assert list(read_pairs(KINDS[kind](**{kind: "-"}), "en", "de")) == [("one", "eins")]


@pytest.mark.parametrize("packing", ["", ".gz", ".xz", ".zst"])
@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_whatever_the_bytes_there_are_pairs_or_a_line_that_tells_why_not(
    tmp_path_factory: pytest.TempPathFactory, name: str, packing: str, data: st.DataObject
) -> None:
    kind, written = FORMATS[name]
    content = PACKINGS[packing](written([("one & two", "eins"), ("<drei>", "three\u2028")] * 3).encode())
    start, end = sorted(data.draw(st.tuples(*[st.integers(0, len(content))] * 2)))
    other = data.draw(
        st.binary(max_size=9) | st.sampled_from([b"<", b"&", b'"', b"]]>", b"\xff\xfe", b"\\ud800", b"\0"])
    )
    path = tmp_path_factory.getbasetemp() / "damaged"
    pairs, message = [], f"{path}: "
    try:
        pairs = read(path, kind, content[:start] + other + content[end:])
    except DataError as error:
        message = str(error)
    assert message.startswith(f"{path}:")
    assert message.isprintable()
    assert not any("\n" in side for pair in pairs for side in pair)


# JSON lines


def test_the_keys_of_json_lines_are_the_language_codes_or_those_named(tmp_path: Path) -> None:
    line = json.dumps({"id": 1, "en": "one", "de": "eins", "src": "two", "a.b": "three", "translation": {"de": "drei"}})
    assert read(tmp_path / "x", "jsonl", line) == [("one", "eins")]
    assert read(tmp_path / "x", "jsonl", line, source="src") == [("two", "eins")]
    assert read(tmp_path / "x", "jsonl", line, source="a.b", target="translation.de") == [("three", "drei")]


def test_lines_of_json_without_a_translation_are_counted_and_blank_ones_are_none(tmp_path: Path) -> None:
    skipped = Counter[str]()
    lines = '\ufeff{"en": "a", "de": "b"}\n\n{"en": "a", "de": null}\n  \n{"en": "", "de": "d"}'
    assert read(tmp_path / "x", "jsonl", lines, skipped) == [("a", "b"), ("", "d")]
    assert skipped == {"untranslated": 1}


def test_no_side_holds_a_line_feed_or_half_a_surrogate_pair(tmp_path: Path) -> None:
    line = r'{"en": "a\nb\ud800c \ud83d\ude00", "de": "d\u2028e\u0000"}'
    assert read(tmp_path / "x", "jsonl", line) == [("a b c 😀", "d\u2028e\0")]
    assert read(tmp_path / "x", "tmx", tmx(tu(en="a\n  b", de="c&#10;d"))) == [("a   b", "c d")]


JSON_MISTAKES = {
    '{"en": "a"': r"x:2: must be a JSON object on one line: Expecting .* at position 11",
    "[": r"x:2: must be a JSON object on one line: .*",
    '["a", "b"]': r'x:2: must be a JSON object on one line, found \["a", "b"\]',
    '{"en": "a", "DE": "b"}': r'x:2: no key de among \["en", "DE"\]: name it .* \{jsonl: FILE, source: KEY\}',
    '{"en": "a", "de": 5}': r"x:2: de: must be text, found 5",
    '{"en": "a", "de": ["b"]}': r'x:2: de: must be text, found \["b"\]',
    '{"en": ' + "9" * 9999 + "}": r"x:2: .* too large or too deep to read",
    "[" * 99_999: r"x:2: .* too large or too deep to read",
}


@pytest.mark.parametrize(("line", "message"), JSON_MISTAKES.items(), ids=[line[:30] for line in JSON_MISTAKES])
def test_a_mistake_in_json_is_told_with_its_line(tmp_path: Path, line: str, message: str) -> None:
    assert re.fullmatch(message, told(tmp_path / "x", "jsonl", '{"en": "a", "de": "b"}\n' + line + "\n"))


# TMX


@pytest.mark.parametrize("code", ["en", "EN", "en-US", "en_GB", "En-us"])
def test_a_language_takes_its_regions_whatever_the_case(tmp_path: Path, code: str) -> None:
    assert read(tmp_path / "x", "tmx", tmx(tu(de_AT="eins", **{code: "one"}))) == [("one", "eins")]


def test_of_several_variants_the_exact_one_is_taken_or_else_the_first(tmp_path: Path) -> None:
    units = tmx(
        tu(**{"en-GB": "lorry", "en-US": "truck", "de": "Lkw"}),
        tu(**{"en-GB": "colour", "en": "color", "enm": "colur", "de-AT": "Jänner", "de-DE": "Januar"}),
    )
    assert read(tmp_path / "x", "tmx", units) == [("lorry", "Lkw"), ("color", "Jänner")]


def test_units_that_lack_a_side_are_counted(tmp_path: Path) -> None:
    skipped = Counter[str]()
    units = tmx(tu(en="a"), tu(en="b", de="c"), tu(en="d", de=" "), tu(fr="e", de="f"))
    assert read(tmp_path / "x", "tmx", units, skipped) == [("b", "c")]
    assert skipped == {"untranslated": 3}


def test_text_outside_of_units_is_none(tmp_path: Path) -> None:
    assert read(tmp_path / "x", "tmx", tmx("<seg>a</seg><tu><seg>b</seg></tu>", tu(en="c", de="d"))) == [("c", "d")]
    stray = "<source>a</source><target>b</target>"
    assert read(tmp_path / "x", "xliff", xliff1(stray, sides("c", "d", "trans-unit"))) == [("c", "d")]


def test_a_memory_of_other_languages_is_told_with_those_it_has(tmp_path: Path) -> None:
    message = told(tmp_path / "x", "tmx", tmx(tu(en="a", fr="b"), tu(en="c", fr="d")))
    assert message == "x: no unit has both en and de, of 2 in all; the languages are en, fr"


def test_what_is_told_of_a_memory_is_a_line_whatever_its_languages_are_called(tmp_path: Path) -> None:
    message = told(tmp_path / "x", "tmx", tmx(tu(**{"e\u2028n": "a", "x" * 99: "b"})))
    assert message == f"x: no unit has both en and de, of 1 in all; the languages are {'x' * 20}"


@pytest.mark.parametrize(
    ("inside", "text"),
    [
        ('a<bpt i="1">&lt;b&gt;</bpt>b<ept i="1">&lt;/b&gt;</ept>c', "abc"),
        ("a <hi>b <hi>c</hi></hi> d", "a b c d"),
        ('a<ph>&lt;img title="<sub>b <hi>c</hi></sub>"&gt;</ph>d', "a b c d"),
        ('a<ph type="lb"/>b<it pos="begin">[]</it><ut>{}</ut>c', "a bc"),
        ("a &amp; &lt;b&gt; &#228;&#x1F600;<!-- no --><![CDATA[ <c> ]]>", "a & <b> ä😀 <c> "),
    ],
)
def test_inline_codes_are_left_out_and_the_text_in_them_stays(tmp_path: Path, inside: str, text: str) -> None:
    assert read(tmp_path / "x", "tmx", tmx(tu(en=inside, de="x"))) == [(text, "x")]


# XLIFF


def test_xliff_has_its_pairs_in_trans_units_or_segments_and_suggestions_are_none(tmp_path: Path) -> None:
    match = "<alt-trans><source>x</source><target>y</target></alt-trans>"
    unit = f"<trans-unit><source>a</source><seg-source>a</seg-source><target>b</target>{match}</trans-unit>"
    assert read(tmp_path / "x", "xliff", xliff1(f"<group>{unit}</group>")) == [("a", "b")]
    match = '<mtc:matches xmlns:mtc="m"><mtc:match><source>x</source><target>y</target></mtc:match></mtc:matches>'
    ignorable = "<ignorable><source> </source><target> </target></ignorable>"
    assert read(tmp_path / "x", "xliff", xliff2(match, ignorable, sides("a", "b"))) == [("a", "b")]


def test_untranslated_units_are_counted(tmp_path: Path) -> None:
    for written, inside, state in ((xliff1, "trans-unit", ""), (xliff2, "segment", 'state="initial"')):
        skipped = Counter[str]()
        units = [sides("a", "b", inside), sides("c", "", inside), f"<{inside}><source>e</source></{inside}>"]
        if state:
            units.append(sides("a", "a", inside, state))
        else:
            units.append('<trans-unit><source>a</source><target state="needs-translation">a</target></trans-unit>')
        assert read(tmp_path / "x", "xliff", written(*units), skipped) == [("a", "b")]
        assert skipped == {"untranslated": 3}


def test_xliff_of_the_other_direction_is_turned_and_of_other_languages_told(tmp_path: Path) -> None:
    turned = 'source-language="de-DE" target-language="en-US"'
    assert read(tmp_path / "x", "xliff", xliff1(sides("eins", "one", "trans-unit"), languages=turned)) == [
        ("one", "eins")
    ]
    assert read(tmp_path / "x", "xliff", xliff2(sides("one", "eins"), languages='srcLang="en"')) == [("one", "eins")]
    french = told(tmp_path / "x", "xliff", xliff2(sides("un", "eins"), languages='srcLang="fr" trgLang="de"'))
    assert french == "x: no unit has both en and de, of 1 in all; the languages are fr, de"


@pytest.mark.parametrize(
    ("inside", "text"),
    [
        ('<g id="1">a</g> <x id="2"/><bx id="3"/>b<ex id="4"/>', "a b"),
        ('a<bpt id="1">&lt;b&gt;</bpt>b<x id="1" ctype="lb"/>c', "ab c"),
        ('<pc id="1">a</pc> <mrk id="2">b</mrk><ph id="3"/><sm id="4"/>c<em/>', "a bc"),
        ('a<ph id="1" subType="xlf:lb"/>b<cp hex="001A"/>c', "a b c"),
    ],
)
def test_inline_elements_of_xliff_are_left_out_and_the_text_in_them_stays(
    tmp_path: Path, inside: str, text: str
) -> None:
    assert read(tmp_path / "x", "xliff", xliff1(sides(inside, "x", "trans-unit"))) == [(text, "x")]


# XML and its traps


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "latin-1", "windows-1252"])
def test_xml_is_read_in_the_encoding_it_declares(tmp_path: Path, encoding: str) -> None:
    declared = encoding.replace("utf-8-sig", "utf-8")
    text = tmx(tu(en="fünf", de="café")).replace("?>", f" encoding={quoteattr(declared)}?>")
    assert read(tmp_path / "x", "tmx", text.encode(encoding)) == [("fünf", "café")]


LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(2, 20))
XML_MISTAKES = {
    "cut short": (tmx(tu(en="a", de="b"))[:-30], r"x:3: not well-formed XML \(.*, column \d+\): mend or export it .*"),
    "tags that do not match": ("<tmx>\n<body>\n</tmx>", r"x:3: not well-formed XML \(mismatched tag, column 3\): .*"),
    "Latin-1 that says it is UTF-8": (
        tmx(tu(en="a", de="b"), tu(en="a", de="fünf")).encode("latin-1"),
        r"x:4: not well-formed XML \(.*token\), column \d+: .*bytes of another encoding than the file says\): .*",
    ),
    "a control character": (tmx(tu(en="a", de="\x01")), r"x:3: not well-formed XML \(.*a character that XML forbids.*"),
    "half a surrogate pair": (tmx(tu(en="a", de="&#xD800;")), r"x:3: .*reference to invalid character number.*"),
    "an encoding nobody knows": ('<?xml version="1.0" encoding="klingon"?><tmx/>', r"x:1: .*klingon.*"),
    "an encoding of several bytes": ('<?xml version="1.0" encoding="shift_jis"?><tmx/>', r"x:1: .*multi-byte.*"),
    "nothing": ("", r"x:1: not well-formed XML \(no element found, column 1\): .*"),
    "no XML": ("one\teins\n", r"x:1: not well-formed XML .*"),
    "other XML": ("<html/>", r"x:1: must be TMX, found the element <html>"),
    "an entity nobody declares": (tmx(tu(en="a", de="&nbsp;")), r"x:3: not well-formed XML \(undefined entity.*"),
    "an entity of another file": (
        '<!DOCTYPE tmx SYSTEM "tmx14.dtd">\n<tmx><tu>&nbsp;</tu></tmx>',
        r"x:2: entity nbsp is declared in another file, which is not read: write its characters instead",
    ),
    "a file as entity": (
        '<!DOCTYPE tmx [\n<!ENTITY secret SYSTEM "file:///etc/passwd">]>\n' + tmx(tu(en="&secret;", de="b"))[22:],
        r"x:2: entity secret is declared by more than a few plain characters: .*",
    ),
    "a billion laughs": (
        f'<!DOCTYPE tmx [<!ENTITY l1 "ha">{LAUGHS}]>\n' + tmx(tu(en="&l19;", de="b"))[22:], r"x:1: entity l2 is .*"
    ),
    "a parameter entity": (
        '<!DOCTYPE tmx [<!ENTITY % p SYSTEM "http://localhost/"> %p;]>\n<tmx/>', r"x:1: entity p is declared by .*"
    ),
    "a huge segment": (tmx(tu(en="a" * (1 << 24) + "b", de="c")), r"x:\d: a unit of over 16,777,216 characters: .*"),
    "a huge unit": (
        "<tmx>\n<tu>" + f"<tuv><seg>{'a' * (1 << 20)}</seg></tuv>" * 17, r"x:\d+: a unit of over 16,777,216 .*"
    ),
    "too many elements": ("<tmx>" + "<a>" * 9999, r"x:1: over 1,000 elements inside one another: .*"),
    "too many inside a segment": (
        "<tmx><tu><tuv><seg>" + "<hi>" * 9999, r"x:1: over 1,000 elements inside one another: .*"
    ),
    "a huge tag": (f"<tmx><tu a='{'b' * (1 << 25)}'/></tmx>", r"x:\d: a tag or comment of over 16,777,216 bytes: .*"),
}  # fmt: skip


@pytest.mark.parametrize(("content", "message"), XML_MISTAKES.values(), ids=XML_MISTAKES)
def test_a_mistake_in_xml_is_told_with_its_line(tmp_path: Path, content: str | bytes, message: str) -> None:
    assert re.fullmatch(message, told(tmp_path / "x", "tmx", content))


def test_a_document_type_and_short_plain_entities_are_no_harm(tmp_path: Path) -> None:
    head = '<?xml version="1.0"?><!DOCTYPE tmx SYSTEM "tmx14.dtd" [<!ENTITY dash "&#8212;">]>'
    assert read(tmp_path / "x", "tmx", head + tmx(tu(en="a&dash;b", de="c"))[22:]) == [("a—b", "c")]


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    long = [("a" * 400, "b" * 400)] * 25_000
    for kind, written in FORMATS.values():
        path = tmp_path / kind
        path.write_text(written(long))
        assert path.stat().st_size > 20_000_000
        tracemalloc.start()
        assert sum(1 for _ in read_pairs(KINDS[kind](**{kind: str(path)}), "en", "de")) == 25_000
        assert tracemalloc.get_traced_memory()[1] < 3_000_000
        tracemalloc.stop()


# Traps of encodings and line ends in plain files

GOOD = b"one\teins\n"
TRAPS: dict[str, tuple[bytes, list[Pair] | str]] = {
    "a byte order mark": (b"\xef\xbb\xbf" + GOOD, [("one", "eins")]),
    "line ends of Windows": (b"one\teins\r\ntwo\tzwei\r\n", [("one", "eins"), ("two", "zwei")]),
    "no last line end": (GOOD + b"two\tzwei", [("one", "eins"), ("two", "zwei")]),
    "a lone carriage return": (b"o\rne\teins\n", [("o\rne", "eins")]),
    "separators of Unicode": ("o\u2028n\u2029e\tei\u0085ns\n".encode(), [("o\u2028n\u2029e", "ei\u0085ns")]),
    "a NUL": (b"o\0ne\teins\n", [("o\0ne", "eins")]),
    "a line of a megabyte": (b"a" * 1_000_000 + b"\tb\n", [("a" * 1_000_000, "b")]),
    "an empty file": (b"", []),
    "Latin-1": (GOOD + "two\tfünf\n".encode("latin-1"), r"x:2: not UTF-8 \(byte 0xfc at position 6\): .*iconv.*"),
    "surrogates as bytes": (b"one\t\xed\xa0\x80\n", r"x:1: not UTF-8 \(byte 0xed at position 5\): .*"),
    "UTF-16": (GOOD.decode().encode("utf-16"), r"x: UTF-16: convert the file, with `iconv -f UTF-16 -t UTF-8`"),
    "UTF-16 without a mark": (GOOD.decode().encode("utf-16-be"), r"x: UTF-16: .*"),
    "UTF-16 of small end": (GOOD.decode().encode("utf-16-le"), r"x: UTF-16: .*"),
    "bzip2": (b"BZh91AY&SY" + GOOD, r"x: a bzip2 file, which cannot be read here: unpack it first, with `bunzip2`"),
    "zip": (b"PK\x03\x04" + GOOD, r"x: a zip file, .*`unzip`"),
    "a column too few": (GOOD + b"two\n", r"x:2: must be two columns with a tab between, found 1"),
    "a line without end": (b"a" * ((1 << 24) + 2), r"x:1: a line of over 16,777,216 bytes: is this text\?"),
}


@pytest.mark.parametrize(("content", "outcome"), TRAPS.values(), ids=TRAPS)
def test_a_trap_works_or_is_told(tmp_path: Path, content: bytes, outcome: list[Pair] | str) -> None:
    if isinstance(outcome, str):
        assert re.fullmatch(outcome, told(tmp_path / "x", "tsv", content))
    else:
        assert read(tmp_path / "x", "tsv", content) == outcome


def test_a_file_where_a_prefix_belongs_is_told_with_what_to_write(tmp_path: Path) -> None:
    path = tmp_path / "x.tmx.gz"
    path.touch()
    with pytest.raises(DataError, match=rf"no such file, nor .*; did you mean {{tmx: {path}}}\?"):
        read_pairs(str(path), "en", "de")
    with pytest.raises(DataError, match=r"-\.en: no such file, .*; standard input is one file: write \{tsv: -\}"):
        read_pairs("-", "en", "de")


# The recipe

RECIPE = """
run: run
data: {source: en, target: de, train: train, valid: {tsv: valid.tsv}}
tokenizer: {vocab_size: 300}
"""


def test_every_corpus_takes_every_kind_and_is_dumped_as_it_was() -> None:
    kinds = ["{tsv: a}", "{jsonl: a}", "{jsonl: a, source: b, target: c.d}", "{tmx: a}", "{xliff: a}", "a"]
    changes = [f"data.train=[{', '.join(kinds)}]"]
    changes += [f"data.test.t{number}={kind}" for number, kind in enumerate(kinds)]
    recipe = loads(RECIPE, overrides=changes)
    assert tuple(recipe.data.test.values()) == recipe.data.train
    assert loads(dump(recipe)) == recipe


MISTAKES = {
    "train={jsnl: f}": "data.train[0]: must be the PREFIX of two files PREFIX.SOURCE and PREFIX.TARGET, or one of "
    '{tsv: FILE}, {jsonl: FILE}, {tmx: FILE}, {xliff: FILE}, found {"jsnl": "f"}; did you mean jsonl?',
    "train={jsonl: f, sorce: s}": "data.train[0].sorce: unknown key; did you mean data.train[0].source?",
    "train=[a, {tmx: f, gz: 1}]": "data.train[1].gz: unknown key; "
    "the keys of data.train[1] are languages, tag, weight, tmx",
    "valid={xliff: 5}": 'data.valid.xliff: must be text, found 5; did you mean "5"?',
    "train=[{tsv: '-'}, {tmx: '-'}]": 'data.train: must name standard input only once, found "-"',
    "valid={tsv: '-'}": 'data.valid: must be in a file, for training or scoring reads it again, found "-"',
    "test.new={tsv: '-'}": 'data.test.new: must be in a file, for training or scoring reads it again, found "-"',
}


@pytest.mark.parametrize(("change", "message"), MISTAKES.items())
def test_a_mistake_in_a_corpus_is_told(change: str, message: str) -> None:
    with pytest.raises(RecipeError) as error:
        loads(RECIPE, overrides=[f"data.{change}"])
    assert str(error.value) == f"--set data.{change}: {message}"


def test_two_kinds_at_once_are_told() -> None:
    with pytest.raises(RecipeError, match=r"must be the PREFIX .* found \{\"tsv\": \"a\", \"tmx\": \"b\"\}$"):
        loads(RECIPE, overrides=["data.train={tsv: a, tmx: b}"])


# Through nmt prepare

WHO = {"the dog": "der Hund", "a cat": "eine Katze"}
DOES = {"sleeps": "schläft", "runs": "läuft", "sings": "singt", "reads": "liest"}
PAIRS = [(f"{who} {does}.", f"{wer} {tut}.") for who, wer in WHO.items() for does, tut in DOES.items()]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a recipe, to be in."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    (tmp_path / "valid.tsv").write_text(FORMATS["tsv"][1](PAIRS))
    return tmp_path


def recipe(train: str) -> Recipe:
    return loads(RECIPE, overrides=[f"data.train={train}"])


def test_all_formats_are_prepared_alike_and_what_is_untranslated_is_told(folder: Path) -> None:
    shards = {}
    for number, (kind, written) in enumerate(FORMATS.values()):
        path = folder / f"{number}.{kind}"
        text = written(PAIRS)
        if kind == "tmx":
            text = text.replace("</body>", tu(en="lonely") + "</body>")
        path.write_text(text)
        lines: list[str] = []
        prepare(recipe(f"{{{kind}: {path.name}}}"), workers=1, report=lines.append)
        dropped = (
            "9 pairs read from {}, 1 dropped (11.11%): 1 untranslated"
            if kind == "tmx"
            else "8 pairs read from {}, none dropped"
        )
        assert f"train: {dropped.format(path.name)}" in lines
        assert Manifest.load("run/data").splits["train"].corpora[0].name == path.name
        shards[path.name] = Path("run/data/train-00000.source.tokens.npy").read_bytes()
    assert len(set(shards.values())) == 1


def test_standard_input_is_kept_for_it_is_read_twice(server: Server, folder: Path) -> None:
    shell = Shell(server, folder)
    text = gzip.compress(FORMATS["tsv"][1](PAIRS).encode())
    command = ("prepare", "recipe.yaml", "--workers", 1, "--set", "data.train={tsv: '-'}")
    assert "train: 8 pairs read from standard input, none dropped" in shell(*command, stdin=text).err
    assert (folder / "run/standard-input").read_bytes() == text
    assert "nothing has changed since" in shell(*command, stdin=text).err
    assert "standard input is empty: pipe the text in" in shell(*command, stdin=b"", code=2).err
    assert "nothing has changed since" in shell(*command, stdin=text).err
    assert "preparing again: run/standard-input has changed" in shell(*command, stdin=text + text).err
    assert shell.fails(*command, stdin=text * 99, largest=5_000).startswith("run/standard-input: cannot be written: ")
    assert (folder / "run/standard-input").read_bytes() == text + text


def spoil(name: str, content: bytes | None) -> Callable[[Path], Any]:
    """A file of this content, or a pipe."""
    return lambda folder: (folder / name).write_bytes(content) if content is not None else os.mkfifo(folder / name)


BAD = {
    "{tmx: x}": (spoil("x", tmx(tu(en="a", de="b")).encode()[:-9]), r"x:4: not well-formed XML .*"),
    "{tmx: y}": (spoil("y", tmx(tu(en="a", fr="b")).encode()), r"y: no unit has both en and de, of 1 in all; .*"),
    "{tmx: z}": (spoil("z", tmx().encode()), r"z: the corpus is empty"),
    "{jsonl: x}": (spoil("x", b'{"en": "a", "de": "b"}\n{"en": "a"}\n'), r'x:2: no key de among \["en"\]: name it .*'),
    "{tsv: x.xz}": (spoil("x.xz", lzma.compress(GOOD * 999)[:-20]), r"x\.xz: xz file cut short: copy or make it again"),
    "{tsv: pipe}": (spoil("pipe", None), r"pipe: must be a regular file, .*, as \{tsv: -\} .*"),
    "{xliff: .}": (lambda folder: None, r"\.: must be a regular file.*"),
    "{xliff: nowhere}": (lambda folder: None, r"nowhere: no such file"),
    "{tsv: 16}": (lambda folder: None, r".*data\.train\[0\]\.tsv: must be text, found 16; did you mean \"16\"\?"),
}


@pytest.mark.parametrize(("train", "spoiled", "message"), [(train, *row) for train, row in BAD.items()])
def test_what_cannot_be_prepared_is_told_and_left_as_it_is(
    server: Server, folder: Path, train: str, spoiled: Callable[[Path], Any], message: str
) -> None:
    def contents() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    spoiled(folder)
    before = contents()
    said = Shell(server, folder).fails("prepare", "recipe.yaml", "--workers", 1, "--set", f"data.train={train}")
    assert re.fullmatch(message, said), said
    assert contents() == before


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_may_not_be_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr("nmt.text.opening.open", refuse, raising=False)
    assert told(tmp_path / "x", kind, b"") == "x: cannot be read: Permission denied"


def test_a_folder_in_the_place_of_a_file_is_told(tmp_path: Path) -> None:
    for kind, section in KINDS.items():
        with pytest.raises(DataError, match="cannot be read: Is a directory"):
            list(read_pairs(section(**{kind: str(tmp_path)}), "en", "de"))
