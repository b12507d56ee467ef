"""An upstream read through a forge's REST API: GitHub's shapes, which Enterprise and Gitea speak too.

One request for the repository, one for the commit, one for the tree, one a page of releases, and one
a text file that the audit reads. The listing is checked against the tree's id and every blob against
its own. A token is optional and goes to the API's own host only.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import http.client
import json
import os
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import IO, Any

from eyeline._version import __version__
from eyeline.audit.distribution import ReleaseAsset
from eyeline.audit.tree import MAX_FILES, MAX_TEXT, Tree, TreeEntry
from eyeline.errors import ModelError, UsageError

TOKEN_VARIABLES = ("EYELINE_FORGE_TOKEN", "GITHUB_TOKEN", "GH_TOKEN")
MAX_ANSWER = 64 * 1024 * 1024
MAX_WAIT = 60.0
_REPOSITORY = re.compile(r"^https?://([\w.-]+(?::\d+)?)/([\w.-]+)/([\w.-]+?)(?:\.git)?/?$")
_DIGEST = re.compile(r"^sha256:([0-9a-f]{64})$")


def is_url(text: str) -> bool:
    """Whether an upstream is named by a URL, not by a folder."""
    return text.startswith(("https://", "http://"))


def api_root(host: str) -> str:
    """Where a forge's API stands (GitHub's documentation, "REST API": github.com and Enterprise)."""
    return "https://api.github.com" if host == "github.com" else f"https://{host}/api/v3"


class _SameHost(urllib.request.HTTPRedirectHandler):
    """A redirect to another host doesn't take the token along."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        new = super().redirect_request(req, fp, code, msg, headers, newurl)
        if (
            new is not None
            and urllib.parse.urlsplit(newurl).netloc != urllib.parse.urlsplit(req.full_url).netloc
        ):
            new.remove_header("Authorization")
        return new


@dataclass
class Forge:
    """A client of one API.

    Attributes:
        root: URL that the API's paths come after.
        token: sent as a bearer token when there is one.
        wait: longest pause for a rate limit, seconds; a longer one is an error that says when it ends.
        sleep: how to pause.
    """

    root: str
    token: str | None = None
    wait: float = MAX_WAIT
    sleep: Callable[[float], None] = time.sleep

    def get(self, path: str) -> tuple[Any, str | None]:
        """The JSON of an API path, and the URL of the next page.

        Raises:
            ModelError: no answer, an error status, a rate limit that lasts, or no JSON.
        """
        url = path if path.startswith(("http://", "https://")) else self.root + path
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
            except (urllib.error.URLError, TimeoutError, http.client.HTTPException, OSError) as exc:
                reason = getattr(exc, "reason", exc)
                raise ModelError(
                    f"{url}: no answer: {reason}", "check the address and the network"
                ) from exc
            if len(data) > MAX_ANSWER:
                raise ModelError(f"{url}: over {MAX_ANSWER} bytes", "clone it and audit the folder")
            try:
                value = json.loads(data)
            except ValueError as exc:
                raise ModelError(
                    f"{url}: the answer is no JSON", "is it a forge's API? see --api"
                ) from exc
            following = re.search(r'<([^>]+)>;\s*rel="next"', link)
            return value, following[1] if following else None
        raise ModelError(
            f"{url}: the forge answers with an error again and again", "try again later"
        )

    def _pause(self, exc: urllib.error.HTTPError, attempt: int) -> float | None:
        """Seconds to wait before another try; None when another try is of no use."""
        if exc.code in (500, 502, 503, 504):
            return float(min(2**attempt, self.wait))
        left, after = exc.headers.get("X-RateLimit-Remaining"), exc.headers.get("Retry-After")
        if exc.code not in (403, 429) or (left != "0" and after is None):
            return None
        if after is not None and after.isdigit():
            pause = float(after)
        else:
            reset = exc.headers.get("X-RateLimit-Reset", "")
            pause = max(float(reset) - time.time(), 0.0) + 1 if reset.isdigit() else self.wait + 1
        if pause > self.wait:
            hint = "wait" if self.token else f"set {TOKEN_VARIABLES[0]} to a token, or wait"
            raise ModelError(
                f"{self.root}: the rate limit is used up; it ends in {pause / 60:.0f} minutes", hint
            ) from exc
        return pause


def _status_error(url: str, exc: urllib.error.HTTPError) -> ModelError:
    if exc.code == 401:
        return ModelError(f"{url}: the token is refused", "check it, or go without")
    if exc.code == 404:
        return ModelError(f"{url}: not there, or not for this token", "check owner and name")
    return ModelError(f"{url}: the forge answers {exc.code}", "try again later, or clone it")


class ForgeTree(Tree):
    """A repository's default branch as the API shows it.

    Args:
        url: of the repository, `https://HOST/OWNER/NAME`.
        api: root of the API; that of the URL's host when None.
        forge: the client; one with a token of the environment when None.

    Raises:
        UsageError: not a repository's URL.
        ModelError: see `Forge.get`.
    """

    def __init__(self, url: str, api: str | None = None, forge: Forge | None = None) -> None:
        match = _REPOSITORY.match(url)
        if match is None:
            raise UsageError(f"{url}: not a repository's URL", "https://HOST/OWNER/NAME")
        token = next((v for name in TOKEN_VARIABLES if (v := os.environ.get(name))), None)
        self._forge = forge or Forge((api or api_root(match[1])).rstrip("/"), token)
        self.name = f"{match[2]}/{match[3]}"
        self._path = f"/repos/{self.name}"
        repository = self._object(self._path)
        self.stated_license = (repository.get("license") or {}).get("spdx_id")
        branch = urllib.parse.quote(str(repository.get("default_branch") or "main"), safe="/")
        commit = self._object(f"{self._path}/commits/{branch}")
        try:
            self.commit = str(commit["sha"])
            self.tree_id = str(commit["commit"]["tree"]["sha"])
        except (KeyError, TypeError) as exc:
            raise ModelError(f"{url}: the forge names no commit", "is it empty?") from exc
        self._read: dict[str, bytes | None] = {}

    def _object(self, path: str) -> dict[str, Any]:
        value, _ = self._forge.get(path)
        if not isinstance(value, dict):
            raise ModelError(f"{self.name}: the forge's answer to {path} is no object", "see --api")
        return value

    @cached_property
    def entries(self) -> dict[str, TreeEntry]:
        """Every file by its path, sorted."""
        answer = self._object(f"{self._path}/git/trees/{self.tree_id}?recursive=1")
        if answer.get("truncated"):
            raise ModelError(
                f"{self.name}: the forge lists only part of the tree",
                "clone it and audit the folder",
            )
        listed = [r for r in answer.get("tree", []) if isinstance(r, dict)]
        if not _is_tree(listed, self.tree_id):
            raise ModelError(
                f"{self.name}: the forge's listing is not tree {self.tree_id[:12]}", "clone it"
            )
        rows = [r for r in listed if r.get("type") in ("blob", "commit")]
        if len(rows) > MAX_FILES:
            raise ModelError(f"{self.name}: over {MAX_FILES} files", "is it a model?")
        kinds = {"120000": "link", "160000": "submodule"}
        return {
            str(r["path"]): TreeEntry(
                str(r["path"]), kinds.get(str(r.get("mode")), "file"), r.get("size"), str(r["sha"])
            )
            for r in sorted(rows, key=lambda r: str(r["path"]))
        }

    def read(self, path: str, limit: int = MAX_TEXT) -> bytes | None:
        """See `Tree.read`."""
        entry = self.entries.get(path)
        if entry is None or entry.kind != "file" or entry.size is None or entry.size > limit:
            return None
        if entry.digest not in self._read:
            blob = self._object(f"{self._path}/git/blobs/{entry.digest}")
            try:
                data = base64.b64decode(str(blob.get("content", "")))
            except binascii.Error as exc:
                raise ModelError(
                    f"{self.name}/{path}: the forge's answer is no file", "clone it"
                ) from exc
            kind = hashlib.sha1 if len(entry.digest) == 40 else hashlib.sha256
            if kind(f"blob {len(data)}\0".encode() + data).hexdigest() != entry.digest:
                raise ModelError(
                    f"{self.name}/{path}: its bytes are not what its id says", "clone it"
                )
            self._read[entry.digest] = data
        return self._read[entry.digest]

    def assets(self) -> tuple[ReleaseAsset, ...]:
        """Files of all releases."""
        found: list[ReleaseAsset] = []
        following: str | None = f"{self._path}/releases?per_page=100"
        while following and len(found) < 1000:
            releases, following = self._forge.get(following)
            for release in releases if isinstance(releases, list) else []:
                for a in release.get("assets") or []:
                    digest = _DIGEST.match(str(a.get("digest") or ""))
                    found.append(
                        ReleaseAsset(
                            str(release.get("tag_name")),
                            str(a.get("name")),
                            int(a.get("size") or 0),
                            str(a.get("browser_download_url") or ""),
                            digest[1] if digest else "",
                        )
                    )
        return tuple(found)


def _is_tree(rows: list[dict[str, Any]], tree_id: str) -> bool:
    """Whether a recursive listing hashes to a tree's id, folder by folder (git's tree object)."""
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
    hashed = hashlib.sha1 if len(tree_id) == 40 else hashlib.sha256
    for path, entries in folders.items():
        # Git sorts a folder's name as if it ended in a slash.
        entries.sort(key=lambda e: (e[1] + "/" if e[0] == "40000" else e[1]).encode())
        try:
            body = b"".join(f"{m} {n}\0".encode() + bytes.fromhex(i) for m, n, i in entries)
        except ValueError:
            return False
        if hashed(f"tree {len(body)}\0".encode() + body).hexdigest() != wanted[path]:
            return False
    return True
