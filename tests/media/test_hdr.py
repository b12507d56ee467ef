"""HDR is mapped to SDR or refused, never shown raw. Anchors: ITU-R BT.2100, BT.2408, ST 2084."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clips import flat, half, read_all, whole, write_clip
from eyeline.errors import MediaError
from eyeline.media import open_video
from eyeline.media.hdr import compress, hlg_to_scene, linear_to_pq, pq_to_linear, to_sdr
from eyeline.media.types import VideoOptions

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
