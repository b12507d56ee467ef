"""kvazaar takes the map file, follows it, and says why when it dies."""

from pathlib import Path

import numpy as np
import pytest
from witness import exact, noise_clip, packets, square

from clips import moving, write_clip
from eyeline.errors import EncoderError, MissingExtraError
from eyeline.roi.encode import EncodeOptions, encode
from eyeline.roi.encode._kvazaar import find_ffmpeg


@pytest.fixture(scope="module")
def kvazaar() -> str:
    try:
        return find_ffmpeg()
    except MissingExtraError as exc:
        pytest.skip(str(exc))


@pytest.mark.parametrize("size", [(200, 136), (136, 72)])
def test_kvazaar_takes_the_map_and_obeys(
    tmp_path: Path, kvazaar: str, size: tuple[int, int]
) -> None:
    clip = write_clip(tmp_path / "in.mkv", moving(6, size), "ffv1", sound=True)
    flat = np.full((size[1], size[0]), 0.5, np.float32)
    marked = flat.copy()
    marked[:64, :64] = 1
    seen = {}
    for name, maps, strength in (
        ("plain", None, 0), ("flat", [flat] * 6, 8), ("one", [flat] * 3 + [marked] + [flat] * 2, 8),
    ):  # fmt: skip
        out = tmp_path / f"{name}.mkv"
        o = EncodeOptions("kvazaar", qp=30, preset="ultrafast", steer=exact(strength))
        assert encode(clip, out, o, maps).frames == 6
        seen[name] = packets(out)
    assert list(seen["plain"]) == list(packets(clip))
    plain, flat_, one = (list(seen[k].values()) for k in ("plain", "flat", "one"))
    assert [len(a) == len(b) for a, b in zip(flat_, one, strict=True)][:3] == [True] * 3
    assert abs(len(one[3]) - len(flat_[3])) > 20
    assert len(plain) == 6


def test_kvazaars_last_words_are_shown(tmp_path: Path, kvazaar: str) -> None:
    clip = noise_clip(tmp_path / "in.mkv")
    o = EncodeOptions("kvazaar", qp=30, steer=exact(8), extra={"kvazaar-params": "owf=-3"})
    with pytest.raises(EncoderError, match="libkvazaar: failed"):
        encode(clip, tmp_path / "out.mkv", o, [square()] * 6)
    assert [p.name for p in tmp_path.iterdir()] == ["in.mkv"]


def test_an_ffmpeg_of_ones_own_must_have_kvazaar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EYELINE_FFMPEG", "/bin/true")
    with pytest.raises(EncoderError, match="does not have the encoder libkvazaar"):
        find_ffmpeg()
