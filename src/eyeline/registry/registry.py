"""Find a model by id or path and hand out its bytes, verified: the only door to a model file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import ValidationError

from eyeline.digests import sha256_hex
from eyeline.errors import RegistryError, VerificationError
from eyeline.files import read_regular_file
from eyeline.registry.records import IoSpec, ModelRecord, RegistryFile, Task
from eyeline.registry.trust import TRUST_FILE, TrustPolicy, load_trust

if TYPE_CHECKING:
    from eyeline.registry.verification import Verified

BUILTIN = Path(__file__).parent / "builtin"
REGISTRY_FILE = "registry.json"

MODEL_VARIABLE = "EYELINE_MODEL"
REGISTRY_VARIABLE = "EYELINE_REGISTRY"

Use = Literal["extract", "score", "roi"]
"""What a model is wanted for: the commands of that name, and the functions behind them."""

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
        path: where the bytes are.
        io: how frames become its input.
        record: its registry record, None for an unregistered file.
        trust: the trust policy of its registry, None where there is none.
        declared_task: the task that an unregistered file was asked for, None when nobody said.
    """

    id: str
    path: Path
    io: IoSpec
    record: ModelRecord | None = None
    trust: TrustPolicy | None = None
    declared_task: Task | None = None

    @property
    def task(self) -> Task | None:
        """What its map shows; None for an unregistered file of which nobody said it."""
        return self.record.task if self.record is not None else self.declared_task

    @property
    def label(self) -> str:
        """Its name and task in a few words, for messages: `saliency_student_v4 (map: objects)`."""
        name = self.id if self.record is not None else Path(self.id).name.removesuffix(".onnx")
        return f"{name} (map: {self.task})" if self.task else name

    @property
    def smoke(self) -> bool:
        """Whether its numbers mean nothing."""
        return self.record is not None and self.record.smoke

    @cached_property
    def data(self) -> bytes:
        """The model's bytes, read once and checked against the record's digest.

        Raises:
            RegistryError: unreadable file.
            VerificationError: the bytes are not the registered ones, or not signed as the trust
                policy demands.
        """
        data = read_regular_file(self.path)
        if self.record is not None and sha256_hex(data) != self.record.sha256:
            raise VerificationError(
                f"{self.path}: sha256 is {sha256_hex(data)[:16]}..., "
                f"the registry says {self.record.sha256[:16]}...",
                "the file was changed: restore it, or register the new one",
            )
        if self.record is not None and self.trust is not None:
            from eyeline.registry.verification import check_at_load

            check_at_load(self.record, data, self.trust, self.path.parent)
        return data

    def verify(self) -> Verified:
        """Hold it to its registry's trust policy, even where none is required at load.

        Raises:
            VerificationError: see `eyeline.registry.verification.verify_model`.
            RegistryError: not registered, or in a registry without a trust policy.
            MissingExtraError: extra `sign` is not installed.
        """
        from eyeline.registry.verification import verify_model

        if self.record is None or self.trust is None:
            raise RegistryError(
                f"{self.id}: its registry has no {TRUST_FILE}", "write one, or verify by --key"
            )
        data = read_regular_file(self.path)
        return verify_model(self.record, data, self.trust, self.path.parent)

    @cached_property
    def sha256(self) -> str:
        """Hex digest of the verified bytes."""
        return sha256_hex(self.data)


class Registry:
    """The built-in models and those of a user's own folder; an id of the latter wins.

    Args:
        folder: the user's registry folder; `EYELINE_REGISTRY` when None.

    Raises:
        RegistryError: the folder has no registry, or one that does not parse; or a trust policy
            that does not.
    """

    def __init__(self, folder: Path | None = None) -> None:
        own = folder or (Path(v) if (v := os.environ.get(REGISTRY_VARIABLE)) else None)
        self._models: dict[str, Model] = {}
        # Built-in models come with this code and are as trusted as it is: a policy is a folder's.
        self.trust = load_trust(own) if own is not None else None
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
        """The model of an id.

        Raises:
            RegistryError: no such id.
        """
        if model_id not in self._models:
            raise RegistryError(
                f"no model {model_id!r}",
                f"known: {', '.join(sorted(self._models))}; or give a path",
            )
        return self._models[model_id]

    def production(self, task: Task) -> Model | None:
        """The production model of a task, the last one when a user's folder adds its own; or None."""
        models = [m for m in self if m.record and m.record.role == "production" and m.task == task]
        return models[-1] if models else None

    def default(self, task: Task = "objects") -> Model:
        """The production model of a task; the last one when a user's folder adds its own.

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
    """The records of a registry folder.

    Raises:
        RegistryError: no registry there, one that does not parse, or an id twice.
    """
    path = folder / REGISTRY_FILE
    data = read_regular_file(path, limit=16 * 1024 * 1024)
    try:
        registry = RegistryFile.model_validate_json(data)
    except ValidationError as exc:
        first = " ".join(str(exc).split())[:200]
        raise RegistryError(f"{path}: not a registry: {first}", "fix the file") from exc
    ids = [m.id for m in registry.models]
    if len(set(ids)) != len(ids):
        raise RegistryError(f"{path}: an id stands there twice", "ids are unique")
    return registry


def resolve_model(
    name: str | Model | None = None,
    registry: str | os.PathLike[str] | None = None,
    *,
    task: Task | None = None,
    use: Use = "extract",
) -> Model:
    """The model that an id, a path, `EYELINE_MODEL` or the registry's default names.

    ::

        eyeline.extract("clip.mp4", model=eyeline.resolve_model(task="gaze"))

    A path may have a sidecar of the same name with the suffix `.json`, holding an I/O spec;
    without one the contract's defaults apply.

    Args:
        name: id or path; `EYELINE_MODEL`, then a production model, when None. A `Model` is checked
            against `task` and returned.
        registry: the user's own registry folder, see `Registry`.
        task: take the production model of this task; a registered model that is named must have it.
        use: names the default task when `task` is None, see `DEFAULT_TASKS`.

    Raises:
        RegistryError: unknown id, missing file, a sidecar that does not parse, a task without a
            production model, or a model of another task.
        VerificationError: a path, where the registry requires signatures.
    """
    if not isinstance(name, Model):
        name = name or os.environ.get(MODEL_VARIABLE) or None  # an empty variable is none
        models = Registry(None if registry is None else Path(registry))
        if name is None:
            return models.default(task or DEFAULT_TASKS[use])
        model = _named(name, models, task)
    else:
        model = name
    if task is not None and model.task not in (None, task):
        raise RegistryError(
            f"{model.id} makes {model.task} maps, and a {task} map was asked for",
            f"leave out one of --map and --model (or {MODEL_VARIABLE})",
        )
    return model


def _named(name: str, models: Registry, task: Task | None) -> Model:
    """The registered model or file of a name."""
    if name in models:
        return models.get(name)
    path = Path(name)
    if path.suffix == ".onnx" or os.sep in name or _is_there(path):
        if models.trust is not None and models.trust.require_signature:
            raise VerificationError(
                f"{name}: not registered, and this registry requires signatures",
                "sign and register it, or leave the registry out",
            )
        return Model(str(path), path, _read_sidecar(path), declared_task=task)
    return models.get(name)


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name too long to be one, or a folder that may not be entered
        return False


def _read_sidecar(path: Path) -> IoSpec:
    sidecar = path.parent / f"{path.stem}.json"
    if not _is_there(sidecar):
        return IoSpec()
    try:
        return IoSpec.model_validate_json(read_regular_file(sidecar, limit=1 << 20))
    except ValidationError as exc:
        first = " ".join(str(exc).split())[:200]
        raise RegistryError(f"{sidecar}: not an I/O spec: {first}", "fix or remove it") from exc
