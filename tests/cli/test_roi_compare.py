"""`eyeline roi compare` from the command line."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import commands
from clips import moving, write_clip
from eyeline.saliency.maps import NpzFile

SIZE = (96, 64)
run = partial(commands.run, "roi", "compare")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip") / "clip.mkv", moving(4, SIZE), "ffv1")


@pytest.fixture(scope="module")
def maps(clip: Path) -> Path:
    path = clip.parent / "maps.npz"
    m = np.zeros((SIZE[1], SIZE[0]), np.float32)
    m[16:48, 32:64] = 1
    with NpzFile(path) as sink:
        for i in range(4):
            sink.write(i, i / 25, m)
    return path


def test_tables_json_and_pictures_come_out(clip: Path, maps: Path, tmp_path: Path) -> None:
    files = [tmp_path / n for n in ("out.json", "table.md", "curves.svg", "still.png")]
    done = run(
        clip, "--maps", maps, "--no-vmaf", "--preset", "veryfast", "--strength", 6,
        "-o", files[0], "--markdown", files[1], "--plot", files[2], "--still", files[3],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert all(f.stat().st_size for f in files)
    assert "PSNR inside the subject" in done.stdout
    assert done.stdout == files[1].read_text()
    found = json.loads(files[0].read_text())
    assert found["deltas"]["psnr_inside"]["rate"] < 0
    assert found["own_homework"] is True
    assert len(found["points"]) == 8


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--rates", "22,27,x"), "not a list of numbers"),
        (("--rates", "22,27,32"), "at least 4 are needed"),
        (("--plot", "a.gif"), ".png or .svg"),
        (("--strength", "0"), "nothing to compare"),
        (("--preset", "ultrafast"), "ultrafast"),
        (("--codec", "libaom"), "ignores regions"),
        (("--maps", "absent.npz"), "absent.npz"),
        (("--judge-masks", "absent"), "absent"),
    ],
)
def test_what_can_not_work_is_one_line(
    clip: Path, maps: Path, words: tuple[str, ...], said: str
) -> None:
    steer = () if "--maps" in words else ("--maps", maps)
    done = run(clip, *steer, "--no-vmaf", *words)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_an_absent_source_is_named() -> None:
    done = run("absent.mp4", "--no-vmaf")
    assert done.returncode == 2
    assert "absent.mp4: can't be read" in done.stderr


@pytest.mark.parametrize("option", ["-o", "--markdown", "--plot", "--still"])
def test_an_output_that_can_not_be_written_is_refused_before_the_first_encode(
    clip: Path, maps: Path, tmp_path: Path, option: str
) -> None:
    out, work = tmp_path / "missing" / "out.png", tmp_path / "work"
    done = run(clip, "--maps", maps, "--no-vmaf", option, out, "--work", work)
    assert done.returncode == 2
    assert "missing/out.png: its folder does not exist" in done.stderr
    assert not work.exists()
