"""What is fetched is the file that it must be, whole, however often the way to it breaks; and becomes parallel text."""

import base64
import gzip
import hashlib
import http.server
import io
import json
import os
import re
import signal
import subprocess
import sys
import tarfile
import threading
import time
import tomllib
import zipfile
from collections.abc import Callable, Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
from commands import Server, Shell

from nmt import recipe as recipes
from nmt.errors import DataError, DownloadError, OutputError
from nmt.fetching import Catalogue, Patience, transfer
from nmt.fetching.catalogue import BUILT_IN, Part
from nmt.fetching.checksums import Claim, said_by_http
from nmt.fetching.download import download
from nmt.fetching.texts import write_part
from nmt.fetching.transfer import Source, fetch
from nmt.fetching.unpacking import unpack
from nmt.text import read_pairs

ROOT = Path(__file__).parent.parent
QUICK = Patience(retries=3, timeout=0.5, first=0)
BODY = bytes(range(256)) * 4000  # a megabyte

# A host of corpora


class Host:
    """A server on this machine, with what it gives, how it misbehaves, and what was asked of it."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.tags: dict[str, str] = {}
        self.headers: dict[str, str] = {}
        self.moods: list[str] = []  # one for each request, the first first; then it behaves
        self.asked: list[dict[str, str]] = []
        self.ranges = True
        self.deaf = False
        self.released = threading.Event()
        host = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                host.answer(self)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()

    def put(self, name: str, body: bytes, tag: str = "") -> str:
        """A file to give; gives its URL."""
        self.files[f"/{name}"] = body
        self.tags[f"/{name}"] = tag or f'"{hashlib.md5(body).hexdigest()}"'
        return f"{self.url}/{name}"

    def answer(self, request: http.server.BaseHTTPRequestHandler) -> None:
        self.asked.append({"path": request.path, **{key.lower(): value for key, value in request.headers.items()}})
        mood = self.moods.pop(0) if self.moods else "fine"
        request.close_connection = True
        if mood.isdecimal():
            request.send_error(int(mood))
        elif mood.startswith("to "):
            request.send_response(HTTPStatus.FOUND)
            request.send_header("Location", mood[3:])
            request.send_header("Content-Length", "0")
            request.end_headers()
        elif request.path not in self.files:
            request.send_error(HTTPStatus.NOT_FOUND)
        else:
            self.send(request, mood)

    def send(self, request: http.server.BaseHTTPRequestHandler, mood: str) -> None:
        body, tag = self.files[request.path], self.tags[request.path]
        start = self.start(request, tag)
        if start >= len(body) > 0:
            request.send_error(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)
            return
        request.send_response(HTTPStatus.PARTIAL_CONTENT if start else HTTPStatus.OK)
        if start:
            request.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        if tag != "none":
            request.send_header("ETag", tag)
        for key, value in self.headers.items():
            request.send_header(key, value)
        if mood != "no length":
            request.send_header("Content-Length", str(len(body) - start))
        request.end_headers()
        rest = body[start:]
        if mood.startswith("cut at "):
            rest = rest[: int(mood[7:])]
        elif mood.startswith("wrong"):
            rest = rest[:-1] + b"!"
        elif mood.startswith("stall at "):
            request.wfile.write(rest[: int(mood[9:])])
            self.released.wait(20)
            return
        request.wfile.write(rest)

    def start(self, request: http.server.BaseHTTPRequestHandler, tag: str) -> int:
        """The first byte that is asked for, if it is the same file still."""
        wanted = re.fullmatch(r"bytes=(\d+)-", request.headers.get("Range", ""))
        same = self.deaf or request.headers.get("If-Range", tag) == tag
        return int(wanted[1]) if wanted and same and self.ranges else 0

    @property
    def from_bytes(self) -> list[int]:
        """The first byte of each request."""
        return [int(asked.get("range", "bytes=0-")[6:-1]) for asked in self.asked]


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    host = Host()
    yield host
    host.close()


def sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def source(url: str, body: bytes | None = BODY) -> Source:
    """A file with a checksum that is known; without, if there is no body."""
    return Source(url, [Claim("the list", None, {"sha256": sha256(body)})] if body is not None else [])


def silent(line: str) -> None:
    """Tells nothing."""


def get(source: Source, path: Path, patience: Patience = QUICK) -> bytes:
    """What lies at `path` once it is fetched; nothing may lie beside it."""
    fetch(source, path, patience, silent)
    assert [left.name for left in path.parent.iterdir()] == [path.name]
    return path.read_bytes()


# One file


def test_a_file_arrives_whole_and_what_it_is_is_told(host: Host, tmp_path: Path) -> None:
    arrived = fetch(source(host.put("file", BODY)), tmp_path / "file", QUICK, silent)
    assert (tmp_path / "file").read_bytes() == BODY
    assert (arrived.measured.bytes, arrived.measured.sha256) == (len(BODY), sha256(BODY))
    assert arrived.measured.checked == "SHA-256 by the list, length by the server"


def test_a_connection_that_is_cut_is_gone_on_with_where_it_stopped(host: Host, tmp_path: Path) -> None:
    host.moods = ["cut at 300000", "cut at 200000"]
    assert get(source(host.put("file", BODY)), tmp_path / "file") == BODY
    assert host.from_bytes == [0, 300000, 500000]
    assert [asked.get("if-range") for asked in host.asked] == [None, host.tags["/file"], host.tags["/file"]]


def test_what_gets_further_each_time_may_be_cut_more_often_than_it_is_retried(host: Host, tmp_path: Path) -> None:
    host.moods = ["cut at 100000"] * 8
    assert get(source(host.put("file", BODY)), tmp_path / "file", QUICK._replace(retries=1)) == BODY


def test_a_server_that_gives_no_parts_gives_the_whole_again(host: Host, tmp_path: Path) -> None:
    host.moods, host.ranges = ["cut at 300000"], False
    assert get(source(host.put("file", BODY)), tmp_path / "file") == BODY


def test_without_a_way_to_tell_versions_apart_nothing_is_put_together_unchecked(host: Host, tmp_path: Path) -> None:
    host.moods = ["cut at 300000"]
    assert get(source(host.put("file", BODY, tag="none"), None), tmp_path / "file") == BODY
    assert host.from_bytes == [0, 0]


def test_with_a_checksum_to_check_it_by_it_is(host: Host, tmp_path: Path) -> None:
    host.moods = ["cut at 300000"]
    assert get(source(host.put("file", BODY, tag="none")), tmp_path / "file") == BODY
    assert host.from_bytes == [0, 300000]


@pytest.mark.parametrize("tag", ["", "none", 'W/"weak"'])
def test_a_file_that_changes_between_two_attempts_is_fetched_anew(host: Host, tmp_path: Path, tag: str) -> None:
    host.moods = ["cut at 300000"]
    url = host.put("file", BODY[::-1], tag)
    with pytest.raises(DownloadError):
        fetch(source(url), tmp_path / "file", QUICK._replace(retries=0), silent)
    host.put("file", BODY, tag)
    assert get(source(url), tmp_path / "file") == BODY


def test_without_a_checksum_too_two_versions_are_not_put_together(host: Host, tmp_path: Path) -> None:
    host.moods = ["cut at 300000"]
    url = host.put("file", BODY[::-1])
    with pytest.raises(DownloadError):
        fetch(source(url, None), tmp_path / "file", QUICK._replace(retries=0), silent)
    host.put("file", BODY)
    host.deaf = True  # to If-Range
    assert get(source(url, None), tmp_path / "file") == BODY
    assert host.from_bytes == [0, 300000, 0]


def test_a_file_that_became_shorter_is_fetched_anew(host: Host, tmp_path: Path) -> None:
    host.moods = ["cut at 300000"]
    url = host.put("file", BODY, tag="none")
    with pytest.raises(DownloadError):
        fetch(source(url, b"short"), tmp_path / "file", QUICK._replace(retries=0), silent)
    host.put("file", b"short", tag="none")
    assert get(source(url, b"short"), tmp_path / "file") == b"short"


def test_errors_that_pass_are_waited_out(host: Host, tmp_path: Path) -> None:
    host.moods = ["500", "503", "429"]
    assert get(source(host.put("file", BODY)), tmp_path / "file") == BODY


def test_the_waits_double_up_to_the_longest(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(transfer.time, "sleep", waits.append)
    host.moods = ["500"] * 5
    get(source(host.put("file", BODY)), tmp_path / "file", Patience(retries=5, timeout=1, first=1, longest=5))
    assert waits == [1, 2, 4, 5, 5]


def test_errors_that_stay_are_told_at_once(host: Host, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=r"/gone: the server says 404 Not Found"):
        fetch(source(f"{host.url}/gone"), tmp_path / "file", QUICK, silent)
    assert len(host.asked) == 1


def test_a_server_that_falls_silent_is_left_and_asked_again_for_the_rest(host: Host, tmp_path: Path) -> None:
    host.moods = ["stall at 300000"]
    assert get(source(host.put("file", BODY)), tmp_path / "file", QUICK._replace(timeout=0.2)) == BODY
    assert host.from_bytes == [0, 300000]


def test_redirects_are_followed_also_for_the_rest(host: Host, tmp_path: Path) -> None:
    url = host.put("file", BODY)
    host.moods = [f"to {url}", "cut at 300000", f"to {url}"]
    arrived = fetch(source(f"{host.url}/elsewhere"), tmp_path / "file", QUICK, silent)
    assert arrived.came_from == url
    assert host.from_bytes == [0, 0, 300000, 300000]


def test_the_proxy_that_the_environment_names_is_asked(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", host.url)
    url = "http://nowhere.invalid/file"
    host.files[url], host.tags[url] = BODY, "none"
    assert get(source(url), tmp_path / "file") == BODY


def test_a_redirect_from_https_to_http_is_refused() -> None:
    request = transfer.urllib.request.Request("https://host/file")
    with pytest.raises(DownloadError, match="which is not https: refused"):
        transfer._Redirects().redirect_request(request, None, 302, "", {}, "http://host/file")


def test_a_length_that_the_server_does_not_tell_is_done_without(host: Host, tmp_path: Path) -> None:
    host.moods = ["no length"]
    assert get(source(host.put("file", BODY)), tmp_path / "file") == BODY


@pytest.mark.parametrize("mood", ["fine", "wrong"])
def test_wrong_bytes_are_told_and_never_kept(host: Host, tmp_path: Path, mood: str) -> None:
    host.moods = [mood]
    url = host.put("file", BODY if mood == "wrong" else BODY + b"more")
    with pytest.raises(DownloadError, match=r"its SHA-256 is \w{64}, but \w{64} by the list: .*nothing of it is kept"):
        fetch(source(url), tmp_path / "file", QUICK, silent)
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_length_is_told_before_anything_is_fetched(host: Host, tmp_path: Path) -> None:
    url = host.put("file", b"Please log in to this network")
    with pytest.raises(DownloadError, match="the server has 29 bytes, but it must be 1,024,000"):
        fetch(Source(url, [Claim("the list", len(BODY), {})]), tmp_path / "file", QUICK, silent)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("field", "form"), [("Repr-Digest", "sha-256=:{}:"), ("Digest", "SHA-256={}"), ("Content-MD5", "{}")]
)
def test_where_no_checksum_is_known_that_of_the_server_counts(
    host: Host, tmp_path: Path, field: str, form: str
) -> None:
    digest = hashlib.md5(BODY) if field == "Content-MD5" else hashlib.sha256(BODY)
    host.headers = {field: form.format(base64.b64encode(digest.digest()).decode())}
    url = host.put("file", BODY)
    assert get(source(url, None), tmp_path / "file") == BODY
    host.moods = ["wrong"]
    with pytest.raises(DownloadError, match="by the server"):
        fetch(source(url, None), tmp_path / "other", QUICK, silent)


def test_digests_that_say_nothing_of_the_whole_file_are_passed_over() -> None:
    headers = transfer.Message()
    headers["Content-MD5"] = base64.b64encode(bytes(16)).decode()
    headers["Digest"] = "adler32=03da0195, sha-256=short, md5=???"
    assert said_by_http(headers, whole=False) == {}


def test_a_full_disk_is_told_and_what_has_arrived_is_gone_on_with(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, real = host.put("file", BODY), transfer._store

    def full(response: Any, part: Any, name: str) -> None:
        part.file.write_bytes(BODY[:1000])
        raise OutputError(f"{part.file}: cannot be written: the disk is full")

    monkeypatch.setattr(transfer, "_store", full)
    with pytest.raises(OutputError):
        fetch(source(url), tmp_path / "file", QUICK, silent)
    monkeypatch.setattr(transfer, "_store", real)
    assert get(source(url), tmp_path / "file") == BODY
    assert host.from_bytes == [0, 1000]


# Archives


def tar(members: dict[str, bytes], *odd: tarfile.TarInfo) -> bytes:
    """A .tgz of these members, then odd ones."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for member in odd:
            archive.addfile(member, io.BytesIO(bytes(member.size)))
        for name, body in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(body)
            archive.addfile(member, io.BytesIO(body))
    return buffer.getvalue()


def zipped(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, body in members.items():
            archive.writestr(name, body)
    return buffer.getvalue()


def out_of(body: bytes, folder: Path, *names: str) -> list[bytes]:
    """Members of an archive, by name."""
    (folder / "archive").write_bytes(body)
    (folder / "inside").mkdir()
    found = unpack(folder / "archive", names, folder / "inside")
    return [found[name].read_bytes() for name in names]


@pytest.mark.parametrize("pack", [tar, zipped])
def test_members_are_taken_by_name(tmp_path: Path, pack: Callable[[dict[str, bytes]], bytes]) -> None:
    body = pack({"a/x": b"one", "b/x": b"two", "c": b"three"})
    assert out_of(body, tmp_path, "b/x", "a/x") == [b"two", b"one"]
    assert len(list((tmp_path / "inside").iterdir())) == 2


@pytest.mark.parametrize("pack", [tar, zipped])
def test_names_that_lead_out_of_the_folder_write_nothing(
    tmp_path: Path, pack: Callable[[dict[str, bytes]], bytes]
) -> None:
    (tmp_path / "deep").mkdir()
    body = pack({"../evil": b"!", "/tmp/nmt-evil": b"!", "x": b"text", "../../x": b"!"})
    assert out_of(body, tmp_path / "deep", "x") == [b"text"]
    assert {path.name for path in tmp_path.rglob("*")} == {"deep", "archive", "inside", "0-x"}
    assert not Path("/tmp/nmt-evil").exists()


def odd(name: str, kind: bytes = tarfile.REGTYPE, size: int = 0) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.size, member.linkname = kind, size, "/etc/passwd"
    return member


def a_password() -> bytes:
    body = bytearray(zipped({"x": b"text"}))
    body[body.index(b"PK\1\2") + 8] |= 1
    return bytes(body)


ODD = {
    "a link": (tar({}, odd("x", tarfile.SYMTYPE)), "its member x must be a plain file"),
    "a hard link": (tar({}, odd("x", tarfile.LNKTYPE)), "its member x must be a plain file"),
    "a device": (tar({}, odd("x", tarfile.CHRTYPE)), "its member x must be a plain file"),
    "twice": (tar({"x": b"text"}, odd("x")), "its member x must be there once"),
    "not there": (tar({"y": b"text"}), "has no member x: is this the right file"),
    "a bomb": (tar({"x": bytes(20_000_000)}), "grows over 200-fold when unpacked"),
    "cut short": (tar({"x": os.urandom(100_000)})[:50_000], "gzip file cut short"),
    "cut after the member": (tar({"x": b"text", "y": os.urandom(100_000)})[:-4], "gzip file cut short"),
    "a page": (b"<html>Not found</html>", "not a whole archive"),
    "nothing": (b"", "not a whole archive"),
    "a zip cut short": (zipped({"x": os.urandom(100_000)})[:50_000], "not a whole archive"),
    "a zip bomb": (zipped({"x": bytes(20_000_000)}), "grows over 200-fold when unpacked"),
    "a zip with a password": (a_password(), "must be a plain file without a password"),
}


@pytest.mark.parametrize(("body", "told"), ODD.values(), ids=ODD)
def test_an_archive_that_is_not_what_it_should_be_is_told(tmp_path: Path, body: bytes, told: str) -> None:
    with pytest.raises(DataError, match=told):
        out_of(body, tmp_path, "x")


# Parallel text


def written(folder: Path, part: dict[str, Any], **downloads: bytes) -> dict[str, bytes]:
    """What a part becomes, by name."""
    (folder / "downloads").mkdir(exist_ok=True)
    for name, body in downloads.items():
        (folder / "downloads" / name).write_bytes(body)
    found = write_part("text", Part.model_validate(part), folder / "downloads", folder)
    assert {path.name for path in folder.iterdir()} == {"downloads", *found}
    assert {path.name for path in (folder / "downloads").iterdir()} == downloads.keys()
    for name, of in found.items():
        body = (folder / name).read_bytes()
        assert of == (body.count(b"\n"), len(body), sha256(body))
    return {name: (folder / name).read_bytes() for name in found}


def test_lines_are_kept_to_the_byte_whatever_is_in_them(tmp_path: Path) -> None:
    odd = "a\u2028b\n\n\x85\r\n\x00 &amp; \ufeff\n".encode() + b"\xff\n"
    made = written(tmp_path, {"sides": {"en": "a", "de": "b"}}, a=odd, b=gzip.compress(b"1\n2\n3\n4\n5"))
    assert made == {"text.en": odd, "text.de": b"1\n2\n3\n4\n5\n"}


def test_what_a_killed_process_left_behind_is_removed(tmp_path: Path) -> None:
    (tmp_path / "downloads" / ".unpacking-x.tmp" / "t").mkdir(parents=True)
    (tmp_path / ".text.en.0123abcd.tmp").write_text("half")
    assert written(tmp_path, {"sides": {"en": "a", "de": "a"}}, a=b"1\n") == {"text.en": b"1\n", "text.de": b"1\n"}


def test_sides_of_unequal_length_are_told_and_nothing_is_written(tmp_path: Path) -> None:
    (tmp_path / "text.en").write_text("old")
    told = "text: its sides must have equally many lines, found 2 in en, 5 in de: nothing of it is written"
    with pytest.raises(DataError, match=told):
        written(tmp_path, {"sides": {"en": "a", "de": "b"}}, a=b"1\n2\n", b=b"1\n2\n3\n4\n5\n")
    assert {path.name for path in tmp_path.iterdir()} == {"downloads", "text.en"}
    assert (tmp_path / "text.en").read_text() == "old"


def test_another_number_of_lines_than_is_known_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="text: must have 3 lines, found 2 in en, 2 in de"):
        written(tmp_path, {"sides": {"en": "a", "de": "b"}, "lines": 3}, a=b"1\n2\n", b=b"1\n2\n")


def test_a_side_may_be_made_of_several_files_in_their_order(tmp_path: Path) -> None:
    archive = tar({"2": b"b\n", "1": b"a\n", "x": b"1\n2\n"})
    made = written(tmp_path, {"sides": {"en": ["t/1", "t/2"], "de": "t/x"}}, t=archive)
    assert made == {"text.en": b"a\nb\n", "text.de": b"1\n2\n"}


TALK = """<url>http://www.ted.com/talks/x</url>
<keywords>talks, x</keywords>
<speaker>X</speaker>
<talkid>1</talkid>
<title>X: A title</title>
<description>TED Talk: What it is about.</description>
 A sentence < that > stays.
<reviewer href="x"></reviewer>
Another one.
"""


def test_of_talks_only_what_is_said_stays(tmp_path: Path) -> None:
    talk = TALK.encode()
    made = written(tmp_path, {"sides": {"en": "a", "de": "b"}, "read": "talks"}, a=talk, b=talk)
    said = b"X: A title\nTED Talk: What it is about.\nA sentence < that > stays.\nAnother one.\n"
    assert made == {"text.en": said, "text.de": said}


SGM = """<srcset setid="x" srclang="any">
<doc docid="1" genre="news" origlang="en">
<p>
<seg id="1">One  &amp; two\u00a0three. </seg>
<seg id="2"></seg>
  <hl>
<seg id="3">\u201eHe said <b>no</b>\u201c</seg>
</doc></srcset>
"""


def test_a_test_set_is_read_as_sacrebleu_reads_it(tmp_path: Path) -> None:
    archive = tar({"s.sgm": SGM.encode()})
    made = written(tmp_path, {"sides": {"en": "t/s.sgm", "de": "t/s.sgm"}, "read": "segments"}, t=archive)
    code = f"""
from sacrebleu.dataset.fake_sgml import FakeSGMLDataset
archive = {str(tmp_path / "downloads" / "t")!r}
found = FakeSGMLDataset("x", data=["file://" + archive], md5=None, langpairs={{"en-de": ["s.sgm", "s.sgm"]}})
found._get_tarball_filename = lambda url: "t.tgz"
print(open(found.get_source_file("en-de"), encoding="utf-8", newline="").read(), end="")
"""
    home = os.environ | {"SACREBLEU": str(tmp_path / "home"), "PYTHONUTF8": "1"}
    theirs = subprocess.run([sys.executable, "-c", code], env=home, stdout=subprocess.PIPE, check=True).stdout
    assert made["text.en"] == theirs
    assert theirs.count(b"\n") == 3


def test_what_is_held_out_is_whole_sentences_and_the_same_every_time(tmp_path: Path) -> None:
    english = [f"Sentence number {n // 2}{'.' if n % 2 else '!'}" for n in range(20_000)]
    texts = {"a": "\n".join(english).encode(), "b": "\n".join(map(str, range(20_000))).encode()}
    part = {"sides": {"en": "a", "de": "b"}, "hold_out": {"by": "en", "percent": {"valid": 1, "test": 4}}}
    made = written(tmp_path, part, **texts)
    bare = {name: {line[:-1] for line in made[f"{name}.en"].splitlines()} for name in ("text", "valid", "test")}
    assert not bare["text"] & (bare["valid"] | bare["test"])
    assert not bare["valid"] & bare["test"]
    counts = {name: made[f"{name}.en"].count(b"\n") for name in bare}
    assert sum(counts.values()) == 20_000
    assert 140 < counts["valid"] < 260
    assert 680 < counts["test"] < 920
    both = zip(made["valid.en"].splitlines(), made["valid.de"].splitlines(), strict=True)
    assert all(english[int(number)].encode() == line for line, number in both)
    assert sha256(made["valid.en"]) == "62734283405ee2289258fa78caf6d4213dd962c1ffc6b3761b8fcb0d617acdad"


# The command

HELLO = {"en": b"hello\nworld\n", "de": b"hallo\nwelt\n"}


def corpus(host: Host, body: bytes | None = None, **changes: Any) -> dict[str, Any]:
    """A list of one corpus that `host` has."""
    body = body or tar({f"in/{language}": text for language, text in HELLO.items()})
    entry = {"url": host.put("hello.tgz", body), "http_only": "a test", "sha256": sha256(body), "bytes": len(body)}
    known = {
        "title": "Greetings", "languages": ["en", "de"], "folder": "hello", "licence": "CC0",
        "citation": "Nobody (2026)", "home": "nowhere", "downloads": {"hello.tgz": entry},
        "parts": {"train": {"sides": {"en": "hello.tgz/in/en", "de": "hello.tgz/in/de"}}},
    }  # fmt: skip
    return {"hello": known | changes}


@pytest.fixture
def shell(server: Server, tmp_path: Path) -> Shell:
    return Shell(server, tmp_path)


def listed(shell: Shell, catalogue: dict[str, Any]) -> list[str]:
    """The command that gets `hello` by this list, which as JSON is YAML too."""
    (shell.folder / "list.yaml").write_text(json.dumps(catalogue))
    return ["download", "hello", "--corpora", "list.yaml", "--retries", "1", "--timeout", "40"]


def test_a_corpus_is_fetched_written_and_told_with_its_licence(host: Host, shell: Shell) -> None:
    command = listed(shell, corpus(host))
    done = shell(*command)
    assert done.lines == ["data/hello/train.en\t2", "data/hello/train.de\t2"]
    assert list(read_pairs(str(shell.folder / "data/hello/train"), "en", "de")) == [
        ("hello", "hallo"),
        ("world", "welt"),
    ]
    readme = (shell.folder / "data/hello/README.hello.txt").read_text()
    for told in ("CC0", "Nobody (2026)", host.url, sha256(host.files["/hello.tgz"]), sha256(HELLO["en"])):
        assert told in readme
    assert "licence: CC0" in done.err
    assert "without encryption: a test" in done.err


def test_what_is_there_is_not_fetched_again_and_what_is_missing_is_made_again(host: Host, shell: Shell) -> None:
    command = listed(shell, corpus(host))
    first = shell(*command)
    assert shell(*command).out == first.out
    (shell.folder / "data/hello/train.de").unlink()
    assert shell(*command).out == first.out
    assert (shell.folder / "data/hello/train.de").read_bytes() == HELLO["de"]
    assert len(host.asked) == 1


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_killed_in_the_middle_it_goes_on_where_it_stopped(host: Host, shell: Shell, number: signal.Signals) -> None:
    body = tar({f"in/{language}": text for language, text in HELLO.items()} | {"rest": os.urandom(400_000)})
    command = listed(shell, corpus(host, body))
    host.moods = ["stall at 262144"]
    running = shell.start(*command).wait_for("fetching")
    part = shell.folder / "data/hello/downloads/hello.tgz.part"
    give_up = time.monotonic() + 10
    while not part.exists() or part.stat().st_size < 262144:
        assert time.monotonic() < give_up
        time.sleep(0.005)
    running.kill(number)
    shell(*command)
    assert host.from_bytes == [0, 262144]
    assert (shell.folder / "data/hello/train.en").read_bytes() == HELLO["en"]


def test_two_downloads_at_once_of_one_corpus_are_refused(host: Host, shell: Shell) -> None:
    command = listed(shell, corpus(host))
    host.moods = ["stall at 10"]
    running = shell.start(*command).wait_for("fetching")
    assert re.fullmatch(r"data/hello: another process is at work in it: .*", shell.fails(*command))
    running.kill(signal.SIGKILL)


def test_where_nothing_answers_it_is_told_what_to_do_by_hand(host: Host, shell: Shell) -> None:
    command = listed(shell, corpus(host))
    host.close()
    told = shell.fails(*command)
    assert "\n" not in told
    assert re.match(r"http://127\.0\.0\.1:\d+/hello\.tgz: out of reach: Connection refused\. Go on with", told)
    assert "put it, whole, at data/hello/downloads/hello.tgz" in told


def test_a_file_put_there_by_hand_is_taken_if_it_is_the_right_one(host: Host, shell: Shell) -> None:
    command = listed(shell, corpus(host))
    url, place, digest = shell(*command, "--urls").lines[0].split("\t")
    assert (url, digest) == (f"{host.url}/hello.tgz", f"sha256:{sha256(host.files['/hello.tgz'])}")
    put = shell.folder / place
    put.parent.mkdir(parents=True)
    put.write_bytes(b"x" * len(host.files["/hello.tgz"]))
    assert re.fullmatch(r"data/hello/downloads/hello\.tgz: not the file .*: remove it", shell.fails(*command))
    put.write_bytes(host.files["/hello.tgz"])
    shell(*command)
    assert host.asked == []


def test_where_no_checksum_is_known_it_is_computed_told_and_held_to_from_then_on(host: Host, shell: Shell) -> None:
    catalogue = corpus(host)
    entry = catalogue["hello"]["downloads"]["hello.tgz"]
    catalogue["hello"]["downloads"]["hello.tgz"] = {key: entry[key] for key in ("url", "http_only")} | {
        "checksum": "none known"
    }
    command = listed(shell, catalogue)
    body = host.files["/hello.tgz"]
    assert f"its SHA-256, kept in sources.json: {sha256(body)}" in shell(*command).err
    for path in ("downloads/hello.tgz", "train.en"):
        (shell.folder / "data/hello" / path).unlink()
    host.put("hello.tgz", tar({"in/en": b"other\n", "in/de": b"text\n"}))
    assert "by sources.json, when it was fetched before" in shell.fails(*command)


def test_a_disk_that_is_full_is_one_line(host: Host, shell: Shell) -> None:
    body = tar({"in/en": b"x\n", "in/de": b"y\n", "rest": os.urandom(300_000)})
    command = listed(shell, corpus(host, body))
    assert re.fullmatch(
        r"data/hello/downloads/hello\.tgz\.part: cannot be written: .*", shell.fails(*command, largest=100_000)
    )
    long = tar({"in/en": b"x\n" * 200_000, "in/de": b"y\n" * 200_000})
    assert "cannot be written" in shell.fails(*listed(shell, corpus(host, long)), largest=100_000)
    assert not (shell.folder / "data/hello/train.en").exists()


def test_an_archive_that_cannot_be_used_is_one_line_and_leaves_no_text(host: Host, shell: Shell) -> None:
    body = tar({"in/en": b"x\n"})
    told = shell.fails(*listed(shell, corpus(host, body)))
    assert "data/hello/downloads/hello.tgz: has no member in/de" in told
    assert [path.name for path in (shell.folder / "data/hello").glob("train*")] == []


def test_a_name_that_is_not_known_is_told_with_those_that_are(shell: Shell) -> None:
    assert shell.fails("download", "wmt15").endswith(
        "there are multi30k, tatoeba-en-de, wmt14-en-de, wmt14-en-fr, iwslt14-de-en"
    )


# The list

CATALOGUE = Catalogue.read()


MISTAKES = {
    "http": ({"url": "http://x"}, "url: must begin with https://"),
    "no url": ({"url": None}, "must have a url, or sacrebleu"),
    "no checksum": ({"sha256": None}, "must have sha256, sha1 or md5; or say"),
    "both": ({"checksum": "none known"}, "must have sha256, sha1 or md5; or say"),
    "a short checksum": ({"sha256": "abc"}, "at least 64 characters"),
    "an unknown key": ({"sha265": "abc"}, "sha265"),
}


@pytest.mark.parametrize(("change", "told"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_in_a_list_of_your_own_is_told(host: Host, tmp_path: Path, change: dict[str, Any], told: str) -> None:
    catalogue = corpus(host)
    entry = catalogue["hello"]["downloads"]["hello.tgz"]
    if "url" in change:
        del entry["http_only"]
    entry.update(change)
    (tmp_path / "list.yaml").write_text(json.dumps(catalogue))
    with pytest.raises(DataError, match=re.escape(told)):
        Catalogue.read(tmp_path / "list.yaml")


@pytest.mark.parametrize("folder", ["../x", "/x", "a/../b", ".x", ""])
def test_a_list_cannot_name_a_place_outside_of_the_folder(host: Host, tmp_path: Path, folder: str) -> None:
    (tmp_path / "list.yaml").write_text(json.dumps(corpus(host, folder=folder)))
    with pytest.raises(DataError, match=r"hello\.folder"):
        Catalogue.read(tmp_path / "list.yaml")


def test_every_recipe_finds_its_corpora_where_they_are_put() -> None:
    put = {
        f"data/{known.folder}/{prefix}.{language}"
        for known in CATALOGUE.root.values()
        for name, part in known.parts.items()
        for prefix in (name, *part.prefixes)
        for language in part.sides
    }
    for path in sorted((ROOT / "recipes").glob("*.yaml")):
        data = recipes.load(path).data
        prefixes = [entry for entry in (*data.train, data.valid, *data.test.values()) if isinstance(entry, str)]
        if any(prefix.startswith(("data/multi30k", "data/wmt14")) for prefix in prefixes):
            assert {f"{prefix}.{lang}" for prefix in prefixes for lang in (data.source, data.target)} <= put, path


def test_the_test_sets_are_those_of_sacrebleu() -> None:
    from sacrebleu.dataset import DATASETS

    for known in CATALOGUE.root.values():
        for part in known.parts.values():
            for file, wanted in known.downloads.items():
                made = [side[0].partition("/") for side in part.sides.values()]
                if wanted.sacrebleu and all(name == file for name, _, _ in made):
                    pair = DATASETS[wanted.sacrebleu].langpairs["-".join(part.sides)]
                    assert [member for _, _, member in made] == list(pair)[:2]


def test_files_of_one_name_in_one_folder_are_the_same_file() -> None:
    seen: dict[tuple[str, str], Any] = {}
    for known in CATALOGUE.root.values():
        for name, wanted in known.downloads.items():
            assert seen.setdefault((known.folder, name), wanted) == wanted


def test_the_readme_of_data_tells_where_everything_lies() -> None:
    told = (ROOT / "data" / "README.md").read_text(encoding="utf-8")
    for name, known in CATALOGUE.root.items():
        row = next(line for line in told.splitlines() if line.startswith(f"| `{name}` |"))
        assert f"`{known.folder}/`" in row
        prefixes = {prefix for part, of in known.parts.items() for prefix in (part, *of.prefixes)}
        assert {prefix for prefix in prefixes if not prefix.endswith(".lc.norm.tok")} <= set(
            re.findall(r"`([^`]+)`", row)
        )


def test_the_list_comes_along_with_the_package() -> None:
    packaged = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["nmt"]
    assert any(BUILT_IN.relative_to(ROOT / "nmt").match(pattern) for pattern in packaged)


def test_the_list_is_printed_as_a_table_and_as_json(shell: Shell) -> None:
    rows = [line.split("\t") for line in shell("download").lines]
    assert [row[0] for row in rows] == ["name", *CATALOGUE.root]
    assert {len(row) for row in rows} == {6}
    assert json.loads(shell("download", "--json").out).keys() == CATALOGUE.root.keys()


def test_downloading_needs_no_torch() -> None:
    code = "import sys, nmt.fetching, nmt.cli; print('torch' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True).stdout == "False\n"
    )


def test_a_corpus_in_python(host: Host, tmp_path: Path) -> None:
    (tmp_path / "list.yaml").write_text(json.dumps(corpus(host)))
    known = Catalogue.read(tmp_path / "list.yaml")["hello"]
    found = download("hello", known, tmp_path, QUICK, silent)
    assert found == {str(tmp_path / "hello/train.en"): 2, str(tmp_path / "hello/train.de"): 2}
