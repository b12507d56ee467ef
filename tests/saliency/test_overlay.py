import av
import numpy as np
import pytest

from eyeline.errors import OutputError
from eyeline.media.colour import upright_rgb
from eyeline.media.types import Colour, Frame
from eyeline.saliency.overlay import CONTOUR, HEAT_SIZE, RAMP, OverlayWriter, paint, ramp

SDR = Colour("bt709", "limited", "sdr")
NO_RGB = np.zeros((3, 1, 1), np.uint8)
LUMA = {  # Kr, Kb: ITU-R BT.601-7, BT.709-6, BT.2020-2
    "bt601": (0.299, 0.114),
    "bt709": (0.2126, 0.0722),
    "bt2020": (0.2627, 0.0593),
}
TAGS = {"bt601": 5, "bt709": 1, "bt2020": 9}  # AVColorSpace


def to_yuv(rgb, matrix, color_range, depth=8):
    """Full-range RGB 0..255 to YCbCr codes, in floats."""
    kr, kb = LUMA[matrix]
    r, g, b = (c / 255 for c in rgb)
    y = kr * r + (1 - kr - kb) * g + kb * b
    cb, cr = (b - y) / 2 / (1 - kb), (r - y) / 2 / (1 - kr)
    unit, middle = 1 << (depth - 8), 1 << (depth - 1)
    if color_range == "limited":
        return unit * (16 + 219 * y), middle + unit * 224 * cb, middle + unit * 224 * cr
    top = (1 << depth) - 1
    return top * y, middle + top * cb, middle + top * cr


def to_rgb(y, cb, cr):
    """BT.709 limited codes to full-range RGB, in floats."""
    kr, kb = LUMA["bt709"]
    y, cb, cr = (y - 16) / 219, (cb - 128) / 224, (cr - 128) / 224
    r, b = y + 2 * (1 - kr) * cr, y + 2 * (1 - kb) * cb
    return 255 * np.array([r, (y - kr * r - kb * b) / (1 - kr - kb), b])


def planes_of(frame):
    return [
        np.frombuffer(p, np.uint8).reshape(p.height, p.line_size)[:, : p.width].astype(float)
        for p in frame.planes
    ]


def rgb_at(frame, x, y):
    luma, cb, cr = planes_of(frame)
    return to_rgb(luma[y, x], cb[y // 2, x // 2], cr[y // 2, x // 2])


def picture(colours, width=64, height=48, matrix="bt709", color_range="limited", fmt="yuv420p"):
    """Four quadrants: top left, top right, bottom left, bottom right."""
    frame = av.VideoFrame(width, height, fmt)
    depth = 10 if "10" in fmt else 8
    dtype = np.uint8 if depth == 8 else np.uint16
    codes = [to_yuv(c, matrix, color_range, depth) for c in colours]
    for i, plane in enumerate(frame.planes):
        stride = plane.line_size // dtype().itemsize
        block = np.zeros((plane.height, stride), dtype)
        h, w = plane.height // 2, plane.width // 2
        for code, rows, columns in zip(
            codes,
            (slice(0, h), slice(0, h), slice(h, None), slice(h, None)),
            (slice(0, w), slice(w, None), slice(0, w), slice(w, None)),
            strict=True,
        ):
            block[rows, columns] = round(code[i])
        plane.update(block.tobytes())
    return frame


def solid(rgb, *args, **kwargs):
    return picture([rgb] * 4, *args, **kwargs)


def frame_of(source, display=None, rotation=0, index=0, time=0.0):
    display = display or (source.width, source.height)
    return Frame(index, time, NO_RGB, 0.0, display, source, rotation)


def overlay(path, frames, colour=SDR, saliency=None):
    saliency = np.zeros((9, 16), np.float32) if saliency is None else saliency
    with OverlayWriter(path, *frames[0].display_size, 25) as writer:
        for frame in frames:
            writer.write(frame, colour, saliency)
    with av.open(str(path)) as container:
        return list(container.decode(video=0))


def dimmed(rgb):
    """What a colour becomes where nobody looks."""
    _, *dark, opacity = RAMP[0]
    return (1 - opacity) * np.array(rgb) + opacity * np.array(dark)


@pytest.mark.parametrize("tagged", [True, False])
@pytest.mark.parametrize("color_range", ["limited", "full"])
@pytest.mark.parametrize("matrix", ["bt601", "bt709", "bt2020"])
def test_colours_survive_from_every_matrix_and_range(tmp_path, matrix, color_range, tagged):
    rgb = (190, 60, 90)
    source = solid(rgb, matrix=matrix, color_range=color_range)
    if tagged:
        source.colorspace = TAGS[matrix]
        source.color_range = 1 if color_range == "limited" else 2
    (frame,) = overlay(tmp_path / "a.mp4", [frame_of(source)], Colour(matrix, color_range, "sdr"))
    assert np.abs(rgb_at(frame, 32, 24) - dimmed(rgb)).max() <= 4


@pytest.mark.parametrize("fmt", ["yuv422p", "yuv444p", "yuv420p10le", "yuvj420p"])
def test_colours_survive_from_other_pixel_formats(tmp_path, fmt):
    rgb, color_range = (60, 190, 120), "full" if fmt == "yuvj420p" else "limited"
    source = solid(rgb, color_range=color_range, fmt=fmt)
    (frame,) = overlay(tmp_path / "a.mp4", [frame_of(source)], Colour("bt709", color_range, "sdr"))
    assert np.abs(rgb_at(frame, 32, 24) - dimmed(rgb)).max() <= 4


def test_colours_survive_from_rgb_and_grey(tmp_path):
    rgb = np.full((48, 64, 3), (60, 90, 200), np.uint8)
    source = av.VideoFrame.from_ndarray(rgb, format="rgb24")
    colour = Colour("bt601", "limited", "sdr")  # says nothing about RGB
    (frame,) = overlay(tmp_path / "a.mp4", [frame_of(source)], colour)
    assert np.abs(rgb_at(frame, 32, 24) - dimmed((60, 90, 200))).max() <= 4
    source = av.VideoFrame.from_ndarray(rgb[..., 2].copy(), format="gray")
    colour = Colour("bt709", "full", "sdr")
    (frame,) = overlay(tmp_path / "b.mp4", [frame_of(source)], colour)
    assert np.abs(rgb_at(frame, 32, 24) - dimmed((200, 200, 200))).max() <= 4


@pytest.mark.parametrize("transfer", ["pq", "hlg"])
def test_hdr_is_shown_as_the_media_package_maps_it(tmp_path, transfer):
    colour = Colour("bt2020", "limited", transfer)
    source = solid((220, 40, 60), matrix="bt2020", fmt="yuv420p10le")
    mapped = upright_rgb(source, colour, 90, (48, 64))[:, 30, 20]
    assert np.abs(mapped.astype(float) - (220, 40, 60)).max() > 15  # not shown raw
    (frame,) = overlay(tmp_path / "a.mp4", [frame_of(source, (48, 64), 90)], colour)
    assert np.abs(rgb_at(frame, 20, 30) - dimmed(mapped)).max() <= 4


@pytest.mark.parametrize(
    ("rotation", "order"),
    # Which quadrant of the source comes to lie top left, top right, bottom left, bottom right.
    [(0, (0, 1, 2, 3)), (90, (2, 0, 3, 1)), (180, (3, 2, 1, 0)), (270, (1, 3, 0, 2))],
)
def test_the_picture_stands_upright(tmp_path, rotation, order):
    colours = [(200, 40, 40), (40, 200, 40), (40, 40, 200), (200, 200, 200)]
    size = (64, 48) if rotation % 180 == 0 else (48, 64)
    source = picture(colours)
    (frame,) = overlay(tmp_path / "a.mp4", [frame_of(source, size, rotation)])
    assert (frame.width, frame.height) == size
    for (x, y), quadrant in zip(((1, 1), (3, 1), (1, 3), (3, 3)), order, strict=True):
        got = rgb_at(frame, size[0] * x // 4, size[1] * y // 4)
        assert np.abs(got - dimmed(colours[quadrant])).max() <= 6


def test_heat_lies_where_the_map_says(tmp_path):
    saliency = np.zeros((48, 64), np.float32)
    saliency[8:20, 40:56] = 1.0
    source = solid((90, 90, 90), 640, 480)
    (frame,) = overlay(tmp_path / "a.mp4", [frame_of(source)], saliency=saliency)
    _, *hot, opacity = RAMP[-1]
    expected = (1 - opacity) * np.array([90, 90, 90]) + opacity * np.array(hot)
    assert np.abs(rgb_at(frame, 480, 140) - expected).max() <= 6
    assert np.abs(rgb_at(frame, 200, 300) - dimmed((90, 90, 90))).max() <= 4


def test_a_line_runs_along_one_half():
    saliency = np.tile(np.linspace(0, 1, 101, dtype=np.float32), (100, 1))
    rgba = paint(saliency, 101, 100)
    line = (rgba == CONTOUR).all(2)
    assert line.sum(1).tolist() == [1] * 100
    assert set(line.argmax(1)) == {50}


def test_a_map_that_fills_the_frame_has_no_line():
    rgba = paint(np.ones((9, 16), np.float32), 64, 36)
    assert not (rgba == CONTOUR).all(2).any()


def test_the_ramp_grows_lighter_all_the_way():
    r, g, b, _ = ramp().view(np.uint8).reshape(256, 4).astype(float).T
    luma = 0.2126 * r + 0.7152 * g + 0.0722 * b
    assert (np.diff(luma) >= -0.5).all()
    assert luma[-1] > 190
    assert luma[0] < 12


def test_the_legend_stands_in_a_large_picture_and_not_in_a_small_one():
    nothing = np.zeros((9, 16), np.float32)
    large, small = paint(nothing, HEAT_SIZE, 360), paint(nothing, 160, 90)
    background = ramp().view(np.uint8).reshape(256, 4)[0]
    changed = (large != background).any(2)
    assert changed[300:, :140].any()
    assert not changed[:300].any()
    assert (small == background).all()


def test_an_odd_size_loses_a_column_and_a_row(tmp_path):
    source = solid((90, 90, 90), 65, 49)
    (frame,) = overlay(tmp_path / "a.mp4", [frame_of(source)])
    assert (frame.width, frame.height) == (64, 48)


def test_pixels_become_square(tmp_path):
    source = solid((90, 90, 90), 64, 48)
    (frame,) = overlay(tmp_path / "a.mp4", [frame_of(source, (86, 48))])
    assert (frame.width, frame.height) == (86, 48)


def test_a_change_of_size_is_fitted_into_the_first(tmp_path):
    grey = (120, 120, 120)
    frames = [
        frame_of(solid(grey, 128, 64)),
        frame_of(solid(grey, 64, 64), index=1, time=0.04),
        frame_of(solid(grey, 256, 128), index=2, time=0.08),
    ]
    out = overlay(tmp_path / "a.mp4", frames)
    assert [(f.width, f.height) for f in out] == [(128, 64)] * 3
    assert np.abs(rgb_at(out[1], 64, 32) - dimmed(grey)).max() <= 4
    assert np.abs(rgb_at(out[1], 10, 32)).max() <= 4  # black beside the square picture
    assert np.abs(rgb_at(out[2], 10, 32) - dimmed(grey)).max() <= 4


def test_time_begins_at_the_first_frame_and_keeps_its_steps(tmp_path):
    times = [3600.0, 3600.04, 3600.3]
    source = solid((90, 90, 90))
    out = overlay(
        tmp_path / "a.mp4", [frame_of(source, index=i, time=t) for i, t in enumerate(times)]
    )
    assert [f.time for f in out] == pytest.approx([0, 0.04, 0.3], abs=1e-4)


def test_the_source_frame_is_left_as_it_was(tmp_path):
    source = solid((90, 120, 90))
    source.pts = 1234
    before = [bytes(plane) for plane in source.planes]
    overlay(tmp_path / "a.mp4", [frame_of(source)], saliency=np.ones((9, 16), np.float32))
    assert source.pts == 1234
    assert [bytes(plane) for plane in source.planes] == before


def test_a_frame_without_its_source_is_a_mistake_of_the_caller(tmp_path):
    with (
        pytest.raises(ValueError, match="keep_source"),
        OverlayWriter(tmp_path / "a.mp4", 64, 48) as w,
    ):
        w.write(Frame(0, 0.0, NO_RGB, 0.0, (64, 48)), SDR, np.zeros((9, 16), np.float32))
    assert list(tmp_path.iterdir()) == []


def test_another_suffix_is_refused(tmp_path):
    with pytest.raises(OutputError, match=r"as \.gif"):
        OverlayWriter(tmp_path / "a.gif", 64, 48)


def test_a_real_clip_plays_with_every_frame(tmp_path, shared_data):
    frames = []
    with av.open(str(shared_data / "video" / "bikes.mp4")) as container:
        for index, source in enumerate(container.decode(video=0)):
            frames.append(frame_of(source, index=index, time=source.time))
            if index == 11:
                break
    out = overlay(tmp_path / "a.mp4", frames)
    assert len(out) == 12
    steps = np.diff([f.time for f in out])
    assert steps == pytest.approx(np.diff([f.pts_time for f in frames]), abs=1e-4)
