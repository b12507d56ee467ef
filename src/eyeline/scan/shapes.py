"""Every tensor of a graph at a stated input: how large, how much at once, how much work.

The graph is worked out with real numbers, not with symbols: a size that depends on the pixels is
refused, one that follows from the input's size is known exactly. No declared shape is believed.
"""

from __future__ import annotations

from dataclasses import dataclass

from eyeline.scan.layer_rules import Node, Value, work
from eyeline.scan.records import RefusedError, ScanFinding, ScanPolicy, WorstCase
from eyeline.scan.rules import RULES
from eyeline.scan.tensors import MAX_KNOWN, NAME, SLICE_ENDS, Constant

_PASS_ON = frozenset(
    ("Slice", "Identity", "Unsqueeze", "Squeeze", "Concat", "Cast", "Reshape", "Gather")
)
"""Ops that may take `SLICE_ENDS`: they move numbers and do not compute."""


@dataclass(frozen=True)
class GraphPlan:
    """A graph whose every node was admitted.

    Attributes:
        input: name of the one input.
        dims: its declared sides, None where dynamic.
        outputs: names.
        nodes: in order.
        constants: initializers by name.
    """

    input: str
    dims: tuple[int | None, ...]
    outputs: tuple[str, ...]
    nodes: tuple[Node, ...]
    constants: dict[str, Constant]

    def input_shape(self, size: tuple[int, int]) -> tuple[int, ...]:
        """The input's shape for (height, width): declared sides win."""
        wanted = (1, 3, *size)
        return tuple(w if d is None else d for d, w in zip(self.dims, wanted, strict=True))


@dataclass(frozen=True)
class Inference:
    """A graph at one input.

    Attributes:
        values: every tensor by name, up to the first finding.
        case: the totals, None after a finding.
        finding: None when all is within bounds.
    """

    values: dict[str, Value]
    case: WorstCase | None = None
    finding: ScanFinding | None = None


def worst_case(plan: GraphPlan, policy: ScanPolicy) -> tuple[WorstCase | None, ScanFinding | None]:
    """Work a graph out at every stated input.

    Returns:
        The costliest input, and None; or None, and what was found first.
    """
    cases = []
    for shape in dict.fromkeys(plan.input_shape(size) for size in policy.worst_case):
        done = infer(plan, policy, shape)
        if done.case is None:
            return None, done.finding
        cases.append(done.case)
    return max(cases, key=lambda c: c.peak_bytes), None


def infer(plan: GraphPlan, policy: ScanPolicy, shape: tuple[int, ...]) -> Inference:
    """Work a graph out at one input."""
    limits = policy.limits
    values = {
        n: Value(c.dtype, c.shape, c.values, True, c.scale) for n, c in plan.constants.items()
    }
    values[plan.input] = Value(1, shape)
    live = {name: _size(value, policy) for name, value in values.items()}
    last_use = {name: i for i, node in enumerate(plan.nodes) for name in node.inputs}
    last_use |= dict.fromkeys(plan.outputs, len(plan.nodes))
    total = peak = sum(live.values())
    largest = max(live.values())
    all_work = constant_work = 0
    for i, node in enumerate(plan.nodes):
        inputs = [values[name] if name else None for name in node.inputs]
        try:
            outputs = _run(node, inputs)
            for name, value in zip(node.outputs, outputs, strict=False):
                size = _size(value, policy)
                if size > limits.max_tensor_bytes:
                    raise RefusedError("tensor-size", f"a tensor of {size:,} bytes")  # noqa: TRY301
                if name:
                    values[name], live[name] = value, size
                    total += size
                    largest = max(largest, size)
            cost = work(node, inputs, outputs)
            all_work += cost
            peak = max(peak, total)
            if all(v.constant for v in outputs):
                constant_work += cost
            _check_totals(peak, all_work, constant_work, policy)
        except RefusedError as problem:
            at = "x".join(map(str, shape))
            reason = f"{problem.reason}, at input {at}"
            return Inference(
                values, finding=ScanFinding(problem.code, node.path, reason, node.op_type)
            )
        for name in {*node.inputs, *node.outputs}:
            if name and last_use.get(name, -1) <= i and name not in plan.constants:
                total -= live.pop(name, 0)
    for name in plan.outputs:
        value = values[name]
        if value.dtype != 1 or len(value.shape) != 4:
            reason = (
                f"output is {NAME.get(value.dtype)} of rank {len(value.shape)}, not float32 of 4"
            )
            return Inference(values, finding=ScanFinding("output", f"graph/output:{name}", reason))
    return Inference(values, WorstCase(shape, largest, peak, all_work))


def _run(node: Node, inputs: list[Value | None]) -> list[Value]:
    for index, value in enumerate(inputs):
        numbers = value.values if value is not None else None
        if numbers and not SLICE_ENDS.isdisjoint(numbers):
            allowed = node.op_type in _PASS_ON and (node.op_type != "Slice" or index in (0, 2))
            if not allowed:
                raise RefusedError("integer", "an end of int64 that is not the end of a Slice")
    outputs = RULES[node.op_type](node, inputs)
    if len(node.outputs) > len(outputs):
        raise RefusedError(
            "outputs", f"{len(node.outputs)} outputs, at most {len(outputs)} admitted"
        )
    constant = all(v.constant for v in inputs if v is not None)
    checked = []
    for value in outputs:
        if len(value.shape) > node.limits.max_rank:
            raise RefusedError("rank", f"more than {node.limits.max_rank} dimensions")
        # An exporter writes an input left out, such as the roi of a Resize, as an empty constant.
        if any(d < 1 for d in value.shape) and node.op_type != "Constant":
            raise RefusedError("shapes", f"an empty tensor, {value.shape}")
        short = value.values if value.elements <= MAX_KNOWN else None
        known = value.constant or constant
        checked.append(Value(value.dtype, value.shape, short, known, value.scale))
    return checked


def _check_totals(peak: int, all_work: int, constant_work: int, policy: ScanPolicy) -> None:
    limits = policy.limits
    for code, what, number, limit in (
        ("memory", "bytes live at once", peak, limits.max_peak_bytes),
        ("work", "multiply-adds", all_work, limits.max_work),
        (
            "constant-work",
            "elements and multiply-adds at load",
            constant_work,
            limits.max_constant_work,
        ),
    ):
        if number > limit:
            raise RefusedError(code, f"{number:,} {what}, more than {limit:,}")


def _size(value: Value, policy: ScanPolicy) -> int:
    return value.elements * policy.elements.get(value.dtype, 8)
