"""Damaged files by the hundred: no crash, no hang, no memory bomb, no error but eyeline's own."""

import subprocess
import sys
from pathlib import Path

import pytest

from clips import moving, picture, write_clip

PROGRAM = """
import random, resource, sys
from pathlib import Path

import av
from eyeline.errors import EyelineError
from eyeline.media import open_video
from eyeline.media.types import VideoOptions

resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
whole, bad = Path(sys.argv[1]), Path(sys.argv[2])
data, outcomes = whole.read_bytes(), {}


def mutated(rng):
    kind, at = rng.randrange(5), rng.randrange(len(data))
    if kind == 0:  # cut off
        return data[:at]
    if kind == 1:  # a hole
        return data[:at] + data[at + rng.randrange(1, 64):]
    if kind == 2:  # a part twice
        part = data[at:at + rng.randrange(1, 200)]
        return data[:at] + part + data[at:]
    damaged = bytearray(data)
    end = len(data) if kind == 3 else min(len(data), 2000)  # anywhere, or in the headers
    for _ in range(rng.choice((1, 3, 20))):
        damaged[rng.randrange(end)] = rng.choice((0, 255, 128, 127, rng.randrange(256)))
    return bytes(damaged)


for seed in range(int(sys.argv[3])):
    bad.write_bytes(mutated(random.Random(seed)))
    print(whole.name, seed, file=sys.stderr)  # the last line names what killed the process
    try:
        with open_video(bad, VideoOptions(threads=1)) as video:
            for frame in video.frames(lambda w, h: (8, 6)):
                assert frame.rgb.shape == (3, 6, 8)
        outcome = "corrupt" if video.report.corrupt else "whole"
    except EyelineError as exc:
        assert "\\n" not in str(exc), str(exc)
        outcome = type(exc).__name__
    outcomes[outcome] = outcomes.get(outcome, 0) + 1
print(*sorted(outcomes))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")
@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("a.mp4", "libx264", {"movflags": "faststart"}),
        ("a.mkv", "libx264", {}),
        ("a.y4m", "wrapped_avframe", {}),
        ("a.ts", "libx264", {}),
        ("a.flv", "flv1", {}),
        ("a.gif", "gif", {}),
        ("a.avi", "mjpeg", {}),
    ],
)
def test_mutations(tmp_path: Path, name, codec, options):
    pix_fmt = {"gif": "rgb8", "mjpeg": "yuvj420p"}.get(codec, "yuv420p")
    frames = [picture(p).reformat(format=pix_fmt) for p in moving(8)]
    path = write_clip(tmp_path / name, frames, codec, pix_fmt=pix_fmt, container_options=options)
    command = [sys.executable, "-c", PROGRAM, path, tmp_path / f"bad_{name}", "100"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]
    assert {"DamagedMediaError", "whole"} <= set(done.stdout.split())  # it did what it is for
