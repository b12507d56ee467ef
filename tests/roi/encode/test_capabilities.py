"""Every row of the capability table, held to the encoder itself."""

from pathlib import Path

import numpy as np
import pytest
from witness import exact, noise_clip, packets, square

from eyeline.errors import EncoderError, OutputError
from eyeline.roi.encode import EncodeOptions, encode
from eyeline.roi.encode._encoder import Settings, capability, check_obeyed, check_options, encoders

SIDE = [name for name, row in encoders().items() if row.route == "sidedata"]


def test_every_refusal_has_its_reason() -> None:
    for row in encoders().values():
        assert set(row.refused) == set(row.reason)


@pytest.mark.parametrize(
    ("codec", "options"),
    [
        ("x264", {"preset": "ultrafast"}),
        ("x264", {"tune": "psnr", "crf": "28"}),
        ("x264", {"aq-mode": "0"}),
        ("x264", {"x264-params": "aq-mode=0"}),
        ("x264", {"qp": "28"}),
        ("x265", {"preset": "ultrafast", "x265-params": "log-level=error"}),
        ("x265", {"preset": "superfast", "x265-params": "log-level=error"}),
        ("x265", {"tune": "grain", "x265-params": "log-level=error"}),
        ("x265", {"x265-params": "aq-mode=0:log-level=error"}),
        ("x265", {"x265-params": "qp=28:log-level=error"}),
        ("vp9", {"deadline": "good", "aq-mode": "0", "lag-in-frames": "0"}),
    ],
)
def test_what_is_refused_is_really_ignored(codec: str, options: dict[str, str]) -> None:
    row = capability(codec)
    with pytest.raises(EncoderError):
        check_options(row, options)
    with pytest.raises(EncoderError, match="ignores regions"):
        check_obeyed(row, Settings(options), "yuv420p")


@pytest.mark.parametrize(
    ("codec", "preset"),
    [(c, p) for c in SIDE for p in encoders()[c].presets if p not in ("placebo", "veryslow")],
)
def test_every_preset_obeys(codec: str, preset: str) -> None:
    row = capability(codec)
    options = row.fixed | {row.preset_option: preset}
    if row.parameters:
        options[row.parameters] = ":".join(f"{k}={v}" for k, v in row.fixed_parameters.items())
    check_obeyed(row, Settings(options), "yuv420p")


@pytest.mark.parametrize(
    ("codec", "pix_fmt"),
    [(c, f) for c in SIDE for f in encoders()[c].formats if not f.startswith("yuvj")],
)
def test_every_format_obeys(codec: str, pix_fmt: str) -> None:
    row = capability(codec)
    options = dict(row.fixed)
    if row.default_preset:
        options[row.preset_option] = row.default_preset
    check_obeyed(row, Settings(options), pix_fmt)


@pytest.mark.parametrize("codec", ["libsvtav1", "libaom-av1", "librav1e", "libvvenc"])
def test_encoders_that_ignore_regions_are_refused(codec: str) -> None:
    with pytest.raises(EncoderError, match="ignores regions"):
        EncodeOptions(codec).checked()


def test_svtav1_through_ffmpeg_does_ignore_them() -> None:
    row = capability("x264").model_copy(update={"library": "libsvtav1", "parameters": None})
    with pytest.raises(EncoderError, match="ignores regions"):
        check_obeyed(row, Settings({"preset": "10", "svtav1-params": "lp=1"}), "yuv420p")


def test_an_unknown_encoder_is_refused() -> None:
    with pytest.raises(EncoderError, match="not an encoder"):
        EncodeOptions("h266").checked()


def test_an_encoder_missing_from_the_build_is_named() -> None:
    row = capability("x264").model_copy(update={"library": "libnothing"})
    with pytest.raises(EncoderError, match="does not have this encoder"):
        check_obeyed(row, Settings(), "yuv420p")


def test_a_container_that_can_not_hold_the_stream(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="webm"):
        encode(noise_clip(tmp_path / "in.mkv"), tmp_path / "out.webm")


def test_vp9_keeps_no_region_of_the_frame_before(tmp_path: Path) -> None:
    clip, out = noise_clip(tmp_path / "in.mkv"), tmp_path / "out.mkv"
    sizes = []
    flat = np.full(square().shape, 0.5, np.float32)
    for maps in ([square()] * 6, [square()] * 2 + [flat] * 4):
        encode(clip, out, EncodeOptions("vp9", crf=30, steer=exact(8)), maps)
        sizes.append([len(p) for p in packets(out).values()])
    assert sizes[0][:2] == sizes[1][:2]
    assert sizes[0][2:] != sizes[1][2:]
