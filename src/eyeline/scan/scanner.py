"""Run the steps of a scan in order; a step runs only if the step before found nothing.

`scan` parses the file (`_wire`), checks every node of every graph (`Walk`), computes the size of every
tensor (`_sizes`), and loads the model in a child process (`child`). `Walk` continues after a finding and
also visits parts that are not allowed (`If`, `Loop`, functions), so that the report is complete.
"""

from __future__ import annotations

import os
import stat
import sys
from collections import ChainMap, Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TypeAlias

from eyeline.digests import sha256_hex
from eyeline.errors import ModelError, ScanError, UsageError
from eyeline.runtime import INPUT_NAME, OUTPUT_NAME
from eyeline.scan._constants import Attribute, Constant, read_attribute, read_constant
from eyeline.scan._layer_rules import Node
from eyeline.scan._sizes import RULES, GraphPlan, worst_case
from eyeline.scan._wire import Message, WireReader
from eyeline.scan.child import load_in_child
from eyeline.scan.records import (
    BUILTIN_POLICY,
    FirstLoad,
    RefusedError,
    ScanFinding,
    ScanPolicy,
    ScanReport,
    WorstCase,
    printable,
    read_policy,
)

MAX_FINDINGS = 50
_DEFAULT_DOMAIN = ("", "ai.onnx")
_SMALL = (64, 96)
"""(height, width) of the first run, pixels; multiples of 32 fit all models of eyeline."""

_MAGIC = (
    (b"PK\x03\x04", "a zip archive, such as a torch checkpoint"),
    *((bytes((0x80, version)), "a pickle") for version in (2, 3, 4, 5)),
    (b"\x1f\x8b", "a gzip file"),
    (b"\x89HDF", "an HDF5 file"),
    (b"\x7fELF", "an executable"),
    (b"MZ", "an executable"),
    (b"GGUF", "a GGUF file"),
    (b"version https://git-lfs", "a Git LFS pointer: download the file itself"),
    (b"<", "a web page"),
    (b"{", "a JSON file"),
)


def load_policy(path: Path | None = None) -> ScanPolicy:
    """Load a policy file, or the built-in policy if `path` is None.

    Raises:
        UsageError: the file can't be read or is not a valid policy.
    """
    policy = read_policy(path or BUILTIN_POLICY)
    for op in policy.ops:
        if op not in RULES:
            raise UsageError(
                f"{path}: the op {op} has no size rule, so the scanner can't limit its outputs",
                "remove the op from the policy, or add a rule as docs/scan.md describes",
            )
    return policy


def scan(
    data: bytes, policy: ScanPolicy | None = None, *, name: str = "model", load: bool = True
) -> ScanReport:
    """Scan the bytes of a model.

    Args:
        data: the whole file.
        policy: what a model may contain; None uses the built-in policy.
        name: name of the model in the report.
        load: whether to load the model in a child process if the static scan finds nothing.

    Returns:
        The report; the model is accepted if `findings` is empty.
    """
    policy = policy or load_policy()
    walk = Walk(policy)
    plan = _read_plan(data, policy, walk)
    case = None
    if plan is not None:
        try:
            case = worst_case(plan, policy)
        except RefusedError as exc:
            walk.find(exc.code, exc.path, exc.reason, exc.op_type)
        walk.notes += _contract_notes(plan)
    outcome = FirstLoad(
        "skipped", "the static scan rejected the model" if walk.findings else "it was not requested"
    )
    if plan is not None and load and not walk.findings:
        outcome = load_in_child(data, plan.input_shape(_SMALL))
        if outcome.outcome != "loaded":
            reason = f"loading in a child process: {outcome.outcome} ({outcome.detail})"
            walk.find("load", "model", reason)
    return _report(name, data, walk, case, outcome)


def admit(data: bytes, policy: ScanPolicy | None = None, *, name: str = "model") -> ScanReport:
    """Scan the bytes of a model, and raise an error if the model is rejected.

    Raises:
        ScanError: the model is rejected; the message contains the first finding.
    """
    report = scan(data, policy, name=name)
    if report.findings:
        more = f", and {len(report.findings) - 1} more" if len(report.findings) > 1 else ""
        raise ScanError(
            f"{name}: the scanner rejects this model: {report.findings[0]}{more}",
            "`eyeline model scan -v` lists all findings",
        )
    return report


def scan_file(path: Path, policy: ScanPolicy | None = None, *, load: bool = True) -> ScanReport:
    """Scan a file. Symbolic links, FIFOs and devices are rejected without being read.

    Args:
        path: the file, or `-` for stdin.
        policy: what a model may contain; None uses the built-in policy.
        load: as in `scan`.

    Raises:
        ModelError: the file does not exist, can't be read, or is a folder.
    """
    policy = policy or load_policy()
    limit = policy.limits.max_file_bytes
    if str(path) == "-":
        return scan(sys.stdin.buffer.read(limit + 1), policy, name="stdin", load=load)
    try:
        # O_NOFOLLOW: the file may have been replaced by a link since `lstat`.
        # O_NONBLOCK: opening a FIFO must not wait for a writer.
        irregular = _irregular(path.lstat())
        if irregular is None:
            flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
            with os.fdopen(os.open(path, flags), "rb") as f:
                irregular = _irregular(os.fstat(f.fileno()))
                data = f.read(limit + 1) if irregular is None else b""
    except OSError as exc:
        raise ModelError(f"{path}: can't be read: {exc.strerror}", "check the path") from exc
    except ValueError as exc:  # the name contains a NUL character
        raise ModelError(f"{str(path)!r} is not a file name", "check the path") from exc
    if irregular == "a folder":
        raise ModelError(f"{path} is a folder", "give the path of the model file in it")
    if irregular is None:
        return scan(data, policy, name=str(path), load=load)
    walk = Walk(policy)
    walk.find("file-kind", "file", f"the path is {irregular}, not a regular file")
    return _report(str(path), None, walk, None, FirstLoad("skipped", "the file was not read"))


def _irregular(status: os.stat_result) -> str | None:
    for test, name in (
        (stat.S_ISLNK, "a symbolic link"),
        (stat.S_ISDIR, "a folder"),
        (stat.S_ISFIFO, "a FIFO"),
        (stat.S_ISSOCK, "a socket"),
    ):
        if test(status.st_mode):
            return name
    return None if stat.S_ISREG(status.st_mode) else "a device"


def _report(
    name: str, data: bytes | None, walk: Walk, case: WorstCase | None, outcome: FirstLoad
) -> ScanReport:
    policy = walk.policy
    return ScanReport(
        name=name,
        sha256=sha256_hex(data) if data is not None else "",
        size=len(data or b""),
        findings=tuple(walk.findings),
        notes=tuple(walk.notes),
        ops=dict(walk.ops.most_common()),
        opset=walk.opset,
        worst_case=case,
        load=outcome,
        policy={"name": policy.name, "version": policy.version, "sha256": policy.sha256},
    )


def _read_plan(data: bytes, policy: ScanPolicy, walk: Walk) -> GraphPlan | None:
    limits = policy.limits
    reader = WireReader(data, limits.max_fields, limits.max_depth)
    if not data:
        walk.find("file-kind", "file", "the file is empty")
        return None
    if len(data) > limits.max_file_bytes:
        reason = f"the file is larger than {limits.max_file_bytes:,} bytes"
        walk.find("file-size", "file", reason)
        return None
    if data[4:8] == b"ORTM":
        walk.find("ort-format", "file", "ONNX Runtime may read the file as an ORT-format model")
        return None
    try:
        model = reader.read()
    except RefusedError as exc:
        guess = [what for magic, what in _MAGIC if data.startswith(magic)]
        reason = f"{exc.reason}; it looks like {guess[0]}" if guess else exc.reason
        walk.find(exc.code, exc.path, reason)
        return None
    for path, number in reader.unknown:
        walk.find(
            "unknown-field",
            path,
            f"the field {number} is not in onnx.proto",
        )
    return walk.model(model)


def _contract_notes(plan: GraphPlan) -> list[str]:
    notes = []
    if plan.input != INPUT_NAME or plan.outputs != (OUTPUT_NAME,):
        names = ", ".join(printable(n, 40) for n in plan.outputs[:8])
        notes.append(
            f"the tensor names {printable(plan.input, 40)} and {names} are not those of the tensor "
            f"contract, {INPUT_NAME} and {OUTPUT_NAME}, so the model can't be registered"
        )
    if all(d is not None for d in plan.dims[2:]):
        notes.append(
            "the model has the fixed input size (height x width) {}x{}".format(*plan.dims[2:])
        )
    return notes


_Names: TypeAlias = ChainMap[str, None]
"""Tensor names that a node may read: those of its graph and of all graphs that contain it."""


class Walk:
    """Visits all graphs and nodes of a model and collects findings, notes and op counts."""

    def __init__(self, policy: ScanPolicy) -> None:
        self.policy = policy
        self.findings: list[ScanFinding] = []
        self.notes: list[str] = []
        self.ops: Counter[str] = Counter()
        self.opset: int | None = None
        self._text_bytes = 0
        self._node_metadata = False

    def find(self, code: str, path: str, reason: str, op_type: str = "") -> None:
        """Add a finding, up to `MAX_FINDINGS`."""
        if len(self.findings) < MAX_FINDINGS:
            self.findings.append(ScanFinding(code, path, reason, printable(op_type, 60)))

    def model(self, model: Message) -> GraphPlan | None:
        """Check a whole model; return the plan of its graph if there are no findings."""
        low, high = self.policy.ir_versions
        version = model.number("ir_version")
        if not low <= version <= high:
            self.find(
                "ir-version",
                "model",
                f"IR version {version} must be from {low} to {high}",
            )
        self._opsets(model.messages("opset_import"))
        if "configuration" in model:
            self.find("device-configuration", "model/configuration", "the model configures devices")
        size = sum(
            len(p.text("key").encode()) + len(p.text("value").encode())
            for p in model.messages("metadata_props")
        )
        if size > self.policy.limits.max_metadata_bytes:
            most = self.policy.limits.max_metadata_bytes
            reason = f"the metadata has {size} bytes; at most {most} are allowed"
            self.find("metadata", "model/metadata_props", reason)
        keys = [p.text("key") for p in model.messages("metadata_props")]
        if len(set(keys)) != len(keys):
            self.find("ambiguous", "model/metadata_props", "the metadata has a key twice")
        self._texts(model, "model", "producer_name", "producer_version", "domain")
        for i, function in enumerate(model.messages("functions")):
            self._function(function, f"functions[{i}]")
        for i, training in enumerate(model.messages("training_info")):
            path = f"training_info[{i}]"
            self.find("training", path, "the model contains a training graph")
            for part in ("initialization", "algorithm"):
                if (graph := training.message(part)) is not None:
                    self._graph(graph, f"{path}/{part}", _Names())
        top = model.message("graph")
        if top is None or "node" not in top:
            self.find("empty", "graph", "the graph has no nodes")
        plan = self._graph(top, "graph", None) if top is not None else None
        if self._node_metadata:
            self.notes.append(
                "nodes have metadata, which may contain paths of the author's machine"
            )
        return plan if not self.findings else None

    def _opsets(self, imports: Iterable[Message]) -> None:
        low, high = self.policy.opsets
        found = [(o.text("domain"), o.number("version")) for o in imports]
        path = "model/opset_import"
        for domain, version in found:
            if domain not in _DEFAULT_DOMAIN:
                reason = f"the operator set '{printable(domain)}' is not the default operator set"
                self.find("opset-domain", path, reason)
            elif not low <= version <= high:
                self.find("opset", path, f"the opset is {version}; it must be from {low} to {high}")
            else:
                self.opset = version
        if sum(d in _DEFAULT_DOMAIN for d, _ in found) != 1:
            self.find("opset", path, "the default operator set must be imported exactly once")

    def _function(self, function: Message, path: str) -> None:
        path += f":{printable(function.text('name'), 40)}"
        self.find("function", path, "the model defines a function")
        self._texts(function, path, "name", "domain", "overload")
        known = _Names(dict.fromkeys(function.repeated("input")))
        for i, node in enumerate(function.messages("node")):
            self._node(node, f"{path}/node[{i}]", known)
        for i, attribute in enumerate(function.messages("attribute_proto")):
            self._subgraphs(attribute, f"{path}/attribute_proto[{i}]", known)

    def _graph(self, graph: Message, path: str, outer: _Names | None) -> GraphPlan | None:
        """Check a graph; `outer` contains the names of the graphs around it, None for the top graph."""
        if "sparse_initializer" in graph:
            self.find(
                "sparse",
                f"{path}/sparse_initializer",
                "sparse tensors are not allowed",
            )
        if "quantization_annotation" in graph:
            reason = "the graph has quantisation annotations, which ONNX Runtime ignores"
            self.find("quantization-annotation", f"{path}/quantization_annotation", reason)
        self._texts(graph, path, "name")
        known = _Names() if outer is None else outer.new_child()
        inputs = list(graph.messages("input"))
        for i, value in enumerate(inputs):
            self._define(value.text("name"), f"{path}/input[{i}]", known)
            self._value(value, f"{path}/input[{i}]")
        constants: dict[str, Constant] = {}
        for i, tensor in enumerate(graph.messages("initializer")):
            name = tensor.text("name")
            where = f"{path}/initializer[{i}]:{printable(name, 60)}"
            self._define(name, where, known)
            self._texts(tensor, where)
            try:
                constants[name] = read_constant(tensor, self.policy)
            except RefusedError as exc:
                self.find(exc.code, where, exc.reason)
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
                reason = f"no node computes '{printable(value.text('name'), 60)}'"
                self.find("undefined", f"{path}/output[{i}]", reason)
        if outer is not None:
            return None
        dims = self._ends(inputs, outputs)
        if dims is None or self.findings:
            return None
        names = tuple(o.text("name") for o in outputs)
        return GraphPlan(inputs[0].text("name"), dims, names, tuple(filter(None, nodes)), constants)

    def _node(self, node: Message, path: str, known: _Names) -> Node | None:
        op_type, domain = node.text("op_type"), node.text("domain")
        path += f":{printable(op_type, 40)}"
        if name := node.text("name"):
            path += f"({printable(name, 60)})"
        self.ops[printable(op_type, 60)] += 1
        rule = self.policy.ops.get(op_type) if domain in _DEFAULT_DOMAIN else None
        if domain not in _DEFAULT_DOMAIN:
            reason = f"the operator domain '{printable(domain)}' is not the default domain"
            self.find("domain", path, reason, op_type)
        elif rule is None:
            reason = f"the op '{printable(op_type, 60)}' is not on the allowlist"
            self.find("op", path, reason, op_type)
        if "overload" in node:
            self.find("function", path, "the node calls an overload of a function", op_type)
        if "device_configurations" in node:
            self.find("device-configuration", path, "the node configures devices", op_type)
        self._texts(node, path, "name", "op_type", "domain", "overload")
        self._node_metadata = self._node_metadata or "metadata_props" in node
        inputs, outputs = tuple(node.repeated("input")), tuple(node.repeated("output"))
        for name in inputs:
            if name and name not in known:
                reason = f"no earlier node computes input '{printable(name, 60)}'"
                self.find("undefined", path, reason, op_type)
        attributes: dict[str, Attribute] = {}
        for attribute in node.messages("attribute"):
            self._texts(attribute, path)
            name = attribute.text("name")
            self._subgraphs(attribute, f"{path}/{printable(name, 40)}", known)
            if name in attributes:
                reason = f"the node has the attribute {printable(name)} twice"
                self.find("ambiguous", path, reason, op_type)
            try:
                attributes[name] = read_attribute(attribute, rule, self.policy)
            except RefusedError as exc:
                if rule is not None:
                    self.find(exc.code, path, exc.reason, op_type)
        if not any(outputs):
            self.find("outputs", path, "the node has no output", op_type)
        for name in filter(None, outputs):
            self._define(name, path, known)
        limits, opset = self.policy.limits, self.opset or 0
        return Node(op_type, attributes, inputs, outputs, path, opset, limits) if rule else None

    def _subgraphs(self, attribute: Message, path: str, known: _Names) -> None:
        graph = attribute.message("g")
        graphs = [*([graph] if graph is not None else []), *attribute.messages("graphs")]
        for i, inner in enumerate(graphs):
            where = path if graph is not None and i == 0 else f"{path}[{i}]"
            self._graph(inner, where, known)

    def _ends(self, inputs: list[Message], outputs: list[Message]) -> tuple[int | None, ...] | None:
        """Check that input and outputs are float32 of rank 4; return the declared input shape."""
        if len(inputs) != 1:
            self.find(
                "input",
                "graph/input",
                f"the graph has {len(inputs)} inputs instead of one",
            )
        if not outputs:
            self.find("output", "graph/output", "the graph has no output")
        sides: tuple[int | None, ...] | None = None
        for kind, values in (("input", inputs), ("output", outputs)):
            for i, value in enumerate(values):
                path, (element, shape) = f"graph/{kind}[{i}]", _type(value)
                if element != 1 or (len(shape) != 4 if shape is not None else kind == "input"):
                    self.find(kind, path, "the tensor must be float32 of rank 4")
                elif kind == "input" and shape is not None:
                    sides = shape
                    if shape[0] not in (None, 1) or shape[1] not in (None, 3):
                        reason = "the input shape must begin with (1, 3) or (N, 3)"
                        self.find("input", path, reason)
                    most = self.policy.limits.max_side
                    if any(s is not None and not 1 <= s <= most for s in shape[2:]):
                        self.find("input", path, f"the input size must be from 1 to {most}")
        return sides

    def _value(self, value: Message, path: str) -> None:
        self._texts(value, path, "name")
        kind = value.message("type")
        if kind is None:
            return
        if not kind.keys() <= {"tensor_type", "denotation"}:
            self.find("type", path, "the value is not a tensor")
            return
        element, _ = _type(value)
        if element and element not in self.policy.elements:
            reason = f"the element type with number {element} is not on the allowlist"
            self.find("element-type", path, reason)
        tensor = kind.message("tensor_type")
        shape = tensor.message("shape") if tensor is not None else None
        dims = list(shape.messages("dim")) if shape is not None else []
        if len(dims) > self.policy.limits.max_rank:
            reason = f"the tensor has more than {self.policy.limits.max_rank} dimensions"
            self.find("rank", path, reason)
        for dim in dims:
            self._texts(dim, path, "dim_param", "denotation")
            if "dim_value" in dim and "dim_param" in dim:
                self.find("ambiguous", path, "a dimension has both a number and a name")
            if dim.number("dim_value") < 0:
                self.find("dimension", path, "a dimension is negative")

    def _define(self, name: str, path: str, known: _Names) -> None:
        if not name:
            self.find("undefined", path, "a tensor has no name")
        elif name in known:
            self.find("duplicate-name", path, f"'{printable(name, 60)}' is defined twice")
        elif len(name.encode()) > self.policy.limits.max_name_bytes:
            self.find("name", path, f"a tensor name of {len(name)} characters is too long")
        known[name] = None

    def _texts(self, message: Message, path: str, *names: str) -> None:
        """Check the length of names, and the total length of documentation and metadata."""
        for field in names:
            size = len(message.text(field).encode())
            if size > self.policy.limits.max_name_bytes:
                self.find("name", path, f"the field {field} has {size} bytes, which is too long")
        before, limit = self._text_bytes, self.policy.limits.max_text_bytes
        self._text_bytes += len(message.text("doc_string").encode())
        for entry in message.messages("metadata_props"):
            self._text_bytes += len(entry.text("key").encode()) + len(entry.text("value").encode())
        if before <= limit < self._text_bytes:
            reason = f"all documentation and metadata together have more than {limit} bytes"
            self.find("metadata", path, reason)


def _type(value: Message) -> tuple[int, tuple[int | None, ...] | None]:
    """Return element type and shape of a `ValueInfoProto`; 0 and None if they are not declared."""
    kind = value.message("type")
    tensor = kind.message("tensor_type") if kind is not None else None
    if tensor is None:
        return 0, None
    shape = tensor.message("shape")
    if shape is None:
        return tensor.number("elem_type"), None
    sides = (d.number("dim_value") if "dim_value" in d else None for d in shape.messages("dim"))
    return tensor.number("elem_type"), tuple(sides)
