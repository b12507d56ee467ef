"""Measure what steering by gaze gains, judged by recorded gaze (docs/measurements/roi_steering.md).

    python benchmarks/gaze_steering.py --data ../shared/data/gaze/hevc-dev.tar --work work
    python benchmarks/gaze_steering.py --data hevc-dev --work work --multiples 0.5,1,2 --plot curve.png

The script encodes every video of a fixation set plainly and steered by each map, with x264 medium,
one encode at a time. It scales down videos that are wider than `--width`. Finished encodes stay in
the work folder, so an interrupted run resumes.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import av
import numpy as np

from eyeline.datasets.files import local_path
from eyeline.datasets.fixations import Stimulus, load_fixation_set
from eyeline.files import whole_file
from eyeline.media import open_video
from eyeline.roi import steering
from eyeline.roi.compare import CompareOptions, TradeOff, compare_maps, mean_lines, steer_map
from eyeline.roi.compare.report import delta_cell, plot_trade_off
from eyeline.roi.steering import SteerOptions
from eyeline.saliency.pipeline import ExtractOptions
from eyeline.tables import markdown_table

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data" / "gaze" / "hevc-dev.tar"
METRICS = {"sw_psnr": "EWPSNR", "psnr_whole": "PSNR whole", "vmaf": "VMAF whole"}


def prepared(stimulus: Stimulus, work: Path, width: int, frames: int) -> Path:
    """Write the first frames of a video, at most `width` pixels wide, to a lossless file."""
    out = work / f"{width}x{frames}" / f"{Path(stimulus.name).name}.mkv"
    if out.exists():
        return out
    out.parent.mkdir(parents=True, exist_ok=True)
    w, h = stimulus.size
    if w > width:
        w, h = width, round(width * h / w / 2) * 2
    with local_path(stimulus.source) as path, open_video(path) as video, whole_file(out) as part:
        fps = video.info.fps
        assert fps is not None
        with av.open(str(part), "w", format="matroska") as target:
            stream = target.add_stream("ffv1", rate=fps)
            stream.width, stream.height, stream.pix_fmt = w, h, "yuv420p"
            for decoded in video.pictures(0, frames):
                frame = decoded.frame.reformat(w, h, "yuv420p", interpolation="BICUBIC")
                frame.pts, frame.time_base = decoded.index, 1 / fps
                target.mux(stream.encode(frame))
            target.mux(stream.encode(None))
    return out


def rows_of(clip: str, found: TradeOff) -> list[list[str]]:
    rows = []
    for name, comparisons in found.comparisons.items():
        for c in comparisons:
            steer = c.provenance["steer"]
            cells = [delta_cell(c, m) for m in METRICS]
            law = f"{steer['law']} {steer['strength']:g}"
            rows.append([clip, name, law, *cells, f"{c.growth:+.1%}"])
    return rows


def mean_rows(clips: list[TradeOff]) -> list[list[str]]:
    rows = []
    for name, comparisons in clips[0].comparisons.items():
        for i, c in enumerate(comparisons):
            same = [clip.comparisons[name][i] for clip in clips]
            cells = []
            for m in METRICS:
                deltas = [s.deltas[m] for s in same if m in s.deltas]
                unit = " dB" if "psnr" in m else ""
                rate = float(np.mean([d.rate for d in deltas])) if deltas else float("nan")
                quality = float(np.mean([d.quality for d in deltas])) if deltas else float("nan")
                cells.append(f"{rate:+.1f} %, {quality:+.2f}{unit}")
            steer = c.provenance["steer"]
            growth = float(np.mean([s.growth for s in same]))
            law = f"{steer['law']} {steer['strength']:g}"
            rows.append([f"mean of {len(clips)}", name, law, *cells, f"{growth:+.1%}"])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=SHARED, help="fixation set of videos")
    parser.add_argument("--work", type=Path, required=True, help="folder for finished encodes")
    parser.add_argument("--clips", nargs="+", help="names of videos; by default all")
    parser.add_argument(
        "--steer", nargs="+", default=["centre", "objects", "gaze", "recorded"],
        help="maps, as `eyeline roi compare --steer` takes them",
    )  # fmt: skip
    parser.add_argument(
        "--multiples", default="1", help="multiples of the strength, separated by commas"
    )
    parser.add_argument("--law", help="law for all maps; by default the law of each map's kind")
    parser.add_argument("--strength", type=float, help="one strength for all maps")
    parser.add_argument(
        "--share",
        type=float,
        default=steering.GAZE_SHARE,
        help="constant k of the density law",
    )
    parser.add_argument("--rates", default="24,29,34,39")
    parser.add_argument("--frames", type=int, default=120)
    parser.add_argument("--width", type=int, default=960, help="wider videos are scaled down")
    parser.add_argument("--plot", help="draw the mean gain and cost to this file")
    a = parser.parse_args()
    begin = time.perf_counter()
    steering.GAZE_SHARE = a.share
    loaded = load_fixation_set(a.data)
    steers = [steer_map(name) for name in a.steer]
    clips, rows = [], []
    for stimulus in loaded.stimuli:
        if a.clips and stimulus.name not in a.clips:
            continue
        source = prepared(stimulus, a.work, a.width, a.frames)
        options = CompareOptions(
            rates=tuple(map(float, a.rates.split(","))), preset="medium", jobs=1,
            steer=SteerOptions(law=a.law, strength=a.strength), judge_fixations=str(a.data),
            extract=ExtractOptions(workers=1),
        )  # fmt: skip
        multiples = tuple(map(float, a.multiples.split(",")))
        # The file names in a work folder depend only on the options.
        folder = a.work / f"{source.parent.name}-share{a.share:g}" / source.stem
        found = compare_maps(source, folder, options, steers, multiples)
        clips.append(found)
        rows += rows_of(source.stem, found)
        print("\n".join(" | ".join(r) for r in rows_of(source.stem, found)), file=sys.stderr)
    if not clips:
        sys.exit(f"{a.data} holds no video named {' or '.join(a.clips)}")
    head = ["clip", "steered by", "law, strength", *METRICS.values(), "bits at equal CRF"]
    print("\n".join(markdown_table(head, [*rows, *mean_rows(clips)])))
    print(f"\n{a.frames} frames per clip, {time.perf_counter() - begin:.0f} s")
    if a.plot:
        title = f"mean of {len(clips)} clips, x264 medium, judged by recorded gaze"
        plot_trade_off(mean_lines([c.lines for c in clips]), title, "EWPSNR", a.plot)


if __name__ == "__main__":
    main()
