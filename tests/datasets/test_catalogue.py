"""The catalogue: what it says, what it refuses, and a fetch by the command from a local server."""

import hashlib
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import commands
from eyeline.datasets.catalogue import CatalogueEntry, catalogue, fetch, find_entry
from eyeline.errors import DatasetError


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        """Quiet."""


@pytest.fixture
def address(tmp_path: Path) -> str:
    (tmp_path / "www").mkdir()
    (tmp_path / "www/set.zip").write_bytes(b"an archive" * 100)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path / "www")))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}/set.zip"


def entry(address: str) -> CatalogueEntry:
    digest = hashlib.sha256(b"an archive" * 100).hexdigest()
    return CatalogueEntry(
        title="t", use="training", paper="p", terms="free", page="page",
        url=address, sha256=digest, size=1000,
    )  # fmt: skip


command = partial(commands.run, "data")


def test_what_can_be_fetched_is_pinned_whole() -> None:
    for row in catalogue().values():
        assert (row.url is None) == (row.sha256 is None) == (row.size is None)
    assert catalogue()["duts-tr"].size == 270_997_309


def test_a_pinned_archive_arrives(tmp_path: Path, address: str) -> None:
    fetch(entry(address), tmp_path / "set.zip")
    assert (tmp_path / "set.zip").read_bytes() == b"an archive" * 100


def test_a_set_that_is_not_pinned_says_where_to_ask(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"no checksum.*download it yourself from https://"):
        fetch(find_entry("ecssd"), tmp_path / "x.zip")


def test_an_unknown_name_lists_the_known() -> None:
    with pytest.raises(DatasetError, match=r"duts-tr, duts-te"):
        find_entry("imagenet")


def test_terms_come_first_and_need_a_yes(tmp_path: Path) -> None:
    done = command("fetch", "duts-tr", "-o", str(tmp_path / "x.zip"))
    assert done.returncode == 2
    assert done.stderr.index("terms: free for academic research") < done.stderr.index("add --yes")
    assert list(tmp_path.iterdir()) == []


def test_a_mirror_with_other_bytes_is_refused(tmp_path: Path, address: str) -> None:
    target = tmp_path / "x.zip"
    done = command("fetch", "duts-tr", "--yes", "-o", str(target), "--mirror", address)
    assert done.returncode == 2
    assert "not the pinned 270,997,309" in done.stderr
    assert not target.exists()


def test_the_list_names_terms() -> None:
    done = command("list")
    assert done.returncode == 0
    assert "duts-tr" in done.stdout
    assert done.stdout.count("terms:") == len(catalogue())


def test_the_doc_holds_every_row() -> None:
    doc = (Path(__file__).parents[2] / "docs/datasets.md").read_text()
    for name, row in catalogue().items():
        assert f"`{name}`" in doc
        assert row.page in doc
        assert row.sha256 is None or row.sha256 in doc
