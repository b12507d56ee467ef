"""The gate in front of the default: it changes on measured benefit only, and the decision is recorded.

A challenger must be verified, evaluated with today's default on every set of the policy, better by its
margin with significance, no worse elsewhere, and within the latency budget. Whatever is missing is a "no".
"""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from eyeline.digest import sha256_hex
from eyeline.errors import EyelineError, RegistryError, UsageError
from eyeline.models.files import read_regular_file
from eyeline.models.records import Decision, Digest, Ground, ModelRecord, Strict
from eyeline.models.register import read_own, registry_lock, write_own
from eyeline.models.registry import REGISTRY_FILE, Model, Registry

POLICY_FILE = "promotion.toml"
DEFAULT_POLICY = Path(__file__).parent / POLICY_FILE
MAX_REPORT_BYTES = 256 * 1024 * 1024


class Margin(Strict):
    """A measure of `eyeline evaluate` and how much of it counts.

    Attributes:
        measure: its name in the report.
        margin: 0 or more, in the measure's own unit.
    """

    measure: str = Field(min_length=1)
    margin: float = Field(ge=0, lt=1)


class NamedSet(Strict):
    """A dataset that must be in the report.

    Attributes:
        name: for messages.
        digest: what `eyeline evaluate` says that it is.
    """

    name: str = Field(min_length=1)
    digest: Digest


class Latency(Strict):
    """The budget.

    Attributes:
        ratio: at most so many times today's default, measured in the same report.
        milliseconds: at most so long, on the machine of the report; None: only the ratio counts.
    """

    ratio: float = Field(gt=0)
    milliseconds: float | None = Field(default=None, gt=0)


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


class _Part(BaseModel):
    """A part of an evaluation's JSON: what is read of it is checked, the rest is let be."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class _Estimate(_Part):
    value: float | None
    low: float | None = None
    high: float | None = None


class _Difference(_Estimate):
    p_value: float | None


class _Result(_Part):
    model: str
    model_sha256: Digest
    smoke: bool
    io: dict[str, Any]
    dataset: str
    dataset_digest: Digest
    size: int | str
    latency_ms: float = Field(gt=0, allow_inf_nan=False)
    estimates: dict[str, _Estimate]


class _Comparison(_Part):
    dataset: str
    model: str
    other: str
    differences: dict[str, _Difference]


class Evaluation(_Part):
    """What `eyeline evaluate -o` (or `--summary`) wrote, as far as the gate reads it."""

    schema_version: int = Field(ge=1, le=1)
    lower_is_better: tuple[str, ...]
    results: tuple[_Result, ...]
    comparisons: tuple[_Comparison, ...]


def load_promotion_policy(path: Path | None, folder: Path) -> tuple[PromotionPolicy, str]:
    """A promotion policy and its digest.

    Args:
        path: TOML; the registry's own `promotion.toml`, then the built-in one, when None.
        folder: the registry's.

    Raises:
        UsageError: not a policy.
        RegistryError: unreadable.
    """
    own = folder / POLICY_FILE
    chosen = path or (own if own.exists() or own.is_symlink() else DEFAULT_POLICY)
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
    """Decide whether a candidate becomes a registry's default, and record it.

    Args:
        model_id: a candidate of the folder's own registry.
        folder: the registry's; the package's built-in folder too.
        report: JSON of `eyeline evaluate`, with the candidate and today's default.
        policy: see `load_promotion_policy`.
        dry_run: decide and write nothing.

    Returns:
        The decision, a "no" too.

    Raises:
        RegistryError: no such model here, it is no candidate, or a file that can't be read or parsed.
        UsageError: a policy that does not parse.
        OutputError: the registry can't be written.
    """
    rules, policy_digest = load_promotion_policy(policy, folder)
    found = _read_evaluation(report)
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
        registry = Registry(folder)
        default = _today(registry)
        grounds = tuple(_grounds(record, registry, default, found, rules))
        decision = Decision(
            model=record.id,
            sha256=record.sha256,
            promoted=all(g.passed for g in grounds),
            default=default.id if default else None,
            default_sha256=default.record.sha256 if default and default.record else None,
            report_sha256=found.sha256 if found else None,
            policy_sha256=policy_digest,
            decided=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            grounds=grounds,
        )
        if not dry_run:
            models = _flip(own.models, record) if decision.promoted else own.models
            write_own(folder, models, [*own.decisions, decision])
    return decision


def _flip(models: list[ModelRecord], record: ModelRecord) -> list[ModelRecord]:
    """The new default in its place; the old one is a candidate again."""
    before = [
        m.model_copy(update={"role": "candidate"}) if m.role == "production" else m for m in models
    ]
    return [m.model_copy(update={"role": "production"}) if m.id == record.id else m for m in before]


def _today(registry: Registry) -> Model | None:
    production = [m for m in registry if m.record and m.record.role == "production"]
    return production[-1] if production else None


@dataclass(frozen=True)
class _Found:
    """A report that was read."""

    content: Evaluation
    sha256: str


def _read_evaluation(path: Path | None) -> _Found | None:
    if path is None or not path.exists():
        return None
    data = read_regular_file(path, limit=MAX_REPORT_BYTES)
    try:
        return _Found(Evaluation.model_validate(json.loads(data)), sha256_hex(data))
    except (ValueError, RecursionError) as exc:  # ValidationError and JSONDecodeError are both
        first = " ".join(str(exc).split())[:200]
        raise RegistryError(
            f"{path}: not an evaluation: {first}", "eyeline evaluate -o writes one"
        ) from exc


def _grounds(
    record: ModelRecord,
    registry: Registry,
    default: Model | None,
    found: _Found | None,
    rules: PromotionPolicy,
) -> Iterator[Ground]:
    yield _verified(registry.get(record.id), record, registry, rules)
    yield Ground(
        name="not a smoke model",
        passed=not record.smoke,
        detail="its numbers mean nothing" if record.smoke else "its numbers mean something",
    )
    if default is None or default.record is None:
        yield Ground(name="default", passed=False, detail="no default to be better than")
        return
    if found is None:
        yield Ground(name="evaluation", passed=False, detail="no report: nothing was measured")
        return
    for wanted in rules.set:
        yield from _on_set(record, default.record, found.content, wanted, rules)


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
            from eyeline.models.verifying import verify_model

            as_default = record.model_copy(update={"role": "production"})
            who = verify_model(as_default, data, trust, model.path.parent)
            return Ground(name="verified", passed=True, detail=f"digest; signed by {who.signer}")
    except EyelineError as exc:
        return Ground(name="verified", passed=False, detail=exc.message)
    return Ground(name="verified", passed=True, detail="digest; no signature needed for its role")


def _on_set(
    record: ModelRecord,
    default: ModelRecord,
    report: Evaluation,
    wanted: NamedSet,
    rules: PromotionPolicy,
) -> Iterator[Ground]:
    where = f"evaluated on {wanted.name}"
    ours, theirs = (_result(report, m, wanted) for m in (record, default))
    for model, result in ((record, ours), (default, theirs)):
        if isinstance(result, str):
            yield Ground(name=where, passed=False, detail=f"{model.id}: {result}")
    if isinstance(ours, str) or isinstance(theirs, str):
        return
    yield Ground(name=where, passed=True, detail="these bytes, as they are deployed; same images")
    for rule in rules.better:
        yield _measure(report, ours, theirs, rule, rules.significance)
    for rule in rules.no_worse:
        yield _measure(report, ours, theirs, rule, None)
    ratio, budget = ours.latency_ms / theirs.latency_ms, rules.latency
    absolute = budget.milliseconds if budget.milliseconds is not None else math.inf
    yield Ground(
        name=f"latency on {wanted.name}",
        passed=ratio <= budget.ratio and ours.latency_ms <= absolute,
        detail=f"{ours.latency_ms:.2f} ms, {ratio:.2f} times the default's (budget {budget.ratio:g}"
        + (f", {absolute:g} ms)" if math.isfinite(absolute) else ")"),
    )


def _result(report: Evaluation, model: ModelRecord, wanted: NamedSet) -> _Result | str:
    """The one result of these bytes as deployed on this very set, or what is wrong."""
    bytes_ = [r for r in report.results if r.model_sha256 == model.sha256]
    if not bytes_:
        return f"not in the report (sha256 {model.sha256[:16]}...)"
    found = [r for r in bytes_ if r.dataset_digest == wanted.digest]
    if not found:
        return f"not on the set of digest {wanted.digest[:16]}..."
    io = json.loads(model.io.model_dump_json())
    deployed = [r for r in found if r.io == io and r.size == "model"]
    if len(deployed) != 1:
        return "not with its own I/O spec at its own size" if not deployed else "there twice"
    if deployed[0].smoke:
        return "a smoke model"
    return deployed[0]


def _measure(
    report: Evaluation, ours: _Result, theirs: _Result, rule: Margin, significance: float | None
) -> Ground:
    """One measure on one set; `significance` None: it must only not be worse."""
    name = f"{rule.measure} on {ours.dataset}"
    difference = _difference(report, ours, theirs, rule.measure)
    if isinstance(difference, str):
        return Ground(name=name, passed=False, detail=difference)
    gain, low, high, p = difference
    numbers = f"{gain:+.4f} [{low:+.4f}, {high:+.4f}], p {p:.4f}"
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
    report: Evaluation, ours: _Result, theirs: _Result, measure: str
) -> tuple[float, float, float, float] | str:
    """Gain over the default with its interval (larger is better) and p-value, or what is wrong."""
    pair = {ours.model, theirs.model}
    found = [
        c for c in report.comparisons if c.dataset == ours.dataset and {c.model, c.other} == pair
    ]
    if len(found) != 1 or len(pair) != 2:
        return "no paired comparison with the default" if not found else "compared more than once"
    d = found[0].differences.get(measure)
    a, b = (r.estimates.get(measure) for r in (ours, theirs))
    numbers = [d.value, d.low, d.high, d.p_value] if d else [None]
    if (
        d is None
        or a is None
        or b is None
        or any(n is None or not math.isfinite(n) for n in numbers)
    ):
        return "no number in the report"
    value, low, high, p = (float(n) for n in numbers if n is not None)
    if found[0].model == theirs.model:
        value, low, high = -value, -high, -low
    if a.value is None or b.value is None or abs(a.value - b.value - value) > 1e-9:
        return "the report contradicts itself: the comparison is not the difference of the results"
    if measure in report.lower_is_better:
        value, low, high = -value, -high, -low
    return value, low, high, p
