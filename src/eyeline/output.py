"""Files that appear whole or not at all: the one owner of temporary names, fsync and rename.

`whole_file`, `whole_folder` and `open_output` are for one write, a `Sink` for a result that grows
frame by frame.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
import sys
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from eyeline.errors import DamagedMediaError, OutputError


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
