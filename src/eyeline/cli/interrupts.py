"""Ctrl-C and SIGTERM that never split a row: what a frame wrote, it wrote everywhere."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType


class InterruptShield:
    """Turns SIGINT and SIGTERM into `KeyboardInterrupt`, held back while its `with` block runs.

    A second signal while one is held back is not held back.
    """

    def __init__(self) -> None:
        self._inside = False
        self._pending = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._inside and not self._pending:
            self._pending = True
            return
        raise KeyboardInterrupt

    def __enter__(self) -> None:
        self._inside = True

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._inside = False
        if self._pending and error is None:
            self._pending = False
            raise KeyboardInterrupt
