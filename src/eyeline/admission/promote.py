"""The gate in front of a task's default: it changes on measured benefit only, and the decision is recorded.

A challenger must be verified, evaluated with today's default of its task on every set of the policy,
better by its margin with significance, no worse elsewhere, and within the latency budget. Whatever is
missing is a "no". Each task has its own policy; that of `gaze` also compares every challenger with the
centre prior, so that its first default needs no earlier one.
"""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, ValidationError, model_validator

from eyeline.admission.add import read_own, registry_lock, write_own
from eyeline.digests import sha256_hex
from eyeline.errors import EyelineError, RegistryError, UsageError
from eyeline.evaluation.results import (
    Evaluation,
    EvaluationRow,
    EvaluationTables,
    GazeTables,
    read_evaluation,
)
from eyeline.files import read_regular_file
from eyeline.registry.records import REGISTRY_FILE, Decision, Digest, Ground, ModelRecord, Task
from eyeline.registry.registry import Model, Registry
from eyeline.validation import Strict

POLICY_FILES: dict[Task, str] = {"objects": "promotion.toml", "gaze": "promotion_gaze.toml"}
"""Name of each task's policy, in a registry's folder and in this package."""

AS_DEPLOYED = "model"
"""Size and temporal filter of an evaluation that left both to the model's I/O spec."""


class Margin(Strict):
    """A measure of `eyeline evaluate` and how much of it counts.

    Attributes:
        measure: its name in the report.
        margin: 0 or more, in the measure's own unit.
        against: what it is compared with: today's default, or a baseline of the report.
    """

    measure: str = Field(min_length=1)
    margin: float = Field(ge=0, lt=1)
    against: Literal["default", "centre prior"] = "default"


class NamedSet(Strict):
    """A dataset that must be in the report.

    Attributes:
        name: for messages.
        digest: what `eyeline evaluate` says that it is.
        fold: the fold of training that was judged (`--fold`); None for the whole set.
        mean_only: the means decide, without their intervals: for a set of so few videos that no
            difference could be significant. A policy needs another set whose intervals count.
    """

    name: str = Field(min_length=1)
    digest: Digest
    fold: str | None = None
    mean_only: bool = False


class Reference(Strict):
    """A fixed model that a latency is compared with.

    Attributes:
        name: for messages.
        sha256: hex digest of its bytes, by which it is found in the report.
        ratio: at most so many times its latency.
    """

    name: str = Field(min_length=1)
    sha256: Digest
    ratio: float = Field(gt=0)


class Latency(Strict):
    """The budget, each part of which counts that is stated.

    Attributes:
        ratio: at most so many times today's default, measured in the same report.
        milliseconds: at most so long, on the machine of the report.
        reference: see `Reference`.
    """

    ratio: float | None = Field(default=None, gt=0)
    milliseconds: float | None = Field(default=None, gt=0)
    reference: Reference | None = None

    @model_validator(mode="after")
    def _limits_something(self) -> Self:
        if self.ratio is None and self.milliseconds is None and self.reference is None:
            raise ValueError("latency needs a ratio, milliseconds or a reference")
        return self


class PromotionPolicy(Strict):
    """What a model must show.

    Attributes:
        significance: p-value below which a difference is one.
        require_signature: whether a registry without a trust policy refuses.
        better: on every set better by the margin, significantly.
        no_worse: on every set the interval excludes being worse by more than the margin.
        latency: see `Latency`.
        set: the named sets.
    """

    schema_version: int = Field(ge=1, le=1)
    significance: float = Field(gt=0, le=0.1)
    require_signature: bool = False
    better: tuple[Margin, ...] = Field(min_length=1)
    no_worse: tuple[Margin, ...] = ()
    latency: Latency
    set: tuple[NamedSet, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _has_intervals(self) -> Self:
        if all(s.mean_only for s in self.set):
            raise ValueError("mean_only of every set leaves no set whose intervals count")
        return self


def load_promotion_policy(
    path: Path | None, folder: Path, task: Task = "objects"
) -> tuple[PromotionPolicy, str]:
    """A task's promotion policy and its digest.

    Args:
        path: TOML; the registry's own (see `POLICY_FILES`), then the built-in one, when None.
        folder: the registry's.
        task: see `Task`.

    Raises:
        UsageError: not a policy.
        RegistryError: unreadable.
    """
    own = folder / POLICY_FILES[task]
    builtin = Path(__file__).parent / POLICY_FILES[task]
    chosen = path or (own if own.exists() or own.is_symlink() else builtin)
    data = read_regular_file(chosen, limit=1 << 20)
    try:
        return PromotionPolicy.model_validate(tomllib.loads(data.decode())), sha256_hex(data)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, ValidationError) as exc:
        first = " ".join(str(exc).split())[:200]
        raise UsageError(
            f"{chosen}: not a promotion policy: {first}", "start from docs/registry.md"
        ) from exc


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
        The decision, a "no" too.

    Raises:
        RegistryError: no such model here, it is no candidate, or a file that can't be read or parsed.
        UsageError: a policy that does not parse.
        OutputError: the registry can't be written.
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
        default = registry.production(record.task)
        grounds = tuple(_grounds(record, registry, default, found, rules))
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
            models = _flip(own.models, record) if decision.promoted else own.models
            write_own(folder, models, [*own.decisions, decision])
    return decision


def _flip(models: list[ModelRecord], record: ModelRecord) -> list[ModelRecord]:
    """The new default in its place; the old one of its task is a candidate again."""
    before = [
        m.model_copy(update={"role": "candidate"})
        if m.role == "production" and m.task == record.task
        else m
        for m in models
    ]
    return [m.model_copy(update={"role": "production"}) if m.id == record.id else m for m in before]


def _grounds(
    record: ModelRecord,
    registry: Registry,
    default: Model | None,
    found: Evaluation | None,
    rules: PromotionPolicy,
) -> Iterator[Ground]:
    yield _verified(registry.get(record.id), record, registry, rules)
    yield Ground(
        name="not a smoke model",
        passed=not record.smoke,
        detail="its numbers mean nothing" if record.smoke else "its numbers mean something",
    )
    if default is None:
        first = any(rule.against != "default" for rule in rules.better)
        detail = (
            f"no default for {record.task} yet: only what is against a baseline counts"
            if first
            else "no default to be better than"
        )
        yield Ground(name="default", passed=first, detail=detail)
        if not first:
            return
    if found is None:
        yield Ground(name="evaluation", passed=False, detail="no report: nothing was measured")
        return
    tables = found.tables(record.task)
    if tables is None:
        detail = "the report has no fixation set"
        yield Ground(name="evaluation", passed=False, detail=detail)
        return
    for wanted in rules.set:
        yield from _on_set(record, default.record if default else None, tables, wanted, rules)


def _verified(
    model: Model, record: ModelRecord, registry: Registry, rules: PromotionPolicy
) -> Ground:
    """By digest, and by the trust policy as the *production* model that it is to be."""
    try:
        data = read_regular_file(model.path)
        if sha256_hex(data) != record.sha256:
            return Ground(name="verified", passed=False, detail="its bytes are not the registered")
        trust = registry.trust
        if trust is None:
            detail = "digest; the registry has no trust policy"
            return Ground(name="verified", passed=not rules.require_signature, detail=detail)
        wanted = trust.requirement("production").signed or rules.require_signature
        if wanted or record.sha256 in trust.revoked_models:
            from eyeline.registry.signing import verify_model

            as_default = record.model_copy(update={"role": "production"})
            who = verify_model(as_default, data, trust, model.path.parent)
            return Ground(name="verified", passed=True, detail=f"digest; signed by {who.signer}")
    except EyelineError as exc:
        return Ground(name="verified", passed=False, detail=exc.message)
    return Ground(name="verified", passed=True, detail="digest; no signature needed for its role")


def _on_set(
    record: ModelRecord,
    default: ModelRecord | None,
    report: EvaluationTables,
    wanted: NamedSet,
    rules: PromotionPolicy,
) -> Iterator[Ground]:
    where = f"evaluated on {wanted.name}"
    ours = _result(report, record, wanted)
    theirs = None if default is None else _result(report, default, wanted)
    for model, result in ((record, ours), (default, theirs)):
        if model is not None and isinstance(result, str):
            yield Ground(name=where, passed=False, detail=f"{model.id}: {result}")
    if isinstance(ours, str) or isinstance(theirs, str):
        return
    yield Ground(name=where, passed=True, detail="these bytes, as they are deployed; same data")
    for rows, significance in ((rules.better, rules.significance), (rules.no_worse, None)):
        for rule in rows:
            if rule.against != "default":
                other = _baseline(report, rule.against, wanted)
                yield _measure(report, ours, other, rule, significance, wanted.mean_only)
            elif theirs is not None:
                yield _measure(report, ours, theirs, rule, significance, wanted.mean_only)
    yield _within_budget(report, ours, theirs, wanted, rules.latency)


def _within_budget(
    report: EvaluationTables,
    ours: EvaluationRow,
    theirs: EvaluationRow | None,
    wanted: NamedSet,
    budget: Latency,
) -> Ground:
    """One ground for all parts of the latency budget."""
    name = f"latency on {wanted.name}"
    own = ours.latency_ms
    if own is None:
        return Ground(name=name, passed=False, detail="no latency in the report")
    said, passed = [f"{own:.2f} ms"], True
    limits: list[tuple[str, float | None, float]] = []
    if budget.ratio is not None and theirs is not None:
        limits.append(("the default's", theirs.latency_ms, budget.ratio))
    if budget.reference is not None:
        r = budget.reference
        rows = [x for x in report.results if x.model_sha256 == r.sha256]
        rows = [x for x in rows if x.dataset_digest == wanted.digest and x.size == AS_DEPLOYED]
        limits.append((f"{r.name}'s", rows[0].latency_ms if rows else None, r.ratio))
    for whose, ms, ratio in limits:
        if ms is None:
            return Ground(name=name, passed=False, detail=f"{whose} latency is not in the report")
        said.append(f"{own / ms:.2f} times {whose} (budget {ratio:g})")
        passed = passed and own / ms <= ratio
    if budget.milliseconds is not None:
        said.append(f"budget {budget.milliseconds:g} ms")
        passed = passed and own <= budget.milliseconds
    return Ground(name=name, passed=passed, detail=", ".join(said))


def _result(report: EvaluationTables, model: ModelRecord, wanted: NamedSet) -> EvaluationRow | str:
    """The one result of these bytes as deployed on this very set, or what is wrong."""
    bytes_ = [r for r in report.results if r.model_sha256 == model.sha256]
    if not bytes_:
        return f"not in the report (sha256 {model.sha256[:16]}...)"
    found = [r for r in bytes_ if r.dataset_digest == wanted.digest]
    if not found:
        return f"not on the set of digest {wanted.digest[:16]}..."
    io = json.loads(model.io.model_dump_json())
    deployed = [r for r in found if r.io == io and r.size == AS_DEPLOYED]
    if len(deployed) != 1:
        return "not with its own I/O spec at its own size" if not deployed else "there twice"
    if deployed[0].smoke:
        return "a smoke model"
    if isinstance(report, GazeTables):
        sets = [s for s in report.sets if s.digest == wanted.digest]
        if any(s.temporal not in (None, AS_DEPLOYED) for s in sets):
            return "not with its own temporal filter"
        if any(s.fold != wanted.fold for s in sets):
            return f"not on the fold {wanted.fold!r}" if wanted.fold else "on one fold alone"
    return deployed[0]


def _baseline(report: EvaluationTables, name: str, wanted: NamedSet) -> EvaluationRow | str:
    """A baseline's result on this very set, or what is wrong."""
    rows = [r for r in report.results if r.baseline and r.model == name]
    found = [r for r in rows if r.dataset_digest == wanted.digest]
    return found[0] if len(found) == 1 else f"no {name} in the report"


def _measure(
    report: EvaluationTables,
    ours: EvaluationRow,
    theirs: EvaluationRow | str,
    rule: Margin,
    significance: float | None,
    mean_only: bool,
) -> Ground:
    """One measure on one set; `significance` None: it must only not be worse."""
    against = "" if rule.against == "default" else f" against the {rule.against}"
    name = f"{rule.measure}{against} on {ours.dataset}"
    if isinstance(theirs, str):
        return Ground(name=name, passed=False, detail=theirs)
    difference = _difference(report, ours, theirs, rule.measure)
    if isinstance(difference, str):
        return Ground(name=name, passed=False, detail=difference)
    gain, low, high, p = difference
    numbers = f"{gain:+.4f} [{low:+.4f}, {high:+.4f}], p {p:.4f}"
    if mean_only:
        least = -rule.margin if significance is None else rule.margin
        return Ground(
            name=name,
            passed=gain >= least if significance is None else gain > 0 and gain >= least,
            detail=f"{numbers}; the mean decides: {least:+g} is needed",
        )
    if significance is None:
        return Ground(
            name=name,
            passed=low >= -rule.margin,
            detail=f"{numbers}; at worst -{rule.margin:g} is admitted",
        )
    return Ground(
        name=name,
        passed=gain > 0 and gain >= rule.margin and low > 0 and p < significance,
        detail=f"{numbers}; +{rule.margin:g} with p below {significance:g} is needed",
    )


def _difference(
    report: EvaluationTables, ours: EvaluationRow, theirs: EvaluationRow, measure: str
) -> tuple[float, float, float, float] | str:
    """Gain over another with its interval (larger is better) and p-value, or what is wrong."""
    pair = {ours.model, theirs.model}
    found = [
        c for c in report.comparisons if c.dataset == ours.dataset and {c.model, c.other} == pair
    ]
    if len(found) != 1 or len(pair) != 2:
        return (
            f"no paired comparison with {theirs.model}" if not found else "compared more than once"
        )
    d = found[0].differences.get(measure)
    a, b = (r.estimates.get(measure) for r in (ours, theirs))
    if d is None or a is None or b is None:
        return "no number in the report"
    value, low, high, p = d.value, d.low, d.high, d.p_value
    if not all(map(math.isfinite, (value, low, high, p))):
        return "no number in the report"
    if found[0].model == theirs.model:
        value, low, high = -value, -high, -low
    if not abs(a.value - b.value - value) <= 1e-9:  # NaN, too
        return "the report contradicts itself: the comparison is not the difference of the results"
    if measure in report.lower_is_better:
        value, low, high = -value, -high, -low
    return value, low, high, p
