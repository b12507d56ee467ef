"""Files that appear whole or not at all: the one owner of temporary names, fsync and rename.

`whole_file`, `whole_folder` and `open_output` are for one write, a `Sink` for a result that grows
frame by frame.

Model files as bytes: read once, regular files alone, bounded.

Files from the network by pinned digest: resumed after a drop, checked before they appear.

The part that has arrived is kept beside the target as `NAME.part`, so that a second call goes on
where the first one stopped. A file appears under its own name only when its sha256 is the pinned
one.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import shutil
import stat
import sys
import tempfile
import time
import urllib.error
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from eyeline.digests import file_sha256
from eyeline.errors import DamagedMediaError, DownloadError, OutputError, RegistryError


def output_error(path: str | Path, exc: OSError) -> OutputError:
    """An `OSError` while writing, as one clear line."""
    return OutputError(f"{path}: can't be written: {exc.strerror or exc}", "nothing was left there")


@contextlib.contextmanager
def whole_file(path: str | Path, *, suffix: bool = True) -> Iterator[Path]:
    """Give a temporary name beside `path`; it becomes `path` when the block ends well.

    Args:
        path: the file that is to appear.
        suffix: give the temporary name the same suffix, which some writers go by. Without it, no
            pattern such as `**/*.parquet` finds what is not finished.

    Yields:
        The temporary path, in the same folder.

    Raises:
        OutputError: the folder is missing or not writable, or the disk is full.
    """
    target = Path(path)
    try:
        mode = target.stat().st_mode
    except FileNotFoundError:
        mode = stat.S_IFREG
    except OSError as exc:
        raise output_error(path, exc) from exc
    if stat.S_ISDIR(mode):
        raise OutputError(f"{path}: is a folder", "name a file")
    if not stat.S_ISREG(mode):
        # A device or a pipe, such as /dev/null: a rename would put a file in its place.
        try:
            yield target
        except OSError as exc:
            raise output_error(path, exc) from exc
        return
    target = target.resolve()  # a symbolic link keeps pointing where it did
    try:
        handle, name = tempfile.mkstemp(
            prefix=f".{target.stem[:40]}.",
            suffix=f".part{target.suffix if suffix else ''}",
            dir=target.parent,
        )
        os.close(handle)
    except OSError as exc:
        raise output_error(path, exc) from exc
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as f:
            os.fsync(f.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(target)
    except OSError as exc:
        raise output_error(path, exc) from exc
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Give a temporary folder beside `path`; it becomes `path` when the block ends well.

    Yields:
        The temporary folder.

    Raises:
        OutputError: `path` is there and is not an empty folder, or cannot be written.
    """
    target = path.resolve()
    try:
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise OutputError(f"{path} exists already", "name a folder that does not exist")
        temporary = Path(tempfile.mkdtemp(prefix=f".{target.name[:40]}.", dir=target.parent))
    except OSError as exc:
        raise output_error(path, exc) from exc
    try:
        yield temporary
        temporary.chmod(0o777 & ~_umask())
        temporary.replace(target)
    except OSError as exc:
        raise output_error(path, exc) from exc
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def is_temporary(name: str) -> bool:
    """Whether a file's name is one that `whole_file` gives to what is not finished."""
    return re.fullmatch(r"\..{1,40}\.[a-z0-9_]{8}\.part(\.[^.]*)?", name) is not None


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write `data` to a file that appears whole, or to stdout for `-`.

    Raises:
        OutputError: see `whole_file`.
    """
    with open_output(path) as f:
        f.write(data)


@contextlib.contextmanager
def open_output(path: str | Path) -> Iterator[BinaryIO]:
    """A stream whose bytes become the file `path` when the block ends well, or stdout for `-`.

    Raises:
        OutputError: see `whole_file`; or stdout was closed by its reader.
    """
    if str(path) == "-":
        try:
            yield sys.stdout.buffer
            sys.stdout.buffer.flush()
        except OSError as exc:
            # What is still buffered can't be written either: the interpreter must not try at exit.
            with contextlib.suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise output_error("stdout", exc) from exc
        return
    with whole_file(path, suffix=False) as temporary, temporary.open("wb") as f:
        yield f


class Sink(ABC):
    """A result that grows frame by frame and appears when it is committed.

    As a context manager it commits when the block ends well, and also when the block is stopped
    by Ctrl-C or by damage in the video, since what was finished is worth keeping. Any other
    exception discards it.
    """

    @abstractmethod
    def commit(self) -> None:
        """Make what was written appear; later calls do nothing."""

    @abstractmethod
    def discard(self) -> None:
        """Leave nothing behind; later calls do nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None or issubclass(kind, KeyboardInterrupt | DamagedMediaError):
            self.commit()
        else:
            self.discard()


class PendingFile:
    """`whole_file` for a writer whose life is longer than a block.

    Args:
        path: the file that is to appear.

    Raises:
        OutputError: see `whole_file`.
    """

    def __init__(self, path: str | Path) -> None:
        self._block = whole_file(path)
        self.temporary = self._block.__enter__()

    def commit(self) -> None:
        """Rename the temporary file to its name."""
        self._block.__exit__(None, None, None)

    def discard(self) -> None:
        """Remove the temporary file."""
        with contextlib.suppress(_DiscardedError):
            self._block.__exit__(_DiscardedError, _DiscardedError(), None)


class _DiscardedError(Exception):
    """Ends a `whole_file` block without its file."""


MAX_MODEL_BYTES = 512 * 1024 * 1024


def read_regular_file(path: Path, limit: int = MAX_MODEL_BYTES) -> bytes:
    """Read a file once, refusing what is not a regular file or is larger than `limit` bytes.

    Raises:
        RegistryError: missing, unreadable, a folder, FIFO or device, empty, or too large.
    """
    try:
        # O_NONBLOCK: opening a FIFO must not wait for a writer; it is refused one line below.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as exc:
        raise RegistryError(f"{path}: can't be read: {exc.strerror}", "check the path") from exc
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise RegistryError(f"{path}: not a regular file", "name a file")
    with os.fdopen(handle, "rb") as f:
        status = os.fstat(f.fileno())
        if status.st_size == 0:
            raise RegistryError(f"{path}: the file is empty", "is it the right one?")
        if status.st_size > limit:
            raise RegistryError(
                f"{path}: {status.st_size} bytes, more than {limit}", "is it the right one?"
            )
        return f.read(limit + 1)


BLOCK = 1 << 20  # bytes between two notes of progress
TIMEOUT = 30.0  # seconds without a byte
RETRIES = 5
SCHEMES = ("http://", "https://")


@dataclass(frozen=True)
class Asset:
    """A file on the network whose bytes are known in advance.

    Attributes:
        url: http or https address.
        sha256: hex digest of the whole file.
        size: bytes.
    """

    url: str
    sha256: str
    size: int


def download(
    asset: Asset,
    target: Path,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    *,
    retries: int = RETRIES,
    pause: float = 1.0,
) -> Path:
    """Fetch an asset, or go on where an earlier call stopped.

    Args:
        asset: what to fetch.
        target: the file's name; one that is there already with the right digest is kept.
        on_progress: called with bytes done and in all.
        retries: further attempts after a drop that brought nothing new.
        pause: seconds before an attempt, doubled each time.

    Raises:
        DownloadError: the address can't be reached, keeps dropping, or serves other bytes than the
            pinned ones (nothing is left then).
        OutputError: the file can't be written; what arrived is kept.
    """
    if target.exists():
        if file_sha256(target) == asset.sha256:
            on_progress(asset.size, asset.size)
            return target
        raise DownloadError(f"{target}: is there, with other bytes", "move it away")
    part = target.with_name(target.name + ".part")
    attempt = 0
    while (before := _size(part)) < asset.size:
        try:
            _append(asset, part, on_progress)
        except (urllib.error.HTTPError, urllib.error.URLError) as exc:
            code = exc.code if isinstance(exc, urllib.error.HTTPError) else 500
            if code == 416 and before:  # the range is refused: from the start
                part.unlink()
                continue
            if code < 500:
                raise DownloadError(f"{asset.url}: {exc}", "check the address") from exc
            failure = str(exc.reason)
        except (http.client.HTTPException, TimeoutError, ConnectionError) as exc:
            failure = str(exc) or type(exc).__name__
        else:
            failure = "the connection ended early"
        if _size(part) > before:
            attempt = 0
        elif _size(part) < asset.size:
            attempt += 1
            if attempt > retries:
                raise DownloadError(
                    f"{asset.url}: stopped at byte {before:,} of {asset.size:,}: {failure}",
                    "run it again: it goes on from there",
                )
            time.sleep(pause * 2 ** (attempt - 1))
    if (found := file_sha256(part)) != asset.sha256:
        part.unlink()
        raise DownloadError(
            f"{asset.url}: sha256 is {found[:16]}..., not the pinned {asset.sha256[:16]}...",
            "the address serves another file today: nothing was kept",
        )
    part.replace(target)
    return target


def _append(asset: Asset, part: Path, on_progress: Callable[[int, int], None]) -> None:
    """One request for what is missing, written behind what is there."""
    if not asset.url.startswith(SCHEMES):
        raise DownloadError(f"{asset.url}: neither http nor https", "give such an address")
    have = _size(part)
    request = urllib.request.Request(asset.url, headers={"User-Agent": "eyeline"})  # noqa: S310
    if have:
        request.add_header("Range", f"bytes={have}-")
    with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:  # noqa: S310
        if have and not _continues(answer, have):
            have = 0  # a server without ranges sends the whole file again
        length = answer.headers.get("Content-Length")
        if length is not None and have + int(length) != asset.size:
            raise DownloadError(
                f"{asset.url}: has {have + int(length):,} bytes, not the pinned {asset.size:,}",
                "the address serves another file today",
            )
        try:
            with part.open("ab" if have else "wb") as f:
                while block := answer.read(min(BLOCK, asset.size - have)):
                    f.write(block)
                    have += len(block)
                    on_progress(have, asset.size)
        except http.client.HTTPException:
            raise
        except OSError as exc:
            if isinstance(exc, ConnectionError | TimeoutError):
                raise
            raise output_error(part, exc) from exc


def _continues(answer: http.client.HTTPResponse, have: int) -> bool:
    """Whether an answer goes on at byte `have`."""
    return answer.status == 206 and (answer.headers.get("Content-Range") or "").startswith(
        f"bytes {have}-"
    )


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
