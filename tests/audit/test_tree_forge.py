"""The forge's REST API, played by a local server from shapes as GitHub documents them."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from eyeline.audit.records import load_policy
from eyeline.audit.tree import Forge, ForgeTree, GitTree, api_root, is_url, open_tree
from eyeline.audit.verdict import AuditOptions, audit
from eyeline.errors import ModelError, UsageError
from fake_upstream import git, make_checkout

REPO = "/repos/jane/tinynet"
DIGEST = "0123456789abcdef" * 4


class Played:
    """A server whose answers are a dictionary; `script` says what comes before them."""

    def __init__(self, answers: dict[str, Any]) -> None:
        self.answers = answers
        self.script: list[tuple[int, dict[str, str], bytes]] = []
        self.seen: list[tuple[str, dict[str, str]]] = []
        played = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                played.seen.append((self.path, dict(self.headers)))
                if played.script:
                    status, headers, body = played.script.pop(0)
                elif self.path in played.answers:
                    value = played.answers[self.path]
                    headers, value = value if isinstance(value, tuple) else ({}, value)
                    status, body = (
                        200,
                        value if isinstance(value, bytes) else json.dumps(value).encode(),
                    )
                else:
                    status, headers, body = 404, {}, b'{"message": "Not Found"}'
                self.send_response(status)
                for name, text in headers.items():
                    self.send_header(name, text)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.root = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


def shapes(tree: GitTree, model: str, root: str) -> dict[str, Any]:
    """What the API says of a repository: only what is asked, in the documented shapes."""
    rows: list[dict[str, Any]] = [{"path": "model", "mode": "040000", "type": "tree", "sha": model}]
    answers: dict[str, Any] = {}
    for path, entry in tree.entries.items():
        data = tree.read(path) or b""
        rows.append(
            {
                "path": path,
                "mode": "100644",
                "type": "blob",
                "sha": entry.digest,
                "size": entry.size,
            }
        )
        content = base64.encodebytes(data).decode()
        answers[f"{REPO}/git/blobs/{entry.digest}"] = {
            "sha": entry.digest, "size": entry.size, "encoding": "base64", "content": content
        }  # fmt: skip
    asset = {"name": "tinynet.onnx", "size": 4574861, "digest": f"sha256:{DIGEST}",
             "browser_download_url": f"{root}/jane/tinynet/releases/download/v1/tinynet.onnx"}  # fmt: skip
    second = {
        "name": "more.pth",
        "size": 5,
        "digest": None,
        "browser_download_url": f"{root}/more.pth",
    }
    following = f'<{root}{REPO}/releases?per_page=100&page=2>; rel="next", <{root}/x>; rel="last"'
    answers |= {
        REPO: {
            "full_name": "jane/tinynet",
            "default_branch": "main",
            "license": {"spdx_id": "Apache-2.0"},
        },
        f"{REPO}/commits/main": {"sha": tree.commit, "commit": {"tree": {"sha": tree.tree_id}}},
        f"{REPO}/git/trees/{tree.tree_id}?recursive=1": {
            "sha": tree.tree_id,
            "tree": rows,
            "truncated": False,
        },
        f"{REPO}/releases?per_page=100": (
            {"Link": following},
            [{"tag_name": "v1", "assets": [asset]}],
        ),
        f"{REPO}/releases?per_page=100&page=2": [{"tag_name": "v0", "assets": [second]}],
    }
    return answers


@pytest.fixture
def upstream(tmp_path: Path) -> GitTree:
    tree = open_tree(make_checkout(tmp_path / "tinynet"))
    assert isinstance(tree, GitTree)
    return tree


@pytest.fixture
def played(upstream: GitTree, tmp_path: Path) -> Iterator[Played]:
    server = Played({})
    model = git(tmp_path / "tinynet", "rev-parse", "HEAD:model")
    server.answers = shapes(upstream, model, server.root)
    yield server
    server.server.shutdown()
    server.server.server_close()


def open_forge(played: Played, **fields: Any) -> ForgeTree:
    return ForgeTree("https://github.com/jane/tinynet", forge=Forge(played.root, **fields))


def test_the_tree_is_the_clones(played: Played, upstream: GitTree) -> None:
    tree = open_forge(played)
    assert (tree.commit, tree.tree_id) == (upstream.commit, upstream.tree_id)
    assert tree.entries == upstream.entries
    assert tree.text("LICENSE") == upstream.text("LICENSE")


def test_the_verdict_is_the_clones_and_assets_unblock(played: Played, upstream: GitTree) -> None:
    tree = open_forge(played)
    options = AuditOptions(assets=tree.assets())
    verdict, cloned = audit(tree, load_policy(), options), audit(upstream, load_policy())
    assert verdict.admissible
    assert [f.code for f in cloned.blockers] == ["VIEWER-LINK"]
    assert verdict.axis("licence").to_json() == cloned.axis("licence").to_json()
    assert verdict.axis("architecture").to_json() == cloned.axis("architecture").to_json()


def test_assets_of_every_page_with_their_digests(played: Played) -> None:
    assets = open_forge(played).assets()
    assert [(a.release, a.name, a.sha256) for a in assets] == [
        ("v1", "tinynet.onnx", DIGEST),
        ("v0", "more.pth", ""),
    ]


@pytest.mark.parametrize(
    "url", ["https://github.com/jane/tinynet.git", "https://github.com/jane/tinynet/"]
)
def test_forms_of_a_url(played: Played, url: str) -> None:
    assert ForgeTree(url, played.root).name == "jane/tinynet"


@pytest.mark.parametrize(
    "url", ["https://github.com/jane", "https://github.com/a/b/tree/main", "https://"]
)
def test_what_is_no_repository(url: str) -> None:
    assert is_url(url)
    with pytest.raises(UsageError, match="not the URL of a repository"):
        ForgeTree(url)


def test_roots_of_apis() -> None:
    assert api_root("github.com") == "https://api.github.com"
    assert api_root("git.example.org") == "https://git.example.org/api/v3"


def test_a_token_goes_along_when_there_is_one(
    played: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("EYELINE_FORGE_TOKEN", "GITHUB_TOKEN", "GH_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    ForgeTree("https://github.com/jane/tinynet", played.root)
    assert "Authorization" not in played.seen[-1][1]
    monkeypatch.setenv("EYELINE_FORGE_TOKEN", "secret")
    ForgeTree("https://github.com/jane/tinynet", played.root)
    assert played.seen[-1][1]["Authorization"] == "Bearer secret"


def test_a_token_does_not_follow_a_redirect_to_another_host(played: Played) -> None:
    other = Played({"/away": {"ok": True}})
    played.script.append((302, {"Location": f"{other.root}/away"}, b""))
    assert Forge(played.root, "secret").get(REPO)[0] == {"ok": True}
    assert played.seen[-1][1]["Authorization"] == "Bearer secret"
    assert "Authorization" not in other.seen[-1][1]
    other.server.shutdown()
    other.server.server_close()


def test_a_next_page_elsewhere_gets_no_token(played: Played) -> None:
    other = Played({"/page": []})
    Forge(played.root, "secret").get(f"{other.root}/page")
    assert "Authorization" not in other.seen[-1][1]
    other.server.shutdown()
    other.server.server_close()


def limited(**headers: str) -> tuple[int, dict[str, str], bytes]:
    return 403, {k.replace("_", "-"): v for k, v in headers.items()}, b'{"message": "rate limit"}'


def test_a_short_rate_limit_is_waited_for(played: Played) -> None:
    slept: list[float] = []
    reset = str(int(time.time()) + 20)
    played.script += [
        limited(X_RateLimit_Remaining="0", X_RateLimit_Reset=reset),
        (429, {"Retry-After": "3"}, b""),
    ]
    forge = Forge(played.root, sleep=slept.append)
    assert forge.get(REPO)[0]["default_branch"] == "main"
    assert 15 < slept[0] <= 22
    assert slept[1] == 3


@pytest.mark.parametrize("token", [None, "secret"])
def test_a_long_rate_limit_says_when_it_ends(played: Played, token: str | None) -> None:
    reset = str(int(time.time()) + 1800)
    played.script.append(limited(X_RateLimit_Remaining="0", X_RateLimit_Reset=reset))
    with pytest.raises(ModelError, match="for 30 more minutes") as caught:
        Forge(played.root, token).get(REPO)
    assert ("EYELINE_FORGE_TOKEN" in caught.value.hint) is (token is None)


def test_a_passing_fault_is_tried_again(played: Played) -> None:
    slept: list[float] = []
    played.script += [(502, {}, b""), (503, {}, b"")]
    assert Forge(played.root, sleep=slept.append).get(REPO)[0]["default_branch"] == "main"
    assert slept == [1.0, 2.0]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((404, {}, b"{}"), "does not exist"),
        ((401, {}, b"{}"), "rejects the token"),
        ((403, {}, b"{}"), "HTTP status 403"),
        ((200, {}, b"<html>"), "not JSON"),
        ((200, {}, b"[]"), "not a JSON object"),
        ((200, {}, b"{}"), "contains no commit|does not exist"),
    ],
)
def test_bad_answers_are_one_line(
    played: Played, answer: tuple[int, dict[str, str], bytes], words: str
) -> None:
    played.script += [answer, answer]
    with pytest.raises(ModelError, match=words) as caught:
        open_forge(played)
    assert "\n" not in str(caught.value)


def test_no_answer_is_one_line() -> None:
    with pytest.raises(ModelError, match="does not answer"):
        Forge("http://127.0.0.1:9").get("/x")


def test_a_tree_that_is_cut_off_is_refused(played: Played, upstream: GitTree) -> None:
    played.answers[f"{REPO}/git/trees/{upstream.tree_id}?recursive=1"]["truncated"] = True
    with pytest.raises(ModelError, match="only part"):
        open_forge(played).entries  # noqa: B018


@pytest.mark.parametrize("harm", ["drop", "swap", "rename"])
def test_a_listing_that_is_not_the_tree_is_refused(
    played: Played, upstream: GitTree, harm: str
) -> None:
    rows = played.answers[f"{REPO}/git/trees/{upstream.tree_id}?recursive=1"]["tree"]
    if harm == "drop":
        rows.pop()
    elif harm == "swap":
        rows[-1]["sha"] = rows[-2]["sha"]
    else:
        rows[-1]["path"] += "x"
    with pytest.raises(ModelError, match="lists other files than tree"):
        open_forge(played).entries  # noqa: B018


def test_a_blob_of_other_bytes_is_refused(played: Played, upstream: GitTree) -> None:
    blob = upstream.entries["LICENSE"].digest
    assert hashlib.sha1(b"blob 4\0evil").hexdigest() != blob
    played.answers[f"{REPO}/git/blobs/{blob}"]["content"] = base64.b64encode(b"evil").decode()
    with pytest.raises(ModelError, match="does not match its id"):
        open_forge(played).read("LICENSE")
