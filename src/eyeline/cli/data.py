"""`eyeline data`: list, fetch, import and check datasets."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from eyeline.cli import options
from eyeline.cli.options import REQUIRED, argument, command, option

if TYPE_CHECKING:
    from eyeline.datasets.catalogue import CatalogueEntry
    from eyeline.datasets.fixations import FixationSet

_YES = option(False, "--yes", "-y", help="Accept the terms without a question.")
app = typer.Typer(help="List, fetch, import and check datasets.", no_args_is_help=True)


@command("eyeline data list")
def list_datasets() -> None:
    """List the datasets of the catalogue with their terms."""
    from eyeline.datasets.catalogue import catalogue

    for name, entry in catalogue().items():
        how = f"{entry.size / 1e6:,.0f} MB" if entry.size else f"see {entry.page}"
        typer.echo(f"{name}: {entry.title} ({entry.use}; {how})\n    terms: {entry.terms}")


@command("eyeline data fetch duts-tr --yes -o DUTS-TR.zip")
def fetch(
    name: str = argument("NAME", "Id, as `eyeline data list` prints it."),
    output: Path | None = option(None, "--output", "-o", help="The archive; ID.zip by default."),
    mirror: str | None = option(None, help="Another address of the same bytes."),
    yes: bool = _YES,
    quiet: bool = options.QUIET,
) -> None:
    """Download a dataset from its authors: show its terms, resume after a drop, check its digest."""
    from eyeline.cli.progress import item_progress
    from eyeline.datasets.catalogue import fetch as library_fetch
    from eyeline.datasets.catalogue import find_entry

    entry = find_entry(name)
    _accept_terms(entry, yes)
    target = output or Path(f"{name}.zip")
    with item_progress("fetch", quiet) as advance:
        library_fetch(entry, target, lambda done, total: advance(name, done, total), mirror)
    typer.echo(f"wrote {target}")


@command("eyeline data import osie predicting-human-gaze-beyond-pixels.zip --yes -o osie")
def import_(
    layout: str = argument("LAYOUT", "Id of the published set: osie, crowd, scene or hevc."),
    source: Path = argument("SOURCE", "Folder, .tar or .zip with the files of its authors."),
    output: Path = option(REQUIRED, "--output", "-o", help="Folder to write."),
    yes: bool = _YES,
    quiet: bool = options.QUIET,
) -> None:
    """Convert the files of a published gaze set to a fixation set."""
    from eyeline.cli.progress import item_progress
    from eyeline.datasets.catalogue import find_entry
    from eyeline.datasets.importers import find_layout, import_set

    find_layout(layout)
    _accept_terms(find_entry(layout), yes)
    with item_progress("import", quiet) as advance:
        found = import_set(layout, source, output, advance)
    typer.echo(f"wrote {output}\n{_describe(found)}")


@command("eyeline data check osie")
def check(
    data: Path = argument("DATA", "Folder, .tar or .zip."),
    quiet: bool = options.QUIET,
) -> None:
    """Check a dataset and print what it holds and what is wrong with it.

    Rows of a fixation set that cannot be used are counted and named; images and masks that do not
    match, and files that cannot be read, are an error.
    """
    from eyeline.cli.progress import item_progress
    from eyeline.datasets.fixations import is_fixation_set, load_fixation_set
    from eyeline.datasets.pairs import check_sizes, find_pairs

    if is_fixation_set(data):
        with item_progress("check", quiet) as advance:
            found = load_fixation_set(data, lambda done, total: advance("check", done, total))
        typer.echo(_describe(found))
        return
    pairs = find_pairs(data)
    check_sizes(pairs)
    typer.echo(f"{data}: {len(pairs):,} images with masks")


def _accept_terms(entry: CatalogueEntry, yes: bool) -> None:
    """Show the terms of a dataset; continue only if they are accepted."""
    from eyeline.errors import UsageError

    sys.stderr.write(f"{entry.title}\n{entry.paper}\nterms: {entry.terms}\n{entry.page}\n")
    if not yes:
        if not sys.stdin.isatty():
            raise UsageError("the terms were not accepted", "read the terms above, then add --yes")
        typer.confirm("Do you accept these terms?", abort=True, err=True)


def _describe(found: FixationSet) -> str:
    total = sum(len(stimulus.fixations) for stimulus in found.stimuli)
    head = (
        f"{found.name}: {len(found.stimuli):,} {found.kind}, {len(found.viewers):,} viewers, "
        f"{total:,} fixations, sha256 {found.digest}"
    )
    return "\n".join((head, *(f"  {problem}" for problem in found.problems)))


for _name, _function in (
    ("list", list_datasets), ("fetch", fetch), ("import", import_), ("check", check),
):  # fmt: skip
    app.command(_name)(_function)
