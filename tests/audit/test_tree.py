"""Trees: what is read is what the commit pins, and reading runs nothing."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import zlib
from pathlib import Path

import pytest

from eyeline.audit.tree import GitTree, open_tree
from eyeline.errors import ModelError
from fake_upstream import FILES, README, git, make_checkout, write_files

MALFORMED_TREE = hashlib.sha1(b"tree 6\x00100644").hexdigest().encode()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    return make_checkout(tmp_path / "up")


def test_commit_and_tree_are_gits(checkout: Path) -> None:
    tree = open_tree(checkout)
    assert tree.commit == git(checkout, "rev-parse", "HEAD")
    assert tree.tree_id == git(checkout, "rev-parse", "HEAD^{tree}")
    assert list(tree.entries) == sorted(FILES)
    assert tree.text("README.md") == README


@pytest.mark.parametrize("form", ["bare", "packed", "detached", "mirror", "worktree"])
def test_every_form_of_a_git_directory(checkout: Path, tmp_path: Path, form: str) -> None:
    place = checkout
    if form == "bare":
        place = checkout / ".git"
    elif form == "packed":
        git(checkout, "gc", "-q")
        assert not (checkout / ".git/refs/heads/main").exists()
    elif form == "detached":
        git(checkout, "checkout", "-q", "--detach")
    elif form == "mirror":
        git(tmp_path, "clone", "-q", "--mirror", str(checkout), "copy.git")
        place = tmp_path / "copy.git"
    else:
        git(checkout, "worktree", "add", "-q", str(tmp_path / "linked"), "-b", "side")
        place = tmp_path / "linked"
    tree = open_tree(place)
    assert isinstance(tree, GitTree)
    assert tree.tree_id == git(checkout, "rev-parse", "HEAD^{tree}")
    assert tree.text("README.md") == README


def test_the_work_tree_is_not_what_is_read(checkout: Path) -> None:
    (checkout / "LICENSE").write_text("changed after the commit")
    (checkout / "extra.pth").write_bytes(b"x" * 10_000)
    tree = open_tree(checkout)
    assert tree.text("LICENSE") == FILES["LICENSE"]
    assert "extra.pth" not in tree.entries


def test_nothing_of_the_checkouts_configuration_runs(checkout: Path, tmp_path: Path) -> None:
    mark = tmp_path / "it-ran"
    harm = tmp_path / "harm.sh"
    harm.write_text(f"#!/bin/sh\ntouch {mark}\n")
    harm.chmod(0o755)
    (checkout / ".git/config").write_text(
        f"[core]\n repositoryformatversion = 1\n fsmonitor = {harm}\n sshCommand = {harm}\n"
        f' pager = {harm}\n hooksPath = {tmp_path}\n[filter "x"]\n smudge = {harm}\n'
        "[extensions]\n partialClone = origin\n"
        f'[remote "origin"]\n url = "ext::{harm}"\n promisor = true\n uploadpack = {harm}\n'
        '[protocol "ext"]\n allow = always\n'
    )
    blob = git_blob(checkout, "README.md")
    (checkout / ".git/objects" / blob[:2] / blob[2:]).unlink()  # what a partial clone would fetch
    tree = open_tree(checkout)
    assert tree.read("README.md") is None
    assert tree.entries["README.md"].size is None
    assert tree.text("LICENSE") == FILES["LICENSE"]
    assert not mark.exists()


def git_blob(checkout: Path, path: str) -> str:
    return open_tree(checkout).entries[path].digest


def test_an_object_that_is_not_what_its_id_says_is_refused(checkout: Path) -> None:
    blob = git_blob(checkout, "README.md")
    place = checkout / ".git/objects" / blob[:2] / blob[2:]
    place.chmod(0o644)
    place.write_bytes(zlib.compress(b"blob 4\0evil"))
    with pytest.raises(ModelError, match=r"does not match its id|git can't read"):
        open_tree(checkout).read("README.md")


def test_a_malformed_tree_is_refused(checkout: Path) -> None:
    stored = ["-w", "--literally", "--stdin"]
    tree, commit = (
        subprocess.run(
            ["git", "hash-object", "-t", kind, *stored],
            cwd=checkout,
            input=data,
            capture_output=True,
            check=True,
        ).stdout.decode().strip()
        for kind, data in (("tree", b"100644"), ("commit", b"tree " + MALFORMED_TREE + b"\n"))
    )  # fmt: skip
    assert tree.encode() == MALFORMED_TREE
    (checkout / ".git/HEAD").write_text(f"{commit}\n")
    with pytest.raises(ModelError, match="is malformed"):
        open_tree(checkout).entries  # noqa: B018


def test_a_replaced_commit_is_not_followed(checkout: Path) -> None:
    first = git(checkout, "rev-parse", "HEAD")
    (checkout / "LICENSE").write_text("other terms")
    git(checkout, "commit", "-q", "-a", "-m", "second")
    git(checkout, "replace", first, "HEAD")
    git(checkout, "reset", "-q", "--hard", first)
    assert open_tree(checkout).text("LICENSE") == FILES["LICENSE"]


def test_a_sha256_repository(tmp_path: Path) -> None:
    checkout = make_checkout(tmp_path / "up", None, "--object-format=sha256")
    tree = open_tree(checkout)
    assert tree.commit == git(checkout, "rev-parse", "HEAD")
    assert len(tree.commit or "") == 64
    assert tree.text("README.md") == README


def test_links_and_submodules_are_listed_and_not_followed(tmp_path: Path) -> None:
    folder = tmp_path / "up"
    write_files(folder, FILES)
    (folder / "NOTICE").symlink_to("/etc/passwd")
    (folder / "away").symlink_to("/etc")
    plain = open_tree(folder)
    assert plain.entries["NOTICE"].kind == plain.entries["away"].kind == "link"
    assert plain.read("NOTICE") is None
    git(folder, "init", "-q", "-b", "main")
    git(folder, "add", "-A")
    git(folder, "update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},sub")
    git(folder, "commit", "-q", "-m", "first")
    tree = open_tree(folder)
    assert tree.entries["sub"].kind == "submodule"
    assert tree.entries["NOTICE"].kind == "link"
    assert tree.read("NOTICE") is None
    assert tree.read("sub") is None


def test_a_folder_without_git_has_a_digest_of_its_own(tmp_path: Path) -> None:
    one = open_tree(write_files(tmp_path / "one", FILES))
    two = open_tree(write_files(tmp_path / "two", FILES))
    other = open_tree(write_files(tmp_path / "three", FILES | {"README.md": "other"}))
    assert one.commit is None
    assert one.tree_id == two.tree_id != other.tree_id
    assert one.tree_id.startswith("sha256:")


def test_a_large_file_is_listed_and_not_read(tmp_path: Path) -> None:
    tree = open_tree(write_files(tmp_path / "up", {"big.txt": b"x" * 5_000_000}))
    assert tree.entries["big.txt"].size == 5_000_000
    assert tree.read("big.txt") is None


@pytest.mark.parametrize(
    "harm", ["missing", "file", "head", "nowhere", "outside", "empty", "gitfile"]
)
def test_what_is_no_checkout_is_one_line(checkout: Path, tmp_path: Path, harm: str) -> None:
    place = checkout
    if harm == "missing":
        place = tmp_path / "nothing"
    elif harm == "file":
        place = tmp_path / "f"
        place.write_text("x")
    elif harm == "head":
        (checkout / ".git/HEAD").write_text("nonsense\n")
    elif harm == "nowhere":
        (checkout / ".git/HEAD").write_text(f"{'0' * 40}\n")
    elif harm == "outside":
        (checkout / ".git/HEAD").write_text("ref: refs/../../../secret\n")
    elif harm == "empty":
        shutil.rmtree(checkout / ".git/objects")
    else:
        shutil.rmtree(checkout / ".git")
        (checkout / ".git").write_text("gitdir: ../nowhere\n")
    with pytest.raises(ModelError) as caught:
        open_tree(place).entries  # noqa: B018
    assert "\n" not in str(caught.value)
    assert caught.value.hint
