"""Records of a video: frames are found by their time, and sizes beyond the limits are errors."""

import numpy as np
import pytest

from eyeline.errors import MediaError
from eyeline.media.types import MAX_SIDE, FrameIndex, VideoInfo, check_size, truncated_error

INDEX = FrameIndex(np.array([0, 40, 90, 130, 200]), np.array([0, 3]))


@pytest.mark.parametrize(("pts", "number"), [(0, 0), (90, 2), (200, 4), (91, None), (None, None)])
def test_a_frame_is_found_by_its_exact_time(pts: int | None, number: int | None) -> None:
    assert INDEX.number(pts) == number


def test_a_time_after_the_last_frame_finds_nothing() -> None:
    assert INDEX.number(201) is None


@pytest.mark.parametrize(("number", "position"), [(0, 0), (2, 0), (3, 1), (4, 1)])
def test_decoding_begins_at_or_before_the_frame(number: int, position: int) -> None:
    assert INDEX.last_keyframe(number) == position


@pytest.mark.parametrize("size", [(1, 1), (MAX_SIDE, 1), (4096, 2160)])
def test_sizes_within_the_limits_pass(size: tuple[int, int]) -> None:
    check_size("clip.mp4", *size)


@pytest.mark.parametrize("size", [(0, 1), (1, 0), (MAX_SIDE + 1, 1)])
def test_other_sizes_are_errors_that_name_the_file(size: tuple[int, int]) -> None:
    with pytest.raises(MediaError, match=r"clip\.mp4"):
        check_size("clip.mp4", *size)


def test_a_file_without_a_whole_frame_has_a_hint() -> None:
    error = truncated_error("clip.mp4", "the file ends")
    assert "clip.mp4: truncated before its first frame: the file ends" in error.message
    assert error.hint


def test_the_expected_number_of_frames_is_stated_or_computed() -> None:
    fields = dict.fromkeys(VideoInfo.__dataclass_fields__)
    assert VideoInfo(**fields | {"frames": 7}).expected_frames == 7
    assert VideoInfo(**fields | {"duration": 2.0, "fps": 25}).expected_frames == 50
    assert VideoInfo(**fields).expected_frames is None
