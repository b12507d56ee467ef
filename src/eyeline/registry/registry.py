"""Find a model by id or path, and read its bytes after verifying them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from eyeline.digests import sha256_hex
from eyeline.errors import RegistryError, VerificationError
from eyeline.files import read_regular_file
from eyeline.registry.records import (
    REGISTRY_FILE,
    TRUST_FILE,
    IoSpec,
    ModelRecord,
    RegistryFile,
    Task,
    TrustPolicy,
)
from eyeline.validation import read_record

if TYPE_CHECKING:
    from eyeline.registry.signing import Verified

BUILTIN = Path(__file__).parent / "builtin"

MODEL_VARIABLE = "EYELINE_MODEL"
REGISTRY_VARIABLE = "EYELINE_REGISTRY"

Use = Literal["extract", "score", "roi"]
"""The command for which a model is loaded."""

DEFAULT_TASKS: dict[Use, Task] = {
    "extract": "objects",  # keeps results comparable with existing logs
    "score": "gaze",  # nearest to scores weighted by recorded gaze (benchmarks/gaze_scores.py)
    "roi": "gaze",  # largest gain where viewers look, at equal bit rate (benchmarks/gaze_steering.py)
}
"""Per command, the task whose production model is used if the user names no model and no task."""


@dataclass(frozen=True)
class Model:
    """A model that can be loaded.

    Attributes:
        id: registry id, or the path of an unregistered file.
        path: the ONNX file.
        io: the I/O spec of the model.
        record: its registry record, None for an unregistered file.
        trust: the trust policy of its registry, None if the registry has no policy.
        declared_task: the task that the caller gave for an unregistered file, None if not given.
    """

    id: str
    path: Path
    io: IoSpec
    record: ModelRecord | None = None
    trust: TrustPolicy | None = None
    declared_task: Task | None = None

    @property
    def task(self) -> Task | None:
        """The task of the model; None for an unregistered file without `declared_task`."""
        return self.record.task if self.record is not None else self.declared_task

    @property
    def label(self) -> str:
        """Name and task for messages, such as `saliency_student_v4 (map: objects)`."""
        name = self.id if self.record is not None else Path(self.id).name.removesuffix(".onnx")
        return f"{name} (map: {self.task})" if self.task else name

    @property
    def smoke(self) -> bool:
        """Whether this is a model for smoke tests, whose maps have no meaning."""
        return self.record is not None and self.record.smoke

    @cached_property
    def data(self) -> bytes:
        """The bytes of the model, read once and compared with the digest in the record.

        Raises:
            RegistryError: the file cannot be read.
            VerificationError: the digest differs from the record, or the signature that the trust
                policy requires is missing or invalid.
        """
        data = read_regular_file(self.path)
        if self.record is not None:
            self.record.check_digest(data, self.path)
            if self.trust is not None:
                from eyeline.registry.signing import check_at_load

                check_at_load(self.record, data, self.trust, self.path.parent)
        return data

    def verify(self) -> Verified:
        """Verify the signature by the trust policy of the registry, even if loading needs no signature.

        Raises:
            VerificationError: see `eyeline.registry.signing.verify_model`.
            RegistryError: the model is not registered, or its registry has no trust policy.
            MissingExtraError: extra `sign` is not installed.
        """
        from eyeline.registry.signing import verify_model

        if self.record is None or self.trust is None:
            raise RegistryError(
                f"{self.id}: its registry has no trust policy ({TRUST_FILE})",
                "write this file, or give a public key with --key",
            )
        data = read_regular_file(self.path)
        return verify_model(self.record, data, self.trust, self.path.parent)

    @cached_property
    def sha256(self) -> str:
        """sha256 hex digest of the verified bytes."""
        return sha256_hex(self.data)


class Registry:
    """The built-in models and the models of the user's folder, which replace built-in ones of the same id.

    Args:
        folder: the registry folder of the user; None uses the variable `EYELINE_REGISTRY`.

    Raises:
        RegistryError: the folder has no registry, or its registry or trust policy is invalid.
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None) -> None:
        given = folder or os.environ.get(REGISTRY_VARIABLE)
        own = Path(given) if given else None
        self._models: dict[str, Model] = {}
        # Built-in models are part of the package: a trust policy applies only to its own folder.
        self.trust = read_trust(own) if own is not None else None
        for place in (BUILTIN, own):
            if place is not None:
                trust = self.trust if place is own else None
                for record in read_registry(place).models:
                    self._models.pop(record.id, None)  # a replacement moves to the end
                    self._models[record.id] = Model(
                        record.id, place / record.file, record.io, record, trust
                    )

    def __iter__(self) -> Iterator[Model]:
        return iter(self._models.values())

    def __contains__(self, model_id: object) -> bool:
        return model_id in self._models

    def get(self, model_id: str) -> Model:
        """Return the model with this id.

        Raises:
            RegistryError: no model has this id.
        """
        if model_id not in self._models:
            known = ", ".join(sorted(self._models))
            raise RegistryError(
                f"the registry has no model {model_id!r}", f"choose one of: {known}; or give a path"
            )
        return self._models[model_id]

    def production(self, task: Task) -> Model | None:
        """Return the production model of a task, or None; a model of the user's folder comes first."""
        models = [m for m in self if m.record and m.record.role == "production" and m.task == task]
        return models[-1] if models else None

    def default(self, task: Task = "objects") -> Model:
        """Return the production model of a task.

        Raises:
            RegistryError: the task has no production model.
        """
        found = self.production(task)
        if found is not None:
            return found
        others = ", ".join(m.id for m in self if m.task == task and not m.smoke)
        raise RegistryError(
            f"the registry has no production model for {task} maps",
            f"name one of these with --model, or promote it with eyeline model promote: {others}"
            if others
            else f"add a model with eyeline model add --task {task}, or name a file with --model",
        )


def read_registry(folder: Path) -> RegistryFile:
    """Read the records of a registry folder.

    Raises:
        RegistryError: the registry is missing or invalid, or two models have the same id.
    """
    path = folder / REGISTRY_FILE
    registry = read_record(
        RegistryFile, path, "a registry",
        hint="fix the file", error=RegistryError, limit=16 * 1024 * 1024,
    )  # fmt: skip
    ids = [m.id for m in registry.models]
    if len(set(ids)) != len(ids):
        raise RegistryError(
            f"{path}: two models have the id {max(ids, key=ids.count)}",
            "give every model its own id",
        )
    return registry


def read_trust(folder: Path) -> TrustPolicy | None:
    """Read the trust policy of a registry folder; return None if it has none.

    Raises:
        RegistryError: the policy cannot be read or is invalid.
    """
    path = folder / TRUST_FILE
    if not os.path.lexists(path):
        return None
    return read_record(
        TrustPolicy, path, "a trust policy", hint="fix the file", error=RegistryError
    )


def read_io_spec(path: Path) -> IoSpec:
    """Read an I/O spec from a JSON file.

    Raises:
        RegistryError: the file cannot be read or is invalid.
    """
    return read_record(
        IoSpec, path, "an I/O spec", hint="fix or remove the file", error=RegistryError
    )


def resolve_model(
    name: str | Model | None = None,
    registry: str | os.PathLike[str] | None = None,
    *,
    task: Task | None = None,
    use: Use = "extract",
) -> Model:
    """Return the model with an id or path, or the default model.

    ::

        eyeline.extract("clip.mp4", model=eyeline.resolve_model(task="gaze"))

    The I/O spec of an unregistered file `NAME.onnx` is read from `NAME.json` beside it; without this file
    the defaults of `IoSpec` apply.

    Args:
        name: id or path. None uses the variable `EYELINE_MODEL`, or else the production model of the
            task. A `Model` is returned after its task is checked.
        registry: the registry folder of the user, see `Registry`.
        task: the task that the model must have; also selects the default model.
        use: selects the default model if `task` is None, see `DEFAULT_TASKS`.

    Raises:
        RegistryError: the id is unknown, the file is missing, the I/O spec is invalid, the task has no
            production model, or the model has another task.
        VerificationError: `name` is a path, but the registry requires signatures.
    """
    if not isinstance(name, Model):
        name = name or os.environ.get(MODEL_VARIABLE)
        models = Registry(None if registry is None else Path(registry))
        if not name:
            return models.default(task or DEFAULT_TASKS[use])
        model = _registered_or_file(name, models, task)
    else:
        model = name
    if task is not None and model.task not in (None, task):
        raise RegistryError(
            f"{model.id} makes {model.task} maps, but {task} maps were requested",
            f"leave out either --map or --model (and {MODEL_VARIABLE})",
        )
    return model


def _registered_or_file(name: str, models: Registry, task: Task | None) -> Model:
    path = Path(name)
    is_path = path.suffix == ".onnx" or os.sep in name or _exists(path)
    if name in models or not is_path:
        return models.get(name)
    if models.trust is not None and models.trust.require_signature:
        raise VerificationError(
            f"{name}: the model is not registered, but the trust policy requires signed models",
            "sign and register the model, or leave out --registry",
        )
    sidecar, io = path.parent / f"{path.stem}.json", IoSpec()
    if _exists(sidecar):
        io = read_io_spec(sidecar)
    return Model(str(path), path, io, declared_task=task)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # the name is too long, or the folder is not accessible
        return False
