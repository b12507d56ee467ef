"""Measure the cost of `eyeline.extract`: `python benchmarks/extract.py [--long]`.

The measured jobs run in turn, and every number is a median over rounds, because other jobs may use
the machine. For 720p and 1080p H.264 the script prints the ratios of wall time to one-thread
inference and to total CPU time / cores, the CPU time beyond decoding and inference, the speed
against inference at native resolution, the peak memory, and whether results have the same bits for
every number of workers.
"""

from __future__ import annotations

import argparse
import multiprocessing
import multiprocessing.connection
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

import eyeline
from eyeline.inference import Session, prepare, working_size
from eyeline.media import open_video
from eyeline.registry.registry import Model, resolve_model
from eyeline.runtime import IMAGENET_MEAN, IMAGENET_STD
from eyeline.saliency.pipeline import ExtractOptions

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
FRAMES = 120
CORES = len(os.sched_getaffinity(0))
SIZES = {"720p": (1280, 720), "1080p": (1920, 1080)}


def source_frames() -> list[av.VideoFrame]:
    """Return frames to encode: from a real clip if it exists, else moving texture."""
    clip = SHARED / "video" / "bigbuckbunny.mp4"
    if clip.exists():
        with av.open(str(clip)) as container:
            return [f for f, _ in zip(container.decode(video=0), range(FRAMES), strict=False)]
    rng = np.random.default_rng(0)
    canvas = np.kron(rng.integers(0, 255, (60, 100, 3)), np.ones((16, 16, 1))).astype(np.uint8)
    return [
        av.VideoFrame.from_ndarray(np.ascontiguousarray(canvas[i : i + 720, i : i + 1280]), "rgb24")
        for i in range(FRAMES)
    ]


def make_clip(path: Path, width: int, height: int, crf: int = 23) -> None:
    """Encode the source at a size, by default with common settings: x264 medium, CRF 23."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"crf": str(crf), "preset": "medium"}
        for i, frame in enumerate(source_frames()):
            scaled = frame.reformat(width, height, "yuv420p")
            scaled.pts, scaled.time_base = i, Fraction(1, 25)
            out.mux(stream.encode(scaled))
        out.mux(stream.encode(None))


def repeat_clip(path: Path, out_path: Path, times: int) -> None:
    """Join copies of a clip without encoding them again."""
    with av.open(str(out_path), "w") as out:
        stream = None
        offset = 0
        for _ in range(times):
            with av.open(str(path)) as container:
                video = container.streams.video[0]
                stream = stream or out.add_stream_from_template(video)
                end = 0
                for packet in container.demux(video):
                    if packet.dts is None:
                        continue
                    end = max(end, packet.pts + packet.duration)
                    packet.pts += offset
                    packet.dts += offset
                    packet.stream = stream
                    out.mux(packet)
                offset += end


def run_extract(clip: Path, workers: int = 0) -> int:
    with eyeline.extract(clip, options=ExtractOptions(workers=workers)) as extraction:
        return sum(1 for _ in extraction)


def run_decode(clip: Path, threads: int) -> int:
    with av.open(str(clip)) as container:
        video = container.streams.video[0]
        video.codec_context.thread_count = threads
        video.thread_type = "AUTO" if threads != 1 else "NONE"
        return sum(1 for _ in container.decode(video))


def run_inference(session: Session, x: np.ndarray) -> int:
    for _ in range(FRAMES):
        session.run(x)
    return FRAMES


def run_native(clip: Path, session: Session, frames: int) -> int:
    """Run inference as the reference system does: single frames, colours by NumPy, native resolution."""
    mean = np.array(IMAGENET_MEAN, np.float32)
    std = np.array(IMAGENET_STD, np.float32)
    done = 0
    with av.open(str(clip)) as container:
        for frame in container.decode(video=0):
            planes = frame.to_ndarray()  # yuv420p, stacked
            w, h = frame.width, frame.height
            y = (planes[:h].astype(np.float32) - 16) * (255 / 219)
            chroma = planes[h:].reshape(2, h // 2, w // 2).astype(np.float32) - 128
            cb, cr = (c.repeat(2, 0).repeat(2, 1) * (255 / 224) for c in chroma)
            rgb = np.stack([y + 1.5748 * cr, y - 0.1873 * cb - 0.4681 * cr, y + 1.8556 * cb], -1)
            x = (np.clip(rgb, 0, 255) / 255 - mean) / std
            pad = ((0, -h % 8), (0, -w % 8), (0, 0))
            x = np.pad(x, pad, mode="edge").transpose(2, 0, 1)[None]
            float(session.run(np.ascontiguousarray(x, np.float32))[:h, :w].mean())
            done += 1
            if done == frames:
                break
    return done


def timed(work: Callable[[], int]) -> tuple[float, float]:
    """Return wall and CPU milliseconds per frame."""
    wall, cpu = time.perf_counter(), time.process_time()
    n = work()
    return (time.perf_counter() - wall) * 1e3 / n, (time.process_time() - cpu) * 1e3 / n


def _report_memory(
    clip: str, marks: list[int], pipe: multiprocessing.connection.Connection
) -> None:
    at: dict[int, float] = {}
    with eyeline.extract(clip) as extraction:
        for n, _ in enumerate(extraction, 1):
            if n in marks:
                resident = int(Path("/proc/self/statm").read_text().split()[1])
                at[n] = resident * resource.getpagesize() / 2**20
    status = Path("/proc/self/status").read_text()  # ru_maxrss would include the parent before exec
    peak = int(status.split("VmHWM:")[1].split()[0]) / 1024
    pipe.send((at, peak))


def memory(clip: Path, marks: list[int]) -> tuple[dict[int, float], float]:
    """Return the resident MiB of a new process at some frames, and its peak."""
    here, there = multiprocessing.Pipe()
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_report_memory, args=(str(clip), marks, there))
    process.start()
    result: tuple[dict[int, float], float] = here.recv()
    process.join()
    return result


def values(clip: Path, workers: int) -> list[dict[str, float]]:
    with eyeline.extract(clip, options=ExtractOptions(workers=workers)) as extraction:
        return [f.features for f in extraction]


def bench_size(name: str, clip: Path, model: Model, rounds: int, native: Model) -> None:
    session = Session(model, "cpu")
    width, height = SIZES[name]
    w, h = working_size(width, height, model.io.working_lines)
    with open_video(clip) as video:
        first = next(iter(video.frames(lambda *_: (w, h))))
    x = prepare(first.rgb, model.io)
    native_session = Session(native, "cpu")
    native_frames = 2
    work: dict[str, Callable[[], int]] = {
        "extract": lambda: run_extract(clip),
        "one worker": lambda: run_extract(clip, 1),
        "inference": lambda: run_inference(session, x),
        "decode": lambda: run_decode(clip, 1),
        "native": lambda: run_native(clip, native_session, native_frames),
    }
    samples: dict[str, list[tuple[float, float]]] = {k: [] for k in work}
    for step in range(rounds + 1):
        for key, run in work.items():
            sample = timed(run)
            if step:  # the first round warms caches
                samples[key].append(sample)
    wall = {k: statistics.median(s[0] for s in v) for k, v in samples.items()}
    cpu = {k: statistics.median(s[1] for s in v) for k, v in samples.items()}
    other = cpu["extract"] - cpu["decode"] - cpu["inference"]
    floor = cpu["extract"] / CORES
    print(f"\n{name} H.264 -> {w}x{h}, {model.id}, {CORES} cores, median of {rounds} rounds")
    print(f"  {'':34}{'wall ms':>9}{'CPU ms':>9}   per frame")
    for key in work:
        print(f"  {key:34}{wall[key]:9.2f}{cpu[key]:9.2f}")
    print(f"  wall / (CPU / cores)              {wall['extract'] / floor:9.2f}   target 1.10")
    print(
        f"  wall / one-thread inference       {wall['extract'] / wall['inference']:9.2f}   target 1.00"
    )
    least = (cpu["decode"] + cpu["inference"]) / CORES
    print(f"  wall / ((decode + inference)/cores){wall['extract'] / least:8.2f}")
    print(f"  CPU beyond decode and inference   {other:9.2f}   ms, target 1.50 at 1080p")
    times = wall["native"] / wall["extract"]
    print(
        f"  times as fast as native resolution ({Path(native.id).stem}) {times:.1f}   target 45 at 1080p"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--model", help="registry id or path; by default the default model")
    parser.add_argument(
        "--long", action="store_true", help="measure memory over 10,000 frames at 1080p"
    )
    arguments = parser.parse_args()
    model = resolve_model(arguments.model)
    reference = SHARED / "reference" / "saliency_student_v2.onnx"
    native = resolve_model(str(reference)) if reference.exists() else model
    with tempfile.TemporaryDirectory() as folder:
        clips = {name: Path(folder) / f"{name}.mp4" for name in SIZES}
        for name, (width, height) in SIZES.items():
            make_clip(clips[name], width, height)
            bench_size(name, clips[name], model, arguments.rounds, native)
        one = values(clips["720p"], 1)
        same = all(values(clips["720p"], n) == one for n in (2, 3, 5))
        print(f"\nbit-identical with 1, 2, 3 and 5 workers: {'yes' if same else 'NO'}")
        clip, marks = clips["1080p"], [100]
        if arguments.long:
            clip = Path(folder) / "long.mp4"
            repeat_clip(clips["1080p"], clip, -(-10_000 // FRAMES))
            marks = [100, 1_000, 10_000]
        at, peak = memory(clip, marks)
        shown = ", ".join(f"{mib:.0f} at frame {n}" for n, mib in at.items())
        print(f"memory at 1080p: {shown}; peak {peak:.0f} MiB (target 250)")


if __name__ == "__main__":
    main()
