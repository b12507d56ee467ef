"""`eyeline model`: the commands that read, sign or make a model file."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from eyeline.cli import options
from eyeline.cli.options import REQUIRED, argument, command, option
from eyeline.errors import UsageError, VerificationError, needs_extra

if TYPE_CHECKING:
    from eyeline.audit import Audit, AuditOptions, AuditPolicy
    from eyeline.registry.signing import Verified


@command("eyeline model scan theirs.onnx")
def scan(
    file: Path = argument("FILE", "An ONNX file; - for stdin."),
    policy: Path | None = option(None, help="Policy file (TOML); the built-in policy by default."),
    as_json: bool = options.AS_JSON,
    static: bool = option(False, "--static", help="Only read the file; do not load the model."),
    quiet: bool = options.QUIET,
    verbose: bool = option(False, "--verbose", "-v", help="Print all findings, ops and sizes."),
) -> None:
    """Scan a model file: every op, attribute, constant and tensor size against an allowlist.

    Exit code 0: admitted; 1: rejected, with the first offending node; 2: the file cannot be read.
    """
    from eyeline.scan import load_policy, scan_file

    report = scan_file(file, load_policy(policy), load=not static)
    if as_json:
        typer.echo(json.dumps(report.to_json(), indent=1))
    elif not quiet:
        typer.echo(report.text(verbose))
    if not report.admitted:
        raise typer.Exit(1)


@command(
    "eyeline model audit U-2-Net --net U2NETP --checkpoint u2netp.pth",
    "eyeline model audit https://github.com/xuebinqin/U-2-Net --markdown verdict.md",
)
def audit(
    upstream: list[str] = argument(
        "CHECKOUT...", "Checkout, git directory (no work tree needed), folder, or URL. Repeatable."
    ),
    checkpoint: Path | None = option(None, help="Weights file; its sha256 pins the distribution."),
    onnx: Path | None = option(None, help="An ONNX file of the model; the scanner checks its ops."),
    net: str | None = option(None, help="Class of the net, if the audit picks another one."),
    policy: Path | None = option(None, help="Policy file (TOML); the built-in policy by default."),
    api: str | None = option(None, help="Root of the REST API, for your own forge."),
    json_out: str | None = option(None, "--json", help="Everything as JSON; `-` for stdout."),
    markdown: str | None = option(None, help="The verdict table as Markdown; `-` for stdout."),
    details: bool = option(True, help="In the Markdown, also list blockers and items to review."),
    verbose: bool = option(False, "--verbose", "-v", help="Show notes too."),
    quiet: bool = options.QUIET,
) -> None:
    """Check the licence, distribution, architecture and ops of an upstream project; exit 1 if blocked.

    The audit imports and runs no file of the checkout. It reads a URL through the forge's REST API; a
    token in EYELINE_FORGE_TOKEN or GITHUB_TOKEN raises the rate limit.
    """
    from eyeline.audit import AuditOptions, load_policy
    from eyeline.audit import verdict as report
    from eyeline.files import check_outputs, write_bytes

    if len(upstream) > 1 and (checkpoint or onnx or net):
        raise UsageError(
            "--checkpoint, --onnx and --net belong to one upstream project",
            "audit one project at a time",
        )
    check_outputs((json_out, markdown))
    rules = load_policy(policy)
    how = AuditOptions(checkpoint=checkpoint, onnx=onnx, net=net)
    audits = [_audit_one(name, api, rules, how) for name in upstream]
    if json_out is not None:
        write_bytes(json_out, report.dumps(audits).encode())
    if markdown is not None:
        write_bytes(markdown, report.markdown(audits, details).encode())
    if not quiet and "-" not in (json_out, markdown):
        typer.echo("\n".join(report.text(a, verbose) for a in audits), nl=False)
    if not all(a.admissible for a in audits):
        raise typer.Exit(1)


def _audit_one(name: str, api: str | None, policy: AuditPolicy, how: AuditOptions) -> Audit:
    from dataclasses import replace

    from eyeline.audit import ForgeTree, is_url, open_tree
    from eyeline.audit import audit as library_audit

    if not is_url(name):
        return library_audit(open_tree(Path(name)), policy, how)
    if sys.stderr.isatty():
        sys.stderr.write(f"reading {name} through its API\n")
    tree = ForgeTree(name, api)
    return library_audit(tree, policy, replace(how, assets=tree.assets()))


@command("eyeline model keygen release.pem")
def keygen(private: Path = argument("KEY.pem", "File for the new private key.")) -> None:
    """Make a key pair for signing: the private KEY.pem and the public KEY.pub (extra `sign`)."""
    from eyeline.registry.signing import make_key

    public = private.with_suffix(".pub")
    key = make_key(private, public)
    typer.echo(f"wrote {private} and {public}, key id {key}")


@command("eyeline model sign mine.onnx --key release.pem --id mine --release 1")
def sign(
    model: Path = argument("MODEL.onnx", "The model."),
    key: Path = option(REQUIRED, help="Private key, PEM: EC P-256, P-384 or P-521."),
    model_id: str = option(REQUIRED, "--id", metavar="ID", help="Registry id of the model."),
    release: int = option(REQUIRED, min=1, help="Release number, larger than any before."),
    password: str | None = option(
        None, envvar="EYELINE_KEY_PASSWORD", help="Password of the key; prefer the variable."
    ),
) -> None:
    """Sign a model offline: write MODEL.release.json and MODEL.sig beside it (extra `sign`)."""
    from eyeline.registry.signing import sign_model

    done = sign_model(model, key, model_id=model_id, release=release, password=password)
    typer.echo(f"signed {model} as {done.id}, release {done.release}, sha256 {done.sha256}")


@command("eyeline model verify mine.onnx --key release.pub")
def verify(
    model: str = argument("ID|MODEL.onnx", "Registry id, or a file with --key."),
    key: Path | None = option(None, help="Public key, PEM; the trust policy by default."),
    minimum_release: int | None = option(None, min=1, help="Oldest release to accept, with --key."),
    registry: str | None = options.REGISTRY,
    as_json: bool = options.AS_JSON,
) -> None:
    """Verify a signature offline, by one key or by the trust.json of the registry (extra `sign`).

    Exit code 0: verified; 1: not verified; 2: no model, no signature or no trusted key.
    """
    from eyeline.registry.registry import Registry
    from eyeline.registry.signing import verify_file

    try:
        if key is not None:
            verified = verify_file(Path(model), key, minimum_release)
        else:
            verified = Registry(registry).get(model).verify()
    except VerificationError as exc:
        _refused(exc, as_json)
        raise typer.Exit(1) from None
    typer.echo(json.dumps(verified.to_json(), indent=1) if as_json else _line(verified))


def _line(verified: Verified) -> str:
    release = f"release {verified.release}, " if verified.release is not None else ""
    return f"verified: {verified.id}, {release}signed by {verified.signer} ({verified.method})"


def _refused(exc: VerificationError, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({"verified": False, "reason": exc.message}, indent=1))
    else:
        typer.echo(f"not verified: {exc.message}\n  {exc.hint}")


@command(
    "eyeline model export runs/v4 -o saliency_student_v4.onnx",
    "eyeline model export --upstream-dir U-2-Net --checkpoint u2netp.pth -o u2netp_mirror_v1.onnx",
    "eyeline model export --from-onnx u2netp.onnx -o u2netp_mirror_v1.onnx",
)
def export(
    output: Path = option(REQUIRED, "--output", "-o", help="The ONNX file."),
    run: Path | None = argument("[RUN]", "Output folder of `eyeline train`.", None),
    upstream_dir: Path | None = option(
        None, help="Git checkout of the upstream project; its network is traced in a child process."
    ),
    checkpoint: Path | None = option(None, help="Weights for --upstream-dir; tensors only."),
    from_onnx: Path | None = option(None, help="The ONNX asset that the recipe pins by digest."),
    recipe: str | None = option(
        None, help="Recipe: a built-in id or a .toml file; u2netp_mirror_v1 by default."
    ),
    quiet: bool = options.QUIET,
) -> None:
    """Export a model to ONNX, opset 17, and check that it computes the same as its source.

    From RUN (extra `train`) it writes the ONNX file. From an upstream project it also writes an I/O
    spec, a licence receipt, a CycloneDX ML-BOM, an in-toto manifest and the parity report (extra
    `audit`; with --upstream-dir also `train`).
    """
    from eyeline.cli.progress import item_progress

    if run is not None and (upstream_dir or from_onnx):
        raise UsageError(
            "RUN and --upstream-dir or --from-onnx are given together", "give one of them"
        )
    if checkpoint and not upstream_dir:
        raise UsageError(
            "--checkpoint needs --upstream-dir", "add the folder with the network's code"
        )
    if run is None and not upstream_dir and not from_onnx:
        raise UsageError(
            "no model to export is given",
            "give RUN, --upstream-dir with --checkpoint, or --from-onnx",
        )
    if upstream_dir and not checkpoint and not from_onnx:
        raise UsageError("--upstream-dir needs --checkpoint", "add it, or --from-onnx")
    if checkpoint and from_onnx:
        raise UsageError("--checkpoint and --from-onnx are given together", "give one of them")
    if output.suffix != ".onnx":
        raise UsageError(f"{output}: the name does not end in .onnx", "name a .onnx file")
    if run is not None:
        _export_run(run, output, quiet)
        return
    with needs_extra("audit"):
        from eyeline.convert.mirror import mirror_onnx, mirror_upstream
        from eyeline.convert.upstream import load_recipe
    chosen = load_recipe(recipe)
    with item_progress("export", quiet) as advance:
        if from_onnx is not None:
            done = mirror_onnx(from_onnx, output, chosen, checkout=upstream_dir, on_step=advance)
        else:
            assert upstream_dir and checkpoint  # noqa: S101 - checked above
            done = mirror_upstream(upstream_dir, checkpoint, output, chosen, on_step=advance)
    if not quiet:
        typer.echo(done.text())


def _export_run(run: Path, output: Path, quiet: bool) -> None:
    with needs_extra("train"):
        from eyeline.convert.export import export_run
    done = export_run(run, output)
    if not quiet:
        typer.echo(f"wrote {output}, sha256 {done.sha256}")
        typer.echo(done.parity.text("the torch net"))


@command(
    "eyeline model quantize saliency_student_v4 --calibration DUTS-TR -o saliency_student_v4_int8.onnx",
    "eyeline model quantize mine.onnx --calibration photos.zip --keep-float Conv:0 -o mine_int8.onnx",
)
def quantize(
    model: str = argument("MODEL", "Registry id or path."),
    calibration: Path = option(
        REQUIRED,
        help="Folder, .tar or .zip with images/ and masks/; never a set that you evaluate on.",
    ),
    output: Path = option(REQUIRED, "--output", "-o", help="The ONNX file."),
    images: int = option(200, min=1, help="Number of images to calibrate with."),
    check: int = option(100, min=1, help="Number of other images to compare both models on."),
    method: str = option(
        "percentile", help="Ranges of activations: minmax, percentile (99.999 %) or entropy."
    ),
    keep_float: list[str] | None = option(
        None, metavar="TYPE:N", help="Node that stays float, such as Conv:0 or Conv:-1. Repeatable."
    ),
    full_range: bool = option(
        False, "--full-range", help="Use 8 bits for weights, not 7: for CPUs with VNNI, or not x86."
    ),
    max_shift: float = option(0.01, min=0, max=1, help="Largest mean change of saliency_mean."),
    license_file: Path | None = option(None, help="Text of the licence, if none is beside MODEL."),
    report: str | None = option(None, help="All measurements as JSON; `-` for stdout."),
    force: bool = option(False, "--force", help="Write the file even if a limit is exceeded."),
    registry: str | None = options.REGISTRY,
    quiet: bool = options.QUIET,
) -> None:
    """Quantise a model to INT8 (static QDQ), calibrated on your images (extra `eval`).

    Exit code 1 without a file: the maps change too much, or the INT8 model is not faster.
    """
    from eyeline.cli.progress import item_progress
    from eyeline.files import write_bytes
    from eyeline.registry.registry import resolve_model

    with needs_extra("eval"):
        from eyeline.convert.quantize import METHODS, QuantizeOptions, quantize_model
        from eyeline.convert.sidecars import canonical_json
    chosen = next((m for m in METHODS if m == method), None)
    if chosen is None:
        raise UsageError(f"--method {method!r} is unknown", f"choose one of: {', '.join(METHODS)}")
    how = QuantizeOptions(
        images=images, check=check, method=chosen, keep_float=tuple(keep_float or ()),
        full_range=full_range, max_shift=max_shift,
    )  # fmt: skip
    source = resolve_model(model, registry or None)
    with item_progress("quantize", quiet) as advance:
        done = quantize_model(
            source, calibration, output, how,
            license_file=license_file, force=force, on_step=advance,
        )  # fmt: skip
    if report:
        write_bytes(report, canonical_json(done.report))
    if not quiet and report != "-":
        typer.echo(done.text())
    for reason in done.verdict.reasons:
        sys.stderr.write(f"{output}: {reason}\n")
    if done.path is None:
        sys.stderr.write("the file was not written; --force would write it\n")
        raise typer.Exit(1)
