"""HDR is mapped to SDR or refused, never shown raw. Anchors: ITU-R BT.2100, BT.2408, ST 2084."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clips import flat, half, put_planes, read_all, whole, write_clip
from eyeline.errors import MediaError
from eyeline.media import open_video
from eyeline.media.colour import (
    BT2020_TO_BT709,
    compress,
    hlg_to_scene,
    linear_to_pq,
    pq_to_linear,
    to_sdr,
)
from eyeline.media.types import Colour, VideoOptions

PQ, HLG, BT2020 = 16, 18, 9


def grey(signal, transfer):
    """SDR code of a grey of this HDR signal, 0..1."""
    planes = np.full((3, 2, 2), round(signal * 65535), np.uint16)
    rgb = to_sdr(planes, transfer)
    assert np.ptp(rgb) == 0  # grey stays grey
    return int(rgb[0, 0, 0])


@pytest.mark.parametrize(
    ("signal", "light"),
    # Published pairs: ST 2084's ends, and BT.2408-7 table 1 (58 % PQ is 203 cd/m2, 38 % is 26).
    [(0, 0), (1, 10000), (0.58, 203), (0.38, 26), (0.7518, 1000), (0.508, 100)],
)
def test_pq_curve(signal, light):
    assert pq_to_linear(np.array([signal]))[0] == pytest.approx(light, rel=0.02)


@given(st.floats(0, 10000))
def test_pq_and_back(light):
    assert pq_to_linear(linear_to_pq(np.array([light])))[0] == pytest.approx(light, abs=1e-6)


@pytest.mark.parametrize(("signal", "light"), [(0, 0), (0.5, 1 / 12), (1, 1), (0.75, 0.265)])
def test_hlg_curve(signal, light):
    assert hlg_to_scene(np.array([signal]))[0] == pytest.approx(light, abs=1e-3)


def test_the_tone_curve_is_straight_below_its_knee_and_ends_at_the_peak():
    dark = np.array([0.0, 1.0, 26.0, 80.0])
    assert compress(dark) == pytest.approx(dark / 203)
    assert compress(np.array([1000.0, 4000.0])) == pytest.approx([1, 1])


@pytest.mark.parametrize("transfer", ["pq", "hlg"])
def test_black_grey_white_and_peak(transfer):
    mid, white, peak = (0.38, 0.58, 0.7518) if transfer == "pq" else (0.38, 0.75, 1.0)
    assert grey(0, transfer) == 0
    assert 90 <= grey(mid, transfer) <= 118  # 18 % grey: 118 in SDR, HDR is graded darker
    assert 220 <= grey(white, transfer) <= 240  # diffuse white leaves room for highlights
    assert grey(peak, transfer) == 255


@pytest.mark.parametrize("transfer", ["pq", "hlg"])
def test_brighter_never_gets_darker(transfer):
    ramp = np.broadcast_to(np.arange(65536, dtype=np.uint16).reshape(256, 256), (3, 256, 256))
    steps = np.diff(to_sdr(ramp, transfer)[1].ravel().astype(int))
    assert steps.min() == 0
    assert steps.max() == 1


def exact(planes, transfer):
    """SDR codes of 16-bit R'G'B', in float64 and without tables: the formulas of `hdr`'s docstring."""
    signal = planes / 65535
    if transfer == "pq":
        m1, m2, c1, c2, c3 = 0.1593017578125, 78.84375, 0.8359375, 18.8515625, 18.6875
        p = signal ** (1 / m2)
        light = np.minimum(1e4 * (np.maximum(p - c1, 0) / (c2 - c3 * p)) ** (1 / m1), 1000)
    else:
        a, b = 0.17883277, 1 - 4 * 0.17883277
        c = 0.5 - a * np.log(4 * a)
        scene = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)
        light = 1000 * scene * np.tensordot([0.2627, 0.678, 0.0593], scene, 1) ** 0.2
    brightest = np.maximum(light.max(0), 1e-9)
    light = light * compress(brightest) / brightest
    x = np.clip(np.tensordot(BT2020_TO_BT709.astype(float), light, 1), 0, 1)
    return 255 * np.where(x <= 0.0031308, 12.92 * x, 1.055 * x ** (1 / 2.4) - 0.055)


@pytest.mark.parametrize("transfer", ["pq", "hlg"])
@pytest.mark.parametrize("top", [65535, 9000, 600])
def test_tables_are_as_good_as_the_formulas(transfer, top):
    planes = np.random.default_rng(top).integers(0, top + 1, (3, 150, 150)).astype(np.uint16)
    assert np.abs(to_sdr(planes, transfer) - exact(planes, transfer)).max() <= 0.55


def test_the_primaries_are_changed():
    """A BT.709 red, coded in BT.2020 by BT.2087's matrix, is BT.709's red again."""
    light = 80 * np.array([0.6274, 0.0691, 0.0164])  # cd/m2, under the knee
    planes = np.round(linear_to_pq(light) * 65535).astype(np.uint16).reshape(3, 1, 1)
    red, green, blue = to_sdr(planes, "pq")[:, 0, 0].astype(int)
    assert red == pytest.approx(255 * (1.055 * (80 / 203) ** (1 / 2.4) - 0.055), abs=2)
    assert max(green, blue) <= 8


@pytest.mark.parametrize("pix_fmt", ["yuv420p10le", "yuv422p10le", "yuv444p12le"])
@pytest.mark.parametrize(("tag", "transfer"), [(PQ, "pq"), (HLG, "hlg")])
@pytest.mark.parametrize("plan", [half, whole])
def test_an_hdr_file_is_recognised_and_mapped(tmp_path, pix_fmt, tag, transfer, plan):
    unit = 16 if "12" in pix_fmt else 4
    signal = 0.58 if transfer == "pq" else 0.75  # diffuse white
    codes = [round((16 + 219 * signal) * unit), 128 * unit, 128 * unit]
    path = write_clip(
        tmp_path / "a.mkv",
        [flat(pix_fmt, codes)] * 2,
        "ffv1",
        pix_fmt=pix_fmt,
        tags={"color_trc": tag, "colorspace": BT2020, "color_primaries": 9, "color_range": 1},
    )
    with open_video(path) as video:
        assert video.info.colour.transfer == transfer
        assert video.info.colour.matrix == "bt2020"
        frame = next(video.frames(plan))
    assert np.ptp(frame.rgb, axis=(1, 2)).max() == 0
    assert frame.rgb[:, 0, 0] == pytest.approx([grey(signal, transfer)] * 3, abs=1)
    assert frame.rgb[0, 0, 0] > 255 * signal + 20  # raw it would look grey


@pytest.mark.parametrize("codec", ["libx264"])
@pytest.mark.parametrize(("tag", "transfer"), [(PQ, "pq"), (HLG, "hlg")])
def test_a_delivered_hdr_clip(tmp_path, codec, tag, transfer):
    """10-bit H.264 in MP4: a grey ramp stays grey, in order, from black to white."""
    ramp = np.broadcast_to(64 + 876 * np.linspace(0, 1, 128), (64, 128))
    quiet = {"x265-params": "log-level=0"} if codec == "libx265" else {}
    path = write_clip(
        tmp_path / "a.mp4",
        [put_planes("yuv420p10le", (128, 64), [ramp, 512, 512])] * 2,
        codec,
        pix_fmt="yuv420p10le",
        tags={"color_trc": tag, "colorspace": BT2020, "color_primaries": 9, "color_range": 1},
        codec_options={"crf": "1", **quiet},
    )
    with open_video(path) as video:
        assert video.info.colour == Colour("bt2020", "limited", transfer)
        rgb = next(video.frames(whole)).rgb.astype(int)
    assert np.abs(rgb - rgb[1]).max() <= 2  # grey
    row = rgb[1].mean(0)
    assert row[0] <= 2 and row[-1] >= 253
    assert np.diff(row).min() >= -0.5


@pytest.mark.parametrize(("tag", "name"), [(PQ, "PQ"), (HLG, "HLG")])
def test_hdr_is_refused_on_demand(tmp_path, tag, name):
    path = write_clip(
        tmp_path / "a.mp4",
        [flat("yuv420p10le", (600, 512, 512))] * 2,
        pix_fmt="yuv420p10le",
        tags={"color_trc": tag, "colorspace": BT2020},
    )
    with pytest.raises(MediaError, match=f"HDR video \\({name}\\)"):
        open_video(path, VideoOptions(hdr="refuse"))
    assert len(read_all(path)) == 2


@pytest.mark.parametrize("size", [(1, 1), (3, 70), (341, 192), (20000, 2)])
def test_every_pixel_is_mapped_whatever_the_size(size):
    """A picture is worked on in blocks of rows."""
    w, h = size
    ramp = np.linspace(0, 65535, w * h).round().astype(np.uint16).reshape(h, w)
    planes = np.broadcast_to(ramp, (3, h, w))
    assert np.abs(to_sdr(planes, "pq") - exact(planes, "pq")).max() <= 0.55
