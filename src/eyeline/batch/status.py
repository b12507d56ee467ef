"""How the titles of a dataset stand, read from its records: works while a batch runs, and after."""

from __future__ import annotations

from dataclasses import dataclass

from eyeline.batch.places import open_place
from eyeline.batch.store import TitleRecord, Version, read_records, read_versions
from eyeline.digest import sha256_hex
from eyeline.errors import BatchError


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
