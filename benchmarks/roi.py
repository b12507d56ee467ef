"""Measure the cost of steering: `python benchmarks/roi.py VIDEO [--frames 60] [--repeat 3]`.

The script runs in turn: the plain encode (strength 0, x264 medium), decoding alone, `extract`
alone, and `roi encode`; then the computation of regions alone (blocks, law, smoothing, rectangles,
side data) on the same frames and maps. It prints medians of the CPU time of this process and of
wall time. On a busy machine, CPU time is reliable and wall time is not.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from eyeline.media import open_video
from eyeline.roi.encode import EncodeOptions, SteerOptions, encode
from eyeline.roi.encode._regions import MOST_REGIONS, RegionWriter, rectangles
from eyeline.roi.steering import LevelMapper
from eyeline.saliency.pipeline import ExtractOptions, extract

OBJECTS = "saliency_student_v4"  # the numbers in the docs were measured with this model


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Return CPU and wall seconds of a call."""
    cpu, wall = time.process_time(), time.perf_counter()
    work()
    return time.process_time() - cpu, time.perf_counter() - wall


def machinery(video: str, options: ExtractOptions) -> Callable[[], object]:
    """Read frames and maps in advance; return a function that makes regions and attaches them."""
    with extract(video, options=options) as extraction:
        info = extraction.info
        frames = [(f.frame.source, f.map, f.frame.rotation, f.cut) for f in extraction]

    def work() -> None:
        steering = LevelMapper(SteerOptions(), info.width, info.height, 16)
        write = RegionWriter(51)
        for source, saliency, rotation, cut in frames:
            assert source is not None
            levels = steering(saliency, rotation, cut=cut, picture=source)
            write(source, rectangles(levels, info.width, info.height, 16, MOST_REGIONS))

    return work


def main() -> None:
    """Measure and print a table of ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("video")
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--repeat", type=int, default=3)
    args = parser.parse_args()
    video = args.video
    part = ExtractOptions(stop=args.frames, keep_source=True)
    with open_video(video) as opened:
        print(f"{opened.info.width}x{opened.info.height}, {args.frames} frames")
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.mkv"
        plain = EncodeOptions(preset="medium", steer=SteerOptions(strength=0), extract=part)
        steered = EncodeOptions(preset="medium", extract=part)
        work: dict[str, Callable[[], object]] = {
            "plain encode": lambda: encode(video, out, plain),
            "decode alone": lambda: _drain(open_video(video).pictures(0, args.frames)),
            "extract": lambda: _drain(extract(video, options=part)),
            "roi encode": lambda: encode(video, out, steered, model=OBJECTS),
            "regions alone": machinery(video, part),
        }
        runs: dict[str, list[tuple[float, float]]] = {name: [] for name in work}
        for _ in range(args.repeat):
            for name, call in work.items():
                runs[name].append(timed(call))
    for column, kind in ((0, "CPU"), (1, "wall")):
        m = {name: statistics.median(r[column] for r in found) for name, found in runs.items()}
        for name, seconds in m.items():
            print(f"{kind:5}{name:15}{1000 * seconds / args.frames:8.2f} ms per frame")
        inference = m["extract"] - m["decode alone"]
        ratio = m["roi encode"] / (m["plain encode"] + inference)
        print(f"{kind:5}roi encode / (plain encode + inference): {ratio:.3f} (at most 1.25)")
        share = m["regions alone"] / m["plain encode"]
        print(f"{kind:5}regions alone / plain encode: {share:.4f} (under 0.03)")


def _drain(items: object) -> None:
    for _ in items:  # type: ignore[attr-defined]
        pass


if __name__ == "__main__":
    main()
