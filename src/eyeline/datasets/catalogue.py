"""The catalogue of datasets: `catalogue.toml` as records, and the download of one."""

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
        title: name and size.
        use: purpose.
        paper: publication.
        terms: terms that its authors state.
        page: its authors' page.
        url: address of the archive, if its bytes are pinned.
        sha256: hex digest of the archive.
        size: bytes of the archive.
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
    """Return the datasets by id."""
    text = (resources.files("eyeline.datasets") / "catalogue.toml").read_text()
    return {key: CatalogueEntry.model_validate(row) for key, row in tomllib.loads(text).items()}


def find_entry(name: str) -> CatalogueEntry:
    """Return one dataset; raise DatasetError for an unknown id."""
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

    `eyeline.datasets.pairs.find_pairs` reads the archive in place.

    Args:
        entry: from `find_entry`.
        target: name of the archive.
        on_progress: called with bytes done and in all.
        mirror: another address of the same bytes.

    Raises:
        DatasetError: the bytes of the set are not pinned.
        DownloadError: see `eyeline.files.download`.
    """
    if entry.url is None or entry.sha256 is None or entry.size is None:
        raise DatasetError(
            f"{entry.title}: its bytes are not pinned, so it can't be downloaded",
            f"get it from {entry.page}",
        )
    return download(Asset(mirror or entry.url, entry.sha256, entry.size), target, on_progress)
