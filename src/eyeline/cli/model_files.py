"""`eyeline model scan`: may this file be loaded?

`eyeline model audit`: may we ship it? One verdict table.

`eyeline model keygen`, `sign` and `verify`: who stands for these bytes?

`eyeline model export`: to ONNX that keeps the contract, from a training run or from an upstream.

`eyeline model quantize`: a float model to INT8, compared with it before anything is written.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from eyeline.errors import MissingExtraError, UsageError, VerificationError

if TYPE_CHECKING:
    from eyeline.audit.policy import AuditPolicy
    from eyeline.audit.verdict import Audit, AuditOptions
    from eyeline.convert.mirror import Mirrored
    from eyeline.convert.parity import ParityProof
    from eyeline.convert.quantize import Quantized
    from eyeline.registry.signing import Verified
    from eyeline.scan import ScanReport


def scan(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="An ONNX file; - for stdin.")],
    policy: Annotated[
        Path | None, typer.Option(help="A policy of your own; the built-in one otherwise.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The whole report as JSON.")] = False,
    static: Annotated[
        bool, typer.Option("--static", help="Only read the file; don't load it in a child process.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Nothing but the exit code.")
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Every finding, every op, the worst case.")
    ] = False,
) -> None:
    """Scan a model file: every op, attribute, constant and tensor size against an allowlist.

    Exit code 0: admitted; 1: refused, with the first offending node; 2: nothing that can be read.

    Example:
        eyeline model scan theirs.onnx
    """
    from eyeline.scan import load_policy, scan_file

    report = scan_file(file, load_policy(policy), load=not static)
    if as_json:
        typer.echo(json.dumps(report.to_json(), indent=1))
    elif not quiet:
        _print(report, verbose)
    if not report.admitted:
        raise typer.Exit(1)


def _print(report: ScanReport, verbose: bool) -> None:
    shown = report.findings if verbose else report.findings[:5]
    if report.admitted:
        nodes = sum(report.ops.values())
        typer.echo(f"admitted: {report.name}, {nodes} nodes of {len(report.ops)} ops")
    else:
        typer.echo(f"refused: {report.name}: {report.findings[0]}")
    for finding in shown[1:]:
        typer.echo(f"  also: {finding}")
    if len(report.findings) > len(shown):
        typer.echo(f"  and {len(report.findings) - len(shown)} more: --verbose, or --json")
    for note in report.notes:
        typer.echo(f"  note: {note}")
    if verbose:
        _print_details(report)


def _print_details(report: ScanReport) -> None:
    typer.echo(f"  sha256 {report.sha256}, {report.size:,} bytes, opset {report.opset}")
    if report.ops:
        typer.echo("  ops: " + ", ".join(f"{op} {count}" for op, count in report.ops.items()))
    if (case := report.worst_case) is not None:
        shape = "x".join(map(str, case.input))
        typer.echo(
            f"  at input {shape}: largest tensor {case.largest_tensor_bytes:,} bytes, "
            f"{case.peak_bytes:,} at once, {case.work:,} multiply-adds"
        )
    load = report.load
    typer.echo(f"  first load: {load.outcome}{f' ({load.detail})' if load.detail else ''}")
    typer.echo(f"  policy {report.policy['name']} {report.policy['version']}")


def audit(
    upstream: Annotated[
        list[str],
        typer.Argument(
            metavar="CHECKOUT...",
            help="Checkout, git directory (no work tree needed), folder, or a URL. Repeatable.",
        ),
    ],
    checkpoint: Annotated[
        Path | None, typer.Option(help="A weights file at hand: its sha256 pins the distribution.")
    ] = None,
    onnx: Annotated[
        Path | None, typer.Option(help="An ONNX of the model: the scanner judges its ops.")
    ] = None,
    net: Annotated[
        str | None, typer.Option(help="Class of the net, when the likeliest is not the one meant.")
    ] = None,
    policy: Annotated[
        Path | None, typer.Option(help="Policy file (TOML); the built-in one by default.")
    ] = None,
    api: Annotated[
        str | None, typer.Option(help="Root of the forge's REST API, for a URL of your own forge.")
    ] = None,
    json_out: Annotated[
        str | None, typer.Option("--json", help="Everything as JSON; `-` for stdout.")
    ] = None,
    markdown: Annotated[
        str | None, typer.Option(help="The verdict table as Markdown; `-` for stdout.")
    ] = None,
    details: Annotated[
        bool, typer.Option(help="In the Markdown, also list what blocks and what wants review.")
    ] = True,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show notes too.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but errors.")] = False,
) -> None:
    """Judge an upstream's licence, distribution, architecture and ops; exit 1 when it is blocked.

    Nothing of the checkout is imported or run. A URL is read through the forge's REST API; a token in
    EYELINE_FORGE_TOKEN or GITHUB_TOKEN raises its rate limit.

    Examples:
        eyeline model audit U-2-Net --net U2NETP --checkpoint u2netp.pth

        eyeline model audit https://github.com/xuebinqin/U-2-Net --markdown verdict.md
    """
    from eyeline.audit import verdict as report
    from eyeline.audit.policy import load_policy
    from eyeline.audit.verdict import AuditOptions
    from eyeline.files import write_bytes

    if len(upstream) > 1 and (checkpoint or onnx or net):
        raise UsageError(
            "--checkpoint, --onnx and --net belong to one upstream", "audit them one by one"
        )
    if json_out is not None and json_out == markdown:
        raise UsageError(f"{json_out}: two outputs of that name", "give each its own")
    rules = load_policy(policy)
    options = AuditOptions(checkpoint=checkpoint, onnx=onnx, net=net)
    audits = [_audit_one(name, api, rules, options) for name in upstream]
    if json_out is not None:
        write_bytes(json_out, report.dumps(audits).encode())
    if markdown is not None:
        write_bytes(markdown, report.markdown(audits, details).encode())
    if not quiet and "-" not in (json_out, markdown):
        typer.echo("\n".join(report.text(a, verbose) for a in audits), nl=False)
    if not all(a.admissible for a in audits):
        raise typer.Exit(1)


def _audit_one(name: str, api: str | None, policy: AuditPolicy, options: AuditOptions) -> Audit:
    from dataclasses import replace

    from eyeline.audit.forge import ForgeTree, is_url
    from eyeline.audit.tree import open_tree
    from eyeline.audit.verdict import audit as library_audit

    if not is_url(name):
        return library_audit(open_tree(Path(name)), policy, options)
    if sys.stderr.isatty():
        sys.stderr.write(f"reading {name} through its API\n")
    tree = ForgeTree(name, api)
    return library_audit(tree, policy, replace(options, assets=tree.assets()))


def keygen(
    private: Annotated[Path, typer.Argument(metavar="KEY.pem", help="The private key, new.")],
) -> None:
    """Make a key pair for signing: KEY.pem, which you keep, and KEY.pub, which you hand out (extra `sign`).

    Example:
        eyeline model keygen release.pem
    """
    from eyeline.registry.signing import make_key

    public = private.with_suffix(".pub")
    key = make_key(private, public)
    typer.echo(f"wrote {private} and {public}, key id {key}")


def sign(
    model: Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="The model.")],
    key: Annotated[Path, typer.Option(help="Private key, PEM: EC P-256, P-384 or P-521.")],
    model_id: Annotated[str, typer.Option("--id", metavar="ID", help="Its registry id.")],
    release: Annotated[
        int, typer.Option(min=1, help="Its release number, larger than any before.")
    ],
    password: Annotated[
        str | None,
        typer.Option(envvar="EYELINE_KEY_PASSWORD", help="Of the key; better by the variable."),
    ] = None,
) -> None:
    """Sign a model, offline: MODEL.release.json and MODEL.sig appear beside it (extra `sign`).

    Example:
        eyeline model sign mine.onnx --key release.pem --id mine --release 1
    """
    from eyeline.registry.signing import sign_model

    done = sign_model(model, key, model_id=model_id, release=release, password=password)
    typer.echo(f"signed {model} as {done.id}, release {done.release}, sha256 {done.sha256}")


def verify(
    model: Annotated[
        str, typer.Argument(metavar="ID|MODEL.onnx", help="Registry id, or a file with --key.")
    ],
    key: Annotated[
        Path | None, typer.Option(help="Public key, PEM; without it the registry's trust policy.")
    ] = None,
    minimum_release: Annotated[
        int | None, typer.Option(min=1, help="Oldest release to accept, with --key.")
    ] = None,
    registry: Annotated[
        str | None, typer.Option(envvar="EYELINE_REGISTRY", help="Your own registry folder.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of a line.")] = False,
) -> None:
    """Verify a signature, offline: by one key, or by what the registry's trust.json demands (extra `sign`).

    Exit code 0: verified; 1: not; 2: nothing there to verify, or nobody to trust.

    Example:
        eyeline model verify mine.onnx --key release.pub
    """
    from eyeline.registry.registry import Registry
    from eyeline.registry.signing import verify_file

    try:
        if key is not None:
            verified = verify_file(Path(model), key, minimum_release)
        else:
            verified = Registry(Path(registry) if registry else None).get(model).verify()
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
        from eyeline.convert.export import export_run
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
        from eyeline.convert.mirror import mirror_onnx, mirror_upstream
        from eyeline.convert.mirror_recipe import load_recipe
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


def quantize(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Registry id or path.")],
    calibration: Annotated[
        Path,
        typer.Option(help="Folder, .tar or .zip with images/ and masks/, never one you judge on."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The ONNX file.")],
    images: Annotated[int, typer.Option(min=1, help="Images to calibrate with.")] = 200,
    check: Annotated[int, typer.Option(min=1, help="Other images, to compare the two on.")] = 100,
    method: Annotated[
        str, typer.Option(help="Ranges of activations: minmax, percentile (99.999 %) or entropy.")
    ] = "percentile",
    keep_float: Annotated[
        list[str] | None,
        typer.Option(metavar="TYPE:N", help="Node to leave float: Conv:0, Conv:-1. Repeatable."),
    ] = None,
    full_range: Annotated[
        bool,
        typer.Option(
            "--full-range", help="Weights of 8 bits, not 7: for CPUs with VNNI, or not x86."
        ),
    ] = False,
    max_shift: Annotated[
        float, typer.Option(min=0, max=1, help="How far saliency_mean may move, on average.")
    ] = 0.01,
    license_file: Annotated[
        Path | None, typer.Option(help="The licence's text, where none lies beside MODEL.")
    ] = None,
    report: Annotated[
        str | None, typer.Option(help="Everything measured, as JSON; `-` for stdout.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Write it whatever the gate says.")
    ] = False,
    registry: Annotated[
        str | None, typer.Option(envvar="EYELINE_REGISTRY", help="Your own registry folder.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but errors.")] = False,
) -> None:
    """Quantise a model to INT8 (static QDQ) on images of yours (extra `eval`).

    Exit code 1, and no file: the maps move too far, or the file is not faster.

    Examples:
        eyeline model quantize saliency_student_v4 --calibration DUTS-TR -o saliency_student_v4_int8.onnx

        eyeline model quantize mine.onnx --calibration photos.zip --keep-float Conv:0 -o mine_int8.onnx
    """
    from eyeline.cli.progress import item_progress
    from eyeline.errors import UsageError
    from eyeline.files import write_bytes
    from eyeline.registry.registry import resolve_model

    try:
        from eyeline.convert.provenance import canonical_json
        from eyeline.convert.quantize import METHODS, QuantizeOptions, quantize_model
    except ModuleNotFoundError as exc:
        raise MissingExtraError(exc.name or "onnx", "eval") from exc
    chosen = next((m for m in METHODS if m == method), None)
    if chosen is None:
        raise UsageError(f"--method {method!r} is unknown", f"one of {', '.join(METHODS)}")
    options = QuantizeOptions(
        images=images,
        check=check,
        method=chosen,
        keep_float=tuple(keep_float or ()),
        full_range=full_range,
        max_shift=max_shift,
    )
    source = resolve_model(model, Path(registry) if registry else None)
    with item_progress("quantize", quiet) as advance:
        done = quantize_model(
            source, calibration, output, options,
            license_file=license_file, force=force, on_step=advance,
        )  # fmt: skip
    if report:
        write_bytes(report, canonical_json(done.report))
    if not quiet and report != "-":
        _model_quantize_say(done)
    for reason in done.verdict.reasons:
        sys.stderr.write(f"{output}: {reason}\n")
    if done.path is None:
        sys.stderr.write("not written; --force writes it all the same\n")
        raise typer.Exit(1)


def _model_quantize_say(done: Quantized) -> None:
    verdict, about = done.verdict, done.report
    if done.path is not None:
        typer.echo(f"wrote {done.path}, sha256 {done.sha256}")
    sizes = about["model"]["bytes"], about["source"]["bytes"]
    typer.echo(
        f"{sizes[0]:,} bytes for {sizes[1]:,}; calibrated on {about['calibration']['images']} images, "
        f"compared on {about['check']['images']} others"
    )
    for loss in verdict.losses:
        typer.echo(
            f"{loss.lines or 'its own'} lines: maps differ by {loss.map_mean:.4f} (largest "
            f"{loss.map_max:.3f}), saliency_mean by {loss.shift:.4f} (largest {loss.shift_max:.4f}, "
            f"limit {verdict.max_shift:g} on average), IoU {loss.iou:.4f}"
        )
    speed = verdict.speed
    width, height = speed.size
    typer.echo(
        f"{width}x{height}, one thread: {speed.quantized_ms:.2f} ms for {speed.float_ms:.2f}, "
        f"{speed.ratio:.2f} times as fast"
    )
