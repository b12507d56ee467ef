"""The structure of the package: layers, owners of facts, names, and where tests are."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "eyeline"

# A package imports only packages to the left of it. docs/architecture.md gives the reasons.
LAYERS = [
    "_version",
    "errors",
    "digests",
    "arrays",
    "parallel",
    "files",
    "locks",
    "tables",
    "validation",
    "runtime",
    "scan",
    "audit",
    "media",
    "logs",
    "registry",
    "inference",
    "datasets",
    "saliency",
    "segments",
    "quality",
    "roi",
    "report",
    "evaluation",
    "training",
    "convert",
    "admission",
    "batch",
    "cli",
]

# A pattern that only the named files may contain: the one owner of the fact.
OWNERS = {
    "sha256 as text": (r"sha256\([^)]*\)\.hexdigest|hashlib\.file_digest", {"digests.py"}),
    "number of cores": (r"os\.cpu_count|len\(os\.sched_getaffinity", {"parallel.py"}),
    # roi compare needs no order: it stops at the first failure of any encode.
    "thread and process pools": (
        r"(Thread|Process)PoolExecutor\(",
        {"parallel.py", "roi/compare/_compare.py"},
    ),
    "lock of a file": (r"fcntl\.(flock|lockf)", {"locks.py"}),
    "ONNX Runtime sessions": (r"\.InferenceSession\(", {"runtime.py"}),
    "temporary names": (r"tempfile\.mkstemp", {"files.py"}),
    "Markdown tables": (r'"\|?-{3}', {"tables.py"}),
    "records of other people's files": (r'extra="forbid"', {"validation.py"}),
}

MOST_PUBLIC_NAMES = 120
MOST_MODULES = 150
MOST_LINES = 37_700


@cache
def modules() -> dict[str, Path]:
    """Every module by its dotted name below eyeline; a package by its own name."""
    found = {}
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        found[".".join(p for p in parts if p != "__init__")] = path
    return found


@cache
def imports(module: str) -> frozenset[str]:
    """The modules of eyeline that a module imports anywhere, in functions and for types too."""
    found = set()
    for node in ast.walk(ast.parse(modules()[module].read_text())):
        if isinstance(node, ast.Import):
            found |= {a.name.removeprefix("eyeline.") for a in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            base = (node.module or "").removeprefix("eyeline").removeprefix(".")
            for a in node.names:
                full = f"{base}.{a.name}".strip(".")
                found.add(full if full in modules() else base)
    return frozenset(m for m in found if m in modules() and m not in {"", module})


def package(module: str) -> str:
    return module.partition(".")[0]


def test_packages_import_only_lower_packages() -> None:
    place = {name: i for i, name in enumerate(LAYERS)}
    assert {package(m) for m in modules()} - {"", "__main__"} == set(LAYERS)
    upward = [
        f"{module} imports {other}"
        for module in modules()
        if package(module) in place
        for other in imports(module)
        if package(other) != package(module) and place[package(other)] > place[package(module)]
    ]
    assert upward == []


def test_no_module_imports_itself_through_others() -> None:
    done: set[str] = set()
    way: list[str] = []

    def visit(module: str) -> None:
        if module in way:
            raise AssertionError(" -> ".join([*way[way.index(module) :], module]))
        if module in done:
            return
        way.append(module)
        for other in imports(module):
            visit(other)
        way.pop()
        done.add(module)

    for module in modules():
        visit(module)


def test_private_modules_stay_in_their_package() -> None:
    strangers = [
        f"{module} imports {other}"
        for module in modules()
        for other in imports(module)
        if "._" in other and package(module) != package(other)
    ]
    assert strangers == []


def test_front_doors_are_small() -> None:
    names = []
    for module, path in modules().items():
        for node in ast.parse(path.read_text()).body:
            if (
                path.name == "__init__.py"
                and isinstance(node, ast.Assign)
                and ast.unparse(node.targets[0]) == "__all__"
            ):
                names += [f"{module}.{name}" for name in ast.literal_eval(node.value)]
    assert len(names) <= MOST_PUBLIC_NAMES, names


def test_a_class_name_means_one_thing() -> None:
    homes = defaultdict(list)
    for module, path in modules().items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                homes[node.name].append(module)
    assert {name: where for name, where in homes.items() if len(where) > 1} == {}


@pytest.mark.parametrize("fact", OWNERS)
def test_a_fact_has_one_owner(fact: str) -> None:
    pattern, owners = OWNERS[fact]
    users = {
        str(path.relative_to(SOURCE))
        for path in modules().values()
        if re.search(pattern, path.read_text())
    }
    assert users <= owners


def test_tests_mirror_the_source() -> None:
    missing = []
    for module, path in modules().items():
        tree = ast.parse(path.read_text())
        behaves = any(isinstance(n, ast.FunctionDef) for n in ast.walk(tree))
        if not behaves or path.name in {"__init__.py", "__main__.py"}:
            continue
        folder = ROOT / "tests" / Path(*module.split(".")[:-1])
        if not (folder / f"test_{path.stem.lstrip('_')}.py").exists():
            missing.append(module)
    assert missing == []


def test_the_package_stays_small() -> None:
    lines = sum(len(p.read_text().splitlines()) for p in modules().values())
    assert (len(modules()) <= MOST_MODULES, lines <= MOST_LINES) == (True, True), (
        len(modules()),
        lines,
    )


def test_contributing_names_files_that_exist() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    rows = re.findall(r"^\| (.+?) \| (.+?) \|$", text, re.MULTILINE)
    assert len(rows) > 15
    for what, where in rows[2:]:
        paths = [p for p in re.findall(r"`(src/[^`]+|tests/[^`]+)`", where) if "NAME" not in p]
        assert paths, f"{what}: no path"
        for path in paths:
            assert (ROOT / path).exists(), f"{what}: {path}"
