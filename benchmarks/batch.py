"""Measure the cost of `eyeline batch`: `python benchmarks/batch.py [--rounds N] [--quick]`.

The measured jobs run in turn, and every number is a median over rounds. The script prints:

- frames per second of a batch, of inference, of decoding, and of inference at native resolution;
- one worker and two workers, local processes and Ray (if Ray is installed), and the memory of a worker;
- one long pair of `score` with one worker and with two (`--pair` prints only this);
- the time per frame by length, resolution and number of titles;
- variants of inference that were tried, the effect of `--still` and `--stride`, and a sizing table.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from extract import CORES, SHARED, make_clip, repeat_clip, run_decode, run_native
from eyeline.batch.driver import run_batch
from eyeline.batch.local import LocalEngine
from eyeline.batch.manifest import read_titles
from eyeline.batch.store import version_of
from eyeline.batch.task import Engine, Job
from eyeline.batch.work import ExtractWork, ScoreWork, Work
from eyeline.inference import Session, finish, prepare, working_size
from eyeline.media import open_video
from eyeline.media.types import VideoOptions
from eyeline.quality.score import ScoreOptions
from eyeline.registry.registry import Model, resolve_model
from eyeline.saliency.features import map_features
from eyeline.saliency.pipeline import Extraction, ExtractOptions

SIZES = {"360p": (640, 360), "720p": (1280, 720), "1080p": (1920, 1080)}
CLIP = 120  # frames of `make_clip`
PAIR = 5  # clips that are joined to the pair
MINUTE = 12  # clips that are joined to a title of about a minute, at 25 frames per second


def make_job(out: Path, segment: int = 1500, work: Work | None = None) -> Job:
    work = work or ExtractWork()
    model = work.resolve()
    work = replace(work, model_sha256=model.sha256)
    return Job(work, str(out), version_of(work.command, model.id, work.facts()), segment=segment)


class Peak:
    """Measure the largest resident memory of any worker while the block runs, MiB."""

    def __enter__(self) -> Peak:
        self.mebibytes, self._over = 0.0, threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._over.wait(0.05):
            for child in psutil.Process().children(recursive=True):
                try:
                    if any("spawn_main" in word for word in child.cmdline()):
                        rss = child.memory_info().rss / 2**20
                        self.mebibytes = max(self.mebibytes, rss)
                except psutil.Error:
                    continue

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


def run_once(
    source: Path,
    engine_of: Callable[[Job], Engine],
    segment: int = 1500,
    work: Work | None = None,
) -> tuple[float, int]:
    """Return seconds and frames of a batch. The engine is started before, as in a long batch."""
    with tempfile.TemporaryDirectory() as out:
        job = make_job(Path(out), segment, work)
        titles = read_titles(str(source), pairs=job.work.pairs)
        with engine_of(job) as engine:
            begun = time.perf_counter()
            result = run_batch(titles, job, engine)
            seconds = time.perf_counter() - begun
        assert not result.failed, result.reasons
        return seconds, result.frames


def local(workers: int) -> Callable[[Job], Engine]:
    return lambda job: LocalEngine(job, workers)


def on_ray(job: Job) -> Engine:
    from eyeline.batch.ray_engine import RayEngine

    return RayEngine(job, None, workers=CORES)


def start_ray() -> None:
    """Start a cluster before the measurement, because a long batch starts it only once."""
    import ray

    begun = time.perf_counter()
    ray.init(
        address="local",
        num_cpus=CORES,
        include_dashboard=False,
        object_store_memory=100 << 20,
        log_to_driver=False,
        logging_level="ERROR",
    )
    print(f"Ray took {time.perf_counter() - begun:.1f} s to start; this is not counted below")


def pinned(work: Callable[[], int]) -> float:
    """Return milliseconds per frame of `work` on one core, which is what a worker uses."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        begun = time.perf_counter()
        n = work()
        return (time.perf_counter() - begun) * 1e3 / n
    finally:
        os.sched_setaffinity(0, cores)


def first_input(clip: Path, model: Model) -> tuple[np.ndarray, np.ndarray]:
    with open_video(clip) as video:
        width, height = video.info.display_width, video.info.display_height
        size = working_size(width, height, model.io.working_lines)
        frame = next(iter(video.frames(lambda *_: size)))
    return frame.rgb, prepare(frame.rgb, model.io)


def many(work: Callable[[], Any], times: int = 100) -> Callable[[], int]:
    def run() -> int:
        for _ in range(times):
            work()
        return times

    return run


def bench_engines(folder: Path, clip: Path, titles: int, rounds: int, ray: bool) -> None:
    """Measure titles of one minute on every engine, beside inference and decoding alone."""
    source = folder / "minutes"
    source.mkdir()
    long = folder / "minute.mp4"
    repeat_clip(clip, long, MINUTE)
    for i in range(titles):
        shutil.copy(long, source / f"{i}.mp4")
    model = resolve_model(None)
    session = Session(model, "cpu")
    _, x = first_input(clip, model)
    reference = SHARED / "reference" / "saliency_student_v2.onnx"
    native = Session(resolve_model(str(reference)), "cpu") if reference.exists() else session
    engines: dict[str, Callable[[Job], Engine]] = {"1 worker": local(1), "2 workers": local(2)}
    if ray:
        engines["ray"] = on_ray
        start_ray()
    floors: dict[str, Callable[[], int]] = {
        "inference": many(lambda: session.run(x)),
        "decode": lambda: run_decode(clip, 1),
        "native": lambda: run_native(clip, native, 2),
    }
    wall: dict[str, list[float]] = {k: [] for k in (*engines, *floors)}
    with Peak() as peak:
        for _ in range(rounds):
            for name, engine_of in engines.items():
                seconds, frames = run_once(source, engine_of)
                wall[name].append(seconds * 1e3 / frames)
            for name, work in floors.items():
                wall[name].append(pinned(work))
    ms = {k: statistics.median(v) for k, v in wall.items()}
    print(
        f"\n{titles} titles of {MINUTE * CLIP} frames, 720p H.264; {rounds} rounds, {CORES} cores"
    )
    for name, value in ms.items():
        print(f"  {name:12}{value:8.2f} ms per frame {1e3 / value:8.1f} frames/s")
    floor = ms["inference"] + ms["decode"]
    two = ms["2 workers"]

    def ratio(label: str, value: float, bar: str = "") -> None:
        print(f"  {label:44}{value:8.2f}   {bar}".rstrip())

    ratio("1 worker / (inference + decode, one core)", ms["1 worker"] / floor)
    ratio("2 workers / inference of one core", two / ms["inference"])
    ratio("2 workers / decode of one core", two / ms["decode"])
    ratio("times as fast as native resolution", ms["native"] / two)
    ratio("1 worker / 2 workers", ms["1 worker"] / two, "target 1.80")
    if ray:
        ratio("ray / 2 workers", ms["ray"] / two, "target 1.10")
    ratio("largest memory of a worker, MiB", peak.mebibytes)
    sizing(folder, source, ms["1 worker"])


def sizing(folder: Path, source: Path, ms: float) -> None:
    """Print what a catalogue of 1,000 hours needs."""
    out = folder / "sizing"
    job = make_job(out)
    titles = read_titles(str(source))
    with LocalEngine(job, CORES) as engine:
        result = run_batch(titles, job, engine)
    parts = list(out.glob("version=*/title=*/*.parquet"))
    bytes_per_frame = sum(p.stat().st_size for p in parts) / result.frames
    again = time.perf_counter()
    with LocalEngine(job, CORES) as engine:
        skipped = run_batch(titles, job, engine).skipped
    again = time.perf_counter() - again
    assert len(skipped) == len(titles)
    frames = 1000 * 3600 * 25
    print("\nsizing, 720p at 25 frames/s")
    print(f"  frames/s per core                  {1e3 / ms:10.1f}")
    print(f"  times real time, per core          {1e3 / ms / 25:10.1f}")
    print(f"  core hours for 1,000 h             {frames * ms / 3.6e6:10.1f}")
    print(f"  GB of results for 1,000 h          {frames * bytes_per_frame / 1e9:10.2f}")
    print(f"  a rerun, ms per unchanged title    {again / len(titles) * 1e3:10.1f}")


def bench_pair(folder: Path, clip: Path, rounds: int) -> None:
    """Measure one long pair: in one piece, in segments with one worker, in segments with two."""
    ref, dist, manifest = (folder / n for n in ("ref.mp4", "dist.mp4", "pair.csv"))
    rough = folder / "rough.mp4"
    make_clip(rough, *SIZES["360p"], crf=38)
    for source, path in ((clip, ref), (rough, dist)):
        repeat_clip(source, path, PAIR)
    manifest.write_text(f"title,reference,distorted\npair,{ref},{dist}\n")
    work = ScoreWork(score=ScoreOptions(metrics=("sw_vmaf",)))
    ways = {"whole, 1 worker": (1, 0), "segments, 1 worker": (1, CLIP), "2 workers": (2, CLIP)}
    wall: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, (workers, segment) in ways.items():
            seconds, frames = run_once(manifest, local(workers), segment, work)
            wall[name].append(seconds * 1e3 / frames)
    ms = {name: statistics.median(times) for name, times in wall.items()}
    print(f"\none pair of {PAIR * CLIP} frames, 360p, sw_vmaf, segments of {CLIP}; {rounds} rounds")
    for name, value in ms.items():
        print(f"  {name:20}{value:8.2f} ms per pair {1e3 / value:8.1f} pairs/s", flush=True)
    print(f"  whole / segments, 1 worker  {ms['whole, 1 worker'] / ms['segments, 1 worker']:8.2f}")
    print(f"  whole / 2 workers           {ms['whole, 1 worker'] / ms['2 workers']:8.2f}")


def bench_growth(folder: Path, clips: dict[str, Path]) -> None:
    """Print milliseconds per frame by length, resolution and number of titles."""
    print("\ngrowth, 2 workers, ms per frame")
    for times in (2, 8, 32):
        source = folder / f"length{times}"
        source.mkdir()
        repeat_clip(clips["360p"], source / "a.mp4", times)
        seconds, frames = run_once(source, local(2), segment=480)
        print(f"  one 360p title of {times * CLIP:5} frames    {seconds * 1e3 / frames:8.2f}")
    for name, clip in clips.items():
        source = folder / f"size{name}"
        source.mkdir()
        for i in range(2):
            repeat_clip(clip, source / f"{i}.mp4", 5)
        seconds, frames = run_once(source, local(2))
        print(f"  {name}, 2 titles of {5 * CLIP} frames    {seconds * 1e3 / frames:8.2f}")
    for count in (4, 16, 64):
        source = folder / f"count{count}"
        source.mkdir()
        for i in range(count):
            shutil.copy(clips["360p"], source / f"{i}.mp4")
        seconds, frames = run_once(source, local(2))
        print(f"  {count:3} 360p titles of {CLIP} frames    {seconds * 1e3 / frames:8.2f}")


def bench_limits(folder: Path, clip: Path) -> None:
    """Measure variants of inference that could be faster, each alone, on one core."""
    import onnxruntime as ort
    from onnx import TensorProto, helper, load, numpy_helper, save

    model = resolve_model(None)
    session = Session(model, "cpu")
    rgb, x = first_input(clip, model)
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    plain = ort.InferenceSession(str(model.path), options, ["CPUExecutionProvider"])
    (name,) = [i.name for i in plain.get_inputs()]
    # A graph that takes uint8 and normalises it.
    graph = load(str(model.path))
    mean = np.array([0.485, 0.456, 0.406], np.float32).reshape(1, 3, 1, 1) * 255
    std = np.array([0.229, 0.224, 0.225], np.float32).reshape(1, 3, 1, 1) * 255
    for value, label in ((mean, "u8_mean"), (std, "u8_std")):
        graph.graph.initializer.append(numpy_helper.from_array(value, label))
    first = [
        helper.make_node("Cast", ["u8"], ["u8_float"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["u8_float", "u8_mean"], ["u8_centred"]),
        helper.make_node("Div", ["u8_centred", "u8_std"], ["u8_normal"]),
    ]
    for node in graph.graph.node:
        node.input[:] = ["u8_normal" if i == name else i for i in node.input]
    nodes = [*first, *graph.graph.node]
    del graph.graph.node[:], graph.graph.input[:]
    graph.graph.node.extend(nodes)
    graph.graph.input.append(
        helper.make_tensor_value_info("u8", TensorProto.UINT8, ["n", 3, "h", "w"])
    )
    save(graph, str(folder / "u8.onnx"))
    fused = ort.InferenceSession(str(folder / "u8.onnx"), options, ["CPUExecutionProvider"])
    h, w = x.shape[2:]
    u8 = np.zeros((1, 3, h, w), np.uint8)
    u8[:, :, : rgb.shape[1], : rgb.shape[2]] = rgb
    four = np.repeat(x, 4, axis=0)
    m = finish(session.run(x), *rgb.shape[1:], model.io)
    work: dict[str, tuple[Callable[[], Any], int]] = {
        "inference": (lambda: plain.run(None, {name: x}), 1),
        "inference, batch of 4": (lambda: plain.run(None, {name: four}), 4),
        "normalise + inference": (lambda: plain.run(None, {name: prepare(rgb, model.io)}), 1),
        "uint8 in, fused graph": (lambda: fused.run(None, {"u8": u8}), 1),
        "features of a map": (lambda: map_features(m, m), 1),
    }
    samples: dict[str, list[float]] = {k: [] for k in work}
    for _ in range(7):
        for key, (run, frames) in work.items():
            samples[key].append(pinned(many(run, 40)) / frames)
    print("\ntried, ms per frame on one core")
    for key, values in samples.items():
        print(f"  {key:26}{statistics.median(values):8.3f}")


def bench_still() -> None:
    """Print what `--still` and `--stride` save on real films, and how much the maps change."""
    session = Session(resolve_model(None), "cpu")

    def maps(clip: Path, **how: Any) -> tuple[list[np.ndarray], float, float]:
        options = ExtractOptions(workers=1, **how)
        video = open_video(clip, VideoOptions(threads=1))
        begun = time.process_time()
        frames = list(Extraction(video, session, options))
        seconds = time.process_time() - begun
        inferred = sum(not f.filled for f in frames) / len(frames)
        return [f.map for f in frames], inferred, seconds

    print("\nskipping: share of frames inferred, CPU, mean absolute error of maps, worst frame")
    for name in ("bigbuckbunny.mp4", "bikes.mp4", "carphone_pristine.mp4"):
        clip = SHARED / "video" / name
        if not clip.exists():
            print("  needs the development data")
            return
        whole, _, full = maps(clip)
        for how in ({"still": 0.5}, {"still": 1.0}, {"still": 2.0}, {"stride": 2}, {"stride": 4}):
            got, inferred, seconds = maps(clip, **how)
            errors = [float(np.abs(a - b).mean()) for a, b in zip(whole, got, strict=True)]
            label = " ".join(f"{k} {v}" for k, v in how.items())
            print(
                f"  {name:22}{label:10}{inferred:6.0%}{seconds / full:8.2f}"
                f"{statistics.mean(errors):9.4f}{max(errors):9.4f}"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--titles", type=int, default=4)
    parser.add_argument("--quick", action="store_true", help="measure only the engines")
    parser.add_argument("--pair", action="store_true", help="measure only the long pair")
    arguments = parser.parse_args()
    ray = (
        importlib.util.find_spec("ray") is not None
        and importlib.util.find_spec("eyeline.batch.ray_engine") is not None
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clips = {size: folder / f"{size}.mp4" for size in SIZES}
        for size, (width, height) in SIZES.items():
            if not arguments.pair or size == "360p":
                make_clip(clips[size], width, height)
        if arguments.pair:
            bench_pair(folder, clips["360p"], arguments.rounds)
            return
        bench_engines(folder, clips["720p"], arguments.titles, arguments.rounds, ray)
        if not arguments.quick:
            bench_pair(folder, clips["360p"], arguments.rounds)
            bench_growth(folder, clips)
            bench_limits(folder, clips["720p"])
            bench_still()


if __name__ == "__main__":
    main()
