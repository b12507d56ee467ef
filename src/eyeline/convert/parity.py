"""Compare the outputs of two models, such as an exported model and its source.

`check_parity` measures the largest difference between two functions. `prove_parity` decides whether they
compute the same function; if the float32 round-off of a deep network exceeds the tolerance `GATE`, it also
compares in float64. The inputs are random tensors of several sizes, and synthetic images with the
statistics of natural ones.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from eyeline.convert.graph import load_model
from eyeline.errors import ModelError, first_line
from eyeline.inference import Session, pad_to_multiple, prepare
from eyeline.registry.records import IoSpec
from eyeline.registry.registry import Model
from eyeline.runtime import open_runtime_session, runtime_errors

Tensor = npt.NDArray[Any]
NetFunction = Callable[[Tensor], Tensor]
"""Maps float32 or float64 (N, 3, H, W) to (N, 1, H, W) of the same type."""

OnStep = Callable[[str, int, int], None]
"""Progress callback; its arguments are the step's name, and the numbers of finished and of all units."""

GATE = 1e-5
"""Tolerance: two float32 functions count as equal if their `max_abs` is below this value."""

SIZES = (
    (192, 320),
    (256, 256),
    (144, 256),
    (180, 320),
    (65, 97),
    (33, 128),
    (201, 113),
    (384, 224),
)
"""(H, W) pairs: common input sizes, odd sizes and portrait sizes."""

RANDOM_INPUTS = 5
"""Random inputs per size."""

DOUBLE_FACTOR = 2.0
"""The float64 error of a model may be this many times that of its source, as it is rounded twice."""

DOUBLE_LIMIT = 1e-4
"""Absolute limit on the difference between a float32 and a float64 run."""


@dataclass(frozen=True)
class ParityInputs:
    """The inputs on which two models are compared.

    Iteration yields the number of each input and the input itself, float32 (1, 3, H, W).

    Attributes:
        sizes: (H, W) pairs, rounded up to `multiple`.
        random: number of random normalised inputs per size.
        images: more inputs, float32 (1, 3, H, W), normalised; see `natural_inputs`.
        multiple: height and width of every input are multiples of this number.
        seed: seed of the random inputs.
    """

    sizes: Sequence[tuple[int, int]] = SIZES
    random: int = RANDOM_INPUTS
    images: Sequence[Tensor] = ()
    multiple: int = 1
    seed: int = 0

    def __iter__(self) -> Iterator[tuple[int, Tensor]]:
        rng = np.random.default_rng(self.seed)
        for size in self.sizes:
            h, w = (s + -s % self.multiple for s in size)
            for k in range(self.random):
                yield k, rng.standard_normal((1, 3, h, w)).astype(np.float32)
        for k, image in enumerate(self.images, self.random):
            yield k, pad_to_multiple(image, self.multiple)


STANDARD_INPUTS = ParityInputs()


@dataclass(frozen=True)
class ParityReport:
    """The measured differences between two functions.

    Attributes:
        max_abs: largest absolute difference.
        mean_abs: mean absolute difference over all inputs.
        worst: size (H, W), input number and position (y, x) of the largest difference; images are
            numbered after the random inputs.
        cases: number of inputs.
        gate: `max_abs` must be below this tolerance.
        images: number of inputs that are images.
    """

    max_abs: float
    mean_abs: float
    worst: tuple[tuple[int, int], int, tuple[int, int]]
    cases: int
    gate: float
    images: int = 0

    @property
    def passed(self) -> bool:
        """Whether `max_abs` is below the tolerance."""
        return self.max_abs < self.gate

    def to_json(self) -> dict[str, object]:
        """Return JSON values."""
        return {**asdict(self), "passed": self.passed}


def check_parity(
    source: NetFunction,
    candidate: NetFunction,
    inputs: ParityInputs = STANDARD_INPUTS,
    gate: float = GATE,
) -> ParityReport:
    """Compare a candidate with its source; raise `ModelError` if their output shapes differ."""
    return _measure([(k, x, source(x), candidate(x)) for k, x in inputs], len(inputs.images), gate)


def _measure(
    cases: Sequence[tuple[int, Tensor, Tensor, Tensor]], images: int, gate: float
) -> ParityReport:
    worst_value, total, pixels = -1.0, 0.0, 0
    worst: tuple[tuple[int, int], int, tuple[int, int]] = ((0, 0), 0, (0, 0))
    for k, x, expected, got in cases:
        h, w = x.shape[2:]
        if expected.shape != got.shape:
            raise ModelError(
                f"parity: for an input of {w}x{h}, the source returns shape {expected.shape} "
                f"and the candidate {got.shape}",
                "both must return a map of the size of the input",
            )
        gap = np.abs(expected.astype(np.float64) - got)[0, 0]
        gap[np.isnan(gap)] = np.inf  # a comparison with NaN is false, so NaN would pass
        y, column = np.unravel_index(int(gap.argmax()), gap.shape)
        if gap[y, column] > worst_value:
            worst_value, worst = float(gap[y, column]), ((h, w), k, (int(y), int(column)))
        total, pixels = total + float(gap.sum()), pixels + gap.size
    if not cases:
        raise ModelError("parity: there are no inputs to compare", "give sizes or images")
    return ParityReport(worst_value, total / pixels, worst, len(cases), gate, images)


@dataclass(frozen=True)
class ParityProof:
    """The decision whether two functions are the same, with the measurements.

    Attributes:
        passed: the decision.
        by_float64: whether the float32 difference exceeded the tolerance, so that the float64 run decided.
        reports: `float32` compares source and candidate. If the float32 difference exceeds the
            tolerance, `source to float64` and `candidate to float64` compare each function with the
            float64 run.
    """

    passed: bool
    by_float64: bool
    reports: dict[str, ParityReport]

    def to_json(self) -> dict[str, object]:
        """Return JSON values, to be stored beside the model."""
        reports = {name: report.to_json() for name, report in self.reports.items()}
        return {"passed": self.passed, "by_float64": self.by_float64, "reports": reports}

    def text(self, source: str) -> str:
        """Return the evidence as lines of text."""
        lines = [
            f"parity with {source}, {kind}: largest difference {report.max_abs:.1e} over "
            f"{report.cases} inputs (gate {report.gate:.1e})"
            for kind, report in self.reports.items()
        ]
        if self.by_float64:
            lines.append(
                "float32 round-off exceeds the limit, so the source's float64 run decided: the export "
                "may differ from it by at most twice as much as the source's own float32 run does"
            )
        return "\n".join(lines)

    def require(self, name: str, source: str) -> None:
        """Raise `ModelError` unless the proof passed."""
        if not self.passed:
            failed = (r for r in self.reports.values() if not r.passed)
            worst = max(failed, key=lambda r: r.max_abs)
            raise ModelError(
                f"{name}: differs from {source} by up to {worst.max_abs:.2e}, more than {worst.gate:g} "
                f"((H, W), input number, (y, x): {worst.worst})",
                "check that both have the same weights and the same preprocessing",
            )


def prove_parity(
    source: NetFunction,
    candidate: NetFunction,
    inputs: ParityInputs = STANDARD_INPUTS,
    *,
    exact: NetFunction | None = None,
    on_input: Callable[[], None] = lambda: None,
) -> ParityProof:
    """Decide whether a candidate computes the same function as its source.

    The functions are the same if the largest float32 difference is below `GATE`. Above `GATE`, a float64
    run of the source separates round-off from a mistake: the candidate's difference from the float64 run
    must be at most `DOUBLE_FACTOR` times that of the float32 source, and both must be below
    `DOUBLE_LIMIT`. Without `exact`, a difference above `GATE` fails.

    Args:
        source: the reference, in float32.
        candidate: the function that is compared with `source`.
        inputs: see `ParityInputs`.
        exact: the source in float64, None if it is not available.
        on_input: called before each run of `source` and `exact`.

    Raises:
        ModelError: see `check_parity`.
    """
    cases = []
    for k, x in inputs:
        on_input()
        cases.append((k, x, source(x), candidate(x)))
    count = len(inputs.images)
    same = _measure(cases, count, GATE)
    if same.passed or exact is None:
        return ParityProof(same.passed, False, {"float32": same})
    ours, theirs = [], []
    for k, x, expected, got in cases:
        on_input()
        y = exact(x)
        theirs.append((k, x, y, expected))
        ours.append((k, x, y, got))
    far = _measure(theirs, count, DOUBLE_LIMIT)
    near = _measure(ours, count, min(DOUBLE_FACTOR * far.max_abs, DOUBLE_LIMIT))
    reports = {"float32": same, "source to float64": far, "candidate to float64": near}
    return ParityProof(far.passed and near.passed, True, reports)


def natural_inputs(
    sizes: Sequence[tuple[int, int]] = SIZES, io: IoSpec | None = None, seed: int = 0
) -> list[Tensor]:
    """Make one synthetic image per size, with the statistics of natural images.

    The amplitude spectrum falls as 1/f with random phase (Field, "Relations between the statistics of
    natural images...", JOSA A 4, 1987). The channels correlate, and a bright disc with a hard edge is
    drawn on top. Every machine makes the same images.

    Args:
        sizes: (H, W) pairs.
        io: the I/O spec of the model; None means RGB without padding.
        seed: seed of the random phases.

    Returns:
        One float32 tensor (1, 3, H, W) per size, normalised and padded as `io` demands.
    """
    rng = np.random.default_rng(seed)
    made = []
    for h, w in sizes:
        f = np.hypot(np.fft.fftfreq(h)[:, None], np.fft.rfftfreq(w)[None])
        spectrum = rng.standard_normal((4, *f.shape)) + 1j * rng.standard_normal((4, *f.shape))
        planes = np.fft.irfft2(spectrum / np.maximum(f, 1 / max(h, w)), s=(h, w))
        rgb = planes[:1] + 0.3 * planes[1:]  # luma, with weak colour
        low, high = np.percentile(rgb, (1, 99))
        rgb = (rgb - low) / (high - low) * 255
        y, x = np.ogrid[:h, :w]
        inside = (y - h * rng.uniform(0.3, 0.7)) ** 2 + (x - w / 2) ** 2 < (min(h, w) / 5) ** 2
        rgb[:, inside] = rng.uniform(160, 255, (3, 1))
        made.append(
            prepare(np.clip(rgb, 0, 255).round().astype(np.uint8), io or IoSpec(multiple=1))
        )
    return made


@dataclass(frozen=True)
class MirrorParity:
    """The comparison of a mirror with its source.

    Attributes:
        source: kind of the source.
        proofs: one proof per variant of the source; all passed.
    """

    source: str
    proofs: dict[str, ParityProof]

    def to_json(self) -> dict[str, object]:
        """Return JSON values."""
        proofs = {name: proof.to_json() for name, proof in self.proofs.items()}
        return {"source": self.source, "passed": True, "proofs": proofs}


def against_asset(
    source: bytes, head: int, made: bytes, name: str, on_step: OnStep
) -> MirrorParity:
    """Compare a model with output `head` of its ONNX source.

    A source with a fixed input size is run at this size, and again with dynamic height and width.

    Raises:
        ModelError: the parity check fails, or the source does not run.
    """
    candidate = _mirror_function(made, name)
    original = load_model(source, name)
    dims = original.graph.input[0].type.tensor_type.shape.dim
    fixed = (dims[2].dim_value, dims[3].dim_value)
    proofs = {}
    inputs = ParityInputs(images=natural_inputs())
    count = _counter((RANDOM_INPUTS + 1) * (len(SIZES) + all(fixed)), on_step)
    if all(fixed):
        proofs[f"the asset as it is, {fixed[1]}x{fixed[0]}"] = prove_parity(
            _source_function(source, head, name),
            candidate,
            replace(inputs, sizes=(fixed,), images=natural_inputs((fixed,))),
            on_input=count,
        )
    for i, letter in ((0, "N"), (2, "H"), (3, "W")):
        dims[i].dim_param = letter
    for tensor in original.graph.output:
        tensor.type.tensor_type.ClearField("shape")
    del original.graph.value_info[:]
    freed = _source_function(original.SerializeToString(), head, name)
    proofs["the asset with its size freed"] = prove_parity(freed, candidate, inputs, on_input=count)
    for what, proof in proofs.items():
        proof.require(name, what)
    return MirrorParity("the pinned ONNX asset on ONNX Runtime", proofs)


def against_torch(run: NetFunction, made: bytes, name: str, on_step: OnStep) -> MirrorParity:
    """Compare an ONNX model with its torch network.

    If the float32 round-off exceeds the tolerance, compare in float64 as well.
    """
    proof = prove_parity(
        run,
        _mirror_function(made, name),
        ParityInputs(images=natural_inputs()),
        exact=lambda x: run(x.astype(np.float64)),
        on_input=_counter((RANDOM_INPUTS + 1) * len(SIZES), on_step),
    )
    proof.require(name, "the checkout's net")
    return MirrorParity("the torch net", {"the checkout's net": proof})


def _counter(total: int, on_step: OnStep) -> Callable[[], None]:
    numbers = itertools.count(1)

    def step() -> None:
        done = next(numbers)
        on_step("parity", done, max(done, total))  # `total` excludes float64 runs

    return step


def _mirror_function(data: bytes, name: str) -> NetFunction:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(data)
        session = Session(Model(name, path, IoSpec(multiple=1)), "cpu")
    return lambda x: session.run(x)[None, None]


def _source_function(data: bytes, head: int, name: str) -> NetFunction:
    session = open_runtime_session(data, name, "cpu")
    output, given = session.get_outputs()[head].name, session.get_inputs()[0].name

    def run(x: Tensor) -> Tensor:
        try:
            y: Tensor = session.run([output], {given: x})[0]
        except runtime_errors() as exc:
            raise ModelError(
                f"{name}: ONNX Runtime can't run the source model: {first_line(exc)}",
                "check that it is the right file",
            ) from exc
        return y

    return run
