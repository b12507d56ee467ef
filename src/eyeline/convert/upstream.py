"""A net of an upstream, made from verified bytes in a child process (extra `train`: the child needs torch).

The checkout is read from git's objects, as the audit reads it; it is never put on `sys.path`, so
neither a planted `.pyc` nor a changed work tree can stand in for the source. The module may import
torch and harmless parts of the standard library only, checked before it runs.
"""

from __future__ import annotations

import ast
import contextlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from eyeline.audit.architecture import parse_source
from eyeline.audit.licence_text import match_text
from eyeline.audit.tree import Tree, open_tree
from eyeline.convert.mirror_recipe import MirrorRecipe
from eyeline.digests import sha256_hex
from eyeline.errors import LicenceError, MissingExtraError, ModelError, VerificationError
from eyeline.files import read_regular_file

IMPORTS = frozenset({
    "__future__", "abc", "collections", "copy", "dataclasses", "enum", "functools", "itertools", "math",
    "numbers", "torch", "typing", "warnings",
})  # fmt: skip
"""Packages that an upstream's module may import."""

MEMORY = 16 << 30
"""Address space of the child, bytes: torch maps some 6 GiB before it computes anything."""
CPU_SECONDS = 1800
FILE_BYTES = 1 << 30
ANSWER_SECONDS = 600.0


@dataclass(frozen=True)
class UpstreamSource:
    """What was read of a checkout.

    Attributes:
        commit: git commit id.
        tree: git tree id.
        module: path of the file that defines the net.
        code: its bytes.
        license_text: the LICENSE, exactly Apache-2.0.
        license_path: where it stands.
        notices: its copyright lines, as they stand.
        notice: text of the NOTICE file, None when there is none.
    """

    commit: str
    tree: str
    module: str
    code: bytes
    license_text: str
    license_path: str
    notices: tuple[str, ...]
    notice: str | None


def read_upstream(checkout: Path, recipe: MirrorRecipe) -> UpstreamSource:
    """Read a checkout's licence and module, refusing what the recipe does not name.

    Args:
        checkout: a git checkout or git directory.
        recipe: which net.

    Raises:
        LicenceError: no LICENSE, or one that is not exactly the Apache License 2.0.
        VerificationError: a module of other bytes than the recipe's.
        ModelError: no git, no such class, or imports that are not admitted.
    """
    tree = open_tree(checkout)
    if tree.commit is None:
        raise ModelError(f"{checkout}: no git directory", "clone it: the commit is read, not typed")
    path, text = _license(tree)
    match = match_text(text)
    if match.id != "Apache-2.0":
        what = match.id or (f"like {match.nearest}, with changes" if match.nearest else "unknown")
        raise LicenceError(
            f"{tree.name}/{path}: not exactly the Apache License 2.0 ({what})",
            "eyeline model audit says more",
        )
    module = recipe.module or _find_module(tree, recipe.net)
    code = tree.read(module)
    if code is None:
        raise ModelError(f"{tree.name}: no file {module}", "check the recipe's module")
    if recipe.module_sha256 and sha256_hex(code) != recipe.module_sha256:
        raise VerificationError(
            f"{tree.name}/{module}: sha256 is {sha256_hex(code)[:16]}..., the recipe says "
            f"{recipe.module_sha256[:16]}...",
            f"check out commit {recipe.commit[:12]}" if recipe.commit else "review the new code",
        )
    _check_imports(module, code)
    notices = [p for p in tree.entries if "/" not in p and p.upper().split(".")[0] == "NOTICE"]
    notice = tree.text(notices[0]) if notices else None
    return UpstreamSource(
        tree.commit, tree.tree_id, module, code, text, path, match.notices, notice
    )


def _license(tree: Tree) -> tuple[str, str]:
    for name in ("LICENSE", "LICENSE.txt", "LICENSE.md", "COPYING"):
        text = tree.text(name)
        if text is not None:
            return name, text
    raise LicenceError(f"{tree.name}: no LICENSE file", "without one all rights are reserved")


def _find_module(tree: Tree, net: str) -> str:
    places = [d.path for d in parse_source(tree).definitions if d.node.name == net]
    if len(places) != 1:
        found = ", ".join(places) or "nowhere"
        raise ModelError(
            f"{tree.name}: class {net} is defined {found}", "name the module in the recipe"
        )
    return places[0]


def _check_imports(module: str, code: bytes) -> None:
    try:
        parsed = ast.parse(code)
    except (SyntaxError, ValueError) as exc:
        raise ModelError(f"{module}: does not parse: {exc}", "is it the right file?") from exc
    for node in ast.walk(parsed):
        if isinstance(node, ast.Import):
            names = [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = ["." if node.level else str(node.module)]
        else:
            continue
        bad = [n for n in names if n.split(".")[0] not in IMPORTS]
        if bad:
            raise ModelError(
                f"{module}:{node.lineno}: imports {bad[0]}, which an exported module may not",
                f"admitted: {', '.join(sorted(IMPORTS))}",
            )


class UpstreamNet:
    """The net, alive in its child; a context manager.

    Args:
        source: see `read_upstream`.
        recipe: class, arguments and head.
        checkpoint: weights file; tensors only.

    Raises:
        ModelError: the module or the checkpoint can't be used.
        MissingExtraError: torch is not installed.
    """

    def __init__(self, source: UpstreamSource, recipe: MirrorRecipe, checkpoint: bytes) -> None:
        self._stack = contextlib.ExitStack()
        self.folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory())).resolve()
        job = {
            "module": source.module, "net": recipe.net, "arguments": list(recipe.arguments),
            "head": recipe.head, "threads": 1,
        }  # fmt: skip
        (self.folder / "job.json").write_text(json.dumps(job))
        (self.folder / "module.py").write_bytes(source.code)
        (self.folder / "weights").write_bytes(checkpoint)
        self._name = f"{source.module}: {recipe.net}"
        child = Path(__file__).with_name("upstream_child.py")
        self._process = subprocess.Popen(  # noqa: S603  (our own child)
            [sys.executable, "-I", "-B", str(child), str(self.folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={},
            cwd=self.folder,
            preexec_fn=_limit,  # noqa: PLW1509  (no threads of ours hold locks at this point)
            start_new_session=True,
            text=True,
        )
        try:
            hello = self._answer()
        except BaseException:
            self.close()
            raise
        self.parameters = int(hello["parameters"])
        self.versions: dict[str, str] = dict(hello["versions"])

    def export(self, opset: int) -> bytes:
        """The traced net as ONNX."""
        self._ask({"do": "export", "opset": opset})
        return (self.folder / "net.onnx").read_bytes()

    def run(self, x: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Run the net in torch.

        Args:
            x: float32 or float64 (N, 3, H, W), normalised.

        Returns:
            (N, 1, H, W) of the same type.
        """
        np.save(self.folder / "x.npy", x)
        self._ask({"do": "run"})
        y: npt.NDArray[Any] = np.load(self.folder / "y.npy", allow_pickle=False)
        return y

    def _ask(self, command: dict[str, object]) -> None:
        assert self._process.stdin is not None  # noqa: S101  (for the type checker)
        try:
            self._process.stdin.write(json.dumps(command) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError as exc:
            raise ModelError(f"{self._name}: the child has gone", "is it over its limits?") from exc
        self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None  # noqa: S101  (for the type checker)
        timer = threading.Timer(ANSWER_SECONDS, self._process.kill)
        timer.start()
        try:
            line = self._process.stdout.readline()
        finally:
            timer.cancel()
        try:
            answer = json.loads(line)
            ok = bool(answer["ok"])
        except (ValueError, KeyError, TypeError) as exc:
            code = self._process.wait()
            raise ModelError(
                f"{self._name}: its child ended without an answer (status {code})",
                "it went over its limits of memory or time, or crashed",
            ) from exc
        if not ok:
            error = str(answer.get("error"))
            if "No module named 'torch'" in error:
                raise MissingExtraError("torch", "train")
            raise ModelError(f"{self._name}: {error}", "is it the checkpoint of this net?")
        return dict(answer)

    def close(self) -> None:
        """End the child and remove its folder."""
        self._process.kill()
        self._process.communicate()
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _limit() -> None:
    for what, limit in (
        (resource.RLIMIT_AS, MEMORY),
        (resource.RLIMIT_CPU, CPU_SECONDS),
        (resource.RLIMIT_FSIZE, FILE_BYTES),
        (resource.RLIMIT_NOFILE, 256),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(what)
        resource.setrlimit(what, (limit if hard < 0 else min(limit, hard),) * 2)
    os.umask(0o077)


@contextlib.contextmanager
def open_upstream(
    checkout: Path, recipe: MirrorRecipe, checkpoint: Path
) -> Iterator[tuple[UpstreamSource, UpstreamNet, str]]:
    """The net of a checkout with a checkpoint's weights.

    Yields:
        What was read, the net, and the checkpoint's sha256.

    Raises:
        LicenceError, VerificationError, ModelError, MissingExtraError: see `read_upstream` and
            `UpstreamNet`.
    """
    source = read_upstream(checkout, recipe)
    data = read_regular_file(checkpoint)
    with UpstreamNet(source, recipe, data) as net:
        yield source, net, sha256_hex(data)
