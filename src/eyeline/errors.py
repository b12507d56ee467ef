"""All errors of eyeline, as one tree with exit codes.

::

    EyelineError                  exit 2
     +-- UsageError               options that contradict each other, or that cannot be met
     +-- MediaError               a video or image that cannot be read or written as asked
     |    +-- DamagedMediaError   exit 3: decoding stopped before the end; earlier frames are kept
     |    +-- SeekError           the frames differ from the packet index; decode from the start
     |    +-- SeamError           segments that do not join exactly; run the video in one piece
     +-- OutputError              a result that cannot be written (permissions, full disk)
     +-- LogError                 a log that cannot be read, or that belongs to another video
     +-- ModelError               a model that cannot be used
     |    +-- ContractError       tensor names, ranks, types or values break the tensor contract
     |    +-- VerificationError   the bytes of a model differ from the registered ones
     |    +-- RegistryError       an unknown model id, or an invalid registry file
     |    +-- ScanError           exit 1: the scanner rejects the model file
     |    +-- LicenceError        exit 1: the policy does not allow the licence terms
     +-- BatchError               a manifest or an output folder of a batch that cannot be used
     +-- DownloadError            an address that cannot be reached, or that serves other bytes
     +-- EncoderError             an encoder that is missing, died, or cannot do what was asked
     +-- QualityError             two videos that cannot be compared as asked
     +-- DatasetError             training or evaluation data that cannot be used
     +-- TrainingError            a training run that cannot start, or that diverged
     +-- MissingExtraError        an optional dependency is not installed

The message of an error says in one line what was given and what is allowed. Its `hint` says what to do.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any


class EyelineError(Exception):
    """Base class of all errors.

    Args:
        message: what is wrong, and where.
        hint: what the user can do about it.
    """

    exit_code = 2

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message

    def __reduce__(self) -> tuple[Any, ...]:
        # Pickle by attributes: subclasses have constructors of their own, and workers send errors back.
        return _rebuild, (type(self), self.args, self.__dict__)


def _rebuild(
    kind: type[EyelineError], args: tuple[Any, ...], state: dict[str, Any]
) -> EyelineError:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class UsageError(EyelineError):
    """Options contradict each other, or cannot be satisfied."""


class MediaError(EyelineError):
    """A video or image cannot be read or written as asked."""


class DamagedMediaError(MediaError):
    """Decoding stopped at damage; the frames before it were delivered.

    Args:
        message: what is wrong, and where.
        hint: what the user can do about it.
        frames: frames delivered before the damage.
    """

    exit_code = 3

    def __init__(self, message: str, hint: str = "", frames: int = 0) -> None:
        super().__init__(message, hint)
        self.frames = frames


class SeekError(MediaError):
    """The frames of a video differ from its packet index; it must be decoded from the start."""


class SeamError(MediaError):
    """Segments of a video do not join exactly; the video must be run in one piece."""


class OutputError(EyelineError):
    """A result cannot be written: permissions, a full disk, or an unknown suffix."""


class LogError(EyelineError):
    """A log cannot be read, or belongs to another video."""


class ModelError(EyelineError):
    """A model cannot be used."""


class ContractError(ModelError):
    """Tensor names, ranks, types or values break the tensor contract."""


class VerificationError(ModelError):
    """The bytes of a model file differ from the registered ones."""


class RegistryError(ModelError):
    """A model id is unknown, or a registry file is invalid."""


class ScanError(ModelError):
    """The scanner rejects a model file."""

    exit_code = 1


class LicenceError(ModelError):
    """The policy does not allow the licence terms."""

    exit_code = 1


class BatchError(EyelineError):
    """A manifest or an output folder of a batch cannot be used."""


class DownloadError(EyelineError):
    """A file cannot be downloaded, or its bytes differ from the pinned digest."""


class EncoderError(EyelineError):
    """An encoder is missing, died, or cannot do what was asked."""


class QualityError(EyelineError):
    """Two videos cannot be compared as asked."""


class DatasetError(EyelineError):
    """Training or evaluation data cannot be used."""


class TrainingError(EyelineError):
    """A training run cannot start, or it diverged."""


class MissingExtraError(EyelineError):
    """An optional dependency is not installed.

    Args:
        package: name of the missing package.
        extra: the extra of eyeline that installs it.
    """

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed", f"pip install 'eyeline[{extra}]'")


@contextlib.contextmanager
def needs_extra(extra: str) -> Iterator[None]:
    """Raise a missing module of the block, which holds imports, as a `MissingExtraError`."""
    try:
        yield
    except ModuleNotFoundError as exc:
        raise MissingExtraError(exc.name or "a package", extra) from exc


def first_line(exc: BaseException) -> str:
    """Return an exception's text as one line of at most 200 characters."""
    return " ".join(str(exc).split())[:200]
