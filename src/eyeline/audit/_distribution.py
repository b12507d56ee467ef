"""The distribution check: where the weights are published, and whether their digest is known."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Literal

from eyeline.audit._licence import is_document
from eyeline.audit.records import WORDS, AuditPolicy, AxisFindings, AxisReport, Severity
from eyeline.audit.tree import ReleaseAsset, Tree

WEIGHT_SUFFIXES = (
    *(".pth", ".pt", ".onnx", ".ckpt", ".safetensors", ".h5", ".hdf5", ".pb", ".tflite"),
    *(".caffemodel", ".pkl", ".pdparams", ".mlmodel", ".weights", ".npz"),
)
_LFS = re.compile(
    r"\Aversion https://git-lfs\.github\.com/spec/v1\noid sha256:([0-9a-f]{64})\nsize (\d{1,15})\n"
)
MAX_LINKS = 1000
MAX_LINE = 4000
"""Limits on the links of a file and the characters of a line; real documents have fewer."""
_URL = re.compile(r"https?://[^\s\"'<>)\]}]+")
_WEIGHTS = re.compile(
    r"\.pth\b|\.pt\b|\.onnx\b|\bweights?\b|checkpoint|ckpt|pre-?trained|\b(?:trained\s+)?models?\b|"
    r"model[\s_-]*zoo|权重|模型",
    re.IGNORECASE,
)
_NOT_WEIGHTS = re.compile(
    r"\b(datasets?|data|saliency\s+maps?|results?|test\s+maps?|predictions?|paper|pdf|train(?:ing)?\s+set|images?|"
    r"version|medal|demo|stuff)\b|-T[RE]\b",
    re.IGNORECASE,
)
_SURELY_WEIGHTS = re.compile(r"\.pth|\.pt\b|\.onnx|weights?|checkpoint|pre-?trained", re.I)

LinkKind = Literal["viewer", "release", "release page", "hub", "file"]


@dataclass(frozen=True)
class WeightsLink:
    """A link that may lead to weights.

    `about` is the content behind the link: `weights`, `other`, or `unclear`; `where` is `path:line`. The
    kind `viewer` is a link that needs a browser and whose content can change; `hub` is a repository of a
    model hub, where a commit id fixes the content.
    """

    url: str
    kind: LinkKind
    host: str
    about: str
    where: str


def find_links(path: str, text: str) -> list[WeightsLink]:
    """Return the links of a document or script that may lead to weights."""
    found: list[WeightsLink] = []
    heading = above = ""
    for number, whole in enumerate(text.splitlines(), 1):
        line = whole[:MAX_LINE]
        if len(found) >= MAX_LINKS:
            break
        if line.startswith("#"):
            heading = line
        above = above if line.strip() else ""
        previous = 0
        for match in _URL.finditer(line):
            url = match[0].rstrip(".,;:`*")
            kind, host = _kind(url)
            if kind:
                # The text before the link, its line, paragraph or heading may name the content behind it.
                near = (line[previous : match.start()], line, above)
                around = next(
                    (t for t in near if _WEIGHTS.search(t) or _NOT_WEIGHTS.search(t)), heading
                )
                found.append(WeightsLink(url, kind, host, _about(around), f"{path}:{number}"))
            previous = match.end()
        above = f"{above} {line}"[-500:]
    return found


def _about(text: str) -> str:
    text = _URL.sub(" ", text)
    weights = [m.start() for m in _WEIGHTS.finditer(text)]
    other = [m.start() for m in _NOT_WEIGHTS.finditer(text)]
    if weights and (not other or _SURELY_WEIGHTS.search(text) or max(weights) > max(other)):
        return "weights"
    return "other" if other else "unclear"


def _kind(url: str) -> tuple[LinkKind | None, str]:
    for service, pattern in WORDS["viewers"].items():
        if re.search(pattern, url, re.IGNORECASE):
            return "viewer", service
    host = re.sub(r"^https?://([^/:?#]+).*$", r"\1", url).lower()
    path = re.split(r"[?#]", url)[0].lower()
    kind: LinkKind | None = None
    if "/releases/download/" in url:
        kind = "release"
    elif re.search(r"/releases(?:/|$)", url):
        kind = "release page"
    elif re.fullmatch(
        r"https?://huggingface\.co/(?!spaces/|datasets/|blog/|docs/|front/)[\w.-]+/[\w.-]+/?", url
    ):
        kind = "hub"
    elif path.endswith(WEIGHT_SUFFIXES) and "/blob/" not in path:
        kind = "file"
    return kind, host


def audit_distribution(
    tree: Tree,
    policy: AuditPolicy,
    *,
    checkpoint: tuple[str, str, int] | None = None,
    assets: tuple[ReleaseAsset, ...] | None = None,
) -> AxisReport:
    """Check how the weights are published.

    `checkpoint` is the name, sha256 and size in bytes of a local weights file. `assets` are the release
    files that the forge lists, None if no forge was queried.
    """
    findings = AxisFindings()
    held, pointers = _in_tree(tree, findings)
    links = [
        link
        for path in tree.entries
        if is_document(path) or path.endswith((".py", ".sh"))
        for link in find_links(path, tree.text(path) or "")
    ]
    viewers = [k for k in links if k.kind == "viewer" and k.about == "weights"]
    stored = [a for a in assets or () if a.name.lower().endswith(WEIGHT_SUFFIXES)]
    pinnable = [*held, *pointers, *(f"release {a.release}: {a.name}" for a in stored)]
    for a in stored:
        digest = f"sha256 {a.sha256}" if a.sha256 else "no digest stated: compute one at download"
        findings.note("RELEASE-ASSET", f"{a.release}/{a.name}, {a.size} bytes, {digest}", a.url)
    _note_links(links, asked=assets is not None, findings=findings)
    if checkpoint:
        name, digest, size = checkpoint
        pinnable.append(name)
        message = (
            f"{name} is here: {size} bytes, sha256 {digest}. This digest pins it from now on; "
            "that the file is the authors' is for you to check"
        )
        findings.add("review" if viewers and not stored else "note", "CHECKPOINT", message)
    elif not pinnable:
        _judge_unpinned(links, viewers, policy, findings)
    about = {k.kind for k in links if k.about != "other"}
    parts = [
        *([f"{len(held)} in tree"] if held else []),
        *([f"{len(pointers)} LFS"] if pointers else []),
        *([f"{len(stored)} release assets"] if stored else []),
        *([", ".join(sorted({k.host for k in viewers}))] if viewers else []),
        *(["release page"] if "release page" in about else []),
        *(["model hub"] if "hub" in about else []),
        *(["checkpoint at hand"] if checkpoint else []),
    ]
    keys = ("name", "sha256", "size")
    facts: dict[str, object] = {
        "in_tree": held,
        "lfs_pointers": pointers,
        "release_assets": [asdict(a) for a in assets] if assets is not None else None,
        "links": [asdict(k) for k in dict.fromkeys(links)],
        "checkpoint": dict(zip(keys, checkpoint, strict=True)) if checkpoint else None,
        "pinnable": pinnable,
    }
    return findings.report("distribution", " + ".join(parts) or "no weights", facts)


def _in_tree(tree: Tree, findings: AxisFindings) -> tuple[list[str], list[str]]:
    held, pointers = [], []
    for path, entry in tree.entries.items():
        if entry.kind == "submodule":
            findings.review("SUBMODULE", "the audit does not read this submodule", path)
        if entry.kind != "file":
            continue
        text = tree.text(path) if entry.size is not None and entry.size < 1024 else None
        if pointer := _LFS.match(text or ""):
            pointers.append(path)
            message = f"LFS pointer: sha256 {pointer[1]}, {pointer[2]} bytes"
            findings.note("LFS", message, path)
        elif path.lower().endswith(WEIGHT_SUFFIXES) and (entry.size or 1 << 20) >= 4096:
            held.append(path)
            size = f"{entry.size} bytes" if entry.size is not None else "not in this clone"
            findings.note("IN-TREE", f"weights in the tree: {size}, id {entry.digest}", path)
    if compiled := [path for path in tree.entries if path.endswith((".pyc", ".pyo"))]:
        message = (
            f"{len(compiled)} compiled {'file' if len(compiled) == 1 else 'files'} in the tree: "
            "their code may differ from the source, so never put the tree on sys.path"
        )
        findings.review("BYTECODE", message, compiled[0])
    return held, pointers


def _note_links(links: list[WeightsLink], *, asked: bool, findings: AxisFindings) -> None:
    for link in links:
        if link.kind == "release":
            findings.note("RELEASE-LINK", f"a release asset: {link.url}", link.where)
        elif link.kind == "release page" and not asked:
            message = f"{link.url}: audit the repository's URL to list its assets"
            findings.review("RELEASE-PAGE", message, link.where)
        elif link.kind == "hub" and link.about == "weights":
            message = f"{link.url} has its own terms and files; pin a revision"
            findings.review("HUB", message, link.where)
        elif link.kind == "file":
            findings.note("FILE-LINK", link.url, link.where)


def _judge_unpinned(
    links: list[WeightsLink],
    viewers: list[WeightsLink],
    policy: AuditPolicy,
    findings: AxisFindings,
) -> None:
    hint = "give the file with --checkpoint (its sha256 pins it), or name a release asset"
    elsewhere = any(k.kind in ("release page", "hub") and k.about != "other" for k in links)
    if viewers and not elsewhere:
        hosts = " and ".join(sorted({k.host for k in viewers}))
        message = (
            f"the weights are only behind links to {hosts}: no digest can pin them, and the files "
            "there can change"
        )
        severity: Severity = "review" if policy.viewer_links == "allow" else "blocker"
        findings.add(severity, "VIEWER-LINK", message, viewers[0].where, hint)
    elif elsewhere or any(k.kind in ("release", "file") for k in links):
        hint = "audit the repository's URL to list its release assets, or " + hint
        message = "the weights are elsewhere, and no digest of them is in the tree"
        findings.block("NOT-PINNED", message, unblock=hint)
    else:
        findings.block("NO-WEIGHTS", "there are no weights, and no link to any", unblock=hint)
