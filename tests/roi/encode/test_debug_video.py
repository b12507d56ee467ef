"""The debug video: tints by offset, lines around levels, and the decoder's QPs in grey."""

from pathlib import Path

import av
import numpy as np
import pytest
from witness import SIZE, exact, noise_clip, qps, square

from clips import write_clip
from eyeline.errors import MediaError
from eyeline.roi._footage import LevelStore
from eyeline.roi.encode import EncodeOptions, encode
from eyeline.roi.encode._debug_video import decoded_qps, write_debug_video

WIDTH, HEIGHT = SIZE


def pictures(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def stored(levels: list[np.ndarray]) -> LevelStore:
    store = LevelStore(WIDTH, HEIGHT, 16)
    for grid in levels:
        store.append(grid.astype(np.int16))
    return store


def grid(value: int = 0) -> np.ndarray:
    return np.full((9, 13), value)


def test_offsets_are_tinted_by_sign_and_size(tmp_path: Path) -> None:
    grey = [np.full((HEIGHT, WIDTH, 3), 128, np.uint8)] * 2
    clip = write_clip(tmp_path / "grey.mkv", grey, "ffv1")
    levels = grid()
    levels[:, 4:8], levels[:, 8:] = -6, 3
    out = tmp_path / "debug.mkv"
    write_debug_video(clip, out, stored([levels] * 2), 16, 6)
    shown = pictures(out)
    assert [p.shape for p in shown] == [(HEIGHT, WIDTH, 3)] * 2
    plain, more_bits, fewer_bits = (shown[1][60, x].astype(int) for x in (30, 96, 160))
    assert abs(plain - 128).max() <= 4
    assert more_bits[0] - more_bits[2] > 80
    assert 40 < fewer_bits[2] - fewer_bits[0] < more_bits[0] - more_bits[2]
    assert shown[1][60, 64].min() > 180  # the line between two levels


def test_the_right_half_has_the_qps_of_the_decoder(tmp_path: Path) -> None:
    clip, out = noise_clip(tmp_path / "in.mkv"), tmp_path / "out.mkv"
    debug = tmp_path / "debug.mkv"
    encode(clip, out, EncodeOptions(crf=26, steer=exact(6)), [square()] * 6, debug=debug)
    shown = pictures(debug)
    assert [p.shape for p in shown] == [(HEIGHT, 2 * WIDTH, 3)] * 6
    for picture, qp in zip(shown, qps(out), strict=True):
        grey = np.clip((50 - qp) / 40 * 255, 0, 255)
        middle = picture[8::16, WIDTH + 8 :: 16, 1][:8, :12].astype(float)
        assert np.abs(middle - grey[:8, :12]).mean() < 6


def test_a_codec_without_qps_gives_none(tmp_path: Path) -> None:
    assert list(decoded_qps(noise_clip(tmp_path / "in.mkv", 3))) == [None] * 3


def test_a_file_with_more_pictures_than_levels_is_an_error(tmp_path: Path) -> None:
    clip = noise_clip(tmp_path / "in.mkv", 3)
    with pytest.raises(MediaError, match="more pictures than the encoder was given"):
        write_debug_video(clip, tmp_path / "debug.mkv", stored([grid()] * 2), 16, 6)
    assert not (tmp_path / "debug.mkv").exists()
