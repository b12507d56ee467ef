"""Decide by a policy whether a candidate becomes its task's default, and record the decision.

A challenger must be verified, evaluated together with today's default of its task on every set of the
policy, better by its margin with significance, no worse elsewhere, and within the latency budget. Missing
evidence is a "no". Each task has its own policy; that of `gaze` also compares every challenger with the
centre prior, so that its first default needs no earlier one.
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
"""Name of each task's policy, in a registry's folder and in this package."""

AS_DEPLOYED = "model"
"""Size and temporal filter of an evaluation that left both to the model's I/O spec."""


class Margin(Strict):
    """A measure of `eyeline evaluate` and the difference in it that counts.

    Attributes:
        measure: its name in the report.
        margin: 0 or more, in the measure's own unit.
        against: compare with today's default, or with a baseline of the report.
    """

    measure: str = Field(min_length=1)
    margin: float = Field(ge=0, lt=1)
    against: Literal["default", "centre prior"] = "default"


class NamedSet(Strict):
    """A dataset that must be in the report.

    Attributes:
        name: for messages.
        digest: its digest in the report.
        fold: the evaluated fold (`--fold`); None for the whole set.
        mean_only: the means decide, without their intervals: for a set with too few videos for a
            significant difference. A policy needs another set whose intervals count.
    """

    name: str = Field(min_length=1)
    digest: Digest
    fold: str | None = None
    mean_only: bool = False


class LatencyReference(Strict):
    """A fixed model that a latency is compared with.

    Attributes:
        name: for messages.
        sha256: hex digest of its bytes, by which it is found in the report.
        ratio: largest latency, as a multiple of this model's.
    """

    name: str = Field(min_length=1)
    sha256: Digest
    ratio: float = Field(gt=0)


class LatencyBudget(Strict):
    """The budget; every part that is given counts.

    Attributes:
        ratio: largest latency, as a multiple of today's default in the same report.
        milliseconds: largest latency on the machine of the report.
        reference: see `LatencyReference`.
    """

    ratio: float | None = Field(default=None, gt=0)
    milliseconds: float | None = Field(default=None, gt=0)
    reference: LatencyReference | None = None

    @model_validator(mode="after")
    def _limits_something(self) -> Self:
        if self.ratio is None and self.milliseconds is None and self.reference is None:
            raise ValueError("latency needs a ratio, milliseconds or a reference")
        return self


class PromotionPolicy(Strict):
    """What a model must show to become the default.

    Attributes:
        significance: a difference counts if its p-value is below this.
        require_signature: whether a registry without a trust policy promotes nothing.
        better: on every set better by the margin, significantly.
        no_worse: on every set the interval excludes being worse by more than the margin.
        latency: see `LatencyBudget`.
        set: the named sets.
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
            raise ValueError("every set has mean_only: there is no set whose intervals count")
        return self


def load_promotion_policy(
    path: Path | None, folder: Path, task: Task = "objects"
) -> tuple[PromotionPolicy, str]:
    """Read a task's policy and its digest: from `path`, else the registry's own, else the built-in one."""
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
    """Decide whether a candidate becomes a registry's default for its task, and record it.

    Args:
        model_id: a candidate of the folder's own registry.
        folder: the registry's; the package's built-in folder too.
        report: JSON of `eyeline evaluate`, with the candidate and today's default of its task.
        policy: see `load_promotion_policy`.
        dry_run: decide and write nothing.

    Returns:
        The decision, which may be "no".

    Raises:
        RegistryError: no such model here, it is not a candidate, or an unreadable or invalid file.
        UsageError: an invalid policy.
        OutputError: the registry cannot be written.
    """
    found, digest = None, None
    if report is not None and report.exists():
        found, digest = read_evaluation(report)
    if not (folder / REGISTRY_FILE).exists():
        raise RegistryError(f"{folder}: no registry there", "eyeline model add makes one")
    with registry_lock(folder):  # between the decision and its record nothing may change
        own = read_own(folder)
        record = next((m for m in own.models if m.id == model_id), None)
        if record is None:
            known = ", ".join(m.id for m in own.models) or "none"
            raise RegistryError(
                f"{folder}: no model {model_id!r} of its own", f"it has {known}; add it first"
            )
        if record.role != "candidate":
            raise RegistryError(
                f"{model_id} is registered as {record.role}", "only a candidate is promoted"
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
    """Make a model the default of its task, and the old default a candidate."""

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
    """Evidence that the report lacks, in a few words."""


def _verified(
    model: Model, record: ModelRecord, trust: TrustPolicy | None, rules: PromotionPolicy
) -> Ground:
    """Verify a model by its digest, and by the trust policy in the role of a default."""
    try:
        data = read_regular_file(model.path)
        if sha256_hex(data) != record.sha256:
            return _ground("verified", False, "its bytes are not the registered")
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
            yield _ground("default", False, "no default to be better than")
            return
        detail = f"no default for {record.task} yet: only what is against a baseline counts"
        yield _ground("default", True, detail)
    if found is None:
        yield _ground("evaluation", False, "no report: nothing was measured")
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
    yield _ground(where, True, "these bytes, as they are deployed; same data")
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
    """Return the one result of these bytes on this set, evaluated as the model is deployed."""
    rows = [r for r in report.results if r.model_sha256 == model.sha256]
    if not rows:
        raise _NoEvidenceError(f"not in the report (sha256 {model.sha256[:16]}...)")
    rows = [r for r in rows if r.dataset_digest == wanted.digest]
    if not rows:
        raise _NoEvidenceError(f"not on the set of digest {wanted.digest[:16]}...")
    io = json.loads(model.io.model_dump_json())
    rows = [r for r in rows if r.io == io and r.size == AS_DEPLOYED]
    if not rows:
        raise _NoEvidenceError("not with its own I/O spec at its own size")
    if len(rows) > 1:
        raise _NoEvidenceError("there twice")
    if rows[0].smoke:
        raise _NoEvidenceError("a smoke model")
    for s in report.sets if isinstance(report, GazeTables) else ():
        if s.digest != wanted.digest:
            continue
        if s.temporal not in (None, AS_DEPLOYED):
            raise _NoEvidenceError("not with its own temporal filter")
        if s.fold != wanted.fold:
            wrong = f"not on the fold {wanted.fold!r}" if wanted.fold else "on one fold alone"
            raise _NoEvidenceError(wrong)
    return rows[0]


def _baseline(report: EvaluationTables, name: str, wanted: NamedSet) -> EvaluationRow:
    rows = [r for r in report.results if r.baseline and r.model == name]
    rows = [r for r in rows if r.dataset_digest == wanted.digest]
    if len(rows) != 1:
        raise _NoEvidenceError(f"no {name} in the report")
    return rows[0]


def _difference(
    report: EvaluationTables, ours: EvaluationRow, theirs: EvaluationRow, measure: str
) -> tuple[float, float, float, float]:
    """Return the gain over another (positive is better), its interval, and the p-value."""
    pair = {ours.model, theirs.model}
    found = [
        c for c in report.comparisons if c.dataset == ours.dataset and {c.model, c.other} == pair
    ]
    if not found:
        raise _NoEvidenceError(f"no paired comparison with {theirs.model}")
    if len(found) != 1 or len(pair) != 2:
        raise _NoEvidenceError("compared more than once")
    d = found[0].differences.get(measure)
    a, b = (r.estimates.get(measure) for r in (ours, theirs))
    if d is None or a is None or b is None:
        raise _NoEvidenceError("no number in the report")
    value, low, high = d.value, d.low, d.high
    if not all(map(math.isfinite, (value, low, high, d.p_value))):
        raise _NoEvidenceError("no number in the report")
    if found[0].model == theirs.model:
        value, low, high = -value, -high, -low
    if not abs(a.value - b.value - value) <= 1e-9:  # NaN, too
        raise _NoEvidenceError(
            "the report contradicts itself: the comparison is not the difference of the results"
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
    """Judge one measure; without `significance` it must only not be worse."""
    gain, low, high, p = difference
    numbers = f"{gain:+.4f} [{low:+.4f}, {high:+.4f}], p {p:.4f}"
    least = -margin if significance is None else margin
    if mean_only:
        passed = gain >= least and (significance is None or gain > 0)
        return passed, f"{numbers}; the mean decides: {least:+g} is needed"
    if significance is None:
        return low >= least, f"{numbers}; at worst -{margin:g} is admitted"
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
        raise _NoEvidenceError("no latency in the report")
    said, passed = [f"{own:.2f} ms"], True
    limits: list[tuple[str, float | None, float]] = []
    if budget.ratio is not None and theirs is not None:
        limits.append(("the default's", theirs.latency_ms, budget.ratio))
    if (r := budget.reference) is not None:
        rows = [x for x in report.results if x.model_sha256 == r.sha256]
        rows = [x for x in rows if x.dataset_digest == wanted.digest and x.size == AS_DEPLOYED]
        limits.append((f"{r.name}'s", rows[0].latency_ms if rows else None, r.ratio))
    for whose, ms, ratio in limits:
        if ms is None:
            raise _NoEvidenceError(f"{whose} latency is not in the report")
        said.append(f"{own / ms:.2f} times {whose} (budget {ratio:g})")
        passed = passed and own / ms <= ratio
    if budget.milliseconds is not None:
        said.append(f"budget {budget.milliseconds:g} ms")
        passed = passed and own <= budget.milliseconds
    return passed, ", ".join(said)
