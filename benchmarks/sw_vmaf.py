"""Compare `sw_vmaf` with libvmaf: cost and scores; and show the effect of the weights.

    python benchmarks/sw_vmaf.py [--long]        # times, worst differences, memory
    python benchmarks/sw_vmaf.py --threads       # only the gain from threads
    python benchmarks/sw_vmaf.py --plot docs/images/sw_vmaf.png

Both score the same 854x480 pair on one thread, in turn. Times are medians of CPU time per frame.
libvmaf is the one of imageio-ffmpeg (extra `vmaf`). The time of a run over one frame is subtracted,
which removes the start of FFmpeg.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator
from multiprocessing.synchronize import Barrier
from pathlib import Path

import cv2
import imageio_ffmpeg
import numpy as np

from eyeline.files import whole_file
from eyeline.parallel import map_in_threads
from eyeline.quality.sw_vmaf import FramePart, LumaPair, SwVmaf, VmafScore, load_model

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
WIDTH, HEIGHT, FRAMES = 854, 480, 48
CORES = len(os.sched_getaffinity(0))
FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()


def ffmpeg(*arguments: str | Path) -> float:
    """Run FFmpeg and return its CPU seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([FFMPEG, "-y", "-nostdin", "-v", "error", *arguments], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def make_pair(folder: Path) -> list[LumaPair]:
    """Make a pair: a real clip if it exists, else a test pattern, and its x264 encode at CRF 32."""
    clip = SHARED / "video" / "bigbuckbunny.mp4"
    pattern = ["-f", "lavfi", "-i", f"mandelbrot=size={WIDTH}x{HEIGHT}:rate=25"]
    source = ["-i", clip] if clip.exists() else pattern
    scale = f"scale={WIDTH}:{HEIGHT},format=yuv420p"
    ffmpeg(*source, "-vf", scale, "-frames:v", str(FRAMES), folder / "ref.y4m")
    ffmpeg("-i", folder / "ref.y4m", "-c:v", "libx264", "-crf", "32", folder / "dist.mp4")
    ffmpeg("-i", folder / "dist.mp4", folder / "dist.y4m")
    planes = []
    for name in ("ref", "dist"):
        ffmpeg("-i", folder / f"{name}.y4m", "-f", "rawvideo", folder / f"{name}.yuv")
        codes = np.fromfile(folder / f"{name}.yuv", np.uint8).reshape(FRAMES, -1)
        planes.append(codes[:, : WIDTH * HEIGHT].reshape(FRAMES, HEIGHT, WIDTH))
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    weight = np.exp(-(((x - WIDTH / 2) / 120) ** 2) - ((y - HEIGHT / 2) / 90) ** 2)
    return [LumaPair(r, d, 8, weight.astype(np.float32)) for r, d in zip(*planes, strict=True)]


def libvmaf(folder: Path, model: str, frames: int) -> float:
    """Run libvmaf on one thread, write its log to the folder, and return its CPU seconds."""
    return ffmpeg(
        *("-threads", "1", "-i", folder / "dist.y4m", "-threads", "1", "-i", folder / "ref.y4m"),
        *("-filter_complex_threads", "1", "-frames:v", str(frames), "-lavfi"),
        f"[0:v]trim=end_frame={frames}[d];[1:v]trim=end_frame={frames}[r];[d][r]"
        f"libvmaf=n_threads=1:model=version={model}:log_fmt=json:log_path={folder / 'log.json'}",
        *("-f", "null", "-"),
    )


def scores(engine: SwVmaf, pairs: Iterable[LumaPair], workers: int = 1) -> Iterator[VmafScore]:
    """Yield the scores of a clip as `eyeline score` does; one worker computes in this thread."""

    def jobs() -> Iterator[tuple[LumaPair, LumaPair | None]]:
        previous = None
        for pair in pairs:
            yield pair, previous
            previous = pair

    def part(job: tuple[LumaPair, LumaPair | None]) -> FramePart:
        return engine.part(*job)

    waiting = None
    for p in map(part, jobs()) if workers == 1 else map_in_threads(part, jobs(), workers):
        if waiting is not None:
            yield engine.finish(waiting, p)
        waiting = p
    if waiting is not None:
        yield engine.finish(waiting)


def compare(long: bool) -> None:
    """Print times, differences and memory."""
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pairs = make_pair(folder)
        plain = [pair._replace(weight=None) for pair in pairs]
        print(f"{WIDTH}x{HEIGHT}, {FRAMES} frames, {CORES} cores; CPU ms per frame on one thread")
        print(f"{'model':16} {'libvmaf':>8} {'VMAF':>8} {'x':>5} {'with sw_vmaf':>13} {'x':>5}")
        for model in ("vmaf_v0.6.1", "vmaf_v0.6.1neg"):
            engine = SwVmaf(load_model(model))
            rounds: list[tuple[float, float, float]] = []
            for _ in range(5):
                cpu = libvmaf(folder, model, FRAMES) - libvmaf(folder, model, 1)
                theirs = cpu / (FRAMES - 1)
                ours = []
                for clip in (plain, pairs):
                    start = time.thread_time()
                    list(scores(engine, clip))
                    ours.append((time.thread_time() - start) / FRAMES)
                rounds.append((theirs, *ours))
            a, b, c = (statistics.median(column) * 1e3 for column in zip(*rounds, strict=True))
            print(f"{model:16} {a:8.2f} {b:8.2f} {b / a:5.2f} {c:13.2f} {c / a:5.2f}")
        gain(pairs)
        engine = SwVmaf(load_model())
        print("\nworst difference from libvmaf")
        for model in ("vmaf_v0.6.1", "vmaf_v0.6.1neg"):
            libvmaf(folder, model, FRAMES)
            frames = json.loads((folder / "log.json").read_text())["frames"]
            worst: dict[str, float] = {}
            for score, frame in zip(scores(SwVmaf(load_model(model)), plain), frames, strict=True):
                for key, value in score.whole.items():
                    limited = model.endswith("neg") and key != "motion2"
                    named = f"integer_{key}{'_egl_1' if limited else ''}"
                    other = frame["metrics"]["vmaf" if key == "vmaf" else named]
                    worst[key] = max(worst.get(key, 0), abs(value - other))
            print(model, {key: round(value, 5) for key, value in worst.items()})
        if long:
            print("\nresident MiB by number of frames")
            for i, _ in enumerate(scores(engine, repeat(pairs, 3000), CORES), 1):
                if i in (100, 1000, 3000):
                    print(f"{i:5} {resident():6.0f}")


def gain(pairs: list[LumaPair]) -> None:
    """Print wall and CPU time by number of threads, measured in turn."""
    engine = SwVmaf(load_model())
    samples: dict[int, list[tuple[float, float]]] = {1: [], CORES: []}
    for step in range(6):
        for workers, sample in samples.items():
            wall, cpu = time.perf_counter(), time.process_time()
            list(scores(engine, pairs, workers))
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            if step:  # the first round warms caches
                sample.append((wall / FRAMES * 1e3, cpu / FRAMES * 1e3))
    print("\nwhole and weighted, ms per frame, by threads\n        wall     CPU")
    for workers, sample in samples.items():
        wall, cpu = (statistics.median(column) for column in zip(*sample, strict=True))
        print(f"{workers:3} {wall:8.2f}{cpu:8.2f}")
    one, many = (statistics.median(w for w, _ in sample) for sample in samples.values())
    print(f"{CORES} threads are {one / many:.2f} times as fast as one")
    apart = statistics.median(processes(pairs) for _ in range(3))
    print(
        f"{CORES} independent processes are {one / apart:.2f} times as fast: the limit of the machine"
    )


def processes(pairs: list[LumaPair]) -> float:
    """Return wall ms per frame of one process per core, with one thread each, on the same frames."""

    def work(gate: Barrier) -> None:
        engine = SwVmaf(load_model())
        list(scores(engine, pairs[:4]))
        gate.wait()
        list(scores(engine, pairs))
        gate.wait()

    context = multiprocessing.get_context("fork")
    gate = context.Barrier(CORES + 1)
    running = [context.Process(target=work, args=(gate,)) for _ in range(CORES)]
    for process in running:
        process.start()
    gate.wait()
    start = time.perf_counter()
    gate.wait()
    wall = time.perf_counter() - start
    for process in running:
        process.join()
    return wall / FRAMES / CORES * 1e3


def repeat(pairs: list[LumaPair], count: int) -> Iterator[LumaPair]:
    """Yield these frames again and again, `count` in all."""
    return (pairs[i % len(pairs)] for i in range(count))


def resident() -> float:
    """Return the resident memory, MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def scene() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return a picture whose texture repeats every 96 columns, and two boxes with equal content."""
    rng = np.random.default_rng(6)
    frequency = np.hypot(
        *np.meshgrid(np.fft.fftfreq(192), np.fft.rfftfreq(96), indexing="ij"),
    )
    spectrum = np.fft.rfft2(rng.normal(0, 1, (192, 96))) / (1 + 40 * frequency)
    tile = np.fft.irfft2(spectrum, (192, 96))
    picture = np.tile(128 + 35 * tile / tile.std(), (1, 5)).clip(0, 255).astype(np.uint8)
    subject, background = np.zeros(picture.shape, bool), np.zeros(picture.shape, bool)
    subject[56:136, 96:192] = True
    background[56:136, 288:384] = True
    return picture, subject, background


def plot(path: Path) -> None:
    """Draw both scores by the strength of a noise, on the subject or on the background."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    picture, subject, background = scene()
    weight = np.where(subject, 1, 0.02).astype(np.float32)
    noise = np.tile(np.random.default_rng(1).normal(0, 1, (192, 96)), (1, 5))
    engine = SwVmaf(load_model())
    strengths = np.arange(0, 21, 2)
    curves: dict[tuple[str, str], list[float]] = {}
    for place, where in (("subject", subject), ("background", background)):
        for strength in strengths:
            damaged = (picture + strength * noise * where).round().clip(0, 255).astype(np.uint8)
            score = engine.finish(engine.part(LumaPair(picture, damaged, 8, weight)))
            assert score.weighted is not None
            curves.setdefault(("VMAF", place), []).append(score.whole["vmaf"])
            curves.setdefault(("sw_vmaf", place), []).append(score.weighted["vmaf"])
    figure, axes = plt.subplots(1, 2, figsize=(8, 3.4), sharey=True, layout="constrained")
    for axis, metric in zip(axes, ("VMAF", "sw_vmaf"), strict=True):
        axis.plot(strengths, curves[metric, "subject"], "o-", color="#c44e00", label="subject")
        axis.plot(
            strengths, curves[metric, "background"], "s--", color="#00618a", label="background"
        )
        axis.set_title(metric)
        axis.set_xlabel("noise in the box, standard deviation in codes")
        axis.grid(alpha=0.3)
        axis.legend(title="the same noise on the", frameon=False)
        gap = curves[metric, "background"][-1] - curves[metric, "subject"][-1]
        print(f"{metric}: at {strengths[-1]} codes the background scores {gap:+.1f} points")
    axes[0].set_ylabel("score")
    axes[0].set_ylim(0, 102)
    with whole_file(path) as temporary:
        figure.savefig(temporary, dpi=130)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--long", action="store_true", help="also measure memory over 3,000 frames")
    parser.add_argument("--threads", action="store_true", help="measure only the gain from threads")
    parser.add_argument("--plot", type=Path, metavar="PNG", help="draw the picture of the docs")
    given = parser.parse_args()
    if given.plot:
        plot(given.plot)
    elif given.threads:
        cv2.setNumThreads(1)
        with tempfile.TemporaryDirectory() as name:
            gain(make_pair(Path(name)))
    else:
        compare(given.long)
