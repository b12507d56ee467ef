"""The distribution axis: where the weights are, and whether anything can be pinned by a digest."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Literal

from eyeline.audit.findings import AuditFinding, AxisReport, axis_report
from eyeline.audit.licence import is_document
from eyeline.audit.policy import AuditPolicy
from eyeline.audit.tree import Tree

WEIGHT_SUFFIXES = (
    ".pth",
    ".pt",
    ".onnx",
    ".ckpt",
    ".safetensors",
    ".h5",
    ".hdf5",
    ".pb",
    ".tflite",
    ".caffemodel",
    ".pkl",
    ".pdparams",
    ".mlmodel",
    ".weights",
    ".npz",
)
_LFS = re.compile(
    r"\Aversion https://git-lfs\.github\.com/spec/v1\noid sha256:([0-9a-f]{64})\nsize (\d{1,15})\n"
)
MAX_LINKS = 1000
MAX_LINE = 4000
"""Of one file, and characters of one line: what nobody writes for people to read is not read."""
_URL = re.compile(r"https?://[^\s\"'<>)\]}]+")
_HOSTS: tuple[tuple[str, str], ...] = (
    (r"drive\.google\.com/(?!thumbnail)|docs\.google\.com/uc", "Google Drive"),
    (r"pan\.baidu\.com", "Baidu"),
    (r"1drv\.ms|onedrive\.live\.com|sharepoint\.com", "OneDrive"),
    (r"dropbox\.com", "Dropbox"),
    (r"\bmega\.(?:nz|co\.nz)", "MEGA"),
)
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

Kind = Literal["viewer", "release", "release page", "hub", "file"]


@dataclass(frozen=True)
class Link:
    """A link that may lead to weights.

    Attributes:
        url: as it stands.
        kind: `viewer` (only a browser follows it, nothing says what it serves), `release` (an asset with
            a name), `release page`, `hub` (a model hub's repository, pinned by its revision), or a
            plain `file`.
        host: of a viewer link; otherwise the host name.
        about: `weights`, `other`, or `unclear`.
        where: `path:line`.
    """

    url: str
    kind: Kind
    host: str
    about: str
    where: str


def find_links(path: str, text: str) -> list[Link]:
    """Links of a document or script that may lead to weights."""
    found: list[Link] = []
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
                # What it is about stands before it, else in its line, its paragraph, its section.
                near = line[previous : match.start()]
                around = next((t for t in (near, line, above) if _speaks(t)), heading)
                found.append(Link(url, kind, host, _about(around), f"{path}:{number}"))
            previous = match.end()
        above = f"{above} {line}"[-500:]
    return found


def _speaks(text: str) -> bool:
    return bool(_WEIGHTS.search(text) or _NOT_WEIGHTS.search(text))


def _about(text: str) -> str:
    text = _URL.sub(" ", text)
    weights = [m.start() for m in _WEIGHTS.finditer(text)]
    other = [m.start() for m in _NOT_WEIGHTS.finditer(text)]
    if weights and (
        not other or re.search(r"\.pth|\.pt\b|\.onnx|weights?|checkpoint|pre-?trained", text, re.I)
    ):
        return "weights"
    if weights and other:
        return "weights" if max(weights) > max(other) else "other"
    return "other" if other else "unclear"


def _kind(url: str) -> tuple[Kind | None, str]:
    for pattern, host in _HOSTS:
        if re.search(pattern, url, re.IGNORECASE):
            return "viewer", host
    host = re.sub(r"^https?://([^/:?#]+).*$", r"\1", url).lower()
    if "/releases/download/" in url:
        return "release", host
    if re.search(r"/releases(?:/|$)", url):
        return "release page", host
    if re.fullmatch(
        r"https?://huggingface\.co/(?!spaces/|datasets/|blog/|docs/|front/)[\w.-]+/[\w.-]+/?", url
    ):
        return "hub", host
    path = url.split("?", maxsplit=1)[0].split("#", maxsplit=1)[0].lower()
    if path.endswith(WEIGHT_SUFFIXES) and "/blob/" not in path:
        return "file", host
    return None, host


@dataclass(frozen=True)
class ReleaseAsset:
    """A file that a forge's release holds.

    Attributes:
        release: its tag.
        name: file name.
        size: bytes.
        url: where it is downloaded.
        sha256: hex digest that the forge states; empty where it states none.
    """

    release: str
    name: str
    size: int
    url: str
    sha256: str = ""


def audit_distribution(
    tree: Tree,
    policy: AuditPolicy,
    *,
    checkpoint: tuple[str, str, int] | None = None,
    assets: tuple[ReleaseAsset, ...] | None = None,
) -> AxisReport:
    """Judge how the weights are published.

    Args:
        tree: the upstream.
        policy: whether viewer links do.
        checkpoint: name, sha256 and size of a file at hand.
        assets: what the forge's releases hold; None when no forge was asked.
    """
    findings: list[AuditFinding] = []
    held, pointers = _in_tree(tree, findings)
    links = [
        link
        for path in tree.entries
        if is_document(path) or path.endswith((".py", ".sh"))
        for link in find_links(path, tree.text(path) or "")
    ]
    viewers = [k for k in links if k.kind == "viewer" and k.about == "weights"]
    stored = tuple(a for a in assets or () if a.name.lower().endswith(WEIGHT_SUFFIXES))
    pinnable = [*held, *pointers, *(f"release {a.release}: {a.name}" for a in stored)]
    for a in stored:
        digest = f"sha256 {a.sha256}" if a.sha256 else "no digest stated: take one at download"
        findings.append(
            AuditFinding(
                "note", "RELEASE-ASSET", f"{a.release}/{a.name}, {a.size} bytes, {digest}", a.url
            )
        )
    findings += _link_notes(links, asked=assets is not None)
    if checkpoint:
        name, digest, size = checkpoint
        pinnable.append(name)
        findings.append(
            AuditFinding(
                "review" if viewers and not stored else "note",
                "CHECKPOINT",
                f"{name} is at hand: {size} bytes, sha256 {digest}; pinned from here on, "
                "its way from the authors to you is yours to vouch for",
            )
        )
    elif not pinnable:
        findings.append(_unpinned(links, viewers, policy))
    hosts = sorted({k.host for k in viewers})
    summary = _summary(held, pointers, stored, hosts, links, checkpoint)
    facts: dict[str, object] = {
        "in_tree": held,
        "lfs_pointers": pointers,
        "release_assets": [asdict(a) for a in assets] if assets is not None else None,
        "links": [asdict(k) for k in dict.fromkeys(links)],
        "checkpoint": dict(zip(("name", "sha256", "size"), checkpoint, strict=True))
        if checkpoint
        else None,
        "pinnable": pinnable,
    }
    return axis_report("distribution", summary, findings, facts)


def _in_tree(tree: Tree, findings: list[AuditFinding]) -> tuple[list[str], list[str]]:
    held, pointers = [], []
    for path, entry in tree.entries.items():
        if path.endswith((".pyc", ".pyo")):
            findings.append(
                AuditFinding(
                    "review",
                    "BYTECODE",
                    "compiled code in the tree: what it runs is not what the "
                    "source says; never put the tree on sys.path",
                    path,
                )
            )
        if entry.kind != "file":
            if entry.kind == "submodule":
                findings.append(
                    AuditFinding("review", "SUBMODULE", "a submodule: not read here", path)
                )
            continue
        text = tree.text(path) if entry.size is not None and entry.size < 1024 else None
        pointer = _LFS.match(text or "")
        if pointer:
            pointers.append(path)
            findings.append(
                AuditFinding(
                    "note", "LFS", f"LFS pointer: sha256 {pointer[1]}, {pointer[2]} bytes", path
                )
            )
        elif path.lower().endswith(WEIGHT_SUFFIXES) and (entry.size or 1 << 20) >= 4096:
            held.append(path)
            size = f"{entry.size} bytes" if entry.size is not None else "not in this clone"
            findings.append(
                AuditFinding(
                    "note", "IN-TREE", f"weights in the tree: {size}, id {entry.digest}", path
                )
            )
    if len([f for f in findings if f.code == "BYTECODE"]) > 1:
        paths = [f.where for f in findings if f.code == "BYTECODE"]
        findings[:] = [f for f in findings if f.code != "BYTECODE"]
        findings.append(
            AuditFinding(
                "review",
                "BYTECODE",
                f"{len(paths)} compiled files in the tree: what they run is not "
                "what the source says; never put the tree on sys.path",
                paths[0],
            )
        )
    return held, pointers


def _link_notes(links: list[Link], asked: bool) -> list[AuditFinding]:
    notes = []
    for link in dict.fromkeys(links):
        if link.kind == "release":
            notes.append(
                AuditFinding("note", "RELEASE-LINK", f"a release asset: {link.url}", link.where)
            )
        elif link.kind == "release page" and not asked:
            notes.append(
                AuditFinding(
                    "review",
                    "RELEASE-PAGE",
                    f"{link.url}: audit the repository's URL to list its assets",
                    link.where,
                )
            )
        elif link.kind == "hub" and link.about == "weights":
            notes.append(
                AuditFinding(
                    "review",
                    "HUB",
                    f"{link.url}: terms and files of its own; pin a revision",
                    link.where,
                )
            )
        elif link.kind == "file":
            notes.append(AuditFinding("note", "FILE-LINK", link.url, link.where))
    return notes


def _unpinned(links: list[Link], viewers: list[Link], policy: AuditPolicy) -> AuditFinding:
    hint = "give the file with --checkpoint (its sha256 pins it), or name a release asset"
    elsewhere = sorted(
        {k.kind for k in links if k.kind in ("release page", "hub") and k.about != "other"}
    )
    if viewers and not elsewhere:
        hosts = " and ".join(sorted({k.host for k in viewers}))
        severity = "review" if policy.viewer_links == "allow" else "blocker"
        text = (
            f"weights behind {hosts} links only: nothing to pin by digest, "
            "and what they serve can change"
        )
        return AuditFinding(
            "review" if severity == "review" else "blocker",
            "VIEWER-LINK",
            text,
            viewers[0].where,
            hint,
        )
    if elsewhere or any(k.kind in ("release", "file") for k in links):
        text = "weights are elsewhere, and no digest of them is here"
        hint = "audit the repository's URL to list its release assets, or " + hint
        return AuditFinding("blocker", "NOT-PINNED", text, unblock=hint)
    return AuditFinding("blocker", "NO-WEIGHTS", "no weights, and no link to any", unblock=hint)


def _summary(
    held: list[str],
    pointers: list[str],
    stored: tuple[ReleaseAsset, ...],
    hosts: list[str],
    links: list[Link],
    checkpoint: tuple[str, str, int] | None,
) -> str:
    parts = []
    if held:
        parts.append(f"{len(held)} in tree")
    if pointers:
        parts.append(f"{len(pointers)} LFS")
    if stored:
        parts.append(f"{len(stored)} release assets")
    if hosts:
        parts.append(", ".join(hosts))
    kinds = {k.kind for k in links if k.about != "other"}
    parts += [
        name
        for kind, name in (("release page", "release page"), ("hub", "model hub"))
        if kind in kinds
    ]
    if checkpoint:
        parts.append("checkpoint at hand")
    return " + ".join(parts) or "no weights"
