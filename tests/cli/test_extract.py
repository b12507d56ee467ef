"""`eyeline extract` as people run it: real files, exit codes, pipes and signals."""

import csv
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from commands import run, run_process
from eyeline.logs import read_log
from eyeline.saliency.features import FEATURES

HERE = Path(__file__).parent
GOLDEN = HERE / "data" / "square_placeholder.json"
WIDTH, HEIGHT, FRAMES = 98, 54, 12


def write_y4m(path: Path, frames: int = FRAMES) -> Path:
    """A bright square that moves to the right over grey, 4:4:4, a cut at frame 8; no encoder involved."""
    with path.open("wb") as f:
        f.write(f"YUV4MPEG2 W{WIDTH} H{HEIGHT} F25:1 Ip A1:1 C444\n".encode())
        for i in range(frames):
            planes = np.full((3, HEIGHT, WIDTH), 128, np.uint8)
            planes[0] = 40 if i < 8 else 180
            left = 10 + 4 * (i % 16)
            planes[0, 20:36, left : left + 16] = 235
            f.write(b"FRAME\n" + planes.tobytes())
    return path


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write_y4m(tmp_path / "square.y4m")


@pytest.fixture(scope="module")
def long_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1,500 frames: long enough to be interrupted."""
    return write_y4m(tmp_path_factory.mktemp("long") / "long.y4m", 1500)


def test_a_log_and_an_overlay_in_one_command(clip: Path, tmp_path: Path) -> None:
    log, heat = tmp_path / "clip.json", tmp_path / "heat.mp4"
    done = run("extract", clip, "-o", log, "--overlay", heat)
    assert done.returncode == 0, done.stderr
    content = json.loads(log.read_text())
    assert [f["frameNum"] for f in content["frames"]] == list(range(FRAMES))
    assert set(content["frames"][0]["metrics"]) == set(FEATURES)
    assert content["provenance"]["complete"] is True
    assert content["provenance"]["model"] == "saliency_student_v4"
    with av.open(str(heat)) as video:
        assert sum(1 for _ in video.decode(video=0)) == FRAMES
    assert f"{FRAMES} frames, 1 cuts" in done.stderr


def test_stdout_is_clean_json_by_default(clip: Path) -> None:
    done = run_process("extract", clip)
    assert done.returncode == 0
    assert len(json.loads(done.stdout)["frames"]) == FRAMES


def test_quiet_says_nothing(clip: Path, tmp_path: Path) -> None:
    done = run_process("extract", clip, "-q", "-o", tmp_path / "a.csv")
    assert (done.stdout, done.stderr) == ("", "")


def test_verbose_says_what_was_assumed(clip: Path, tmp_path: Path) -> None:
    done = run("extract", clip, "-v", "-o", tmp_path / "a.json")
    assert "bt601 limited sdr (assumed: matrix" in done.stderr


def test_y4m_from_stdin_equals_the_file(clip: Path) -> None:
    with clip.open("rb") as f:
        piped = run_process("extract", "-", stdin=f)
    assert piped.returncode == 0, piped.stderr
    assert json.loads(piped.stdout)["frames"] == json.loads(run("extract", clip).stdout)["frames"]


def test_several_logs_of_one_run_agree(clip: Path, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    paths = [tmp_path / f"log{s}" for s in (".json", ".csv", ".parquet")]
    options = [w for p in paths for w in ("-o", str(p))]
    assert run("extract", clip, *options).returncode == 0
    logs = [list(read_log(p).rows()) for p in paths]
    assert logs[0] == logs[1] == logs[2]


def test_merging_into_a_libvmaf_log(clip: Path, tmp_path: Path) -> None:
    vmaf = tmp_path / "vmaf.json"
    rows = [{"frameNum": i, "metrics": {"vmaf": 90.0 + i}} for i in range(FRAMES)]
    pooled = {"vmaf": {"min": 90.0, "max": 101.0, "mean": 95.5, "harmonic_mean": 95.37}}
    vmaf.write_text(json.dumps({"version": "3.0.0", "frames": rows, "pooled_metrics": pooled}))
    both = tmp_path / "both.json"
    assert run("extract", clip, "--with-log", vmaf, "-o", both).returncode == 0
    merged = json.loads(both.read_text())
    assert merged["frames"][3]["metrics"]["vmaf"] == 93.0
    assert "saliency_mean" in merged["frames"][3]["metrics"]
    assert merged["pooled_metrics"]["vmaf"] == pooled["vmaf"]


def test_a_log_of_another_clip_is_refused(clip: Path, tmp_path: Path) -> None:
    vmaf = tmp_path / "vmaf.json"
    vmaf.write_text(json.dumps({"frames": [{"frameNum": 0, "metrics": {"vmaf": 90.0}}]}))
    done = run("extract", clip, "--with-log", vmaf, "-o", tmp_path / "both.json")
    assert done.returncode == 2
    assert not (tmp_path / "both.json").exists()


def test_frames_chooses_a_range(clip: Path) -> None:
    done = run("extract", clip, "--frames", "3:7")
    assert [f["frameNum"] for f in json.loads(done.stdout)["frames"]] == [3, 4, 5, 6]


def test_the_square_is_found_by_its_brightness(clip: Path) -> None:
    """The placeholder answers brightness: the centroid moves right with the square."""
    done = run("extract", clip, "--model", "placeholder", "--frames", ":8")
    assert "its numbers mean nothing" in done.stderr
    centres = [f["metrics"]["saliency_cx"] for f in json.loads(done.stdout)["frames"]]
    assert all(b > a for a, b in pairwise(centres))


def test_golden_log(clip: Path) -> None:
    """The log of a clip and model that never change.

    Made by: python tests/cli/test_extract.py
    """
    got = json.loads(run("extract", clip, "--model", "placeholder", "--temporal", "ema").stdout)
    want = json.loads(GOLDEN.read_text())
    assert len(got["frames"]) == len(want["frames"])
    for a, b in zip(got["frames"], want["frames"], strict=True):
        assert (a["frameNum"], a["pts_time"]) == (b["frameNum"], b["pts_time"])
        assert a["metrics"] == pytest.approx(b["metrics"], abs=1e-5)
    for name, values in want["pooled_metrics"].items():
        assert got["pooled_metrics"][name] == pytest.approx(values, abs=1e-5)


def test_maps_have_the_source_size(clip: Path, tmp_path: Path) -> None:
    folder = tmp_path / "maps"
    assert run("extract", clip, "--maps", folder, "--map-depth", "16").returncode == 0
    pictures = sorted(folder.iterdir())
    assert len(pictures) == FRAMES
    with av.open(str(pictures[0])) as image:
        frame = next(image.decode(video=0))
    assert (frame.width, frame.height, frame.format.name) == (WIDTH, HEIGHT, "gray16be")


def test_a_plot_is_drawn(clip: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    assert run("extract", clip, "--plot", tmp_path / "p.svg").returncode == 0
    assert "</svg>" in (tmp_path / "p.svg").read_text()


BAD = {
    "missing": ["extract", "no_such_file.mp4"],
    "folder of nothing": ["extract", "{tmp}"],
    "not a video": ["extract", "{text}"],
    "unknown model": ["extract", "{clip}", "--model", "nobody"],
    "model that is not ONNX": ["extract", "{clip}", "--model", "{text}"],
    "range of nothing": ["extract", "{clip}", "--frames", "50:60"],
    "backward range": ["extract", "{clip}", "--frames", "7:3"],
    "range that is none": ["extract", "{clip}", "--frames", "a:b"],
    "size that is none": ["extract", "{clip}", "--size", "big"],
    "tiny size": ["extract", "{clip}", "--size", "2"],
    "unknown log format": ["extract", "{clip}", "-o", "{tmp}/out.xlsx"],
    "unknown overlay": ["extract", "{clip}", "-o", "{tmp}/out.json", "--overlay", "{tmp}/o.gif"],
    "folder that is missing": ["extract", "{clip}", "-o", "{tmp}/no/out.json"],
    "output is input": ["extract", "{clip}", "-o", "{tmp}/out.json", "--overlay", "{clip}"],
    "one name twice": ["extract", "{clip}", "-o", "{tmp}/out.json", "-o", "{tmp}/out.json"],
    "raw without layout": ["extract", "{raw}", "-o", "{tmp}/out.json"],
    "raw of another size": ["extract", "{raw}", "-w", "33", "--height", "9", "-p", "420"],
    "raw of no format": ["extract", "{raw}", "-w", "32", "--height", "9", "-p", "yuv999p"],
    "bit depth that is none": [
        "extract",
        "{raw}",
        "-w",
        "8",
        "--height",
        "8",
        "-p",
        "420",
        "-b",
        "9",
    ],
    "frame rate that is none": ["extract", "{clip}", "--fps", "0/0"],
    "registry that is none": ["extract", "{clip}", "--registry", "{tmp}"],
}


@pytest.mark.parametrize("words", BAD.values(), ids=BAD)
def test_bad_input_gets_one_line_and_exit_code_2(
    words: list[str],
    clip: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    place = tmp_path / "work"
    place.mkdir()
    text, raw = tmp_path / "notes.onnx", tmp_path / "x.yuv"
    text.write_text("these are words, not samples\n" * 40)
    raw.write_bytes(bytes(1000))
    names = {"tmp": place, "clip": clip, "text": text, "raw": raw}
    before = clip.read_bytes()
    done = run(*(w.format(**names) for w in words), cwd=tmp_path)
    assert capfd.readouterr() == ("", "")  # no library writes past Python's streams
    assert done.returncode == 2, done.stderr
    assert re.match(r"error: .+\n(  .+\n)?\Z", done.stderr), done.stderr
    assert done.stdout == ""
    assert list(place.iterdir()) == []
    assert clip.read_bytes() == before


def test_a_truncated_file_keeps_its_rows(clip: Path, tmp_path: Path) -> None:
    whole = clip.read_bytes()
    cut = tmp_path / "cut.y4m"
    cut.write_bytes(whole[: len(whole) * 7 // 12 - 100])
    log = tmp_path / "cut.json"
    done = run("extract", cut, "-o", log)
    assert done.returncode == 3, done.stderr
    content = json.loads(log.read_text())
    assert len(content["frames"]) == 6
    assert content["provenance"]["complete"] is False
    assert "frame 5" in done.stderr


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_interrupting_keeps_finished_rows(
    stop: signal.Signals, long_clip: Path, tmp_path: Path
) -> None:
    log, heat, maps = (tmp_path / name for name in ("long.json", "long.mp4", "maps"))
    words = ["extract", long_clip, "-o", log, "--overlay", heat, "--maps", maps]
    process = subprocess.Popen(
        [sys.executable, "-m", "eyeline", *words], stderr=subprocess.PIPE, text=True
    )
    while len(list(maps.glob("*.png"))) < 5:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(stop)
    _, said = process.communicate(timeout=240)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    rows = len(json.loads(log.read_text())["frames"])
    assert 0 < rows < 1500
    with av.open(str(heat)) as video:
        assert sum(1 for _ in video.decode(video=0)) == rows
    assert len(list(maps.iterdir())) == rows
    assert f"{rows} frames are kept" in said


def test_a_full_disk_is_one_line(clip: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "eyeline", "extract", str(clip)],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 2
    assert "No space left" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_reader_that_goes_away_is_no_error_of_ours(long_clip: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "eyeline", "extract", long_clip, "--frames", ":40", "--size", "32"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    said = process.stderr.read().decode()
    process.wait(timeout=240)
    assert "Traceback" not in said


def test_progress_on_a_terminal(long_clip: Path, tmp_path: Path) -> None:
    """Frames a second and the time left are shown where somebody watches."""
    ours, theirs = pty.openpty()
    words = ["extract", long_clip, "-o", tmp_path / "a.json", "--size", "32"]
    process = subprocess.Popen(
        [sys.executable, "-m", "eyeline", *words],
        stderr=theirs,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100", "NO_COLOR": "1"},
    )
    os.close(theirs)
    shown = b""
    while True:
        try:
            part = os.read(ours, 4096)
        except OSError:
            break
        if not part:
            break
        shown += part
    assert process.wait(timeout=240) == 0
    text = shown.decode()
    assert re.search(r"\d+/1500", text)
    assert re.search(r"\d+\.\d frames/s", text)
    assert re.search(r"\d:\d\d:\d\d", text)
    assert "\x1b[3" not in text  # no colours under NO_COLOR


def test_csv_has_libvmafs_layout(clip: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    assert run("extract", clip, "-o", path).returncode == 0
    rows = list(csv.reader(path.open()))
    assert rows[0][0] == "Frame"
    assert [r[0] for r in rows[1:]] == [str(i) for i in range(FRAMES)]


if __name__ == "__main__":
    made = write_y4m(Path("/tmp/square.y4m"))
    result = run("extract", made, "--model", "placeholder", "--temporal", "ema")
    kept = json.loads(result.stdout)
    GOLDEN.write_text(
        json.dumps({k: kept[k] for k in ("frames", "pooled_metrics")}, indent=1) + "\n"
    )


def test_a_reader_that_closes_the_pipe_ends_the_command_quietly(clip: Path) -> None:
    """As `| head` does: exit code 141, and no error."""
    command = [sys.executable, "-m", "eyeline", "extract", str(clip), "-m", "placeholder", "-q"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.wait(timeout=120) == 141
    assert process.stderr is not None
    assert b"error" not in process.stderr.read()
