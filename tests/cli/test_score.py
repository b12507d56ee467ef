"""`eyeline score` as people run it: real files, exit codes, pipes and signals."""

import contextlib
import json
import os
import pty
import re
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import commands
from eyeline.logs import read_log

WIDTH, HEIGHT, FRAMES = 64, 48, 6
run = partial(commands.run, "score")
run_process = partial(commands.run_process, "score")


def write_y4m(
    path: Path,
    frames: int = FRAMES,
    size: tuple[int, int] = (WIDTH, HEIGHT),
    seed: int = 0,
    fps: int = 25,
) -> Path:
    """Texture that moves; `seed` adds noise of its own."""
    w, h = size
    base = np.kron(np.random.default_rng(0).integers(30, 200, (h // 4, w // 4)), np.ones((4, 4)))
    noise = np.random.default_rng(seed)
    with path.open("wb") as f:
        f.write(f"YUV4MPEG2 W{w} H{h} F{fps}:1 Ip A1:1 C420\n".encode())
        for i in range(frames):
            luma = np.roll(base, 2 * i, 1) + (noise.integers(-9, 9, (h, w)) if seed else 0)
            f.write(b"FRAME\n" + luma.astype(np.uint8).tobytes() + bytes([128]) * (w * h // 2))
    return path


@pytest.fixture
def ref(tmp_path: Path) -> Path:
    return write_y4m(tmp_path / "ref.y4m")


@pytest.fixture
def dist(tmp_path: Path) -> Path:
    return write_y4m(tmp_path / "dist.y4m", seed=1)


def test_scores_go_to_stdout_and_a_table_to_stderr(ref: Path, dist: Path) -> None:
    done = run_process(ref, dist, "--metrics", "psnr,ssim")
    assert done.returncode == 0, done.stderr
    log = json.loads(done.stdout)
    assert [f["frameNum"] for f in log["frames"]] == list(range(FRAMES))
    assert {"psnr_y", "sw_psnr_y", "float_ssim", "sw_ssim"} <= set(log["frames"][0]["metrics"])
    assert log["pooled_metrics"]["sw_psnr_y"].keys() >= {"min", "mean", "harmonic_mean", "p5"}
    assert log["provenance"]["saliency"]["model"]
    assert re.search(r"PSNR-Y, dB +\d+\.\d+ +\d+\.\d+", done.stderr)


def test_every_log_format_holds_the_same(ref: Path, dist: Path, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    paths = [tmp_path / f"s{suffix}" for suffix in (".json", ".csv", ".xml", ".parquet")]
    words = [w for p in paths for w in ("-o", p)]
    done = run_process(ref, dist, "--metrics", "psnr", "-q", *words)
    assert (done.returncode, done.stderr) == (0, "")
    first, *rest = [read_log(p) for p in paths]
    for log in rest:
        assert list(log.rows()) == list(first.rows())
        assert log.provenance == first.provenance


def test_the_reference_may_come_from_stdin(ref: Path, dist: Path) -> None:
    with ref.open("rb") as f:
        piped = run_process("-", dist, "--metrics", "psnr", stdin=f)
    assert piped.returncode == 0, piped.stderr
    frames = json.loads(run(ref, dist, "--metrics", "psnr").stdout)["frames"]
    assert json.loads(piped.stdout)["frames"] == frames


def test_raw_layout_goes_to_the_raw_one(ref: Path, tmp_path: Path) -> None:
    raw = tmp_path / "d.yuv"
    raw.write_bytes(b"".join(ref.read_bytes().split(b"FRAME\n")[1:]))
    layout = ("-w", WIDTH, "--height", HEIGHT, "-p", "420")
    done = run(ref, raw, *layout, "--metrics", "psnr", "--weight", "0")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["pooled_metrics"]["psnr_y"]["mean"] == 60


def test_columns_go_into_an_xml_log(ref: Path, dist: Path, tmp_path: Path) -> None:
    rows = "".join(f'<frame frameNum="{i}" vmaf="9{i}.500000" />' for i in range(FRAMES))
    theirs = tmp_path / "vmaf.xml"
    theirs.write_text(f'<VMAF version="3.0.0"><fyi fps="9.1" /><frames>{rows}</frames></VMAF>')
    both = tmp_path / "both.xml"
    done = run(ref, dist, "--metrics", "psnr", "--with-log", theirs, "-o", both)
    assert done.returncode == 0, done.stderr
    assert 'vmaf="93.500000"' in both.read_text()
    log = read_log(both)
    assert log.values["vmaf"][3] == 93.5
    assert np.isfinite(log.values["sw_psnr_y"]).all()


BAD = {
    "missing reference": ["no_such.mp4", "{dist}"],
    "missing distorted": ["{ref}", "no_such.mp4"],
    "different lengths": ["{ref}", "{short}"],
    "different sizes": ["{ref}", "{small}"],
    "different rates": ["{ref}", "{fast}"],
    "unknown metric": ["{ref}", "{dist}", "--metrics", "psnr,beauty"],
    "unknown suffix": ["{ref}", "{dist}", "-o", "{tmp}/s.xlsx"],
    "output is input": ["{ref}", "{dist}", "-o", "{ref}"],
    "one name twice": ["{ref}", "{dist}", "-o", "{tmp}/s.json", "-o", "{tmp}/s.json"],
    "folder that is missing": ["{ref}", "{dist}", "-o", "{tmp}/no/s.json"],
    "crop that is none": ["{ref}", "{dist}", "--crop", "32x24"],
    "crop outside": ["{ref}", "{dist}", "--crop", "64:48:2:0"],
    "too small for ms_ssim": ["{ref}", "{dist}", "--metrics", "ms_ssim"],
    "maps and masks": ["{ref}", "{dist}", "--maps", "a", "--masks", "b"],
    "no masks there": ["{ref}", "{dist}", "--masks", "{tmp}"],
    "no maps there": ["{ref}", "{dist}", "--maps", "{tmp}"],
    "a log that is none": ["{ref}", "{dist}", "--with-log", "{ref}", "-o", "{tmp}/s.json"],
    "a log of another size": ["{ref}", "{dist}", "--with-log", "{other}", "-o", "{tmp}/s.xml"],
    "an XML bomb": ["{ref}", "{dist}", "--with-log", "{bomb}", "-o", "{tmp}/s.xml"],
    "unknown model": ["{ref}", "{dist}", "--model", "nobody"],
    "unknown VMAF model": ["{ref}", "{dist}", "--metrics", "vmaf", "--vmaf-model", "v9"],
    "offset past the end": ["{ref}", "{dist}", "--ref-offset", "9", "--dist-offset", "9"],
}


@pytest.mark.parametrize("words", BAD.values(), ids=BAD)
def test_bad_input_gets_one_line_and_exit_code_2(
    words: list[str], ref: Path, dist: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "work"
    place.mkdir()
    bomb = tmp_path / "bomb.xml"
    bomb.write_text('<!DOCTYPE VMAF [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><VMAF>&b;</VMAF>')
    other = tmp_path / "other.xml"
    other.write_text(
        '<VMAF version="3.0.0"><params qualityWidth="1280" qualityHeight="720" /><frames>'
        '<frame frameNum="0" vmaf="9" /></frames></VMAF>'
    )
    names = {
        "other": other,
        "tmp": place,
        "ref": ref,
        "dist": dist,
        "bomb": bomb,
        "short": write_y4m(tmp_path / "short.y4m", FRAMES - 2),
        "small": write_y4m(tmp_path / "small.y4m", size=(32, 24)),
        "fast": write_y4m(tmp_path / "fast.y4m", fps=50),
    }
    before = ref.read_bytes()
    done = run(*(w.format(**names) for w in words), cwd=tmp_path)
    assert capfd.readouterr() == ("", "")  # no library writes past Python's streams
    assert done.returncode == 2, done.stderr
    assert re.match(r"error: .+\n(  .+\n)?\Z", done.stderr), done.stderr
    assert done.stdout == ""
    assert list(place.iterdir()) == []
    assert ref.read_bytes() == before


def test_lengths_are_both_named_and_shortest_scores_the_common_part(
    ref: Path, tmp_path: Path
) -> None:
    short = write_y4m(tmp_path / "short.y4m", FRAMES - 2)
    assert re.search(r"ref\.y4m has 6 frames, .*short\.y4m has 4", run(ref, short).stderr)
    done = run(ref, short, "--shortest", "--metrics", "psnr")
    assert len(json.loads(done.stdout)["frames"]) == 4


def test_a_truncated_file_keeps_its_rows(ref: Path, tmp_path: Path) -> None:
    whole = ref.read_bytes()
    cut = tmp_path / "cut.y4m"
    cut.write_bytes(whole[: len(whole) * 4 // 6])
    log = tmp_path / "s.json"
    done = run(ref, cut, "--shortest", "--metrics", "psnr", "-o", log)
    assert done.returncode == 3, done.stderr
    assert json.loads(log.read_text())["provenance"]["complete"] is False


def test_interrupting_keeps_finished_rows(tmp_path: Path) -> None:
    ref = write_y4m(tmp_path / "long.y4m", 1500)
    log = tmp_path / "s.json"
    words = ["score", ref, ref, "--metrics", "psnr,ssim,vmaf", "--size", "native", "-v", "-o", log]
    if not _has_vmaf():
        words[4] = "psnr,ssim"
    ours, theirs = pty.openpty()  # on a terminal it counts the frames
    process = subprocess.Popen(
        [sys.executable, "-m", "eyeline", *words],
        stderr=theirs,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100", "NO_COLOR": "1"},
    )
    os.close(theirs)
    shown, sent = b"", False
    with contextlib.suppress(OSError):  # how a terminal ends
        while part := os.read(ours, 4096):
            shown += part
            if not sent and re.search(rb"[1-9]\d*/1500", shown):
                process.send_signal(signal.SIGINT)
                sent = True
    os.close(ours)
    said = shown.decode()
    assert process.wait(timeout=240) == 130, said
    assert "Traceback" not in said
    rows = json.loads(log.read_text())
    assert 0 < len(rows["frames"]) < 1500
    assert rows["provenance"]["complete"] is False
    assert f"{len(rows['frames'])} frames are kept" in said


def _has_vmaf() -> bool:
    import importlib.util

    return importlib.util.find_spec("imageio_ffmpeg") is not None


def test_help_shows_examples() -> None:
    done = run_process("--help", env={"COLUMNS": "160", "NO_COLOR": "1"})
    assert "eyeline score ref.mp4 dist.mp4 -o scores.json" in done.stdout
