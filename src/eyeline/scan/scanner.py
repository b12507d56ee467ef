"""The scan itself: its steps in order, each on what the one before let through.

The walk over a whole model: every node of every graph in it, by path.

It goes on after a finding, and into what is refused anyway (`If`, `Loop`, functions), so that the
report names what was hidden there.
"""

from __future__ import annotations

import hashlib
import os
import stat
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from eyeline.errors import ModelError, ScanError
from eyeline.runtime import INPUT_NAME, OUTPUT_NAME
from eyeline.scan.attributes import read_attribute
from eyeline.scan.child import load_in_child
from eyeline.scan.layer_rules import Attribute, Node
from eyeline.scan.policy import load_policy
from eyeline.scan.records import (
    FirstLoad,
    OpRule,
    RefusedError,
    ScanFinding,
    ScanPolicy,
    ScanReport,
    WorstCase,
    printable,
    quoted,
)
from eyeline.scan.shapes import GraphPlan, worst_case
from eyeline.scan.tensors import Constant, read_constant
from eyeline.scan.wire import Message, WireError, WireReader

MAX_FINDINGS = 50
_DEFAULT_DOMAIN = ("", "ai.onnx")
_INFERRED_ONCE = frozenset(("tensor_type", "denotation"))


class _Scope:
    """Names that a node may read: its own graph's, then those around it; never copied."""

    def __init__(self, outer: _Scope | None = None) -> None:
        self.names: set[str] = set()
        self.outer = outer

    def __contains__(self, name: str) -> bool:
        return name in self.names or (self.outer is not None and name in self.outer)


class Walk:
    """One walk.

    Args:
        policy: what is admitted.

    Attributes:
        findings: in the order of the file, `MAX_FINDINGS` at most.
        notes: what is worth knowing.
        ops: op type to nodes.
        opset: of the default operator set.
    """

    def __init__(self, policy: ScanPolicy) -> None:
        self.policy = policy
        self.findings: list[ScanFinding] = []
        self.notes: list[str] = []
        self.ops: Counter[str] = Counter()
        self.opset: int | None = None
        self._text_bytes = 0
        self._node_metadata = False

    def find(self, code: str, path: str, reason: str, op_type: str = "") -> None:
        """Add a finding, unless there are enough."""
        if len(self.findings) < MAX_FINDINGS:
            self.findings.append(ScanFinding(code, path, reason, printable(op_type, 60)))

    def model(self, model: Message) -> GraphPlan | None:
        """Walk a model; the plan of its graph when nothing was found."""
        low, high = self.policy.ir_versions
        if not low <= model.number("ir_version") <= high:
            reason = f"IR version {model.number('ir_version')}, not {low} to {high}"
            self.find("ir-version", "model", reason)
        self._opsets(model.messages("opset_import"), "model")
        if "configuration" in model:
            self.find("device-configuration", "model/configuration", "it configures devices")
        size = sum(
            len(p.text("key").encode()) + len(p.text("value").encode())
            for p in model.messages("metadata_props")
        )
        if size > self.policy.limits.max_metadata_bytes:
            self.find("metadata", "model/metadata_props", f"{size} bytes of metadata")
        keys = [p.text("key") for p in model.messages("metadata_props")]
        if len(set(keys)) != len(keys):
            self.find("ambiguous", "model/metadata_props", "a key stands there twice")
        self._name(model, "model", "producer_name", "producer_version", "domain")
        self._text(model, "model")
        for i, function in enumerate(model.messages("functions")):
            self._function(function, f"functions[{i}]")
        for i, training in enumerate(model.messages("training_info")):
            path = f"training_info[{i}]"
            self.find("training", path, "a model that trains")
            for part in ("initialization", "algorithm"):
                if (graph := training.message(part)) is not None:
                    self._graph(graph, f"{path}/{part}", _Scope())
        top = model.message("graph")
        if top is None or "node" not in top:
            self.find("empty", "graph", "no nodes")
        plan = self._graph(top, "graph", None) if top is not None else None
        if self._node_metadata:
            self.notes.append(
                "nodes carry metadata, which may name the paths of its author's machine"
            )
        return plan if not self.findings else None

    def _opsets(self, imports: Iterable[Message], path: str) -> None:
        low, high = self.policy.opsets
        found = [(o.text("domain"), o.number("version")) for o in imports]
        for domain, version in found:
            if domain not in _DEFAULT_DOMAIN:
                reason = f"operator set {quoted(domain)} is not the default one"
                self.find("opset-domain", f"{path}/opset_import", reason)
            elif not low <= version <= high:
                self.find("opset", f"{path}/opset_import", f"opset {version}, not {low} to {high}")
            else:
                self.opset = version
        if sum(d in _DEFAULT_DOMAIN for d, _ in found) != 1:
            self.find("opset", f"{path}/opset_import", "the default operator set not exactly once")

    def _function(self, function: Message, path: str) -> None:
        path += f":{printable(function.text('name'), 40)}"
        self.find("function", path, "a model-local function")
        self._name(function, path, "name", "domain", "overload")
        self._text(function, path)
        known = _Scope()
        known.names |= set(function.list("input"))
        for i, node in enumerate(function.messages("node")):
            self._node(node, f"{path}/node[{i}]", known)
        for i, attribute in enumerate(function.messages("attribute_proto")):
            self._subgraphs(attribute, f"{path}/attribute_proto[{i}]", known)

    def _graph(self, graph: Message, path: str, outer: _Scope | None) -> GraphPlan | None:
        """Walk a graph; `outer` holds the names around it, None for the model's own graph."""
        top = outer is None
        if "sparse_initializer" in graph:
            self.find("sparse", f"{path}/sparse_initializer", "a sparse tensor")
        if "quantization_annotation" in graph:
            reason = "annotations that only other runtimes read"
            self.find("quantization-annotation", f"{path}/quantization_annotation", reason)
        self._name(graph, path, "name")
        self._text(graph, path)
        known = _Scope(outer)
        inputs = list(graph.messages("input"))
        for i, value in enumerate(inputs):
            self._define(value.text("name"), f"{path}/input[{i}]", known)
            self._value(value, f"{path}/input[{i}]")
        constants: dict[str, Constant] = {}
        for i, tensor in enumerate(graph.messages("initializer")):
            name = tensor.text("name")
            where = f"{path}/initializer[{i}]:{printable(name, 60)}"
            self._define(name, where, known)
            self._text(tensor, where)
            try:
                constants[name] = read_constant(tensor, self.policy)
            except RefusedError as problem:
                self.find(problem.code, where, problem.reason)
        for i, value in enumerate(graph.messages("value_info")):
            self._value(value, f"{path}/value_info[{i}]")
        nodes = [
            self._node(node, f"{path}/node[{i}]", known)
            for i, node in enumerate(graph.messages("node"))
        ]
        outputs = list(graph.messages("output"))
        for i, value in enumerate(outputs):
            self._value(value, f"{path}/output[{i}]")
            if value.text("name") not in known:
                reason = f"{quoted(value.text('name'), 60)} is computed nowhere"
                self.find("undefined", f"{path}/output[{i}]", reason)
        if not top:
            return None
        dims = self._ends(inputs, outputs)
        if dims is None or self.findings:
            return None
        names = tuple(o.text("name") for o in outputs)
        return GraphPlan(
            inputs[0].text("name"), dims, names, tuple(n for n in nodes if n), constants
        )

    def _node(self, node: Message, path: str, known: _Scope) -> Node | None:
        op_type, domain = node.text("op_type"), node.text("domain")
        path += f":{printable(op_type, 40)}"
        if name := node.text("name"):
            path += f"({printable(name, 60)})"
        self.ops[printable(op_type, 60)] += 1
        rule: OpRule | None = None
        if domain not in _DEFAULT_DOMAIN:
            self.find("domain", path, f"domain {quoted(domain)} is not the default one", op_type)
        elif (rule := self.policy.ops.get(op_type)) is None:
            self.find("op", path, f"op {quoted(op_type, 60)} is not on the allowlist", op_type)
        if "overload" in node:
            self.find("function", path, "it calls an overload of a function", op_type)
        if "device_configurations" in node:
            self.find("device-configuration", path, "it configures devices", op_type)
        self._name(node, path, "name", "op_type", "domain", "overload")
        self._text(node, path)
        self._node_metadata = self._node_metadata or "metadata_props" in node
        inputs, outputs = tuple(node.list("input")), tuple(node.list("output"))
        for name in inputs:
            if name and name not in known:
                reason = f"input {quoted(name, 60)} is not computed before it"
                self.find("undefined", path, reason, op_type)
        attributes: dict[str, Attribute] = {}
        for attribute in node.messages("attribute"):
            self._text(attribute, path)
            name = attribute.text("name")
            self._subgraphs(attribute, f"{path}/{printable(name, 40)}", known)
            if name in attributes:
                self.find("ambiguous", path, f"attribute {printable(name)} twice", op_type)
            try:
                attributes[name] = read_attribute(attribute, rule, self.policy)
            except RefusedError as problem:
                if rule is not None:
                    self.find(problem.code, path, problem.reason, op_type)
        if not any(outputs):
            self.find("outputs", path, "no output", op_type)
        for name in filter(None, outputs):
            self._define(name, path, known)
        limits, opset = self.policy.limits, self.opset or 0
        return Node(op_type, attributes, inputs, outputs, path, opset, limits) if rule else None

    def _subgraphs(self, attribute: Message, path: str, known: _Scope) -> None:
        graph = attribute.message("g")
        graphs = [*([graph] if graph is not None else []), *attribute.messages("graphs")]
        for i, inner in enumerate(graphs):
            where = path if graph is not None and i == 0 else f"{path}[{i}]"
            self._graph(inner, where, known)

    def _ends(self, inputs: list[Message], outputs: list[Message]) -> tuple[int | None, ...] | None:
        """One float32 input of rank 4, and float32 outputs."""
        if len(inputs) != 1:
            self.find("input", "graph/input", f"{len(inputs)} inputs, not one image")
        if not outputs:
            self.find("output", "graph/output", "no output")
        sides: tuple[int | None, ...] | None = None
        for value, path in [
            *((v, f"graph/input[{i}]") for i, v in enumerate(inputs)),
            *((v, f"graph/output[{i}]") for i, v in enumerate(outputs)),
        ]:
            kind = path[6:].split("[", maxsplit=1)[0]
            shape = _shape(value)
            rank_unknown = shape is None and kind == "output"
            if _element(value) != 1 or (not rank_unknown and (shape is None or len(shape) != 4)):
                self.find(kind, path, "not a float32 tensor of rank 4")
            elif kind == "input":
                sides = shape
                self._input_sides(shape or (), path)
        return sides

    def _input_sides(self, shape: tuple[int | None, ...], path: str) -> None:
        if shape[0] not in (None, 1) or shape[1] not in (None, 3):
            self.find(
                "input", path, "not one RGB image: its shape begins with neither (1, 3) nor N"
            )
        if any(s is not None and not 1 <= s <= self.policy.limits.max_side for s in shape[2:]):
            self.find("input", path, f"its sides are beyond 1 to {self.policy.limits.max_side}")

    def _value(self, value: Message, path: str) -> None:
        """Check a `ValueInfoProto`: a tensor of an admitted type."""
        self._name(value, path, "name")
        self._text(value, path)
        kind = value.message("type")
        if kind is None:
            return
        if not set(kind.fields) <= _INFERRED_ONCE:
            self.find("type", path, "not a tensor")
            return
        element = _element(value)
        if element and element not in self.policy.elements:
            self.find(
                "element-type", path, f"element type number {element} is not on the allowlist"
            )
        tensor = kind.message("tensor_type")
        shape = tensor.message("shape") if tensor is not None else None
        dims = list(shape.messages("dim")) if shape is not None else []
        if len(dims) > self.policy.limits.max_rank:
            self.find("rank", path, f"more than {self.policy.limits.max_rank} dimensions")
        for dim in dims:
            self._name(dim, path, "dim_param", "denotation")
            if "dim_value" in dim and "dim_param" in dim:
                self.find("ambiguous", path, "a side that is both a number and a name")
            if dim.number("dim_value") < 0:
                self.find("dimension", path, "a negative side")

    def _define(self, name: str, path: str, known: _Scope) -> None:
        if not name:
            self.find("undefined", path, "a value without a name")
        elif name in known:
            reason = f"{quoted(name, 60)} is defined a second time"
            self.find("duplicate-name", path, reason)
        elif len(name.encode()) > self.policy.limits.max_name_bytes:
            self.find("name", path, f"a name of {len(name)} characters")
        known.names.add(name)

    def _name(self, message: Message, path: str, *fields: str) -> None:
        for field in fields:
            size = len(message.text(field).encode())
            if size > self.policy.limits.max_name_bytes:
                self.find("name", path, f"{field} of {size} bytes")

    def _text(self, message: Message, path: str) -> None:
        before = self._text_bytes
        self._text_bytes += len(message.text("doc_string").encode())
        for entry in message.messages("metadata_props"):
            self._text_bytes += len(entry.text("key").encode()) + len(entry.text("value").encode())
        if before <= self.policy.limits.max_text_bytes < self._text_bytes:
            limit = self.policy.limits.max_text_bytes
            self.find("metadata", path, f"more than {limit} bytes of documentation and metadata")


def _element(value: Message) -> int:
    kind = value.message("type")
    tensor = kind.message("tensor_type") if kind is not None else None
    return tensor.number("elem_type") if tensor is not None else 0


def _shape(value: Message) -> tuple[int | None, ...] | None:
    kind = value.message("type")
    tensor = kind.message("tensor_type") if kind is not None else None
    shape = tensor.message("shape") if tensor is not None else None
    if shape is None:
        return None
    return tuple(d.number("dim_value") if "dim_value" in d else None for d in shape.messages("dim"))


_SMALL = (64, 96)
"""(height, width) of the first run, pixels; multiples of 32, as every net here takes."""

_KINDS = (
    (b"PK\x03\x04", "a zip archive, such as a torch checkpoint"),
    (b"\x80\x02", "a pickle"),
    (b"\x80\x03", "a pickle"),
    (b"\x80\x04", "a pickle"),
    (b"\x80\x05", "a pickle"),
    (b"\x1f\x8b", "a gzip file"),
    (b"\x89HDF", "an HDF5 file"),
    (b"\x7fELF", "an executable"),
    (b"MZ", "an executable"),
    (b"GGUF", "a GGUF file"),
    (b"version https://git-lfs", "a Git LFS pointer: fetch the file itself"),
    (b"<", "a web page"),
    (b"{", "a JSON file"),
)


def scan(
    data: bytes, policy: ScanPolicy | None = None, *, name: str = "model", load: bool = True
) -> ScanReport:
    """Scan a model's bytes.

    Args:
        data: the file, whole.
        policy: what is admitted; the built-in policy when None.
        name: for the report.
        load: whether to load what the static scan admits, in a child process.

    Returns:
        The report: `findings` is empty exactly when the model is admitted.
    """
    policy = policy or load_policy()
    walk = Walk(policy)
    case = None
    plan = _walk(data, policy, walk)
    if plan is not None:
        case, finding = worst_case(plan, policy)
        if finding is not None:
            walk.findings.append(finding)
        walk.notes += _contract_notes(plan)
    outcome = FirstLoad("skipped", "the static scan refused it" if walk.findings else "as asked")
    if plan is not None and load and not walk.findings:
        outcome = load_in_child(data, plan.input_shape(_SMALL))
        if outcome.outcome != "loaded":
            walk.find("load", "model", f"first load {outcome.outcome}: {outcome.detail}")
    return _report(name, data, policy, walk, case, outcome)


def admit(data: bytes, policy: ScanPolicy | None = None, *, name: str = "model") -> ScanReport:
    """Scan, and refuse: the gate of whoever takes a model in.

    Raises:
        ScanError: with the first finding.
    """
    report = scan(data, policy, name=name)
    if report.findings:
        more = f", and {len(report.findings) - 1} more" if len(report.findings) > 1 else ""
        raise ScanError(f"{name}: {report.findings[0]}{more}", "eyeline model scan tells all")
    return report


def _report(
    name: str,
    data: bytes | None,
    policy: ScanPolicy,
    walk: Walk,
    case: WorstCase | None,
    outcome: FirstLoad,
) -> ScanReport:
    return ScanReport(
        name=name,
        sha256=hashlib.sha256(data).hexdigest() if data is not None else "",
        size=len(data) if data is not None else 0,
        findings=tuple(walk.findings),
        notes=tuple(walk.notes),
        ops=dict(walk.ops.most_common()),
        opset=walk.opset,
        worst_case=case,
        load=outcome,
        policy={"name": policy.name, "version": policy.version, "sha256": policy.sha256},
    )


def _walk(data: bytes, policy: ScanPolicy, walk: Walk) -> GraphPlan | None:
    limits = policy.limits
    if not data:
        walk.find("file-kind", "file", "the file is empty")
        return None
    if len(data) > limits.max_file_bytes:
        walk.find("file-size", "file", f"{len(data):,} bytes, more than {limits.max_file_bytes:,}")
        return None
    if data[4:8] == b"ORTM":
        walk.find("ort-format", "file", "an ORT-format model, or one that can pass for it")
        return None
    reader = WireReader(data, limits.max_fields, limits.max_depth)
    try:
        model = reader.read()
    except WireError as error:
        guess = next(
            (f"it looks like {what}" for magic, what in _KINDS if data.startswith(magic)), ""
        )
        reason = f"{error.reason}; {guess}" if guess else error.reason
        walk.find(error.code, error.path, reason)
        return None
    for path, number in reader.unknown:
        walk.find("unknown-field", path, f"field {number}, which onnx.proto does not know")
    return walk.model(model)


def _contract_notes(plan: GraphPlan) -> list[str]:
    notes = []
    if plan.input != INPUT_NAME or plan.outputs != (OUTPUT_NAME,):
        names = ", ".join(printable(n, 40) for n in plan.outputs[:8])
        notes.append(
            f"not the tensor contract: {printable(plan.input, 40)} to {names}, not {INPUT_NAME} to "
            f"{OUTPUT_NAME}; it can't be registered so"
        )
    if all(d is not None for d in plan.dims[2:]):
        notes.append("one input size only: {}x{}".format(*plan.dims[2:]))
    return notes


def scan_file(path: Path, policy: ScanPolicy | None = None, *, load: bool = True) -> ScanReport:
    """Scan a file, read once; a link, FIFO or device is refused unread.

    Args:
        path: the file, or `-` for stdin.
        policy: what is admitted; the built-in policy when None.
        load: see `scan`.

    Raises:
        ModelError: nothing there, a folder, or no permission to read it.
    """
    policy = policy or load_policy()
    limit = policy.limits.max_file_bytes
    if str(path) == "-":
        return scan(sys.stdin.buffer.read(limit + 1), policy, name="stdin", load=load)
    try:
        # O_NOFOLLOW: a link would be followed to whatever it names at that moment.
        # O_NONBLOCK: opening a FIFO must not wait for a writer.
        found = _kind(path.lstat())
        if found is None:
            flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
            with os.fdopen(os.open(path, flags), "rb") as f:
                found = _kind(os.fstat(f.fileno()))
                data = f.read(limit + 1) if found is None else b""
    except OSError as exc:
        raise ModelError(f"{path}: can't be read: {exc.strerror}", "check the path") from exc
    except ValueError as exc:  # a NUL in the name
        raise ModelError(f"{str(path)!r}: no file name", "check the path") from exc
    if found == "a folder":
        raise ModelError(f"{path}: a folder", "name the model file in it")
    if found is None:
        return scan(data, policy, name=str(path), load=load)
    walk = Walk(policy)
    walk.findings.append(ScanFinding("file-kind", "file", f"{found}, not a regular file"))
    return _report(str(path), None, policy, walk, None, FirstLoad("skipped", "it was not read"))


def _kind(status: os.stat_result) -> str | None:
    """What a path is when it is no regular file."""
    for test, name in (
        (stat.S_ISLNK, "a symbolic link"),
        (stat.S_ISDIR, "a folder"),
        (stat.S_ISFIFO, "a FIFO"),
        (stat.S_ISSOCK, "a socket"),
    ):
        if test(status.st_mode):
            return name
    return None if stat.S_ISREG(status.st_mode) else "a device"
