"""One comparison, made once for all tests of this folder."""

from dataclasses import replace
from pathlib import Path

import pytest
from witness import COMPARE, COUNT, subject, textured

from clips import write_clip
from eyeline.roi.compare import Comparison, compare
from eyeline.saliency.maps import NpzFile, PngFolder


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip") / "clip.mkv", textured(), "ffv1")


@pytest.fixture(scope="session")
def masks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("masks")
    with PngFolder(folder, 8) as sink:
        for i in range(COUNT):
            sink.write(i, i / 25, subject())
    return folder


@pytest.fixture(scope="session")
def maps(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("maps") / "maps.npz"
    with NpzFile(path) as sink:
        for i in range(COUNT):
            sink.write(i, i / 25, subject())
    return str(path)


@pytest.fixture(scope="session")
def found(
    clip: Path, masks: Path, maps: str, tmp_path_factory: pytest.TempPathFactory
) -> Comparison:
    options = replace(COMPARE, maps=maps, judge_masks=str(masks), still=True)
    return compare(clip, tmp_path_factory.mktemp("work"), options)
