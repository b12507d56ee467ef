"""Downloads against a real local server that drops, refuses ranges and serves the wrong bytes."""

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from eyeline.errors import DownloadError
from eyeline.files import Asset, download

DATA = bytes(range(256)) * 2000  # 512 kB
DIGEST = hashlib.sha256(DATA).hexdigest()


class Server(ThreadingHTTPServer):
    """`behaviour` says what the next answers do; `ranges` is what was asked for."""

    behaviour = "ranges"
    ranges: list[str | None]


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.server.ranges.append(wanted)
        behaviour = self.server.behaviour
        start = int(wanted.split("=")[1].rstrip("-")) if wanted else 0
        if behaviour == "gone":
            self.send_error(404)
            return
        if behaviour == "refuses" and wanted:
            self.send_error(416)
            return
        if behaviour == "ignores":
            start = 0
        body = DATA[start:]
        if behaviour == "other":
            body = b"x" * len(body)
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(DATA) - 1}/{len(DATA)}")
        self.send_header("Content-Length", str(len(body) - (behaviour == "shorter")))
        self.end_headers()
        if behaviour == "drops":
            body = body[:100_000]
        if behaviour != "silent":
            self.wfile.write(body)
        self.close_connection = True

    def log_message(self, *args: Any) -> None:
        """Quiet."""


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server(("127.0.0.1", 0), Handler)
    server.ranges = []
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def asset(server: Server, digest: str = DIGEST) -> Asset:
    return Asset(f"http://127.0.0.1:{server.server_port}/set.zip", digest, len(DATA))


def test_a_file_arrives_and_progress_ends_at_its_size(server: Server, tmp_path: Path) -> None:
    notes: list[tuple[int, int]] = []
    download(asset(server), tmp_path / "f", lambda done, total: notes.append((done, total)))
    assert (tmp_path / "f").read_bytes() == DATA
    assert notes[-1] == (len(DATA), len(DATA))
    assert not (tmp_path / "f.part").exists()


def test_a_connection_that_drops_is_resumed(server: Server, tmp_path: Path) -> None:
    server.behaviour = "drops"
    download(asset(server), tmp_path / "f", pause=0.01)
    assert (tmp_path / "f").read_bytes() == DATA
    assert server.ranges[:3] == [None, "bytes=100000-", "bytes=200000-"]


def test_a_second_call_goes_on_where_the_first_stopped(server: Server, tmp_path: Path) -> None:
    (tmp_path / "f.part").write_bytes(DATA[:300_000])
    download(asset(server), tmp_path / "f")
    assert server.ranges == ["bytes=300000-"]
    assert (tmp_path / "f").read_bytes() == DATA


@pytest.mark.parametrize("behaviour", ["ignores", "refuses"])
def test_a_server_without_ranges_sends_it_all_again(
    server: Server, tmp_path: Path, behaviour: str
) -> None:
    server.behaviour = behaviour
    (tmp_path / "f.part").write_bytes(b"stale" * 1000)
    download(asset(server), tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == DATA


def test_other_bytes_leave_nothing(server: Server, tmp_path: Path) -> None:
    server.behaviour = "other"
    with pytest.raises(DownloadError, match="not the pinned"):
        download(asset(server), tmp_path / "f")
    assert list(tmp_path.iterdir()) == []


def test_another_length_is_refused_before_the_body(server: Server, tmp_path: Path) -> None:
    server.behaviour = "shorter"
    with pytest.raises(DownloadError, match="511,999 bytes, not the pinned 512,000"):
        download(asset(server), tmp_path / "f")


def test_a_server_that_sends_nothing_is_given_up(server: Server, tmp_path: Path) -> None:
    server.behaviour = "silent"
    (tmp_path / "f.part").write_bytes(DATA[:1000])
    with pytest.raises(DownloadError, match=r"stopped at byte 1,000 of 512,000.*resumes there"):
        download(asset(server), tmp_path / "f", retries=2, pause=0.01)
    assert (tmp_path / "f.part").read_bytes() == DATA[:1000]
    assert len(server.ranges) == 3


def test_a_missing_file_is_named(server: Server, tmp_path: Path) -> None:
    server.behaviour = "gone"
    with pytest.raises(DownloadError, match=r"set\.zip: HTTP Error 404"):
        download(asset(server), tmp_path / "f")
    assert len(server.ranges) == 1


def test_a_file_that_is_there_is_kept_or_refused(server: Server, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(DATA)
    download(asset(server), tmp_path / "f")
    assert server.ranges == []
    (tmp_path / "f").write_bytes(b"mine")
    with pytest.raises(DownloadError, match="another digest"):
        download(asset(server), tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == b"mine"


def test_a_local_file_address_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="this is not an http or https address"):
        download(Asset("file:///etc/hostname", DIGEST, 10), tmp_path / "f")


def test_a_closed_port_is_one_clear_line(tmp_path: Path) -> None:
    closed = Asset("http://127.0.0.1:9/set.zip", DIGEST, 10)
    with pytest.raises(DownloadError, match="stopped at byte 0 of 10"):
        download(closed, tmp_path / "f", retries=1, pause=0.01)
