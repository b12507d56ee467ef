"""The parity gate: what it measures, and what it must not let through."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eyeline.convert.parity import (
    DOUBLE_LIMIT,
    GATE,
    SIZES,
    NetFunction,
    ParityInputs,
    ParityProof,
    ParityReport,
    check_parity,
    natural_inputs,
    prove_parity,
)
from eyeline.errors import ModelError
from eyeline.registry.records import IoSpec
from eyeline.runtime import open_runtime_session

SMALL = ((4, 6), (5, 7))


def first(x: np.ndarray) -> np.ndarray:
    return x[:, :1]


def compare(
    source: NetFunction, candidate: NetFunction, gate: float = GATE, **inputs: Any
) -> ParityReport:
    return check_parity(source, candidate, ParityInputs(**inputs), gate)


def prove(
    source: NetFunction,
    candidate: NetFunction,
    exact: NetFunction | None = None,
    **inputs: Any,
) -> ParityProof:
    return prove_parity(source, candidate, ParityInputs(**inputs), exact=exact)


def test_a_function_equals_itself() -> None:
    report = compare(first, first, sizes=SMALL, random=3)
    assert (report.max_abs, report.mean_abs, report.cases, report.passed) == (0, 0, 6, True)


def test_a_constant_difference_is_measured() -> None:
    report = compare(first, lambda x: first(x).astype(np.float64) + 0.25, sizes=SMALL)
    assert report.max_abs == pytest.approx(0.25, abs=1e-12)
    assert report.mean_abs == pytest.approx(0.25, abs=1e-12)
    assert not report.passed


def test_the_worst_pixel_is_located() -> None:
    def off(x: np.ndarray) -> np.ndarray:
        y = first(x).astype(np.float64)
        if x.shape[-2:] == (5, 7):
            y[0, 0, 3, 6] += 1e-3
        return y

    report = compare(first, off, sizes=SMALL, random=2)
    assert report.worst == ((5, 7), 0, (3, 6))
    assert report.max_abs == pytest.approx(1e-3)
    assert report.mean_abs == pytest.approx(2 * 1e-3 / (2 * (24 + 35)))


def test_the_gate_itself_does_not_pass() -> None:
    def near(x: np.ndarray) -> np.ndarray:
        return first(x) * 0

    def exactly_at(x: np.ndarray) -> np.ndarray:
        return near(x).astype(np.float64) + GATE

    assert not compare(near, exactly_at, sizes=SMALL).passed
    assert compare(near, exactly_at, sizes=SMALL, gate=2 * GATE).passed


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
        assert not compare(source, candidate, sizes=SMALL).passed


def test_another_output_size_is_refused() -> None:
    with pytest.raises(ModelError, match="returns shape") as caught:
        compare(first, lambda x: first(x)[..., :1, :1], sizes=SMALL)
    assert "\n" not in str(caught.value)


def test_sizes_are_rounded_up_to_the_multiple() -> None:
    seen: set[tuple[int, ...]] = set()

    def watch(x: np.ndarray) -> np.ndarray:
        seen.add(x.shape)
        return first(x)

    compare(watch, first, sizes=((8, 9), (16, 1)), random=1, multiple=8)
    assert seen == {(1, 3, 8, 16), (1, 3, 16, 8)}


def test_inputs_are_the_same_for_a_seed_and_differ_within_a_run() -> None:
    def record(seed: int) -> list[bytes]:
        seen: list[bytes] = []

        def watch(x: np.ndarray) -> np.ndarray:
            seen.append(x.tobytes())
            return first(x)

        compare(watch, first, sizes=SMALL, random=2, seed=seed)
        return seen

    assert record(3) == record(3)
    assert len({*record(3), *record(4)}) == 8


def test_odd_and_portrait_sizes_are_among_the_default_ones() -> None:
    assert any(h % 2 and w % 2 for h, w in SIZES)
    assert any(h > w for h, w in SIZES)


# --- images


def test_images_are_compared_too_and_numbered_on() -> None:
    def off(x: np.ndarray) -> np.ndarray:
        return first(x) + (0.5 if x.shape[-1] == 9 else 0)

    image = np.zeros((1, 3, 6, 9), np.float32)
    report = compare(first, off, sizes=SMALL, random=2, images=[image])
    assert (report.cases, report.images) == (5, 1)
    assert report.worst[:2] == ((6, 9), 2)


def test_an_image_is_padded_to_the_multiple() -> None:
    seen = []

    def watch(x: np.ndarray) -> np.ndarray:
        seen.append(x)
        return first(x)

    image = np.arange(18, dtype=np.float32).reshape(1, 3, 2, 3)
    compare(watch, first, sizes=(), images=[image], multiple=4)
    assert seen[0].shape == (1, 3, 4, 4)
    assert seen[0][0, 0, 3, 3] == image[0, 0, 1, 2]


def test_nothing_to_compare_is_no_pass() -> None:
    with pytest.raises(ModelError, match="no inputs to compare"):
        compare(first, first, sizes=())


def test_made_images_have_the_slope_of_natural_ones() -> None:
    image = natural_inputs(((256, 256),), IoSpec(multiple=1))[0]
    assert image.shape == (1, 3, 256, 256)
    assert image.dtype == np.float32
    assert np.abs(image).max() < 3  # normalised 8-bit samples
    assert np.corrcoef(image[0, 0].ravel(), image[0, 2].ravel())[0, 1] > 0.5
    amplitude = np.abs(np.fft.fft2(image[0, 1]))[0, 1:100]
    slope = np.polyfit(np.log(np.arange(1, 100)), np.log(amplitude), 1)[0]
    assert -1.6 < slope < -0.6  # 1/f, and 1/f^1.5 of the edge


def test_made_images_are_the_same_everywhere_and_fit_the_spec() -> None:
    a, b = (natural_inputs(((33, 50),), IoSpec(multiple=32))[0] for _ in range(2))
    assert a.tobytes() == b.tobytes()
    assert a.shape == (1, 3, 64, 64)


# --- the decision


def noisy(size: float, seed: int) -> Callable[[np.ndarray], np.ndarray]:
    """`first`, with noise of at most `size`: round-off of a net that is not there."""

    def run(x: np.ndarray) -> np.ndarray:
        noise = np.random.default_rng([seed, x.shape[-1]]).uniform(-size, size, first(x).shape)
        return first(x).astype(np.float64) + noise

    return run


def test_below_the_gate_float64_is_not_asked() -> None:
    def never(x: np.ndarray) -> np.ndarray:
        raise AssertionError

    proof = prove(first, noisy(5e-6, 1), exact=never, sizes=SMALL)
    assert (proof.passed, proof.by_float64, set(proof.reports)) == (True, False, {"float32"})


def test_above_the_gate_there_is_no_pass_without_evidence() -> None:
    proof = prove(first, noisy(3e-5, 1), sizes=SMALL)
    assert (proof.passed, proof.by_float64) == (False, False)


def test_round_off_as_large_as_the_sources_own_passes() -> None:
    proof = prove(noisy(2e-5, 1), noisy(2e-5, 2), exact=first, sizes=SMALL)
    assert (proof.passed, proof.by_float64) == (True, True)
    assert proof.reports["float32"].max_abs > GATE
    assert set(json.loads(json.dumps(proof.to_json()))["reports"]) == set(proof.reports)


@pytest.mark.parametrize(("source", "candidate"), [(1e-5, 5e-5), (DOUBLE_LIMIT * 3, 2e-5)])
def test_a_model_farther_off_than_its_source_does_not_pass(source: float, candidate: float) -> None:
    proof = prove(noisy(source, 1), noisy(candidate, 2), exact=first, sizes=SMALL)
    assert (proof.passed, proof.by_float64) == (False, True)


def test_a_report_is_json() -> None:
    report = compare(first, first, sizes=SMALL, random=1)
    assert json.loads(json.dumps(report.to_json())) == {
        "max_abs": 0.0,
        "mean_abs": 0.0,
        "worst": [[4, 6], 0, [0, 0]],
        "cases": 2,
        "gate": GATE,
        "images": 0,
        "passed": True,
    }


def test_a_quantised_net_is_measured_and_does_not_pass_for_its_source(tmp_path: Path) -> None:
    import benign

    def runner(data: bytes) -> Callable[[np.ndarray], np.ndarray]:
        session = open_runtime_session(data, "net", "cpu")
        return lambda x: np.asarray(session.run(None, {"input": x})[0])

    proof = prove(
        runner(benign.unet()),
        runner(benign.quantised(tmp_path)),
        sizes=((32, 32), (64, 32)),
        images=natural_inputs(((64, 64),)),
    )
    report = proof.reports["float32"]
    assert not proof.passed
    assert 1e-4 < report.mean_abs < report.max_abs < 0.2  # eight bits, and still the same net
    assert (report.cases, report.images) == (11, 1)
