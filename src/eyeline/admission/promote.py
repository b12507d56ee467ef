"""Decide by a policy whether a candidate becomes the default model of its task, and record the decision.

The candidate must be verified and must be evaluated together with the current default on every dataset of
the policy. It must be significantly better by the margins of the policy, not worse in other measures, and
within the latency budget. If a result is missing, the candidate is not promoted. Each task has its own
policy. The policy of `gaze` also compares the candidate with the centre prior, a fixed map with its peak at
the centre, so a first gaze model can be promoted without an earlier default.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from eyeline.admission.add import read_own, registry_lock, write_own
from eyeline.digests import sha256_hex
from eyeline.errors import EyelineError, RegistryError
from eyeline.evaluation.results import (
    Evaluation,
    EvaluationRow,
    EvaluationTables,
    GazeTables,
    read_evaluation,
)
from eyeline.files import read_regular_file
from eyeline.registry.records import (
    REGISTRY_FILE,
    Decision,
    Digest,
    Ground,
    ModelRecord,
    Task,
    TrustPolicy,
)
from eyeline.registry.registry import Model, Registry
from eyeline.registry.signing import verify_model
from eyeline.validation import MAX_RECORD_BYTES, Strict, parse_record

POLICY_FILES: dict[Task, str] = {"objects": "promotion.toml", "gaze": "promotion_gaze.toml"}
"""File name of the policy of each task; the same in a registry folder and in this package."""

AS_DEPLOYED = "model"
"""Value in an evaluation for a size or temporal filter that the I/O spec of the model sets."""


class Margin(Strict):
    """A required difference in one measure of `eyeline evaluate`.

    Attributes:
        measure: name of the measure in the report.
        margin: the difference, 0 or more, in the unit of the measure.
        against: compare with the current default, or with a baseline in the report.
    """

    measure: str = Field(min_length=1)
    margin: float = Field(ge=0, lt=1)
    against: Literal["default", "centre prior"] = "default"


class NamedSet(Strict):
    """A dataset that must be in the report.

    Attributes:
        name: name in messages.
        digest: digest of the dataset in the report.
        fold: fold of the evaluation (`--fold`); None for the whole dataset.
        mean_only: compare only the means and ignore the confidence intervals, for a dataset with too
            few videos. At least one dataset of a policy must have mean_only = false.
    """

    name: str = Field(min_length=1)
    digest: Digest
    fold: str | None = None
    mean_only: bool = False


class LatencyReference(Strict):
    """A fixed model whose latency limits that of the candidate.

    Attributes:
        name: name in messages.
        sha256: hex digest of the reference model, which must be in the report.
        ratio: largest allowed latency of the candidate, as a multiple of that of the reference.
    """

    name: str = Field(min_length=1)
    sha256: Digest
    ratio: float = Field(gt=0)


class LatencyBudget(Strict):
    """The limits on the latency of the candidate; every given limit applies.

    Attributes:
        ratio: largest latency, as a multiple of that of the current default in the same report.
        milliseconds: largest latency on the machine of the report.
        reference: limit relative to a fixed model.
    """

    ratio: float | None = Field(default=None, gt=0)
    milliseconds: float | None = Field(default=None, gt=0)
    reference: LatencyReference | None = None

    @model_validator(mode="after")
    def _limits_something(self) -> Self:
        if self.ratio is None and self.milliseconds is None and self.reference is None:
            raise ValueError("latency must have at least one of ratio, milliseconds and reference")
        return self


class PromotionPolicy(Strict):
    """The criteria of a promotion.

    Attributes:
        significance: a difference is significant if its p-value is below this.
        require_signature: whether the candidate must be signed.
        better: measures that must be significantly better by their margin, on every dataset.
        no_worse: measures whose confidence interval must exclude a loss above the margin, on every dataset.
        latency: limits on the latency.
        set: the datasets.
    """

    schema_version: int = Field(ge=1, le=1)
    significance: float = Field(gt=0, le=0.1)
    require_signature: bool = False
    better: tuple[Margin, ...] = Field(min_length=1)
    no_worse: tuple[Margin, ...] = ()
    latency: LatencyBudget
    set: tuple[NamedSet, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _has_intervals(self) -> Self:
        if all(s.mean_only for s in self.set):
            raise ValueError(
                "mean_only is set for every dataset, so no confidence interval is tested: "
                "leave it out for at least one dataset"
            )
        return self


def load_promotion_policy(
    path: Path | None, folder: Path, task: Task = "objects"
) -> tuple[PromotionPolicy, str]:
    """Read the policy of a task: from `path`, else from the registry folder, else the built-in policy.

    Returns:
        The policy and its sha256 hex digest.
    """
    own = folder / POLICY_FILES[task]
    builtin = Path(__file__).parent / POLICY_FILES[task]
    chosen = path or (own if os.path.lexists(own) else builtin)
    data = read_regular_file(chosen, limit=MAX_RECORD_BYTES)
    hint = "start from docs/registry.md"
    policy = parse_record(PromotionPolicy, data, f"{chosen}", "a promotion policy", hint=hint)
    return policy, sha256_hex(data)


def promote(
    model_id: str,
    folder: Path,
    *,
    report: Path | None,
    policy: Path | None = None,
    dry_run: bool = False,
) -> Decision:
    """Decide whether a candidate becomes the default of its task, and record the decision.

    Args:
        model_id: id of a candidate in the registry of `folder`.
        folder: folder of the registry.
        report: JSON report of `eyeline evaluate` with the candidate and the current default.
        policy: policy file, see `load_promotion_policy`.
        dry_run: decide, but do not write the registry.

    Returns:
        The decision.

    Raises:
        RegistryError: the model does not exist or is not a candidate, or a file is invalid.
        UsageError: the policy is invalid.
        OutputError: the registry cannot be written.
    """
    found, digest = None, None
    if report is not None and report.exists():
        found, digest = read_evaluation(report)
    if not (folder / REGISTRY_FILE).exists():
        raise RegistryError(
            f"{folder}: the folder has no {REGISTRY_FILE}", "add a model with eyeline model add"
        )
    with registry_lock(folder):  # the registry must not change between decision and record
        own = read_own(folder)
        record = next((m for m in own.models if m.id == model_id), None)
        if record is None:
            known = ", ".join(m.id for m in own.models) or "none"
            raise RegistryError(
                f"{folder}: this registry has no model {model_id!r} (it has: {known})",
                "add the model with eyeline model add",
            )
        if record.role != "candidate":
            raise RegistryError(
                f"{model_id} has the role {record.role}, but only a candidate can be promoted",
                "give the id of a candidate",
            )
        rules, policy_digest = load_promotion_policy(policy, folder, record.task)
        registry = Registry(folder)
        model, default = registry.get(record.id), registry.production(record.task)
        grounds = (
            _verified(model, record, registry.trust, rules),
            *_grounds(record, default.record if default else None, found, rules),
        )
        decision = Decision(
            model=record.id,
            sha256=record.sha256,
            task=record.task,
            promoted=all(g.passed for g in grounds),
            default=default.id if default else None,
            default_sha256=default.record.sha256 if default and default.record else None,
            report_sha256=digest,
            policy_sha256=policy_digest,
            decided=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            grounds=grounds,
        )
        if not dry_run:
            models = _swap(own.models, record) if decision.promoted else own.models
            write_own(folder, models, [*own.decisions, decision])
    return decision


def _swap(models: list[ModelRecord], record: ModelRecord) -> list[ModelRecord]:
    """Make a model the default of its task (role `production`), and the previous default a candidate."""

    def with_role(m: ModelRecord) -> ModelRecord:
        if m.id == record.id:
            return m.model_copy(update={"role": "production"})
        if m.role == "production" and m.task == record.task:
            return m.model_copy(update={"role": "candidate"})
        return m

    return [with_role(m) for m in models]


def _ground(name: str, passed: bool, detail: str) -> Ground:
    return Ground(name=name, passed=passed, detail=detail)


class _NoEvidenceError(Exception):
    """The evaluation report lacks a result; the message becomes the detail of the criterion."""


def _verified(
    model: Model, record: ModelRecord, trust: TrustPolicy | None, rules: PromotionPolicy
) -> Ground:
    try:
        data = read_regular_file(model.path)
        if sha256_hex(data) != record.sha256:
            return _ground("verified", False, "the sha256 of the file differs from the record")
        if trust is None:
            detail = "digest; the registry has no trust policy"
            return _ground("verified", not rules.require_signature, detail)
        wanted = trust.requirement("production").signed or rules.require_signature
        if wanted or record.sha256 in trust.revoked_models:
            as_default = record.model_copy(update={"role": "production"})
            who = verify_model(as_default, data, trust, model.path.parent)
            return _ground("verified", True, f"digest; signed by {who.signer}")
    except EyelineError as exc:
        return _ground("verified", False, exc.message)
    return _ground("verified", True, "digest; no signature needed for its role")


def _grounds(
    record: ModelRecord,
    default: ModelRecord | None,
    found: Evaluation | None,
    rules: PromotionPolicy,
) -> Iterator[Ground]:
    meaning = "nothing" if record.smoke else "something"
    yield _ground("not a smoke model", not record.smoke, f"its numbers mean {meaning}")
    if default is None:
        if not any(rule.against != "default" for rule in rules.better):
            yield _ground("default", False, "there is no default to compare with")
            return
        detail = f"no default for {record.task} yet: only baselines are compared"
        yield _ground("default", True, detail)
    if found is None:
        yield _ground("evaluation", False, "no evaluation report is given")
        return
    tables = found.tables(record.task)
    if tables is None:
        yield _ground("evaluation", False, "the report has no fixation set")
        return
    for wanted in rules.set:
        yield from _on_set(record, default, tables, wanted, rules)


def _on_set(
    record: ModelRecord,
    default: ModelRecord | None,
    report: EvaluationTables,
    wanted: NamedSet,
    rules: PromotionPolicy,
) -> Iterator[Ground]:
    where = f"evaluated on {wanted.name}"
    rows: list[EvaluationRow] = []
    models = [record] if default is None else [record, default]
    for model in models:
        try:
            rows.append(_result(report, model, wanted))
        except _NoEvidenceError as exc:
            yield _ground(where, False, f"{model.id}: {exc}")
    if len(rows) != len(models):
        return
    yield _ground(where, True, "same file, I/O spec and data as in the report")
    ours, theirs = rows[0], rows[1] if default is not None else None
    for margins, significance in ((rules.better, rules.significance), (rules.no_worse, None)):
        for rule in margins:
            if rule.against == "default" and theirs is None:
                continue
            against = "" if rule.against == "default" else f" against the {rule.against}"
            name = f"{rule.measure}{against} on {ours.dataset}"
            try:
                other = theirs if rule.against == "default" else None
                other = other or _baseline(report, rule.against, wanted)
                difference = _difference(report, ours, other, rule.measure)
            except _NoEvidenceError as exc:
                yield _ground(name, False, f"{exc}")
            else:
                passed, detail = _judge(difference, rule.margin, significance, wanted.mean_only)
                yield _ground(name, passed, detail)
    name = f"latency on {wanted.name}"
    try:
        yield _ground(name, *_latency(report, ours, theirs, wanted, rules.latency))
    except _NoEvidenceError as exc:
        yield _ground(name, False, f"{exc}")


def _result(report: EvaluationTables, model: ModelRecord, wanted: NamedSet) -> EvaluationRow:
    """Return the result of this model file on this dataset, evaluated at the size of its I/O spec."""
    rows = [r for r in report.results if r.model_sha256 == model.sha256]
    if not rows:
        raise _NoEvidenceError(f"the model is not in the report (sha256 {model.sha256[:16]}...)")
    rows = [r for r in rows if r.dataset_digest == wanted.digest]
    if not rows:
        raise _NoEvidenceError(f"the model was not evaluated on dataset {wanted.digest[:16]}...")
    io = json.loads(model.io.model_dump_json())
    rows = [r for r in rows if r.io == io and r.size == AS_DEPLOYED]
    if not rows:
        raise _NoEvidenceError("the model was not evaluated with its own I/O spec and size")
    if len(rows) > 1:
        raise _NoEvidenceError("the report has two results of this model")
    if rows[0].smoke:
        raise _NoEvidenceError("the report marks the model as a smoke-test model")
    for s in report.sets if isinstance(report, GazeTables) else ():
        if s.digest != wanted.digest:
            continue
        if s.temporal not in (None, AS_DEPLOYED):
            raise _NoEvidenceError("the model was not evaluated with its own temporal filter")
        if s.fold != wanted.fold:
            wrong = f"on the fold {wanted.fold!r}" if wanted.fold else "on the whole dataset"
            raise _NoEvidenceError(f"the model was not evaluated {wrong}")
    return rows[0]


def _baseline(report: EvaluationTables, name: str, wanted: NamedSet) -> EvaluationRow:
    rows = [r for r in report.results if r.baseline and r.model == name]
    rows = [r for r in rows if r.dataset_digest == wanted.digest]
    if len(rows) != 1:
        raise _NoEvidenceError(f"the report has no results of the {name}")
    return rows[0]


def _difference(
    report: EvaluationTables, ours: EvaluationRow, theirs: EvaluationRow, measure: str
) -> tuple[float, float, float, float]:
    """Return the gain over `theirs` (positive is better), its confidence interval, and the p-value."""
    pair = {ours.model, theirs.model}
    found = [
        c for c in report.comparisons if c.dataset == ours.dataset and {c.model, c.other} == pair
    ]
    if not found:
        raise _NoEvidenceError(f"the report has no paired comparison with {theirs.model}")
    if len(found) != 1 or len(pair) != 2:
        raise _NoEvidenceError("the report compares these two models more than once")
    d = found[0].differences.get(measure)
    a, b = (r.estimates.get(measure) for r in (ours, theirs))
    if d is None or a is None or b is None:
        raise _NoEvidenceError("the report has no number for this measure")
    value, low, high = d.value, d.low, d.high
    if not all(map(math.isfinite, (value, low, high, d.p_value))):
        raise _NoEvidenceError("the report has no number for this measure")
    if found[0].model == theirs.model:
        value, low, high = -value, -high, -low
    if not abs(a.value - b.value - value) <= 1e-9:  # NaN is also rejected
        raise _NoEvidenceError(
            "the report contradicts itself: the difference of the results is not that of the comparison"
        )
    if measure in report.lower_is_better:
        value, low, high = -value, -high, -low
    return value, low, high, d.p_value


def _judge(
    difference: tuple[float, float, float, float],
    margin: float,
    significance: float | None,
    mean_only: bool,
) -> tuple[bool, str]:
    """Test one measure for a gain of `margin`; without `significance`, for a loss of at most `margin`."""
    gain, low, high, p = difference
    numbers = f"{gain:+.4f} [{low:+.4f}, {high:+.4f}], p {p:.4f}"
    least = -margin if significance is None else margin
    if mean_only:
        passed = gain >= least and (significance is None or gain > 0)
        return passed, f"{numbers}; the mean decides: {least:+g} is needed"
    if significance is None:
        return low >= least, f"{numbers}; at most -{margin:g} is allowed"
    passed = gain > 0 and gain >= least and low > 0 and p < significance
    return passed, f"{numbers}; +{margin:g} with p below {significance:g} is needed"


def _latency(
    report: EvaluationTables,
    ours: EvaluationRow,
    theirs: EvaluationRow | None,
    wanted: NamedSet,
    budget: LatencyBudget,
) -> tuple[bool, str]:
    own = ours.latency_ms
    if own is None:
        raise _NoEvidenceError("the report has no latency of the model")
    said, passed = [f"{own:.2f} ms"], True
    limits: list[tuple[str, float | None, float]] = []
    if budget.ratio is not None and theirs is not None:
        limits.append(("the default", theirs.latency_ms, budget.ratio))
    if (r := budget.reference) is not None:
        rows = [x for x in report.results if x.model_sha256 == r.sha256]
        rows = [x for x in rows if x.dataset_digest == wanted.digest and x.size == AS_DEPLOYED]
        limits.append((r.name, rows[0].latency_ms if rows else None, r.ratio))
    for other, ms, ratio in limits:
        if ms is None:
            raise _NoEvidenceError(f"the report has no latency of {other}")
        said.append(f"{own / ms:.2f} times that of {other} (budget {ratio:g})")
        passed = passed and own / ms <= ratio
    if budget.milliseconds is not None:
        said.append(f"budget {budget.milliseconds:g} ms")
        passed = passed and own <= budget.milliseconds
    return passed, ", ".join(said)
