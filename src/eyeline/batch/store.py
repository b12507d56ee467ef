"""What a batch leaves: the layout of its output folder, and the only reader and writer of it.

::

    OUT/version=extract-saliency_student_v4-60dd.../title=films%2Fbear/part-0.parquet
    OUT/_status.csv                                   a row per title, of the last run
    OUT/_eyeline/versions/VERSION.json                what a version means: model, options, eyeline
    OUT/_eyeline/titles/VERSION/TITLE.json            how a title ended, and from which bytes
    OUT/_eyeline/work/VERSION/TITLE-SOURCE/00003.segment   finished segments of unfinished titles
    OUT/_eyeline/lock                                 held by the batch that runs

Readers of datasets skip names that begin with an underscore, so they see finished titles alone. The
order of writes makes a death between any two harmless: segments, then the part, then the record of
the title, and only then are the segments removed.

The output folder (`Place`) is local, or anything that fsspec opens by URL. A file appears whole or
not at all: locally by rename (`eyeline.files`), on an object store because an upload is seen only
when it is complete. `exclusive` lets one batch at a time work there.
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
"""Number of the layout, part of every version's name, so that no version mixes two layouts."""

SEGMENT = ".segment"
_LONGEST = 120  # characters of a title in a file name; file systems take 255 bytes


def slug(title: str) -> str:
    """Return a title as the name of a folder, quoted as in Hive; long ones end in a digest."""
    quoted = quote(title, safe=" ,()")
    if quoted.startswith("."):  # a hidden file would not be found again
        quoted = f"%2E{quoted[1:]}"
    if len(quoted) <= _LONGEST:
        return quoted
    return f"{quoted[:_LONGEST].rsplit('%', 1)[0]}-{sha256_hex(title.encode())[:12]}"


class Place:
    """A folder of results: local, or behind an fsspec URL.

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
        """Turn a failure of the store into an `OutputError`; let a missing file through."""
        try:
            yield
        except (FileNotFoundError, NotADirectoryError, EyelineError):
            raise
        except Exception as exc:
            hint = "check its permissions" if self.local else "check its address and credentials"
            raise OutputError(
                f"{self.url}/{name}: can't be {what}: {reason_of(exc)}", f"{hint}; rerun to go on"
            ) from exc

    def write(self, name: str, data: bytes) -> None:
        """Write a file that appears whole, or not at all.

        Raises:
            OutputError: it can't be written.
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
                f"{self.url}/{name}: can't be written: no such bucket or folder", "create it"
            ) from exc

    def make_folder(self, name: str) -> None:
        """Make the folder for a file of a local place."""
        if self.local:
            try:
                (self.local / name).parent.mkdir(parents=True, exist_ok=True)
            except OSError as exc:
                raise output_error(self.local / name, exc) from exc

    def _upload(self, target: str, data: bytes) -> None:
        """Upload; make folders where the store has such, but never a bucket."""
        try:
            self._fs.pipe_file(target, data)
        except FileNotFoundError:
            top = target[: target.find("/", 1)]
            if not self._fs.isdir(top):
                raise
            self._fs.makedirs(target.rsplit("/", 1)[0], exist_ok=True)
            self._fs.pipe_file(target, data)

    def read(self, name: str) -> bytes | None:
        """Return the bytes of a file; None when it is missing."""
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
        """Return the sorted names of the files in a folder; an empty list when it is missing."""
        self._fs.invalidate_cache()
        try:
            with self._errors(folder, "read"):
                found = self._fs.ls(f"{self._root}/{folder}", detail=False)
        except (FileNotFoundError, NotADirectoryError):
            return []
        names = [PurePosixPath(f).name for f in found]
        return sorted(name for name in names if not name.startswith("."))

    def remove(self, name: str) -> None:
        """Remove a file, or a folder and all in it; a missing one is no error."""
        if self.local:  # another process may remove the same folder
            shutil.rmtree(self.local / name, ignore_errors=True)
            with contextlib.suppress(OSError):
                (self.local / name).unlink()
            return
        with contextlib.suppress(FileNotFoundError), self._errors(name, "removed"):
            self._fs.rm(f"{self._root}/{name}", recursive=True)

    def sweep(self) -> None:
        """Remove what killed writers left unfinished; to be called only while nobody writes."""
        if self.local:  # on an object store, an upload that broke off was never seen
            for folder, _, names in os.walk(self.local):
                for name in filter(is_temporary, names):
                    (Path(folder) / name).unlink(missing_ok=True)


RENEW = 15.0
STALE = 60.0
"""Seconds: a lease is renewed every `RENEW`, and has ended when it is older than `STALE`."""

_PAUSE = 1.0  # seconds between writing a lease and the look whether it is still there

_LOCK = f"{STATE}/lock"


def _who() -> dict[str, Any]:
    return {"pid": os.getpid(), "host": socket.gethostname()}


def _refusal(place: Place, note: str, hint: str = "wait for it, or stop it") -> BatchError:
    holder = _parse_note(note)
    who = f"process {holder.get('pid', '?')} on {holder.get('host', '?')}"
    return BatchError(f"{place.url}: another batch is at work there, {who}", hint)


@contextlib.contextmanager
def exclusive(place: Place, *, renew: float = RENEW, stale: float = STALE) -> Iterator[None]:
    """Hold an output folder while the block runs.

    A local folder has a kernel lock. An object store has none: there a note is renewed while the
    batch lives.

    Args:
        place: the folder.
        renew: seconds between two renewals of a note.
        stale: seconds that a note counts; the clocks of all machines must agree better than that.

    Raises:
        BatchError: another batch holds it.
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
        hint = f"wait for it, or stop it; if it was killed, try again in {left:.0f} s"
        raise _refusal(place, note, hint)
    renew()
    # Of two that began at once the later writer wins, and the other sees it here. One that took so
    # long that the other may have looked before waits for the other's renewal instead.
    prompt = time.monotonic() - looked < 0.8 * _PAUSE
    time.sleep(_PAUSE if prompt else every + _PAUSE)
    note = (place.read(_LOCK) or b"").decode()
    if _parse_note(note).get("nonce") != mine["nonce"]:
        raise _refusal(place, note)
    ended = threading.Event()

    def keep() -> None:
        while not ended.wait(every):
            with contextlib.suppress(OutputError):  # the next renewal tries again
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
    """What made a part of the dataset: one version per command, model and set of options.

    Attributes:
        name: name of its partition.
        facts: all that decides its rows, JSON values.
    """

    name: str
    facts: dict[str, Any]


def version_of(command: str, model: str, facts: dict[str, Any]) -> Version:
    """Return the version that a command with these facts writes.

    Args:
        command: `extract`, `score` or `roi-map`.
        model: id, by which people recognise the version.
        facts: all that decides the rows; JSON values.
    """
    known = {"command": command, "layout": LAYOUT, **facts}
    text = json.dumps(known, sort_keys=True, separators=(",", ":"))
    short = slug(model.rsplit("/", 1)[-1].removesuffix(".onnx"))[:48]
    return Version(f"{command}-{short}-{sha256_hex(text.encode())[:12]}", known)


@dataclass
class TitleRecord:
    """How a title ended.

    Attributes:
        title: name of the title.
        state: `ok` or `failed`.
        reason: why it failed; empty when it did not.
        source: path or URL.
        source_sha256: hex digest of the source; of a pair both digests, joined by `+`.
        stamp: see `Title.stamp`.
        part: name of the part below the output folder.
        part_sha256: hex digest of the part.
        frames: rows of the part.
        segments: number of segments that the title was split into.
        warnings: lines for the user.
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
    """The output folder of a batch, as one version uses it.

    Args:
        url: path or fsspec URL of the folder.
        version: see `version_of`.
    """

    def __init__(self, url: str, version: Version) -> None:
        self.place = Place(url)
        self.version = version

    def begin(self) -> None:
        """Write down what the version means, before its first part.

        Raises:
            BatchError: there is a version of this name with other facts.
            OutputError: the folder can't be written to.
        """
        name = f"{STATE}/versions/{self.version.name}.json"
        text = json.dumps(self.version.facts, indent=1, sort_keys=True).encode()
        there = self.place.read(name)
        if there is None:
            self.place.write(name, text)
        elif there != text:
            raise BatchError(f"{name}: describes another version", "name another output folder")

    def part_name(self, title: str, file: str) -> str:
        """Return the name of a title's part below the output folder."""
        return f"version={self.version.name}/title={slug(title)}/{file}"

    def _record_name(self, title: str) -> str:
        return f"{STATE}/titles/{self.version.name}/{slug(title)}.json"

    def record(self, title: str) -> TitleRecord | None:
        """Read how a title ended; None when it did not.

        Raises:
            BatchError: the record does not parse.
        """
        data = self.place.read(self._record_name(title))
        return None if data is None else _parse(self._record_name(title), data)

    def write_record(self, record: TitleRecord) -> None:
        """Write how a title ended: the last write of all."""
        text = json.dumps(asdict(record), indent=1, sort_keys=True).encode()
        self.place.write(self._record_name(record.title), text)

    def work_folder(self, title: str, source_sha256: str) -> str:
        """Return the folder for the segments of a title, for one state of its sources."""
        if "+" in source_sha256:  # the digest of both, so that a change of either counts
            source_sha256 = sha256_hex(source_sha256.encode())
        return f"{STATE}/work/{self.version.name}/{slug(title)}-{source_sha256[:12]}"

    def finished_segments(self, folder: str) -> set[int]:
        """Return the numbers of the segments in a work folder."""
        names = self.place.names(folder)
        return {int(n.removesuffix(SEGMENT)) for n in names if n.endswith(SEGMENT)}


def segment_name(folder: str, number: int) -> str:
    """Return the name of a segment's file: Parquet, by a suffix that no reader of datasets looks for."""
    return f"{folder}/{number:05d}{SEGMENT}"


def _parse(name: str, data: bytes) -> TitleRecord:
    try:
        return TitleRecord(**json.loads(data))
    except (ValueError, TypeError) as exc:
        raise BatchError(
            f"{name}: is not the record of a title: {exc}", "remove it to do the title again"
        ) from exc


@dataclass
class VersionStatus:
    """The titles of one version.

    Attributes:
        version: what made them.
        records: how each ended, sorted by title.
    """

    version: Version
    records: list[TitleRecord]


def read_status(output: str, *, verify: bool = False) -> list[VersionStatus]:
    """Read how every title of every version ended; works also while a batch runs.

    Args:
        output: folder or URL of the dataset.
        verify: also read each part; a title whose part has other bytes than recorded is `failed`.

    Raises:
        BatchError: it is not the output folder of a batch, or a record does not parse.
    """
    place = Place(output)
    versions = [
        Version(name.removesuffix(".json"), json.loads(data))
        for name, data in _files(place, f"{STATE}/versions")
    ]
    if not versions:
        raise BatchError(
            f"{output}: is not the output folder of a batch", "name the folder given by --output"
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
