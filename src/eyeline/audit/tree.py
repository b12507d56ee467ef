"""Read the files of an upstream project from a git commit, from a repository on a forge, or from a folder.

A checkout may be hostile. `GitTree` never reads its git configuration, hooks, filters or index. It
resolves `HEAD` from the ref files, and reads objects with `git cat-file` in an empty git directory that
shares only the object store. `ForgeTree` uses the REST API of GitHub, which GitHub Enterprise and Gitea
have, too. Both classes compare the id of every object with its content, so the commit id fixes all files.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import http.client
import json
import os
import re
import stat
import subprocess
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from eyeline._version import __version__
from eyeline.digests import file_sha256, sha256_hex
from eyeline.errors import LicenceError, ModelError, UsageError

MAX_FILES = 50_000
MAX_TEXT = 4 * 1024 * 1024
MAX_PREFETCH = 128 * 1024 * 1024
MAX_ANSWER = 64 * 1024 * 1024
MAX_WAIT = 60.0  # longest pause for a rate limit, seconds
TOKEN_VARIABLES = ("EYELINE_FORGE_TOKEN", "GITHUB_TOKEN", "GH_TOKEN")
_CLONE = "clone it and audit the folder"
_TEXTUAL = re.compile(
    r"\.(py|md|rst|txt|toml|c|cc|cpp|cu|h|hpp|m|sh)$|(^|/)[A-Z]{4,}$", re.IGNORECASE
)
_OBJECT_ID = re.compile(r"^(?:[0-9a-f]{40}|[0-9a-f]{64})$")
_REF = re.compile(r"^refs/[A-Za-z0-9._/-]{1,200}$")
_REPOSITORY = re.compile(r"^https?://([\w.-]+(?::\d+)?)/([\w.-]+)/([\w.-]+?)(?:\.git)?/?$")
_DIGEST = re.compile(r"^sha256:([0-9a-f]{64})$")


@dataclass(frozen=True)
class TreeEntry:
    """One file of a tree.

    Attributes:
        path: relative path with `/` as the separator.
        kind: `file`, `link` or `submodule`; links and submodules are listed, but not followed.
        size: bytes; None for links and submodules, and for missing objects of a partial clone.
        digest: git blob id, or `sha256:...` for a file of a folder; empty if not computed.
    """

    path: str
    kind: str
    size: int | None
    digest: str


class Tree(ABC):
    """The files of an upstream project.

    Attributes:
        name: name in a report, never a path of this machine.
        commit: commit id, None for a folder without git.
        tree_id: git tree id, or `sha256:...` of the names and digests of a folder.
    """

    name: str
    commit: str | None
    tree_id: str

    @property
    @abstractmethod
    def entries(self) -> dict[str, TreeEntry]:
        """Return every file by its path, sorted."""

    @abstractmethod
    def _load(self, entry: TreeEntry) -> bytes | None:
        """Read a file of at most `MAX_TEXT` bytes; return None if its object is missing."""

    @cached_property
    def _cache(self) -> dict[str, bytes | None]:
        return {}

    def _error(self, problem: str, hint: str = "clone it again") -> ModelError:
        return ModelError(f"{self.name}: {problem}", hint)

    def _check_count(self, files: int) -> None:
        if files > MAX_FILES:
            raise self._error(
                f"the tree has more than {MAX_FILES} files",
                "check that this is the repository of a model",
            )

    def read(self, path: str) -> bytes | None:
        """Return the bytes of a file; None if it is missing, not a file, or larger than `MAX_TEXT`."""
        entry = self.entries.get(path)
        if entry is None or entry.kind != "file" or entry.size is None or entry.size > MAX_TEXT:
            return None
        if entry.digest not in self._cache:
            self._cache[entry.digest] = self._load(entry)
        return self._cache[entry.digest]

    def text(self, path: str) -> str | None:
        """Return the text of a file, with invalid UTF-8 replaced; None as in `read`."""
        data = self.read(path)
        return None if data is None else data.decode("utf-8", "replace").removeprefix("\ufeff")

    def digest(self, path: str) -> str | None:
        """Return the sha256 hex digest of a file; None as in `read`."""
        data = self.read(path)
        return None if data is None else sha256_hex(data)

    def prefetch(self) -> None:  # noqa: B027  (only some trees have a faster way)
        """Read all files that an audit needs at once, in trees where this is faster."""


def open_tree(checkout: Path) -> Tree:
    """Open a checkout, a bare git directory, or a folder without git.

    Raises:
        ModelError: the folder does not exist, its git directory can't be read, or an object does not
            match its id.
    """
    if not checkout.is_dir():
        raise ModelError(f"{checkout} is not a folder", "give a git checkout or a git directory")
    git = _git_directory(checkout)
    return GitTree(git, _name_of(checkout)) if git else FolderTree(checkout)


def _name_of(checkout: Path) -> str:
    """Return the name of the folder; `owner/name` for a path `owner+name/repo`."""
    parts = [p for p in checkout.resolve().parts if p not in (".git", "repo")]
    return parts[-1].replace("+", "/").removesuffix(".git") if parts else "checkout"


def _git_directory(checkout: Path) -> Path | None:
    for place in (checkout / ".git", checkout):
        if place.is_file():  # `.git` of a linked work tree or submodule
            text = _small_text(place)
            target = (checkout / text.removeprefix("gitdir:").strip()).resolve()
            if not text.startswith("gitdir:") or not (target / "HEAD").is_file():
                raise ModelError(
                    f"{place} does not point to a git directory",
                    "give the path of the git directory",
                )
            return target
        if (place / "HEAD").is_file() and (place / "objects").is_dir():
            return place
    if (checkout / ".git").is_dir():
        raise ModelError(f"{checkout / '.git'}: the git directory is incomplete", "clone it again")
    return None


def _small_text(path: Path) -> str:
    try:
        with path.open("rb") as f:
            return f.read(1 << 22).decode("utf-8", "replace")
    except OSError as exc:
        raise ModelError(f"{path}: can't be read: {exc.strerror}", "check the checkout") from exc


def _object_id(kind: str, data: bytes, like: str) -> str:
    """Return the git id of an object; the length of the id `like` selects SHA-1 or SHA-256."""
    hashed = hashlib.sha1 if len(like) == 40 else hashlib.sha256
    return hashed(f"{kind} {len(data)}\0".encode() + data).hexdigest()


def _git_entries(rows: Iterable[tuple[str, str, int | None, str]]) -> dict[str, TreeEntry]:
    kinds = {"120000": "link", "160000": "submodule"}
    return {
        path: TreeEntry(path, kinds.get(mode, "file"), size, object_id)
        for path, mode, size, object_id in sorted(rows)
    }


class GitTree(Tree):
    """The files of the commit at `HEAD` of a git directory."""

    def __init__(self, git: Path, name: str) -> None:
        self.name = name
        self._common = git
        if (git / "commondir").is_file():
            self._common = (git / _small_text(git / "commondir").strip()).resolve()
        self.commit: str = self._resolve(git, _small_text(git / "HEAD").strip())
        kind, data = self._objects([self.commit])[self.commit] or ("", b"")
        match = re.match(rb"tree ([0-9a-f]{40,64})\n", data)
        if kind != "commit" or match is None:
            raise self._error(f"commit {self.commit[:12]} is missing in this clone")
        self.tree_id = match[1].decode()

    def _resolve(self, git: Path, head: str) -> str:
        for _ in range(5):  # a symbolic ref may point to another symbolic ref
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
        raise self._error("HEAD does not point to a commit", "check out a branch or a commit")

    def _objects(self, ids: list[str]) -> dict[str, tuple[str, bytes] | None]:
        """Return type and bytes of objects after checking their ids; None for missing objects."""
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
            kind, end = fields[1], at + int(fields[2])
            data, at = answer[at:end], end + 1
            if _object_id(kind, data, wanted) != wanted:
                raise self._error(f"the content of object {wanted[:12]} does not match its id")
            found[wanted] = (kind, data)
        return found

    def _git(self, mode: str, ids: list[str]) -> bytes:
        with tempfile.TemporaryDirectory() as folder:
            # An empty git directory keeps git from reading the configuration of the checkout.
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
                raise self._error("git did not finish within 300 s", "try again") from exc
        if run.returncode:
            first = " ".join(run.stderr.decode("utf-8", "replace").split())[:200]
            raise self._error(f"git can't read the objects: {first}")
        return run.stdout

    @cached_property
    def entries(self) -> dict[str, TreeEntry]:
        """Return every file by its path, sorted."""
        level, files = [("", self.tree_id)], []
        while level:
            trees = self._objects([i for _, i in level])
            below = []
            for prefix, tree_id in level:
                kind, data = trees[tree_id] or ("", b"")
                if kind != "tree":
                    raise self._error(f"the tree object {tree_id[:12]} is missing")
                try:
                    rows = list(_parse_tree(data, len(tree_id) // 2))
                except ValueError as exc:
                    raise self._error(f"the tree object {tree_id[:12]} is malformed") from exc
                for mode, name, object_id in rows:
                    if mode == "40000":
                        below.append((f"{prefix}{name}/", object_id))
                    else:
                        files.append((prefix + name, mode, object_id))
                self._check_count(len(files) + len(below))
            level = below
        ids = [i for _, mode, i in files if mode != "160000"]
        lines = self._git("--batch-check", ids).decode().splitlines() if ids else []
        answers = [line.split(" ") for line in lines]
        sizes = {a[0]: int(a[2]) for a in answers if a[-1] != "missing"}
        return _git_entries((path, mode, sizes.get(i), i) for path, mode, i in files)

    def _load(self, entry: TreeEntry) -> bytes | None:
        found = self._objects([entry.digest])[entry.digest]
        return None if found is None else found[1]

    def prefetch(self) -> None:
        """Read all small files and text files with one git process."""
        wanted, total = set(), 0
        for entry in self.entries.values():
            size = entry.size if entry.kind == "file" else None
            if size is None or size > (MAX_TEXT if _TEXTUAL.search(entry.path) else 1023):
                continue
            total += size
            if total > MAX_PREFETCH:
                break
            wanted.add(entry.digest)
        missing = sorted(wanted - self._cache.keys())
        found = self._objects(missing) if missing else {}
        self._cache.update({key: entry and entry[1] for key, entry in found.items()})


def _parse_tree(data: bytes, width: int) -> Iterable[tuple[str, str, str]]:
    """Yield mode, name and id of each entry of a git tree object (format: mode SP name NUL id)."""
    at = 0
    while at < len(data):
        space = data.index(b" ", at)
        end = data.index(b"\0", space)
        name = data[space + 1 : end].decode("utf-8", "replace")
        yield data[at:space].decode("ascii"), name, data[end + 1 : end + 1 + width].hex()
        at = end + 1 + width


class FolderTree(Tree):
    """A folder without git; its tree id is a digest of the names and digests of all files."""

    commit = None

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.name = _name_of(folder)

    @cached_property
    def tree_id(self) -> str:  # type: ignore[override]
        """Return `sha256:...` of the sorted paths and digests."""
        rows = "".join(f"{e.digest} {e.path}\n" for e in self.entries.values())
        return f"sha256:{sha256_hex(rows.encode())}"

    @cached_property
    def entries(self) -> dict[str, TreeEntry]:
        """Return every file by its path, sorted."""
        found = {}
        for parent, folders, names in os.walk(self._folder):
            for place in (Path(parent, name) for name in (*folders, *names)):
                path, status = place.relative_to(self._folder).as_posix(), place.lstat()
                if stat.S_ISLNK(status.st_mode):
                    found[path] = TreeEntry(path, "link", None, "")
                elif stat.S_ISREG(status.st_mode):
                    digest = f"sha256:{file_sha256(place)}"
                    found[path] = TreeEntry(path, "file", status.st_size, digest)
                self._check_count(len(found))
        return dict(sorted(found.items()))

    def _load(self, entry: TreeEntry) -> bytes | None:
        handle = os.open(self._folder / entry.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(handle, "rb") as f:
            data = f.read(MAX_TEXT + 1)
        if f"sha256:{sha256_hex(data)}" != entry.digest:
            message = f"{self.name}/{entry.path}: the file changed during the audit"
            raise LicenceError(message, "run the audit again")
        return data


@dataclass(frozen=True)
class ReleaseAsset:
    """A file of a release on a forge; `sha256` is empty if the forge gives no digest."""

    release: str
    name: str
    size: int
    url: str
    sha256: str = ""


class ForgeTree(Tree):
    """The default branch of a repository, read with the REST API of a forge.

    One request each is made for the repository, the commit, the tree, every page of releases, and every
    text file that the audit reads. The token is sent only to the host of the API.

    Args:
        url: address of the repository, `https://HOST/OWNER/NAME`.
        api: root URL of the API; None selects the API of the host of `url`.
        forge: API client; None makes one with a token from the environment.

    Raises:
        UsageError: the URL is not that of a repository.
        ModelError: as in `Forge.get`.
    """

    def __init__(self, url: str, api: str | None = None, forge: Forge | None = None) -> None:
        match = _REPOSITORY.match(url)
        if match is None:
            raise UsageError(
                f"{url}: this is not the URL of a repository",
                "write it like https://HOST/OWNER/NAME",
            )
        token = next((v for name in TOKEN_VARIABLES if (v := os.environ.get(name))), None)
        self._forge = forge or Forge((api or api_root(match[1])).rstrip("/"), token)
        self.name = f"{match[2]}/{match[3]}"
        self._path = f"/repos/{self.name}"
        repository = self._object(self._path)
        branch = urllib.parse.quote(str(repository.get("default_branch") or "main"), safe="/")
        commit = self._object(f"{self._path}/commits/{branch}")
        try:
            self.commit = str(commit["sha"])
            self.tree_id = str(commit["commit"]["tree"]["sha"])
        except (KeyError, TypeError) as exc:
            hint = "check that the repository is not empty"
            raise self._error("the answer of the forge contains no commit", hint) from exc

    def _object(self, path: str) -> dict[str, Any]:
        value, _ = self._forge.get(path)
        if not isinstance(value, dict):
            problem = f"the answer of the forge to {path} is not a JSON object"
            raise self._error(problem, "give the root URL of the API with --api")
        return value

    @cached_property
    def entries(self) -> dict[str, TreeEntry]:
        """Return every file by its path, sorted."""
        answer = self._object(f"{self._path}/git/trees/{self.tree_id}?recursive=1")
        if answer.get("truncated"):
            raise self._error("the forge lists only part of the tree", _CLONE)
        listed = [r for r in answer.get("tree", []) if isinstance(r, dict)]
        if not _is_tree(listed, self.tree_id):
            raise self._error(f"the forge lists other files than tree {self.tree_id[:12]}", _CLONE)
        rows = [r for r in listed if r.get("type") in ("blob", "commit")]
        self._check_count(len(rows))
        return _git_entries(
            (str(r["path"]), str(r.get("mode")), r.get("size"), str(r["sha"])) for r in rows
        )

    def _load(self, entry: TreeEntry) -> bytes | None:
        blob = self._object(f"{self._path}/git/blobs/{entry.digest}")
        try:
            data = base64.b64decode(str(blob.get("content", "")))
        except binascii.Error as exc:
            raise self._error(
                f"the answer of the forge for {entry.path} is no file", _CLONE
            ) from exc
        if _object_id("blob", data, entry.digest) != entry.digest:
            raise self._error(f"the content of {entry.path} does not match its id", _CLONE)
        return data

    def assets(self) -> tuple[ReleaseAsset, ...]:
        """Return the files of all releases."""
        found: list[ReleaseAsset] = []
        following: str | None = f"{self._path}/releases?per_page=100"
        while following and len(found) < 1000:
            releases, following = self._forge.get(following)
            for release in releases if isinstance(releases, list) else []:
                for asset in release.get("assets") or []:
                    digest = _DIGEST.match(str(asset.get("digest") or ""))
                    found.append(
                        ReleaseAsset(
                            str(release.get("tag_name")),
                            str(asset.get("name")),
                            int(asset.get("size") or 0),
                            str(asset.get("browser_download_url") or ""),
                            digest[1] if digest else "",
                        )
                    )
        return tuple(found)


def is_url(text: str) -> bool:
    """Return whether the name of an upstream project is a URL, not a folder."""
    return text.startswith(("https://", "http://"))


def api_root(host: str) -> str:
    """Return the root URL of the REST API of a GitHub or GitHub Enterprise host."""
    return "https://api.github.com" if host == "github.com" else f"https://{host}/api/v3"


def _is_tree(rows: list[dict[str, Any]], tree_id: str) -> bool:
    """Return whether a recursive file list has the given tree id; every folder is hashed."""
    folders: dict[str, list[tuple[str, str, str]]] = {"": []}
    wanted = {"": tree_id}
    for row in rows:
        path, mode, object_id = (str(row.get(k) or "") for k in ("path", "mode", "sha"))
        parent, _, name = path.rpartition("/")
        folders.setdefault(parent, []).append((mode.lstrip("0"), name, object_id))
        if row.get("type") == "tree":
            wanted[path] = object_id
            folders.setdefault(path, [])
    if folders.keys() != wanted.keys():
        return False
    for path, entries in folders.items():
        # Git sorts the name of a folder as if it ended in a slash.
        entries.sort(key=lambda e: (e[1] + "/" if e[0] == "40000" else e[1]).encode())
        try:
            body = b"".join(f"{m} {n}\0".encode() + bytes.fromhex(i) for m, n, i in entries)
        except ValueError:
            return False
        if _object_id("tree", body, tree_id) != wanted[path]:
            return False
    return True


class _SameHost(urllib.request.HTTPRedirectHandler):
    """Removes the token from a redirect to another host."""

    def redirect_request(self, *arguments: Any, **_: Any) -> urllib.request.Request | None:
        new = super().redirect_request(*arguments)
        old_url, new_url = arguments[0].full_url, arguments[-1]
        if new and urllib.parse.urlsplit(old_url).netloc != urllib.parse.urlsplit(new_url).netloc:
            new.remove_header("Authorization")
        return new


@dataclass
class Forge:
    """A client of the REST API of a forge; it sends `token` as a bearer token."""

    root: str
    token: str | None = None
    sleep: Callable[[float], None] = time.sleep

    def get(self, path: str) -> tuple[Any, str | None]:
        """Return the JSON value of an API path, and the URL of the next page.

        Raises:
            ModelError: the forge gives no answer, an error status, a long rate limit, or invalid JSON.
        """
        url = path if is_url(path) else self.root + path
        headers = {
            "Accept": "application/vnd.github+json",
            "User-Agent": f"eyeline/{__version__}",
            "X-GitHub-Api-Version": "2022-11-28",
        }
        parts, own = urllib.parse.urlsplit(url), urllib.parse.urlsplit(self.root)
        private = parts.scheme == "https" or parts.hostname in ("127.0.0.1", "localhost", "::1")
        if self.token and private and parts.netloc == own.netloc:
            headers["Authorization"] = f"Bearer {self.token}"
        opener = urllib.request.build_opener(_SameHost)
        for attempt in range(4):
            try:
                request = urllib.request.Request(url, headers=headers)  # noqa: S310  (http for own forges)
                with opener.open(request, timeout=30) as answer:
                    data = answer.read(MAX_ANSWER + 1)
                    link = answer.headers.get("Link", "")
            except urllib.error.HTTPError as exc:
                pause = self._pause(exc, attempt)
                if pause is None:
                    raise _status_error(url, exc) from exc
                self.sleep(pause)
                continue
            except (
                http.client.HTTPException,
                OSError,
            ) as exc:  # URLError and timeouts are OSErrors
                reason = getattr(exc, "reason", exc)
                raise ModelError(
                    f"{url}: the server does not answer: {reason}",
                    "check the address and the network",
                ) from exc
            if len(data) > MAX_ANSWER:
                raise ModelError(
                    f"{url}: the answer has more than {MAX_ANSWER} bytes",
                    "clone the repository and audit the folder",
                )
            try:
                value = json.loads(data)
            except ValueError as exc:
                raise ModelError(
                    f"{url}: the answer is not JSON", "give the root URL of the API with --api"
                ) from exc
            following = re.search(r'<([^>]+)>;\s*rel="next"', link)
            return value, following[1] if following else None
        raise ModelError(f"{url}: four requests failed with a server error", "try again later")

    def _pause(self, exc: urllib.error.HTTPError, attempt: int) -> float | None:
        """Return the seconds to wait before another attempt; None if the error is permanent."""
        if exc.code in (500, 502, 503, 504):
            return float(min(2**attempt, MAX_WAIT))
        left, after = exc.headers.get("X-RateLimit-Remaining"), exc.headers.get("Retry-After")
        if exc.code not in (403, 429) or (left != "0" and after is None):
            return None
        if after is not None and after.isdigit():
            pause = float(after)
        else:
            reset = exc.headers.get("X-RateLimit-Reset", "")
            pause = max(float(reset) - time.time(), 0.0) + 1 if reset.isdigit() else MAX_WAIT + 1
        if pause > MAX_WAIT:
            hint = "wait" if self.token else f"set {TOKEN_VARIABLES[0]} to a token, or wait"
            raise ModelError(
                f"{self.root}: the rate limit is reached for {pause / 60:.0f} more minutes", hint
            ) from exc
        return pause


def _status_error(url: str, exc: urllib.error.HTTPError) -> ModelError:
    if exc.code == 401:
        return ModelError(
            f"{url}: the forge rejects the token", "correct or unset the variable with the token"
        )
    if exc.code == 404:
        return ModelError(
            f"{url}: the repository does not exist, or the token has no access to it",
            "check the owner and the name",
        )
    return ModelError(
        f"{url}: the forge answers with HTTP status {exc.code}",
        "try again later, or clone the repository and audit the folder",
    )
