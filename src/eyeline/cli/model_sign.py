"""`eyeline model keygen`, `sign` and `verify`: who stands for these bytes?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from eyeline.errors import VerificationError

if TYPE_CHECKING:
    from eyeline.models.verifying import Verified


def keygen(
    private: Annotated[Path, typer.Argument(metavar="KEY.pem", help="The private key, new.")],
) -> None:
    """Make a key pair for signing: KEY.pem, which you keep, and KEY.pub, which you hand out (extra `sign`).

    Example:
        eyeline model keygen release.pem
    """
    from eyeline.models.signing import make_key

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
    from eyeline.models.signing import sign_model

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
    from eyeline.models.registry import Registry
    from eyeline.models.verifying import verify_file

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
        typer.echo(f"not verified: {exc.message}\n  {exc.mend}")
