"""Fixation sets: valid rows, problems and errors; and the density of gaze."""

import gzip
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from clips import moving, write_clip
from shared import SHARED

pytest.importorskip("PIL")
from PIL import Image
from sets import picture, write_archive, write_folder

from eyeline.datasets import fixations
from eyeline.datasets.files import local_path
from eyeline.datasets.fixations import (
    DEFAULT_SIGMA,
    Fixations,
    FixationSet,
    gaze_density,
    is_fixation_set,
    load_fixation_set,
    read_fixations,
    sigma_of,
)
from eyeline.datasets.pairs import read_image
from eyeline.errors import DatasetError

IMAGES = """image,viewer,x,y,duration_ms
b,anna,0.25,0.5,200
a,ben,0,0,100
b,ben,0.75,0.125,300
a,anna,0.5,0.5,150
"""
VIDEOS = """video,viewer,onset_ms,duration_ms,x,y
clip,anna,0,120,32,12
clip,ben,40,200,16,24
"""
WRITERS = {"set": write_folder, "set.tar": write_archive, "set.zip": write_archive}


def image_set(table: str | bytes = IMAGES, name: str = "fixations.csv") -> dict[str, bytes]:
    text = table.encode() if isinstance(table, str) else table
    return {"images/a.png": picture(0), "images/b.png": picture(1, (8, 8)), name: text}


def load(tmp_path: Path, content: Mapping[str, bytes], name: str = "set") -> FixationSet:
    return load_fixation_set(WRITERS[name](tmp_path / name, dict(content)))


def with_rows(*rows: str) -> str:
    return IMAGES + "".join(f"{row}\n" for row in rows)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """64x48, 25 frames at 25 frames per second: one second."""
    path = tmp_path_factory.mktemp("clip") / "clip.mkv"
    return write_clip(path, moving(25)).read_bytes()


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("wrapper", ["", "mine/"])
@pytest.mark.parametrize("packed", [False, True])
def test_images_read_alike_in_every_packing(
    tmp_path: Path, name: str, wrapper: str, packed: bool
) -> None:
    text = IMAGES.encode()
    table = image_set(gzip.compress(text), "fixations.csv.gz") if packed else image_set()
    found = load(tmp_path, {wrapper + k: v for k, v in table.items()}, name)
    assert (found.name, found.kind, found.viewers) == ("set", "images", ("anna", "ben"))
    assert [(s.name, s.size) for s in found.stimuli] == [("a", (12, 8)), ("b", (8, 8))]
    a = found.stimuli[0].fixations
    assert a.viewer.tolist() == [1, 0]
    assert (a.x.tolist(), a.y.tolist()) == ([0, 0.5], [0, 0.5])
    assert (a.onset_ms.tolist(), a.duration_ms.tolist()) == ([0, 0], [100, 150])
    assert found.problems == ()
    assert read_image(found.stimuli[1].source).size == (8, 8)
    assert found.digest == load(tmp_path / "plain", image_set()).digest


@pytest.mark.parametrize("name", WRITERS)
def test_videos_are_probed_and_their_pixels_become_fractions(
    tmp_path: Path, name: str, clip: bytes
) -> None:
    found = load(tmp_path, {"videos/clip.mkv": clip, "fixations.csv": VIDEOS.encode()}, name)
    (video,) = found.stimuli
    assert (found.kind, video.size, video.fps, video.duration_ms) == ("videos", (64, 48), 25, 1000)
    gaze = video.fixations
    assert (gaze.x.tolist(), gaze.y.tolist()) == ([0.5, 0.25], [0.25, 0.5])
    assert gaze.active_at(119).viewer.tolist() == [0, 1]
    assert gaze.active_at(120).viewer.tolist() == [1]


@pytest.mark.parametrize("name", WRITERS)
def test_a_stimulus_has_a_path_while_it_is_read(tmp_path: Path, name: str, clip: bytes) -> None:
    found = load(tmp_path, {"videos/clip.mkv": clip, "fixations.csv": VIDEOS.encode()}, name)
    with local_path(found.stimuli[0].source) as path:
        assert path.name == "clip.mkv"
        assert path.read_bytes() == clip
    assert path.exists() == (name == "set")


def test_the_digest_follows_the_table_and_every_file(tmp_path: Path) -> None:
    digests = {
        load(tmp_path / str(i), content).digest
        for i, content in enumerate(
            (
                image_set(),
                image_set(with_rows("a,anna,0.1,0.1,1")),
                image_set() | {"images/b.png": picture(2, (8, 8))},
                image_set() | {"images/c.png": picture(0)},
            )
        )
    }
    assert len(digests) == 4


def test_columns_may_be_absent_reordered_and_more(tmp_path: Path) -> None:
    table = "\ufeffY, X ,pupil,Viewer,image\r\n0.5,0.25,3.1,anna,a\r\n"
    found = load(tmp_path, image_set(table))
    gaze = found.stimuli[0].fixations
    assert (gaze.x[0], gaze.y[0]) == (0.25, 0.5)
    assert np.isnan(gaze.duration_ms[0])


@pytest.mark.parametrize(
    ("rows", "kind", "example"),
    [
        (("a,anna,1,0.5,1",), "outside the picture", "a, line 6: x = 1"),
        (("a,anna,0.5,-0.01,1",), "outside the picture", "a, line 6: y = -0.01"),
        (("a,anna,nan,0.5,1",), "not a finite number", "a, line 6: x = nan"),
        (("a,anna,0.5,inf,1",), "not a finite number", "a, line 6: y = inf"),
        (("a,anna,left,0.5,1",), "not a number", "a, line 6: x = 'left'"),
        (("a,anna,,0.5,1",), "not a number", "a, line 6: x = ''"),
        (("a,anna,0.5,0.5,-3",), "negative duration_ms", "a, line 6: duration_ms = -3"),
        (("d,anna,0.5,0.5,1",), "unknown image", "d, line 6: the set has no image 'd'"),
        (("a,,0.5,0.5,1",), "no viewer", "a, line 6: the cell viewer is empty"),
        (("a,anna,0.5",), "wrong number of cells", "a, line 6: 3 cells, expected 5"),
        (("a,carl,2,0.5,1",), "viewer without valid fixations", "carl"),
    ],
)
def test_a_bad_row_is_left_out_counted_and_named(
    tmp_path: Path, rows: tuple[str, ...], kind: str, example: str
) -> None:
    found = load(tmp_path, image_set(with_rows(*rows, "a,anna,0.5,0.5,7")))
    problem = next(p for p in found.problems if p.kind == kind)
    assert (problem.count, problem.examples) == (1, (example,))
    assert found.stimuli[0].fixations.duration_ms.tolist() == [100, 150, 7]


def test_an_image_that_nobody_looked_at_is_named(tmp_path: Path) -> None:
    found = load(tmp_path, image_set() | {"images/c.png": picture()})
    assert [(p.kind, p.examples) for p in found.problems] == [
        ("image without valid fixations", ("c",))
    ]
    assert len(found.stimuli[2].fixations) == 0


def test_many_bad_rows_are_one_problem_with_few_examples(tmp_path: Path) -> None:
    found = load(tmp_path, image_set(with_rows(*["a,anna,5,0.5,1"] * 100)))
    (problem,) = found.problems
    assert problem.count == 100
    assert len(problem.examples) < 10


def test_a_table_of_pictures_of_another_size(tmp_path: Path) -> None:
    table = "image,viewer,x,y,width,height\na,anna,0.5,0.5,12,8\nb,anna,0.5,0.5,8,9\n"
    found = load(tmp_path, image_set(table))
    assert [(p.kind, p.examples) for p in found.problems] == [
        ("height differs from the image's", ("b, line 3: 9 in the table, 8 in the file",)),
        ("image without valid fixations", ("b",)),
    ]


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        ("clip,anna,1000,10,1,1", "after the end of the video"),
        ("clip,anna,-1,10,1,1", "negative onset_ms"),
        ("clip,anna,0,10,64,1", "outside the picture"),
        ("other,anna,0,10,1,1", "unknown video"),
    ],
)
def test_a_bad_row_of_a_video(tmp_path: Path, clip: bytes, row: str, kind: str) -> None:
    table = f"{VIDEOS}{row}\nclip,anna,999,500,63.9,47.9\n"
    found = load(tmp_path, {"videos/clip.mkv": clip, "fixations.csv": table.encode()})
    assert [(p.kind, p.count) for p in found.problems] == [(kind, 1)]
    assert len(found.stimuli[0].fixations) == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fixations.csv": None}, "no fixation table"),
        ({"fixations.csv.gz": gzip.compress(IMAGES.encode())}, "two fixation tables"),
        ({"images/a.png": None, "images/b.png": None}, "no images in images/ and no videos"),
        ({"videos/clip.mkv": b"x"}, "contains both images/ and videos/"),
        ({"images/a.webp": picture(form="WEBP")}, "two files in images have the name 'a'"),
        ({"images/a.png": b"words"}, r"images.a\.png: unreadable image"),
        ({"fixations.csv": b""}, "has no column image or viewer or x or y"),
        ({"fixations.csv": IMAGES.replace(",", ";").encode()}, "its first line is 'image;viewer"),
        ({"fixations.csv": b"image,viewer,x,y,x\n"}, "two columns named x"),
        ({"fixations.csv": b"image,viewer,x,y\n"}, "has no valid fixation"),
        (
            {"fixations.csv": b"image,viewer,x,y\na,b,2,2\n"},
            "1 x outside the picture: a, line 2: x = 2",
        ),
        ({"fixations.csv": b"image,viewer,x,y\na,\xff,0,0\n"}, "line 2 is not UTF-8"),
        ({"fixations.csv": b"\x1f\x8bwords"}, "can't be unpacked"),
        ({"fixations.csv": gzip.compress(IMAGES.encode())[:-20]}, "can't be unpacked"),
        (
            {"fixations.csv": b"image,viewer,x,y\n" + b"a" * 70_000},
            "line 2 has more than the allowed 65,536",
        ),
    ],
)
@pytest.mark.parametrize("name", WRITERS)
def test_what_ends_the_run(
    tmp_path: Path, name: str, change: dict[str, bytes | None], message: str
) -> None:
    content = {k: v for k, v in (image_set() | change).items() if v is not None}
    with pytest.raises(DatasetError, match=message) as caught:
        load(tmp_path, content, name)
    assert "\n" not in str(caught.value)


def test_a_video_that_is_none(tmp_path: Path) -> None:
    content = {"videos/clip.mkv": b"words", "fixations.csv": VIDEOS.encode()}
    with pytest.raises(DatasetError, match=r"clip\.mkv: unreadable video"):
        load(tmp_path, content)


def test_two_sets_in_one_folder(tmp_path: Path) -> None:
    content = {f"{top}/{k}": v for top in ("one", "two") for k, v in image_set().items()}
    with pytest.raises(DatasetError, match="contains several datasets: one, two"):
        load(tmp_path, content)


def test_a_table_that_swells_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fixations, "MAX_TABLE_BYTES", 10_000)
    bomb = gzip.compress(with_rows(*["a,anna,0.5,0.5,1"] * 10_000).encode())
    with pytest.raises(DatasetError, match="more than the allowed 10,000 bytes after unpacking"):
        load(tmp_path, image_set(bomb, "fixations.csv.gz"))


@pytest.mark.parametrize("name", WRITERS)
def test_a_set_is_told_from_others(tmp_path: Path, name: str) -> None:
    masks = {f"{folder}/a.png": picture() for folder in ("images", "masks")}
    for i, (content, expected) in enumerate(((image_set(), True), (masks, False))):
        folder = tmp_path / str(i)
        folder.mkdir()
        assert is_fixation_set(WRITERS[name](folder / name, content)) == expected


def test_no_set_at_all(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no such dataset"):
        is_fixation_set(tmp_path / "nowhere")


def test_the_shown_size_of_a_turned_picture_counts(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "set", image_set())
    exif = Image.Exif()
    exif[0x0112] = 6  # shown after a quarter turn clockwise
    Image.new("RGB", (40, 24)).save(root / "images/a.png", exif=exif)
    assert load_fixation_set(root).stimuli[0].size == (24, 40)


def test_one_video_from_a_table_alone(tmp_path: Path) -> None:
    table = tmp_path / "gaze.csv"
    table.write_text(VIDEOS + "other,carl,0,100,1,1\nclip,dora,2000,100,1,1\n")
    found = read_fixations(table, "clip", (64, 48), 1000)
    assert found.viewers == ("anna", "ben")
    assert found.fixations.x.tolist() == [0.5, 0.25]
    assert [p.kind for p in found.problems] == [
        "after the end of the video",
        "viewer without valid fixations",
    ]


def test_a_table_without_names_belongs_to_the_video(tmp_path: Path) -> None:
    table = tmp_path / "gaze.csv"
    table.write_text(VIDEOS.replace("video,", "").replace("clip,", ""))
    assert len(read_fixations(table, "any", (64, 48)).fixations) == 2


def test_a_table_of_other_videos_lists_their_names(tmp_path: Path) -> None:
    table = tmp_path / "gaze.csv"
    table.write_text(VIDEOS)
    with pytest.raises(
        DatasetError, match=r"no fixations on the video 'clip2'; its column video names 'clip'"
    ):
        read_fixations(table, "clip2", (64, 48))


@pytest.mark.parametrize(
    ("name", "kind", "stimuli", "viewers", "count", "problems"),
    [
        ("osie", "images", 700, 15, 98_321, ()),
        ("crowd", "images", 500, 16, 126_345, (("outside the picture", 3),)),
        ("scene", "images", 500, 12, 43_894, ()),
        ("hevc-dev", "videos", 5, 32, 4_167, ()),
    ],
)
@pytest.mark.skipif(not (SHARED / "gaze").exists(), reason="needs ../shared/data/gaze")
def test_published_sets(
    name: str, kind: str, stimuli: int, viewers: int, count: int, problems: tuple[object, ...]
) -> None:
    found = load_fixation_set(SHARED / f"gaze/{name}.tar")
    assert (found.kind, len(found.stimuli), len(found.viewers)) == (kind, stimuli, viewers)
    assert sum(len(s.fixations) for s in found.stimuli) == count
    assert tuple((p.kind, p.count) for p in found.problems) == problems


def gaze_at(*places: tuple[float, float]) -> Fixations:
    x, y = (np.array(axis, float) for axis in zip(*places, strict=True))
    n = len(x)
    return Fixations(np.arange(n), x, y, np.zeros(n), np.full(n, 200.0))


def test_one_fixation_is_a_gaussian_around_it() -> None:
    width, height, sigma = 80, 50, 0.05
    found = gaze_density(gaze_at((0.25, 0.6)), width, height, sigma)
    x, y = np.arange(width) + 0.5 - 20, np.arange(height) + 0.5 - 30
    expected = np.exp(-0.5 * (x[None] ** 2 + y[:, None] ** 2) / (sigma * width) ** 2)
    np.testing.assert_allclose(found, expected / expected.sum(), rtol=1e-5, atol=1e-12)


def test_it_sums_to_one_at_any_place() -> None:
    found = gaze_density(gaze_at((0.0, 0.0), (0.999, 0.5), (0.5, 0.2)), 64, 36)
    assert found.sum() == pytest.approx(1, abs=1e-5)
    assert found.min() >= 0


def test_every_fixation_counts_alike() -> None:
    places = [(0.3, 0.4), (0.5, 0.5), (0.6, 0.55)]
    both = gaze_density(gaze_at(*places), 64, 36, 0.02)
    each = [gaze_density(gaze_at(p), 64, 36, 0.02) for p in places]
    np.testing.assert_allclose(both, np.mean(each, axis=0), atol=1e-7)


def test_the_shape_does_not_depend_on_the_resolution() -> None:
    places = gaze_at((0.3, 0.4), (0.8, 0.5))
    fine = gaze_density(places, 256, 144)
    coarse = gaze_density(places, 128, 72)
    means = fine.reshape(72, 2, 128, 2).sum((1, 3))
    np.testing.assert_allclose(means, coarse, atol=0.01 * coarse.max())


def test_one_degree_is_taken_where_it_is_known() -> None:
    assert sigma_of(1920, None) == DEFAULT_SIGMA
    assert sigma_of(1920, 48) == pytest.approx(0.025)


def test_without_a_fixation_there_is_no_density() -> None:
    with pytest.raises(ValueError, match="fixations is empty"):
        gaze_density(gaze_at((0.5, 0.5)).select(np.zeros(1, bool)), 64, 36)


def test_a_gaussian_between_the_samples_does_not_vanish() -> None:
    found = gaze_density(gaze_at((0.5, 0.5), (0.5, 96.5 / 160)), 1, 160, 1e-6)
    assert found.sum() == pytest.approx(1, abs=1e-5)
    both = found[70:90].sum(), found[90:].sum()
    assert both[0] == pytest.approx(both[1], rel=0.2)  # on a sample's edge, and in its middle
