"""`eyeline data`: which datasets there are, how to get one, and what one holds."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from eyeline.datasets.catalogue import Entry
    from eyeline.datasets.fixations import FixationSet

app = typer.Typer(help="List, fetch, import and check datasets.", no_args_is_help=True)


@app.command("list")
def list_datasets() -> None:
    """List the datasets of the catalogue with their terms.

    Example:
        eyeline data list
    """
    from eyeline.datasets.catalogue import catalogue

    for name, entry in catalogue().items():
        how = f"{entry.size / 1e6:,.0f} MB" if entry.size else f"see {entry.page}"
        typer.echo(f"{name}: {entry.title} ({entry.use}; {how})\n    terms: {entry.terms}")


@app.command("fetch")
def fetch(
    name: Annotated[str, typer.Argument(help="Id, as `eyeline data list` prints it.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Name of the archive [ID.zip].")
    ] = None,
    mirror: Annotated[str | None, typer.Option(help="Another address of the same bytes.")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="The terms are accepted.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")] = False,
) -> None:
    """Fetch a dataset from its authors: terms first, resumed after a drop, checked by digest.

    Example:
        eyeline data fetch duts-tr --yes -o DUTS-TR.zip
    """
    from eyeline.cli.progress import item_progress
    from eyeline.datasets.catalogue import fetch as library_fetch
    from eyeline.datasets.catalogue import find_entry

    entry = find_entry(name)
    _accept_terms(entry, yes)
    target = output or Path(f"{name}.zip")
    with item_progress("fetch", quiet) as advance:
        library_fetch(entry, target, lambda done, total: advance(name, done, total), mirror)
    typer.echo(f"wrote {target}")


@app.command("import")
def import_(
    layout: Annotated[
        str, typer.Argument(help="Id of the set whose files these are: osie, crowd, scene, hevc.")
    ],
    source: Annotated[
        Path,
        typer.Argument(help="Folder, .tar or .zip with the files as their authors publish them."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="The terms are accepted.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")] = False,
) -> None:
    """Make a fixation set from its authors' files: images or videos, and fixations.csv.gz.

    Example:
        eyeline data import osie predicting-human-gaze-beyond-pixels.zip --yes -o osie
    """
    from eyeline.cli.progress import item_progress
    from eyeline.datasets.catalogue import find_entry
    from eyeline.datasets.importers import find_layout, import_set

    find_layout(layout)
    _accept_terms(find_entry(layout), yes)
    with item_progress("import", quiet) as advance:
        found = import_set(layout, source, output, advance)
    typer.echo(f"wrote {output}\n{_describe(found)}")


@app.command("check")
def check(
    data: Annotated[Path, typer.Argument(help="Folder, .tar or .zip.")],
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")] = False,
) -> None:
    """Check a dataset and print what it holds and what is wrong with it.

    Rows of a fixation set that cannot be used are counted and named; images and masks that do not
    match, and files that cannot be read, are an error.

    Example:
        eyeline data check osie
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


def _accept_terms(entry: Entry, yes: bool) -> None:
    """Show a set's terms, and go on only when they are accepted."""
    from eyeline.errors import UsageError

    sys.stderr.write(f"{entry.title}\n{entry.paper}\nterms: {entry.terms}\n{entry.page}\n")
    if not yes:
        if not sys.stdin.isatty():
            raise UsageError("the terms were not accepted", "read them above, then add --yes")
        typer.confirm("Do you accept these terms?", abort=True, err=True)


def _describe(found: FixationSet) -> str:
    total = sum(len(stimulus.fixations) for stimulus in found.stimuli)
    head = (
        f"{found.name}: {len(found.stimuli):,} {found.kind}, {len(found.viewers):,} viewers, "
        f"{total:,} fixations, sha256 {found.digest}"
    )
    return "\n".join((head, *(f"  {problem}" for problem in found.problems)))
