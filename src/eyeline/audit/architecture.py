"""The checks of architecture and ops: inputs and outputs of the network, and its ONNX ops.

The audit parses the Python files of a tree and never imports them. It finds the class of the network and
reads its forward method. If an ONNX file is given, the scanner checks its ops. Otherwise the ops are
predicted from the torch calls in the source, and the report calls this a forecast.
"""

from __future__ import annotations

import ast
import re
import sys
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from eyeline.audit.records import WORDS, AuditPolicy, AxisFindings, AxisReport
from eyeline.audit.tree import Tree
from eyeline.errors import first_line
from eyeline.scan import load_policy, scan_file

_TRUTH = re.compile(
    r"^(gt|gts|targets?|labels?|masks?_?gt|preds?|truth|img1|img2|y_true|y_pred)$", re.I
)
_LOSS = re.compile(r"loss|criterion|ssim|\biou\b|metric|dataparallel", re.I)
_INNER = re.compile(r"backbone|resnet|vgg|swin|pvt|mobilenet|efficientnet|parallel", re.I)
_DEPTH = re.compile(
    r"^(?:.*_)?(?:depths?|dep|dpt|disp(?:arity)?|hha|thermal|flow|nir|x_d|xd|d)(?:_.*)?$", re.I
)


@dataclass
class Definition:
    """A top-level class or function of a file, with the names in its body."""

    path: str
    node: ast.ClassDef | ast.FunctionDef
    names: frozenset[str]


@dataclass(frozen=True)
class NetClass:
    """A class that may be the whole network.

    Attributes:
        signature: signature of the forward method, such as `forward(self, x)`.
        method: name of the forward method.
        inputs: arguments of the forward method without `self`.
        optional: the arguments with a default value.
        keys: keys that the forward method reads from its first argument, if this argument is a mapping.
        outputs: number of returned values; None if unknown.
        sigmoid: whether the forward method calls a sigmoid.
        parts: classes of the tree that the network uses.
        imports: packages outside the tree that the files of `closure` import.
        closure: the file of the class, and all files of the tree that this file imports, directly or not.
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


@dataclass
class Source:
    """The parsed Python files of a tree; `broken` maps the path of each invalid file to its error."""

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
                warnings.simplefilter("ignore")  # the parser warns about invalid escapes
                module = ast.parse(text)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as exc:
            source.broken[path] = first_line(exc)[:120]
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
        elif isinstance(inner, ast.Constant) and isinstance(inner.value, str):
            found.add(inner.value)  # `eval("ASPP")(...)` names a class by a string
    return frozenset(found)


def find_nets(source: Source, readme: str = "") -> list[NetClass]:
    """Return the classes that may be the whole network, the likeliest first.

    A candidate is a torch module class that is not a loss and that no other module class uses. A class
    with the name of its file, or one that the README names, is likelier.
    """
    modules = _module_classes(source)
    names = {d.node.name for d in modules}
    used = {name for d in modules for name in d.names & names - {d.node.name}}
    readme_letters = _letters(readme)
    scored = []
    for d in modules:
        name, bare = d.node.name, _letters(d.node.name)
        stem = _letters(d.path.rsplit("/", 1)[-1].removesuffix(".py"))
        net = _read_net(d, modules, source)
        truth = any(_TRUTH.match(i) for i in net.inputs)
        if _LOSS.search(name) or _LOSS.search(d.path) or truth or not net.method:
            continue
        named = bare == stem or (len(bare) > 3 and (stem.startswith(bare) or bare.startswith(stem)))
        if name in used and not named:
            continue
        score = 40 * named + 40 * (len(bare) > 3 and bare in readme_letters)
        score += min(len(net.parts), 20) - 100 * bool(_INNER.search(f"{d.path} {name}"))
        scored.append((-score, net.path, net.line, net))
    return [net for *_, net in sorted(scored, key=lambda row: row[:3])]


def _letters(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())


def _module_classes(source: Source) -> list[Definition]:
    known = {"Module"}
    while True:
        found = [
            d
            for d in source.definitions
            if isinstance(d.node, ast.ClassDef) and not known.isdisjoint(_base_names(d.node))
        ]
        more = {d.node.name for d in found} - known
        if not more:
            return found
        known |= more


def _base_names(node: ast.AST) -> list[str]:
    return [_last_name(base) for base in getattr(node, "bases", ())]


def _last_name(node: ast.expr) -> str:
    """Return `c` of `a.b.c` or of `c`, and "" for any other expression."""
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def _read_net(d: Definition, modules: list[Definition], source: Source) -> NetClass:
    """Read inputs and outputs of a module class from its own or inherited forward method."""
    methods = {m.name: m for m in d.node.body if isinstance(m, ast.FunctionDef)}
    method = methods.get("forward") or methods.get(_assigned_forward(d.node))
    net = NetClass(d.node.name, d.path, d.node.lineno)
    if method is None:
        bases = _base_names(d.node)
        others = [
            m for m in modules if m.node.name != net.name
        ]  # hostile classes may inherit in a circle
        parents = [m for m in others if m.node.name in bases]
        if not parents:
            return net
        inherited = _read_net(parents[0], others, source)
        net = replace(inherited, name=net.name, path=net.path, line=net.line, optional=(), keys=())
    else:
        arguments = [a.arg for a in (*method.args.posonlyargs, *method.args.args)][1:]
        keywords = [a.arg for a in method.args.kwonlyargs]
        count = len(method.args.defaults)
        outputs, sigmoid = _outputs(method)
        net = replace(
            net,
            signature=f"{method.name}({ast.unparse(method.args)})",
            method=method.name,
            inputs=(*arguments, *keywords),
            optional=(*arguments[len(arguments) - count :], *keywords) if count else (),
            keys=tuple(dict.fromkeys(_keys(method, arguments[0]))) if arguments else (),
            outputs=outputs,
            sigmoid=sigmoid,
            parts=tuple(sorted(_parts(d, source, {m.node.name for m in modules}))),
        )
    closure, imports = _closure(d.path, source)
    return replace(net, closure=closure, imports=imports)


def _assigned_forward(node: ast.AST) -> str:
    """Return the name `other` of `self.forward = self.other`; a method for inference is preferred."""
    names = [
        inner.value.attr
        for inner in ast.walk(node)
        if isinstance(inner, ast.Assign) and isinstance(inner.value, ast.Attribute)
        for target in inner.targets
        if isinstance(target, ast.Attribute) and target.attr == "forward"
    ]
    inference = [n for n in names if "infer" in n or "test" in n or "eval" in n]
    return next(iter([*inference, *names]), "")


def _keys(method: ast.FunctionDef, argument: str) -> list[str]:
    return [
        n.slice.value
        for n in ast.walk(method)
        if isinstance(n, ast.Subscript)
        and isinstance(n.ctx, ast.Load)
        and _last_name(n.value) == argument
        and isinstance(n.value, ast.Name)
        and isinstance(n.slice, ast.Constant)
        and isinstance(n.slice.value, str)
    ]


def _outputs(method: ast.FunctionDef) -> tuple[int | None, bool]:
    """Return the largest number of returned values, and whether the method calls a sigmoid."""
    nodes = list(ast.walk(method))
    returns = [n.value for n in nodes if isinstance(n, ast.Return) and n.value is not None]
    counts = [len(v.elts) if isinstance(v, ast.Tuple | ast.List) else 1 for v in returns]
    calls = [_last_name(n.func).lower() for n in nodes if isinstance(n, ast.Call)]
    return max(counts, default=None), any("sigmoid" in name for name in calls)


def _parts(d: Definition, source: Source, classes: set[str]) -> set[str]:
    """Return the module classes that a definition uses, directly or through other definitions."""
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
    """Return all files of the tree that a file imports, and the imported packages outside it."""
    reached, waiting, foreign = {path}, [path], set()
    while waiting:
        here = waiting.pop()
        for name, level in _imports(source.modules[here]):
            inside = [p for p in _places(here, name, level) if p in source.modules]
            waiting += [p for p in inside if p not in reached]
            reached.update(inside)
            top = name.split(".")[0]
            if not inside and not level and top and top not in sys.stdlib_module_names:
                foreign.add(top)
    return tuple(sorted(reached)), tuple(sorted(foreign))


def _imports(module: ast.Module) -> Iterable[tuple[str, int]]:
    """Yield the name of each imported module, and the number of dots if the import is relative, else 0."""
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            yield from ((a.name, 0) for a in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or "", node.level
            prefix = f"{node.module}." if node.module else ""
            yield from ((prefix + a.name, node.level) for a in node.names if node.level)


def _places(here: str, name: str, level: int) -> list[str]:
    """Return possible paths of a module: at the root, beside the importing file, or relative to it."""
    folders = here.split("/")[:-1]
    if level:
        bases = ["/".join(folders[: len(folders) - level + 1])]
    else:
        bases = ["", "/".join(folders), *folders[:1]]
    joined = ["/".join(p for p in (b, name.replace(".", "/")) if p) for b in bases]
    return [place for j in joined for place in (f"{j}.py", f"{j}/__init__.py")]


def audit_architecture(
    tree: Tree, policy: AuditPolicy, net: str | None = None
) -> tuple[AxisReport, NetClass | None]:
    """Check the network class `net`, or the likeliest class if None; return report and class."""
    source = parse_source(tree)
    findings = AxisFindings()
    for path, why in source.broken.items():
        findings.review("SYNTAX", f"the file does not parse: {why}", path)
    readmes = [p for p in tree.entries if "/" not in p and p.lower().startswith("readme")]
    nets = find_nets(source, tree.text(readmes[0]) or "" if readmes else "")
    if net is not None:
        modules = _module_classes(source)
        nets = [n for n in nets if n.name == net] or [
            _read_net(d, modules, source) for d in modules if d.node.name == net
        ]
    if not nets:
        if net is None:
            findings.block("NO-NET", "no class looks like a net", unblock="name it with --net")
        else:
            findings.block("NO-NET", f"no module class {net}", unblock="check the name of --net")
        return findings.report("architecture", "no net found", {"nets": []}), None
    chosen = nets[0]
    kind = _judge_net(chosen, policy, findings)
    for path in chosen.closure:
        _judge_calls(path, source.modules[path], findings)
    extra = sorted(set(chosen.imports) - {"torch"})
    if extra:
        message = f"the net's files import {', '.join(extra)} beside torch"
        findings.note("IMPORTS", message, chosen.path)
    facts: dict[str, object] = {
        "net": {
            "class": chosen.name,
            "file": chosen.path,
            "line": chosen.line,
            "forward": chosen.signature,
            "inputs": list(chosen.inputs),
            "outputs": chosen.outputs,
            "sigmoid": chosen.sigmoid,
            "parts": list(chosen.parts),
            "files": list(chosen.closure),
            "imports": list(chosen.imports),
        },
        "others": [f"{n.path}:{n.line} {n.name}.{n.signature}" for n in nets[1:9]],
    }
    summary = f"{kind}: {chosen.name}.{chosen.signature}"
    return findings.report("architecture", summary, facts), chosen


def _judge_net(net: NetClass, policy: AuditPolicy, findings: AxisFindings) -> str:
    where, shown = f"{net.path}:{net.line}", f"{net.name}.{net.signature}"
    depth = [n for n in (*net.inputs[1:], *net.keys) if _DEPTH.match(n)]
    required = [n for n in net.inputs[1:] if n not in net.optional]
    if depth:
        optional = (
            " (optional, but the net was trained with it)" if depth[0] in net.optional else ""
        )
        findings.add(
            "review" if policy.inputs == "any" else "blocker",
            "RGB-D",
            f"{shown} takes {depth[0]!r}{optional}: the tensor contract has RGB only",
            where,
            "a net that takes RGB alone, or an RGB checkpoint of this one",
        )
    elif required:
        message = f"{shown} also needs {', '.join(required)}: a wrapper must fix them"
        findings.review("INPUTS", message, where)
    if net.keys and not depth:
        message = f"{shown} takes a mapping with {', '.join(net.keys)}: a wrapper must make it"
        findings.review("INPUTS", message, where)
    if net.outputs is not None and net.outputs > 1:
        findings.note("OUTPUTS", f"{net.outputs} outputs: an export keeps one of them", where)
    if not net.sigmoid:
        message = "no call of a sigmoid where the outputs are made: the contract wants [0, 1]"
        findings.review("LOGITS", message, where)
    return "RGB-D" if depth else "RGB"


def _judge_calls(path: str, module: ast.Module, findings: AxisFindings) -> None:
    """Report calls of risky functions, such as file access; each function once per file."""
    found: dict[str, int] = {}
    for node in (n for n in ast.walk(module) if isinstance(n, ast.Call)):
        name = _last_name(node.func)
        # `model.eval()` sets a mode; `eval(text)` runs the text.
        runs_text = isinstance(node.func, ast.Name) and node.args
        if name in WORDS["risky_calls"] and (name != "eval" or runs_text):
            found.setdefault(name, node.lineno)
    for name, line in found.items():
        findings.review("RISK", f"{name}() {WORDS['risky_calls'][name]}", f"{path}:{line}")


def forecast(tree: Tree, net: NetClass) -> dict[str, str]:
    """Predict the ONNX ops of a network from its source; return one place `path:line` per op."""
    found: dict[str, str] = {}
    modules = parse_source(tree).modules
    for path in net.closure:
        for node in ast.walk(modules[path]):
            # A mention without a call also counts, such as `act_layer=nn.GELU`.
            name = ""
            if isinstance(node, ast.Attribute):
                name = node.attr
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                name = node.func.id
            for op in WORDS["lowers_to"].get(name, ()):
                found.setdefault(op, f"{path}:{getattr(node, 'lineno', 0)}")
    return dict(sorted(found.items()))


def audit_ops(tree: Tree, net: NetClass | None, onnx: Path | None = None) -> AxisReport:
    """Check the ops of an ONNX file, or else the ops that the source predicts."""
    findings = AxisFindings()
    if onnx is not None:
        report = scan_file(onnx)
        for f in report.findings:
            findings.block(f"SCAN-{f.code}", str(f), onnx.name, "an export without it")
        verdict = "all admitted" if report.admitted else "refused by the scanner"
        facts: dict[str, object] = {"forecast": {}, "scanned": report.to_json()}
        return findings.report("ops", f"{len(report.ops)} ops, {verdict}", facts)
    allowed = load_policy().ops
    expected = forecast(tree, net) if net else {}
    missing = [op for op in expected if op not in allowed]
    for op in missing:
        message = f"the source leads to {op}, which the scanner does not admit"
        findings.review("OP", message, expected[op])
    findings.note("FORECAST", "a forecast from the source: the scanner will judge the export")
    summary = f"forecast {len(expected)} ops"
    if not expected:
        summary = "not examined: no ONNX at hand"
    elif missing:
        summary += f", not admitted: {', '.join(missing)}"
    elif "Resize" in expected:
        summary += " (Resize)"
    return findings.report("ops", summary, {"forecast": expected, "scanned": None})
