"""One file from one URL: gone on with where it stopped, tried again when cut, taken for whole only when checked.

What has arrived lies in FILE.part, and in FILE.part.json which version of the file that is: its entity tag, or the
date of its last change. With these an interrupted transfer asks for the rest and for nothing else (Range and
If-Range, RFC 9110, sections 13.1.5 and 14.2).
"""

import http.client
import os
import re
import socket
import ssl
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import suppress
from email.message import Message
from pathlib import Path
from typing import IO, Any, NamedTuple

from tqdm import tqdm

from nmt.errors import DataError, DownloadError
from nmt.fetching.checksums import Claim, Measured, measure, said_by_http
from nmt.files import output_error, read_json, write_json

Report = Callable[[str], None]

_CHUNK = 1 << 16
_AGENT = "nmt (machine translation toolkit; nmt download)"
_LATER = (408, 425, 429, 500, 502, 503, 504)  # a server may do better when asked again
_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


class Patience(NamedTuple):
    """How often a transfer that gets nowhere is tried again, how long a silent server is waited for, in seconds, and
    the waits between attempts, which double from the first to the longest."""

    retries: int = 5
    timeout: float = 60
    first: float = 1
    longest: float = 60


class Source(NamedTuple):
    """Where a file is, and what is said that it is."""

    url: str
    claims: list[Claim]


class Arrived(NamedTuple):
    """A whole file: what it is, and what the server said of it."""

    measured: Measured
    came_from: str
    version: Mapping[str, str]


class _Fault(Exception):
    """What another attempt may mend; `wait` is how many seconds the server asks for."""

    def __init__(self, text: str, wait: float | None = None) -> None:
        super().__init__(text)
        self.wait = wait


class _Part:
    """What has arrived of a file, and of which version."""

    def __init__(self, path: Path, url: str) -> None:
        self.file = path.with_name(f"{path.name}.part")
        self.notes = path.with_name(f"{path.name}.part.json")
        self.url = url
        self.pieced = False  # whether what is there came in more than one piece, perhaps of different files
        self.said: dict[str, Any] = {}
        with suppress(DataError):  # none, or cut short: then it is not known what has arrived
            said = read_json(self.notes)
            self.said = said if isinstance(said, dict) and said.get("url") == url else {}
        if not self.said:
            self.clear()
        self.pieced = self.whole

    @property
    def size(self) -> int:
        """Bytes that are there."""
        return self.file.stat().st_size if self.file.exists() else 0

    @property
    def whole(self) -> bool:
        """Whether all has arrived that the server announced."""
        return self.said.get("length") == self.size > 0

    def clear(self) -> None:
        """Forgets all that has arrived."""
        self.said, self.pieced = {}, False
        for path in (self.file, self.notes):
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise output_error(path, error) from None

    def headers(self, checkable: bool) -> dict[str, str]:
        """What to ask for: the rest, if it can be told that it is the rest of the same file."""
        tag = self.said.get("etag", "")
        same = tag if tag.startswith('"') else self.said.get("modified")  # a weak tag does not vouch for bytes
        if not self.size or not (same or checkable):
            return {}
        return {"Range": f"bytes={self.size}-"} | ({"If-Range": same} if same else {})

    def begin(self, headers: Message, came_from: str, partial: bool) -> None:
        """Notes what the server says of the file; leaves nothing of another version."""
        start, length = _extent(headers, partial)
        told = {"etag": headers["ETag"], "modified": headers["Last-Modified"], "length": length}
        now = {key: value for key, value in told.items() if value is not None}
        if not partial:
            self.clear()
        elif start != self.size or any(self.said.get(key, value) != value for key, value in now.items()):
            self.clear()
            raise _Fault("the file has changed: from its start", 0)
        self.pieced |= self.size > 0
        digests = self.said.get("digests", {}) | said_by_http(headers, not partial)
        noted = self.said | now | {"url": self.url, "from": came_from, "digests": digests}
        if noted != self.said:
            self.said = noted
            write_json(self.notes, noted)

    def claim(self) -> Claim:
        """What the server says that the file is."""
        return Claim("the server", self.said.get("length"), self.said.get("digests", {}))


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but never from https to what anybody on the way could change."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        """The request to make instead. Raises `DownloadError` for a redirect to a scheme that is less safe."""
        if not newurl.startswith(("https://", f"{req.type}://")):
            raise DownloadError(f"{req.full_url}: redirects to {newurl}, which is not https: refused")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def to_stderr(line: str) -> None:
    """Tells a line, above the bar if there is one."""
    tqdm.write(line, file=sys.stderr)
    sys.stderr.flush()


def fetch(source: Source, path: Path, patience: Patience, report: Report = to_stderr) -> Arrived:
    """Fetches the file of `source` to `path`, going on with what has arrived of it before.

    Pieces that together are not the file that it must be may be of two versions: it is then fetched once in one piece.

    Raises `DownloadError` where it cannot be had, or is not what it must be; `OutputError` where the disk refuses.
    What has arrived by then is kept for the next time, unless it is wrong.
    """
    part = _Part(path, source.url)
    for last in (False, True):
        _receive_all(source, part, path.name, patience, report)
        try:
            measured = measure(part.file, [*source.claims, part.claim()])
            break
        except DownloadError as error:
            pieced = part.pieced
            part.clear()
            if last or not pieced:
                mend = "it has changed at its source, or something on the way changes it; nothing of it is kept"
                raise DownloadError(f"{source.url}: not the file that it must be: {error}: {mend}") from None
            report(f"{path.name}: put together from pieces it is not the file that it must be: once more, in one piece")
    try:
        with open(part.file, "rb") as file:
            os.fsync(file.fileno())
        os.replace(part.file, path)
    except OSError as error:
        raise output_error(path, error) from None
    version: dict[str, str] = {name: part.said[name] for name in ("etag", "modified") if name in part.said}
    arrived = Arrived(measured, part.said.get("from", source.url), version)
    part.clear()
    return arrived


def _receive_all(source: Source, part: _Part, name: str, patience: Patience, report: Report) -> None:
    """Receives until all is there, with pauses that grow; whoever gets further may go on for ever."""
    failures = 0
    while not part.whole:
        before = part.size
        try:
            _receive(source, part, name, patience.timeout, report)
            return
        except _Fault as fault:
            failures = 1 if part.size > before else failures + 1
            if failures > patience.retries:
                raise DownloadError(f"{source.url}: {fault}") from None
            wait = min(patience.first * 2 ** (failures - 1) if fault.wait is None else fault.wait, patience.longest)
            report(f"{name}: {fault}; trying again" + (f" in {wait:.0f} s" if wait >= 1 else ""))
            time.sleep(wait)


def _receive(source: Source, part: _Part, name: str, timeout: float, report: Report) -> None:
    """One attempt to receive the rest."""
    with _opened(source, part, timeout) as response:
        part.begin(response.headers, response.url, response.status == http.client.PARTIAL_CONTENT)
        length = part.said.get("length")
        for who, size, _ in source.claims:
            if length is not None and size not in (None, length):
                part.clear()
                found = f"the server has {length:,} bytes, but it must be {size:,} by {who}"
                mend = "it has changed at its source, or something on the way answers instead"
                raise DownloadError(f"{source.url}: not the file that it must be: {found}: {mend}")
        rest = f", from byte {part.size:,} on" if part.size else ""
        report(f"{name}: fetching {'a file' if length is None else f'{length:,} bytes'} from {response.url}{rest}")
        _store(response, part, name)
    if length is not None and part.size != length:
        raise _Fault(f"the connection was cut after {part.size:,} of {length:,} bytes")


def _store(response: Any, part: _Part, name: str) -> None:
    """Appends what comes to what is there."""
    bar = tqdm(
        total=part.said.get("length"),
        initial=part.size,
        desc=name,
        unit="B",
        unit_scale=True,
        leave=False,
        disable=None,
    )
    try:
        with bar, open(part.file, "ab") as file:
            while chunk := _chunk(response):
                file.write(chunk)
                file.flush()  # what has arrived is there, whatever happens next
                bar.update(len(chunk))
    except OSError as error:
        raise output_error(part.file, error) from None


def _chunk(response: IO[bytes]) -> bytes:
    try:
        return response.read1(_CHUNK)  # type: ignore[attr-defined]
    except TimeoutError:
        raise _Fault("the server fell silent") from None
    except (OSError, http.client.HTTPException):
        raise _Fault("the connection was cut") from None


def _opened(source: Source, part: _Part, timeout: float) -> Any:
    """The answer of the server. Raises `_Fault` for what may pass, `DownloadError` for what will not."""
    url = source.url
    headers = {"User-Agent": _AGENT, **part.headers(any(claim.digests for claim in source.claims))}
    opener = urllib.request.build_opener(_Redirects)  # with the proxies that the environment names
    try:
        return opener.open(urllib.request.Request(url, headers=headers), timeout=timeout)
    except urllib.error.HTTPError as error:
        with error:
            if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
                part.clear()
                raise _Fault("the file is shorter than what had arrived: from its start", 0) from None
            if error.code not in _LATER:
                raise DownloadError(f"{url}: the server says {error.code} {error.reason}") from None
            raise _Fault(f"the server says {error.code} {error.reason}", _seconds(error.headers)) from None
    except (OSError, http.client.HTTPException) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise DownloadError(f"{url}: its certificate is not to be trusted ({reason.verify_message})") from None
        raise _Fault(_why_out_of_reach(reason)) from None


def _why_out_of_reach(reason: Any) -> str:
    if isinstance(reason, socket.gaierror):
        return "out of reach, for this host has no address here: this machine may be offline"
    if isinstance(reason, TimeoutError):
        return "out of reach: no answer in time"
    return f"out of reach: {getattr(reason, 'strerror', None) or reason}"


def _extent(headers: Message, partial: bool) -> tuple[int | None, int | None]:
    """Where what is sent begins in the file, and how long the file is; None where the server does not say."""
    if not partial:
        length = headers.get("Content-Length", "")
        return 0, int(length) if length.isdecimal() else None
    found = _RANGE.fullmatch(headers.get("Content-Range", ""))
    if not found:
        return None, None
    return int(found[1]), int(found[2]) if found[2] != "*" else None


def _seconds(headers: Message) -> float | None:
    """How long the server asks to wait."""
    after = headers.get("Retry-After", "")
    return float(after) if after.isdecimal() else None
