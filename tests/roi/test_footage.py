"""Pictures with their levels: maps from a model or from elsewhere, and maps that do not fit."""

from pathlib import Path

import numpy as np
import pytest
from witness import noise_clip, square

from clips import moving, write_clip
from eyeline.errors import MediaError, UsageError
from eyeline.registry.registry import resolve_model
from eyeline.roi.encode import EncodeOptions, SteerOptions, encode
from eyeline.saliency.pipeline import ExtractOptions, extract


def test_the_model_steers_by_an_extraction_too(tmp_path: Path) -> None:
    clip, sizes = noise_clip(tmp_path / "in.mkv"), []
    gaze, options = resolve_model(task="gaze"), ExtractOptions(keep_source=True)
    for maps in (None, extract(str(clip), model=gaze, options=options)):
        out = tmp_path / "out.mkv"
        sizes.append(encode(clip, out, EncodeOptions(crf=30), maps).video_bytes)
    assert sizes[0] == sizes[1]


def test_an_extraction_without_sources_is_refused(tmp_path: Path) -> None:
    clip = noise_clip(tmp_path / "in.mkv")
    with extract(str(clip)) as maps, pytest.raises(UsageError, match="keep_source"):
        encode(clip, tmp_path / "out.mkv", EncodeOptions(), maps)


@pytest.mark.parametrize(
    ("maps", "match"),
    [
        ([square()] * 5, "no map for frame 5"),
        ([square()] * 7, "more maps than"),
        ([np.zeros((50, 50), np.float32)] * 6, "50x50"),
        (
            [(i + 1, square()) for i in range(6)],
            "expected the map of frame 0 of .*, found one of frame 1",
        ),
        ([square() + 1] * 6, "values from 1 to 2"),
    ],
)
def test_maps_that_do_not_fit_leave_no_file(tmp_path: Path, maps: list, match: str) -> None:
    clip, out = noise_clip(tmp_path / "in.mkv"), tmp_path / "out.mp4"
    with pytest.raises(MediaError, match=match):
        encode(clip, out, EncodeOptions(preset="veryfast"), maps)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.mkv"]


@pytest.mark.parametrize("strength", [0, 4])
def test_a_picture_of_another_size_is_refused(tmp_path: Path, strength: float) -> None:
    clip = tmp_path / "in.ts"
    parts = [write_clip(tmp_path / f"{w}.ts", moving(4, (w, 96))) for w in (64, 128)]
    clip.write_bytes(b"".join(part.read_bytes() for part in parts))
    with pytest.raises(MediaError, match="frame 4 is 128x96 yuv420p, but the first frame is 64x96"):
        encode(clip, tmp_path / "out.mkv", EncodeOptions(steer=SteerOptions(strength=strength)))
