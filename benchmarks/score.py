"""Measure the cost of `eyeline.score`: `python benchmarks/score.py [--rounds N]`.

The script compares `score` with what its inputs cost: `extract` of the reference plus decoding of
the distorted video with as many threads. The jobs run in turn, and every number is a median over
rounds, because other jobs may use the machine. It prints wall and CPU time per frame for 480p, 720p
and 1080p H.264, by metric, and the peak memory of a short and a long run.

With --shift it prints how much weighting changes the scores of real pairs, and where the errors
are. It divides the frame into quarters, from the least to the most salient, and prints the squared
error, 1 - SSIM, and the texture and motion of the reference in each, divided by the mean over the
frame. --plot draws these numbers.
"""

from __future__ import annotations

import argparse
import multiprocessing
import multiprocessing.connection
import statistics
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

import eyeline
from extract import CORES, SHARED, repeat_clip, source_frames, timed
from eyeline.files import whole_file
from eyeline.logs.base import pool
from eyeline.media import open_video
from eyeline.media.types import VideoOptions
from eyeline.quality._measure import MeasuredPair, measure
from eyeline.quality.pairs import Aligner, PairOptions
from eyeline.quality.score import ScoreOptions, score
from eyeline.quality.ssim import TAPS, _index, _shrunk, shrink_factor
from eyeline.quality.weights import Weights, resample
from eyeline.saliency.pipeline import ExtractOptions

OBJECTS = "saliency_student_v4"  # the numbers in the docs were measured with this model

SIZES = {"480p": (854, 480), "720p": (1280, 720), "1080p": (1920, 1080)}
FRAMES = 60
METRICS = {
    "psnr": ("psnr",),
    "psnr, ssim": ("psnr", "ssim"),
    "psnr, ssim, ms_ssim": ("psnr", "ssim", "ms_ssim"),
}


def encode(path: Path, size: tuple[int, int], crf: int) -> None:
    """Encode the source at a size with x264 medium."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.options = {"crf": str(crf), "preset": "medium"}
        for i, frame in enumerate(source_frames()[:FRAMES]):
            scaled = frame.reformat(*size, "yuv420p")
            scaled.pts, scaled.time_base = i, Fraction(1, 25)
            out.mux(stream.encode(scaled))
        out.mux(stream.encode(None))


def run_extract(clip: Path) -> int:
    with eyeline.extract(clip) as extraction:
        return sum(1 for _ in extraction)


def run_decode(clip: Path) -> int:
    with open_video(clip) as video:
        return sum(1 for _ in video.pictures())


def run_score(ref: Path, dist: Path, metrics: tuple[str, ...]) -> int:
    return len(score(ref, dist, model=OBJECTS, options=ScoreOptions(metrics=metrics)).log)


def bench(name: str, ref: Path, dist: Path, rounds: int) -> None:
    work: dict[str, Callable[[], int]] = {
        "extract REF": lambda: run_extract(ref),
        "decode DIST": lambda: run_decode(dist),
    }
    for label, metrics in METRICS.items():
        work[f"score {label}"] = lambda metrics=metrics: run_score(ref, dist, metrics)  # type: ignore[misc]
    samples: dict[str, list[tuple[float, float]]] = {key: [] for key in work}
    for step in range(rounds + 1):
        for key, job in work.items():
            sample = timed(job)
            if step:  # the first round warms caches
                samples[key].append(sample)
    wall = {k: statistics.median(s[0] for s in v) for k, v in samples.items()}
    cpu = {k: statistics.median(s[1] for s in v) for k, v in samples.items()}
    floor = wall["extract REF"] + wall["decode DIST"]
    spent = cpu["extract REF"] + cpu["decode DIST"]
    print(
        f"\n{name}, {CORES} cores, median of {rounds} rounds{'wall ms':>16}{'CPU ms':>9}"
        "   ratio, wall and CPU (target 1.30)"
    )
    for key in work:
        ratio = (
            f"{wall[key] / floor:9.2f}{cpu[key] / spent:7.2f}" if key.startswith("score") else ""
        )
        print(f"  {key:44}{wall[key]:9.2f}{cpu[key]:9.2f}{ratio}")
    alone(ref, dist)


def alone(ref: Path, dist: Path) -> None:
    """Print the CPU ms per frame of each metric alone, on one thread, for decoded planes."""
    saliency = np.random.default_rng(0).random((192, 341), np.float32)
    with open_video(ref) as a, open_video(dist) as b:
        aligner = Aligner(a.info, b.info, PairOptions())
        pairs = [
            MeasuredPair(aligner.planes(0, r.frame), aligner.planes(1, d.frame), Weights(saliency))
            for r, d, _ in zip(a.pictures(), b.pictures(), range(8), strict=False)
        ]
    cells = []
    for metric in METRICS["psnr, ssim, ms_ssim"]:
        spent = []
        for _ in range(5):
            start = time.thread_time()
            for pair in pairs:
                measure(pair, None, (metric,), None)
            spent.append((time.thread_time() - start) / len(pairs) * 1e3)
        cells.append(f"{metric} {statistics.median(spent):.2f}")
    print(f"  the metrics alone, one thread, CPU ms: {', '.join(cells)}")


def _peak(ref: str, dist: str, pipe: multiprocessing.connection.Connection) -> None:
    run_score(Path(ref), Path(dist), METRICS["psnr, ssim, ms_ssim"])
    status = Path("/proc/self/status").read_text()
    pipe.send(int(status.split("VmHWM:")[1].split()[0]) / 1024)


def peak_memory(ref: Path, dist: Path) -> float:
    """Return the peak resident MiB of a new process."""
    here, there = multiprocessing.Pipe()
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_peak, args=(str(ref), str(dist), there))
    process.start()
    peak: float = here.recv()
    process.join()
    return peak


NAMES = ("carphone", "src01_hrc01", "Big Buck Bunny, CRF 28", "Big Buck Bunny, CRF 38")
QUARTERS = ("least", "2nd", "3rd", "most salient")
KINDS = ("weight", "squared error", "1 - SSIM", "texture", "motion")


def split(ref: Path, dist: Path, options: VideoOptions | None) -> np.ndarray:
    """Return (kinds, quarters): means over a quarter of the frame, divided by the mean over the frame.

    Texture is the mean absolute difference between neighbours in a row. Motion is the mean absolute
    difference from the previous frame. Both are of the reference's luma.
    """
    sums = np.zeros((len(KINDS), len(QUARTERS)))
    wanted = ExtractOptions(keep_source=True)
    with (
        eyeline.extract(ref, video_options=options, options=wanted) as extraction,
        open_video(dist, options) as video,
    ):
        aligner = Aligner(extraction.info, video.info, PairOptions())
        before: np.ndarray | None = None
        for seen, shown in zip(extraction, video.pictures(), strict=True):
            assert seen.frame.source is not None
            planes = aligner.planes(0, seen.frame.source), aligner.planes(1, shown.frame)
            x, y = (p.luma.astype(np.float32) * 2.0 ** (8 - p.depth) for p in planes)
            small = [_shrunk(p.luma, shrink_factor(p.luma), p.depth) for p in planes]
            index = np.ones_like(small[0])
            index[TAPS // 2 : -(TAPS // 2)] = _index(*small)[0]
            m = resample(seen.map, x.shape[1], x.shape[0])
            m_small = resample(seen.map, index.shape[1], index.shape[0])
            texture = np.abs(np.diff(x, axis=1, append=x[:, -1:]))
            motion = np.zeros_like(x) if before is None else np.abs(x - before)
            edges = np.quantile(seen.map, (0.25, 0.5, 0.75))
            inside = np.s_[TAPS // 2 : -(TAPS // 2), TAPS // 2 : -(TAPS // 2)]
            fields = (m, (x - y) ** 2, 1 - index[inside], texture, motion)
            for kind, values in enumerate(fields):
                quarter = np.digitize(m_small[inside] if kind == 2 else m, edges)
                for q in range(len(QUARTERS)):
                    chosen = values[quarter == q]
                    sums[kind, q] += chosen.mean(dtype=np.float64) if chosen.size else 0
            before = x
    return sums / sums.mean(axis=1, keepdims=True)


def print_split(name: str, found: np.ndarray) -> None:
    print(f"  {name:18}" + "".join(f"{q:>14}" for q in QUARTERS))
    for kind, row in zip(KINDS, found, strict=True):
        print(f"  {kind:18}" + "".join(f"{value:14.2f}" for value in row))


def draw_split(found: dict[str, np.ndarray], path: Path) -> None:
    """Draw one panel per pair: errors, texture and motion by quarter of the frame."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(found), figsize=(11, 3.2), sharey=True, layout="constrained")
    looks = (("o-", "#c44e00"), ("s-", "#00618a"), ("^:", "#777777"), ("v:", "#8a6d00"))
    for axis, (name, values) in zip(axes, found.items(), strict=True):
        axis.axhline(1, color="#bbbbbb", linewidth=1)
        for kind, row, (mark, colour) in zip(KINDS[1:], values[1:], looks, strict=True):
            axis.plot(range(len(QUARTERS)), row, mark, color=colour, label=kind, markersize=5)
        axis.set_title(name, fontsize=10)
        axis.set_xticks(range(len(QUARTERS)), ("least", "2nd", "3rd", "most"))
        axis.grid(alpha=0.25)
    axes[0].set_ylabel("divided by the frame's mean")
    figure.supxlabel("quarter of the frame, by saliency", fontsize=10)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=4,
                  frameon=False)  # fmt: skip
    with whole_file(path) as temporary:
        figure.savefig(temporary, dpi=130, format="png")


def shift(folder: Path, plot: Path | None) -> None:
    """Print the whole and weighted means of real pairs, and their errors by quarter of the frame."""
    video = SHARED / "video"
    raw = VideoOptions(width=576, height=324, pix_fmt="yuv420p10le")
    pairs = [
        (video / "carphone_pristine.mp4", video / "carphone_distorted.mp4", None),
        (*(video / f"src01_hrc0{i}_576x324.yuv420p10le.yuv" for i in (0, 1)), raw),
    ]
    ref = folder / "bbb.mkv"
    encode(ref, (1280, 720), 4)
    for crf in (28, 38):
        dist = folder / f"bbb_crf{crf}.mkv"
        encode(dist, (1280, 720), crf)
        pairs.append((ref, dist, None))
    columns = ("psnr_y", "float_ssim", "float_ms_ssim", "eyeline_vmaf")
    print(f"{'pair':32}" + "".join(f"{c:>24}" for c in ("PSNR-Y", "SSIM", "MS-SSIM", "VMAF")))
    for a, b, options in pairs:
        log = score(a, b, model=OBJECTS, ref_options=options, dist_options=options).log
        cells = []
        for column in columns:
            weighted = "sw_" + column.removeprefix("float_").removeprefix("eyeline_")
            if column in log.values:
                whole, other = (pool(log.values[c])["mean"] for c in (column, weighted))
                cells.append(f"{whole:.3f} {other:.3f} ({other - whole:+.3f})")
            else:
                cells.append("-")
        print(f"{b.name[:31]:32}" + "".join(f"{cell:>24}" for cell in cells))
    print("\nmean over a quarter of the frame / mean over the frame")
    found = {}
    for (a, b, options), name in zip(pairs, NAMES, strict=True):
        found[name] = split(a, b, options)
        print_split(name, found[name])
    if plot is not None:
        draw_split(found, plot)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--shift", action="store_true", help="print how much weighting changes scores"
    )
    parser.add_argument(
        "--plot", type=Path, metavar="PNG", help="with --shift: draw where the errors are"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if arguments.shift:
            shift(folder, arguments.plot)
            return
        for label, size in SIZES.items():
            ref, dist = folder / f"{label}.mp4", folder / f"{label}_d.mp4"
            encode(ref, size, 18)
            encode(dist, size, 35)
            bench(label, ref, dist, arguments.rounds)
        ref, dist = folder / "480p.mp4", folder / "480p_d.mp4"
        short = peak_memory(ref, dist)
        long = folder / "long.mp4", folder / "long_d.mp4"
        repeat_clip(ref, long[0], 16)
        repeat_clip(dist, long[1], 16)
        print(
            f"\npeak memory at 480p: {short:.0f} MiB over {FRAMES} frames, "
            f"{peak_memory(*long):.0f} MiB over {16 * FRAMES}"
        )


if __name__ == "__main__":
    main()
