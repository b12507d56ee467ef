"""The Python of a tree, parsed and never imported: which class is the net, and what its forward takes."""

from __future__ import annotations

import ast
import re
import sys
import warnings
from dataclasses import dataclass, field

from eyeline.models.audit.tree import Tree

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
class Net:
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
            Definition(path, node, _names(node)) for node in module.body
            if isinstance(node, ast.ClassDef | ast.FunctionDef)
        ]  # fmt: skip
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


def find_nets(source: Source, readme: str = "") -> list[Net]:
    """The classes that look like whole nets, the likeliest first.

    A net is a module class that no other module class is made of, and that is no loss. One that
    bears the name of its file, or that the README names, is likelier.

    Args:
        source: see `parse_source`.
        readme: text of the README.
    """
    modules = module_classes(source)
    used = {
        name for d in modules for name in d.names
        if any(o.node.name == name for o in modules) and name != d.node.name
    }  # fmt: skip
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


def read_net(d: Definition, modules: list[Definition], source: Source) -> Net:
    """What a module class takes and gives, inherited forwards included."""
    assert isinstance(d.node, ast.ClassDef)  # noqa: S101  (for the type checker)
    methods = {m.name: m for m in d.node.body if isinstance(m, ast.FunctionDef)}
    net = Net(d.node.name, d.path, d.node.lineno)
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
        n.slice.value for n in ast.walk(method)
        if isinstance(n, ast.Subscript) and isinstance(n.value, ast.Name) and n.value.id == argument
        and isinstance(n.slice, ast.Constant) and isinstance(n.slice.value, str)
        and isinstance(n.ctx, ast.Load)
    ]  # fmt: skip


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
            found += [(f"{node.module}.{a.name}" if node.module else a.name, node.level)
                      for a in node.names if node.level]  # fmt: skip
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
