"""Images as a video: order, sizes, depth, orientation, damage."""

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clips import half, picture, read_all, whole
from eyeline.errors import MediaError, UsageError
from eyeline.media import open_video
from eyeline.media._truncation import cut_short
from eyeline.media.source import natural_order
from eyeline.media.types import VideoOptions

ENCODERS = {".png": "png", ".jpg": "mjpeg", ".webp": "libwebp", ".bmp": "bmp", ".tif": "tiff"}


def write_image(path, rgb, pix_fmt=None, codec_options=None):
    """uint8 (h, w, 3), or a frame, to a still image."""
    frame = rgb if isinstance(rgb, av.VideoFrame) else picture(rgb)
    pix_fmt = pix_fmt or {".jpg": "yuvj444p", ".webp": "bgra", ".bmp": "bgr24"}.get(path.suffix)
    pix_fmt = pix_fmt or frame.format.name
    with av.open(str(path), "w", format="image2", options={"update": "1"}) as container:
        stream = container.add_stream(ENCODERS[path.suffix], rate=1, options=codec_options or {})
        stream.width, stream.height, stream.pix_fmt = frame.width, frame.height, pix_fmt
        container.mux(stream.encode(frame.reformat(format=pix_fmt)))
        container.mux(stream.encode(None))
    return path


def plain(colour, size=(32, 24)):
    return np.full((size[1], size[0], 3), colour, np.uint8)


def test_a_folder_in_natural_order(tmp_path):
    for i in (1, 2, 9, 10, 11, 100):
        write_image(tmp_path / f"frame{i}.png", plain(2 * i))
    (tmp_path / "notes.txt").write_text("not an image")
    with open_video(tmp_path) as video:
        info = video.info
        frames = list(video.frames(half))
    assert [int(f.rgb[0, 0, 0]) for f in frames] == [2, 4, 18, 20, 22, 200]
    assert [f.pts_time for f in frames] == [i / 25 for i in range(6)]
    assert (info.codec, info.frames, info.fps, info.duration) == ("png", 6, 25, 6 / 25)


@given(st.lists(st.integers(0, 10**6), min_size=2, unique=True))
def test_natural_order_is_numeric(numbers):
    names = [f"shot{n}_v2.png" for n in numbers]
    assert sorted(names, key=natural_order) == [f"shot{n}_v2.png" for n in sorted(numbers)]


@given(st.lists(st.text(max_size=8)))
def test_any_names_can_be_ordered(names):
    ordered = sorted(names, key=natural_order)
    assert sorted(ordered) == sorted(names)


def test_a_list_keeps_its_order_and_takes_a_frame_rate(tmp_path):
    paths = [write_image(tmp_path / f"{i}.png", plain(10 * i)) for i in (3, 1, 2)]
    frames = read_all(paths, VideoOptions(fps=Fraction(10)))
    assert [int(f.rgb[0, 0, 0]) for f in frames] == [30, 10, 20]
    assert [f.pts_time for f in frames] == [0, 0.1, 0.2]


def test_a_range_of_images(tmp_path):
    paths = [write_image(tmp_path / f"{i}.png", plain(10 * i)) for i in range(6)]
    frames = read_all(paths, start=2, stop=4)
    assert [f.index for f in frames] == [2, 3]
    assert [int(f.rgb[0, 0, 0]) for f in frames] == [20, 30]


@pytest.mark.parametrize(("suffix", "tolerance"), [(".png", 0), (".bmp", 0), (".tif", 0)])
def test_lossless_images_keep_their_rgb(tmp_path, suffix, tolerance):
    rgb = np.random.default_rng(0).integers(0, 256, (23, 37, 3), np.uint8)
    (frame,) = read_all(write_image(tmp_path / f"a{suffix}", rgb), plan=whole)
    assert np.array_equal(frame.rgb, rgb.transpose(2, 0, 1))


@pytest.mark.parametrize("lines", [24, 720])
@pytest.mark.parametrize("suffix", [".jpg", ".webp"])
def test_lossy_images_are_bt601_at_any_size(tmp_path, suffix, lines):
    """JFIF and the VP8 format of WebP know no other matrix."""
    colour = (200, 60, 90)
    options = {"lossless": "0", "quality": "95"} if suffix == ".webp" else {"qmin": "1", "q": "1"}
    pix_fmt = "yuv420p" if suffix == ".webp" else "yuvj444p"
    frame = picture(plain(colour, (32, lines))).reformat(
        format=pix_fmt,
        dst_colorspace="ITU601",
        dst_color_range="MPEG" if suffix == ".webp" else "JPEG",
    )
    path = write_image(tmp_path / f"a{suffix}", frame, pix_fmt, options)
    with open_video(path) as video:
        assert video.info.colour.matrix == "bt601"
        rgb = next(video.frames(half)).rgb
    assert np.abs(rgb.reshape(3, -1).T.astype(int) - colour).max() <= 4


@pytest.mark.parametrize("pix_fmt", ["rgb48be", "gray16be", "gray"])
def test_sixteen_bits_and_grey(tmp_path, pix_fmt):
    path = write_image(tmp_path / "a.png", plain((90, 90, 90)), pix_fmt)
    with open_video(path) as video:
        assert video.info.bit_depth == (8 if pix_fmt == "gray" else 16)
        rgb = next(video.frames(half)).rgb
    assert np.abs(rgb.astype(int) - 90).max() <= 1


def test_images_of_other_sizes_and_formats_are_planned_again(tmp_path):
    paths = [
        write_image(tmp_path / "1.png", plain((200, 60, 90))),
        write_image(tmp_path / "2.png", plain((200, 60, 90), (20, 50))),
        write_image(tmp_path / "3.jpg", plain((200, 60, 90), (20, 50))),
    ]
    with open_video(paths) as video:
        frames = list(video.frames(half))
    assert [f.rgb.shape for f in frames] == [(3, 12, 16), (3, 25, 10), (3, 25, 10)]
    assert [f.display_size for f in frames] == [(32, 24), (20, 50), (20, 50)]
    assert video.report.size_changes == [(1, (20, 50))]
    for frame in frames:
        assert np.abs(frame.rgb[:, 5, 5].astype(int) - (200, 60, 90)).max() <= 4


def exif(orientation):
    """A JPEG segment that holds an Exif orientation alone (CIPA DC-008)."""
    entry = struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0)
    tiff = b"II*\0" + struct.pack("<IH", 8, 1) + entry + bytes(4)
    body = b"Exif\0\0" + tiff
    return b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body


@pytest.mark.parametrize(("orientation", "rotation"), [(1, 0), (3, 180), (6, 90), (8, 270)])
def test_exif_orientation_is_honoured(tmp_path, orientation, rotation):
    rgb = plain((20, 20, 20), (64, 32))
    rgb[:, :16] = (220, 220, 220)  # bright at the left
    path = write_image(tmp_path / "a.jpg", rgb)
    data = path.read_bytes()
    path.write_bytes(data[:2] + exif(orientation) + data[2:])
    (frame,) = read_all(path, plan=whole)
    assert frame.rotation == rotation
    assert frame.display_size == ((64, 32) if rotation % 180 == 0 else (32, 64))
    left, right = frame.rgb[:, :, :8].mean(), frame.rgb[:, :, -8:].mean()
    top, bottom = frame.rgb[:, :8].mean(), frame.rgb[:, -8:].mean()
    brightest = {0: left, 90: top, 180: right, 270: bottom}[rotation]
    assert brightest == max(left, right, top, bottom) > 150


@pytest.mark.parametrize("name", ["a.jpg", "frame%03d.jpg", "a?b[1].jpg", "shot%02d.png", "a*.png"])
def test_an_images_name_is_no_pattern_and_its_size_no_matter(tmp_path, name):
    """FFmpeg takes a JPEG that does not end in the first 2 kB, and any such name, for a sequence."""
    noise = np.random.default_rng(0).integers(0, 256, (120, 160, 3), np.uint8)
    path = write_image(tmp_path / f"plain{Path(name).suffix}", noise)
    assert path.stat().st_size > 10_000
    path = path.rename(tmp_path / name)
    for source in (path, [path], tmp_path):
        (frame,) = read_all(source, plan=whole)
        assert frame.display_size == (160, 120)
        assert np.corrcoef(frame.rgb.ravel(), noise.transpose(2, 0, 1).ravel())[0, 1] > 0.8


def test_a_jpeg_of_megabytes(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (1500, 2000, 3), np.uint8)
    path = write_image(tmp_path / "a.jpg", noise, codec_options={"qmin": "1", "q": "1"})
    assert path.stat().st_size > 2_000_000
    assert [f.display_size for f in read_all([path])] == [(2000, 1500)]


@pytest.mark.parametrize("part", [0.5, 0.9, 0.999])
def test_a_jpeg_that_was_cut_off_is_counted(tmp_path, part):
    """FFmpeg fills the rest with grey, without a word."""
    noise = np.random.default_rng(0).integers(0, 256, (120, 160, 3), np.uint8)
    paths = [write_image(tmp_path / f"{i}.jpg", noise) for i in range(3)]
    data = paths[1].read_bytes()
    paths[1].write_bytes(data[: int(len(data) * part)])
    with open_video(paths) as video:
        frames = list(video.frames(half))
    assert [f.index for f in frames] == [0, 1, 2]
    assert (video.report.corrupt, video.report.first_corrupt) == (1, 1)


def test_what_follows_a_jpeg_is_no_damage(tmp_path):
    """Phones append films and depth maps; a preview in front has an end of its own."""
    path = write_image(tmp_path / "a.jpg", plain(90, (160, 120)))
    data = path.read_bytes()
    thumbnail = b"\xff\xd8\xff\xda\x00\x02abc\xff\xd9"
    segment = b"\xff\xe1" + struct.pack(">H", len(thumbnail) + 2) + thumbnail
    for behind in (b"\xff\xda\xff\xd8 more", data, bytes(range(256)) * 99):
        path.write_bytes(data[:2] + segment + data[2:] + behind)
        for source in (path, [path]):
            with open_video(source) as video:
                assert len(list(video.frames(half))) == 1
            assert video.report.corrupt == 0
    path.write_bytes(data[:2] + segment + data[2:-20])
    assert "end of its picture" in (cut_short(str(path)) or "")


def test_a_broken_image_is_counted_and_left_out(tmp_path):
    paths = [write_image(tmp_path / f"{i}.png", plain(10 * i)) for i in range(5)]
    paths[2].write_bytes(b"no image at all")
    with open_video(paths) as video:
        frames = list(video.frames(half))
    assert [f.index for f in frames] == [0, 1, 3, 4]  # a row keeps the number of its image
    assert (video.report.corrupt, video.report.first_corrupt) == (1, 2)


def test_nothing_but_broken_images(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no image at all")
    with pytest.raises(MediaError, match=r"a\.png"):
        open_video(tmp_path)


def test_a_folder_without_images(tmp_path):
    (tmp_path / "notes.txt").write_text("not an image")
    with pytest.raises(MediaError, match="no images"):
        open_video(tmp_path)


def test_a_list_with_a_missing_image_is_refused_up_front(tmp_path):
    path = write_image(tmp_path / "a.png", plain(1))
    with pytest.raises(MediaError, match=r"b\.png: no such file"):
        open_video([path, tmp_path / "b.png"])
    with pytest.raises(MediaError, match="empty"):
        open_video([])


def test_a_raw_layout_for_images_is_refused(tmp_path):
    path = write_image(tmp_path / "a.png", plain(1))
    with pytest.raises(UsageError, match="--pix-fmt would change nothing"):
        open_video([path], VideoOptions(pix_fmt="yuv420p"))
