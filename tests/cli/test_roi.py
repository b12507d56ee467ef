"""`eyeline roi encode` and `eyeline roi map`, as a user runs them."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import av
import pytest

from clips import moving, write_clip
from commands import run
from eyeline.cli.options import parse_pairs
from eyeline.cli.roi import parse_bitrate
from eyeline.errors import UsageError


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write_clip(tmp_path / "in.mp4", moving(8, (128, 96)), sound=True)


def test_one_command_makes_a_playable_file_and_a_look_at_it(clip: Path, tmp_path: Path) -> None:
    out, look = tmp_path / "out.mp4", tmp_path / "look.mp4"
    done = run("roi", "encode", clip, "-o", out, "--debug-video", look, "-v")
    assert done.returncode == 0, done.stderr
    assert '"law": "density"' in done.stderr  # the production model for gaze steers
    with av.open(str(out)) as a, av.open(str(look)) as b:
        assert sum(1 for _ in a.decode(video=0)) == 8
        assert len(a.streams.audio) == 1
        first = next(b.decode(video=0))
        assert (first.width, first.height) == (256, 96)  # offsets, and the decoder's QPs


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--preset", "ultrafast"), "ignore regions"),
        (("--codec", "libsvtav1"), "ignores regions"),
        (("--codec-option", "aq-mode=0"), "adaptive quantisation"),
        (("--qp", "30"), "constant QP"),
        (("--crf", "20", "--bitrate", "1M"), "together"),
        (("--strength", "77"), "between 0 and 51"),
        (("--bitrate", "fast"), "--bitrate 'fast'"),
        (("--maps", "nowhere.npz"), "nowhere.npz"),
    ],
)
def test_what_is_not_obeyed_is_one_line_and_no_file(
    clip: Path, tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    done = run("roi", "encode", clip, "-o", tmp_path / "out.mp4", *words)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["in.mp4"]


def test_a_file_that_exists_needs_force(clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    out.write_text("mine")
    refused = run("roi", "encode", clip, "-o", out)
    assert (refused.returncode, out.read_text()) == (2, "mine")
    assert "--force" in refused.stderr
    assert run("roi", "encode", clip, "-o", out, "--force", "-q").returncode == 0


def test_a_map_is_written_and_checked(clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "map.txt"
    done = run("roi", "map", clip, "-o", out, "--format", "kvazaar")
    assert done.returncode == 0, done.stderr
    assert "coding order" in done.stderr
    good = run("roi", "map", clip, "--check", out)
    assert good.returncode == 0
    out.write_text("3 3\n" + "0 " * 9)
    bad = run("roi", "map", clip, "--check", out)
    assert bad.returncode == 1
    assert "apply offsets to the wrong cells" in bad.stdout + bad.stderr


def test_a_map_on_stdout_is_json(clip: Path) -> None:
    done = run("roi", "map", clip, "-o", "-", "--format", "json", "-q")
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["frames"]) == 8


def test_map_needs_one_of_two(clip: Path) -> None:
    assert run("roi", "map", clip).returncode == 2


@pytest.mark.parametrize(
    ("text", "bits"), [("800k", 800_000), ("2M", 2_000_000), ("1.5m", 1_500_000), ("9000", 9000)]
)
def test_bitrates(text: str, bits: int) -> None:
    assert parse_bitrate(text) == bits


def test_pairs_need_a_value() -> None:
    assert parse_pairs(["a=b=c"]) == {"a": "b=c"}
    with pytest.raises(UsageError):
        parse_pairs(["a"])


def test_progress_counts_both_passes(clip: Path, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    words = ["roi", "encode", clip, "-o", tmp_path / "o.mp4", "--bitrate", "300k"]
    process = subprocess.Popen(
        [sys.executable, "-m", "eyeline", *map(str, words)],
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
    with av.open(str(clip)) as container:
        frames = container.streams.video[0].frames
    assert f"{2 * frames}/{2 * frames}" in shown.decode()
