"""A net from a checkout: verified bytes, in a child, or a clear refusal."""

from __future__ import annotations

import io
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eyeline.convert.upstream import MirrorRecipe, load_recipe, open_upstream, read_upstream
from eyeline.digests import sha256_hex
from eyeline.errors import LicenceError, ModelError, UsageError, VerificationError
from fake_upstream import (
    APACHE,
    FILES,
    MIT,
    NET,
    PLANTED,
    RECIPE_FIELDS,
    make_checkout,
    write_files,
)

torch = pytest.importorskip("torch", reason="extra `train` is not installed")


def recipe(**fields: Any) -> MirrorRecipe:
    return MirrorRecipe.model_validate(RECIPE_FIELDS | fields)


def tiny_net(seed: int = 0) -> Any:
    """The fake upstream's net, with batch statistics that are not the identity."""
    scope: dict[str, Any] = {"__name__": "tiny"}
    exec(NET, scope)
    torch.manual_seed(seed)
    net = scope["TinyNet"]()
    for name, value in net.state_dict().items():
        if name.endswith(("running_mean", "running_var")):
            value.uniform_(0.5, 1.5)
    return net.eval()


def save(value: Any) -> bytes:
    data = io.BytesIO()
    torch.save(value, data)
    return data.getvalue()


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkout(tmp_path_factory.mktemp("upstream") / "tinynet")


@pytest.fixture(scope="module")
def weights() -> bytes:
    return save(tiny_net().state_dict())


def run_one(checkout: Path, data: bytes, **fields: Any) -> np.ndarray:
    x = np.random.default_rng(1).standard_normal((1, 3, 17, 23)).astype(np.float32)
    chosen = recipe(**fields)
    with open_upstream(read_upstream(checkout, chosen), chosen, data) as net:
        return net.run(x)


def expected(head: int = 0) -> np.ndarray:
    x = np.random.default_rng(1).standard_normal((1, 3, 17, 23)).astype(np.float32)
    with torch.no_grad():
        return np.asarray(tiny_net()(torch.from_numpy(x))[head].numpy())


def test_the_child_answers_what_the_net_answers(checkout: Path, weights: bytes) -> None:
    np.testing.assert_allclose(run_one(checkout, weights), expected(), atol=1e-6)


def test_the_head_is_chosen(checkout: Path, weights: bytes) -> None:
    np.testing.assert_allclose(run_one(checkout, weights, head=1), expected(1), atol=1e-6)


@pytest.mark.parametrize("form", ["model", "both"])
def test_wrapped_state_dicts_are_unwrapped(checkout: Path, form: str) -> None:
    state = dict(tiny_net().state_dict())
    if form in ("module", "both"):
        state = {f"module.{k}": v for k, v in state.items()}
    value = {"state_dict": state} if form in ("state_dict", "both") else state
    value = {"model": state, "epoch": 3} if form == "model" else value
    np.testing.assert_allclose(run_one(checkout, save(value)), expected(), atol=1e-6)


class Harm:
    """Unpickles into a call, as a hostile checkpoint would."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.mark,))


@pytest.mark.parametrize(
    "kind", ["hostile", "text", "list", "missing key", "extra key", "other shape"]
)
def test_a_checkpoint_of_another_kind_is_one_line(
    checkout: Path, tmp_path: Path, kind: str
) -> None:
    state = dict(tiny_net().state_dict())
    data = {
        "hostile": pickle.dumps(Harm(tmp_path / "mark"), 2),
        "text": b"no weights",
        "list": save([torch.zeros(1)]),
        "missing key": save({k: v for k, v in state.items() if k != "head.bias"}),
        "extra key": save(state | {"more": torch.zeros(1)}),
        "other shape": save(state | {"head.bias": torch.zeros(2)}),
    }[kind]
    with pytest.raises(ModelError) as caught:
        run_one(checkout, data)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize(
    ("license_text", "words"),
    [
        (None, "no LICENSE"),
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
    with pytest.raises(ModelError, match="no git directory"):
        read_upstream(write_files(tmp_path / "up", FILES), recipe())


def test_a_module_of_other_bytes_is_refused(checkout: Path) -> None:
    good = sha256_hex(NET.encode())
    assert read_upstream(checkout, recipe(module_sha256=good)).code == NET.encode()
    with pytest.raises(VerificationError, match="the recipe says"):
        read_upstream(checkout, recipe(module_sha256="0" * 64))


def test_the_work_tree_and_planted_bytecode_are_not_run(tmp_path: Path, weights: bytes) -> None:
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
    np.testing.assert_allclose(run_one(checkout, weights), expected(), atol=1e-6)
    assert not mark.exists()


@pytest.mark.parametrize(
    "line", ["import os", "from subprocess import run", "import numpy", "from . import x"]
)
def test_imports_that_are_not_admitted(tmp_path: Path, line: str) -> None:
    checkout = make_checkout(tmp_path / "up", FILES | {"model/tinynet.py": f"{line}\n{NET}"})
    with pytest.raises(ModelError, match=r"tinynet.py:1: imports"):
        read_upstream(checkout, recipe())


@pytest.mark.parametrize(
    "line",
    [
        "torch.os.system('touch MARK')",
        "open('MARK', 'w')",
        "torch.os.remove('/etc/hostname')",
        "open('../../../../../../etc/hostname').read()",
        "__import__('socket').create_connection(('127.0.0.1', 9))",
        "__import__('subprocess').run(['touch', 'MARK'])",
    ],
)
def test_what_a_net_never_needs_is_refused_in_the_child(
    tmp_path: Path, weights: bytes, line: str
) -> None:
    mark = tmp_path / "mark"
    code = NET + "\n" + line.replace("MARK", str(mark)) + "\n"
    checkout = make_checkout(tmp_path / "up", FILES | {"model/tinynet.py": code})
    with pytest.raises(ModelError, match="tried") as caught:
        run_one(checkout, weights)
    assert "\n" not in str(caught.value)
    assert not mark.exists()


def test_the_environment_is_empty(
    tmp_path: Path, weights: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "x")
    code = NET + "\nassert not {'SECRET_TOKEN', 'HOME', 'PATH'} & set(torch.os.environ)\n"
    checkout = make_checkout(tmp_path / "up", FILES | {"model/tinynet.py": code})
    np.testing.assert_allclose(run_one(checkout, weights), expected(), atol=1e-6)


def test_too_much_memory_is_one_line(tmp_path: Path, weights: bytes) -> None:
    code = NET + "\nhold = bytearray(1 << 36)\n"
    checkout = make_checkout(tmp_path / "up", FILES | {"model/tinynet.py": code})
    with pytest.raises(ModelError, match="MemoryError") as caught:
        run_one(checkout, weights)
    assert "\n" not in str(caught.value)


def test_what_the_upstream_prints_does_not_spoil_the_answers(
    tmp_path: Path, weights: bytes
) -> None:
    code = NET + "\nprint('hello')\n"
    checkout = make_checkout(tmp_path / "up", FILES | {"model/tinynet.py": code})
    np.testing.assert_allclose(run_one(checkout, weights), expected(), atol=1e-6)


def test_no_folder_is_left(checkout: Path, weights: bytes) -> None:
    chosen = recipe()
    with open_upstream(read_upstream(checkout, chosen), chosen, weights) as net:
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
    ("name", "words"), [("nothing", "no mirror recipe"), ("bad.toml", "not a mirror recipe")]
)
def test_a_recipe_that_is_none_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.toml").write_text('id = "x"\nlicense = "CC-BY-NC-4.0"\n')
    with pytest.raises(UsageError, match=words) as caught:
        load_recipe(name)
    assert "\n" not in str(caught.value)
