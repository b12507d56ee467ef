"""`eyeline model export`: to ONNX that keeps the contract, from a training run or from an upstream."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from eyeline.errors import MissingExtraError, UsageError

if TYPE_CHECKING:
    from eyeline.models.mirror import Mirrored
    from eyeline.models.parity import ParityProof


def export(
    output: Annotated[Path, typer.Option("--output", "-o", help="The ONNX file.")],
    run: Annotated[
        Path | None, typer.Argument(metavar="[RUN]", help="Folder that `eyeline train` left.")
    ] = None,
    upstream_dir: Annotated[
        Path | None,
        typer.Option(help="Git checkout of the upstream; its net is traced in a child process."),
    ] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Weights for --upstream-dir; tensors only.")
    ] = None,
    from_onnx: Annotated[
        Path | None, typer.Option(help="The ONNX asset that the recipe pins by digest.")
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            help="What is mirrored: a built-in recipe's id or a .toml; u2netp_mirror_v1 if none."
        ),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but errors.")] = False,
) -> None:
    """Export a model to ONNX, opset 17, held to parity with its source; from one of three sources.

    RUN (extra `train`) leaves the ONNX. An upstream leaves it with an I/O spec, a licence receipt,
    a CycloneDX ML-BOM, an in-toto manifest and the parity report (extra `audit`; with --upstream-dir
    `train` too).

    Examples:
        eyeline model export runs/v4 -o saliency_student_v4.onnx

        eyeline model export --upstream-dir U-2-Net --checkpoint u2netp.pth -o u2netp_mirror_v1.onnx

        eyeline model export --from-onnx u2netp.onnx -o u2netp_mirror_v1.onnx
    """
    if run is not None and (upstream_dir or from_onnx):
        raise UsageError(
            "a training run and an upstream can't be exported at once", "give one of them"
        )
    if checkpoint and not upstream_dir:
        raise UsageError("--checkpoint needs --upstream-dir", "the net's code comes from there")
    if run is None and not upstream_dir and not from_onnx:
        raise UsageError(
            "nothing to export", "give RUN, --upstream-dir with --checkpoint, or --from-onnx"
        )
    if upstream_dir and not checkpoint and not from_onnx:
        raise UsageError(
            "--upstream-dir needs --checkpoint", "or --from-onnx, with its licence from there"
        )
    if checkpoint and from_onnx:
        raise UsageError("--checkpoint and --from-onnx are two sources", "give one of them")
    if output.suffix != ".onnx":
        raise UsageError(f"{output}: an export ends in .onnx", "name it so")
    if run is not None:
        _export_run(run, output, quiet)
        return
    done = _mirror(upstream_dir, checkpoint, from_onnx, output, recipe, quiet)
    if not quiet:
        _say(done)


def _export_run(run: Path, output: Path, quiet: bool) -> None:
    try:
        from eyeline.models.export import export_run
    except ModuleNotFoundError as exc:
        raise MissingExtraError(exc.name or "torch", "train") from exc
    done = export_run(run, output)
    if quiet:
        return
    typer.echo(f"wrote {output}, sha256 {done.sha256}")
    _say_proof("the torch net", done.parity)


def _mirror(
    upstream_dir: Path | None,
    checkpoint: Path | None,
    from_onnx: Path | None,
    output: Path,
    recipe: str | None,
    quiet: bool,
) -> Mirrored:
    from eyeline.cli.progress import item_progress

    try:
        from eyeline.models.mirror import mirror_onnx, mirror_upstream
        from eyeline.models.mirror_recipe import load_recipe
    except ModuleNotFoundError as exc:
        raise MissingExtraError(exc.name or "onnx", "audit") from exc
    chosen = load_recipe(recipe)
    with item_progress("export", quiet) as advance:
        if from_onnx is not None:
            return mirror_onnx(from_onnx, output, chosen, checkout=upstream_dir, on_step=advance)
        if upstream_dir is None or checkpoint is None:  # the caller has checked
            raise UsageError("nothing to export", "give --upstream-dir with --checkpoint")
        return mirror_upstream(upstream_dir, checkpoint, output, chosen, on_step=advance)


def _say(done: Mirrored) -> None:
    typer.echo(f"wrote {done.model}, sha256 {done.sha256}")
    typer.echo(f"beside it: {', '.join(p.name for s, p in done.files.items() if s != '.onnx')}")
    for what, proof in done.parity.proofs.items():
        _say_proof(what, proof)


def _say_proof(what: str, proof: ParityProof) -> None:
    for kind, report in proof.reports.items():
        typer.echo(
            f"parity with {what}, {kind}: largest difference {report.max_abs:.1e} over "
            f"{report.cases} inputs (gate {report.gate:.1e})"
        )
    if proof.by_float64:
        typer.echo(
            "float32 round-off is over the gate: decided against the source's float64 run, from which the "
            "export may be twice as far as the source's own float32 run"
        )
