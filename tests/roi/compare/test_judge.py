"""Quality inside, outside and whole: parts with known errors, boxes with known places."""

import math
from pathlib import Path

import numpy as np
import pytest

from clips import put_planes, write_clip
from eyeline.errors import QualityError
from eyeline.roi.compare._judge import SMALLEST_BOX, Subject, find_subject, judge
from eyeline.saliency.maps import NpzFile

SIZE = W, H = (256, 192)
BOX = (64, 64, 96, 32)  # w, h, x, y


def square(value: float = 1.0) -> np.ndarray:
    m = np.zeros((H, W), np.float32)
    w, h, x, y = BOX
    m[y : y + h, x : x + w] = value
    return m


def keep(path: Path, maps: list[np.ndarray], first: int = 0) -> Path:
    with NpzFile(path) as sink:
        for i, m in enumerate(maps, first):
            sink.write(i, i / 25, m)
    return path


def clip(path: Path, lumas: list[np.ndarray]) -> Path:
    """Lossless, so that errors are exactly those put in."""
    frames = [put_planes("yuv420p", SIZE, (y, 128, 128)) for y in lumas]
    return write_clip(path, frames, "ffv1", pix_fmt="yuv420p")


def psnr(mse: float) -> float:
    return 10 * math.log10(255 * 255 / mse)


GREY = np.full((H, W), 100.0)


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path, Path]:
    """3 frames with an error of 2 inside the square and of 5 outside."""
    source = clip(tmp_path / "source.mkv", [GREY] * 3)
    coded = clip(tmp_path / "coded.mkv", [GREY + np.where(square() > 0, 2, -5)] * 3)
    return source, coded, keep(tmp_path / "maps.npz", [square()] * 3)


def test_errors_are_told_apart(pair: tuple[Path, Path, Path]) -> None:
    source, coded, maps = pair
    found = judge(source, coded, maps, find_subject(maps, *SIZE, 0))
    assert found.psnr_inside == pytest.approx(psnr(4), abs=1e-6)
    assert found.psnr_outside == pytest.approx(psnr(25), abs=1e-6)
    share = 64 * 64 / (W * H)
    assert found.psnr_whole == pytest.approx(psnr(4 * share + 25 * (1 - share)), abs=1e-6)
    assert found.sw_psnr == pytest.approx(psnr(4), abs=1e-6)
    assert found.vmaf is None


def test_errors_are_pooled_as_squares_over_frames(tmp_path: Path) -> None:
    source = clip(tmp_path / "source.mkv", [GREY] * 2)
    coded = clip(tmp_path / "coded.mkv", [GREY + 1, GREY + 7])
    maps = keep(tmp_path / "maps.npz", [square()] * 2)
    found = judge(source, coded, maps, find_subject(maps, *SIZE, 0))
    assert found.psnr_inside == pytest.approx(psnr((1 + 49) / 2), abs=1e-6)


def test_a_frame_without_a_subject_counts_outside_alone(tmp_path: Path) -> None:
    source = clip(tmp_path / "source.mkv", [GREY] * 2)
    coded = clip(tmp_path / "coded.mkv", [GREY + 2, GREY + 6])
    maps = keep(tmp_path / "maps.npz", [square(), square(0)])
    subject = find_subject(maps, *SIZE, 0)
    found = judge(source, coded, maps, subject)
    assert subject.empty == 1
    assert found.psnr_inside == pytest.approx(psnr(4), abs=1e-6)
    count = W * H - 64 * 64
    mean = (4 * count + 36 * W * H) / (count + W * H)
    assert found.psnr_outside == pytest.approx(psnr(mean), abs=1e-6)


def test_an_encode_of_a_part_is_paired_with_that_part(tmp_path: Path) -> None:
    source = clip(tmp_path / "source.mkv", [GREY + 10 * i for i in range(5)])
    coded = clip(tmp_path / "coded.mkv", [GREY + 10 * i + 1 for i in (2, 3)])
    maps = keep(tmp_path / "maps.npz", [square()] * 2, first=2)
    found = judge(source, coded, maps, find_subject(maps, *SIZE, 0), start=2)
    assert found.psnr_whole == pytest.approx(psnr(1), abs=1e-6)


def test_maps_of_other_frames_are_refused(pair: tuple[Path, Path, Path], tmp_path: Path) -> None:
    source, coded, _ = pair
    maps = keep(tmp_path / "late.npz", [square()] * 3, first=1)
    with pytest.raises(QualityError, match="expected the map of frame 0, found one of frame 1"):
        judge(source, coded, maps, find_subject(maps, *SIZE, 0))


def test_an_encode_that_is_too_short_is_refused(pair: tuple[Path, Path, Path]) -> None:
    source, _, maps = pair
    short = clip(source.parent / "short.mkv", [GREY] * 2)
    with pytest.raises(QualityError, match="2"):
        judge(source, short, maps, find_subject(maps, *SIZE, 0))


def test_vmaf_sees_the_whole_frame_and_the_box(pair: tuple[Path, Path, Path]) -> None:
    pytest.importorskip("imageio_ffmpeg")
    source, _, maps = pair
    noise = np.random.default_rng(0).normal(0, 12, (H, W))
    textured = np.clip(GREY + 20 * np.sin(np.arange(W) / 3), 16, 235) + np.zeros((H, 1))
    source = clip(source.parent / "texture.mkv", [textured] * 3)
    bad = clip(source.parent / "bad.mkv", [textured + np.where(square() > 0, 0, noise)] * 3)
    found = judge(source, bad, maps, find_subject(maps, *SIZE, 0), vmaf=True)
    assert found.vmaf is not None
    assert found.vmaf_crop is not None
    assert found.vmaf_crop > found.vmaf + 10


def test_the_box_holds_the_subject(tmp_path: Path) -> None:
    subject = find_subject(keep(tmp_path / "m.npz", [square()]), *SIZE, 0)
    w, h, x, y = subject.box
    assert (w, h) == (64, 64)
    assert abs(x - 96) <= 2
    assert abs(y - 32) <= 2
    assert subject.share == pytest.approx(64 * 64 / (W * H))


def test_the_box_lies_in_the_coded_picture(tmp_path: Path) -> None:
    upright = np.rot90(square(), -1).copy()  # clockwise, as a display matrix of 90 degrees does
    subject = find_subject(keep(tmp_path / "m.npz", [upright]), *SIZE, 90)
    straight = find_subject(keep(tmp_path / "n.npz", [square()]), *SIZE, 0)
    assert subject.box == straight.box


@pytest.mark.parametrize("at", [(0, 0), (W - 3, H - 3), (101, 77)])
def test_a_speck_gets_a_box_that_vmaf_can_score(tmp_path: Path, at: tuple[int, int]) -> None:
    m = np.zeros((H, W), np.float32)
    m[at[1] : at[1] + 3, at[0] : at[0] + 3] = 1
    w, h, x, y = find_subject(keep(tmp_path / "m.npz", [m]), *SIZE, 0).box
    assert min(w, h) >= SMALLEST_BOX
    assert x >= 0 <= y
    assert x + w <= W
    assert y + h <= H
    assert x <= at[0] + 1 < x + w
    assert y <= at[1] + 1 < y + h
    assert not any(v % 2 for v in (w, h, x, y))


def test_a_few_stray_samples_do_not_make_the_box_the_picture(tmp_path: Path) -> None:
    stray = square()
    stray[0, :8] = stray[-1, -8:] = 1
    subject = find_subject(keep(tmp_path / "m.npz", [stray]), *SIZE, 0)
    assert subject.box[:2] == (64, 64)


@pytest.mark.parametrize(("value", "said"), [(0.0, "no sample of"), (1.0, "every sample of")])
def test_a_map_without_a_subject_is_refused(tmp_path: Path, value: float, said: str) -> None:
    maps = keep(tmp_path / "m.npz", [np.full((H, W), value, np.float32)])
    with pytest.raises(QualityError, match=said):
        find_subject(maps, *SIZE, 0)


def test_a_subject_is_plain_data() -> None:
    assert Subject(BOX, 0.1, 3, 0).box == BOX
