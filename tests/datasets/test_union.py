"""Several datasets as one: versions of one picture are found, unrelated ones are kept."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("PIL")
from PIL import Image

from eyeline.datasets.pairs import NEAR, difference_hash, find_union
from eyeline.errors import DatasetError


def picture(seed: int, size: tuple[int, int] = (120, 90)) -> Image.Image:
    """Smooth random colours: detail at the scale that a thumbnail keeps."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def make_set(root: Path, pictures: dict[str, Image.Image]) -> Path:
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for name, image in pictures.items():
        image.save(root / "images" / name)
        mask = Image.new("L", image.size)
        mask.paste(255, (10, 10, 30, 30))
        mask.save(root / "masks" / f"{Path(name).stem}.png")
    return root


def test_a_scaled_and_compressed_copy_is_dropped_and_named(tmp_path: Path) -> None:
    a = make_set(tmp_path / "a", {"1.png": picture(1), "2.png": picture(2)})
    b = make_set(tmp_path / "b", {"x.jpg": picture(2, (240, 180)), "y.png": picture(3)})
    union = find_union([a, b])
    assert [p.name for p in union.pairs] == ["a/1", "a/2", "b/y"]
    assert union.dropped == [("b/x", "a/2")]


def test_a_test_set_is_kept_out(tmp_path: Path) -> None:
    a = make_set(tmp_path / "a", {"1.png": picture(1), "2.png": picture(2)})
    test = make_set(tmp_path / "test", {"secret.jpg": picture(1)})
    union = find_union([a], without=[test])
    assert [p.name for p in union.pairs] == ["2"]
    assert union.dropped == [("a/1", "test/secret")]


def test_one_set_stays_as_it_is(tmp_path: Path) -> None:
    a = make_set(tmp_path / "a", {"1.png": picture(1), "again.png": picture(1)})
    union = find_union([a])
    assert [p.name for p in union.pairs] == ["1", "again"]
    assert union.dropped == []


def test_nothing_left_is_an_error(tmp_path: Path) -> None:
    a = make_set(tmp_path / "a", {"1.png": picture(1)})
    test = make_set(tmp_path / "test", {"1.png": picture(1)})
    with pytest.raises(DatasetError, match="every picture repeats"):
        find_union([a], without=[test])


def test_two_sets_of_one_name_are_refused(tmp_path: Path) -> None:
    sets = [make_set(tmp_path / d / "set", {"1.png": picture(i)}) for i, d in enumerate("ab")]
    with pytest.raises(DatasetError, match="two datasets are named set"):
        find_union(sets)


def test_unrelated_pictures_are_far_apart() -> None:
    hashes = [difference_hash(picture(i)) for i in range(40)]
    distances = [
        int(np.bitwise_count(a ^ b).sum()) for i, a in enumerate(hashes) for b in hashes[:i]
    ]
    assert min(distances) > 2 * NEAR


def test_progress_counts_every_picture(tmp_path: Path) -> None:
    a = make_set(tmp_path / "a", {"1.png": picture(1)})
    b = make_set(tmp_path / "b", {"2.png": picture(2), "3.png": picture(3)})
    notes: list[tuple[int, int]] = []
    find_union([a, b], on_progress=lambda done, total: notes.append((done, total)))
    assert notes == [(1, 3), (2, 3), (3, 3)]
