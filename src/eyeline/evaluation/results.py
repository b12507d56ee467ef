"""The results of an evaluation as other packages read them back from its JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from eyeline.digests import sha256_hex
from eyeline.errors import RegistryError
from eyeline.evaluation.statistics import Comparison, Estimate
from eyeline.files import read_regular_file
from eyeline.registry.records import Digest, Task

MAX_BYTES = 256 * 1024 * 1024
"""Most bytes of an evaluation's JSON, which may hold the rows of many thousand images."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class EvaluationRow(_Part):
    """One model or baseline on one dataset; a baseline has neither digest, size nor latency."""

    model: str
    baseline: bool = False
    model_sha256: Digest | None
    parameters: int | None
    smoke: bool
    io: dict[str, Any] | None
    dataset: str
    dataset_digest: Digest
    size: int | str | None
    working_size: tuple[int, int] | None
    latency_ms: float | None = Field(gt=0, allow_inf_nan=False)
    estimates: dict[str, Estimate]
    image_count: int | None = None  # None for fixation sets

    @model_validator(mode="before")
    @classmethod
    def _count_images(cls, fields: Any) -> Any:
        """Count the images of a complete file; a summary holds their number."""
        if isinstance(fields, dict) and isinstance(fields.get("images"), list):
            return fields | {"image_count": len(fields["images"])}
        return fields


class EvaluationTables(_Part):
    """The results on datasets of one kind: with masks, or with fixations."""

    lower_is_better: tuple[str, ...]
    notes: tuple[str, ...]
    results: tuple[EvaluationRow, ...]
    comparisons: tuple[Comparison, ...]


class EvaluatedSet(_Part):
    """Facts of a fixation set; see `GazeSet`."""

    dataset: str
    digest: Digest
    kind: str
    stimuli: int
    viewers: int
    fixations: int
    temporal: str | None
    fold: str | None = None


class GazeTables(EvaluationTables):
    """The results on fixation sets."""

    sets: tuple[EvaluatedSet, ...]


class Evaluation(EvaluationTables):
    """The content of a file that `eyeline evaluate` wrote with `-o` or `--summary`."""

    schema_version: int = Field(ge=1, le=1)
    gaze: GazeTables | None = None

    def tables(self, task: Task) -> EvaluationTables | None:
        """Return the results for a task; None where no dataset of that kind was evaluated."""
        return self.gaze if task == "gaze" else self


def read_evaluation(path: Path) -> tuple[Evaluation, str]:
    """Read the JSON of `eyeline evaluate`, complete or its summary, and its sha256 hex digest.

    Raises:
        RegistryError: the file cannot be read, or is not an evaluation.
    """
    data = read_regular_file(path, limit=MAX_BYTES)
    try:
        return Evaluation.model_validate(json.loads(data)), sha256_hex(data)
    except (ValueError, RecursionError) as exc:  # a ValidationError is a ValueError
        reason = str(exc)
        if isinstance(exc, ValidationError):
            first = exc.errors()[0]
            reason = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise RegistryError(
            f"{path}: is not an evaluation: {' '.join(reason.split())[:200]}",
            "eyeline evaluate writes one with -o or --summary",
        ) from exc
