"""Datasets on disk and in archives: what is found, what is refused, and how pictures are read."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("PIL")
from PIL import Image
from sets import picture, write_archive, write_folder

from eyeline.datasets.files import Source, read_bytes
from eyeline.datasets.pairs import (
    NEAR,
    Pair,
    check_sizes,
    difference_hash,
    find_pairs,
    find_union,
    read_image,
    read_mask,
    upright_size,
)
from eyeline.errors import DatasetError


def files(images: str = "images", masks: str = "masks", wrapper: str = "") -> dict[str, bytes]:
    return {
        f"{wrapper}{folder}/{name}.png": picture(i + 10 * (folder == masks))
        for folder in (images, masks)
        for i, name in enumerate(("b", "a", "c"))
    }


def content_of(pairs: list[Pair]) -> list[tuple[str, bytes, bytes, str]]:
    return [(p.name, read_bytes(p.image), read_bytes(p.mask), p.digest) for p in pairs]


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        ("images", "masks"),
        ("DUTS-TE-Image", "DUTS-TE-Mask"),
        ("images", "ground_truth_mask"),
        ("Image", "GT"),
        ("Imgs", "gt"),
        ("Image", "Mask"),
    ],
)
@pytest.mark.parametrize("wrapper", ["", "SET/"])
def test_known_layouts_are_found(tmp_path: Path, images: str, masks: str, wrapper: str) -> None:
    pairs = find_pairs(write_folder(tmp_path, files(images, masks, wrapper)))
    assert [p.name for p in pairs] == ["a", "b", "c"]
    assert read_bytes(pairs[1].image) == picture(0)
    assert read_bytes(pairs[1].mask) == picture(10)


@pytest.mark.parametrize("name", ["set.tar", "set.zip"])
@pytest.mark.parametrize("wrapper", ["", "SET/"])
def test_an_archive_reads_as_its_folder_does(tmp_path: Path, name: str, wrapper: str) -> None:
    folder = find_pairs(write_folder(tmp_path / "set", files(wrapper=wrapper)))
    archive = find_pairs(write_archive(tmp_path / name, files(wrapper=wrapper)))
    assert content_of(archive) == content_of(folder)
    assert np.array_equal(read_image(archive[0].image), read_image(folder[0].image))


@pytest.mark.parametrize("name", ["set", "set.tar"])
def test_davis_as_its_authors_pack_it(tmp_path: Path, name: str) -> None:
    tops = ("JPEGImages", "Annotations")
    content = {
        f"DAVIS/{top}/{lines}/bear/{i:05}.{'jpg' if top == tops[0] else 'png'}": picture(i)
        for top in tops
        for lines in ("480p", "1080p")
        for i in range(2)
    }
    write = write_archive if "." in name else write_folder
    pairs = find_pairs(write(tmp_path / name, content))
    assert [p.name for p in pairs] == ["bear/00000", "bear/00001"]
    assert "480p" in str(pairs[0].image)


def test_folders_of_frames_stay_in_the_names(tmp_path: Path) -> None:
    content = {f"{f}/{v}/00.png": picture() for f in ("images", "masks") for v in ("cat", "bear")}
    assert [p.name for p in find_pairs(write_folder(tmp_path, content))] == ["bear/00", "cat/00"]


def test_what_is_no_picture_is_left_out(tmp_path: Path) -> None:
    extra = {"images/readme.txt": b"words", "images/._a.png": b"resource fork", "LICENSE": b"terms"}
    assert len(find_pairs(write_archive(tmp_path / "s.tar", files() | extra))) == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"masks/a.png": None}, "1 images or masks have no counterpart, the first is 'a'"),
        ({"masks/d.png": picture()}, "1 images or masks have no counterpart, the first is 'd'"),
        ({"images/a.jpg": picture(form="JPEG")}, "two files in images have the name 'a'"),
        ({f"masks/{n}.png": None for n in "abc"}, "no pictures in a folder named masks"),
        ({f"{f}/{n}.png": None for n in "abc" for f in ("images", "masks")}, "no pictures in a"),
    ],
)
@pytest.mark.parametrize("name", ["set", "set.tar", "set.zip"])
def test_what_is_missing_is_named(
    tmp_path: Path, name: str, change: dict[str, bytes | None], message: str
) -> None:
    content = {k: v for k, v in (files() | change).items() if v is not None}
    content |= {"images/notes.txt": b"", "masks/notes.txt": b""}
    write = write_archive if "." in name else write_folder
    with pytest.raises(DatasetError, match=message):
        find_pairs(write(tmp_path / name, content))


def test_two_datasets_in_one_folder_are_refused(tmp_path: Path) -> None:
    root = write_folder(tmp_path, files(wrapper="one/") | files(wrapper="two/"))
    with pytest.raises(DatasetError, match="contains several datasets: one, two"):
        find_pairs(root)


@pytest.mark.parametrize("name", ["set.tar", "set.zip"])
@given(share=st.floats(0.02, 0.99))
def test_a_cut_archive_never_gives_other_bytes(
    tmp_path_factory: pytest.TempPathFactory, name: str, share: float
) -> None:
    """It is refused, or the pairs that it still has are whole."""
    path = write_archive(tmp_path_factory.mktemp("cut") / name, files())
    whole = {p.name: read_bytes(p.image) for p in find_pairs(path)}
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    try:
        pairs = find_pairs(path)
    except DatasetError:
        return
    assert all(whole[p.name] == read_bytes(p.image) for p in pairs)


def saved(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)  # type: ignore[arg-type]
    return path


def test_16_bit_grey_keeps_its_upper_byte(tmp_path: Path) -> None:
    levels = np.array([[0, 127 * 256 + 255, 128 * 256, 65535]], np.uint16)
    path = saved(tmp_path / "deep.png", Image.fromarray(levels))
    assert np.asarray(read_image(path))[0, :, 0].tolist() == [0, 127, 128, 255]
    assert np.asarray(read_mask(path))[0].tolist() == [0, 0, 255, 255]


def test_masks_split_above_127(tmp_path: Path) -> None:
    levels = np.array([[0, 127, 128, 255]], np.uint8)
    path = saved(tmp_path / "mask.png", Image.fromarray(levels))
    assert np.asarray(read_mask(path))[0].tolist() == [0, 0, 255, 255]


def test_one_bit_masks(tmp_path: Path) -> None:
    path = saved(tmp_path / "mask.png", Image.fromarray(np.eye(3) > 0))
    assert np.array_equal(np.asarray(read_mask(path)), np.eye(3) * 255)


def test_exif_rotation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # shown after a quarter turn clockwise
    path = saved(tmp_path / "turned.jpg", Image.new("RGB", (40, 24)), exif=exif)
    assert read_image(path).size == upright_size(path) == (24, 40)


@pytest.mark.parametrize("mode", ["CMYK", "RGBA", "LA", "P", "L", "1"])
def test_every_kind_of_picture_becomes_rgb(tmp_path: Path, mode: str) -> None:
    suffix = "jpg" if mode == "CMYK" else "png"
    path = saved(tmp_path / f"x.{suffix}", Image.new("RGB", (16, 16), "white").convert(mode))
    image = read_image(path)
    assert (image.mode, image.size) == ("RGB", (16, 16))
    assert np.asarray(image).min() > 250


@pytest.mark.parametrize("reader", [read_image, read_mask, upright_size])
def test_what_is_no_picture_is_one_clear_line(tmp_path: Path, reader: object) -> None:
    path = tmp_path / "broken.png"
    path.write_bytes(b"words")
    with pytest.raises(DatasetError, match=r"broken\.png: unreadable (image|mask)") as caught:
        reader(path)  # type: ignore[operator]
    assert "\n" not in str(caught.value)


def test_a_truncated_picture_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "half.jpg"
    whole = picture(size=(64, 64), form="JPEG")
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DatasetError, match=r"half\.jpg"):
        read_image(path)


def test_sizes_that_differ_are_counted(tmp_path: Path) -> None:
    change = {f"masks/{n}.png": picture(size=(5, 4)) for n in "bc"}
    pairs = find_pairs(write_folder(tmp_path, files() | change))
    with pytest.raises(DatasetError, match=r"2 masks differ.*first is b: image 12x8, mask 5x4"):
        check_sizes(pairs)


def test_a_member_names_its_archive(tmp_path: Path) -> None:
    content = files() | {"images/a.png": b"words"}
    broken: Source = find_pairs(write_archive(tmp_path / "set.tar", content))[0].image
    with pytest.raises(DatasetError, match=r"set\.tar:images/a\.png: unreadable"):
        read_image(broken)


def smooth(seed: int, size: tuple[int, int] = (120, 90)) -> Image.Image:
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
    a = make_set(tmp_path / "a", {"1.png": smooth(1), "2.png": smooth(2)})
    b = make_set(tmp_path / "b", {"x.jpg": smooth(2, (240, 180)), "y.png": smooth(3)})
    union = find_union([a, b])
    assert [p.name for p in union.pairs] == ["a/1", "a/2", "b/y"]
    assert union.dropped == [("b/x", "a/2")]


def test_a_test_set_is_kept_out(tmp_path: Path) -> None:
    a = make_set(tmp_path / "a", {"1.png": smooth(1), "2.png": smooth(2)})
    test = make_set(tmp_path / "test", {"secret.jpg": smooth(1)})
    union = find_union([a], without=[test])
    assert [p.name for p in union.pairs] == ["2"]
    assert union.dropped == [("a/1", "test/secret")]


def test_one_set_stays_as_it_is(tmp_path: Path) -> None:
    a = make_set(tmp_path / "a", {"1.png": smooth(1), "again.png": smooth(1)})
    union = find_union([a])
    assert [p.name for p in union.pairs] == ["1", "again"]
    assert union.dropped == []


def test_nothing_left_is_an_error(tmp_path: Path) -> None:
    a = make_set(tmp_path / "a", {"1.png": smooth(1)})
    test = make_set(tmp_path / "test", {"1.png": smooth(1)})
    with pytest.raises(DatasetError, match="every picture duplicates"):
        find_union([a], without=[test])


def test_two_sets_of_one_name_are_refused(tmp_path: Path) -> None:
    sets = [make_set(tmp_path / d / "set", {"1.png": smooth(i)}) for i, d in enumerate("ab")]
    with pytest.raises(DatasetError, match="two datasets have the name set"):
        find_union(sets)


def test_unrelated_pictures_are_far_apart() -> None:
    hashes = [difference_hash(smooth(i)) for i in range(40)]
    distances = [
        int(np.bitwise_count(a ^ b).sum()) for i, a in enumerate(hashes) for b in hashes[:i]
    ]
    assert min(distances) > 2 * NEAR


def test_progress_counts_every_picture(tmp_path: Path) -> None:
    a = make_set(tmp_path / "a", {"1.png": smooth(1)})
    b = make_set(tmp_path / "b", {"2.png": smooth(2), "3.png": smooth(3)})
    notes: list[tuple[int, int]] = []
    find_union([a, b], on_progress=lambda done, total: notes.append((done, total)))
    assert notes == [(1, 3), (2, 3), (3, 3)]
