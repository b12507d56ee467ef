"""Raw YUV and Y4M: what the options must say, what the file's length must be."""

import os
import subprocess
import sys
import threading
from fractions import Fraction

import av
import numpy as np
import pytest

from clips import (
    HEIGHT,
    WIDTH,
    moving,
    picture,
    planes_of,
    read_all,
    read_until_error,
    whole,
    write_clip,
)
from eyeline.errors import DamagedMediaError, MediaError, UsageError
from eyeline.media import open_video, upright_rgb
from eyeline.media._raw import frame_bytes
from eyeline.media.types import Colour, VideoOptions

SIZE = (47, 31)


def yuv(count=4, pix_fmt="yuv420p", size=SIZE):
    return [picture(rgb).reformat(format=pix_fmt) for rgb in moving(count, size)]


def y4m(frames, head, frame_head="FRAME"):
    data = f"YUV4MPEG2 W{frames[0].width} H{frames[0].height} {head}\n".encode()
    return data + b"".join(f"{frame_head}\n".encode() + planes_of(f) for f in frames)


def same(left, right):
    return len(left) == len(right) and all(
        np.array_equal(a.rgb, b.rgb) for a, b in zip(left, right, strict=True)
    )


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt"),
    [
        ("a.mp4", "libx264", "yuv420p"),
        ("a.mp4", "libx264", "yuv422p"),
        ("a.mp4", "libx264", "yuv444p"),
        ("a.mkv", "ffv1", "yuv420p10le"),
        ("a.mkv", "ffv1", "yuv444p12le"),
        ("a.mkv", "ffv1", "yuv422p16le"),
        ("a.mkv", "ffv1", "gray"),
        ("a.mkv", "ffv1", "gray16le"),
    ],
)
def test_raw_yuv_is_the_same_as_in_a_container(tmp_path, name, codec, pix_fmt):
    size = (48, 32)  # even, as H.264 needs
    frames = yuv(4, pix_fmt, size)
    (tmp_path / "a.yuv").write_bytes(b"".join(planes_of(f) for f in frames))
    lossless = {"qp": "0"} if codec == "libx264" else {}
    clip = write_clip(tmp_path / name, frames, codec, pix_fmt=pix_fmt, codec_options=lossless)
    raw = read_all(tmp_path / "a.yuv", VideoOptions(*size, pix_fmt, color_range="limited"))
    assert same(raw, read_all(clip, VideoOptions(color_range="limited")))


def test_raw_info(tmp_path):
    (tmp_path / "a.raw").write_bytes(b"".join(planes_of(f) for f in yuv(4, "yuv420p10le")))
    options = VideoOptions(*SIZE, "yuv420p10le", fps=Fraction(30000, 1001))
    with open_video(tmp_path / "a.raw", options) as video:
        info = video.info
        times = [frame.pts_time for frame in video.frames(lambda w, h: (8, 8))]
    assert (info.width, info.height, info.bit_depth, info.frames) == (47, 31, 10, 4)
    assert info.fps == Fraction(30000, 1001)
    assert info.duration == pytest.approx(4 * 1001 / 30000)
    assert times == [i * 1001 / 30000 for i in range(4)]


def test_a_range_is_jumped_to(tmp_path):
    (tmp_path / "a.yuv").write_bytes(b"".join(planes_of(f) for f in yuv(6)))
    options = VideoOptions(*SIZE, "yuv420p")
    frames = read_all(tmp_path / "a.yuv", options)
    part = read_all(tmp_path / "a.yuv", options, start=2, stop=5)
    assert [f.index for f in part] == [2, 3, 4]
    assert same(part, frames[2:5])


def test_another_suffix_is_raw_when_the_layout_is_given(tmp_path):
    (tmp_path / "a.bin").write_bytes(planes_of(yuv(1)[0]))
    assert len(read_all(tmp_path / "a.bin", VideoOptions(*SIZE, "yuv420p"))) == 1


@pytest.mark.parametrize(
    ("options", "missing"),
    [
        (VideoOptions(), "--width, --height, --pix-fmt"),
        (VideoOptions(width=47, height=31), "--pix-fmt"),
        (VideoOptions(width=47, pix_fmt="yuv420p"), "--height"),
    ],
)
def test_what_raw_video_lacks_is_named(tmp_path, options, missing):
    (tmp_path / "a.yuv").write_bytes(bytes(1000))
    with pytest.raises(UsageError, match=f"needs {missing}"):
        open_video(tmp_path / "a.yuv", options)


def test_a_length_that_contradicts_the_layout_is_refused_up_front(tmp_path):
    size = frame_bytes("yuv420p", *SIZE)
    (tmp_path / "a.yuv").write_bytes(bytes(3 * size + 7))
    with pytest.raises(MediaError) as caught:
        open_video(tmp_path / "a.yuv", VideoOptions(*SIZE, "yuv420p"))
    assert f"{3 * size + 7:,} bytes" in str(caught.value)
    assert "3 whole frames and 7 bytes" in str(caught.value)
    assert f"{size:,} bytes each" in str(caught.value)
    assert caught.value.exit_code == 2


def test_an_unknown_pixel_format_is_refused(tmp_path):
    (tmp_path / "a.yuv").write_bytes(bytes(1000))
    with pytest.raises(UsageError, match="yuv999p"):
        open_video(tmp_path / "a.yuv", VideoOptions(*SIZE, "yuv999p"))


def up(a, b):
    """a / b, rounded up: what FFmpeg's chroma planes do at odd sizes."""
    return -(-a // b)


BYTES = {
    "yuv420p": lambda w, h: w * h + 2 * up(w, 2) * up(h, 2),
    "yuv420p10le": lambda w, h: 2 * (w * h + 2 * up(w, 2) * up(h, 2)),
    "yuv422p": lambda w, h: w * h + 2 * up(w, 2) * h,
    "yuv422p12le": lambda w, h: 2 * (w * h + 2 * up(w, 2) * h),
    "yuv444p16le": lambda w, h: 6 * w * h,
    "yuv411p": lambda w, h: w * h + 2 * up(w, 4) * h,
    "yuva420p": lambda w, h: 2 * w * h + 2 * up(w, 2) * up(h, 2),
    "gray": lambda w, h: w * h,
    "gray10le": lambda w, h: 2 * w * h,
    "ya8": lambda w, h: 2 * w * h,
    "nv12": lambda w, h: w * h + 2 * up(w, 2) * up(h, 2),
    "p010le": lambda w, h: 2 * (w * h + 2 * up(w, 2) * up(h, 2)),
    "yuyv422": lambda w, h: 4 * up(w, 2) * h,  # pairs of pixels, the last one half used
    "uyvy422": lambda w, h: 4 * up(w, 2) * h,
    "rgb24": lambda w, h: 3 * w * h,
    "bgra": lambda w, h: 4 * w * h,
    "rgb48le": lambda w, h: 6 * w * h,
    "gbrp10le": lambda w, h: 6 * w * h,
}


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (35, 27), (46, 31), (1920, 1080)])
@pytest.mark.parametrize("pix_fmt", BYTES)
def test_bytes_of_a_frame(pix_fmt, size):
    assert frame_bytes(pix_fmt, *size) == BYTES[pix_fmt](*size)


@pytest.mark.parametrize("size", [(1, 1), (35, 27), (46, 31)])
@pytest.mark.parametrize("pix_fmt", BYTES)
def test_raw_video_of_every_format_is_read(tmp_path, pix_fmt, size):
    """As many frames as FFmpeg's own demuxer finds, and the same pictures."""
    length = frame_bytes(pix_fmt, *size)
    data = np.random.default_rng(length).integers(0, 200, 3 * length, np.uint8).tobytes()
    (tmp_path / "a.yuv").write_bytes(data)
    layout = {"video_size": f"{size[0]}x{size[1]}", "pixel_format": pix_fmt}
    with av.open(str(tmp_path / "a.yuv"), format="rawvideo", options=layout) as container:
        theirs = list(container.decode(video=0))
    options = VideoOptions(*size, pix_fmt)
    ours = read_all(tmp_path / "a.yuv", options, plan=whole, keep_source=True)
    assert len(ours) == len(theirs) == 3
    for mine, other in zip(ours, theirs, strict=True):
        assert (mine.source.width, mine.source.height) == size
        assert (mine.source.format.name, other.format.name) == (pix_fmt, pix_fmt)
        colour = Colour("bt601", "limited" if "rgb" not in pix_fmt else "full", "sdr")
        if pix_fmt in ("bgra", "gbrp10le"):
            colour = Colour("bt601", "full", "sdr")
        assert np.array_equal(mine.rgb, upright_rgb(other, colour, 0, size))


@pytest.mark.parametrize("pix_fmt", ["cuda", "vaapi", "", "yuv420p;", "None"])
def test_what_is_no_pixel_format_of_raw_video_is_refused(pix_fmt):
    with pytest.raises(UsageError, match="can't be read"):
        frame_bytes(pix_fmt, 16, 16)


@pytest.mark.parametrize("size", [(0, 16), (-4, 16), (99999, 16), (16384, 16385)])
def test_a_layout_of_absurd_size_is_refused_before_memory_is_taken(tmp_path, size):
    (tmp_path / "a.yuv").write_bytes(bytes(1000))
    with pytest.raises((MediaError, UsageError), match=f"{size[0]}x{size[1]}"):
        open_video(tmp_path / "a.yuv", VideoOptions(*size, "yuv420p"))


@pytest.mark.parametrize(
    ("tag", "pix_fmt"),
    [
        ("C420jpeg", "yuv420p"),
        ("C422", "yuv422p"),
        ("C444", "yuv444p"),
        ("C420p10 XYSCSS=420P10", "yuv420p10le"),
        ("C444p12", "yuv444p12le"),
        ("Cmono", "gray"),
        ("", "yuv420p"),
    ],
)
def test_y4m_is_the_same_as_raw(tmp_path, tag, pix_fmt):
    frames = yuv(3, pix_fmt)
    (tmp_path / "a.y4m").write_bytes(y4m(frames, f"F25:1 Ip A1:1 {tag}"))
    (tmp_path / "a.yuv").write_bytes(b"".join(planes_of(f) for f in frames))
    raw = read_all(tmp_path / "a.yuv", VideoOptions(*SIZE, pix_fmt))
    assert same(read_all(tmp_path / "a.y4m"), raw)


def test_y4m_by_ffmpegs_own_muxer(tmp_path):
    path = write_clip(tmp_path / "a.y4m", yuv(3), "wrapped_avframe")
    assert len(read_all(path)) == 3


def test_y4m_header(tmp_path):
    head = "F30000:1001 A4:3 C420jpeg XCOLORRANGE=FULL"
    (tmp_path / "a.y4m").write_bytes(y4m(yuv(3), head, "FRAME Ip"))
    with open_video(tmp_path / "a.y4m") as video:
        assert video.info.fps == Fraction(30000, 1001)
        assert (video.info.display_width, video.info.display_height) == (63, 31)
        assert video.info.colour.color_range == "full"
        assert video.info.colour.assumed == ("matrix",)
        assert len(list(video.frames(lambda w, h: (8, 8)))) == 3


@pytest.mark.parametrize("cut", [1, 100])
def test_y4m_cut_off_gives_its_whole_frames_first(tmp_path, cut):
    (tmp_path / "a.y4m").write_bytes(y4m(yuv(5), "F25:1")[:-cut])
    with open_video(tmp_path / "a.y4m") as video:
        frames, error = read_until_error(video, DamagedMediaError)
    assert [f.index for f in frames] == [0, 1, 2, 3]
    assert isinstance(error, DamagedMediaError)
    assert (error.frames, error.exit_code) == (4, 3)
    assert "after frame 3 at 0.120 s" in str(error)
    assert "frame 4 has" in str(error)


def test_y4m_without_its_next_frame_header(tmp_path):
    data = y4m(yuv(2), "F25:1")
    (tmp_path / "a.y4m").write_bytes(data + b"NONSENSE" * 100)
    with open_video(tmp_path / "a.y4m") as video:
        frames, error = read_until_error(video, DamagedMediaError)
    assert len(frames) == 2
    assert "header of frame 2 is missing" in str(error)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"YUV4MPEG2 W47 F25:1\nFRAME\n", "no size"),
        (b"YUV4MPEG2 W47 H31 C555\nFRAME\n", "555"),
        (b"YUV4MPEG2 W47 H31", "not Y4M"),
        (b"YUV4MPEG2 W99999 H99999\nFRAME\n", "99999x99999"),
        (b"YUV4MPEG2 W47 H31\n", "no frames"),
        (b"YUV4MPEG2 W47 H31\nFRAME\nabc", "truncated before its first frame: frame 0 has 3 of"),
        (b"YUV4MPEG2 W47 H31\nFRA", "truncated before its first frame: .* cut off"),
        (b"YUV4MPEG2 W0 H31\nFRAME\n", "0x31"),
        (b"YUV4MPEG2 W-4 H31\nFRAME\n", "-4x31"),
        (b"YUV4MPEG2 W47 H31 " + b"X" * 9999 + b"\nFRAME\n", "not Y4M"),
    ],
)
def test_a_bad_y4m_is_refused(tmp_path, data, message):
    (tmp_path / "a.y4m").write_bytes(data)
    with pytest.raises(MediaError, match=message):
        open_video(tmp_path / "a.y4m")


PROGRAM = """
import sys
from eyeline.errors import EyelineError
from eyeline.media import open_video, upright_rgb
try:
    with open_video("-") as video:
        for frame in video.frames(lambda w, h: (4, 3)):
            print(frame.index, frame.rgb.mean())
except EyelineError as exc:
    print(exc)
    sys.exit(exc.exit_code)
"""


def pipe(data):
    return subprocess.run(
        [sys.executable, "-c", PROGRAM], input=data, capture_output=True, check=False, timeout=240
    )


def test_stdin(tmp_path):
    data = y4m(yuv(3), "F25:1")
    (tmp_path / "a.y4m").write_bytes(data)
    expected = [f"{f.index} {f.rgb.mean()}" for f in read_all(tmp_path / "a.y4m", plan=four_three)]
    done = pipe(data)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode().splitlines() == expected


def four_three(width, height):
    return 4, 3


def test_stdin_cut_off():
    done = pipe(y4m(yuv(3), "F25:1")[:-10])
    assert done.returncode == 3
    assert b"truncated after frame 1" in done.stdout.splitlines()[-1]


@pytest.mark.parametrize(("data", "message"), [(b"", b"no frames"), (b"\0" * 999, b"not Y4M")])
def test_stdin_that_is_no_video(data, message):
    done = pipe(data)
    assert done.returncode == 2
    assert message in done.stdout
    assert done.stdout.count(b"\n") == 1


def test_a_named_pipe(tmp_path):
    fifo = tmp_path / "a.y4m"
    os.mkfifo(fifo)
    writer = threading.Thread(target=fifo.write_bytes, args=(y4m(yuv(3), "F25:1"),))
    writer.start()
    frames = read_all(fifo)
    writer.join()
    assert len(frames) == 3


def test_raw_video_in_a_pipe_is_refused(tmp_path):
    fifo = tmp_path / "a.yuv"
    os.mkfifo(fifo)
    with pytest.raises(UsageError, match="can't be read from a pipe"):
        open_video(fifo, VideoOptions(*SIZE, "yuv420p"))


@pytest.mark.parametrize("name", ["a.mkv", "a.ts"])
def test_a_container_in_a_named_pipe(tmp_path, name):
    data = write_clip(tmp_path / f"whole_{name}", moving(5)).read_bytes()
    fifo = tmp_path / name
    os.mkfifo(fifo)
    writer = threading.Thread(target=fifo.write_bytes, args=(data,))
    writer.start()
    frames = read_all(fifo)
    writer.join()
    assert len(frames) == 5


def test_a_layout_for_what_has_its_own_is_refused(tmp_path):
    path = write_clip(tmp_path / "a.mp4", moving(2))
    with pytest.raises(UsageError, match="--width, --fps would change nothing"):
        open_video(path, VideoOptions(width=WIDTH, fps=Fraction(25)))
    assert av.open(str(path)).streams.video[0].height == HEIGHT
