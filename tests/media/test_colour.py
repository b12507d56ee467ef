"""YUV to RGB against a float computation of its own: ITU-R BT.601, BT.709, BT.2020 and BT.2100."""

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clips import flat, half, picture, planes_of, put_planes, read_all, whole, write_clip
from eyeline.errors import MediaError, UsageError
from eyeline.media import open_video, upright_rgb
from eyeline.media.colour import ColourTags, read_colour
from eyeline.media.types import Colour, VideoOptions

KR_KB = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722), "bt2020": (0.2627, 0.0593)}
PATCHES = [(255, 255, 255), (0, 0, 0), (128, 128, 128), (255, 0, 0), (0, 255, 0), (0, 0, 255)]
PATCHES += [(224, 172, 140), (12, 60, 200), (3, 3, 9)]


def forward(matrix):
    """R'G'B' to Y'CbCr, by the definition of the signals."""
    kr, kb = KR_KB[matrix]
    y = np.array([kr, 1 - kr - kb, kb])
    return np.stack([y, (np.eye(3)[2] - y) / (2 * (1 - kb)), (np.eye(3)[0] - y) / (2 * (1 - kr))])


def scales(color_range, bits):
    """Quantisation of BT.2100-2, table 9: factor and offset of Y', Cb, Cr."""
    if color_range == "full":
        top = 2**bits - 1
        return np.array([top, top, top]), np.array([0, 2 ** (bits - 1), 2 ** (bits - 1)])
    unit = 2 ** (bits - 8)
    return np.array([219, 224, 224]) * unit, np.array([16, 128, 128]) * unit


def to_codes(rgb, matrix, color_range, bits):
    gain, offset = scales(color_range, bits)
    codes = forward(matrix) @ (np.array(rgb) / 255) * gain + offset
    return np.clip(np.round(codes), 0, 2**bits - 1).astype(int).tolist()


def to_rgb(codes, matrix, color_range, bits):
    """Codes to 0..255, in floats, clipped."""
    gain, offset = scales(color_range, bits)
    signal = (np.array(codes) - offset) / gain @ np.linalg.inv(forward(matrix)).T
    return np.clip(signal, 0, 1) * 255


def error(rgb, expected):
    """Largest difference of any pixel, in codes; rgb is uint8 (3, h, w)."""
    return np.abs(rgb.astype(float) - np.array(expected)[:, None, None]).max()


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
@pytest.mark.parametrize("sampling", ["420", "422", "444"])
@pytest.mark.parametrize("color_range", ["limited", "full"])
@pytest.mark.parametrize("matrix", ["bt601", "bt709", "bt2020"])
def test_raw_yuv_of_every_kind_becomes_the_right_rgb(tmp_path, matrix, color_range, sampling, bits):
    pix_fmt = f"yuv{sampling}p" + ("" if bits == 8 else f"{bits}le")
    codes = [to_codes(rgb, matrix, color_range, bits) for rgb in PATCHES]
    path = tmp_path / "patches.yuv"
    path.write_bytes(b"".join(planes_of(flat(pix_fmt, c, (46, 32))) for c in codes))
    options = VideoOptions(46, 32, pix_fmt, matrix=matrix, color_range=color_range)
    frames = read_all(path, options)
    assert len(frames) == len(PATCHES)
    for frame, code in zip(frames, codes, strict=True):
        assert error(frame.rgb, to_rgb(code, matrix, color_range, bits)) <= 0.51  # rounded right


@given(
    matrix=st.sampled_from(sorted(KR_KB)),
    color_range=st.sampled_from(["limited", "full"]),
    bits=st.sampled_from([8, 10, 12]),
    part=st.tuples(*[st.floats(0, 1)] * 3),
    size=st.sampled_from([(1, 1), (7, 5), (16, 10), (31, 33)]),
)
@settings(max_examples=60)
def test_any_code_becomes_the_right_rgb(matrix, color_range, bits, part, size):
    """Also far outside of RGB, where 8-bit output of swscale would wrap around."""
    codes = [round(p * (2**bits - 1)) for p in part]
    frame = flat("yuv420p" if bits == 8 else f"yuv420p{bits}le", codes, (16, 10))
    rgb = upright_rgb(frame, Colour(matrix, color_range, "sdr"), 0, size)
    assert rgb.shape == (3, size[1], size[0])
    assert error(rgb, to_rgb(codes, matrix, color_range, bits)) <= 1


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
@pytest.mark.parametrize("color_range", ["limited", "full"])
@pytest.mark.parametrize("matrix", ["bt601", "bt709", "bt2020"])
def test_thousands_of_codes(matrix, color_range, bits):
    """Every pixel a colour of its own, in and out of RGB: at most 0.03 from perfect rounding."""
    codes = np.random.default_rng(bits).integers(0, 2**bits, (3, 120, 160))
    frame = put_planes("yuv444p" if bits == 8 else f"yuv444p{bits}le", (160, 120), codes)
    rgb = upright_rgb(frame, Colour(matrix, color_range, "sdr"), 0, (160, 120))
    expected = to_rgb(codes.reshape(3, -1).T, matrix, color_range, bits).T
    assert np.abs(rgb.reshape(3, -1) - expected).max() <= 0.53


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
@pytest.mark.parametrize("color_range", ["limited", "full"])
def test_grey_of_either_range(color_range, bits):
    pix_fmt = "gray" if bits == 8 else f"gray{bits}le"
    gain, offset = scales(color_range, bits)
    for level in (0, 1, 77, 128, 254, 255):
        code = round(level / 255 * gain[0] + offset[0])
        expected = np.clip((code - offset[0]) / gain[0], 0, 1) * 255
        rgb = upright_rgb(flat(pix_fmt, [code]), Colour("bt709", color_range, "sdr"), 0, (24, 16))
        assert error(rgb, [expected] * 3) <= 0.51


@pytest.mark.parametrize("pix_fmt", ["rgb24", "bgr0", "gbrp", "gbrp10le", "rgb48le", "rgba"])
def test_rgb_stays_as_it_is(pix_fmt):
    for patch in PATCHES:
        frame = picture(np.full((32, 48, 3), patch, np.uint8)).reformat(format=pix_fmt)
        colour = read_colour(frame, VideoOptions(), "a")
        assert colour.color_range == "full"
        assert error(upright_rgb(frame, colour, 0, (24, 16)), patch) <= 1


@pytest.mark.parametrize(
    ("pix_fmt", "codes"), [("yuva420p", (90, 100, 180, 0)), ("yuva444p10le", (360, 400, 720, 7))]
)
def test_alpha_is_left_out(pix_fmt, codes):
    bits = 10 if "10" in pix_fmt else 8
    rgb = upright_rgb(flat(pix_fmt, codes), Colour("bt709", "limited", "sdr"), 0, (24, 16))
    assert error(rgb, to_rgb(codes[:3], "bt709", "limited", bits)) <= 0.51


@pytest.mark.parametrize(("pix_fmt", "alpha"), [("rgba", 0), ("bgra", 30), ("ya8", 0)])
def test_packed_alpha_is_left_out(pix_fmt, alpha):
    sample = {"rgba": (200, 60, 90, alpha), "bgra": (90, 60, 200, alpha), "ya8": (90, alpha)}
    frame = av.VideoFrame(48, 32, pix_fmt)
    plane = frame.planes[0]
    size = plane.buffer_size // len(sample[pix_fmt])
    plane.update(np.tile(np.array(sample[pix_fmt], np.uint8), size).tobytes())
    rgb = upright_rgb(frame, Colour("bt709", "full", "sdr"), 0, (24, 16))
    assert error(rgb, (90, 90, 90) if pix_fmt == "ya8" else (200, 60, 90)) <= 0.51


def packed(pix_fmt, y, cb, cr):
    """A flat 48x32 frame of an interleaved 4:2:2 or 4:2:0 format, byte by byte."""
    frame = av.VideoFrame(48, 32, pix_fmt)
    order = {"yuyv422": (y, cb, y, cr), "uyvy422": (cb, y, cr, y)}
    halves = {"nv12": (cb, cr), "nv21": (cr, cb), "p010le": (cb << 6, cr << 6)}
    if pix_fmt in order:
        pattern = [order[pix_fmt]]
    else:
        pattern = [[y << 6 if pix_fmt == "p010le" else y], halves[pix_fmt]]
    dtype = "<u2" if pix_fmt == "p010le" else "u1"
    for plane, samples in zip(frame.planes, pattern, strict=True):
        unit = np.array(samples, dtype)
        plane.update(np.tile(unit, plane.buffer_size // unit.nbytes).tobytes())
    return frame


@pytest.mark.parametrize("pix_fmt", ["yuyv422", "uyvy422", "nv12", "nv21", "p010le"])
@pytest.mark.parametrize("color_range", ["limited", "full"])
@pytest.mark.parametrize("matrix", ["bt601", "bt709", "bt2020"])
def test_interleaved_formats(pix_fmt, color_range, matrix):
    bits = 10 if pix_fmt == "p010le" else 8
    for patch in PATCHES:
        codes = to_codes(patch, matrix, color_range, bits)
        rgb = upright_rgb(packed(pix_fmt, *codes), Colour(matrix, color_range, "sdr"), 0, (24, 16))
        assert error(rgb, to_rgb(codes, matrix, color_range, bits)) <= 0.51


def test_a_palette():
    frame = av.VideoFrame(48, 32, "pal8")
    frame.planes[0].update(np.full(frame.planes[0].buffer_size, 7, np.uint8).tobytes())
    palette = np.zeros((256, 4), np.uint8)
    palette[7] = (90, 60, 200, 255)  # B, G, R, A
    frame.planes[1].update(palette.tobytes())
    colour = read_colour(frame, VideoOptions(), "a")
    assert (colour.color_range, colour.assumed) == ("full", ())
    assert error(upright_rgb(frame, colour, 0, (24, 16)), (200, 60, 90)) <= 1


@pytest.mark.parametrize(("pix_fmt", "value"), [("monob", 255), ("monow", 0)])
def test_one_bit_a_pixel(pix_fmt, value):
    """Bits of 1 are white in `monob`, black in `monow`."""
    frame = av.VideoFrame(48, 32, pix_fmt)
    plane = frame.planes[0]
    half_lit = np.zeros((32, plane.line_size), np.uint8)
    half_lit[16:] = 255
    plane.update(half_lit.tobytes())
    colour = read_colour(frame, VideoOptions(), "a")
    assert colour.color_range == "full"
    rgb = upright_rgb(frame, colour, 0, (48, 32))
    assert error(rgb[:, 16:], [value] * 3) == 0
    assert error(rgb[:, :16], [255 - value] * 3) == 0


def test_a_range_given_for_rgb_is_obeyed():
    frame = picture(np.full((32, 48, 3), (235, 16, 126), np.uint8))
    colour = read_colour(frame, VideoOptions(color_range="limited"), "a")
    assert error(upright_rgb(frame, colour, 0, (24, 16)), (255, 0, 110 * 255 / 219)) <= 0.51


def test_planes_come_as_r_g_b_without_the_padding_of_rows():
    rgb = np.random.default_rng(1).integers(0, 256, (31, 47, 3), np.uint8)
    out = upright_rgb(picture(rgb), Colour("bt709", "full", "sdr"), 0, (47, 31))
    assert np.array_equal(out, rgb.transpose(2, 0, 1))


def decode_tags(path, **options):
    with open_video(path, VideoOptions(**options)) as video:
        return video.info.colour


TAGGED = [(1, "bt709"), (5, "bt601"), (6, "bt601"), (9, "bt2020")]


@pytest.mark.parametrize(("tag", "matrix"), TAGGED)
@pytest.mark.parametrize(("code", "color_range"), [(1, "limited"), (2, "full")])
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_tags_of_the_stream_count(tmp_path, name, tag, matrix, code, color_range):
    tags = {"colorspace": tag, "color_range": code}
    codes = to_codes((200, 60, 90), matrix, color_range, 8)
    frames = [flat("yuv420p", codes) for _ in range(2)]
    path = write_clip(tmp_path / name, frames, tags=tags, codec_options={"qp": "0"})
    assert decode_tags(path) == Colour(matrix, color_range, "sdr", ())
    assert error(read_all(path)[0].rgb, to_rgb(codes, matrix, color_range, 8)) <= 1


@pytest.mark.parametrize(
    ("codec", "pix_fmt"),
    [
        ("libx264", "yuv420p10le"),
        ("libx264", "yuv444p10le"),
        ("ffv1", "yuv422p10le"),
        ("ffv1", "yuv420p12le"),
        ("ffv1", "yuv444p12le"),
        ("ffv1", "yuv420p16le"),
        ("ffv1", "yuv444p16le"),
        ("libx265", "yuv422p12le"),
    ],
)
@pytest.mark.parametrize(("tag", "matrix"), [(1, "bt709"), (6, "bt601"), (9, "bt2020")])
def test_tags_count_at_every_depth(tmp_path, codec, pix_fmt, tag, matrix):
    bits = int(pix_fmt[7:-2])
    color_range = "full" if tag == 1 else "limited"
    tags = {"colorspace": tag, "color_range": 2 if tag == 1 else 1}
    lossless = {"libx264": {"qp": "0"}, "libx265": {"x265-params": "lossless=1:log-level=0"}}
    codes = to_codes((200, 60, 90), matrix, color_range, bits)
    path = write_clip(
        tmp_path / "a.mkv",
        [flat(pix_fmt, codes, (64, 64))] * 2,
        codec,
        pix_fmt=pix_fmt,
        tags=tags,
        codec_options=lossless.get(codec, {}),
    )
    assert decode_tags(path) == Colour(matrix, color_range, "sdr", ())
    assert error(read_all(path)[0].rgb, to_rgb(codes, matrix, color_range, bits)) <= 0.51


@pytest.mark.parametrize(("lines", "matrix"), [(718, "bt601"), (720, "bt709")])
def test_an_untagged_stream_gets_the_stated_default(tmp_path, lines, matrix):
    path = write_clip(tmp_path / "a.mp4", [flat("yuv420p", (90, 100, 180), (32, lines))])
    assert decode_tags(path) == Colour(matrix, "limited", "sdr", ("matrix", "color_range"))


def test_the_default_goes_by_upright_lines(tmp_path):
    path = write_clip(tmp_path / "a.mp4", [flat("yuv420p", (9, 9, 9), (720, 32))], rotation=90)
    assert decode_tags(path).matrix == "bt709"


def test_options_override_tags(tmp_path):
    tags = {"colorspace": 1, "color_range": 1}
    path = write_clip(tmp_path / "a.mp4", [flat("yuv420p", (90, 100, 180))], tags=tags)
    colour = decode_tags(path, matrix="bt2020", color_range="full")
    assert colour == Colour("bt2020", "full", "sdr", ())


def test_a_container_tag_counts_where_the_codec_has_none():
    frame = flat("yuv420p", (90, 100, 180))
    colour = read_colour(
        frame, VideoOptions(), "a", ColourTags(matrix=9, transfer=16, color_range=2)
    )
    assert colour == Colour("bt2020", "full", "pq", ())


@pytest.mark.parametrize(
    ("tag", "name"), [(8, "YCgCo"), (10, "constant luminance"), (14, "ICtCp"), (7, "240M")]
)
def test_a_matrix_that_is_not_supported_is_named(tag, name):
    frame = flat("yuv420p", (90, 100, 180))
    frame.colorspace = tag
    with pytest.raises(MediaError, match=name):
        read_colour(frame, VideoOptions(), "a")
    assert read_colour(frame, VideoOptions(matrix="bt709"), "a").matrix == "bt709"


def test_constant_luminance_in_a_file_is_refused(tmp_path):
    frames = [flat("yuv420p", (90, 100, 180))]
    path = write_clip(tmp_path / "a.mkv", frames, tags={"colorspace": 10})
    with pytest.raises(MediaError, match=r"BT\.2020 constant luminance"):
        open_video(path)


def test_a_matrix_for_rgb_is_refused(tmp_path):
    path = write_clip(tmp_path / "a.mkv", [np.zeros((32, 48, 3), np.uint8)], "ffv1", pix_fmt="bgr0")
    with pytest.raises(UsageError, match="no YUV matrix"):
        open_video(path, VideoOptions(matrix="bt709"))


@pytest.mark.parametrize("pix_fmt", ["gbrpf32le", "grayf32le", "xyz12le"])
def test_scene_light_is_refused(pix_fmt):
    with pytest.raises(MediaError, match=pix_fmt):
        read_colour(av.VideoFrame(16, 16, pix_fmt), VideoOptions(), "a")


def test_yuvj_is_full_range(tmp_path):
    frames = [flat("yuvj420p", to_codes((200, 60, 90), "bt601", "full", 8))]
    path = write_clip(tmp_path / "a.mkv", frames, "mjpeg", pix_fmt="yuvj420p")
    assert decode_tags(path).color_range == "full"
    assert error(read_all(path)[0].rgb, (200, 60, 90)) <= 3  # a lossy codec


@pytest.mark.parametrize("plan", [half, whole])
@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv422p10le", "yuv444p12le", "gray", "gbrp10le"])
def test_odd_sizes(tmp_path, pix_fmt, plan):
    bits = av.VideoFormat(pix_fmt).components[0].bits
    codes = [100 << (bits - 8)] * len(av.VideoFormat(pix_fmt).components)
    path = write_clip(tmp_path / "a.mkv", [flat(pix_fmt, codes, (47, 31))], "ffv1", pix_fmt=pix_fmt)
    (frame,) = read_all(path, plan=plan)
    assert frame.display_size == (47, 31)
    assert frame.rgb.shape == (3, *plan(31, 47))
    assert np.ptp(frame.rgb, axis=(1, 2)).max() == 0  # no padding, no border
