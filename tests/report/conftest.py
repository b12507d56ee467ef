"""Pages made of real clips and logs, and a real browser to open them in."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clips import picture, write_clip
from eyeline.logs import Log, write_log
from eyeline.saliency.pipeline import Outputs, extract, run_extraction
from report_pages import FRAMES, MakeLog, Open, Opened, noisy, square

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    return write_clip(folder / "clip.mp4", map(picture, square()), codec_options={"crf": "8"})


@pytest.fixture(scope="session")
def distorted(clip: Path) -> Path:
    frames = map(picture, noisy(square()))
    return write_clip(clip.parent / "distorted.mp4", frames, codec_options={"crf": "8"})


@pytest.fixture(scope="session")
def saliency_log(clip: Path) -> Path:
    """What `eyeline extract` writes for the clip."""
    path = clip.parent / "clip.json"
    run_extraction(extract(str(clip)), Outputs(logs=(str(path),)))
    return path


@pytest.fixture
def make_log(tmp_path: Path) -> MakeLog:
    def make(
        name: str = "scores.json", provenance: dict[str, Any] | None = None, **columns: Any
    ) -> Path:
        """A log with these columns, 25 frames a second."""
        log = Log(list(columns), provenance or {}, 25.0)
        for i, row in enumerate(zip(*columns.values(), strict=True)):
            log.append(i, i / 25, dict(zip(columns, map(float, row), strict=True)))
        write_log(log, tmp_path / name)
        return tmp_path / name

    return make


@pytest.fixture
def scores(make_log: MakeLog) -> Path:
    """Scores for the pair, the lowest at frame 9."""
    vmaf = [90.0 - i / 10 for i in range(FRAMES)]
    vmaf[9] = 50.0
    return make_log(vmaf=vmaf, sw_vmaf=[v - 2 for v in vmaf], odd=np.arange(FRAMES))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Headless Chromium; tests skip where it or playwright is absent.

    It ends with its module: a process that is forked later would hold its pipe open for ever.
    """
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = next((p for name in BROWSERS if (p := shutil.which(name))), None)
    if path is None:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is on the path")
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with api.sync_playwright() as play:
        running = play.chromium.launch(executable_path=path, args=arguments)
        yield running
        running.close()


@pytest.fixture
def open_page(browser: Any) -> Iterator[Open]:
    """Open a page in a window of a size and colour scheme; afterwards it must not have complained."""
    contexts, opened = [], []

    def open_it(path: Path, size: tuple[int, int] = (1440, 900), scheme: str = "light") -> Opened:
        contexts.append(
            browser.new_context(viewport={"width": size[0], "height": size[1]}, color_scheme=scheme)
        )
        opened.append(Opened(contexts[-1].new_page(), path))
        return opened[-1]

    yield open_it
    said = [(o.complaints, o.requests) for o in opened]
    for context in contexts:
        context.close()
    assert all(s == ([], []) for s in said), said
