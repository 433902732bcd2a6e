"""Whether a file is what it must be: its length and its checksums, whoever says what they are."""

import base64
import binascii
import hashlib
import re
from collections.abc import Mapping
from email.message import Message
from pathlib import Path
from typing import NamedTuple

from nmt.errors import DataError, DownloadError

_CHUNK = 1 << 20
_NAMES = {"sha256": "SHA-256", "sha1": "SHA-1", "md5": "MD5"}
# How HTTP calls algorithms: in Repr-Digest (RFC 9530) and in Digest (RFC 3230).
_OF_HTTP = {"sha-256": "sha256", "md5": "md5"}


class Claim(NamedTuple):
    """What somebody says that a file is: who, its length, its checksums by algorithm."""

    who: str
    size: int | None
    digests: Mapping[str, str]


class Measured(NamedTuple):
    """What a file is: its length, its SHA-256, and what it was found to agree with, in words."""

    bytes: int
    sha256: str
    checked: str


def measure(path: Path, claims: list[Claim]) -> Measured:
    """What the file at `path` is, held against all that is said of it.

    Raises `DownloadError` where it is not what somebody says, `DataError` where it cannot be read.
    """
    states = {name: hashlib.new(name) for name in {"sha256", *(name for claim in claims for name in claim.digests)}}
    size = 0
    try:
        with open(path, "rb") as file:
            while chunk := file.read(_CHUNK):
                size += len(chunk)
                for state in states.values():
                    state.update(chunk)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None
    agreed = []
    for claim in claims:
        if claim.size not in (None, size):
            raise DownloadError(f"{size:,} bytes, but {claim.size:,} by {claim.who}")
        for name, digest in claim.digests.items():
            if states[name].hexdigest() != digest:
                raise DownloadError(f"its {_NAMES[name]} is {states[name].hexdigest()}, but {digest} by {claim.who}")
            agreed.append(f"{_NAMES[name]} by {claim.who}")
        if claim.size is not None and not claim.digests:
            agreed.append(f"length by {claim.who}")
    return Measured(size, states["sha256"].hexdigest(), ", ".join(agreed) or "nothing")


def said_by_http(headers: Message, whole: bool) -> dict[str, str]:
    """The checksums of the whole file that a server sends along; `whole` if it sends all of the file."""
    fields = [*headers.get_all("Repr-Digest", []), *headers.get_all("Digest", [])]
    found = [pair.strip().partition("=")[::2] for field in fields for pair in field.split(",")]
    if whole:  # of what is sent, which may be a part
        found += [("md5", value) for value in headers.get_all("Content-MD5", [])]
    digests = {}
    for name, value in found:
        algorithm = _OF_HTTP.get(name.lower())
        digest = _hex(value)
        if algorithm and len(digest) == 2 * hashlib.new(algorithm).digest_size:
            digests[algorithm] = digest
    return digests


def _hex(value: str) -> str:
    """What stands in base64, perhaps between colons, in hexadecimal digits; empty where it is not base64."""
    try:
        return base64.b64decode(re.sub(r"^:|:$", "", value.strip()), validate=True).hex()
    except (binascii.Error, ValueError):
        return ""
