"""A net from a checkout: verified bytes, in a child, or a clear refusal."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from upstream_nets import expected, recipe, run_code, run_one, weights

from eyeline.convert.upstream import load_recipe, open_upstream, read_upstream
from eyeline.digests import sha256_hex
from eyeline.errors import LicenceError, ModelError, UsageError, VerificationError
from fake_upstream import (
    APACHE,
    FILES,
    MIT,
    NET,
    PLANTED,
    make_checkout,
    write_files,
)

pytest.importorskip("torch", reason="extra `train` is not installed")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkout(tmp_path_factory.mktemp("upstream") / "tinynet")


def test_the_child_answers_what_the_net_answers(checkout: Path) -> None:
    np.testing.assert_allclose(run_one(checkout, weights()), expected(), atol=1e-6)


def test_the_head_is_chosen(checkout: Path) -> None:
    np.testing.assert_allclose(run_one(checkout, weights(), head=1), expected(1), atol=1e-6)


@pytest.mark.parametrize(
    ("license_text", "words"),
    [
        (None, "no LICENSE file"),
        (MIT, "MIT"),
        (PLANTED, "like Apache-2.0, with changes"),
        ("mine", "unknown"),
    ],
    ids=["none", "MIT", "planted", "own"],
)
def test_only_the_exact_apache_text_will_do(
    tmp_path: Path, license_text: str | None, words: str
) -> None:
    files = {k: v for k, v in FILES.items() if k != "LICENSE"}
    files |= {"LICENSE": license_text} if license_text else {}
    with pytest.raises(LicenceError, match=words):
        read_upstream(make_checkout(tmp_path / "up", files), recipe())


def test_commit_notice_and_licence_are_read_not_typed(tmp_path: Path) -> None:
    filled = APACHE.replace("[yyyy] [name of copyright owner]", "2021 Jane Example")
    files = FILES | {"LICENSE": filled, "NOTICE": "TinyNet by Jane Example\n"}
    checkout = make_checkout(tmp_path / "up", files)
    source = read_upstream(checkout, recipe())
    assert len(source.commit) == 40
    assert source.module == "model/tinynet.py"
    assert source.notice == "TinyNet by Jane Example\n"
    assert source.notices == ("Copyright 2021 Jane Example",)


def test_a_folder_without_git_has_no_commit(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="not a git checkout"):
        read_upstream(write_files(tmp_path / "up", FILES), recipe())


def test_a_module_of_other_bytes_is_refused(checkout: Path) -> None:
    good = sha256_hex(NET.encode())
    assert read_upstream(checkout, recipe(module_sha256=good)).code == NET.encode()
    with pytest.raises(VerificationError, match="the recipe requires"):
        read_upstream(checkout, recipe(module_sha256="0" * 64))


def test_the_work_tree_and_planted_bytecode_are_not_run(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    harm = f"open({str(mark)!r}, 'w').close()\n"
    checkout = make_checkout(
        tmp_path / "up",
        FILES | {"model/__init__.py": harm, "torch.py": harm, "sitecustomize.py": harm},
    )
    (checkout / "model/tinynet.py").write_text(harm)  # after the commit
    cached = checkout / "model/__pycache__"
    cached.mkdir()
    (cached / "tinynet.cpython-311.pyc").write_bytes(b"\0" * 64)
    np.testing.assert_allclose(run_one(checkout, weights()), expected(), atol=1e-6)
    assert not mark.exists()


@pytest.mark.parametrize(
    "line", ["import os", "from subprocess import run", "import numpy", "from . import x"]
)
def test_imports_that_are_not_allowed(tmp_path: Path, line: str) -> None:
    checkout = make_checkout(tmp_path / "up", FILES | {"model/tinynet.py": f"{line}\n{NET}"})
    with pytest.raises(ModelError, match=r"tinynet.py:1: the module imports"):
        read_upstream(checkout, recipe())


def test_the_environment_is_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "x")
    code = NET + "\nassert not {'SECRET_TOKEN', 'HOME', 'PATH'} & set(torch.os.environ)\n"
    np.testing.assert_allclose(run_code(tmp_path, code), expected(), atol=1e-6)


def test_too_much_memory_is_one_line(tmp_path: Path) -> None:
    code = NET + "\nhold = bytearray(1 << 36)\n"
    with pytest.raises(ModelError, match="MemoryError") as caught:
        run_code(tmp_path, code)
    assert "\n" not in str(caught.value)


def test_no_folder_is_left(checkout: Path) -> None:
    chosen = recipe()
    with open_upstream(read_upstream(checkout, chosen), chosen, weights()) as net:
        folder = net.folder
        assert json.loads((folder / "job.json").read_text())["net"] == "TinyNet"
    assert not folder.exists()


# --- recipes


def test_the_built_in_recipe_is_u2netp() -> None:
    built_in = load_recipe()
    assert built_in.id == "u2netp_mirror_v1"
    assert built_in.asset is not None
    assert built_in.asset.size == 4_574_861
    assert built_in.io.squash == (320, 320)


@pytest.mark.parametrize(
    ("name", "words"),
    [("nothing", "not a known mirror recipe"), ("bad.toml", "the file is not a mirror recipe")],
)
def test_a_recipe_that_is_none_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.toml").write_text('id = "x"\nlicense = "CC-BY-NC-4.0"\n')
    with pytest.raises(UsageError, match=words) as caught:
        load_recipe(name)
    assert "\n" not in str(caught.value)
