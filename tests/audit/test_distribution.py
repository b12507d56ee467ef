"""Distribution: where the weights are, and what can be pinned by a digest."""

from __future__ import annotations

from pathlib import Path

import pytest

from eyeline.audit._distribution import audit_distribution, find_links
from eyeline.audit.records import AxisReport, load_policy
from eyeline.audit.tree import ReleaseAsset, open_tree
from fake_upstream import FILES, README, write_files

DIGEST = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("line", "kind", "host", "about"),
    [
        (
            "the model net.pth from https://drive.google.com/file/d/1/view",
            "viewer",
            "Google Drive",
            "weights",
        ),
        ("weights: [here](https://pan.baidu.com/s/1a)", "viewer", "Baidu", "weights"),
        ("checkpoint https://1drv.ms/u/s!A", "viewer", "OneDrive", "weights"),
        ("ckpt https://x-my.sharepoint.com/:u:/g/p?e=1", "viewer", "OneDrive", "weights"),
        ("pretrained https://www.dropbox.com/s/a/b", "viewer", "Dropbox", "weights"),
        ("dataset https://drive.google.com/open?id=1", "viewer", "Google Drive", "other"),
        ("[saliency maps](https://pan.baidu.com/s/1)", "viewer", "Baidu", "other"),
        (
            "weights https://github.com/a/b/releases/download/v1/net.pth",
            "release",
            "github.com",
            "weights",
        ),
        ("weights https://github.com/a/b/releases/tag/v1", "release page", "github.com", "weights"),
        ("models at https://huggingface.co/a/b", "hub", "huggingface.co", "weights"),
        ("weights https://example.org/net.onnx", "file", "example.org", "weights"),
    ],
)
def test_kinds_of_links(line: str, kind: str, host: str, about: str) -> None:
    (link,) = find_links("README.md", f"\n{line}\n")
    assert (link.kind, link.host, link.about) == (kind, host, about)
    assert link.where == "README.md:2"


@pytest.mark.parametrize(
    "line",
    [
        "see https://github.com/a/b/blob/main/net.pth",
        "https://huggingface.co/spaces/a/b",
        "https://drive.google.com/thumbnail?id=1",
        "https://example.org/paper.pdf",
    ],
)
def test_links_that_lead_to_no_weights(line: str) -> None:
    assert find_links("README.md", line) == []


def test_each_link_of_a_line_is_about_what_stands_before_it() -> None:
    line = "maps: [a](https://drive.google.com/1), trained model: [b](https://drive.google.com/2)"
    assert [k.about for k in find_links("README.md", "saliency " + line)] == ["other", "weights"]


def judge(folder: Path, files: dict[str, str | bytes], **known: object) -> AxisReport:
    write_files(folder, files)
    return audit_distribution(open_tree(folder), load_policy(), **known)  # type: ignore[arg-type]


def codes(report: AxisReport) -> list[str]:
    return [f.code for f in report.blockers]


def test_viewer_links_alone_block(tmp_path: Path) -> None:
    report = judge(tmp_path, FILES)
    assert codes(report) == ["VIEWER-LINK"]
    assert report.summary == "Baidu, Google Drive"
    assert "--checkpoint" in report.blockers[0].unblock


def test_a_policy_can_take_viewer_links(tmp_path: Path) -> None:
    write_files(tmp_path, FILES)
    policy = load_policy().model_copy(update={"viewer_links": "allow"})
    assert audit_distribution(open_tree(tmp_path), policy).blockers == ()


def test_a_link_in_a_script_counts(tmp_path: Path) -> None:
    script = "gdown.download('https://drive.google.com/uc?id=1', 'net.pth')\n"
    assert codes(judge(tmp_path, {"setup_weights.py": script})) == ["VIEWER-LINK"]


def test_a_checkpoint_at_hand_unblocks(tmp_path: Path) -> None:
    report = judge(tmp_path, FILES, checkpoint=("net.pth", DIGEST, 5))
    assert codes(report) == []
    assert report.facts["pinnable"] == ["net.pth"]
    assert any(DIGEST in f.message for f in report.findings)


def test_weights_in_the_tree(tmp_path: Path) -> None:
    report = judge(
        tmp_path, {"weights/net.pth": b"x" * 5000, "README.md": "weights are in weights/"}
    )
    assert codes(report) == []
    assert report.facts["in_tree"] == ["weights/net.pth"]


def test_an_lfs_pointer_pins_by_its_digest(tmp_path: Path) -> None:
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{DIGEST}\nsize 4700000\n"
    report = judge(tmp_path, {"net.pth": pointer})
    assert codes(report) == []
    assert report.facts["lfs_pointers"] == ["net.pth"]
    assert any(DIGEST in f.message and "4700000" in f.message for f in report.findings)


@pytest.mark.parametrize("digest", ["", DIGEST], ids=["no digest", "digest"])
def test_release_assets(tmp_path: Path, digest: str) -> None:
    asset = ReleaseAsset("v1", "net.onnx", 10, "https://example.org/net.onnx", digest)
    report = judge(tmp_path, FILES, assets=(asset, ReleaseAsset("v1", "paper.pdf", 1, "")))
    assert codes(report) == []
    assert "1 release assets" in report.summary
    assert (DIGEST in str([f.message for f in report.findings])) is bool(digest)


def test_a_forge_without_weights_still_blocks(tmp_path: Path) -> None:
    assert codes(judge(tmp_path, FILES, assets=())) == ["VIEWER-LINK"]


def test_a_release_page_is_not_pinned_yet(tmp_path: Path) -> None:
    text = README + "or weights from https://github.com/a/b/releases/tag/v1\n"
    report = judge(tmp_path, FILES | {"README.md": text})
    assert codes(report) == ["NOT-PINNED"]
    assert "URL" in report.blockers[0].unblock


def test_no_weights_anywhere(tmp_path: Path) -> None:
    assert codes(judge(tmp_path, {"README.md": "# Nothing"})) == ["NO-WEIGHTS"]


def test_bytecode_in_the_tree_is_reported(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {
        "model/__pycache__/net.cpython-311.pyc": b"\xa7\r\r\n", "a.pyc": b"\0"
    }  # fmt: skip
    (finding,) = [f for f in judge(tmp_path, FILES | files).findings if f.code == "BYTECODE"]
    assert finding.message.startswith("2 compiled files")
