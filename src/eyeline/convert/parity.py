"""Are two models the same function? The one parity check: for exports, mirrors, students, quantised nets.

`check_parity` measures; `prove_parity` decides, with a float64 run as evidence where float32 round-off of
a deep net exceeds the gate. Inputs: random ones of every size, and natural images, real or like them.

A mirror held against its source: the asset that it came from, or the torch net in its child.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from eyeline.convert.rewrite import load_model
from eyeline.errors import ModelError, first_line
from eyeline.inference import Session, input_size, pad_to_multiple, prepare
from eyeline.registry.records import IoSpec
from eyeline.registry.registry import Model
from eyeline.runtime import open_runtime_session, runtime_errors

Tensor = npt.NDArray[np.float32]
Function = Callable[[Tensor], Tensor]
"""float32 (N, 3, H, W) to float32 (N, 1, H, W)."""

GATE = 1e-5
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
"""(H, W) pairs: the working sizes, odd ones and portrait."""


DOUBLE_FACTOR = 2.0
"""How much farther from float64 than its source a model may be: two roundings instead of one."""

DOUBLE_LIMIT = 1e-4
"""Farthest that a float32 run may be from float64 at all, whatever the source's own distance."""


@dataclass(frozen=True)
class ParityReport:
    """How far two functions are apart.

    Attributes:
        max_abs: largest absolute difference.
        mean_abs: mean absolute difference over all cases.
        worst: size (H, W), input number and position (y, x) of the largest difference; images are
            numbered on from the random inputs.
        cases: inputs compared.
        images: how many of them were images.
        gate: the bound on `max_abs`.
    """

    max_abs: float
    mean_abs: float
    worst: tuple[tuple[int, int], int, tuple[int, int]]
    cases: int
    gate: float
    images: int = 0

    @property
    def passed(self) -> bool:
        """Whether `max_abs` is below the gate."""
        return self.max_abs < self.gate

    def to_json(self) -> dict[str, object]:
        """JSON values."""
        return {**asdict(self), "passed": self.passed}


def check_parity(
    source: Function,
    candidate: Function,
    *,
    sizes: Sequence[tuple[int, int]] = SIZES,
    inputs: int = 5,
    images: Sequence[Tensor] = (),
    multiple: int = 1,
    gate: float = GATE,
    seed: int = 0,
) -> ParityReport:
    """Compare two functions on random normalised inputs of several sizes, and on images.

    Args:
        source: the reference.
        candidate: what must equal it.
        sizes: (H, W) pairs, rounded up to `multiple`.
        inputs: random inputs a size.
        images: more inputs, float32 (1, 3, H, W), normalised; see `natural_inputs`, `read_images`.
        multiple: what both sides must be multiples of.
        gate: bound on the largest absolute difference.
        seed: of the random inputs.

    Raises:
        ModelError: outputs of different shapes.
    """
    rng = np.random.default_rng(seed)
    worst_value, total, pixels, cases = -1.0, 0.0, 0, 0
    worst: tuple[tuple[int, int], int, tuple[int, int]] = ((0, 0), 0, (0, 0))

    def random_inputs() -> Iterator[tuple[int, Tensor]]:
        for size in sizes:
            h, w = (s + -s % multiple for s in size)
            for k in range(inputs):
                yield k, rng.standard_normal((1, 3, h, w)).astype(np.float32)

    padded = (pad_to_multiple(image[0], multiple)[None] for image in images)
    for k, x in chain(random_inputs(), enumerate(padded, inputs)):
        h, w = x.shape[2:]
        expected, got = source(x), candidate(x)
        if expected.shape != got.shape:
            raise ModelError(
                f"parity: {got.shape} for {expected.shape} at input {h}x{w}",
                "the two models differ in their output size",
            )
        gap = np.abs(expected.astype(np.float64) - got)[0, 0]
        gap[np.isnan(gap)] = np.inf  # NaN compares as "not larger" and would pass
        y, column = np.unravel_index(int(gap.argmax()), gap.shape)
        if gap[y, column] > worst_value:
            worst_value, worst = float(gap[y, column]), ((h, w), k, (int(y), int(column)))
        total, pixels, cases = total + float(gap.sum()), pixels + gap.size, cases + 1
    if not cases:
        raise ModelError("parity: nothing was compared", "give sizes, or images")
    return ParityReport(worst_value, total / pixels, worst, cases, gate, len(images))


@dataclass(frozen=True)
class ParityProof:
    """A decision, and what it rests on.

    Attributes:
        passed: the decision.
        by_float64: whether float32 exceeded the gate, so that float64 decided.
        reports: `float32` (source and candidate); where it exceeds the gate also `source to float64`
            and `candidate to float64`.
    """

    passed: bool
    by_float64: bool
    reports: dict[str, ParityReport]

    def to_json(self) -> dict[str, object]:
        """JSON values, to be stored beside the model."""
        reports = {name: report.to_json() for name, report in self.reports.items()}
        return {"passed": self.passed, "by_float64": self.by_float64, "reports": reports}


def prove_parity(
    source: Function,
    candidate: Function,
    exact: Function | None = None,
    *,
    sizes: Sequence[tuple[int, int]] = SIZES,
    inputs: int = 5,
    images: Sequence[Tensor] = (),
    multiple: int = 1,
    seed: int = 0,
) -> ParityProof:
    """Decide whether a candidate is its source.

    Below the gate it is. Above it, only a float64 run of the source can tell round-off from a
    mistake: the candidate must be about as near to it as the source's own float32 run is, and both
    near in absolute terms. Without such a run, above the gate is a "no": the bound never moves.

    Args:
        source: the reference, same precision.
        candidate: what must equal it.
        exact: the source computed in float64, if it can be.
        sizes: see `check_parity`, as what follows.
        inputs: random inputs a size.
        images: more inputs.
        multiple: what both sides must be multiples of.
        seed: of the random inputs.

    Raises:
        ModelError: outputs of different shapes.
    """

    def compare(a: Function, b: Function, gate: float) -> ParityReport:
        return check_parity(
            a, b, sizes=sizes, inputs=inputs, images=images, multiple=multiple, gate=gate, seed=seed
        )

    same = compare(source, candidate, GATE)
    if same.passed or exact is None:
        return ParityProof(same.passed, False, {"float32": same})
    theirs = compare(exact, source, DOUBLE_LIMIT)
    ours = compare(exact, candidate, min(DOUBLE_FACTOR * theirs.max_abs, DOUBLE_LIMIT))
    reports = {"float32": same, "source to float64": theirs, "candidate to float64": ours}
    return ParityProof(theirs.passed and ours.passed, True, reports)


def natural_inputs(
    sizes: Sequence[tuple[int, int]] = SIZES, io: IoSpec | None = None, seed: int = 0
) -> list[Tensor]:
    """One image a size with the statistics of natural ones: made, so that any machine has them.

    Amplitude falls as 1/f with random phase (Field, "Relations between the statistics of natural
    images...", JOSA A 4, 1987), channels correlate, and a bright disc with a hard edge lies on top.

    Args:
        sizes: (H, W) pairs.
        io: how the model wants its images; the contract's way when None.
        seed: of the phases.

    Returns:
        float32 (1, 3, H, W) each, normalised and padded by `io`.
    """
    rng = np.random.default_rng(seed)
    made = []
    for h, w in sizes:
        f = np.hypot(np.fft.fftfreq(h)[:, None], np.fft.rfftfreq(w)[None])
        spectrum = rng.standard_normal((4, *f.shape)) + 1j * rng.standard_normal((4, *f.shape))
        planes = np.fft.irfft2(spectrum / np.maximum(f, 1 / max(h, w)), s=(h, w))
        rgb = planes[:1] + 0.3 * planes[1:]  # luma, and a little colour
        low, high = np.percentile(rgb, (1, 99))
        rgb = (rgb - low) / (high - low) * 255
        y, x = np.ogrid[:h, :w]
        inside = (y - h * rng.uniform(0.3, 0.7)) ** 2 + (x - w / 2) ** 2 < (min(h, w) / 5) ** 2
        rgb[:, inside] = rng.uniform(160, 255, (3, 1))
        made.append(
            prepare(np.clip(rgb, 0, 255).round().astype(np.uint8), io or IoSpec(multiple=1))
        )
    return made


def read_images(folder: Path, io: IoSpec, limit: int = 8) -> list[Tensor]:
    """Real images as a model's inputs.

    Args:
        folder: of images.
        io: how the model wants them.
        limit: the first so many.

    Returns:
        float32 (1, 3, H, W) each, at the spec's working size.

    Raises:
        MediaError: no image there that can be read.
    """
    from eyeline.media import open_video

    with open_video(folder) as video:
        return [
            prepare(frame.rgb, io)
            for frame in islice(video.frames(lambda w, h: input_size(w, h, io)), limit)
        ]


Array = npt.NDArray[Any]
Run = Callable[[Array], Array]
OnStep = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""

INPUTS = 5
"""Random inputs a size; a natural-looking image comes on top."""


@dataclass(frozen=True)
class Parity:
    """How the mirror was held against its source.

    Attributes:
        source: what it was compared with.
        proofs: see `eyeline.convert.parity.ParityProof`, by what was compared.
    """

    source: str
    proofs: dict[str, ParityProof]

    @property
    def passed(self) -> bool:
        """Whether every proof holds."""
        return all(p.passed for p in self.proofs.values())

    @property
    def by_float64(self) -> bool:
        """Whether a decision needed the float64 run."""
        return any(p.by_float64 for p in self.proofs.values())

    def to_json(self) -> dict[str, object]:
        """JSON values."""
        proofs = {name: proof.to_json() for name, proof in self.proofs.items()}
        return {"source": self.source, "passed": self.passed, "proofs": proofs}


def _counter(total: int, on_step: OnStep) -> Callable[[Run], Run]:
    """Wraps functions so that every call is told; a run that needs float64 goes past the total."""
    done = 0

    def wrap(function: Run) -> Run:
        def run(x: Array) -> Array:
            nonlocal done
            done += 1
            on_step("parity", done, max(done, total))
            return function(x)

        return run

    return wrap


def _remembered(function: Run) -> Run:
    """Answers kept by their input: the same inputs are compared several times."""
    known: dict[bytes, Array] = {}

    def run(x: Array) -> Array:
        key = hashlib.sha256(x.tobytes() + str(x.shape).encode()).digest()
        if key not in known:
            known[key] = function(x)
        return known[key]

    return run


def _session(data: bytes, name: str) -> Run:
    """The mirror as it will be run: by our session, held to the contract."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "model.onnx"
        place.write_bytes(data)
        session = Session(Model(name, place, IoSpec(multiple=1)), "cpu")
    return lambda x: session.run(x)[None, None]


def against_asset(source: bytes, head: int, made: bytes, name: str, on_step: OnStep) -> Parity:
    """Against the asset itself at its own size, and against its graph with the size freed."""
    candidate = _remembered(_session(made, name))
    original = load_model(source, name)
    dims = original.graph.input[0].type.tensor_type.shape.dim
    fixed = (dims[2].dim_value, dims[3].dim_value)
    proofs = {}
    cases = (INPUTS + 1) * (len(SIZES) + all(fixed))
    counted = _counter(cases, on_step)
    if all(fixed):
        exact = counted(_runner(source, head, name))
        proofs[f"the asset as it is, {fixed[1]}x{fixed[0]}"] = prove_parity(
            exact, candidate, sizes=(fixed,), inputs=INPUTS, images=natural_inputs((fixed,))
        )
    for i, letter in ((0, "N"), (2, "H"), (3, "W")):
        dims[i].dim_param = letter
    for tensor in original.graph.output:
        tensor.type.tensor_type.ClearField("shape")
    del original.graph.value_info[:]
    freed = counted(_runner(original.SerializeToString(), head, name))
    proofs["the asset with its size freed"] = prove_parity(
        freed, candidate, inputs=INPUTS, images=natural_inputs()
    )
    return _gate(Parity("the pinned ONNX asset on ONNX Runtime", proofs), name)


def _runner(data: bytes, head: int, name: str) -> Run:
    session = open_runtime_session(data, name, "cpu")
    output, given = session.get_outputs()[head].name, session.get_inputs()[0].name

    def run(x: Array) -> Array:
        try:
            y: Array = session.run([output], {given: x})[0]
        except runtime_errors() as exc:
            raise ModelError(
                f"{name}: the source fails: {first_line(exc)}", "is it the right file?"
            ) from exc
        return y

    return run


def against_torch(run: Run, made: bytes, name: str, on_step: OnStep) -> Parity:
    """Against torch in float32; where round-off exceeds the gate, both against torch in float64."""
    candidate = _remembered(_session(made, name))
    counted = _counter((INPUTS + 1) * len(SIZES), on_step)
    source = _remembered(counted(run))
    exact = _remembered(counted(lambda x: run(x.astype(np.float64))))
    proof = prove_parity(source, candidate, exact, inputs=INPUTS, images=natural_inputs())
    return _gate(Parity("the torch net", {"the checkout's net": proof}), name)


def _gate(parity: Parity, name: str) -> Parity:
    for what, proof in parity.proofs.items():
        if not proof.passed:
            worst = max(proof.reports.values(), key=lambda r: r.max_abs)
            raise ModelError(
                f"{name}: differs from {what} by {worst.max_abs:.2e} at {worst.worst}",
                f"the gate is {GATE:g}",
            )
    return parity
