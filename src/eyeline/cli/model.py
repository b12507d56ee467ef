"""`eyeline model`: the registry of models, their cards, and which one is the default."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import typer

from eyeline.cli import options
from eyeline.cli.model_files import audit, export, keygen, quantize, scan, sign, verify
from eyeline.cli.options import REQUIRED, argument, command, option
from eyeline.errors import UsageError, needs_extra

if TYPE_CHECKING:
    from eyeline.registry.records import Decision, IoSpec

_FOLDER = option(None, "--registry", envvar="EYELINE_REGISTRY", help="The registry's folder.")


def _folder(registry: str | None) -> Path:
    if not registry:
        raise UsageError("no registry is given", "give --registry FOLDER, or set EYELINE_REGISTRY")
    return Path(registry)


@command(
    "eyeline model add mine.onnx --license MIT --license-file LICENSE --source theirs.onnx "
    '--description "Salient objects." --provenance "theirs.onnx, sized free" --registry models'
)
def add(
    file: Path = argument("MODEL.onnx", "The model."),
    license_id: str = option(REQUIRED, "--license", metavar="SPDX", help="Licence of the weights."),
    description: str = option(REQUIRED, help="One plain sentence."),
    provenance: str = option(REQUIRED, help="Where the weights come from."),
    model_id: str | None = option(
        None,
        "--id",
        metavar="ID",
        help="Registry id; the file's name without its suffix by default.",
    ),
    source: Path | None = option(
        None, help="ONNX file that it was made from; not needed beside the manifest of an export."
    ),
    head: int = option(0, min=0, help="Index of the output of --source that is the map."),
    license_file: Path | None = option(
        None, help="Text of the licence; not needed if a licence receipt is beside the model."
    ),
    io: Path | None = option(None, help="I/O spec, JSON; by default the one beside the file."),
    task: Literal["objects", "gaze"] = option(
        "objects", help="What its map shows: salient objects, or the density of viewers' gaze."
    ),
    registry: str | None = _FOLDER,
    quiet: bool = options.QUIET,
) -> None:
    """Register a model as a candidate after scan, licence, parity and manifest checks (extra `audit`).

    Exit code 1: the scanner or the licence policy rejects it.
    """
    from eyeline.cli.progress import item_progress
    from eyeline.registry.registry import read_io_spec

    with needs_extra("audit"):
        from eyeline.admission.add import ModelDeclaration, add_model
    place = _folder(registry)
    spec = read_io_spec(io) if io else None
    declaration = ModelDeclaration(
        model_id or file.stem, license_id, description, provenance, spec, task
    )
    with item_progress("add", quiet) as advance:
        done = add_model(
            place, file, declaration,
            license_file=license_file, source=source, head=head, on_step=advance,
        )  # fmt: skip
    if not quiet:
        typer.echo(
            f"registered {done.id} ({done.role} for {done.task}) in {place}, sha256 {done.sha256}"
        )


@command("eyeline model remove mine --registry models")
def remove(
    model: str = argument("ID", "Registry id."),
    registry: str | None = _FOLDER,
    keep_files: bool = option(False, "--keep-files", help="Remove only the record."),
    quiet: bool = options.QUIET,
) -> None:
    """Remove a model and its files from a registry; a default model cannot be removed."""
    from eyeline.admission.add import remove_model

    gone = remove_model(_folder(registry), model, keep_files=keep_files)
    if not quiet:
        typer.echo(f"removed {model}" + (f", deleted {', '.join(gone)}" if gone else ""))


@command("eyeline model check --registry models")
def check(
    registry: str | None = option(
        None, envvar="EYELINE_REGISTRY", help="The registry's folder; the built-in one by default."
    ),
    cards: Path | None = option(None, help="Folder of cards and their sources to check, too."),
    as_json: bool = options.AS_JSON,
    verbose: bool = option(False, "--verbose", "-v", help="Print passed checks, too."),
    quiet: bool = options.QUIET,
) -> None:
    """Check a registry: digests, scan, I/O specs, licence texts, manifests, parity, cards, signatures.

    Exit code 0: all checks pass; 1: a check fails.
    """
    from eyeline.admission.check import check_registry
    from eyeline.registry.registry import BUILTIN

    health = check_registry(Path(registry) if registry else BUILTIN, cards)
    if as_json:
        typer.echo(json.dumps(health.to_json(), indent=1))
    elif not quiet:
        for f in health.findings if verbose else health.faults:
            typer.echo(f"{f.state}: {f.model or 'registry'}: {f.check}: {f.detail}")
        models = len({f.model for f in health.findings if f.model})
        typer.echo(f"{models} models, {len(health.faults)} faults")
    if health.faults:
        raise typer.Exit(1)


@command("eyeline model promote mine --evaluation report.json --explain --registry models")
def promote(
    model: str = argument("ID", "A candidate of the registry."),
    evaluation: Path | None = option(
        None, help="JSON of `eyeline evaluate -o` with the candidate and the current default."
    ),
    policy: Path | None = option(
        None, help="Policy as TOML; by default the registry's for the task, or the built-in one."
    ),
    registry: str | None = _FOLDER,
    explain: bool = option(False, "--explain", help="Print every rule with its numbers."),
    dry_run: bool = option(False, "--dry-run", help="Decide without recording the decision."),
    as_json: bool = options.AS_JSON,
    quiet: bool = options.QUIET,
) -> None:
    """Make a candidate the default of its task if it is verified and measurably better.

    The decision is recorded in the registry. Exit code 0: promoted; 1: not promoted.
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


@command(
    "eyeline model card saliency_student_v4 -o docs/models/saliency_student_v4.md",
    "eyeline model card saliency_student_v4 --check docs/models/saliency_student_v4.md",
)
def card(
    model: str = argument("ID", "Registry id."),
    sources: Path = option(
        Path("docs/models"), help="Folder with ID.toml, ID.run.json and ID.evaluation.json."
    ),
    output: str = option("-", "--output", "-o", help="The card; `-` for stdout."),
    check: Path | None = option(
        None, help="Card to compare with its sources; exit 1 if it differs."
    ),
    registry: str | None = options.REGISTRY,
) -> None:
    """Make the card of a model from its record, scan, run record and evaluation; or check a card."""
    from eyeline.admission.card import check_card, make_card
    from eyeline.errors import RegistryError
    from eyeline.files import write_bytes
    from eyeline.registry.registry import Registry

    chosen = Registry(registry).get(model)
    if check is None:
        write_bytes(output, make_card(chosen, sources).encode())
        return
    try:
        text = check.read_text()
    except OSError as exc:
        raise RegistryError(
            f"{check}: cannot be read: {exc.strerror}", "write the card first, with -o"
        ) from exc
    if difference := check_card(text, chosen, sources):
        typer.echo("\n".join(difference))
        sys.stderr.write(f"{check}: differs from its sources\n")
        raise typer.Exit(1)
    typer.echo(f"{check}: matches its sources")


@command(
    "eyeline model fetch u2netp_mirror_v1 --registry models",
    "eyeline model fetch u2netp_mirror_v1 --from u2netp.onnx --registry models",
)
def fetch(
    recipe: str = argument("RECIPE", "Id of a built-in recipe, or a recipe file (.toml)."),
    registry: str | None = options.REGISTRY,
    source: Path | None = option(None, "--from", help="The pinned asset as a file; no download."),
    url: str | None = option(None, help="Another address of the same bytes."),
    quiet: bool = options.QUIET,
) -> None:
    """Register a reference model: download by digest, convert, scan and check it (extra `audit`).

    An interrupted download resumes. A model that fails a check is not registered.
    """
    from eyeline.cli.progress import item_progress

    place = _folder(registry)
    if source and url:
        raise UsageError("--from and --url are given together", "give one of them")
    with needs_extra("audit"):
        from eyeline.admission.add import fetch_mirror
        from eyeline.convert.upstream import load_recipe
    chosen = load_recipe(recipe)
    with item_progress("fetch", quiet) as advance:
        done = fetch_mirror(chosen, place, source=source, url=url, on_step=advance)
    if not quiet:
        typer.echo(f"registered {done.record.id} ({done.record.role}) in {registry}")
        typer.echo(f"sha256 {done.record.sha256}")
        typer.echo(f"eyeline extract clip.mp4 --model {done.record.id} --registry {registry}")


@command("eyeline model list")
def list_models(registry: str | None = options.REGISTRY, as_json: bool = options.AS_JSON) -> None:
    """List every model: id, task, role, parameters, working lines, licence."""
    from eyeline.registry.registry import Registry

    records = [m.record for m in Registry(registry) if m.record]
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
    return "{}x{}".format(*io.squash) if io.squash else str(io.working_lines)


@command("eyeline model show placeholder")
def show(
    model: str = argument("ID", "Registry id."),
    registry: str | None = options.REGISTRY,
) -> None:
    """Show one model's record as JSON, after checking its bytes against its digest."""
    from eyeline.registry.registry import Registry

    found = Registry(registry).get(model)
    record = found.record
    size = len(found.data)  # `data` reads the file and checks its digest
    fields = record.model_dump() if record else {}
    typer.echo(json.dumps({**fields, "path": str(found.path), "bytes": size}, indent=1))


app = typer.Typer(
    help="Models: list, check, sign, convert, register and promote them.", no_args_is_help=True
)
app.command("list")(list_models)
for _command in (
    show, scan, keygen, sign, verify, audit, card, export, quantize, fetch, add, remove, check, promote,
):  # fmt: skip
    app.command()(_command)
