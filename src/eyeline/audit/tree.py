"""The files of an upstream, pinned: a git commit's tree (no work tree needed), or a plain folder.

A checkout is hostile until proven otherwise. Its git configuration, hooks, filters and index are never
read: `HEAD` is resolved from the ref files, and objects are read by `git cat-file` in an empty
git directory of our own that borrows only the object store. Every object's id is recomputed from
its bytes, so the commit id pins all that was read.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import subprocess
import tempfile
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from eyeline.errors import LicenceError, ModelError

MAX_FILES = 50_000
MAX_TEXT = 4 * 1024 * 1024
MAX_PREFETCH = 128 * 1024 * 1024
_TEXTUAL = re.compile(
    r"\.(py|md|rst|txt|toml|c|cc|cpp|cu|h|hpp|m|sh)$|(^|/)[A-Z]{4,}$", re.IGNORECASE
)
_OBJECT_ID = re.compile(r"^(?:[0-9a-f]{40}|[0-9a-f]{64})$")
_REF = re.compile(r"^refs/[A-Za-z0-9._/-]{1,200}$")


@dataclass(frozen=True)
class TreeEntry:
    """One file of a tree.

    Attributes:
        path: relative, `/` between parts.
        kind: a symbolic link and a submodule are listed, never followed.
        size: bytes; None when the object is not there (a partial clone) or not a file.
        digest: git blob id, or `sha256:...` of a folder's file; empty where it was not computed.
    """

    path: str
    kind: str
    size: int | None
    digest: str


class Tree(ABC):
    """Files to read.

    Attributes:
        name: what to call it in a report, never a path of this machine.
        commit: commit id, None for a folder without git.
        tree_id: git tree id, or `sha256:...` over the names and digests of a folder.
    """

    name: str
    commit: str | None
    tree_id: str

    @property
    @abstractmethod
    def entries(self) -> dict[str, TreeEntry]:
        """Every file by its path, sorted."""

    @abstractmethod
    def read(self, path: str, limit: int = MAX_TEXT) -> bytes | None:
        """A file's bytes; None when it is absent, larger than `limit`, or no regular file."""

    def text(self, path: str) -> str | None:
        """A file's text, replacing what is not UTF-8; None as in `read`."""
        data = self.read(path)
        return None if data is None else data.decode("utf-8", "replace").removeprefix("\ufeff")

    def digest(self, path: str) -> str | None:
        """sha256 of a file's bytes, hex; None as in `read`."""
        data = self.read(path)
        return None if data is None else hashlib.sha256(data).hexdigest()


def open_tree(checkout: Path) -> Tree:
    """The tree of a checkout, a bare git directory, or a folder without git.

    Args:
        checkout: the folder.

    Raises:
        ModelError: no such folder, a git directory that can't be read, or objects that are not
            what their ids say.
    """
    if not checkout.is_dir():
        raise ModelError(f"{checkout}: no such folder", "name a checkout or a git directory")
    git = _git_directory(checkout)
    return GitTree(git, _name_of(checkout)) if git else FolderTree(checkout)


def _name_of(checkout: Path) -> str:
    """Folder name; `owner/name` for a mirror's `owner+name/repo`."""
    parts = [p for p in checkout.resolve().parts if p not in (".git", "repo")]
    return parts[-1].replace("+", "/").removesuffix(".git") if parts else "checkout"


def _git_directory(checkout: Path) -> Path | None:
    for place in (checkout / ".git", checkout):
        if place.is_file() and place.name == ".git":  # a linked work tree or a submodule
            text = _small_text(place)
            target = (checkout / text.removeprefix("gitdir:").strip()).resolve()
            if not text.startswith("gitdir:") or not (target / "HEAD").is_file():
                raise ModelError(
                    f"{place}: names no git directory", "name the git directory itself"
                )
            return target
        if (place / "HEAD").is_file() and (place / "objects").is_dir():
            return place
    if (checkout / ".git").is_dir():
        raise ModelError(f"{checkout / '.git'}: not a whole git directory", "clone it again")
    return None


def _small_text(path: Path) -> str:
    try:
        with path.open("rb") as f:
            return f.read(1 << 22).decode("utf-8", "replace")
    except OSError as exc:
        raise ModelError(f"{path}: can't be read: {exc.strerror}", "check the checkout") from exc


class GitTree(Tree):
    """The tree of the commit that `HEAD` names.

    Args:
        git: the git directory.
        name: for reports.

    Raises:
        ModelError: see `open_tree`.
    """

    def __init__(self, git: Path, name: str) -> None:
        self.name = name
        self._common = git
        if (git / "commondir").is_file():
            self._common = (git / _small_text(git / "commondir").strip()).resolve()
        self.commit = self._resolve(git, _small_text(git / "HEAD").strip())
        self._hash = hashlib.sha1 if len(self.commit) == 40 else hashlib.sha256
        (commit,) = self._objects([self.commit]).values()
        if commit is None or commit[0] != "commit":
            raise ModelError(f"{name}: {self.commit[:12]} is no commit that is here", "clone again")
        match = re.match(rb"tree ([0-9a-f]{40,64})\n", commit[1])
        if match is None:
            raise ModelError(f"{name}: commit {self.commit[:12]} has no tree", "clone it again")
        self.tree_id = match[1].decode()

    def _resolve(self, git: Path, head: str) -> str:
        for _ in range(5):  # symbolic refs may chain
            if _OBJECT_ID.match(head):
                return head
            ref = head.removeprefix("ref:").strip()
            if not _REF.match(ref) or ".." in ref:
                break
            loose = [p / ref for p in (git, self._common) if (p / ref).is_file()]
            if loose:
                head = _small_text(loose[0]).strip()
                continue
            packed = self._common / "packed-refs"
            lines = _small_text(packed).splitlines() if packed.is_file() else []
            found = [line.split(" ")[0] for line in lines if line.endswith(f" {ref}")]
            if not found:
                break
            head = found[0]
        raise ModelError(f"{self.name}: HEAD names no commit", "check out a branch or a commit")

    def _objects(self, ids: list[str]) -> dict[str, tuple[str, bytes] | None]:
        """Type and bytes of objects, each checked against its id; None for one that is not here."""
        answer = self._git("--batch", ids)
        found: dict[str, tuple[str, bytes] | None] = {}
        at = 0
        for wanted in ids:
            end = answer.index(b"\n", at)
            fields = answer[at:end].decode().split(" ")
            at = end + 1
            if fields[-1] == "missing":
                found[wanted] = None
                continue
            kind, size = fields[1], int(fields[2])
            data = answer[at : at + size]
            at += size + 1
            if self._hash(f"{kind} {size}\0".encode() + data).hexdigest() != wanted:
                raise ModelError(
                    f"{self.name}: object {wanted[:12]} is not what its id says", "clone it again"
                )
            found[wanted] = (kind, data)
        return found

    def _git(self, mode: str, ids: list[str]) -> bytes:
        with tempfile.TemporaryDirectory() as folder:
            # An empty git directory of ours: nothing of the checkout's configuration is read.
            own = Path(folder)
            for name in ("objects", "refs"):
                (own / name).mkdir()
            (own / "HEAD").write_text("ref: refs/heads/none\n")
            sha256 = "[extensions]\n objectFormat = sha256\n" if len(ids[0]) == 64 else ""
            (own / "config").write_text(
                f"[core]\n repositoryformatversion = {1 if sha256 else 0}\n bare = true\n{sha256}"
            )
            environment = {
                "PATH": os.environ.get("PATH", os.defpath),
                "GIT_DIR": folder,
                "GIT_OBJECT_DIRECTORY": str((self._common / "objects").resolve()),
                "GIT_CONFIG_NOSYSTEM": "1",
                "GIT_CONFIG_GLOBAL": os.devnull,
                "GIT_ALLOW_PROTOCOL": "none",
                "GIT_TERMINAL_PROMPT": "0",
                "GIT_NO_LAZY_FETCH": "1",
                "GIT_NO_REPLACE_OBJECTS": "1",
                "LC_ALL": "C",
            }
            try:
                run = subprocess.run(  # noqa: S603  (ids only, on stdin)
                    ["git", "cat-file", mode, "--buffer"],  # noqa: S607  (the user's git)
                    input="".join(f"{i}\n" for i in ids).encode(),
                    capture_output=True,
                    env=environment,
                    cwd=folder,
                    timeout=300,
                    check=False,
                )
            except FileNotFoundError as exc:
                raise ModelError("the program git is not installed", "install git") from exc
            except subprocess.TimeoutExpired as exc:
                raise ModelError(f"{self.name}: git took over 300 s", "clone it again") from exc
        if run.returncode:
            first = " ".join(run.stderr.decode("utf-8", "replace").split())[:200]
            raise ModelError(f"{self.name}: git can't read it: {first}", "clone it again")
        return run.stdout

    @cached_property
    def entries(self) -> dict[str, TreeEntry]:
        """Every file by its path, sorted; trees are checked against their ids."""
        level, files = [("", self.tree_id)], []
        while level:
            trees = self._objects([i for _, i in level])
            below = []
            for prefix, tree_id in level:
                found = trees[tree_id]
                if found is None or found[0] != "tree":
                    raise ModelError(f"{self.name}: tree {tree_id[:12]} is missing", "clone again")
                for mode, name, object_id in _parse_tree(found[1], self._hash().digest_size):
                    path = prefix + name
                    if mode == "40000":
                        below.append((path + "/", object_id))
                    else:
                        files.append((path, mode, object_id))
                if len(files) + len(below) > MAX_FILES:
                    raise ModelError(f"{self.name}: over {MAX_FILES} files", "is it a model?")
            level = below
        sizes = self._sizes([i for _, mode, i in files if mode != "160000"])
        kinds = {"120000": "link", "160000": "submodule"}
        return {
            path: TreeEntry(path, kinds.get(mode, "file"), sizes.get(i), i)
            for path, mode, i in sorted(files)
        }

    def _sizes(self, ids: list[str]) -> dict[str, int]:
        lines = self._git("--batch-check", ids).decode().splitlines() if ids else []
        rows = [line.split(" ") for line in lines]
        return {row[0]: int(row[2]) for row in rows if row[-1] != "missing"}

    def read(self, path: str, limit: int = MAX_TEXT) -> bytes | None:
        """See `Tree.read`."""
        entry = self.entries.get(path)
        if entry is None or entry.kind != "file" or entry.size is None or entry.size > limit:
            return None
        if entry.digest not in self._cache:
            found = self._objects([entry.digest])[entry.digest]
            self._cache[entry.digest] = None if found is None else found[1]
        return self._cache[entry.digest]

    def prefetch(self) -> None:
        """Read the small and the textual files in one call of git; the rest is read when asked for."""
        wanted, total = set(), 0
        for entry in self.entries.values():
            size = entry.size
            if entry.kind != "file" or size is None or size > MAX_TEXT:
                continue
            if size >= 1024 and not _TEXTUAL.search(entry.path):
                continue
            total += size
            if total > MAX_PREFETCH:
                break
            wanted.add(entry.digest)
        missing = sorted(wanted - self._cache.keys())
        for key, found in self._objects(missing).items() if missing else ():
            self._cache[key] = None if found is None else found[1]

    @cached_property
    def _cache(self) -> dict[str, bytes | None]:
        return {}


def _parse_tree(data: bytes, width: int) -> list[tuple[str, str, str]]:
    """Mode, name and id of a tree object's entries (git's format: mode SP name NUL id)."""
    rows, at = [], 0
    while at < len(data):
        space = data.index(b" ", at)
        end = data.index(b"\0", space)
        mode, name = data[at:space].decode("ascii"), data[space + 1 : end]
        rows.append((mode, name.decode("utf-8", "replace"), data[end + 1 : end + 1 + width].hex()))
        at = end + 1 + width
    return rows


class FolderTree(Tree):
    """A folder without git: read as it is, pinned by a digest of ours over all its files.

    Args:
        folder: where the files are; links are listed and not followed.

    Raises:
        ModelError: more than `MAX_FILES` files.
    """

    commit = None

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.name = _name_of(folder)

    @cached_property
    def tree_id(self) -> str:  # type: ignore[override]
        """`sha256:...` over the sorted paths and digests."""
        rows = "".join(f"{e.digest} {e.path}\n" for e in self.entries.values())
        return f"sha256:{hashlib.sha256(rows.encode()).hexdigest()}"

    @cached_property
    def entries(self) -> dict[str, TreeEntry]:
        """Every file by its path, sorted."""
        found = {}
        for parent, folders, names in os.walk(self._folder):
            folders.sort()
            for name in [*names, *(f for f in folders if (Path(parent) / f).is_symlink())]:
                place = Path(parent) / name
                path = place.relative_to(self._folder).as_posix()
                status = place.lstat()
                if stat.S_ISLNK(status.st_mode):
                    found[path] = TreeEntry(path, "link", None, "")
                elif stat.S_ISREG(status.st_mode):
                    with place.open("rb") as f:
                        digest = hashlib.file_digest(f, "sha256").hexdigest()
                    found[path] = TreeEntry(path, "file", status.st_size, f"sha256:{digest}")
                if len(found) > MAX_FILES:
                    raise ModelError(f"{self.name}: over {MAX_FILES} files", "is it a model?")
        return dict(sorted(found.items()))

    def read(self, path: str, limit: int = MAX_TEXT) -> bytes | None:
        """See `Tree.read`."""
        entry = self.entries.get(path)
        if entry is None or entry.kind != "file" or entry.size is None or entry.size > limit:
            return None
        handle = os.open(self._folder / path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(handle, "rb") as f:
            data = f.read(limit + 1)
        if f"sha256:{hashlib.sha256(data).hexdigest()}" != entry.digest:
            raise LicenceError(f"{self.name}/{path}: changed while it was read", "run it again")
        return data
