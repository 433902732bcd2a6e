"""A corpus by name: its files fetched, checked, unpacked, written as parallel text, and what is known of them told."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nmt.errors import DataError, DownloadError
from nmt.fetching.catalogue import Download, Known, size_in_words
from nmt.fetching.checksums import Claim, measure
from nmt.fetching.texts import Written, write_part
from nmt.fetching.transfer import Arrived, Patience, Report, Source, fetch, to_stderr
from nmt.files import alone_in, make_folder, whole_file, write_json

DOWNLOADS = "downloads"
RECORD = "sources.json"


def download(
    name: str, known: Known, folder: Path, patience: Patience | None = None, report: Report = to_stderr
) -> dict[str, int]:
    """Gets a corpus into its place under `folder`; gives the lines of each side that is there then, by path.

    What is there is not fetched again. sources.json keeps where each file came from, when, and its SHA-256.
    Raises `DownloadError` where a file cannot be had or is not what it must be, `DataError` where what it holds is
    not the text that it should be, `OutputError` where the disk refuses or another process is at it.
    """
    place = folder / known.folder
    make_folder(place / DOWNLOADS)
    with alone_in(place):
        record = _Record(place / RECORD)
        if files := record.whole(name, known):
            report(f"{name}: is in {place} already; to get it again, remove its files")
            return {str(place / path): count for path, count in files.items()}
        report(f"{name}: {known.title}\n  licence: {known.licensed}\n  cite: {known.citation}\n  home: {known.home}")
        for number, (file, wanted) in enumerate(known.downloads.items()):
            more = len(known.downloads) - number - 1
            _get(file, wanted, place / DOWNLOADS, record, patience or Patience(), report, _in_hand(name, more))
        written: dict[str, Written] = {}
        for prefix, part in known.parts.items():
            written |= write_part(prefix, part, place / DOWNLOADS, place)
        record.corpus(name, known, written)
        _write_readme(place / f"README.{name}.txt", name, known, record)
        kept = sum(path.stat().st_size for path in (place / DOWNLOADS).iterdir())
        report(f"{name}: done. {place / DOWNLOADS} keeps what was fetched, {size_in_words(kept)}, and may be removed")
        return {str(place / path): of.lines for path, of in written.items()}


def by_hand(known: Known, folder: Path) -> Iterator[tuple[str, str, str]]:
    """For whoever fetches by other means: URL, where to put the file, and its checksum."""
    for file, wanted in known.downloads.items():
        source = _source(file, wanted, {})
        digests = [f"{algorithm}:{digest}" for claim in source.claims for algorithm, digest in claim.digests.items()]
        yield source.url, str(folder / known.folder / DOWNLOADS / file), " ".join(digests) or "no checksum known"


class _Record:
    """sources.json: what was fetched from where, and what was made of it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            value = json.loads(path.read_bytes()) if path.exists() else {}
            self.downloads: dict[str, Any] = dict(value.get("downloads", {}))
            self.corpora: dict[str, Any] = dict(value.get("corpora", {}))
        except (OSError, ValueError, AttributeError, TypeError) as error:
            raise DataError(f"{path}: cannot be read ({error}): mend or remove it") from None

    def save(self) -> None:
        write_json(self._path, {"downloads": self.downloads, "corpora": self.corpora})

    def whole(self, name: str, known: Known) -> dict[str, int]:
        """The files of a corpus and their lines, if all are there, as they were written from what is wanted now."""
        noted = self.corpora.get(name, {})
        if noted.get("from") != known.model_dump(exclude_none=True, include={"downloads", "parts"}):
            return {}
        files = {self._path.parent / path: of for path, of in noted.get("files", {}).items()}
        if any(not path.is_file() or path.stat().st_size != of["bytes"] for path, of in files.items()):
            return {}
        return {path.relative_to(self._path.parent).as_posix(): of["lines"] for path, of in files.items()}

    def corpus(self, name: str, known: Known, written: dict[str, Written]) -> None:
        """Notes that a corpus is there, whole."""
        made_from = known.model_dump(exclude_none=True, include={"downloads", "parts"})
        self.corpora[name] = {"files": {path: of._asdict() for path, of in written.items()}, "from": made_from}
        self.save()

    def download(self, file: str, url: str, arrived: Arrived) -> None:
        """Notes that a file is there."""
        when = datetime.now(UTC).isoformat(timespec="seconds")
        measured = arrived.measured
        self.downloads[file] = {
            "url": url, "from": arrived.came_from, "when": when, "bytes": measured.bytes, "sha256": measured.sha256,
            "agrees with": measured.checked, **arrived.version,
        }  # fmt: skip
        self.save()


def _source(file: str, wanted: Download, noted: dict[str, Any]) -> Source:
    """Where a file is, and what it must be by the list, by sacreBLEU, or by what was fetched from there before."""
    if wanted.sacrebleu is not None:
        url, digest = _of_sacrebleu(wanted.sacrebleu)
        return Source(url, [Claim("sacreBLEU's list", None, {"md5": digest})])
    claims = [Claim("the list of corpora", wanted.bytes, wanted.digests)]
    if not wanted.digests and noted.get("url") == wanted.url and "sha256" in noted:
        claims.append(Claim(f"{RECORD}, when it was fetched before", noted.get("bytes"), {"sha256": noted["sha256"]}))
    assert wanted.url
    return Source(wanted.url, claims)


def _of_sacrebleu(name: str) -> tuple[str, str]:
    """The URL and the MD5 of the archive of a test set. Older lists have http; the host has https too."""
    from sacrebleu.dataset import DATASETS

    if name not in DATASETS:
        raise DataError(f"sacreBLEU knows no test set {name}: `pip install -U sacrebleu`")
    (url, *_), (digest, *_) = DATASETS[name].data or [], DATASETS[name].md5 or []
    return url.replace("http://", "https://", 1), digest


def _in_hand(name: str, more: int) -> str:
    others = f"; {more} more may be missing, which `nmt download {name} --urls` lists" if more else ""
    return "Go on with the same command, or fetch this file by other means and put it, whole, at {path}" + others


def _get(
    file: str, wanted: Download, folder: Path, record: _Record, patience: Patience, report: Report, mend: str
) -> None:
    """Sees to it that a file is there, and is what it must be."""
    path, source = folder / file, _source(file, wanted, record.downloads.get(file, {}))
    if path.exists():
        try:
            measured = measure(path, source.claims)
        except DownloadError as error:
            raise DownloadError(f"{path}: not the file that it must be: {error}: remove it") from None
        if record.downloads.get(file, {}).get("sha256") != measured.sha256:  # put there by hand
            record.download(file, source.url, Arrived(measured, "put there by hand", {}))
        report(f"{file}: is there already, {measured.bytes:,} bytes, agrees with: {measured.checked}")
        return
    if wanted.http_only:
        report(f"{file}: is fetched without encryption: {wanted.http_only}")
    try:
        arrived = fetch(source, path, patience, report)
    except DownloadError as error:
        raise DownloadError(f"{error}. {mend.format(path=path)}") from None
    record.download(file, source.url, arrived)
    report(f"{file}: {arrived.measured.bytes:,} bytes, agrees with: {arrived.measured.checked}")
    if wanted.checksum:
        report(
            f"{file}: no checksum is known to compare with; its SHA-256, kept in {RECORD}: {arrived.measured.sha256}"
        )


def _write_readme(path: Path, name: str, known: Known, record: _Record) -> None:
    """What people must know who find these files: licence, citation, origin, checksums."""
    lines = [
        f"{name}: {known.title}",
        "",
        f"Licence: {known.licensed}",
        f"Cite: {known.citation}",
        f"Home: {known.home}",
    ]
    lines += ["", "Fetched by `nmt download`. The licence of the toolkit does not apply to these files.", "", "From:"]
    for file in known.downloads:
        noted = record.downloads[file]
        lines += [f"  {noted['url']}", f"    {noted['when']}, {noted['bytes']:,} bytes, SHA-256 {noted['sha256']}"]
        lines += [f"    agrees with: {noted['agrees with']}"]
    lines += ["", "Files:"]
    for file, of in record.corpora[name]["files"].items():
        lines.append(f"  {file}: {of['lines']:,} lines, {of['bytes']:,} bytes, SHA-256 {of['sha256']}")
    with whole_file(path, "w") as out:
        out.write("\n".join(lines) + "\n")
