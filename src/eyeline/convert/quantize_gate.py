"""What quantisation cost and gained: two models on the same images, and side by side on the clock.

Which images of a dataset calibrate a quantised model, and which ones it is checked on.

The choice goes by content alone: names, order and container of a dataset change nothing, and a copy
of an image can't stand on both sides.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from eyeline.convert.parity import SIZES, natural_inputs
from eyeline.datasets.pairs import Pair, find_pairs, read_image
from eyeline.digests import sha256_hex
from eyeline.errors import DatasetError
from eyeline.evaluation.metrics import THRESHOLD, Map, overlap
from eyeline.evaluation.rows import Size, image_input
from eyeline.inference import Session, finish, input_size
from eyeline.registry.registry import Model
from eyeline.runtime import INPUT_NAME
from eyeline.saliency.features import map_features


@dataclass(frozen=True)
class Images:
    """Images chosen from a dataset.

    Attributes:
        data: name of the dataset's folder or archive.
        pairs: in the order of their choice.
    """

    data: str
    pairs: tuple[Pair, ...]

    @property
    def digest(self) -> str:
        """sha256 hex digest over the digests of the images, in their order."""
        return sha256_hex("\n".join(p.digest for p in self.pairs).encode())

    def to_json(self) -> dict[str, object]:
        """JSON values."""
        return {"data": self.data, "images": len(self.pairs), "sha256": self.digest}


def choose_images(root: Path, calibrate: int, check: int) -> tuple[Images, Images]:
    """Divide a dataset by content hash.

    The hash is hashed once more: `train` divides by the hash itself, and the first images by it
    would all be from the fold that selected the epoch.

    Args:
        root: folder, .tar or .zip, see `eyeline.datasets.pairs`.
        calibrate: images to calibrate with; fewer when the dataset has not that many besides.
        check: images to check with; at most half of the dataset.

    Returns:
        Images that calibrate, and others that check.

    Raises:
        DatasetError: see `find_pairs`; or fewer than two different images.
    """
    different = {pair.digest: pair for pair in find_pairs(root)}
    ordered = [different[d] for d in sorted(different, key=lambda d: sha256_hex(d.encode()))]
    if len(ordered) < 2:
        raise DatasetError(
            f"{root}: one image only", "one must calibrate and another one check: name more"
        )
    held_out = min(check, len(ordered) // 2)
    name = root.resolve().name if root.is_dir() else root.stem
    used = min(calibrate, len(ordered) - held_out)
    return Images(name, tuple(ordered[:used])), Images(name, tuple(ordered[-held_out:]))


def model_input(pair: Pair, model: Model, size: Size = None) -> tuple[Map, tuple[int, int]]:
    """An image as a model takes it, see `eyeline.evaluation.rows.image_input`.

    Raises:
        DatasetError: an unreadable image.
    """
    return image_input(read_image(pair.image), model, size)


class Reader:
    """Images as ONNX Runtime's calibration asks for them: read one by one, so memory is bounded.

    Args:
        pairs: to read.
        model: whose inputs they become.
        on_image: called with the images read.
    """

    def __init__(
        self, pairs: Sequence[Pair], model: Model, on_image: Callable[[int], None]
    ) -> None:
        self._pairs, self._model, self._on_image = pairs, model, on_image
        self._next, self._end = 0, len(pairs)

    def __len__(self) -> int:
        return len(self._pairs)

    def set_range(self, start_index: int, end_index: int) -> None:
        """Serve these images next."""
        self._next, self._end = start_index, end_index

    def get_next(self) -> dict[str, Map] | None:
        """The next image by the input's name, None at the end of the range."""
        if self._next >= self._end:
            return None
        x, _ = model_input(self._pairs[self._next], self._model)
        self._next += 1
        self._on_image(self._next)
        return {INPUT_NAME: x}


OTHER_LINES = (144, 384)
"""Working sizes at the ends of what models are used at, beside the I/O spec's own."""

AT_OTHER_LINES = 24
"""Images compared there."""

TIMED_FRAME = (1920, 1080)
RUNS = 41
WARM_UP = 3

OnStep = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""


@dataclass(frozen=True)
class Loss:
    """How far two models are apart on some images.

    Attributes:
        lines: short side that images were scaled to, pixels; None for the I/O spec's fixed size.
        images: compared.
        map_mean: mean absolute difference of the maps, over pixels, then images.
        map_max: largest absolute difference of a pixel.
        shift: mean absolute difference of `saliency_mean`.
        shift_max: the largest of one image.
        bias: mean difference of `saliency_mean`; above 0 the quantised model says more.
        iou: mean intersection over union of the two maps' pixels above .5.
    """

    lines: int | None
    images: int
    map_mean: float
    map_max: float
    shift: float
    shift_max: float
    bias: float
    iou: float


@dataclass(frozen=True)
class Speed:
    """CPU time of one inference on one thread, medians of interleaved runs.

    Attributes:
        size: (width, height) of the input before padding.
        float_ms: of the float model, milliseconds.
        quantized_ms: of the quantised one.
        runs: of each.
    """

    size: tuple[int, int]
    float_ms: float
    quantized_ms: float
    runs: int

    @property
    def ratio(self) -> float:
        """How many times faster the quantised model is."""
        return self.float_ms / self.quantized_ms


@dataclass(frozen=True)
class Verdict:
    """A decision, and its numbers.

    Attributes:
        losses: at the I/O spec's size first, then at `OTHER_LINES`.
        speed: see `Speed`.
        max_shift: bound on `Loss.shift`, at every size.
        reasons: why not; empty when it passes.
    """

    losses: tuple[Loss, ...]
    speed: Speed
    max_shift: float
    reasons: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """The decision."""
        return not self.reasons

    def to_json(self) -> dict[str, object]:
        """JSON values."""
        return {
            "passed": self.passed,
            "reasons": list(self.reasons),
            "limits": {"shift": self.max_shift, "ratio": 1.0},
            "losses": [asdict(loss) for loss in self.losses],
            "speed": {**asdict(self.speed), "ratio": self.speed.ratio},
        }


def judge(
    source: Session,
    quantized: Session,
    pairs: Sequence[Pair],
    *,
    max_shift: float,
    runs: int = RUNS,
    on_step: OnStep = lambda what, done, total: None,
) -> Verdict:
    """Compare two models, and decide.

    Args:
        source: the float model.
        quantized: what was made of it.
        pairs: images that did not calibrate it.
        max_shift: see `Verdict`.
        runs: of each model on the clock.
        on_step: see `OnStep`.

    Raises:
        ModelError: the quantised model fails at a size, or leaves the contract there.
        DatasetError: an unreadable image.
    """
    io = source.model.io
    # Odd and portrait ones, too: it must run, whatever it says. A squashed net may know one size only.
    for x in natural_inputs(SIZES if io.squash is None else (io.squash[::-1],), io):
        quantized.run(x)
    wanted: dict[int | None, Sequence[Pair]] = {None if io.squash else io.working_lines: pairs}
    if io.squash is None:
        wanted |= {n: pairs[:AT_OTHER_LINES] for n in OTHER_LINES if n != io.working_lines}
    done, total = 0, sum(map(len, wanted.values()))
    losses = []
    for lines, chosen in wanted.items():
        rows = []
        for pair in chosen:
            rows.append(_compare(source, quantized, pair, lines))
            done += 1
            on_step("check", done, total)
        losses.append(_pool(lines, rows))
    speed = time_together(source, quantized, runs, on_step)
    reasons = [
        f"saliency_mean moves by {loss.shift:.4f}"
        + (f" at {loss.lines} lines" if loss.lines else "")
        + f", more than {max_shift:g}"
        for loss in losses
        if not loss.shift <= max_shift
    ]
    if speed.ratio <= 1:
        reasons.append(
            f"not faster: {speed.quantized_ms:.2f} ms, the float model takes {speed.float_ms:.2f}"
        )
    return Verdict(tuple(losses), speed, max_shift, tuple(reasons))


def _compare(
    source: Session, quantized: Session, pair: Pair, lines: int | None
) -> tuple[float, float, float, float]:
    """Mean and largest difference of a pixel, difference of saliency_mean, IoU."""
    x, (w, h) = model_input(pair, source.model, lines)
    io = source.model.io
    a, b = (finish(session.run(x), h, w, io) for session in (source, quantized))
    gap = np.abs(a - b)
    before, after = (map_features(m, None)["saliency_mean"] for m in (a, b))
    iou = overlap(a >= THRESHOLD, b >= THRESHOLD)
    return float(gap.mean(dtype=np.float64)), float(gap.max()), after - before, iou


def _pool(lines: int | None, rows: Sequence[tuple[float, float, float, float]]) -> Loss:
    means, largest, moves, ious = np.array(rows, np.float64).T
    return Loss(
        lines=lines,
        images=len(rows),
        map_mean=float(means.mean()),
        map_max=float(largest.max()),
        shift=float(np.abs(moves).mean()),
        shift_max=float(np.abs(moves).max()),
        bias=float(moves.mean()),
        iou=float(ious.mean()),
    )


def time_together(
    source: Session,
    quantized: Session,
    runs: int = RUNS,
    on_step: OnStep = lambda what, done, total: None,
) -> Speed:
    """Time two models in turn on a frame of `TIMED_FRAME`, at their I/O spec's size.

    CPU time of this thread, which is the one that a session runs on: what else the machine does
    takes none of it.

    Args:
        source: the float model.
        quantized: the other one.
        runs: of each; some more warm up.
        on_step: see `OnStep`.
    """
    size = input_size(*TIMED_FRAME, source.model.io)
    (x,) = natural_inputs((size[::-1],), source.model.io)
    times: tuple[list[float], list[float]] = ([], [])
    for i in range(WARM_UP + runs):
        for session, spent in zip((source, quantized), times, strict=True):
            start = time.thread_time()
            session.run(x)
            spent.append((time.thread_time() - start) * 1e3)
        on_step("time", i + 1, WARM_UP + runs)
    before, after = (statistics.median(spent[WARM_UP:]) for spent in times)
    return Speed(size, before, after, runs)
