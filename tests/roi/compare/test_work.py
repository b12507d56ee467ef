"""The work folder: names by options, maps that are made once, and progress from several threads."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from witness import COMPARE, COUNT, H, W, subject

from eyeline.errors import MediaError, OutputError
from eyeline.media import open_video
from eyeline.roi.compare import CompareOptions
from eyeline.roi.compare._work import ProgressCounter, WorkFolder, fingerprint, read_note
from eyeline.saliency.maps import read_maps
from eyeline.saliency.pipeline import ExtractOptions


def counter(notes: list[tuple[str, int, int]] | None = None) -> ProgressCounter:
    return ProgressCounter(lambda *note: None if notes is None else notes.append(note))


def work(folder: Path, clip: Path, options: CompareOptions = COMPARE) -> WorkFolder:
    with open_video(clip) as video:
        return WorkFolder(folder, clip, video.info, options, None, None, counter())


def test_a_name_depends_on_the_content_and_on_nothing_else(clip: Path, tmp_path: Path) -> None:
    name = work(tmp_path, clip).named("maps", ".mkv", "model", 3)
    assert name.parent == tmp_path
    assert name == work(tmp_path, clip, replace(COMPARE, jobs=1)).named("maps", ".mkv", "model", 3)
    part = replace(COMPARE, extract=ExtractOptions(start=1))
    others = [
        work(tmp_path, clip).named("maps", ".mkv", "model", 4),
        work(tmp_path, clip, part).named("maps", ".mkv", "model", 3),
    ]
    assert len({name, *others}) == 3


def test_a_folder_that_can_not_be_made_is_an_error(clip: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("words")
    with pytest.raises(OutputError, match="file"):
        work(tmp_path / "file" / "work", clip)


def test_the_centre_map_is_made_once(clip: Path, tmp_path: Path) -> None:
    options = replace(COMPARE, steer_by="centre", judge_fixations="unused")
    path, name, task = work(tmp_path, clip, options).steering_maps()
    assert (name, task) == ("the centre of the picture", None)
    found = dict(read_maps(path))
    assert list(found) == list(range(COUNT))
    m = found[0]
    assert m.shape == (round(160 * H / W), 160)
    assert m.max() == m[m.shape[0] // 2, 80] == 1
    # Half the width is two standard deviations from the centre.
    assert m[m.shape[0] // 2, 0] == pytest.approx(np.exp(-2), rel=0.05)
    os.utime(path, (1, 1))
    again, _, _ = work(tmp_path, clip, options).steering_maps()
    assert (again, path.stat().st_mtime) == (path, 1)


def test_masks_become_judging_maps(clip: Path, masks: Path, maps: str, tmp_path: Path) -> None:
    options = replace(COMPARE, maps=maps, judge_masks=str(masks))
    folder = work(tmp_path, clip, options)
    steering, steered_by, _ = folder.steering_maps()
    assert (str(steering), steered_by) == (maps, "maps maps.npz")
    path, name, same = folder.judging_maps(steering, steered_by)
    assert (name, same) == (f"ground truth {masks.name}", False)
    assert all(np.array_equal(m, subject()) for _, m in read_maps(path))


def test_without_a_judge_the_steering_maps_judge(clip: Path, maps: str, tmp_path: Path) -> None:
    folder = work(tmp_path, clip, replace(COMPARE, maps=maps))
    assert folder.judging_maps(Path(maps), "maps") == (Path(maps), "maps", True)


def test_progress_counts_parts_and_stops_the_threads() -> None:
    notes: list[tuple[str, int, int]] = []
    progress = counter(notes)
    progress.expect("encode", 3)
    progress.advance("encode")
    progress.advance("encode", 3)
    assert notes == [("encode", 0, 3), ("encode", 1, 3), ("encode", 4, 4)]
    progress.stop()
    with pytest.raises(KeyboardInterrupt):
        progress.advance("encode")


def test_a_fingerprint_changes_with_any_file_of_a_folder(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).write_text("words")
    first = fingerprint(tmp_path)
    assert fingerprint(tmp_path) == first
    os.utime(tmp_path / "b", (1, 1))
    assert fingerprint(tmp_path) != first
    with pytest.raises(MediaError, match="absent: can't be read"):
        fingerprint(tmp_path / "absent")


def test_a_note_is_read_back_or_absent(tmp_path: Path) -> None:
    assert read_note(tmp_path / "note.json") is None
    (tmp_path / "note.json").write_text('{"frames": 6}')
    assert read_note(tmp_path / "note.json") == {"frames": 6}
