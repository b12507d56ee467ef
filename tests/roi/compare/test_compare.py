"""A comparison of real encodes: bits move to the subject, and what is done is not done again."""

from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from witness import COMPARE as OPTIONS
from witness import COUNT, H, subject, textured

from clips import write_clip
from eyeline.errors import (
    EncoderError,
    MediaError,
    MissingExtraError,
    QualityError,
    UsageError,
)
from eyeline.roi.compare import Comparison, compare
from eyeline.roi.compare import _compare as module
from eyeline.roi.compare.report import to_markdown
from eyeline.saliency.maps import NpzFile, PngFolder
from eyeline.saliency.pipeline import ExtractOptions


def test_the_subject_gains_and_the_background_pays(found: Comparison) -> None:
    assert found.deltas["psnr_inside"].rate < -10
    assert found.deltas["psnr_outside"].rate > 0
    assert found.deltas["sw_ssim"].quality > 0


def test_every_rate_is_encoded_both_ways(found: Comparison) -> None:
    for kind in ("plain", "roi"):
        points = found.of(kind)
        assert [p.setting for p in points] == [22, 27, 32, 37]
        rates = [p.kbps for p in points]
        assert rates == sorted(rates, reverse=True)


def test_rates_are_those_of_the_files(found: Comparison) -> None:
    for p in found.points:
        with av.open(p.path) as container:
            size = sum(packet.size for packet in container.demux(video=0))
        assert p.kbps == pytest.approx(size * 8 / (COUNT / 25) / 1000, rel=0.01)


def test_masks_judge_and_that_is_said(found: Comparison, masks: Path) -> None:
    assert not found.judged_by_steering_maps
    text = to_markdown(found)
    assert f"Judged by ground truth {masks.name}." in text
    assert "favours" not in text


def test_what_was_not_measured_says_why(found: Comparison) -> None:
    assert found.refused == {"vmaf": "not asked for", "vmaf_crop": "not asked for"}
    assert "| VMAF whole frame" in to_markdown(found)


def test_growth_is_the_mean_ratio_of_bits_at_one_setting(found: Comparison) -> None:
    ratios = [r.kbps / p.kbps for p, r in zip(found.of("plain"), found.of("roi"), strict=True)]
    assert 1 + found.growth == pytest.approx(np.prod(ratios) ** 0.25)


def test_the_steering_maps_judge_themselves_and_that_is_said(
    clip: Path, maps: str, tmp_path: Path
) -> None:
    result = compare(clip, tmp_path, replace(OPTIONS, maps=maps))
    assert result.judged_by_steering_maps
    assert "favours its own maps" in to_markdown(result)


@pytest.mark.parametrize(("codec", "preset"), [("x265", "veryfast"), ("kvazaar", "ultrafast")])
def test_other_encoders_are_compared(
    codec: str, preset: str, clip: Path, maps: str, tmp_path: Path
) -> None:
    if codec == "kvazaar":
        pytest.importorskip("imageio_ffmpeg")
    result = compare(clip, tmp_path, replace(OPTIONS, maps=maps, codec=codec, preset=preset))
    assert result.deltas["psnr_inside"].rate < 0
    setting = "qp" if codec == "kvazaar" else "crf"
    assert f"at {setting} 22, 27, 32, 37" in to_markdown(result)


def test_a_second_run_encodes_nothing(
    found: Comparison, clip: Path, masks: Path, maps: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **more: object) -> None:
        raise AssertionError("work that was done")

    monkeypatch.setattr(module, "encode", refuse)
    monkeypatch.setattr(module, "judge", refuse)
    options = replace(OPTIONS, maps=maps, judge_masks=str(masks))
    again = compare(clip, Path(found.points[0].path).parent, options)
    assert again.to_json() == found.to_json()


def test_another_strength_keeps_the_plain_encodes(
    found: Comparison, clip: Path, masks: Path, maps: str
) -> None:
    steer = replace(OPTIONS.steer, strength=3)
    options = replace(OPTIONS, maps=maps, judge_masks=str(masks), steer=steer)
    work = Path(found.points[0].path).parent
    weaker = compare(clip, work, options)
    assert weaker.of("plain") == found.of("plain")
    assert weaker.of("roi") != found.of("roi")
    assert weaker.deltas["psnr_inside"].rate > found.deltas["psnr_inside"].rate


def test_an_interrupted_run_leaves_nothing_half_done(clip: Path, maps: str, tmp_path: Path) -> None:
    def stop(part: str, done: int, total: int) -> None:
        if part == "judge" and done:
            raise KeyboardInterrupt

    options = replace(OPTIONS, maps=maps, jobs=1)
    with pytest.raises(KeyboardInterrupt):
        compare(clip, tmp_path, options, on_progress=stop)
    assert len(list(tmp_path.glob("*.mp4"))) == 1
    assert compare(clip, tmp_path, options).points


def test_a_part_is_compared(clip: Path, masks: Path, maps: str, tmp_path: Path) -> None:
    part = tmp_path / "part.npz"
    with NpzFile(part) as sink:
        for i in (2, 3, 4):
            sink.write(i, i / 25, subject())
    options = replace(
        OPTIONS, maps=str(part), judge_masks=str(masks), extract=ExtractOptions(start=2, stop=5)
    )
    result = compare(clip, tmp_path / "work", options)
    assert result.subject.frames == 3


def test_masks_of_another_clip_are_refused(
    clip: Path, masks: Path, maps: str, tmp_path: Path
) -> None:
    few = tmp_path / "few"
    few.mkdir()
    (few / "0.png").write_bytes((masks / "000000.png").read_bytes())
    with pytest.raises(QualityError, match="no map for frame 1"):
        compare(clip, tmp_path / "a", replace(OPTIONS, maps=maps, judge_masks=str(few)))
    short = write_clip(tmp_path / "short.mkv", textured(2), "ffv1")
    with pytest.raises(QualityError, match="6 masks, but the clip has 2 frames"):
        compare(short, tmp_path / "b", replace(OPTIONS, maps=maps, judge_masks=str(masks)))


def test_masks_of_another_shape_are_refused(clip: Path, maps: str, tmp_path: Path) -> None:
    with PngFolder(tmp_path / "square", 8) as sink:
        for i in range(COUNT):
            sink.write(i, i / 25, subject()[:, :H])
    options = replace(OPTIONS, maps=maps, judge_masks=str(tmp_path / "square"))
    with pytest.raises(MediaError, match="128x128, but the picture is 192x128"):
        compare(clip, tmp_path / "work", options)


def test_maps_that_do_not_last_are_refused(clip: Path, tmp_path: Path) -> None:
    short = tmp_path / "short.npz"
    with NpzFile(short) as sink:
        sink.write(0, 0, subject())
    with pytest.raises((MediaError, QualityError), match=r"no map|are 1 maps"):
        compare(clip, tmp_path / "work", replace(OPTIONS, maps=str(short)))


def test_vmaf_by_name_needs_its_extra(
    monkeypatch: pytest.MonkeyPatch, clip: Path, maps: str, tmp_path: Path
) -> None:
    def absent() -> str:
        raise MissingExtraError("imageio-ffmpeg", "vmaf")

    monkeypatch.setattr(module, "find_ffmpeg", absent)
    with pytest.raises(MissingExtraError, match="vmaf"):
        compare(clip, tmp_path, replace(OPTIONS, maps=maps, vmaf=True))
    left_out = compare(clip, tmp_path, replace(OPTIONS, maps=maps, vmaf=None))
    assert "eyeline[vmaf]" in left_out.refused["vmaf"]


def test_an_encode_that_was_removed_is_made_again(clip: Path, maps: str, tmp_path: Path) -> None:
    options = replace(OPTIONS, maps=maps)
    first = compare(clip, tmp_path, options)
    Path(first.points[2].path).unlink()
    again = compare(clip, tmp_path, options)
    assert Path(first.points[2].path).exists()
    # libx264's macroblock tree is not bit-exact on every machine.
    assert again.points[2].kbps == pytest.approx(first.points[2].kbps, rel=0.05)


def test_a_source_that_the_codec_would_convert_is_refused(maps: str, tmp_path: Path) -> None:
    full = write_clip(tmp_path / "full.mkv", textured(), "ffv1", pix_fmt="yuv444p")
    with pytest.raises(QualityError, match="convert the source to yuv420p"):
        compare(full, tmp_path, replace(OPTIONS, maps=maps, codec="vp9", preset="8"))


def test_an_encoder_that_fails_ends_the_run(maps: str, tmp_path: Path) -> None:
    odd = write_clip(tmp_path / "odd.mkv", [f[:, :-1] for f in textured()], "ffv1")
    with pytest.raises(EncoderError, match="even width"):
        compare(odd, tmp_path / "work", replace(OPTIONS, maps=maps))
    assert not list((tmp_path / "work").glob("*.mp4"))


def test_stdin_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="stdin"):
        compare("-", tmp_path, OPTIONS)


def test_the_pair_of_a_still_is_of_one_rate(found: Comparison) -> None:
    assert found.pair is not None
    plain, roi = found.pair
    assert (plain.kind, roi.kind) == ("plain", "roi")
    assert plain == sorted(found.of("plain"), key=lambda p: p.kbps)[1]
    assert roi.kbps == pytest.approx(plain.kbps, rel=0.02)
