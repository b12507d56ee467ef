"""The architecture axis: what the net takes and gives, and what its files do beside computing.

It judges what `source` read. What can't be told statically is said so, not guessed.

The Python of a tree, parsed and never imported: which class is the net, and what its forward takes.

The ops axis: what the net lowers to in ONNX, held against the scanner's allowlist.

With an ONNX file at hand the scanner answers. Without one, the torch calls in the net's source tell what to
expect: a forecast, marked as one.
"""

from __future__ import annotations

import ast
import re
import sys
import warnings
from dataclasses import dataclass, field
from pathlib import Path

from eyeline.audit.findings import AuditFinding, AxisReport, axis_report
from eyeline.audit.policy import AuditPolicy
from eyeline.audit.tree import Tree

_TRUTH = re.compile(
    r"^(gt|gts|targets?|labels?|masks?_?gt|preds?|truth|img1|img2|y_true|y_pred)$", re.I
)
_LOSS = re.compile(r"loss|criterion|ssim|\biou\b|metric|dataparallel", re.I)


@dataclass
class Definition:
    """A class or function at the top of a module.

    Attributes:
        path: file.
        node: its syntax tree.
        names: identifiers that its body mentions.
    """

    path: str
    node: ast.ClassDef | ast.FunctionDef
    names: frozenset[str]


@dataclass
class NetClass:
    """A class that looks like a whole net.

    Attributes:
        name: class name.
        path: file.
        line: 1-based.
        signature: `forward(self, x)`.
        method: name of the method that is its forward.
        inputs: tensor arguments, without `self`.
        optional: those with a default.
        keys: keys it reads from a mapping given as its input.
        outputs: how many values it returns, None when that can't be told.
        sigmoid: whether the values it returns are seen to pass a sigmoid.
        parts: classes of the tree that it is made of.
    """

    name: str
    path: str
    line: int
    signature: str = ""
    method: str = ""
    inputs: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    outputs: int | None = None
    sigmoid: bool = False
    parts: tuple[str, ...] = ()
    imports: tuple[str, ...] = ()
    closure: tuple[str, ...] = ()
    score: int = 0


@dataclass
class Source:
    """The parsed Python of a tree.

    Attributes:
        modules: path to syntax tree.
        definitions: top-level classes and functions, a name may stand in several files.
        broken: files that don't parse, with the reason.
    """

    modules: dict[str, ast.Module] = field(default_factory=dict)
    definitions: list[Definition] = field(default_factory=list)
    broken: dict[str, str] = field(default_factory=dict)


def parse_source(tree: Tree) -> Source:
    """Parse every Python file of a tree."""
    source = Source()
    for path in tree.entries:
        text = tree.text(path) if path.endswith(".py") else None
        if text is None:
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter(
                    "ignore"
                )  # an upstream's invalid escapes are not our users' news
                module = ast.parse(text)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as exc:
            source.broken[path] = " ".join(str(exc).split())[:120]
            continue
        source.modules[path] = module
        source.definitions += [
            Definition(path, node, _names(node))
            for node in module.body
            if isinstance(node, ast.ClassDef | ast.FunctionDef)
        ]
    return source


def _names(node: ast.AST) -> frozenset[str]:
    found = set()
    for inner in ast.walk(node):
        if isinstance(inner, ast.Name):
            found.add(inner.id)
        elif isinstance(inner, ast.Attribute):
            found.add(inner.attr)
        elif (
            isinstance(inner, ast.Constant)
            and isinstance(inner.value, str)
            and inner.value.isidentifier()
        ):
            found.add(inner.value)  # `eval("ASPP")(...)` names a class by a string
    return frozenset(found)


def find_nets(source: Source, readme: str = "") -> list[NetClass]:
    """The classes that look like whole nets, the likeliest first.

    A net is a module class that no other module class is made of, and that is no loss. One that
    bears the name of its file, or that the README names, is likelier.

    Args:
        source: see `parse_source`.
        readme: text of the README.
    """
    modules = module_classes(source)
    used = {
        name
        for d in modules
        for name in d.names
        if any(o.node.name == name for o in modules) and name != d.node.name
    }
    spoken = re.sub(r"[^a-z0-9]", "", readme.lower())
    nets = []
    for d in modules:
        name, bare = d.node.name, re.sub(r"[^a-z0-9]", "", d.node.name.lower())
        stem = re.sub(r"[^a-z0-9]", "", d.path.rsplit("/", 1)[-1].removesuffix(".py").lower())
        net = read_net(d, modules, source)
        truth = any(_TRUTH.match(i) for i in net.inputs)
        if _LOSS.search(name) or _LOSS.search(d.path) or truth or not net.method:
            continue
        named = bare == stem or (len(bare) > 3 and (stem.startswith(bare) or bare.startswith(stem)))
        if name in used and not named:
            continue
        inner = re.search(
            r"backbone|resnet|vgg|swin|pvt|mobilenet|efficientnet|parallel",
            f"{d.path} {name}",
            re.I,
        )
        net.score = (
            40 * named
            + 40 * (len(bare) > 3 and bare in spoken)
            + min(len(net.parts), 20)
            - 100 * bool(inner)
        )
        nets.append(net)
    return sorted(nets, key=lambda n: (-n.score, n.path, n.line))


def module_classes(source: Source) -> list[Definition]:
    """Classes that inherit from a torch module, directly or through classes of the tree."""
    classes = [d for d in source.definitions if isinstance(d.node, ast.ClassDef)]
    known = {"Module"}
    while True:
        found = [d for d in classes if any(last_name(b) in known for b in d.node.bases)]  # type: ignore[union-attr]
        more = {d.node.name for d in found} - known
        if not more:
            return found
        known |= more


def last_name(node: ast.expr) -> str:
    """`c` of `a.b.c` or of `c`; empty for anything else."""
    return (
        node.attr
        if isinstance(node, ast.Attribute)
        else node.id
        if isinstance(node, ast.Name)
        else ""
    )


def read_net(d: Definition, modules: list[Definition], source: Source) -> NetClass:
    """What a module class takes and gives, inherited forwards included."""
    assert isinstance(d.node, ast.ClassDef)  # noqa: S101  (for the type checker)
    methods = {m.name: m for m in d.node.body if isinstance(m, ast.FunctionDef)}
    net = NetClass(d.node.name, d.path, d.node.lineno)
    method = methods.get("forward") or methods.get(_assigned_forward(d.node))
    if method is None:
        bases = {last_name(b) for b in d.node.bases}
        parent = next(
            (m for m in modules if m.node.name in bases and m.node.name != net.name), None
        )
        if parent is not None:
            inherited = read_net(parent, modules, source)
            net.signature, net.method, net.inputs = (
                inherited.signature,
                inherited.method,
                inherited.inputs,
            )
            net.outputs, net.sigmoid, net.parts = (
                inherited.outputs,
                inherited.sigmoid,
                inherited.parts,
            )
            net.closure, net.imports = _closure(d.path, source)
        return net
    arguments = [a.arg for a in (*method.args.posonlyargs, *method.args.args)][1:]
    net.method = method.name
    net.signature = f"{method.name}({ast.unparse(method.args)})"
    net.inputs = (*arguments, *(a.arg for a in method.args.kwonlyargs))
    count = len(method.args.defaults)
    net.optional = (
        (*arguments[len(arguments) - count :], *(a.arg for a in method.args.kwonlyargs))
        if count
        else ()
    )
    net.keys = tuple(dict.fromkeys(_keys(method, arguments[0]))) if arguments else ()
    net.outputs, net.sigmoid = _outputs(method)
    net.parts = tuple(sorted(_parts(d, source, {m.node.name for m in modules})))
    net.closure, net.imports = _closure(d.path, source)
    return net


def _assigned_forward(node: ast.ClassDef) -> str:
    """`self.forward = self.forward_inference` names the method; the inference one where several."""
    names = []
    for inner in ast.walk(node):
        if isinstance(inner, ast.Assign) and isinstance(inner.value, ast.Attribute):
            targets = [
                t for t in inner.targets if isinstance(t, ast.Attribute) and t.attr == "forward"
            ]
            names += [inner.value.attr for _ in targets]
    return next(
        (n for n in names if "infer" in n or "test" in n or "eval" in n), names[0] if names else ""
    )


def _keys(method: ast.FunctionDef, argument: str) -> list[str]:
    return [
        n.slice.value
        for n in ast.walk(method)
        if isinstance(n, ast.Subscript)
        and isinstance(n.value, ast.Name)
        and n.value.id == argument
        and isinstance(n.slice, ast.Constant)
        and isinstance(n.slice.value, str)
        and isinstance(n.ctx, ast.Load)
    ]


def _outputs(method: ast.FunctionDef) -> tuple[int | None, bool]:
    """Values of the longest return, and whether a sigmoid is called where they are made."""
    returns = [
        n.value for n in ast.walk(method) if isinstance(n, ast.Return) and n.value is not None
    ]
    counts = [len(v.elts) if isinstance(v, ast.Tuple | ast.List) else 1 for v in returns]
    sigmoid = any(
        isinstance(n, ast.Call) and "sigmoid" in last_name(n.func).lower() for n in ast.walk(method)
    )
    return (max(counts) if counts else None), sigmoid


def _parts(d: Definition, source: Source, classes: set[str]) -> set[str]:
    """Module classes reached through the names that a definition mentions."""
    by_name: dict[str, list[Definition]] = {}
    for other in source.definitions:
        by_name.setdefault(other.node.name, []).append(other)
    reached, waiting = {d.node.name}, [d]
    while waiting:
        for name in waiting.pop().names & by_name.keys() - reached:
            reached.add(name)
            waiting += by_name[name]
    return (reached & classes) - {d.node.name}


def _closure(path: str, source: Source) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Files of the tree that a file imports, itself included, and foreign packages they import."""
    reached, waiting, foreign = {path}, [path], set()
    while waiting:
        here = waiting.pop()
        for name, level in _imports(source.modules.get(here, ast.Module([], []))):
            places = _places(here, name, level)
            inside = [p for p in places if p in source.modules]
            waiting += [p for p in inside if p not in reached]
            reached.update(inside)
            top = name.split(".")[0]
            if not inside and not level and top and top not in sys.stdlib_module_names:
                foreign.add(top)
    return tuple(sorted(reached)), tuple(sorted(foreign))


def _imports(module: ast.Module) -> list[tuple[str, int]]:
    found = []
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            found += [(a.name, 0) for a in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append((node.module or "", node.level))
            found += [
                (f"{node.module}.{a.name}" if node.module else a.name, node.level)
                for a in node.names
                if node.level
            ]
    return found


def _places(here: str, name: str, level: int) -> list[str]:
    """Where a module may stand: from the root, beside the importer, or relative to it."""
    folders = here.split("/")[:-1]
    stem = name.replace(".", "/")
    if level:
        bases = ["/".join(folders[: len(folders) - level + 1])]
    else:
        bases = ["", "/".join(folders), *({folders[0]} if folders else set())]
    joined = ["/".join(p for p in (b, stem) if p) for b in bases]
    return [place for j in joined for place in (f"{j}.py", f"{j}/__init__.py")]


_DEPTH = re.compile(
    r"^(?:.*_)?(?:depths?|dep|dpt|disp(?:arity)?|hha|thermal|flow|nir|x_d|xd|d)(?:_.*)?$", re.I
)
_RISKY = {
    "eval": "evaluates text as code",
    "exec": "runs text as code",
    "__import__": "imports by a computed name",
    "system": "runs a shell command",
    "Popen": "starts a process",
    "check_output": "starts a process",
    "urlopen": "opens a network address",
    "urlretrieve": "downloads a file",
    "load_url": "downloads weights",
    "load_state_dict_from_url": "downloads weights",
}


def audit_architecture(
    tree: Tree, policy: AuditPolicy, net: str | None = None
) -> tuple[AxisReport, NetClass | None]:
    """Judge what the net takes and gives.

    Args:
        tree: the upstream.
        policy: which inputs are admitted.
        net: name of the class, when the likeliest is not the one meant.

    Returns:
        The report, and the net that was judged.
    """
    source = parse_source(tree)
    readmes = [p for p in tree.entries if "/" not in p and p.lower().startswith("readme")]
    nets = find_nets(source, tree.text(readmes[0]) or "" if readmes else "")
    if net is not None:
        nets = [n for n in nets if n.name == net] or [
            read_net(d, module_classes(source), source)
            for d in module_classes(source)
            if d.node.name == net
        ]
    findings = [
        AuditFinding("review", "SYNTAX", f"does not parse: {why}", p)
        for p, why in source.broken.items()
    ]
    if not nets:
        text = f"no module class {net}" if net else "no class that looks like a net"
        hint = "name the class with --net" if not net else "check the name"
        findings.append(AuditFinding("blocker", "NO-NET", text, unblock=hint))
        return axis_report("architecture", "no net found", findings, {"nets": []}), None
    chosen = nets[0]
    kind = _judge_inputs(chosen, policy, findings)
    _judge_outputs(chosen, findings)
    for path in chosen.closure:
        findings += _risks(path, source.modules[path])
    extra = sorted(set(chosen.imports) - {"torch"})
    if extra:
        findings.append(
            AuditFinding(
                "note",
                "IMPORTS",
                f"the net's files import {', '.join(extra)} beside torch",
                chosen.path,
            )
        )
    facts: dict[str, object] = {
        "net": _net_json(chosen),
        "others": [f"{n.path}:{n.line} {n.name}.{n.signature}" for n in nets[1:9]],
    }
    return axis_report(
        "architecture", f"{kind}: {chosen.name}.{chosen.signature}", findings, facts
    ), chosen


def _net_json(net: NetClass) -> dict[str, object]:
    return {
        "class": net.name,
        "file": net.path,
        "line": net.line,
        "forward": net.signature,
        "inputs": list(net.inputs),
        "outputs": net.outputs,
        "sigmoid": net.sigmoid,
        "parts": list(net.parts),
        "files": list(net.closure),
        "imports": list(net.imports),
    }


def _judge_inputs(net: NetClass, policy: AuditPolicy, findings: list[AuditFinding]) -> str:
    where = f"{net.path}:{net.line}"
    depth = [n for n in (*net.inputs[1:], *net.keys) if _DEPTH.match(n)]
    required = [n for n in net.inputs[1:] if n not in net.optional]
    severity = "review" if policy.inputs == "any" else "blocker"
    if depth:
        optional = " (optional: the net was trained with it)" if depth[0] in net.optional else ""
        findings.append(
            AuditFinding(
                "review" if severity == "review" else "blocker",
                "RGB-D",
                f"{net.name}.{net.signature} takes {depth[0]!r}{optional}: the contract has RGB only",
                where,
                "a net that takes RGB alone, or an RGB checkpoint of this one",
            )
        )
        return "RGB-D"
    if required:
        findings.append(
            AuditFinding(
                "review",
                "INPUTS",
                f"{net.name}.{net.signature} needs {', '.join(required)} "
                "too: a wrapper must fix them",
                where,
            )
        )
    if net.keys:
        findings.append(
            AuditFinding(
                "review",
                "INPUTS",
                f"{net.name}.{net.signature} takes a mapping with "
                f"{', '.join(net.keys)}: a wrapper must make it",
                where,
            )
        )
    return "RGB"


def _judge_outputs(net: NetClass, findings: list[AuditFinding]) -> None:
    where = f"{net.path}:{net.line}"
    if net.outputs is not None and net.outputs > 1:
        findings.append(
            AuditFinding(
                "note", "OUTPUTS", f"{net.outputs} outputs: an export keeps one of them", where
            )
        )
    if not net.sigmoid:
        findings.append(
            AuditFinding(
                "review",
                "LOGITS",
                "no sigmoid is seen where the outputs are made: the contract wants [0, 1]",
                where,
            )
        )


def _risks(path: str, module: ast.Module) -> list[AuditFinding]:
    found: dict[str, int] = {}
    for node in ast.walk(module):
        if isinstance(node, ast.Call) and last_name(node.func) in _RISKY:
            name = last_name(node.func)
            # `model.eval()` sets a mode; `eval(text)` runs it.
            if name == "eval" and (isinstance(node.func, ast.Attribute) or not node.args):
                continue
            found.setdefault(name, node.lineno)
    return [
        AuditFinding("review", "RISK", f"{name}() {_RISKY[name]}", f"{path}:{line}")
        for name, line in found.items()
    ]


# What torch's ONNX exporter makes of a call in evaluation mode at opset 17
# (torch.onnx documentation, "ONNX supported TorchScript operators").
LOWERS_TO: dict[str, tuple[str, ...]] = {
    "Conv2d": ("Conv",),
    "ConvTranspose2d": ("ConvTranspose",),
    "BatchNorm2d": (),  # folded into the convolution before it
    "SyncBatchNorm": (),
    "Dropout": (),
    "Dropout2d": (),
    "Identity": (),
    "Sequential": (),
    "ModuleList": (),
    "Parameter": (),
    "ReLU": ("Relu",),
    "ReLU6": ("Clip",),
    "LeakyReLU": ("LeakyRelu",),
    "PReLU": ("PRelu",),
    "GELU": ("Erf", "Mul", "Add", "Div"),
    "SiLU": ("Sigmoid", "Mul"),
    "Hardswish": ("HardSwish",),
    "Sigmoid": ("Sigmoid",),
    "Softmax": ("Softmax",),
    "Tanh": ("Tanh",),
    "MaxPool2d": ("MaxPool",),
    "AvgPool2d": ("AveragePool",),
    "AdaptiveAvgPool2d": ("GlobalAveragePool",),
    "AdaptiveMaxPool2d": ("GlobalMaxPool",),
    "Upsample": ("Resize",),
    "UpsamplingBilinear2d": ("Resize",),
    "PixelShuffle": ("DepthToSpace",),
    "Linear": ("Gemm",),
    "LayerNorm": ("LayerNormalization",),
    "GroupNorm": ("InstanceNormalization",),
    "InstanceNorm2d": ("InstanceNormalization",),
    "interpolate": ("Resize",),
    "upsample": ("Resize",),
    "relu": ("Relu",),
    "leaky_relu": ("LeakyRelu",),
    "sigmoid": ("Sigmoid",),
    "softmax": ("Softmax",),
    "tanh": ("Tanh",),
    "gelu": ("Erf",),
    "cat": ("Concat",),
    "stack": ("Concat", "Unsqueeze"),
    "matmul": ("MatMul",),
    "bmm": ("MatMul",),
    "einsum": ("Einsum",),
    "max_pool2d": ("MaxPool",),
    "avg_pool2d": ("AveragePool",),
    "adaptive_avg_pool2d": ("GlobalAveragePool",),
    "conv2d": ("Conv",),
    "deform_conv2d": ("DeformConv",),
    "grid_sample": ("GridSample",),
    "unfold": ("Im2Col",),
    "roll": ("Slice", "Concat"),
    "pad": ("Pad",),
    "scaled_dot_product_attention": ("MatMul", "Softmax"),
    "permute": ("Transpose",),
    "transpose": ("Transpose",),
    "unsqueeze": ("Unsqueeze",),
    "squeeze": ("Squeeze",),
    "flatten": ("Flatten",),
    "view": ("Reshape",),
    "reshape": ("Reshape",),
    "abs": ("Abs",),
    "exp": ("Exp",),
    "sqrt": ("Sqrt",),
    "pow": ("Pow",),
    "where": ("Where",),
    "clamp": ("Clip",),
    "topk": ("TopK",),
    "nonzero": ("NonZero",),
}


def forecast(tree: Tree, net: NetClass) -> dict[str, str]:
    """ONNX ops that the net's source leads to, each with a place that does: `path:line`."""
    found: dict[str, str] = {}
    for path, module in parse_source(tree).modules.items():
        if path not in net.closure:
            continue
        for node in ast.walk(module):
            # Also `net.add(nn.ReLU)` and `act_layer=nn.GELU`: a mention is enough for a forecast.
            name = ""
            if isinstance(node, ast.Attribute):
                name = node.attr
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                name = node.func.id
            for op in LOWERS_TO.get(name, ()):
                found.setdefault(op, f"{path}:{node.lineno}")  # type: ignore[attr-defined]
    return dict(sorted(found.items()))


def audit_ops(tree: Tree, net: NetClass | None, onnx: Path | None = None) -> AxisReport:
    """Judge the ops.

    Args:
        tree: the upstream.
        net: the class that was found.
        onnx: an ONNX file of the model, None when there is none yet.

    Raises:
        RegistryError: the ONNX file can't be read.
    """
    if onnx is not None:
        return _scanned(onnx)
    from eyeline.scan import load_policy

    allowed = load_policy().ops
    expected = forecast(tree, net) if net else {}
    findings = [
        AuditFinding(
            "review", "OP", f"the source leads to {op}, which the scanner does not admit", where
        )
        for op, where in expected.items()
        if op not in allowed
    ]
    findings.append(
        AuditFinding("note", "FORECAST", "read from the source: the scanner judges the export")
    )
    missing = [op for op in expected if op not in allowed]
    if not expected:
        summary = "not examined: no ONNX at hand"
    else:
        summary = f"forecast {len(expected)} ops" + (
            f", not admitted: {', '.join(missing)}" if missing else ""
        )
        summary += " (Resize)" if "Resize" in expected and not missing else ""
    return axis_report("ops", summary, findings, {"forecast": expected, "scanned": None})


def _scanned(onnx: Path) -> AxisReport:
    from eyeline.scan import scan_file

    report = scan_file(onnx)
    findings = [
        AuditFinding("blocker", f"SCAN-{f.code}", str(f), onnx.name, "an export without it")
        for f in report.findings
    ]
    summary = f"{len(report.ops)} ops, " + (
        "all admitted" if report.admitted else "refused by the scanner"
    )
    return axis_report("ops", summary, findings, {"forecast": {}, "scanned": report.to_json()})
