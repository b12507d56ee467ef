"""What `eyeline.score` costs, as ratios in one run: `python benchmarks/score.py [--rounds N]`.

The floor is what its inputs cost anyway: `extract` of the reference plus decoding the distorted video
with as many threads. Rounds are interleaved and medians quoted, since machines are shared and noisy.
Prints wall and CPU time a frame for 480p, 720p and 1080p H.264, by metric, and the peak memory of a
short and a long run. With --shift it prints instead how far weighting moves scores on real pairs.
"""

from __future__ import annotations

import argparse
import multiprocessing
import multiprocessing.connection
import statistics
import tempfile
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av

import eyeline
from extract import CORES, SHARED, repeat_clip, source_frames, timed
from eyeline.logs.pooling import pool
from eyeline.media import open_video
from eyeline.media.types import VideoOptions
from eyeline.quality.score import ScoreOptions, score

SIZES = {"480p": (854, 480), "720p": (1280, 720), "1080p": (1920, 1080)}
FRAMES = 60
METRICS = {
    "psnr": ("psnr",),
    "psnr, ssim": ("psnr", "ssim"),
    "psnr, ssim, ms_ssim": ("psnr", "ssim", "ms_ssim"),
}


def encode(path: Path, size: tuple[int, int], crf: int) -> None:
    """The source at a size: x264, medium."""
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
    return len(score(ref, dist, options=ScoreOptions(metrics=metrics)).log)


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
        "   ratio, wall and CPU (bar 1.30)"
    )
    for key in work:
        ratio = (
            f"{wall[key] / floor:9.2f}{cpu[key] / spent:7.2f}" if key.startswith("score") else ""
        )
        print(f"  {key:44}{wall[key]:9.2f}{cpu[key]:9.2f}{ratio}")


def _peak(ref: str, dist: str, pipe: multiprocessing.connection.Connection) -> None:
    run_score(Path(ref), Path(dist), METRICS["psnr, ssim, ms_ssim"])
    status = Path("/proc/self/status").read_text()
    pipe.send(int(status.split("VmHWM:")[1].split()[0]) / 1024)


def peak_memory(ref: Path, dist: Path) -> float:
    """Peak resident MiB of a fresh process."""
    here, there = multiprocessing.Pipe()
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_peak, args=(str(ref), str(dist), there))
    process.start()
    peak: float = here.recv()
    process.join()
    return peak


def shift(folder: Path) -> None:
    """Whole and weighted means of real pairs."""
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
        log = score(a, b, ref_options=options, dist_options=options).log
        cells = []
        for column in columns:
            weighted = "sw_" + column.removeprefix("float_").removeprefix("eyeline_")
            if column in log.values:
                whole, other = (pool(log.values[c])["mean"] for c in (column, weighted))
                cells.append(f"{whole:.3f} {other:.3f} ({other - whole:+.3f})")
            else:
                cells.append("-")
        print(f"{b.name[:31]:32}" + "".join(f"{cell:>24}" for cell in cells))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--shift", action="store_true", help="how far weighting moves scores")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if arguments.shift:
            shift(folder)
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
