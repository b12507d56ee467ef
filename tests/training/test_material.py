"""Material: pictures are decoded once, folds are decided by content, and teachers are run once."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch")

from eyeline.datasets.fixations import fold_of, load_fixation_set
from eyeline.datasets.pairs import find_pairs
from eyeline.digests import sha256_hex
from eyeline.errors import DatasetError, ModelError, UsageError
from eyeline.training.material import (
    GAZE_GRID,
    is_selection_fold,
    load_gaze_arrays,
    load_object_arrays,
    prepare_gaze,
    prepare_objects,
    run_teacher,
)
from eyeline.training.recipes import load_recipe
from tiny_models import plane_model
from training.samples import gaze_recipe, make_discs


def ignore(done: int, total: int) -> None:
    """Progress that nobody watches."""


def test_what_takes_long_before_training_is_counted(discs: Path, tmp_path: Path) -> None:
    said: list[tuple[str, int, int]] = []
    prepare_objects(
        load_recipe("smoke"), [discs], tmp_path, on_step=lambda *step: said.append(step)
    )
    assert said[0][0] == "decoding pictures"
    assert said[-1] == ("decoding pictures", 40, 40)


def test_the_split_is_by_content() -> None:
    folds = [is_selection_fold(f"{i:08x}" + "0" * 56, 0.25) for i in range(0, 2**32, 2**26)]
    assert 0.2 < np.mean(folds) < 0.3


def test_a_duplicate_image_stays_on_its_side(tmp_path: Path) -> None:
    root = make_discs(tmp_path / "set", count=20)
    for folder in ("images", "masks"):
        (root / folder / "copy.png").write_bytes((root / folder / "003.png").read_bytes())
    arrays = load_object_arrays(find_pairs(root), 32, 0.3, tmp_path / "cache", ignore)
    side = dict(zip(arrays.names, arrays.train, strict=True))
    assert side["copy"] == side["003"]


def test_an_image_without_its_mask_is_named(tmp_path: Path) -> None:
    root = make_discs(tmp_path / "set", count=4)
    (root / "masks" / "002.png").unlink()
    with pytest.raises(DatasetError, match="002"):
        find_pairs(root)


def test_a_corrupt_image_is_named(tmp_path: Path) -> None:
    root = make_discs(tmp_path / "set", count=20)
    (root / "images" / "004.png").write_bytes(b"not a picture")
    with pytest.raises(DatasetError, match=r"004\.png"):
        load_object_arrays(find_pairs(root), 32, 0.3, tmp_path / "cache", ignore)


def test_a_size_mismatch_is_named(tmp_path: Path) -> None:
    root = make_discs(tmp_path / "set", count=20)
    Image.new("L", (5, 5)).save(root / "masks" / "006.png")
    with pytest.raises(DatasetError, match="006"):
        load_object_arrays(find_pairs(root), 32, 0.3, tmp_path / "cache", ignore)


def test_an_edited_mask_is_decoded_again(tmp_path: Path) -> None:
    root = make_discs(tmp_path / "set", count=20)
    before = load_object_arrays(find_pairs(root), 32, 0.3, tmp_path / "cache", ignore)
    Image.new("L", (80, 60), 255).save(root / "masks" / "007.png")
    after = load_object_arrays(find_pairs(root), 32, 0.3, tmp_path / "cache", ignore)
    assert after.digest != before.digest
    assert after.targets[7].min() == 255 > before.targets[7].min()
    assert after.facts["full_masks"] == ["007"]


def test_empty_masks_are_counted_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = make_discs(tmp_path / "set", count=20)
    for name in ("003", "009"):
        Image.new("L", (80, 60), 0).save(root / "masks" / f"{name}.png")
    with caplog.at_level("WARNING"):
        arrays = load_object_arrays(find_pairs(root), 32, 0.3, tmp_path / "cache", ignore)
    assert arrays.facts["empty_masks"] == ["003", "009"]
    assert "2 masks are empty, first 003" in caplog.text


def test_masks_of_one_class_are_refused(tmp_path: Path) -> None:
    root = make_discs(tmp_path / "set", count=20)
    for mask in (root / "masks").iterdir():
        Image.new("L", (80, 60), 0).save(mask)
    with pytest.raises(DatasetError, match="all 20 masks hold one class"):
        load_object_arrays(find_pairs(root), 32, 0.3, tmp_path / "cache", ignore)


def test_images_of_one_pixel_are_refused(tmp_path: Path) -> None:
    root = make_discs(tmp_path / "set", count=20)
    for folder in ("images", "masks"):
        Image.new("L", (1, 1), 255).save(root / folder / "005.png")
    with pytest.raises(DatasetError, match=r"1 images have a single pixel, the first is 005"):
        load_object_arrays(find_pairs(root), 32, 0.3, tmp_path / "cache", ignore)


def test_a_fold_without_images_is_refused(tmp_path: Path) -> None:
    root = make_discs(tmp_path / "set", count=2)
    with pytest.raises(DatasetError, match="2 pictures leave a fold empty"):
        load_object_arrays(find_pairs(root), 32, 1e-9, tmp_path / "cache", ignore)


def test_folds_are_decided_by_content_alone() -> None:
    digests = [sha256_hex(str(i).encode()) for i in range(2000)]
    folds = [fold_of(d) for d in digests]
    assert folds.count("select") == pytest.approx(200, abs=50)
    assert folds.count("report") == pytest.approx(200, abs=50)
    assert fold_of("0" * 64) == "select"
    assert fold_of("f" * 64) == "train"


def test_arrays_leave_out_the_fold_that_reports(gaze_set: Path, tmp_path: Path) -> None:
    found = load_fixation_set(gaze_set)
    arrays = load_gaze_arrays([found], 64, tmp_path, ignore)
    kept = {f"discs/{s.name}" for s in found.stimuli if fold_of(s.digest) != "report"}
    assert set(arrays.names) == kept
    assert arrays.images.shape == (len(kept), 64, 64, 3)
    assert arrays.targets.shape == (len(kept), *GAZE_GRID)
    assert arrays.targets.max(axis=(1, 2)).min() == 1
    again = load_gaze_arrays([found], 64, tmp_path, ignore)
    np.testing.assert_array_equal(arrays.targets, again.targets)


def test_the_density_lies_where_the_viewers_looked(gaze_set: Path, tmp_path: Path) -> None:
    found = load_fixation_set(gaze_set)
    arrays = load_gaze_arrays([found], 64, tmp_path, ignore)
    by_name = {f"discs/{s.name}": s for s in found.stimuli}
    for name, density in zip(arrays.names, arrays.targets, strict=True):
        rows, columns = np.unravel_index(density.argmax(), density.shape)
        fixations = by_name[name].fixations
        assert abs((columns + 0.5) / GAZE_GRID[1] - fixations.x.mean()) < 0.06
        assert abs((rows + 0.5) / GAZE_GRID[0] - fixations.y.mean()) < 0.08


def test_a_set_too_small_for_two_folds_is_refused(gaze_set: Path, tmp_path: Path) -> None:
    found = load_fixation_set(gaze_set)
    alone = [s for s in found.stimuli if fold_of(s.digest) == "train"][:3]
    small = type(found)(
        found.name, "images", tuple(alone), found.viewers, found.digest, found.problems
    )
    with pytest.raises(DatasetError, match="leave a fold empty"):
        load_gaze_arrays([small], 64, tmp_path, ignore)


def test_unlabelled_pictures_and_a_teacher_need_each_other(
    gaze_set: Path, backbone: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="--unlabelled is given without --teacher"):
        prepare_gaze(
            gaze_recipe(backbone), [gaze_set], tmp_path, backbone=backbone, unlabelled=gaze_set
        )


def test_a_teacher_is_run_once_and_resumed(discs: Path, tmp_path: Path) -> None:
    model = tmp_path / "teacher.onnx"
    model.write_bytes(plane_model(gain=0.5, offset=0.25))
    pairs = find_pairs(discs)
    maps = run_teacher("objects", pairs, model, tmp_path / "cache", ignore)
    assert maps.shape == (40, 160, 160)
    note = next((tmp_path / "cache").glob("teacher-*/done.json"))
    note.write_text("0")
    again = run_teacher("objects", pairs, model, tmp_path / "cache", ignore)
    assert np.array_equal(maps, again)
    before = note.stat().st_mtime_ns
    run_teacher("objects", pairs, model, tmp_path / "cache", ignore)
    assert note.stat().st_mtime_ns == before


def test_a_teacher_that_is_not_a_model_is_refused(discs: Path, tmp_path: Path) -> None:
    path = tmp_path / "teacher.onnx"
    path.write_bytes(b"words, not a model")
    with pytest.raises(ModelError, match=r"teacher\.onnx"):
        run_teacher("objects", find_pairs(discs), path, tmp_path / "cache", ignore)
