"""Read and write the output folder of a batch, which has this layout.

::

    OUT/version=extract-saliency_student_v4-60dd.../title=films%2Fbear/part-0.parquet
    OUT/_status.csv                                   one row per title of the last run
    OUT/_eyeline/versions/VERSION.json                model, options and eyeline release
    OUT/_eyeline/titles/VERSION/TITLE.json            state of a title, digests of its files
    OUT/_eyeline/work/VERSION/TITLE-SOURCE/00003.segment   finished segments of unfinished titles
    OUT/_eyeline/lock                                 locked by the running batch

Readers of Parquet datasets skip names that begin with an underscore, so they see only finished titles. A
worker writes the segments, then the part (the result file of a title), then the record of the title,
and removes the segments last. A crash between any two of these steps loses no results.

The output folder (`Place`) is local, or an fsspec URL. A file appears whole or not at all: a local file
is renamed (`eyeline.files`), and an object store shows an upload only when it is complete. `exclusive`
lets one batch at a time use the folder.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

from eyeline.batch.manifest import filesystem, is_url, local_path, reason_of
from eyeline.digests import sha256_hex
from eyeline.errors import BatchError, EyelineError, OutputError
from eyeline.files import is_temporary, output_error, write_bytes
from eyeline.locks import file_lock

STATE = "_eyeline"
STATUS_FILE = "_status.csv"
LAYOUT = 1
"""Number of the folder layout; version names are hashed from it, so no version mixes two layouts."""

SEGMENT = ".segment"
_LONGEST = 120  # characters of a title in a file name; file systems take 255 bytes


def slug(title: str) -> str:
    """Return the folder name of a title, percent-encoded as in Hive; a long name ends in a digest."""
    quoted = quote(title, safe=" ,()")
    if quoted.startswith("."):  # names that begin with a dot are not listed
        quoted = f"%2E{quoted[1:]}"
    if len(quoted) <= _LONGEST:
        return quoted
    return f"{quoted[:_LONGEST].rsplit('%', 1)[0]}-{sha256_hex(title.encode())[:12]}"


class Place:
    """The output folder, which is local or an fsspec URL.

    Args:
        url: path or URL of the folder.

    Raises:
        MissingExtraError: fsspec is not installed.
        BatchError: the protocol of the URL is unknown, or its package is not installed.
    """

    def __init__(self, url: str) -> None:
        self.local = None if is_url(url) else Path(local_path(url))
        self.url = str(self.local or url.rstrip("/"))
        self._fs, self._root = filesystem(self.url)

    @contextlib.contextmanager
    def _errors(self, name: str, what: str) -> Iterator[None]:
        """Turn an exception into an `OutputError`, except for a missing file or an `EyelineError`."""
        try:
            yield
        except (FileNotFoundError, NotADirectoryError, EyelineError):
            raise
        except Exception as exc:
            hint = "check its permissions" if self.local else "check its address and credentials"
            raise OutputError(
                f"{self.url}/{name}: can't be {what}: {reason_of(exc)}",
                f"{hint}, and rerun the batch to continue it",
            ) from exc

    def write(self, name: str, data: bytes) -> None:
        """Write a file, which appears whole or not at all.

        Raises:
            OutputError: the file can't be written.
        """
        try:
            if self.local:
                self.make_folder(name)
                write_bytes(self.local / name, data)
                return
            with self._errors(name, "written"):
                self._upload(f"{self._root}/{name}", data)
        except FileNotFoundError as exc:
            raise OutputError(
                f"{self.url}/{name}: can't be written: no such bucket or folder",
                "create the bucket",
            ) from exc

    def make_folder(self, name: str) -> None:
        """Create the folder of a file, if the output folder is local."""
        if self.local:
            try:
                (self.local / name).parent.mkdir(parents=True, exist_ok=True)
            except OSError as exc:
                raise output_error(self.local / name, exc) from exc

    def _upload(self, target: str, data: bytes) -> None:
        """Upload a file; create its folders if needed, but never a bucket."""
        try:
            self._fs.pipe_file(target, data)
        except FileNotFoundError:
            top = target[: target.find("/", 1)]
            if not self._fs.isdir(top):
                raise
            self._fs.makedirs(target.rsplit("/", 1)[0], exist_ok=True)
            self._fs.pipe_file(target, data)

    def read(self, name: str) -> bytes | None:
        """Return the bytes of a file; None if the file is missing."""
        try:
            with self._errors(name, "read"):
                data: bytes = self._fs.cat_file(f"{self._root}/{name}")
        except (FileNotFoundError, NotADirectoryError):
            return None
        return data

    def exists(self, name: str) -> bool:
        """Return whether a file exists."""
        try:
            with self._errors(name, "read"):
                return bool(self._fs.info(f"{self._root}/{name}")["type"] == "file")
        except (FileNotFoundError, NotADirectoryError):
            return False

    def names(self, folder: str) -> list[str]:
        """Return the sorted names of the files in a folder; an empty list if the folder is missing."""
        self._fs.invalidate_cache()
        try:
            with self._errors(folder, "read"):
                found = self._fs.ls(f"{self._root}/{folder}", detail=False)
        except (FileNotFoundError, NotADirectoryError):
            return []
        names = [PurePosixPath(f).name for f in found]
        return sorted(name for name in names if not name.startswith("."))

    def remove(self, name: str) -> None:
        """Remove a file, or a folder with all files in it. A missing file is not an error."""
        if self.local:  # another process may remove the same folder
            shutil.rmtree(self.local / name, ignore_errors=True)
            with contextlib.suppress(OSError):
                (self.local / name).unlink()
            return
        with contextlib.suppress(FileNotFoundError), self._errors(name, "removed"):
            self._fs.rm(f"{self._root}/{name}", recursive=True)

    def sweep(self) -> None:
        """Remove the temporary files of killed writers; call it only while no worker writes."""
        if self.local:  # an object store never shows an incomplete upload
            for folder, _, names in os.walk(self.local):
                for name in filter(is_temporary, names):
                    (Path(folder) / name).unlink(missing_ok=True)


RENEW = 15.0
STALE = 60.0
"""Seconds. A lease is renewed every `RENEW` seconds, and expires at an age of `STALE` seconds."""

_PAUSE = 1.0  # seconds after which a new lease is read back

_LOCK = f"{STATE}/lock"


def _who() -> dict[str, Any]:
    return {"pid": os.getpid(), "host": socket.gethostname()}


def _refusal(place: Place, note: str, hint: str = "wait for that batch, or stop it") -> BatchError:
    holder = _parse_note(note)
    who = f"process {holder.get('pid', '?')} on {holder.get('host', '?')}"
    return BatchError(f"{place.url}: another batch is at work there, {who}", hint)


@contextlib.contextmanager
def exclusive(place: Place, *, renew: float = RENEW, stale: float = STALE) -> Iterator[None]:
    """Lock an output folder while the block runs.

    A local folder is locked with flock, which ends with the process. An object store has no locks, so a
    lease file is written there, and renewed until the block ends.

    Args:
        place: the output folder to lock.
        renew: seconds between two renewals of the lease.
        stale: age in seconds at which a lease expires. The clocks of all machines must differ by less.

    Raises:
        BatchError: another batch has locked the folder.
        OutputError: the folder can't be written to.
    """
    if place.local:
        place.make_folder(_LOCK)
        note = json.dumps(_who())
        with file_lock(place.local / _LOCK, lambda other: _refusal(place, other), note=note):
            yield
    else:
        with _lease(place, renew, stale):
            yield


@contextlib.contextmanager
def _lease(place: Place, every: float, stale: float) -> Iterator[None]:
    mine = _who() | {"nonce": os.urandom(8).hex()}

    def renew() -> None:
        place.write(_LOCK, json.dumps(mine | {"time": time.time()}).encode())

    looked = time.monotonic()
    note = (place.read(_LOCK) or b"").decode()
    left = stale - (time.time() - float(_parse_note(note).get("time", 0)))
    if left > 0:
        hint = f"wait for that batch, or stop it; if it was killed, try again in {left:.0f} s"
        raise _refusal(place, note, hint)
    renew()
    # If two batches begin at once, the second lease overwrites the first; the first batch sees that here.
    # If this batch wrote slowly, the other may have looked before that: wait until it renews its lease.
    prompt = time.monotonic() - looked < 0.8 * _PAUSE
    time.sleep(_PAUSE if prompt else every + _PAUSE)
    note = (place.read(_LOCK) or b"").decode()
    if _parse_note(note).get("nonce") != mine["nonce"]:
        raise _refusal(place, note)
    ended = threading.Event()

    def keep() -> None:
        while not ended.wait(every):
            with contextlib.suppress(OutputError):  # the next renewal may succeed
                renew()

    keeper = threading.Thread(target=keep, name="eyeline-lease", daemon=True)
    keeper.start()
    try:
        yield
    finally:
        ended.set()
        keeper.join()
        place.remove(_LOCK)


def _parse_note(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


@dataclass(frozen=True)
class Version:
    """A partition of the results; each command, model and set of options has a separate partition.

    Attributes:
        name: name of the partition.
        facts: model, options and all else that affects the rows, as JSON values.
    """

    name: str
    facts: dict[str, Any]


def version_of(command: str, model: str, facts: dict[str, Any]) -> Version:
    """Return the version that a command writes with these facts.

    Args:
        command: `extract`, `score` or `roi-map`.
        model: model id, which becomes a part of the name.
        facts: see `Version`.
    """
    known = {"command": command, "layout": LAYOUT, **facts}
    text = json.dumps(known, sort_keys=True, separators=(",", ":"))
    short = slug(model.rsplit("/", 1)[-1].removesuffix(".onnx"))[:48]
    return Version(f"{command}-{short}-{sha256_hex(text.encode())[:12]}", known)


@dataclass
class TitleRecord:
    """The record of a title that is finished or has failed.

    Attributes:
        title: name of the title.
        state: `ok` or `failed`.
        reason: why the title failed; empty for `ok`.
        source: path or URL of the source.
        source_sha256: SHA-256 of the source in hex; for a pair, two digests joined by `+`.
        stamp: `Title.stamp` when the sources were read.
        part: path of the result file ("part") below the output folder.
        part_sha256: SHA-256 of the result file in hex.
        frames: number of rows in the result file.
        segments: number of segments that the title was split into.
        warnings: lines to show to the user.
    """

    title: str
    state: str
    source: str
    stamp: dict[str, Any]
    reason: str = ""
    source_sha256: str = ""
    part: str = ""
    part_sha256: str = ""
    frames: int = 0
    segments: int = 1
    warnings: list[str] = field(default_factory=list)


class Store:
    """The files of one version in the output folder of a batch; `url` is its path or fsspec URL."""

    def __init__(self, url: str, version: Version) -> None:
        self.place = Place(url)
        self.version = version

    def begin(self) -> None:
        """Write the facts of the version; call this before its first result file is written.

        Raises:
            BatchError: the folder has a version of this name with other facts.
            OutputError: the folder can't be written to.
        """
        name = f"{STATE}/versions/{self.version.name}.json"
        text = json.dumps(self.version.facts, indent=1, sort_keys=True).encode()
        there = self.place.read(name)
        if there is None:
            self.place.write(name, text)
        elif there != text:
            raise BatchError(
                f"{name}: describes other options than those of this batch",
                "use another output folder",
            )

    def part_name(self, title: str, file: str) -> str:
        """Return the path of the result file of a title below the output folder."""
        return f"version={self.version.name}/title={slug(title)}/{file}"

    def _record_name(self, title: str) -> str:
        return f"{STATE}/titles/{self.version.name}/{slug(title)}.json"

    def record(self, title: str) -> TitleRecord | None:
        """Read the record of a title; None if it has no record.

        Raises:
            BatchError: the record is invalid.
        """
        data = self.place.read(self._record_name(title))
        return None if data is None else _parse(self._record_name(title), data)

    def write_record(self, record: TitleRecord) -> None:
        """Write the record of a title, after its result file is written."""
        text = json.dumps(asdict(record), indent=1, sort_keys=True).encode()
        self.place.write(self._record_name(record.title), text)

    def work_folder(self, title: str, source_sha256: str) -> str:
        """Return the folder for the segments of a title whose sources have these digests."""
        if "+" in source_sha256:  # a pair: hash the two digests
            source_sha256 = sha256_hex(source_sha256.encode())
        return f"{STATE}/work/{self.version.name}/{slug(title)}-{source_sha256[:12]}"

    def finished_segments(self, folder: str) -> set[int]:
        """Return the numbers of the finished segments in a work folder."""
        names = self.place.names(folder)
        return {int(n.removesuffix(SEGMENT)) for n in names if n.endswith(SEGMENT)}


def segment_name(folder: str, number: int) -> str:
    """Return the path of a segment: Parquet, with a suffix that readers of datasets skip."""
    return f"{folder}/{number:05d}{SEGMENT}"


def _parse(name: str, data: bytes) -> TitleRecord:
    try:
        return TitleRecord(**json.loads(data))
    except (ValueError, TypeError) as exc:
        raise BatchError(
            f"{name}: is not the record of a title: {exc}",
            "remove the file and rerun the batch to process the title again",
        ) from exc


@dataclass
class VersionStatus:
    """The state of the titles of one version.

    Attributes:
        version: what made the results: command, model and options.
        records: the records of the version's titles, sorted by title.
    """

    version: Version
    records: list[TitleRecord]


def read_status(output: str, *, verify: bool = False) -> list[VersionStatus]:
    """Read the title records of all versions; this works while a batch runs, too.

    Args:
        output: path or URL of the output folder.
        verify: also compute the SHA-256 of each result file; if it has changed, the title becomes `failed`.

    Raises:
        BatchError: the folder is not the output folder of a batch, or a record is invalid.
    """
    place = Place(output)
    versions = [
        Version(name.removesuffix(".json"), json.loads(data))
        for name, data in _files(place, f"{STATE}/versions")
    ]
    if not versions:
        raise BatchError(
            f"{output}: is not the output folder of a batch",
            "give the folder that the batch had as --output",
        )
    found = []
    for version in versions:
        folder = f"{STATE}/titles/{version.name}"
        records = [_parse(f"{folder}/{name}", data) for name, data in _files(place, folder)]
        records.sort(key=lambda record: record.title)
        for record in records if verify else ():
            if record.state == "ok" and (reason := _damage(place, record)):
                record.state, record.reason = "failed", reason
        found.append(VersionStatus(version, records))
    return found


def _files(place: Place, folder: str) -> Iterator[tuple[str, bytes]]:
    for name in place.names(folder):
        data = place.read(f"{folder}/{name}")
        if data is not None:
            yield name, data


def _damage(place: Place, record: TitleRecord) -> str:
    data = place.read(record.part)
    if data is None:
        return f"{record.part} is missing"
    return "" if sha256_hex(data) == record.part_sha256 else f"{record.part} has other bytes"
