"""Measure what regions of interest gain and cost (docs/measurements/roi_steering.md), in a few minutes.

    python benchmarks/roi_compare.py --judge u2netp_mirror_v1.onnx
    python benchmarks/roi_compare.py --sweep --clips bear --frames 40

The script encodes three clips of the development data with x264 medium: DAVIS "bear", judged by its
ground-truth masks, and bikes and Big Buck Bunny (scaled to 480 lines), judged by a model that does
not steer. The first command also writes the curves and stills to docs/images. `--sweep` tries
several strengths of two laws.
"""

from __future__ import annotations

import argparse
import sys
import tarfile
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import av

from eyeline.roi.compare import CompareOptions, Comparison, compare
from eyeline.roi.compare.report import draw_still, plot_curves
from eyeline.roi.steering import SteerOptions
from eyeline.saliency.pipeline import ExtractOptions
from eyeline.tables import markdown_table

OBJECTS = "saliency_student_v4"  # the numbers in the docs were measured with this model

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared" / "data"
LINES = 480
STRENGTHS = {"neutral": (2, 3, 4, 6, 8), "symmetric": (1, 2, 3, 4, 6, 8)}
COLUMNS = ("psnr_inside", "vmaf_crop", "psnr_outside", "psnr_whole", "vmaf")


def unpacked(work: Path) -> Path:
    """Unpack DAVIS "bear" and return its folder."""
    folder = work / "DAVIS-bear"
    if not folder.is_dir():
        with tarfile.open(SHARED / "davis-bear.tar") as archive:
            archive.extractall(work, filter="data")
    return folder


def smaller(path: Path, work: Path) -> Path:
    """Scale a clip to `LINES` lines and write it to a lossless file."""
    out = work / f"{path.stem}_{LINES}.mkv"
    if out.exists():
        return out
    part = out.with_suffix(".part.mkv")
    with av.open(str(path)) as source, av.open(str(part), "w") as target:
        stream = target.add_stream("ffv1", rate=25)
        for i, frame in enumerate(source.decode(video=0)):
            width = round(frame.width * LINES / frame.height / 2) * 2
            scaled = frame.reformat(width, LINES, "yuv420p", interpolation="BICUBIC")
            if i == 0:
                stream.width, stream.height, stream.pix_fmt = width, LINES, "yuv420p"
            scaled.pts, scaled.time_base = i, Fraction(1, 25)
            target.mux(stream.encode(scaled))
        target.mux(stream.encode(None))
    part.rename(out)
    return out


def cells(c: Comparison) -> list[str]:
    found = []
    for metric in COLUMNS:
        delta = c.deltas.get(metric)
        if delta is None:
            found.append("-")
            continue
        unit = " dB" if metric.startswith("psnr") else ""
        found.append(f"{delta.rate:+.1f} %, {delta.quality:+.2f}{unit}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", nargs="+", default=["bear", "bikes", "bbb"])
    parser.add_argument("--frames", type=int, default=50)
    parser.add_argument("--judge", help="model that judges the clips without masks")
    parser.add_argument("--work", type=Path, help="folder for finished encodes")
    parser.add_argument(
        "--sweep", action="store_true", help="try strengths of two laws; write no pictures"
    )
    parser.add_argument("--model", help="model that steers")
    arguments = parser.parse_args()
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as temporary:
        work = arguments.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        rows = []
        for clip in arguments.clips:
            masks = None
            if clip == "bear":
                folder = unpacked(work)
                source, masks = folder / "images" / "bear", str(folder / "masks" / "bear")
            elif clip == "bikes":
                source = SHARED / "video" / "bikes.mp4"
            else:
                source = smaller(SHARED / "video" / "bigbuckbunny.mp4", work)
            default = SteerOptions().for_map("objects")
            steers = [default]
            if arguments.sweep:
                steers = [SteerOptions(s, law) for law, all_ in STRENGTHS.items() for s in all_]
            for steer in steers:
                options = CompareOptions(
                    preset="medium", steer=steer, judge_masks=masks, vmaf=True,
                    judge_model=None if masks else arguments.judge,
                    extract=ExtractOptions(stop=arguments.frames), still=not arguments.sweep,
                )  # fmt: skip
                c = compare(source, work / clip, options, model=arguments.model or OBJECTS)
                judge = (
                    "masks"
                    if masks
                    else c.judge + (" (steers)" if c.judged_by_steering_maps else "")
                )
                row = [clip, f"{steer.law} {steer.strength:g}", judge, f"{c.subject.share:.0%}"]
                rows.append([*row, *cells(c), f"{c.growth:+.0%}"])
                print(" | ".join(rows[-1]), file=sys.stderr, flush=True)
                if not arguments.sweep:
                    plot_curves(c, ROOT / "docs" / "images" / f"roi_{clip}_curves.png")
                    draw_still(c, ROOT / "docs" / "images" / f"roi_{clip}_still.jpg")
    head = ["clip", "law, strength", "judge", "subject", "PSNR inside", "VMAF box"]
    head += ["PSNR outside", "PSNR whole", "VMAF whole", "bits at equal CRF"]
    print("\n".join(markdown_table(head, rows)))
    print(f"\n{arguments.frames} frames per clip, {time.perf_counter() - begin:.0f} s")


if __name__ == "__main__":
    main()
