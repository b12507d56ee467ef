"""Read the network of another project from a git checkout, and run it in a child process.

"Upstream" is the other project; a mirror recipe names its repository, module and network class. The
source is read from the git objects of a commit and is never put on `sys.path`, so neither a planted
`.pyc` nor a changed work tree can replace it. The module may import only torch and harmless parts of the
standard library; its imports are checked before it runs. The child needs the extra `train`.
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
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, StringConstraints

from eyeline.audit.architecture import parse_source
from eyeline.audit.licence_text import match_text
from eyeline.audit.tree import Tree, open_tree
from eyeline.digests import sha256_hex
from eyeline.errors import (
    LicenceError,
    MissingExtraError,
    ModelError,
    UsageError,
    VerificationError,
)
from eyeline.registry.records import Digest, IoSpec, ModelId
from eyeline.validation import Strict, read_record

RECIPES = Path(__file__).parent / "mirrors"
DEFAULT_RECIPE = "u2netp_mirror_v1"

IMPORTS = frozenset({
    "__future__", "abc", "collections", "copy", "dataclasses", "enum", "functools", "itertools", "math",
    "numbers", "torch", "typing", "warnings",
})  # fmt: skip
"""Packages that an upstream module may import."""

MEMORY = 16 << 30
"""Address space limit of the child, bytes; torch maps about 6 GiB before it computes anything."""
CPU_SECONDS = 1800
FILE_BYTES = 1 << 30
ANSWER_SECONDS = 600.0

Commit = Annotated[str, StringConstraints(pattern=r"^(?:[0-9a-f]{40}|[0-9a-f]{64})?$")]
Identifier = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,99}$")]
Url = Annotated[str, StringConstraints(pattern=r"^https?://\S+$")]
SourcePath = Annotated[
    str, StringConstraints(pattern=r"^(?:[A-Za-z0-9_][\w.-]*/)*[A-Za-z0-9_][\w.-]*\.py$|^$")
]


class PinnedAsset(Strict):
    """A published ONNX file with a recorded digest.

    Attributes:
        name: file name.
        url: download address.
        sha256: hex digest of the file.
        size: size of the file, bytes.
        head: index of the output that is the saliency map.
        custody: who made, converted and published the file.
    """

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][\w.-]{0,127}$")]
    url: Url
    sha256: Digest
    size: int = Field(gt=0)
    head: int = Field(default=0, ge=0)
    custody: str = Field(min_length=1)


class MirrorRecipe(Strict):
    """The description of an upstream network and of the model that is made from it.

    Attributes:
        id: id of the resulting model.
        description: one plain sentence.
        license: SPDX id of the licence of code and weights; only Apache-2.0 is supported.
        parameters: number of learnable parameters of the published network; 0 if not known.
        upstream: URL of the repository.
        commit: commit id that was reviewed; empty allows any commit.
        module: path of the file that defines the network class; empty searches for it.
        module_sha256: hex digest of the file `module`.
        net: name of the network class.
        arguments: arguments of the constructor of `net`.
        head: index of the output that is the saliency map.
        attribution: authors to name.
        notice: text of the upstream NOTICE file, empty if there is none; used if no checkout is given.
        weights_evidence: why the weights may be used under the licence.
        limits: uses for which the model is not suitable.
        asset: the published ONNX file, None if there is none.
        io: the I/O spec of the model.
    """

    schema_version: Literal[1] = 1
    id: ModelId
    description: str = Field(min_length=1)
    license: Literal["Apache-2.0"]
    parameters: int = Field(default=0, ge=0)
    upstream: Url
    commit: Commit = ""
    module: SourcePath = ""
    module_sha256: Digest | Literal[""] = ""
    net: Identifier
    arguments: tuple[int | float | bool | str, ...] = ()
    head: int = Field(default=0, ge=0)
    attribution: str = Field(min_length=1)
    notice: str = ""
    weights_evidence: str = Field(min_length=1)
    limits: tuple[str, ...] = ()
    asset: PinnedAsset | None = None
    io: IoSpec = IoSpec()


def load_recipe(name: str | None = None) -> MirrorRecipe:
    """Read a built-in recipe by its id, or a recipe from a TOML file.

    Args:
        name: id or path; None means the built-in u2netp recipe.

    Raises:
        UsageError: the recipe does not exist or is invalid.
        RegistryError: the file cannot be read.
    """
    name = name or DEFAULT_RECIPE
    builtin = {p.stem: p for p in sorted(RECIPES.glob("*.toml"))}
    path = builtin.get(name) or Path(name)
    if path.suffix != ".toml":
        raise UsageError(
            f"{name!r} is not a known mirror recipe",
            f"choose one of: {', '.join(builtin)}; or give a .toml file",
        )
    return read_record(MirrorRecipe, path, "a mirror recipe", hint="start from docs/mirror.md")


@dataclass(frozen=True)
class UpstreamSource:
    """The files that were read from a checkout.

    Attributes:
        commit: git commit id.
        module: path of the file that defines the network.
        code: content of the file `module`.
        license_text: text of the licence file, which is exactly the Apache License 2.0.
        license_path: path of the licence file.
        notices: copyright lines of the licence file, unchanged.
        notice: text of the NOTICE file, None if it does not exist.
    """

    commit: str
    module: str
    code: bytes
    license_text: str
    license_path: str
    notices: tuple[str, ...]
    notice: str | None


def read_upstream(checkout: Path, recipe: MirrorRecipe) -> UpstreamSource:
    """Read the licence and the module from a checkout, and compare them with the recipe.

    Args:
        checkout: a git checkout or git directory.
        recipe: names the module and the network class.

    Raises:
        LicenceError: the licence file is missing or is not exactly the Apache License 2.0.
        VerificationError: the digest of the module differs from the recipe.
        ModelError: the git directory or the class is missing, or an import of the module is not allowed.
    """
    tree = open_tree(checkout)
    if tree.commit is None:
        raise ModelError(
            f"{checkout}: the folder is not a git checkout",
            "give a git clone, because the sidecars record its commit",
        )
    names = ("LICENSE", "LICENSE.txt", "LICENSE.md", "COPYING")
    path, text = next(((n, t) for n in names if (t := tree.text(n)) is not None), ("", ""))
    if not path:
        raise LicenceError(
            f"{tree.name}: the repository has no LICENSE file, so all rights are reserved",
            "choose a project under the Apache License 2.0",
        )
    match = match_text(text)
    if match.id != "Apache-2.0":
        what = match.id or (f"like {match.nearest}, with changes" if match.nearest else "unknown")
        raise LicenceError(
            f"{tree.name}/{path}: the text is not exactly the Apache License 2.0 ({what})",
            "run eyeline model audit to see the differences",
        )
    module = recipe.module or _find_module(tree, recipe.net)
    code = tree.read(module)
    if code is None:
        raise ModelError(
            f"{tree.name}: the commit has no file {module}",
            "correct the field module of the recipe",
        )
    if recipe.module_sha256 and sha256_hex(code) != recipe.module_sha256:
        raise VerificationError(
            f"{tree.name}/{module}: its sha256 is {sha256_hex(code)[:16]}..., but the recipe "
            f"requires {recipe.module_sha256[:16]}...",
            f"check out commit {recipe.commit[:12]}"
            if recipe.commit
            else "review the code, and write its sha256 into the recipe",
        )
    _check_imports(module, code)
    notices = [p for p in tree.entries if "/" not in p and p.upper().split(".")[0] == "NOTICE"]
    notice = tree.text(notices[0]) if notices else None
    return UpstreamSource(tree.commit, module, code, text, path, match.notices, notice)


def _find_module(tree: Tree, net: str) -> str:
    places = [d.path for d in parse_source(tree).definitions if d.node.name == net]
    if len(places) != 1:
        found = f"in several files ({', '.join(places)})" if places else "nowhere"
        raise ModelError(
            f"{tree.name}: class {net} is defined {found}",
            "correct the field net of the recipe, or set module to the file that defines the class",
        )
    return places[0]


def _check_imports(module: str, code: bytes) -> None:
    try:
        parsed = ast.parse(code)
    except (SyntaxError, ValueError) as exc:
        raise ModelError(
            f"{module}: the file is not valid Python: {exc}",
            "check the field module of the recipe",
        ) from exc
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
                f"{module}:{node.lineno}: the module imports {bad[0]}, which is not allowed",
                f"allowed imports: {', '.join(sorted(IMPORTS))}",
            )


class UpstreamNet:
    """A network that runs in a child process, see `open_upstream`.

    Attributes:
        parameters: number of learnable parameters.
        versions: versions of torch and NumPy in the child.
    """

    def __init__(self, process: subprocess.Popen[str], folder: Path, name: str) -> None:
        self._process, self.folder, self._name = process, folder, name
        hello = self._answer()
        self.parameters = int(hello["parameters"])
        self.versions: dict[str, str] = dict(hello["versions"])

    def export(self, opset: int) -> bytes:
        """Return the traced network as an ONNX file."""
        self._ask({"do": "export", "opset": opset})
        return (self.folder / "net.onnx").read_bytes()

    def run(self, x: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Run the network on float32 or float64 (N, 3, H, W); return (N, 1, H, W) of the same type."""
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
            raise ModelError(
                f"{self._name}: the child process has ended",
                "it crashed, or it exceeded its memory or time limit",
            ) from exc
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
            answer = dict(json.loads(line))
            ok = bool(answer["ok"])
        except (ValueError, KeyError, TypeError) as exc:
            code = self._process.wait()
            raise ModelError(
                f"{self._name}: the child process ended without an answer (exit status {code})",
                "it crashed, or it exceeded its memory or time limit",
            ) from exc
        if not ok:
            error = str(answer.get("error"))
            if "No module named 'torch'" in error:
                raise MissingExtraError("torch", "train")
            raise ModelError(
                f"{self._name}: the network can't be loaded or run: {error}",
                "check that the checkpoint belongs to this network",
            )
        return answer


def _limit_child() -> None:
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
    source: UpstreamSource, recipe: MirrorRecipe, checkpoint: bytes
) -> Iterator[UpstreamNet]:
    """Start the network of a checkout in a child process; kill the process when the block ends.

    Args:
        source: the files of the checkout, see `read_upstream`.
        recipe: names class, constructor arguments and output index.
        checkpoint: content of the weights file; it may contain tensors only.

    Raises:
        ModelError: the module or the checkpoint cannot be used.
        MissingExtraError: torch is not installed.
    """
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place).resolve()
        job = {
            "module": source.module, "net": recipe.net, "arguments": list(recipe.arguments),
            "head": recipe.head, "threads": 1,
        }  # fmt: skip
        (folder / "job.json").write_text(json.dumps(job))
        (folder / "module.py").write_bytes(source.code)
        (folder / "weights").write_bytes(checkpoint)
        child = Path(__file__).with_name("_upstream_child.py")
        process = subprocess.Popen(  # noqa: S603  (a script of this package)
            [sys.executable, "-I", "-B", str(child), str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={},
            cwd=folder,
            preexec_fn=_limit_child,  # noqa: PLW1509  (no thread of eyeline holds a lock here)
            start_new_session=True,
            text=True,
        )
        try:
            yield UpstreamNet(process, folder, f"{source.module}: {recipe.net}")
        finally:
            process.kill()
            process.communicate()
