"""Find a model by id or path, and read its verified bytes; nothing else reads model files to run them."""

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
"""The command, or the function behind it, that a model is wanted for."""

DEFAULT_TASKS: dict[Use, Task] = {
    "extract": "objects",  # the numbers of existing logs stay comparable
    "score": "gaze",  # nearest to scores that recorded gaze weights (benchmarks/gaze_scores.py)
    "roi": "gaze",  # gains most at the gaze at equal cost (benchmarks/gaze_steering.py)
}
"""Task whose production model is taken when neither a model nor a task is named."""


@dataclass(frozen=True)
class Model:
    """A model that can be loaded.

    Attributes:
        id: registry id, or the path of an unregistered file.
        path: the ONNX file.
        io: how frames become its input.
        record: its registry record, None for an unregistered file.
        trust: the trust policy of its registry, None where there is none.
        declared_task: the task that the caller stated for an unregistered file, None if not stated.
    """

    id: str
    path: Path
    io: IoSpec
    record: ModelRecord | None = None
    trust: TrustPolicy | None = None
    declared_task: Task | None = None

    @property
    def task(self) -> Task | None:
        """What its map shows; None for an unregistered file without a stated task."""
        return self.record.task if self.record is not None else self.declared_task

    @property
    def label(self) -> str:
        """Name and task for messages, such as `saliency_student_v4 (map: objects)`."""
        name = self.id if self.record is not None else Path(self.id).name.removesuffix(".onnx")
        return f"{name} (map: {self.task})" if self.task else name

    @property
    def smoke(self) -> bool:
        """Whether its numbers mean nothing."""
        return self.record is not None and self.record.smoke

    @cached_property
    def data(self) -> bytes:
        """The model's bytes, read once and compared with the record's digest.

        Raises:
            RegistryError: the file cannot be read.
            VerificationError: the bytes are not the registered ones, or not signed as the trust
                policy demands.
        """
        data = read_regular_file(self.path)
        if self.record is not None:
            self.record.check_digest(data, self.path)
            if self.trust is not None:
                from eyeline.registry.signing import check_at_load

                check_at_load(self.record, data, self.trust, self.path.parent)
        return data

    def verify(self) -> Verified:
        """Verify the model by its registry's trust policy, even if loading needs no signature.

        Raises:
            VerificationError: see `eyeline.registry.signing.verify_model`.
            RegistryError: the model is not registered, or its registry has no trust policy.
            MissingExtraError: extra `sign` is not installed.
        """
        from eyeline.registry.signing import verify_model

        if self.record is None or self.trust is None:
            raise RegistryError(
                f"{self.id}: its registry has no {TRUST_FILE}", "write one, or verify with --key"
            )
        data = read_regular_file(self.path)
        return verify_model(self.record, data, self.trust, self.path.parent)

    @cached_property
    def sha256(self) -> str:
        """Hex digest of the verified bytes."""
        return sha256_hex(self.data)


class Registry:
    """The built-in models and those of the user's folder, which win when two have the same id.

    Args:
        folder: the user's registry folder; `EYELINE_REGISTRY` when None.

    Raises:
        RegistryError: the folder has no registry, or its registry or trust policy is invalid.
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None) -> None:
        given = folder or os.environ.get(REGISTRY_VARIABLE)
        own = Path(given) if given else None
        self._models: dict[str, Model] = {}
        # Built-in models are trusted as this code is: a trust policy covers its own folder only.
        self.trust = read_trust(own) if own is not None else None
        for place in (BUILTIN, own):
            if place is not None:
                trust = self.trust if place is own else None
                for record in read_registry(place).models:
                    self._models.pop(record.id, None)  # the later one also goes to the end
                    self._models[record.id] = Model(
                        record.id, place / record.file, record.io, record, trust
                    )

    def __iter__(self) -> Iterator[Model]:
        return iter(self._models.values())

    def __contains__(self, model_id: object) -> bool:
        return model_id in self._models

    def get(self, model_id: str) -> Model:
        """Return the model of an id.

        Raises:
            RegistryError: no model has that id.
        """
        if model_id not in self._models:
            known = ", ".join(sorted(self._models))
            raise RegistryError(f"no model {model_id!r}", f"known: {known}; or give a path")
        return self._models[model_id]

    def production(self, task: Task) -> Model | None:
        """Return the production model of a task, the user's before the built-in one; or None."""
        models = [m for m in self if m.record and m.record.role == "production" and m.task == task]
        return models[-1] if models else None

    def default(self, task: Task = "objects") -> Model:
        """Return the production model of a task.

        Raises:
            RegistryError: no model has that role.
        """
        found = self.production(task)
        if found is not None:
            return found
        others = ", ".join(m.id for m in self if m.task == task and not m.smoke)
        raise RegistryError(
            f"the registry has no production model for {task} maps",
            f"name one of {others} with --model, or promote it with eyeline model promote"
            if others
            else f"add one with eyeline model add --task {task}, or name a file with --model",
        )


def read_registry(folder: Path) -> RegistryFile:
    """Read the records of a registry folder.

    Raises:
        RegistryError: the folder has no registry, it is invalid, or two models have the same id.
    """
    path = folder / REGISTRY_FILE
    registry = read_record(
        RegistryFile, path, "a registry",
        hint="fix the file", error=RegistryError, limit=16 * 1024 * 1024,
    )  # fmt: skip
    ids = [m.id for m in registry.models]
    if len(set(ids)) != len(ids):
        raise RegistryError(f"{path}: it has an id twice", "give every model its own id")
    return registry


def read_trust(folder: Path) -> TrustPolicy | None:
    """Read the trust policy of a registry folder; None when it has none.

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
    """Return the model of an id, a path, `EYELINE_MODEL`, or the registry's default.

    ::

        eyeline.extract("clip.mp4", model=eyeline.resolve_model(task="gaze"))

    A file beside the model, with the same name and the suffix `.json`, is its I/O spec. Without one
    the defaults of `IoSpec` apply.

    Args:
        name: id or path; when None, `EYELINE_MODEL`, then a production model. A `Model` is compared
            with `task` and returned.
        registry: the user's registry folder, see `Registry`.
        task: take the production model of this task; a registered model that is named must have it.
        use: selects the task when `task` is None, see `DEFAULT_TASKS`.

    Raises:
        RegistryError: unknown id, missing file, invalid I/O spec, a task without a production
            model, or a model of another task.
        VerificationError: a path, where the registry requires signatures.
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
            f"{model.id} makes {model.task} maps, and a {task} map was asked for",
            f"leave out one of --map and --model (or {MODEL_VARIABLE})",
        )
    return model


def _registered_or_file(name: str, models: Registry, task: Task | None) -> Model:
    path = Path(name)
    is_path = path.suffix == ".onnx" or os.sep in name or _exists(path)
    if name in models or not is_path:
        return models.get(name)
    if models.trust is not None and models.trust.require_signature:
        raise VerificationError(
            f"{name}: not registered, and this registry requires signatures",
            "sign and register the model, or leave out --registry",
        )
    sidecar, io = path.parent / f"{path.stem}.json", IoSpec()
    if _exists(sidecar):
        io = read_io_spec(sidecar)
    return Model(str(path), path, io, declared_task=task)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name that is too long, or a folder that may not be entered
        return False
