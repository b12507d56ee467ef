"""Compare scores weighted by a predicted map with scores weighted by recorded gaze.

    python benchmarks/gaze_scores.py --data ../shared/data/gaze/hevc-dev.tar --work work

The script encodes every video of a fixation set three times with x264 at one CRF: plainly, steered
by the gaze model, and steered by the objects model. The first table has the mean absolute
difference between each score and the score weighted by recorded gaze. The second table has the same
for the gain of the steered encodes over the plain encode.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from eyeline.datasets.fixations import load_fixation_set
from eyeline.tables import markdown_table
from gaze_steering import SHARED, prepared

MEASURES = {"psnr_y": "PSNR, dB", "ssim": "SSIM"}
ENCODES = {
    "plain": ["--strength", "0"],
    "gaze": ["--map", "gaze"],
    "objects": ["--map", "objects"],
}
WEIGHTS = {
    "recorded": ["--map", "gaze"],
    "gaze": ["--map", "gaze"],
    "objects": ["--map", "objects"],
}


def run(*words: object) -> None:
    subprocess.run([sys.executable, "-m", "eyeline", *map(str, words)], check=True)


def pooled(log: Path, column: str) -> float:
    return float(json.loads(log.read_text())["pooled_metrics"][column]["mean"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=SHARED)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--width", type=int, default=832)
    parser.add_argument("--frames", type=int, default=120)
    parser.add_argument("--crf", type=int, default=30)
    a = parser.parse_args()
    found = load_fixation_set(a.data)
    scores: dict[tuple[str, str, str, str], float] = {}
    for stimulus in found.stimuli:
        clip = prepared(stimulus, a.work, a.width, a.frames)
        for encode, options in ENCODES.items():
            out = clip.with_name(f"{clip.stem}-{encode}-{a.crf}.mp4")
            if not out.exists():
                run("roi", "encode", clip, "-o", out, "--crf", a.crf, "-q", *options)
            for weight, chosen in WEIGHTS.items():
                log = out.with_suffix(f".{weight}.json")
                by = ["--fixations", a.data] if weight == "recorded" else chosen
                if not log.exists():
                    run("score", clip, out, "-o", log, "--metrics", "psnr,ssim", "-q", *by)
                prefix = "ew" if weight == "recorded" else "sw"
                for measure in MEASURES:
                    key = stimulus.name, encode, measure
                    scores[(*key, weight)] = pooled(log, f"{prefix}_{measure}")
                    whole = "float_ssim" if measure == "ssim" else measure
                    scores[(*key, "whole frame")] = pooled(log, whole)
    clips = [s.name for s in found.stimuli]
    rows, gains = [], []
    for weight in ("whole frame", "objects", "gaze"):
        far, moved = [], []
        for measure in MEASURES:
            off = {
                (c, e): scores[c, e, measure, weight] - scores[c, e, measure, "recorded"]
                for c in clips
                for e in ENCODES
            }
            far.append(f"{np.mean([abs(v) for v in off.values()]):.3f}")
            steps = [off[c, e] - off[c, "plain"] for c in clips for e in ("gaze", "objects")]
            moved.append(f"{np.mean(np.abs(steps)):.3f}")
        rows.append([weight, *far])
        gains.append([weight, *moved])
    head = ["weighted by", *MEASURES.values()]
    sys.stdout.write(f"distance from recorded gaze, {len(clips)} clips, 3 encodes each\n")
    sys.stdout.write("\n".join(markdown_table(head, rows)) + "\n\n")
    sys.stdout.write("distance of the differences between steered and plain encodes\n")
    sys.stdout.write("\n".join(markdown_table(head, gains)) + "\n")


if __name__ == "__main__":
    main()
