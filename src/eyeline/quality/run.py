"""Measure pairs on worker threads, with libvmaf beside, and gather their rows in order.

`score` opens and pairs the videos; what happens to a pair from there on happens here. To add a
metric, add it to `options.METRICS`, say in `Run.check` what it needs, and measure it in `measure`.
"""

from __future__ import annotations

import contextlib
from array import array
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import eyeline
from eyeline.cores import usable_cores
from eyeline.errors import DamagedMediaError, MediaError, MissingExtraError, QualityError
from eyeline.logs.record import Log
from eyeline.media.planes import Layout
from eyeline.media.types import VideoInfo
from eyeline.quality import maps_in, methods, psnr
from eyeline.quality.libvmaf import DEPTHS, LibvmafRun, find_ffmpeg
from eyeline.quality.maps_in import Seen, as_coded
from eyeline.quality.measure import Measured, Metrics, columns, measure, vmaf_columns
from eyeline.quality.options import METRICS, ScoreOptions, ScoreResult
from eyeline.quality.pairs import Aligner
from eyeline.quality.ssim import SMALLEST_MS, TAPS
from eyeline.quality.weights import Weights, resample

if TYPE_CHECKING:
    from eyeline.quality.sw_vmaf import FramePart, SwVmaf


class Run:
    """The machinery of one score: which metrics, worker threads, libvmaf beside.

    Args:
        options: see `ScoreOptions`.
        aligner: the common ground.
        info: of the reference.
    """

    def __init__(self, options: ScoreOptions, aligner: Aligner, info: VideoInfo) -> None:
        self._o, self._aligner, self._info = options, aligner, info
        self._workers = options.workers or usable_cores()
        self.left_out: dict[str, str] = {}
        self._engine: SwVmaf | None = None
        self._metrics = tuple(m for m in METRICS if self._wanted(m))
        self._libvmaf: dict[str, LibvmafRun] = {}

    def _wanted(self, name: str) -> bool:
        """Whether a metric is computed; a reason is noted where it is left out by default."""
        asked = self._o.metrics
        if asked is not None and name not in asked:
            return False
        try:
            self.check(name)
        except (MissingExtraError, QualityError) as exc:
            if asked is not None:
                raise
            self.left_out[name] = str(exc)
            return False
        return True

    def check(self, name: str) -> None:
        """Find what would fail at the first frame.

        Raises:
            MissingExtraError: the extra is not installed.
            QualityError: the picture is too small or too deep.
        """
        a = self._aligner
        least = {"ssim": TAPS, "ms_ssim": SMALLEST_MS}.get(name, 0)
        if name in ("vmaf", "sw_vmaf"):
            from eyeline.quality.sw_vmaf import SMALLEST

            least = SMALLEST
        if min(a.width, a.height) < least:
            raise QualityError(
                f"a picture of {a.width}x{a.height} is too small for {name}, which needs {least} a side",
                "leave it out of --metrics",
            )
        if name == "vmaf":
            find_ffmpeg()
            if a.depth not in DEPTHS:
                raise QualityError(f"libvmaf does not take {a.depth} bits", "leave out vmaf")
        if name == "sw_vmaf":
            from eyeline.quality.svr import load_model
            from eyeline.quality.sw_vmaf import SwVmaf

            self._engine = SwVmaf(load_model(self._o.vmaf_model))

    def collect(
        self, pairs: Iterator[tuple[Seen, Any, Any]], on_frame: Callable[[], None]
    ) -> ScoreResult:
        """Run over all pairs and gather their rows."""
        o, a = self._o, self._aligner
        fps = float(self._info.fps) if self._info.fps else None
        result = ScoreResult(
            Log(columns(self._metrics, a.chroma == "grey"), self._provenance(), fps)
        )
        log = result.log
        with contextlib.ExitStack() as stack:
            self._open_libvmaf(stack)
            try:
                for seen, metrics in self._measured(pairs):
                    log.append(seen.index - o.pairs.ref_offset, seen.seconds, metrics)
                    on_frame()
            except (DamagedMediaError, KeyboardInterrupt) as exc:
                if not len(log):
                    raise
                result.stopped = exc
            if not len(log):
                raise MediaError(f"{self._info.path}: no frames to compare", "check the offsets")
            for column, run in self._libvmaf.items():
                values = run.finish()["vmaf"][: len(log)]
                log.columns.append(column)
                log.values[column] = array("d", values)
        log.provenance |= {"complete": result.stopped is None, "frames": len(log)}
        return result

    def _open_libvmaf(self, stack: contextlib.ExitStack) -> None:
        a, o = self._aligner, self._o
        jobs: list[tuple[str, int, int]] = []
        if "vmaf" in self._metrics:
            jobs.append(("vmaf", a.width, a.height))
        if o.method == "crop":
            jobs.append(("vmaf_crop", *methods.crop_size(a.width, a.height)))
        elif o.method == "mask":
            jobs.append(("vmaf_mask", a.width, a.height))
        for column, width, height in jobs:
            layout = Layout(a.chroma, a.depth)
            run = LibvmafRun(width, height, layout, o.vmaf_model, threads=self._workers)
            stack.callback(run.discard)
            self._libvmaf[column] = run

    def _feed_libvmaf(self, pair: Measured) -> None:
        for column, run in self._libvmaf.items():
            planes = pair.reference, pair.distorted
            if column == "vmaf_mask":
                planes = methods.mask(*planes, pair.weights)
            elif column == "vmaf_crop":
                planes = methods.crop(*planes, pair.weights)
            run.write(*planes)

    def _measured(self, pairs: Iterator[tuple[Seen, Any, Any]]) -> Iterator[tuple[Seen, Metrics]]:
        """Rows in order; a frame behind where VMAF's motion looks at the next one."""
        pool = ThreadPoolExecutor(self._workers, "eyeline-measure")
        running: deque[tuple[Seen, Future[tuple[Metrics, FramePart | None]]]] = deque()
        held: list[tuple[Seen, Metrics, FramePart]] = []

        def done() -> Iterator[tuple[Seen, Metrics]]:
            seen, future = running.popleft()
            metrics, part = future.result()
            if self._engine is None or part is None:
                yield seen, metrics
                return
            if held:
                before = held.pop()
                yield before[0], before[1] | vmaf_columns(self._engine.finish(before[2], part))
            held.append((seen, metrics, part))

        stopped: BaseException | None = None
        try:
            previous: Measured | None = None
            try:
                for seen, reference, distorted in pairs:
                    pair = Measured(reference, distorted, self._weights(seen))
                    self._feed_libvmaf(pair)
                    task = pool.submit(measure, pair, previous, self._metrics, self._engine)
                    running.append((replace(seen, frame=None, map=maps_in.UNIFORM), task))  # type: ignore[arg-type]
                    previous = pair if self._engine else None
                    if len(running) > self._workers + 1:
                        yield from done()
            except DamagedMediaError as exc:
                stopped = exc  # what came before it is still to be delivered
            while running:
                yield from done()
            if held and self._engine is not None:
                seen, metrics, part = held.pop()
                yield seen, metrics | vmaf_columns(self._engine.finish(part))
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
        if stopped is not None:
            raise stopped

    def _weights(self, seen: Seen) -> Weights:
        m = as_coded(seen.map, self._info.rotation)
        crop = self._o.pairs.crop
        if crop is not None and m is not maps_in.UNIFORM:
            w, h, x, y = crop
            m = resample(m, *self._aligner.full)[y : y + h, x : x + w]
        return Weights(m, self._o.weight, f"frame {seen.index}")

    def _provenance(self) -> dict[str, Any]:
        o, a = self._o, self._aligner
        options = asdict(o)
        for name in ("workers", "extract", "maps", "masks", "fixations", "metrics"):
            options.pop(name)
        said: dict[str, Any] = {
            "eyeline": eyeline.__version__,
            "metrics": list(self._metrics),
            "options": options,
            "compared_as": Layout(a.chroma, a.depth).pix_fmt,
            "compared_size": [a.width, a.height],
            "psnr_cap": psnr.cap(a.depth),
        }
        if self.left_out:
            said["left_out"] = self.left_out
        if self._engine is not None:
            m = self._engine.model
            said["vmaf_model"], said["vmaf_model_sha256"] = m.name, m.sha256
        if o.method is not None:
            said["method"] = {"name": o.method, "bias": methods.BIAS[o.method]}
        return said
