"""Which logs belong to a pair, by what they say and by their numbers."""

from pathlib import Path

import pytest

from eyeline.errors import LogError
from eyeline.logs import write_log
from eyeline.logs.base import Log
from eyeline.media import open_video
from eyeline.quality.pairs import PairOptions
from eyeline.quality.save import check_clip, save_scores
from eyeline.quality.score import ScoreOptions, score
from eyeline.saliency.pipeline import extract
from quality.pair_clips import textured, write_ffv1

SIZE, FRAMES = (96, 64), 4


def log_of(rows: int, provenance: dict, fps: float | None = 25.0) -> Log:
    log = Log(["vmaf"], provenance, fps)
    for i in range(rows):
        log.append(i, i / 25, {"vmaf": 90.0})
    return log


def libvmaf_xml(path: Path, size: tuple[int, int], rows: int = FRAMES) -> Path:
    frames = "".join(f'<frame frameNum="{i}" vmaf="90.000000" />' for i in range(rows))
    path.write_text(
        f'<VMAF version="3.0.0"><params qualityWidth="{size[0]}" qualityHeight="{size[1]}" />'
        f'<fyi fps="61.83" /><frames>{frames}</frames></VMAF>'
    )
    return path


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write_ffv1(tmp_path / "ref.mkv", textured(FRAMES, SIZE))


def check(clip: Path, log: Path, **pairs) -> None:
    with open_video(clip) as ref, open_video(clip) as dist:
        check_clip(str(log), ref.info, dist.info, PairOptions(**pairs))


def test_libvmafs_xml_of_this_size_is_taken(clip: Path, tmp_path: Path) -> None:
    check(clip, libvmaf_xml(tmp_path / "v.xml", SIZE))


def test_libvmafs_xml_of_another_size_is_refused(clip: Path, tmp_path: Path) -> None:
    with pytest.raises(
        LogError, match="another video: its compared size is 128x64, expected 96x64"
    ):
        check(clip, libvmaf_xml(tmp_path / "v.xml", (128, 64)))


def test_the_size_is_that_of_the_crop(clip: Path, tmp_path: Path) -> None:
    log = libvmaf_xml(tmp_path / "v.xml", (64, 48))
    check(clip, log, crop=(64, 48, 0, 0))
    with pytest.raises(LogError, match="is 64x48, expected 96x64"):
        check(clip, log)


def test_our_log_of_another_rate_is_refused(clip: Path, tmp_path: Path) -> None:
    write_log(log_of(FRAMES, {"compared_size": list(SIZE)}, 30.0), tmp_path / "s.csv")
    with pytest.raises(LogError, match="frame rate is 30, expected 25"):
        check(clip, tmp_path / "s.csv")


def test_an_extract_log_of_another_size_is_refused(clip: Path, tmp_path: Path) -> None:
    small = write_ffv1(tmp_path / "small.mkv", textured(FRAMES, (64, 64)))
    with extract(small) as extraction:
        write_log(log_of(FRAMES, extraction.provenance), tmp_path / "e.json")
    with pytest.raises(LogError, match="reference size is 64x64, expected 96x64"):
        check(clip, tmp_path / "e.json")


def test_an_extract_log_of_the_reference_is_taken(clip: Path, tmp_path: Path) -> None:
    with extract(clip) as extraction:
        write_log(log_of(FRAMES, extraction.provenance), tmp_path / "e.json")
    check(clip, tmp_path / "e.json")


def test_a_score_log_knows_its_pair_again(clip: Path, tmp_path: Path) -> None:
    options = ScoreOptions(metrics=("psnr",), weight=0)
    write_log(score(clip, clip, options=options).log, tmp_path / "s.json")
    log = score(clip, clip, options=options).log
    log.columns.append("again")
    log.values["again"] = log.values["psnr_y"]
    kept = save_scores(log, (str(tmp_path / "both.json"),), str(tmp_path / "s.json"))
    assert "psnr_y" in kept


def test_a_score_log_of_another_pair_is_refused_at_the_end_too(clip: Path, tmp_path: Path) -> None:
    write_log(log_of(FRAMES, {"compared_size": [1280, 720]}), tmp_path / "s.json")
    log = score(clip, clip, options=ScoreOptions(metrics=("psnr",), weight=0)).log
    with pytest.raises(LogError, match="is 1280x720, expected 96x64"):
        save_scores(log, (str(tmp_path / "both.json"),), str(tmp_path / "s.json"))
    assert not (tmp_path / "both.json").exists()


def test_provenance_that_makes_no_sense_says_nothing(clip: Path, tmp_path: Path) -> None:
    said = {"compared_size": ["a", None], "reference": [1], "video": 3}
    write_log(log_of(FRAMES, said), tmp_path / "s.json")
    check(clip, tmp_path / "s.json")


def test_another_count_is_refused_where_the_containers_know_it(tmp_path: Path) -> None:
    frames = textured(FRAMES, SIZE)
    clip = write_ffv1(tmp_path / "ref.avi", frames)
    long = libvmaf_xml(tmp_path / "v.xml", SIZE, FRAMES + 3)
    with pytest.raises(LogError, match="frame count is 7, expected 4"):
        check(clip, long)
    check(clip, libvmaf_xml(tmp_path / "three.xml", SIZE, 3), frames=3)
