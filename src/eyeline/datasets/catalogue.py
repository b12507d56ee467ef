"""Read the catalogue of datasets, `catalogue.toml`, and download a dataset."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from importlib import resources
from pathlib import Path

from pydantic import Field

from eyeline.errors import DatasetError
from eyeline.files import Asset, download
from eyeline.validation import Strict


class CatalogueEntry(Strict):
    """A known dataset.

    Attributes:
        title: name of the dataset and number of its images or videos.
        use: purpose in this project, such as training or test.
        paper: publication that introduced the dataset.
        terms: terms of use that the authors of the dataset state.
        page: web page of the authors.
        url: download address of the archive; None if no checksum is recorded.
        sha256: SHA-256 hex digest of the archive.
        size: size of the archive in bytes.
    """

    title: str
    use: str
    paper: str
    terms: str
    page: str
    url: str | None = None
    sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    size: int | None = Field(default=None, gt=0)


def catalogue() -> dict[str, CatalogueEntry]:
    """Return the known datasets by id."""
    text = (resources.files("eyeline.datasets") / "catalogue.toml").read_text()
    return {key: CatalogueEntry.model_validate(row) for key, row in tomllib.loads(text).items()}


def find_entry(name: str) -> CatalogueEntry:
    """Return a dataset of the catalogue; raise DatasetError for an unknown id."""
    known = catalogue()
    if name not in known:
        raise DatasetError(
            f"{name!r} is not a dataset of the catalogue", f"choose one of: {', '.join(known)}"
        )
    return known[name]


def fetch(
    entry: CatalogueEntry,
    target: Path,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    mirror: str | None = None,
) -> Path:
    """Download a dataset's archive, or resume an earlier download, and check its digest.

    `eyeline.datasets.pairs.find_pairs` reads the archive without unpacking it.

    Args:
        entry: dataset that `find_entry` returned.
        target: path to write the archive to.
        on_progress: called with the number of bytes downloaded and the total.
        mirror: another address of the same archive.

    Raises:
        DatasetError: the catalogue has no address and checksum for the dataset.
        DownloadError: the download failed, or the digest differs.
    """
    if entry.url is None or entry.sha256 is None or entry.size is None:
        raise DatasetError(
            f"{entry.title}: the catalogue has no checksum of it, so eyeline does not download it",
            f"download it yourself from {entry.page}",
        )
    return download(Asset(mirror or entry.url, entry.sha256, entry.size), target, on_progress)
