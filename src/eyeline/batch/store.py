"""What a batch leaves: the layout of its output folder, and the only writer of it.

::

    OUT/version=extract-saliency_student_v4-60dd.../title=films%2Fbear/part-0.parquet
    OUT/_status.csv                                   a row a title, of the last run
    OUT/_eyeline/versions/VERSION.json                what a version means: model, options, eyeline
    OUT/_eyeline/titles/VERSION/TITLE.json            how a title ended, and from which bytes
    OUT/_eyeline/work/VERSION/TITLE-SOURCE/00003.segment   finished segments of unfinished titles
    OUT/_eyeline/lock                                 held by the batch that runs

Readers of datasets skip names that begin with an underscore, so they see finished titles alone. The
order of writes makes a death between any two harmless: segments, then the part, then the record of
the title, and only then are the segments removed.

How the titles of a dataset stand, read from its records: works while a batch runs, and after.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any
from urllib.parse import quote

from eyeline.batch.manifest import Place, open_place
from eyeline.digests import sha256_hex
from eyeline.errors import BatchError

STATE = "_eyeline"
STATUS_FILE = "_status.csv"
LAYOUT = 1
"""Raised when the layout changes, so that no version mixes two."""

SEGMENT = ".segment"
_LONGEST = 120  # characters of a title in a file name; file systems take 255 bytes


def slug(title: str) -> str:
    """A title as a folder's name, as Hive partitions quote it; long ones end in a digest."""
    quoted = quote(title, safe=" ,()")
    if quoted.startswith("."):  # a hidden file would not be found again
        quoted = f"%2E{quoted[1:]}"
    if len(quoted) <= _LONGEST:
        return quoted
    return f"{quoted[:_LONGEST].rsplit('%', 1)[0]}-{sha256_hex(title.encode())[:12]}"


@dataclass(frozen=True)
class Version:
    """What made a part of the dataset: one for each command, model and set of options.

    Attributes:
        name: of its partition.
        facts: what it was made of, JSON values.
    """

    name: str
    facts: dict[str, Any]


def version_of(command: str, model: str, facts: dict[str, Any]) -> Version:
    """The version that a command with these facts writes.

    Args:
        command: `extract`, `score` or `roi-map`.
        model: id, for people to recognise the version by.
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
        title: its name.
        state: `ok` or `failed`.
        reason: why it failed.
        source: path or URL.
        source_sha256: hex digest of the source (both sources' digests, joined by `+`, of a pair).
        stamp: what tells without reading it that the source is unchanged.
        part: the part's name below the output folder.
        part_sha256: hex digest of the part.
        frames: rows of the part.
        segments: into how many pieces the work was split.
        warnings: lines worth showing.
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
    """The output folder of a batch, seen by one version.

    Args:
        url: path or fsspec URL of the folder.
        version: see `version_of`.
    """

    def __init__(self, url: str, version: Version) -> None:
        self.place: Place = open_place(url)
        self.version = version

    def begin(self) -> None:
        """Note what the version means, before the first part of it.

        Raises:
            BatchError: a version of this name was made of something else.
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
        """Where a title's part belongs, below the output folder."""
        return f"version={self.version.name}/title={slug(title)}/{file}"

    def write(self, name: str, data: bytes) -> str:
        """Write a file that appears whole; its sha256, 64 hex digits."""
        self.place.write(name, data)
        return sha256_hex(data)

    def _record_name(self, title: str) -> str:
        return f"{STATE}/titles/{self.version.name}/{slug(title)}.json"

    def record(self, title: str) -> TitleRecord | None:
        """How a title ended, None when it never did.

        Raises:
            BatchError: the record does not parse.
        """
        data = self.place.read(self._record_name(title))
        return None if data is None else _parse(self._record_name(title), data)

    def write_record(self, record: TitleRecord) -> None:
        """Note how a title ended, the last write of all."""
        text = json.dumps(asdict(record), indent=1, sort_keys=True).encode()
        self.place.write(self._record_name(record.title), text)

    def work_folder(self, title: str, source_sha256: str) -> str:
        """Where segments of a title wait for the others, for one state of its source or sources."""
        if "+" in source_sha256:  # the digest of both, so that a change of either counts
            source_sha256 = sha256_hex(source_sha256.encode())
        return f"{STATE}/work/{self.version.name}/{slug(title)}-{source_sha256[:12]}"

    def finished_segments(self, folder: str) -> set[int]:
        """Numbers of the segments that are there."""
        names = self.place.names(folder)
        return {int(n.removesuffix(SEGMENT)) for n in names if n.endswith(SEGMENT)}


def segment_name(folder: str, number: int) -> str:
    """A segment's file in a work folder: Parquet by another name, so that no pattern finds it."""
    return f"{folder}/{number:05d}{SEGMENT}"


def _parse(name: str, data: bytes) -> TitleRecord:
    try:
        return TitleRecord(**json.loads(data))
    except (ValueError, TypeError) as exc:
        raise BatchError(
            f"{name}: is no record of a title: {exc}", "remove it to do the title again"
        ) from exc


def read_records(place: Place, version: str) -> list[TitleRecord]:
    """The records of a version, by title.

    Raises:
        BatchError: one does not parse.
    """
    folder = f"{STATE}/titles/{version}"
    records = []
    for name in place.names(folder):
        data = place.read(f"{folder}/{name}")
        if data is not None:
            records.append(_parse(f"{folder}/{name}", data))
    return sorted(records, key=lambda r: r.title)


def read_versions(place: Place) -> list[Version]:
    """The versions that an output folder holds, by name."""
    folder = f"{STATE}/versions"
    versions = []
    for name in place.names(folder):
        data = place.read(f"{folder}/{name}")
        if data is not None:
            versions.append(Version(name.removesuffix(".json"), json.loads(data)))
    return versions


@dataclass
class VersionStatus:
    """The titles of one version.

    Attributes:
        version: what made them.
        records: how each ended, by title.
    """

    version: Version
    records: list[TitleRecord]


def read_status(output: str, *, verify: bool = False) -> list[VersionStatus]:
    """How every title of every version stands.

    Args:
        output: folder or URL of the dataset.
        verify: read each part, too: one whose bytes are not the recorded ones is `failed`.

    Raises:
        BatchError: no batch has worked there, or a record does not parse.
    """
    place = open_place(output)
    versions = read_versions(place)
    if not versions:
        raise BatchError(f"{output}: no batch has worked there", "name its output folder")
    found = []
    for version in versions:
        records = read_records(place, version.name)
        for record in records if verify else ():
            if record.state != "ok":
                continue
            data = place.read(record.part)
            if data is None:
                record.state, record.reason = "failed", f"{record.part} is missing"
            elif sha256_hex(data) != record.part_sha256:
                record.state, record.reason = "failed", f"{record.part} has other bytes"
        found.append(VersionStatus(version, records))
    return found
