"""The page as a file: the command, its refusals, equal bytes for equal inputs."""

import contextlib
import io
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import pytest

from eyeline.cli import main
from eyeline.report import PageOptions, write_report
from eyeline.report._pictures import MediaOptions
from report_pages import FRAMES, HEIGHT, WIDTH, MakeLog


def test_the_same_inputs_give_the_same_page(saliency_log: Path, clip: Path, tmp_path: Path) -> None:
    pages = [tmp_path / "a.html", tmp_path / "b.html"]
    for page in pages:
        write_report([str(saliency_log)], str(page), PageOptions(media=MediaOptions(str(clip))))
    assert pages[0].read_bytes() == pages[1].read_bytes()


def run(*words: str | Path) -> SimpleNamespace:
    """Run the command in this process; its exit code and what it wrote to stderr."""
    errors, code = io.StringIO(), 0
    argv = ["eyeline", "report", *map(str, words)]
    with mock.patch.object(sys, "argv", argv), contextlib.redirect_stderr(errors):
        try:
            main()
        except SystemExit as stop:
            code = stop.code or 0
    return SimpleNamespace(returncode=code, stderr=errors.getvalue())


def test_the_command(saliency_log: Path, clip: Path, tmp_path: Path) -> None:
    done = run(saliency_log, "--video", clip, "-o", tmp_path / "page.html", "--title", "A & B")
    assert done.returncode == 0, done.stderr
    assert f"{FRAMES} pictures of {WIDTH}x{HEIGHT} (one per frame)" in done.stderr
    page = (tmp_path / "page.html").read_text()
    assert "<title>A &amp; B</title>" in page
    assert "http://" not in page.replace("http://www.w3.org/2000/svg", "")
    assert "https://" not in page


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--ref", "a.mp4"], "only one of --ref and --dist"),
        (
            ["--video", "a.mp4", "--ref", "b.mp4", "--dist", "c.mp4"],
            "--video is given beside --ref",
        ),
        (["--model", "placeholder"], "without a clip"),
        (["--video", "missing.mp4"], "missing.mp4"),
        (["--worst-by", "x"], "no log holds the column 'x'"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_2(
    make_log: MakeLog, tmp_path: Path, words: list[str], said: str
) -> None:
    out = tmp_path / "page.html"
    done = run(make_log(vmaf=[1, 2]), *words, "-o", out)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not out.exists()


def test_the_page_never_replaces_its_log(make_log: MakeLog) -> None:
    log = make_log(vmaf=[1, 2])
    before = log.read_bytes()
    done = run(log, "-o", log)
    assert done.returncode == 2
    assert log.read_bytes() == before


def test_an_empty_log_is_refused(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("Frame,vmaf,\n")
    done = run(tmp_path / "log.csv", "-o", tmp_path / "page.html")
    assert done.returncode == 2
    assert "holds no frame" in done.stderr
