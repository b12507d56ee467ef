"""The parity gate: what it measures, and what it must not let through."""

from __future__ import annotations

import json

import numpy as np
import pytest

from eyeline.errors import ModelError
from eyeline.models.parity import GATE, SIZES, check_parity

SMALL = ((4, 6), (5, 7))


def first(x: np.ndarray) -> np.ndarray:
    return x[:, :1]


def test_a_function_equals_itself() -> None:
    report = check_parity(first, first, sizes=SMALL, inputs=3)
    assert (report.max_abs, report.mean_abs, report.cases, report.passed) == (0, 0, 6, True)


def test_a_constant_difference_is_measured() -> None:
    report = check_parity(first, lambda x: first(x).astype(np.float64) + 0.25, sizes=SMALL)
    assert report.max_abs == pytest.approx(0.25, abs=1e-12)
    assert report.mean_abs == pytest.approx(0.25, abs=1e-12)
    assert not report.passed


def test_the_worst_pixel_is_located() -> None:
    def off(x: np.ndarray) -> np.ndarray:
        y = first(x).astype(np.float64)
        if x.shape[-2:] == (5, 7):
            y[0, 0, 3, 6] += 1e-3
        return y

    report = check_parity(first, off, sizes=SMALL, inputs=2)
    assert report.worst == ((5, 7), 0, (3, 6))
    assert report.max_abs == pytest.approx(1e-3)
    assert report.mean_abs == pytest.approx(2 * 1e-3 / (2 * (24 + 35)))


def test_the_gate_itself_does_not_pass() -> None:
    def near(x: np.ndarray) -> np.ndarray:
        return first(x) * 0

    def exactly_at(x: np.ndarray) -> np.ndarray:
        return near(x).astype(np.float64) + GATE

    assert not check_parity(near, exactly_at, sizes=SMALL).passed
    assert check_parity(near, exactly_at, sizes=SMALL, gate=2 * GATE).passed


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("side", ["source", "candidate", "both"])
def test_nan_and_infinity_never_pass(value: float, side: str) -> None:
    def broken(x: np.ndarray) -> np.ndarray:
        y = first(x).copy()
        y[0, 0, 1, 1] = value
        return y

    source = first if side == "candidate" else broken
    candidate = first if side == "source" else broken
    with np.errstate(invalid="ignore"):
        assert not check_parity(source, candidate, sizes=SMALL).passed


def test_another_output_size_is_refused() -> None:
    with pytest.raises(ModelError, match="output size") as caught:
        check_parity(first, lambda x: first(x)[..., :1, :1], sizes=SMALL)
    assert "\n" not in str(caught.value)


def test_sizes_are_rounded_up_to_the_multiple() -> None:
    seen: set[tuple[int, ...]] = set()

    def watch(x: np.ndarray) -> np.ndarray:
        seen.add(x.shape)
        return first(x)

    check_parity(watch, first, sizes=((8, 9), (16, 1)), inputs=1, multiple=8)
    assert seen == {(1, 3, 8, 16), (1, 3, 16, 8)}


def test_inputs_are_the_same_for_a_seed_and_differ_within_a_run() -> None:
    def record(seed: int) -> list[bytes]:
        seen: list[bytes] = []

        def watch(x: np.ndarray) -> np.ndarray:
            seen.append(x.tobytes())
            return first(x)

        check_parity(watch, first, sizes=SMALL, inputs=2, seed=seed)
        return seen

    assert record(3) == record(3)
    assert len({*record(3), *record(4)}) == 8


def test_odd_and_portrait_sizes_are_among_the_default_ones() -> None:
    assert any(h % 2 and w % 2 for h, w in SIZES)
    assert any(h > w for h, w in SIZES)


def test_a_report_is_json() -> None:
    report = check_parity(first, first, sizes=SMALL, inputs=1)
    assert json.loads(json.dumps(report.to_json())) == {
        "max_abs": 0.0,
        "mean_abs": 0.0,
        "worst": [[4, 6], 0, [0, 0]],
        "cases": 2,
        "gate": GATE,
        "passed": True,
    }
