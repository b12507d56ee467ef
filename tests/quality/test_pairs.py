"""Which frame is compared with which, and what is refused."""

from pathlib import Path

import numpy as np
import pytest

from clips import put_planes, write_clip
from eyeline.errors import DamagedMediaError, QualityError, UsageError
from eyeline.logs.base import pool
from eyeline.media import open_video
from eyeline.media.types import VideoOptions
from eyeline.quality.pairs import PairOptions
from eyeline.quality.score import ScoreOptions, score
from quality.pair_clips import noisy, textured, write_ffv1

SIZE = (64, 48)


def psnr_y(ref: Path, dist: Path, **pairs) -> list[float]:
    """PSNR of luma a pair, uniform weights."""
    options = ScoreOptions(metrics=("psnr",), weight=0, pairs=PairOptions(**pairs))
    return list(score(ref, dist, options=options).log.values["psnr_y"])


def levels(
    path: Path, codes: list[int], size: tuple[int, int] = SIZE, pix_fmt="yuv420p", **options
) -> Path:
    """Flat frames of these luma codes."""
    grey = 1 << (9 if "10" in pix_fmt else 7)
    frames = [put_planes(pix_fmt, size, (code, grey, grey)) for code in codes]
    return write_clip(path, frames, "ffv1", pix_fmt=pix_fmt, **options)


def db(difference: float, peak: int = 255) -> float:
    return 20 * np.log10(peak / difference) if difference else 60.0


def test_frames_are_paired_by_number(tmp_path: Path) -> None:
    ref, dist = levels(tmp_path / "r.mkv", [50, 60, 70]), levels(tmp_path / "d.mkv", [51, 62, 74])
    assert psnr_y(ref, dist) == pytest.approx([db(1), db(2), db(4)])


def test_offsets_align(tmp_path: Path) -> None:
    ref = levels(tmp_path / "r.mkv", [50, 60, 70, 80])
    dist = levels(tmp_path / "d.mkv", [1, 2, 70, 80])
    assert psnr_y(ref, dist, ref_offset=2, dist_offset=2) == [60, 60]


def test_different_lengths_are_refused_with_both_counts(tmp_path: Path) -> None:
    ref, dist = levels(tmp_path / "r.mkv", [50] * 5), levels(tmp_path / "d.mkv", [50] * 3)
    with pytest.raises(QualityError, match=r"5 frames, .* 3"):
        psnr_y(ref, dist)
    with pytest.raises(QualityError, match=r"3 frames, .* 5"):
        psnr_y(dist, ref)
    assert len(psnr_y(ref, dist, shortest=True)) == 3
    assert len(psnr_y(ref, dist, frames=2)) == 2


def test_different_lengths_that_the_containers_tell_are_refused_at_once(tmp_path: Path) -> None:
    frames = [put_planes("yuv420p", SIZE, (50, 128, 128))] * 6
    ref, dist = write_clip(tmp_path / "r.mp4", frames), write_clip(tmp_path / "d.mp4", frames[:4])
    with open_video(ref) as video:
        assert video.info.frames == 6
    with pytest.raises(QualityError, match=r"6 frames, .* 4"):
        psnr_y(ref, dist)


def test_frame_rates_that_differ_are_refused_or_resampled(tmp_path: Path) -> None:
    ref = levels(tmp_path / "r.mkv", [10, 20, 30, 40], fps=50)
    dist = levels(tmp_path / "d.mkv", [11, 31], fps=25)
    with pytest.raises(QualityError, match=r"--resample|50"):
        psnr_y(ref, dist)
    assert psnr_y(ref, dist, resample=True) == pytest.approx([db(1), db(9), db(1), db(9)])


def test_resampling_past_the_end_needs_shortest(tmp_path: Path) -> None:
    ref = levels(tmp_path / "r.mkv", [10] * 8, fps=50)
    dist = levels(tmp_path / "d.mkv", [10] * 2, fps=25)
    with pytest.raises(QualityError, match="after 4 frames"):
        psnr_y(ref, dist, resample=True)
    assert len(psnr_y(ref, dist, resample=True, shortest=True)) == 4


def test_sizes_that_differ_are_refused_or_scaled(tmp_path: Path) -> None:
    ref, dist = levels(tmp_path / "r.mkv", [50]), levels(tmp_path / "d.mkv", [52], (32, 24))
    with pytest.raises(QualityError, match=r"64x48, .* 32x24"):
        psnr_y(ref, dist)
    for scale, size in (("ref", [64, 48]), ("dist", [32, 24])):
        options = ScoreOptions(metrics=("psnr",), weight=0, pairs=PairOptions(scale=scale))
        log = score(ref, dist, options=options).log
        assert log.values["psnr_y"][0] == pytest.approx(db(2))
        assert log.provenance["compared_size"] == size


def test_crop_compares_the_rectangle(tmp_path: Path) -> None:
    frame, other = textured(1, SIZE)[0], textured(1, SIZE)[0]
    other[0] = other[0].copy()
    other[0][:, 32:] += 9  # right half
    ref, dist = write_ffv1(tmp_path / "r.mkv", [frame]), write_ffv1(tmp_path / "d.mkv", [other])
    assert psnr_y(ref, dist, crop=(32, 48, 0, 0)) == [60]
    assert psnr_y(ref, dist, crop=(32, 48, 32, 0)) == pytest.approx([db(9)])


@pytest.mark.parametrize("crop", [(65, 48, 0, 0), (32, 24, 1, 0), (0, 24, 0, 0), (32, 24, 40, 0)])
def test_a_crop_that_does_not_fit_is_refused(tmp_path: Path, crop) -> None:
    ref = levels(tmp_path / "r.mkv", [50])
    with pytest.raises(UsageError, match="crop"):
        psnr_y(ref, ref, crop=crop)


def test_8_bits_against_10_are_shifted(tmp_path: Path) -> None:
    ref = levels(tmp_path / "r.mkv", [200], pix_fmt="yuv420p10le")
    dist = levels(tmp_path / "d.mkv", [51])  # 51 << 2 = 204
    assert psnr_y(ref, dist) == pytest.approx([db(4, 1023)])


def test_layouts_that_differ_are_refused(tmp_path: Path) -> None:
    ref, dist = (
        levels(tmp_path / "r.mkv", [50]),
        levels(tmp_path / "d.mkv", [50], pix_fmt="yuv444p"),
    )
    with pytest.raises(QualityError, match="differ in chroma format"):
        psnr_y(ref, dist)


def test_semi_planar_samples_are_the_planar_ones(tmp_path: Path) -> None:
    frames = textured(2, SIZE)
    ref = write_ffv1(tmp_path / "r.mkv", frames)
    raw = tmp_path / "d.yuv"
    with raw.open("wb") as f:
        for y, cb, cr in frames:
            f.write(y.astype(np.uint8).tobytes() + np.dstack([cb, cr]).astype(np.uint8).tobytes())
    nv12 = VideoOptions(width=64, height=48, pix_fmt="nv12")
    log = score(ref, raw, dist_options=nv12, options=ScoreOptions(metrics=("psnr",), weight=0)).log
    assert {name: set(v) for name, v in log.values.items() if name.startswith("psnr")} == {
        f"psnr_{p}": {60.0} for p in ("y", "cb", "cr", "611")
    }


def test_hdr_against_sdr_is_refused(tmp_path: Path) -> None:
    pq = {"color_trc": 16, "colorspace": 9, "color_primaries": 9}
    frames = [put_planes("yuv420p10le", SIZE, (500, 512, 512))] * 3
    ref = write_clip(tmp_path / "r.mp4", frames, "libx265", pix_fmt="yuv420p10le", tags=pq,
                     codec_options={"x265-params": "log-level=none:transfer=smpte2084"})  # fmt: skip
    with open_video(ref) as video:
        assert video.info.colour.transfer == "pq"
    dist = levels(tmp_path / "d.mkv", [500] * 3, pix_fmt="yuv420p10le")
    with pytest.raises(QualityError, match=r"PQ, .* SDR"):
        psnr_y(ref, dist)


def test_damage_keeps_the_pairs_before_it(tmp_path: Path) -> None:
    whole = tmp_path / "r.y4m"
    frame = bytes(np.full(64 * 48 * 3 // 2, 90, np.uint8))
    whole.write_bytes(b"YUV4MPEG2 W64 H48 F25:1 C420\n" + (b"FRAME\n" + frame) * 6)
    cut = tmp_path / "d.y4m"
    cut.write_bytes(whole.read_bytes()[: -len(frame) - 100])
    with pytest.raises(QualityError, match=r"6 frames, .* 4"):
        psnr_y(whole, cut)
    options = ScoreOptions(metrics=("psnr",), weight=0, pairs=PairOptions(shortest=True))
    result = score(whole, cut, options=options)
    assert isinstance(result.stopped, DamagedMediaError)
    assert list(result.log.values["psnr_y"]) == [60] * 4
    assert result.log.provenance["complete"] is False


def test_negative_offsets_are_refused() -> None:
    with pytest.raises(UsageError):
        PairOptions(ref_offset=-1)


def test_more_workers_change_no_bit(tmp_path: Path) -> None:
    frames = textured(9, SIZE)
    ref, dist = (
        write_ffv1(tmp_path / "r.mkv", frames),
        write_ffv1(tmp_path / "d.mkv", noisy(frames)),
    )
    runs = [
        score(ref, dist, options=ScoreOptions(metrics=("psnr", "ssim"), workers=n)).log.values
        for n in (1, 3)
    ]
    assert runs[0] == runs[1]
    assert pool(runs[0]["psnr_y"])["mean"] < 60
