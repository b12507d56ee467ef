"""Write files that appear whole or not at all, read bounded files, and download pinned files.

`whole_file`, `whole_folder` and `open_output` serve one write. `PendingFile` and `Sink` serve results
that grow frame by frame. All of them write to a temporary name in the same folder, call fsync, and
rename. `download` keeps the received bytes as `NAME.part`, resumes there at the next call, and renames
the file only when its sha256 is the pinned one.
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
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from eyeline.digests import file_sha256
from eyeline.errors import DamagedMediaError, DownloadError, OutputError, RegistryError, UsageError


def output_error(path: str | Path, exc: OSError) -> OutputError:
    """Return an `OSError` of a write as an `OutputError`."""
    return OutputError(f"{path}: can't be written: {exc.strerror or exc}", "nothing was left there")


@contextlib.contextmanager
def whole_file(path: str | Path, *, suffix: bool = True) -> Iterator[Path]:
    """Yield a temporary path that is renamed to `path` when the block ends without an error.

    Args:
        path: the final file.
        suffix: whether the temporary name keeps the suffix of `path`, which some writers need. Without
            the suffix, a pattern such as `**/*.parquet` does not match unfinished files.

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
        raise OutputError(f"{path}: the path is a folder", "name a file")
    if not stat.S_ISREG(mode):
        # A rename would replace a device or a pipe, such as /dev/null, by a file.
        try:
            yield target
        except OSError as exc:
            raise output_error(path, exc) from exc
        return
    target = target.resolve()  # so that a symbolic link stays a link
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
    """Yield a temporary folder that is renamed to `path` when the block ends without an error.

    Raises:
        OutputError: `path` exists and is not an empty folder, or it cannot be written.
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
    """Return whether `name` is a temporary name of `whole_file`."""
    return re.fullmatch(r"\..{1,40}\.[a-z0-9_]{8}\.part(\.[^.]*)?", name) is not None


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write `data` to a file that appears whole, or to stdout for `-`.

    Raises:
        OutputError: the file cannot be written.
    """
    with open_output(path) as f:
        f.write(data)


@contextlib.contextmanager
def open_output(path: str | Path) -> Iterator[BinaryIO]:
    """Yield a binary stream to a file that appears whole, or to stdout for `-`.

    Raises:
        OutputError: the file cannot be written, or the reader of stdout closed it.
    """
    if str(path) == "-":
        try:
            yield sys.stdout.buffer
            sys.stdout.buffer.flush()
        except OSError as exc:
            # Redirect stdout, so that the interpreter does not fail again when it flushes at exit.
            with contextlib.suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise output_error("stdout", exc) from exc
        return
    with whole_file(path, suffix=False) as temporary, temporary.open("wb") as f:
        yield f


class Sink(ABC):
    """A result that grows frame by frame and appears when it is committed.

    As a context manager it commits when the block ends without an error, when the user presses
    Ctrl-C, and when the video is damaged. Any other exception discards the result.
    """

    @abstractmethod
    def commit(self) -> None:
        """Rename the result to its final name; later calls do nothing."""

    @abstractmethod
    def discard(self) -> None:
        """Remove the unfinished result; later calls do nothing."""

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
    """`whole_file` for a writer that lives longer than one block.

    Args:
        path: the final file.

    Raises:
        OutputError: the file cannot be written.
    """

    def __init__(self, path: str | Path) -> None:
        self._block = whole_file(path)
        self.temporary = self._block.__enter__()

    def commit(self) -> None:
        """Rename the temporary file to its final name."""
        self._block.__exit__(None, None, None)

    def discard(self) -> None:
        """Remove the temporary file."""
        with contextlib.suppress(_DiscardedError):
            self._block.__exit__(_DiscardedError, _DiscardedError(), None)


class _DiscardedError(Exception):
    """Signal that ends a `whole_file` block without the rename."""


def check_outputs(
    files: Iterable[str | None],
    *,
    folders: Iterable[str | None] = (),
    inputs: Iterable[str] = (),
) -> None:
    """Check, before a long run begins, that its outputs can be written.

    Args:
        files: output files; `-` is stdout, and None an output that was not asked for.
        folders: output folders; only their names are compared.
        inputs: files that no output may replace; `-` is stdin.

    Raises:
        UsageError: two outputs have the same name, or an output is an input.
        OutputError: a file cannot be written.
    """
    named = [path for path in files if path is not None]
    taken = {Path(path).resolve(): "an input" for path in inputs if path != "-"}
    for path in (*named, *(folder for folder in folders if folder is not None)):
        place = Path(path).resolve()
        if place in taken:
            raise UsageError(
                f"{path}: {taken[place]} has the same name", "give each output its own name"
            )
        taken[place] = "another output"
    for path in named:
        if not Path(path).parent.is_dir():
            raise OutputError(f"{path}: its folder does not exist", "create the folder")
        if path != "-":
            PendingFile(path).discard()


MAX_MODEL_BYTES = 512 * 1024 * 1024


def read_regular_file(path: Path, limit: int = MAX_MODEL_BYTES) -> bytes:
    """Read a regular file of at most `limit` bytes.

    Raises:
        RegistryError: the file is missing, unreadable, empty, too large, or a folder, FIFO or device.
    """
    try:
        # O_NONBLOCK: opening a FIFO does not wait for a writer.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as exc:
        raise RegistryError(f"{path}: can't be read: {exc.strerror}", "check the path") from exc
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise RegistryError(f"{path}: the path is not a regular file", "name a file")
    with os.fdopen(handle, "rb") as f:
        status = os.fstat(f.fileno())
        if status.st_size == 0:
            raise RegistryError(f"{path}: the file is empty", "give a file with content")
        if status.st_size > limit:
            raise RegistryError(
                f"{path}: the file has {status.st_size} bytes; at most {limit} are allowed",
                "check the path",
            )
        return f.read(limit + 1)


BLOCK = 1 << 20  # bytes between two progress reports
TIMEOUT = 30.0  # seconds without a byte
RETRIES = 5
SCHEMES = ("http://", "https://")


@dataclass(frozen=True)
class Asset:
    """A file on the network with a pinned digest.

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
    """Download an asset, or resume an earlier download.

    Args:
        asset: address, digest and size.
        target: the final file; an existing file with the right digest is kept.
        on_progress: called with the bytes done and the bytes in total.
        retries: further attempts after a dropped connection that delivered nothing.
        pause: seconds before the first further attempt; doubled each time.

    Raises:
        DownloadError: the address cannot be reached, the connection keeps dropping, or the bytes
            differ from the pinned digest (the partial file is removed then).
        OutputError: the file cannot be written; the partial file is kept.
    """
    if target.exists():
        if file_sha256(target) == asset.sha256:
            on_progress(asset.size, asset.size)
            return target
        raise DownloadError(
            f"{target}: the file exists with another digest than the pinned one", "move it away"
        )
    part = target.with_name(target.name + ".part")
    attempt = 0
    while (before := _size(part)) < asset.size:
        try:
            _append(asset, part, on_progress)
        except (urllib.error.HTTPError, urllib.error.URLError) as exc:
            code = exc.code if isinstance(exc, urllib.error.HTTPError) else 500
            if code == 416 and before:  # the server refuses the range: start again
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
                    f"{asset.url}: the download stopped at byte {before:,} of {asset.size:,}: {failure}",
                    "run the command again; it resumes there",
                )
            time.sleep(pause * 2 ** (attempt - 1))
    if (found := file_sha256(part)) != asset.sha256:
        part.unlink()
        raise DownloadError(
            f"{asset.url}: sha256 is {found[:16]}..., not the pinned {asset.sha256[:16]}...",
            "the address now serves another file; nothing was kept",
        )
    part.replace(target)
    return target


def _append(asset: Asset, part: Path, on_progress: Callable[[int, int], None]) -> None:
    if not asset.url.startswith(SCHEMES):
        raise DownloadError(
            f"{asset.url}: this is not an http or https address", "give an http or https address"
        )
    have = _size(part)
    request = urllib.request.Request(asset.url, headers={"User-Agent": "eyeline"})  # noqa: S310
    if have:
        request.add_header("Range", f"bytes={have}-")
    with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:  # noqa: S310
        if have and not _continues(answer, have):
            have = 0  # a server without range support sends the whole file
        length = answer.headers.get("Content-Length")
        if length is not None and have + int(length) != asset.size:
            raise DownloadError(
                f"{asset.url}: the file has {have + int(length):,} bytes, not the pinned {asset.size:,}",
                "the address now serves another file",
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
    return answer.status == 206 and (answer.headers.get("Content-Range") or "").startswith(
        f"bytes {have}-"
    )


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
