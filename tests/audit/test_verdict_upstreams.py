"""Real upstreams, where their git directories are at hand: the verdicts that people reached by reading."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from eyeline.audit.records import load_policy
from eyeline.audit.tree import open_tree
from eyeline.audit.verdict import Audit, AuditOptions, audit, markdown

UPSTREAMS = Path(__file__).resolve().parents[3] / ".mirror"


@cache
def verdict_of(name: str, options: AuditOptions | None = None) -> Audit:
    folder = UPSTREAMS / name.replace("/", "+") / "repo"
    if not folder.is_dir():
        pytest.skip(f"no git directory of {name} at {folder}")
    return audit(open_tree(folder), load_policy(), options)


@pytest.mark.parametrize(
    ("name", "licence", "hosts", "kind", "reasons"),
    [
        ("xuebinqin/U-2-Net", "Apache-2.0", "Google Drive", "RGB", {"VIEWER-LINK"}),
        ("yuhuan-wu/MobileSal", None, "Google Drive", "RGB-D",
         {"README-ONLY", "NC", "SA", "VIEWER-LINK", "RGB-D"}),
        # Its README takes back for research what its MIT text grants.
        ("DengPingFan/BBS-Net", "MIT", "Google Drive", "RGB-D", {"NC", "VIEWER-LINK", "RGB-D"}),
        ("xuebinqin/BASNet", "MIT", "Google Drive", "RGB", {"VIEWER-LINK"}),
        ("backseason/PoolNet", "MIT", "Google Drive", "RGB", {"VIEWER-LINK"}),
        ("weijun88/F3Net", "MIT", "Google Drive", "RGB", {"VIEWER-LINK"}),
        ("ZhengPeng7/BiRefNet", "MIT", "release page", "RGB", {"NOT-PINNED"}),
        ("plemeri/InSPyReNet", "MIT", "OneDrive", "RGB", {"VIEWER-LINK"}),
    ],
)  # fmt: skip
def test_verdicts(name: str, licence: str | None, hosts: str, kind: str, reasons: set[str]) -> None:
    verdict = verdict_of(name)
    assert verdict.name == name
    assert verdict.axis("licence").facts["code"] == licence
    assert hosts in verdict.axis("distribution").summary
    assert verdict.axis("architecture").summary.startswith(f"{kind}: ")
    assert {f.code for f in verdict.blockers} == reasons


def test_u2net_is_read_at_its_commit_and_a_checkpoint_unblocks_it(tmp_path: Path) -> None:
    (tmp_path / "u2netp.pth").write_bytes(b"any weights")
    options = AuditOptions(checkpoint=tmp_path / "u2netp.pth", net="U2NETP")
    verdict = verdict_of("xuebinqin/U-2-Net", options)
    assert verdict.commit == "ac7e1c817ecab7c7dff5ce6b1abba61cd213ff29"
    assert verdict.admissible
    assert "Resize" in verdict.axis("ops").facts["forecast"]  # type: ignore[operator]
    assert any(f.code == "BYTECODE" for f in verdict.axis("distribution").findings)


def test_birefnet_needs_an_op_that_is_not_admitted() -> None:
    findings = verdict_of("ZhengPeng7/BiRefNet").axis("ops").findings
    assert any("DeformConv" in f.message for f in findings)


def test_the_table_of_the_docs_is_what_the_command_makes() -> None:
    page = (Path(__file__).parents[2] / "docs/audit.md").read_text().splitlines()
    shown = {
        line.split("|")[1].strip(): line
        for line in page if line.startswith("| ") and "blocked: " in line
    }  # fmt: skip
    assert len(shown) == 8
    for name, line in shown.items():
        assert markdown([verdict_of(name)], details=False).splitlines()[2] == line
