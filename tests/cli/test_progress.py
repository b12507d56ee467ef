"""Progress: silent without a terminal; Ctrl-C waits for the frame that is being written."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from eyeline.cli.progress import InterruptShield, frame_progress, item_progress


@pytest.fixture
def shield() -> Iterator[InterruptShield]:
    before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
    yield InterruptShield()
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_outside_a_block_interrupts_at_once(
    shield: InterruptShield, number: signal.Signals
) -> None:
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), number)


def test_a_signal_inside_a_block_waits_for_its_end(shield: InterruptShield) -> None:
    written = []
    with pytest.raises(KeyboardInterrupt), shield:
        os.kill(os.getpid(), signal.SIGINT)
        written.append("whole")
    assert written == ["whole"]


def test_a_second_signal_does_not_wait(shield: InterruptShield) -> None:
    written = []
    with pytest.raises(KeyboardInterrupt), shield:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        written.append("whole")
    assert written == []


def test_nothing_is_drawn_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with frame_progress(10, quiet=False) as advance:
        advance()
    with item_progress("work", quiet=False) as report:
        report("part", 1, 2)
    assert capsys.readouterr() == ("", "")
