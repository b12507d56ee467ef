"""An open video: ranges, its end, time, memory, threads."""

import os
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import psutil
import pytest

from clips import half, moving, picture, planes_of, read_all, write_clip
from eyeline.errors import MediaError, UsageError
from eyeline.media import open_video
from eyeline.media.types import VideoOptions

COUNT = 12


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    """`COUNT` frames with B-frames."""
    path = tmp_path_factory.mktemp("clip") / "a.mp4"
    return write_clip(path, moving(COUNT), codec_options={"bf": "2"})


def yuv420p(count: int) -> bytes:
    """Raw samples."""
    return b"".join(planes_of(picture(p).reformat(format="yuv420p")) for p in moving(count))


def threads() -> set[int]:
    return {thread.id for thread in psutil.Process().threads()}


def ended(ours: set[int]) -> bool:
    """Whether these threads end; the kernel lists one for a moment after it was joined."""
    deadline = time.monotonic() + 20
    while ours & threads() and time.monotonic() < deadline:
        time.sleep(0.001)
    return not ours & threads()


@pytest.mark.parametrize("read", [0, 1, COUNT])
def test_a_closed_video_leaves_no_threads(clip, read):
    """Also while somebody still holds the video, and a loop over it that was left."""
    before = threads()
    with open_video(clip, VideoOptions(threads=3)) as video:
        frames = video.frames(half)
        for _ in range(read):
            next(frames)
        ours = threads() - before
        assert len(ours) >= 2
    assert ended(ours)
    assert video.report.delivered == read


def test_a_closed_video_leaves_no_open_file(clip, tmp_path):
    (tmp_path / "a.yuv").write_bytes(yuv420p(3))
    for path, options in [
        (clip, VideoOptions()),
        (tmp_path / "a.yuv", VideoOptions(64, 48, "yuv420p")),
    ]:
        with open_video(path, options) as video:
            next(video.frames(half))
        assert str(path) not in {f.path for f in psutil.Process().open_files()}
        assert video.info.width == 64


def test_closing_twice_is_fine_and_reading_on_is_not(clip):
    video = open_video(clip)
    frames = video.frames(half)
    next(frames)
    video.close()
    video.close()
    with pytest.raises(UsageError, match=r"a\.mp4: the video was closed"):
        next(frames)
    with pytest.raises(UsageError, match="was closed"):
        video.frames(half)


def test_a_video_that_was_not_read_can_be_closed(clip):
    open_video(clip).close()


def test_memory_is_flat_over_thousands_of_frames(tmp_path):
    one = picture(moving(1, (96, 64))[0]).reformat(format="yuv420p")
    path = write_clip(tmp_path / "a.mkv", (one for _ in range(2000)), "rawvideo")
    used = []
    with open_video(path) as video:
        for frame in video.frames(half):
            if frame.index in (200, 1999):
                used.append(psutil.Process().memory_info().rss)
    assert video.report.delivered == 2000
    assert used[1] - used[0] < 2**22  # 2,000 frames are 18 MB, their planes 9


@pytest.mark.parametrize(
    ("start", "stop", "expected"),
    [
        (0, None, range(COUNT)),
        (3, 7, range(3, 7)),
        (COUNT - 1, None, [COUNT - 1]),
        (0, 99, range(COUNT)),
        (10, 99, [10, 11]),
        (0, 0, []),
        (5, 5, []),
        (7, 3, []),
    ],
)
def test_ranges(clip, tmp_path, start, stop, expected):
    frames = read_all(clip, start=start, stop=stop)
    assert [f.index for f in frames] == list(expected)
    assert [f.pts_time for f in frames] == [i / 25 for i in expected]


@pytest.mark.parametrize("start", [COUNT, COUNT + 1, 10**6])
def test_a_start_behind_the_end_names_the_length(clip, tmp_path, start):
    raw = tmp_path / "a.yuv"
    raw.write_bytes(yuv420p(COUNT))
    for path, options in [(clip, VideoOptions()), (raw, VideoOptions(64, 48, "yuv420p"))]:
        with pytest.raises(UsageError, match=f"no frame {start}: the video has {COUNT} "):
            read_all(path, options, start=start)


def test_a_range_does_not_decode_what_lies_behind_it(tmp_path):
    """The rest of the file is noise, yet nothing is counted."""
    path = write_clip(tmp_path / "a.mkv", moving(200), "ffv1", codec_options={"g": "1"})
    data = bytearray(path.read_bytes())
    data[len(data) // 2 :] = bytes(len(data) - len(data) // 2)
    path.write_bytes(data)
    with open_video(path, VideoOptions(threads=1)) as video:
        assert len(list(video.frames(half, stop=20))) == 20
    assert video.report.corrupt == 0


def test_the_first_scene_score_of_a_range_is_zero(clip):
    assert read_all(clip, start=5)[0].scene_score == 0


@pytest.mark.parametrize("name", ["a.ts", "a.mkv", "a.mp4"])
def test_times_are_the_streams_own(tmp_path, name):
    """As `ffprobe` prints them; FFmpeg's transport streams begin at 1.4 s and later."""
    times = [3 + Fraction(i, 25) for i in range(6)]
    path = write_clip(tmp_path / name, moving(6), times=times)
    with av.open(str(path)) as container:
        expected = [f.pts * f.time_base for f in container.decode(video=0)]
    found = [f.pts_time for f in read_all(path)]
    assert found == pytest.approx([float(t) for t in expected])
    assert found[0] >= 3
    assert np.diff(found) == pytest.approx(1 / 25, abs=1e-3)


def test_a_picture_before_and_after_keeps_its_own_plane(clip):
    """Frames that a caller keeps are not overwritten by those that follow."""
    frames = read_all(clip)
    copies = []
    with open_video(clip) as video:
        copies.extend(frame.rgb.copy() for frame in video.frames(half))
    assert all(np.array_equal(f.rgb, c) for f, c in zip(frames, copies, strict=True))


@pytest.mark.parametrize("threads_", [1, 2, 4])
def test_pictures_do_not_depend_on_the_number_of_threads(clip, threads_):
    one = read_all(clip, VideoOptions(threads=1))
    more = read_all(clip, VideoOptions(threads=threads_))
    assert all(np.array_equal(a.rgb, b.rgb) for a, b in zip(one, more, strict=True))
    assert [a.scene_score for a in one] == [b.scene_score for b in more]


@pytest.mark.skipif(not hasattr(os, "seteuid"), reason="no POSIX users here")
def test_a_file_that_may_not_be_read(clip, tmp_path_factory):
    folder = tmp_path_factory.mktemp("locked")
    for path in (folder / "a.mp4", folder / "a.y4m", folder / "a.png"):
        path.write_bytes(clip.read_bytes())
        path.chmod(0)
        if os.geteuid() == 0:
            with pytest.raises(MediaError, match="can't be read"):
                as_nobody(path)
        else:
            with pytest.raises(MediaError, match="can't be read"):
                open_video(path)


def as_nobody(path: Path) -> None:
    """Root may read everything, so open it as somebody else."""
    os.seteuid(65534)
    try:
        open_video(path)
    finally:
        os.seteuid(0)


def test_a_mutation_of_size_keeps_the_default_matrix(tmp_path):
    """An untagged stream that grows over 720 lines does not change its colours half-way."""
    parts = [
        write_clip(
            tmp_path / f"{i}.h264",
            [np.full((h, 64, 3), (200, 60, 90), np.uint8)] * 2,
            codec_options={"bf": "0", "qp": "1"},
        )
        for i, h in enumerate([240, 736])
    ]
    path = tmp_path / "both.h264"
    path.write_bytes(b"".join(p.read_bytes() for p in parts))
    small, *_, large = read_all(path)
    assert (small.display_size, large.display_size) == ((64, 240), (64, 736))
    assert np.abs(small.rgb[:, 5, 5].astype(int) - large.rgb[:, 5, 5]).max() <= 2
