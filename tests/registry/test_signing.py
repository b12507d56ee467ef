"""Signatures: what was signed verifies, and nothing else does."""

from __future__ import annotations

import contextlib
import json
import shutil
import stat
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import commands
from eyeline.digests import sha256_hex
from eyeline.errors import ModelError, RegistryError, VerificationError
from eyeline.registry.records import ModelRecord, TrustPolicy
from eyeline.registry.registry import BUILTIN, Registry, read_trust, resolve_model
from tiny_models import BLUE, RED, plane_model, record_fields, write_registry

pytest.importorskip("model_signing", reason="extra `sign` is not installed")

from eyeline.registry.signing import (
    BUNDLE_SUFFIX,
    RELEASE_SUFFIX,
    SIGNATURE_SUFFIX,
    Release,
    check_at_load,
    key_id,
    make_key,
    read_release,
    sign_model,
    verify_model,
    verify_signature,
)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the key pairs `ours` and `theirs`."""
    folder = tmp_path_factory.mktemp("keys")
    for name in ("ours", "theirs"):
        make_key(folder / f"{name}.pem", folder / f"{name}.pub")
    return folder


def pem(keys: Path, name: str = "ours") -> str:
    return (keys / f"{name}.pub").read_text()


def policy(keys: Path, **fields: Any) -> TrustPolicy:
    named = [{"name": n, "public_key": pem(keys, n)} for n in ("ours", "theirs")]
    roles = {"candidate": {"signers": ["ours"]}}
    return TrustPolicy.model_validate(
        {"require_signature": True, "keys": named, "roles": roles} | fields
    )


def signed(
    folder: Path, keys: Path, data: bytes, model_id: str = "mine", **options: Any
) -> ModelRecord:
    """A registry folder with one signed candidate."""
    write_registry(folder, {model_id: data})
    options = {"key": keys / "ours.pem", "model_id": model_id, "release": 3} | options
    sign_model(folder / f"{model_id}.onnx", **options)
    return ModelRecord.model_validate(record_fields(model_id, data))


DATA = plane_model(RED)


@pytest.fixture
def package(tmp_path: Path, keys: Path) -> tuple[Path, ModelRecord]:
    return tmp_path / "r", signed(tmp_path / "r", keys, DATA)


def parts(folder: Path, stem: str = "mine") -> tuple[bytes, bytes]:
    return tuple((folder / (stem + s)).read_bytes() for s in (RELEASE_SUFFIX, SIGNATURE_SUFFIX))  # type: ignore[return-value]


# --- one signature


def test_what_was_signed_verifies(package: tuple[Path, ModelRecord], keys: Path) -> None:
    release = verify_signature(DATA, *parts(package[0]), pem(keys))
    assert release == Release(id="mine", file="mine.onnx", sha256=sha256_hex(DATA), release=3)


def test_a_flipped_byte_anywhere_never_verifies(keys: Path, tmp_path: Path) -> None:
    data = (BUILTIN / "placeholder.onnx").read_bytes()
    signed(tmp_path, keys, data)
    package = [data, *parts(tmp_path)]
    key = pem(keys)
    verify_signature(*package, key)
    flips = 0
    for part, content in enumerate(package):
        for at in range(len(content)):
            bad = bytearray(content)
            bad[at] ^= 1 << (at % 8)
            with pytest.raises(VerificationError):
                verify_signature(*package[:part], bytes(bad), *package[part + 1 :], key)
            flips += 1
    assert flips == sum(map(len, package)) > 1500


def test_every_bit_of_the_signature_value_counts(
    package: tuple[Path, ModelRecord], keys: Path
) -> None:
    release, signature = parts(package[0])
    at = signature.index(b'"sig":"') + 7
    for bit in range(8):
        for offset in (0, 7, 40, 90):
            bad = bytearray(signature)
            bad[at + offset] ^= 1 << bit
            with pytest.raises(VerificationError):
                verify_signature(DATA, release, bytes(bad), pem(keys))


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s + b"\n",
        lambda s: b" " + s,
        lambda s: s.replace(b'":', b'": ', 1),
        lambda s: json.dumps(json.loads(s), indent=1).encode(),
        lambda s: s.replace(b'"tlogEntries":[]', b'"tlogEntries":[],"extra":1'),
        lambda s: s.replace(b'"hint":"', b'"hint":"0'),
        lambda s: s[:-1],
        lambda s: b"",
        lambda s: b"{}",
        lambda s: b"[" * 100_000,
        lambda s: b"\xff\xfe",
    ],
)
def test_a_signature_file_that_was_rewritten_is_refused(
    package: tuple[Path, ModelRecord], keys: Path, change: Any
) -> None:
    release, signature = parts(package[0])
    assert change(signature) != signature
    with pytest.raises(VerificationError) as caught:
        verify_signature(DATA, release, change(signature), pem(keys))
    assert "\n" not in str(caught.value)


def test_another_key_is_refused(package: tuple[Path, ModelRecord], keys: Path) -> None:
    with pytest.raises(VerificationError, match="another key"):
        verify_signature(DATA, *parts(package[0]), pem(keys, "theirs"))


def test_a_hint_that_lies_is_refused(tmp_path: Path, keys: Path) -> None:
    signed(tmp_path, keys, DATA, key=keys / "theirs.pem")
    release, signature = parts(tmp_path)
    ours, theirs = key_id(pem(keys)).encode(), key_id(pem(keys, "theirs")).encode()
    with pytest.raises(VerificationError, match="the signature is not valid"):
        verify_signature(DATA, release, signature.replace(theirs, ours), pem(keys))


def test_a_signature_that_covers_nothing_is_refused(
    package: tuple[Path, ModelRecord], keys: Path
) -> None:
    # The signed statement says which paths it ignores; a real signature over an empty folder that
    # ignores both files passes model-signing's own check.
    import model_signing

    release, _ = parts(package[0])
    empty = package[0].parent / "mine"
    empty.mkdir()
    (empty / "other").write_bytes(b"x")
    for name in ("mine.onnx", "release.json"):
        (empty / name).touch()
    hashing = model_signing.hashing.Config().set_ignored_paths(
        paths=[empty / "mine.onnx", empty / "release.json", empty / "other"]
    )
    signing = model_signing.signing.Config().use_elliptic_key_signer(private_key=keys / "ours.pem")
    signing.set_hashing_config(hashing).sign(empty, empty.parent / "s")
    with pytest.raises(VerificationError):
        verify_signature(DATA, release, (empty.parent / "s").read_bytes(), pem(keys))


def test_a_plain_signature_of_the_file_alone_is_refused(
    package: tuple[Path, ModelRecord], keys: Path, tmp_path: Path
) -> None:
    import model_signing

    (tmp_path / "mine.onnx").write_bytes(DATA)
    config = model_signing.signing.Config().use_elliptic_key_signer(private_key=keys / "ours.pem")
    config.sign(tmp_path / "mine.onnx", tmp_path / "s")
    with pytest.raises(VerificationError):
        verify_signature(DATA, parts(package[0])[0], (tmp_path / "s").read_bytes(), pem(keys))


def test_stock_model_signing_verifies_our_package(
    package: tuple[Path, ModelRecord], keys: Path, tmp_path: Path
) -> None:
    import model_signing

    release, signature = parts(package[0])
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "mine.onnx").write_bytes(DATA)
    (folder / "release.json").write_bytes(release)
    (tmp_path / "s").write_bytes(signature)
    config = model_signing.verifying.Config().use_elliptic_key_verifier(
        public_key=keys / "ours.pub"
    )
    config.verify(folder, tmp_path / "s")
    (folder / "mine.onnx").write_bytes(DATA + b"\0")
    with pytest.raises(ValueError, match="mismatch"):
        config.verify(folder, tmp_path / "s")


@given(st.binary(max_size=300))
@settings(max_examples=100)
def test_arbitrary_bytes_are_one_kind_of_error(data: bytes) -> None:
    release = Release(id="a", file="a.onnx", sha256=sha256_hex(b"x"), release=1).to_bytes()
    with pytest.raises(VerificationError):
        verify_signature(b"x", release, data, data.hex())
    with pytest.raises(VerificationError):
        read_release(data)


@pytest.mark.parametrize(
    "text", ["", "no key", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"]
)
def test_a_public_key_that_is_none(package: tuple[Path, ModelRecord], text: str) -> None:
    with pytest.raises(VerificationError, match="public key"):
        verify_signature(DATA, *parts(package[0]), text)


def test_rsa_is_refused() -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(65537, 2048).public_key()
    text = key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    ).decode()
    with pytest.raises(VerificationError, match="not an elliptic-curve key"):
        key_id(text)


# --- keys and signing


def test_a_private_key_is_private_and_never_overwritten(tmp_path: Path) -> None:
    make_key(tmp_path / "k.pem", tmp_path / "k.pub")
    before = (tmp_path / "k.pem").read_bytes()
    assert stat.S_IMODE((tmp_path / "k.pem").stat().st_mode) == 0o600
    with pytest.raises(ModelError, match="can't be written"):
        make_key(tmp_path / "k.pem", tmp_path / "k2.pub")
    assert (tmp_path / "k.pem").read_bytes() == before


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"model_id": "../up"}, "can't make a release record"),
        ({"release": 0}, "can't make a release record"),
        ({"key": Path("/dev/null")}, "can't sign with this key"),
        ({"key": Path("/nonexistent")}, "can't sign with this key"),
    ],
)
def test_what_cant_be_signed_is_one_line(
    tmp_path: Path, keys: Path, options: dict[str, Any], match: str
) -> None:
    (tmp_path / "m.onnx").write_bytes(DATA)
    with pytest.raises(ModelError, match=match) as caught:
        sign_model(
            tmp_path / "m.onnx",
            **({"key": keys / "ours.pem", "model_id": "m", "release": 1} | options),
        )
    assert "\n" not in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["m.onnx"]


# --- the policy, at load


def test_a_signed_model_is_loaded(package: tuple[Path, ModelRecord], keys: Path) -> None:
    folder, record = package
    verified = verify_model(record, DATA, policy(keys), folder)
    assert (verified.signer, verified.method, verified.release) == ("ours", "key", 3)
    assert json.loads(json.dumps(verified.to_json()))["id"] == "mine"


def refused(record: ModelRecord, data: bytes, trust: TrustPolicy, folder: Path, match: str) -> None:
    with pytest.raises(VerificationError, match=match) as caught:
        verify_model(record, data, trust, folder)
    assert caught.value.message.startswith(record.id)
    assert "\n" not in str(caught.value)


def test_unsigned(package: tuple[Path, ModelRecord], keys: Path) -> None:
    folder, record = package
    (folder / f"mine{SIGNATURE_SUFFIX}").unlink()
    refused(record, DATA, policy(keys), folder, "no signature")


def test_without_its_release_record(package: tuple[Path, ModelRecord], keys: Path) -> None:
    folder, record = package
    (folder / f"mine{RELEASE_SUFFIX}").unlink()
    refused(record, DATA, policy(keys), folder, "the signature or the release record is missing")


def test_tampered_with_the_registry(package: tuple[Path, ModelRecord], keys: Path) -> None:
    folder, record = package
    other = plane_model(BLUE)
    changed = record.model_copy(update={"sha256": sha256_hex(other)})
    refused(changed, other, policy(keys), folder, "differs from the one in the release record")
    refused(record, other, policy(keys), folder, "but the registry has")


def test_wrongly_keyed(tmp_path: Path, keys: Path) -> None:
    record = signed(tmp_path, keys, DATA, key=keys / "theirs.pem")
    refused(record, DATA, policy(keys), tmp_path, "ours: signed with another key")
    anybody = policy(keys, roles={})
    assert verify_model(record, DATA, anybody, tmp_path).signer == "theirs"


@pytest.mark.parametrize("by", ["name", "key id"])
def test_a_revoked_key(package: tuple[Path, ModelRecord], keys: Path, by: str) -> None:
    folder, record = package
    gone = "ours" if by == "name" else key_id(pem(keys))
    refused(record, DATA, policy(keys, revoked_keys=[gone]), folder, "ours: this key is revoked")


def test_a_revoked_model(package: tuple[Path, ModelRecord], keys: Path) -> None:
    folder, record = package
    trust = policy(keys, revoked_models=[record.sha256])
    refused(record, DATA, trust, folder, "revoked")
    lax = trust.model_copy(update={"require_signature": False})
    with pytest.raises(VerificationError, match="revoked"):
        check_at_load(record, DATA, lax, folder)


def test_swapped(tmp_path: Path, keys: Path) -> None:
    a = signed(tmp_path / "a", keys, DATA, "a")
    b_data = plane_model(BLUE)
    b = signed(tmp_path / "b", keys, b_data, "b")
    for suffix in (RELEASE_SUFFIX, SIGNATURE_SUFFIX):
        shutil.copy(tmp_path / "a" / f"a{suffix}", tmp_path / "b" / f"b{suffix}")
    refused(b, b_data, policy(keys), tmp_path / "b", "differs from the one in the release record")
    # A's bytes too, registered as B: the signature is real, and says that they are A's.
    (tmp_path / "b" / "b.onnx").write_bytes(DATA)
    posing = b.model_copy(update={"sha256": a.sha256})
    refused(posing, DATA, policy(keys), tmp_path / "b", "the signature is for another model, 'a'")


def test_rolled_back(package: tuple[Path, ModelRecord], keys: Path) -> None:
    folder, record = package
    assert verify_model(record, DATA, policy(keys, minimum_release={"mine": 3}), folder)
    refused(
        record, DATA, policy(keys, minimum_release={"mine": 4}), folder, "the minimum release is 4"
    )


def test_a_release_number_cant_be_edited(package: tuple[Path, ModelRecord], keys: Path) -> None:
    folder, record = package
    path = folder / f"mine{RELEASE_SUFFIX}"
    path.write_bytes(path.read_bytes().replace(b'"release": 3', b'"release": 4'))
    refused(
        record,
        DATA,
        policy(keys, minimum_release={"mine": 4}),
        folder,
        "the signature is not valid",
    )


def test_a_role_that_nobody_may_sign_for(package: tuple[Path, ModelRecord], keys: Path) -> None:
    folder, record = package
    refused(
        record,
        DATA,
        policy(keys, roles={"candidate": {"signers": []}}),
        folder,
        "no signer is trusted",
    )


def test_a_role_that_needs_none(package: tuple[Path, ModelRecord], keys: Path) -> None:
    folder, record = package
    (folder / f"mine{SIGNATURE_SUFFIX}").unlink()
    check_at_load(record, DATA, policy(keys, roles={"candidate": {"signed": False}}), folder)
    check_at_load(record, DATA, policy(keys, require_signature=False), folder)


# --- in a registry


def registry(folder: Path, keys: Path, **fields: Any) -> Path:
    (folder / "trust.json").write_text(policy(keys, **fields).model_dump_json())
    return folder


def test_a_registry_checks_at_load(package: tuple[Path, ModelRecord], keys: Path) -> None:
    folder = registry(package[0], keys)
    assert resolve_model("mine", folder).data == DATA
    (folder / f"mine{SIGNATURE_SUFFIX}").unlink()
    with pytest.raises(VerificationError, match="no signature"):
        _ = resolve_model("mine", folder).data


def test_a_registry_without_the_requirement_does_not(
    package: tuple[Path, ModelRecord], keys: Path
) -> None:
    folder = registry(package[0], keys, require_signature=False)
    (folder / f"mine{SIGNATURE_SUFFIX}").unlink()
    assert resolve_model("mine", folder).data == DATA


def test_an_unregistered_file_is_refused_where_signatures_are_required(
    package: tuple[Path, ModelRecord], keys: Path, tmp_path: Path
) -> None:
    folder = registry(package[0], keys)
    (tmp_path / "other.onnx").write_bytes(DATA)
    with pytest.raises(VerificationError, match="not registered"):
        resolve_model(str(tmp_path / "other.onnx"), folder)


def test_built_in_models_are_covered_by_the_package(
    package: tuple[Path, ModelRecord], keys: Path
) -> None:
    folder = registry(package[0], keys)
    assert Registry(folder).get("placeholder").data


@pytest.mark.parametrize(
    "text",
    [
        "{",
        '{"require_signature": "maybe"}',
        '{"require": true}',
        '{"roles": {"candidate": {"signers": ["ghost"]}}}',
        '{"roles": {"king": {}}}',
        '{"minimum_release": {"../x": 1}}',
        '{"identities": [{"name": "a", "identity": "b@c.d", "issuer": "https://i.example", '
        '"repository": "https://r.example/x"}]}',
        '{"keys": [{"name": "a", "public_key": "' + "x" * 70 + '"}, {"name": "a", "public_key": "'
        + "x" * 70 + '"}]}',
    ],
)  # fmt: skip
def test_a_bad_policy_is_one_line_and_not_ignored(tmp_path: Path, text: str) -> None:
    write_registry(tmp_path, {"mine": DATA})
    (tmp_path / "trust.json").write_text(text)
    with pytest.raises(RegistryError, match=r"trust\.json") as caught:
        Registry(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_policy_has_none(tmp_path: Path) -> None:
    assert read_trust(tmp_path) is None


# --- the commands


eyeline = partial(commands.run, "model")


def test_keygen_sign_verify(tmp_path: Path) -> None:
    model = tmp_path / "mine.onnx"
    model.write_bytes(DATA)
    done = eyeline("keygen", tmp_path / "release.pem")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "release.pub").exists()
    assert eyeline("keygen", tmp_path / "release.pem").returncode == 2
    done = eyeline(
        "sign", model, "--key", tmp_path / "release.pem", "--id", "mine", "--release", "2"
    )
    assert done.returncode == 0, done.stderr
    done = eyeline("verify", model, "--key", tmp_path / "release.pub", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["release"] == 2
    done = eyeline("verify", model, "--key", tmp_path / "release.pub", "--minimum-release", "3")
    assert done.returncode == 1
    assert "the minimum release is" in done.stdout
    model.write_bytes(plane_model(BLUE))
    done = eyeline("verify", model, "--key", tmp_path / "release.pub")
    assert done.returncode == 1
    assert done.stdout.startswith(f"not verified: {model}")


def test_verify_by_the_registrys_policy(package: tuple[Path, ModelRecord], keys: Path) -> None:
    folder = registry(package[0], keys)
    done = eyeline("verify", "mine", "--registry", folder)
    assert done.returncode == 0, done.stderr
    assert "release 3, signed by ours" in done.stdout
    (folder / f"mine{SIGNATURE_SUFFIX}").unlink()
    done = eyeline("verify", "mine", "--registry", folder)
    assert done.returncode == 1
    assert "no signature" in done.stdout


def test_verify_without_anything_to_trust_is_exit_code_2(tmp_path: Path) -> None:
    write_registry(tmp_path, {"mine": DATA})
    done = eyeline("verify", "mine", "--registry", tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "trust.json" in done.stderr


# --- Sigstore, with a real bundle


@pytest.fixture(scope="module")
def real(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[bytes, bytes, bytes]:
    """A source archive, its Sigstore bundle, and Sigstore's trusted root.

    The first two are in the sdist of `pypi-attestations`, which pip downloads once into the cache of
    pytest: pip takes about 15 s for it, because it also builds the metadata.
    """
    import tarfile

    sigstore = pytest.importorskip("sigstore")
    kept = getattr(request.config, "cache", None)  # absent with `-p no:cacheprovider`
    cache = kept.mkdir("sdist") if kept else tmp_path_factory.mktemp("sdist")
    name = "pypi_attestations-0.0.30"
    archive = cache / f"{name}.tar.gz"
    if not archive.exists():
        options = ["-q", "--no-deps", "--no-binary", ":all:", "--retries", "0", "--timeout", "10"]
        command = [sys.executable, "-m", "pip", "download", *options, "--dest", str(cache)]
        with contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run(
                [*command, "pypi-attestations==0.0.30"],
                capture_output=True,
                check=False,
                timeout=60,
            )
        if not archive.exists():
            pytest.skip("the sdist of pypi-attestations 0.0.30 can't be downloaded here")
    asset = f"{name}/test/assets/pypi_attestation_models-0.0.4a2.tar.gz"
    with tarfile.open(archive) as tar:
        found = [tar.extractfile(n) for n in (asset, f"{asset}.sigstore")]
        assert all(found)
        data, bundle = (f.read() for f in found if f)
    store = Path(sigstore.__file__).parent / "_store"
    root = next(store.glob("*sigstore.dev/trusted_root.json"))
    return data, bundle, root.read_bytes()


IDENTITY = {
    "name": "release",
    "identity": "https://github.com/trailofbits/pypi-attestation-models/.github/workflows/release.yml@refs/tags/v0.0.4a2",
    "issuer": "https://token.actions.githubusercontent.com",
    "repository": "https://github.com/trailofbits/pypi-attestation-models",
}


def verify_real(real: tuple[bytes, bytes, bytes], **fields: Any) -> set[str]:
    from eyeline.registry.records import SigstoreIdentity
    from eyeline.registry.signing import verify_bundle

    data, bundle, root = real
    options = {k: fields.pop(k, v) for k, v in (("data", data), ("bundle", bundle), ("root", root))}
    pinned = fields.pop("pinned", sha256_hex(root))
    identity = SigstoreIdentity.model_validate(
        {k: v for k, v in (IDENTITY | fields).items() if v is not None}
    )
    return verify_bundle(options["data"], options["bundle"], identity, options["root"], pinned)


def test_a_real_bundle_verifies_offline(
    real: tuple[bytes, bytes, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    def refuse(*_: Any) -> None:
        raise AssertionError("network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert verify_real(real) == {sha256_hex(real[0])}
    assert verify_real(real, ref="refs/tags/v0.0.4a2")
    whole = r"https://github\.com/trailofbits/pypi-attestation-models/.*@refs/tags/v[0-9a.]+"
    assert verify_real(real, identity=None, identity_pattern=whole)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("identity", IDENTITY["identity"].replace("v0.0.4a2", "v0.0.5")),
        ("identity", IDENTITY["identity"][:-1]),
        ("identity", IDENTITY["identity"].upper()),
        ("issuer", "https://accounts.google.com"),
        ("repository", "https://github.com/trailofbits/pypi-attestation"),
        ("repository", "https://github.com/trailofbits/pypi-attestation-models-evil"),
        ("ref", "refs/heads/main"),
        ("pinned", "0" * 64),
        ("data", b"another file"),
        ("bundle", b"{}"),
        ("bundle", b""),
        ("bundle", b"\xff"),
        ("root", b"{}"),
    ],
)
def test_anything_else_about_it_is_refused(
    real: tuple[bytes, bytes, bytes], field: str, value: Any
) -> None:
    with pytest.raises(VerificationError) as caught:
        verify_real(real, **{field: value})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "pattern",
    [
        r"https://github\.com/trailofbits/pypi-attestation",  # a prefix is not the whole
        r"pypi-attestation-models",
        r"https://github\.com/trailofbits/pypi-attestation-models/.*@refs/tags/v0\.0",
    ],
)
def test_a_pattern_must_match_the_whole_identity(
    real: tuple[bytes, bytes, bytes], pattern: str
) -> None:
    with pytest.raises(VerificationError, match="the signer is"):
        verify_real(real, identity=None, identity_pattern=pattern)


def test_a_changed_bundle_never_verifies(real: tuple[bytes, bytes, bytes]) -> None:
    bundle = json.loads(real[1])

    def changed(*path: str | int, value: Any) -> bytes:
        copy = json.loads(real[1])
        inner = copy
        for step in path[:-1]:
            inner = inner[step]
        inner[path[-1]] = value
        assert copy != bundle
        return json.dumps(copy).encode()

    entry = ("verificationMaterial", "tlogEntries", 0)
    payload = bundle["dsseEnvelope"]["payload"]
    for bad in (
        changed("dsseEnvelope", "payload", value=payload[:-8] + "AAAA" + payload[-4:]),
        changed("dsseEnvelope", "signatures", 0, "sig", value="MEUCIQ=="),
        changed("dsseEnvelope", "signatures", value=[]),
        changed("dsseEnvelope", "payloadType", value="text/plain"),
        changed(*entry, "logIndex", value="1"),
        changed(*entry, "integratedTime", value="1"),
        changed("verificationMaterial", "tlogEntries", value=[]),
        changed("mediaType", value="application/json"),
    ):
        with pytest.raises(VerificationError):
            verify_real(real, bundle=bad)


def test_a_bundle_in_a_registry(
    real: tuple[bytes, bytes, bytes], keys: Path, tmp_path: Path
) -> None:
    # The real bundle is an archive's: registered as if it were a model, to see the whole way.
    data, bundle, root = real
    write_registry(tmp_path, {"mine": data})
    (tmp_path / f"mine{BUNDLE_SUFFIX}").write_bytes(bundle)
    (tmp_path / "root.json").write_bytes(root)
    record = ModelRecord.model_validate(record_fields("mine", data))
    pinned = {"file": "root.json", "sha256": sha256_hex(root)}
    fields = {"identities": [IDENTITY], "trusted_root": pinned, "roles": {}}
    verified = verify_model(record, data, policy(keys, **fields), tmp_path)
    assert (verified.signer, verified.method, verified.release) == ("release", "sigstore", None)
    # Nothing says which release this is: where one is demanded, that is a refusal.
    with pytest.raises(VerificationError, match="no signed release number"):
        verify_model(record, data, policy(keys, minimum_release={"mine": 1}, **fields), tmp_path)
    (tmp_path / "root.json").write_bytes(root + b" ")
    with pytest.raises(VerificationError, match=r"differs from the one in trust\.json"):
        verify_model(record, data, policy(keys, **fields), tmp_path)
