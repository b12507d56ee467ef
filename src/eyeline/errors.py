"""Every error that eyeline raises on purpose.

::

    EyelineError                  exit 2
     +-- UsageError               an option that contradicts another, or can't be honoured
     +-- MediaError               a video or image that can't be read or written as asked
     |    +-- DamagedMediaError   exit 3: it stopped part-way; what was decoded is kept
     |    +-- SeekError           its frames are not where its packets promised: read it from its start
     |    +-- SeamError           segments of a video that do not join: run it in one piece
     +-- OutputError              a result that can't be written (permissions, full disk)
     +-- LogError                 a log that can't be read, or does not belong to this video
     +-- ModelError               a model that can't be used
     |    +-- ContractError       tensor names, ranks, types or values are not the contract's
     |    +-- VerificationError   bytes that are not the registered ones
     |    +-- RegistryError       unknown id, or a registry that does not parse
     |    +-- ScanError           exit 1: a file that the scanner does not admit
     |    +-- LicenceError        exit 1: terms that the policy does not admit
     +-- BatchError               a manifest or an output folder of a batch that can't be used
     +-- DownloadError            an address that can't be reached, or serves other bytes than pinned
     +-- EncoderError             an encoder that is absent, died, or can't honour what was asked
     +-- QualityError             two videos that can't be compared as asked
     +-- DatasetError             training or evaluation data that can't be used
     +-- TrainingError            a run that can't start, or diverged
     +-- MissingExtraError        an optional dependency is not installed

A message is one clear line: what is wrong and where; `hint` says what to do about it.
"""

from __future__ import annotations

from typing import Any


class EyelineError(Exception):
    """Base of the tree.

    Args:
        message: what is wrong, and where.
        hint: what the reader can do about it.
    """

    exit_code = 2

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message

    def __reduce__(self) -> tuple[Any, ...]:
        # By its parts: a worker's error reaches the driver whatever its constructor takes.
        return _rebuild, (type(self), self.args, self.__dict__)


def _rebuild(
    kind: type[EyelineError], args: tuple[Any, ...], state: dict[str, Any]
) -> EyelineError:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class UsageError(EyelineError):
    """Options that contradict each other or that cannot be honoured."""


class MediaError(EyelineError):
    """A video or image that cannot be read or written as asked."""


class DamagedMediaError(MediaError):
    """Decoding stopped part-way: the frames before the damage were delivered.

    Args:
        message: what is wrong, and where.
        hint: what the reader can do about it.
        frames: frames delivered before the damage.
    """

    exit_code = 3

    def __init__(self, message: str, hint: str = "", frames: int = 0) -> None:
        super().__init__(message, hint)
        self.frames = frames


class SeekError(MediaError):
    """A video whose frames are not where its packets promised: it has to be read from its start."""


class SeamError(MediaError):
    """Segments of a video that do not join exactly: it has to be run in one piece."""


class OutputError(EyelineError):
    """A result that cannot be written: permissions, a full disk, an unknown suffix."""


class LogError(EyelineError):
    """A log that cannot be read, or that does not belong to this video."""


class ModelError(EyelineError):
    """A model that cannot be used."""


class ContractError(ModelError):
    """Tensor names, ranks, types or values are not those of the contract."""


class VerificationError(ModelError):
    """A model file whose bytes are not the registered ones."""


class RegistryError(ModelError):
    """An unknown model id, or a registry that does not parse."""


class ScanError(ModelError):
    """A model file that the scanner does not admit."""

    exit_code = 1


class LicenceError(ModelError):
    """Licence terms that the policy does not admit."""

    exit_code = 1


class BatchError(EyelineError):
    """A manifest, or the output folder of a batch, that cannot be used."""


class DownloadError(EyelineError):
    """A file that cannot be fetched, or whose bytes are not the pinned ones."""


class EncoderError(EyelineError):
    """An encoder that is absent, that died, or that cannot honour what was asked."""


class QualityError(EyelineError):
    """Two videos that cannot be compared as asked."""


class DatasetError(EyelineError):
    """Training or evaluation data that cannot be used."""


class TrainingError(EyelineError):
    """A training run that cannot start, or that diverged."""


class MissingExtraError(EyelineError):
    """An optional dependency that is not installed.

    Args:
        package: the import that failed.
        extra: the extra of eyeline that brings it.
    """

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed", f"pip install 'eyeline[{extra}]'")
