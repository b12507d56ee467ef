"""The catalogue of datasets: `catalogue.toml` as records, and the fetching of one."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from importlib import resources
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from eyeline.errors import DatasetError
from eyeline.files import Asset, download


class Entry(BaseModel):
    """A dataset that people use.

    Attributes:
        title: what it is, and how large.
        use: what it is for.
        paper: where it was published.
        terms: what its authors state.
        page: its authors' page.
        url: address of the archive, when its bytes are pinned.
        sha256: hex digest of the archive.
        size: bytes of the archive.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str
    use: str
    paper: str
    terms: str
    page: str
    url: str | None = None
    sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    size: int | None = Field(default=None, gt=0)


def catalogue() -> dict[str, Entry]:
    """Datasets by id."""
    text = (resources.files("eyeline.datasets") / "catalogue.toml").read_text()
    return {key: Entry.model_validate(row) for key, row in tomllib.loads(text).items()}


def find_entry(name: str) -> Entry:
    """One dataset of the catalogue.

    Raises:
        DatasetError: an unknown name.
    """
    known = catalogue()
    if name not in known:
        raise DatasetError(f"no dataset {name!r} is known", f"known: {', '.join(known)}")
    return known[name]


def fetch(
    entry: Entry,
    target: Path,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    mirror: str | None = None,
) -> Path:
    """Fetch a dataset's archive, or go on where an earlier call stopped; its digest is checked.

    `eyeline.datasets.find_pairs` reads the archive in place.

    Args:
        entry: from `find_entry`.
        target: name of the archive.
        on_progress: called with bytes done and in all.
        mirror: another address of the same bytes.

    Raises:
        DatasetError: a set whose bytes are not pinned.
        DownloadError: see `eyeline.files.download`.
    """
    if entry.url is None or entry.sha256 is None or entry.size is None:
        raise DatasetError(
            f"{entry.title}: its bytes are not pinned, so it can't be fetched",
            f"get it from {entry.page}",
        )
    return download(Asset(mirror or entry.url, entry.sha256, entry.size), target, on_progress)
