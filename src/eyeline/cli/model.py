"""`eyeline model`: the registry.

`eyeline model add`, `remove`, `check` and `promote`: the registry as a gate.

`eyeline model card`: a card made of its sources, or checked against them.

`eyeline model fetch`: a mirror recipe run to its end.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from eyeline.cli.model_files import audit, export, keygen, quantize, scan, sign, verify
from eyeline.errors import MissingExtraError, UsageError

if TYPE_CHECKING:
    from eyeline.registry.records import Decision, IoSpec

FolderOption = Annotated[
    str | None, typer.Option("--registry", envvar="EYELINE_REGISTRY", help="The registry's folder.")
]


def _folder(registry: str | None) -> Path:
    if not registry:
        raise UsageError("no registry named", "--registry FOLDER, or EYELINE_REGISTRY")
    return Path(registry)


def add(
    file: Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="The model.")],
    license_id: Annotated[
        str, typer.Option("--license", metavar="SPDX", help="Licence of the weights.")
    ],
    description: Annotated[str, typer.Option(help="One plain sentence.")],
    provenance: Annotated[str, typer.Option(help="Where the weights come from.")],
    model_id: Annotated[
        str | None, typer.Option("--id", metavar="ID", help="Registry id; the file's stem if none.")
    ] = None,
    source: Annotated[
        Path | None,
        typer.Option(help="The ONNX it was made from; not needed beside an export's manifest."),
    ] = None,
    head: Annotated[int, typer.Option(min=0, help="Which output of --source is the map.")] = 0,
    license_file: Annotated[
        Path | None, typer.Option(help="The licence's text; not needed beside a receipt.")
    ] = None,
    io: Annotated[
        Path | None, typer.Option(help="I/O spec, JSON; the one beside the file if none.")
    ] = None,
    task: Annotated[
        Literal["objects", "gaze"],
        typer.Option(help="What its map shows: salient objects, or the density of viewers' gaze."),
    ] = "objects",
    registry: FolderOption = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but errors.")] = False,
) -> None:
    """Take a model in as a candidate: scan, licence, parity, manifest, then the record (extra `audit`).

    Exit code 1: the scanner or the licence policy says no.

    Example:
        eyeline model add mine.onnx --license MIT --license-file LICENSE --source theirs.onnx --description
        "Salient objects." --provenance "theirs.onnx, sized free" --registry models
    """
    from eyeline.cli.progress import item_progress

    try:
        from eyeline.admission.add import add_model, parse_told
    except ModuleNotFoundError as exc:
        raise MissingExtraError(exc.name or "onnx", "audit") from exc
    place = _folder(registry)
    told = parse_told(model_id or file.stem, license_id, description, provenance, io, task)
    with item_progress("add", quiet) as advance:
        done = add_model(
            place, file, told,
            license_file=license_file, source=source, head=head, on_step=advance,
        )  # fmt: skip
    if not quiet:
        typer.echo(
            f"registered {done.id} ({done.role} for {done.task}) in {place}, sha256 {done.sha256}"
        )


def remove(
    model: Annotated[str, typer.Argument(metavar="ID", help="Registry id.")],
    registry: FolderOption = None,
    keep_files: Annotated[bool, typer.Option("--keep-files", help="Only the record goes.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but errors.")] = False,
) -> None:
    """Take a model out, with its files; never the default.

    Example:
        eyeline model remove mine --registry models
    """
    from eyeline.admission.add import remove_model

    gone = remove_model(_folder(registry), model, keep_files=keep_files)
    if not quiet:
        typer.echo(f"removed {model}" + (f", deleted {', '.join(gone)}" if gone else ""))


def check(
    registry: Annotated[
        str | None,
        typer.Option(
            envvar="EYELINE_REGISTRY", help="The registry's folder; the built-in if none."
        ),
    ] = None,
    cards: Annotated[
        Path | None, typer.Option(help="Folder of cards and their sources: all must hold.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of lines.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="What is well, too.")] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Nothing but the exit code.")
    ] = False,
) -> None:
    """Check a registry: digests, scan, I/O specs, licence texts, manifests, parity, cards, signatures.

    Exit code 0: sound; 1: something is to be mended.

    Example:
        eyeline model check --registry models
    """
    from eyeline.admission.check import check_registry
    from eyeline.registry.registry import BUILTIN

    health = check_registry(Path(registry) if registry else BUILTIN, cards)
    if as_json:
        typer.echo(json.dumps(health.to_json(), indent=1))
    elif not quiet:
        for f in health.findings if verbose else health.faults:
            typer.echo(f"{f.state}: {f.model or 'registry'}: {f.room}: {f.detail}")
        models = len({f.model for f in health.findings if f.model})
        typer.echo(f"{models} models, {len(health.faults)} faults")
    if health.faults:
        raise typer.Exit(1)


def promote(
    model: Annotated[str, typer.Argument(metavar="ID", help="A candidate of the registry.")],
    evaluation: Annotated[
        Path | None,
        typer.Option(help="What `eyeline evaluate -o` wrote of it and of today's default."),
    ] = None,
    policy: Annotated[
        Path | None,
        typer.Option(
            help="Policy as TOML; by default the registry's own for the task, else the built-in one."
        ),
    ] = None,
    registry: FolderOption = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Every ground with its numbers.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Decide, and record nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The decision as JSON.")] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Nothing but the exit code.")
    ] = False,
) -> None:
    """Make a candidate its task's default, if it is verified and measurably better; this is recorded.

    Exit code 0: promoted; 1: not, because of a tie or a missing report, too.

    Example:
        eyeline model promote mine --evaluation report.json --explain --registry models
    """
    from eyeline.admission.promote import promote as decide

    decision = decide(model, _folder(registry), report=evaluation, policy=policy, dry_run=dry_run)
    if as_json:
        typer.echo(decision.model_dump_json(indent=1))
    elif not quiet:
        _print(decision, explain, dry_run)
    if not decision.promoted:
        raise typer.Exit(1)


def _print(decision: Decision, explain: bool, dry_run: bool) -> None:
    failed = [g for g in decision.grounds if not g.passed]
    over = f"over {decision.default}" if decision.default else "without a default"
    model = f"{decision.model} for {decision.task}"
    if decision.promoted:
        said = "would be promoted" if dry_run else "promoted"
        typer.echo(f"{said}: {model}, {over}")
    else:
        typer.echo(f"not promoted: {model}, {over}: {failed[0].name}: {failed[0].detail}")
    if explain:
        for g in decision.grounds:
            typer.echo(f"  {'yes' if g.passed else 'no '} {g.name}: {g.detail}")
        typer.echo(f"  report sha256 {decision.report_sha256 or '-'}")
        typer.echo(f"  policy sha256 {decision.policy_sha256}")
    elif len(failed) > 1:
        typer.echo(f"  and {len(failed) - 1} more: --explain")


def card(
    model: Annotated[str, typer.Argument(metavar="ID", help="Registry id.")],
    sources: Annotated[
        Path, typer.Option(help="Folder with ID.toml, ID.run.json and ID.evaluation.json.")
    ] = Path("docs/models"),
    output: Annotated[str, typer.Option("--output", "-o", help="The card; `-` for stdout.")] = "-",
    check: Annotated[
        Path | None,
        typer.Option(help="Compare this card with its sources; exit 1 when it no longer matches."),
    ] = None,
    registry: Annotated[
        str | None, typer.Option(envvar="EYELINE_REGISTRY", help="Your own registry folder.")
    ] = None,
) -> None:
    """Make a model's card from its record, scan, run record and evaluation; or check one.

    Examples:
        eyeline model card saliency_student_v4 -o docs/models/saliency_student_v4.md
        eyeline model card saliency_student_v4 --check docs/models/saliency_student_v4.md
    """
    from eyeline.admission.card import check_card, make_card
    from eyeline.errors import RegistryError
    from eyeline.files import write_bytes
    from eyeline.registry.registry import Registry

    chosen = Registry(Path(registry) if registry else None).get(model)
    if check is None:
        write_bytes(output, make_card(chosen, sources).encode())
        return
    try:
        text = check.read_text()
    except OSError as exc:
        raise RegistryError(f"{check}: can't be read: {exc.strerror}", "make it first") from exc
    if difference := check_card(text, chosen, sources):
        typer.echo("\n".join(difference))
        sys.stderr.write(f"{check}: no longer what its sources say\n")
        raise typer.Exit(1)
    typer.echo(f"{check}: matches its sources")


def fetch(
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE", help="Built-in recipe's id, or a .toml of that form.")
    ],
    registry: Annotated[
        str | None,
        typer.Option(envvar="EYELINE_REGISTRY", help="Your own registry folder; made when absent."),
    ] = None,
    source: Annotated[
        Path | None,
        typer.Option("--from", help="The pinned asset as a file: nothing is downloaded."),
    ] = None,
    url: Annotated[str | None, typer.Option(help="Another address of the same bytes.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but errors.")] = False,
) -> None:
    """Get a reference model: download by digest, mirror, scan, parity, register (extra `audit`).

    A download goes on where it stopped. What fails a check is not registered.

    Examples:
        eyeline model fetch u2netp_mirror_v1 --registry models

        eyeline model fetch u2netp_mirror_v1 --from u2netp.onnx --registry models
    """
    from eyeline.cli.progress import item_progress

    if not registry:
        raise UsageError("no registry to put it in", "--registry FOLDER, or EYELINE_REGISTRY")
    if source and url:
        raise UsageError("--from and --url are two sources", "give one of them")
    try:
        from eyeline.admission.add import fetch_mirror
        from eyeline.convert.mirror_recipe import load_recipe
    except ModuleNotFoundError as exc:
        raise MissingExtraError(exc.name or "onnx", "audit") from exc
    chosen = load_recipe(recipe)
    with item_progress("fetch", quiet) as advance:
        done = fetch_mirror(chosen, Path(registry), source=source, url=url, on_step=advance)
    if not quiet:
        typer.echo(f"registered {done.record.id} ({done.record.role}) in {registry}")
        typer.echo(f"sha256 {done.record.sha256}")
        typer.echo(f"eyeline extract clip.mp4 --model {done.record.id} --registry {registry}")


app = typer.Typer(help="Look at the models of the registry.", no_args_is_help=True)
app.command()(scan)
for command in (keygen, sign, verify):
    app.command()(command)
app.command()(audit)
app.command()(card)
app.command()(export)
app.command()(quantize)
app.command()(fetch)
for managing in (add, remove, check, promote):
    app.command()(managing)

RegistryOption = Annotated[
    str | None, typer.Option(envvar="EYELINE_REGISTRY", help="Your own registry folder.")
]


@app.command("list")
def list_models(
    registry: RegistryOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of a table.")] = False,
) -> None:
    """List every model: id, task, role, parameters, working lines, licence.

    Example:
        eyeline model list
    """
    from eyeline.registry.registry import Registry

    records = [m.record for m in Registry(Path(registry) if registry else None) if m.record]
    if as_json:
        typer.echo(json.dumps([r.model_dump() for r in records], indent=1))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, header_style="bold")
    for name in ("id", "task", "role"):
        table.add_column(name, no_wrap=True)
    for name in ("parameters", "lines"):
        table.add_column(name, justify="right")
    table.add_column("licence")
    for r in records:
        table.add_row(r.id, r.task, r.role, f"{r.parameters:,}", _lines(r.io), r.license)
    Console().print(table)


def _lines(io: IoSpec) -> str:
    """Working size of a model: lines of the short side, or the size it is squashed to."""
    return "{}x{}".format(*io.squash) if io.squash else str(io.working_lines)


@app.command()
def show(
    model: Annotated[str, typer.Argument(metavar="ID", help="Registry id.")],
    registry: RegistryOption = None,
) -> None:
    """Show one model's record as JSON, after checking its bytes against its digest.

    Example:
        eyeline model show placeholder
    """
    from eyeline.registry.registry import Registry

    found = Registry(Path(registry) if registry else None).get(model)
    record = found.record
    size = len(found.data)  # reads and verifies
    fields = record.model_dump() if record else {}
    typer.echo(json.dumps({**fields, "path": str(found.path), "bytes": size}, indent=1))
