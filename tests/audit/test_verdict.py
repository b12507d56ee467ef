"""The verdict: four axes together, over checkouts and hostile documents."""

from __future__ import annotations

from pathlib import Path

import pytest

from eyeline.audit import AuditOptions, audit, load_policy, open_tree
from fake_upstream import FILES, NET, README, make_checkout, write_files


def test_a_clean_upstream_with_its_checkpoint_is_admissible(tmp_path: Path) -> None:
    checkout = make_checkout(tmp_path / "up")
    (tmp_path / "net.pth").write_bytes(b"weights")
    verdict = audit(
        open_tree(checkout), load_policy(), AuditOptions(checkpoint=tmp_path / "net.pth")
    )
    assert verdict.admissible
    values = verdict.to_json()
    assert values["verdict"] == "admissible"
    assert values["commit"] == verdict.commit
    assert list(values["axes"]) == ["licence", "distribution", "architecture", "ops"]  # type: ignore[call-overload]


def test_work_tree_and_git_directory_give_the_same_verdict(tmp_path: Path) -> None:
    checkout = make_checkout(tmp_path / "up")
    one, two = (audit(open_tree(p), load_policy()).to_json() for p in (checkout, checkout / ".git"))
    assert one == two


def test_a_blocked_verdict_names_every_axis_that_blocks(tmp_path: Path) -> None:
    files = dict(FILES) | {"README.md": README + "The code is for NonCommercial use only.\n"}
    files["model/tinynet.py"] = (
        str(FILES["model/tinynet.py"])
        .replace(
            "class TinyNet(nn.Module):",
            "class TinyNet(nn.Module):\n    def forward(self, x, depth): pass\n",
        )
        .replace("    def forward(self, x):\n        a =", "    def old(self, x):\n        a =")
    )
    verdict = audit(open_tree(make_checkout(tmp_path / "up", files)), load_policy())
    assert verdict.to_json()["reasons"] == ["NC", "VIEWER-LINK", "RGB-D"]


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "unit",
    [
        "https://drive.google.com/a ",
        "license mit\n",
        "cc by-nc",
        "copyright (c) ",
        "https://pan.baidu.com/a\n",
    ],
)
def test_a_document_made_to_keep_a_reader_busy_is_soon_read(tmp_path: Path, unit: str) -> None:
    text = unit * (2_000_000 // len(unit))
    write_files(
        tmp_path, {"README.md": text, "LICENSE": text, "model/tinynet.py": f"# {text}\n{NET}"}
    )
    audit(open_tree(tmp_path), load_policy())
