"""Importers: files in the authors' own formats become fixation sets, to the fixation."""

import gzip
import io
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from clips import moving, write_clip

pytest.importorskip("PIL")
pytest.importorskip("scipy")
pytest.importorskip("h5py")
import h5py
from scipy.io import savemat
from sets import picture, write_archive, write_folder

import commands
from eyeline.datasets import importers
from eyeline.datasets.importers import LAYOUTS, find_layout, import_set
from eyeline.errors import DatasetError, OutputError

Files = dict[str, bytes]


def cells(*values: object) -> np.ndarray:
    """A MATLAB cell array with one column."""
    array = np.empty((len(values), 1), object)
    array[:, 0] = values
    return array


def saved(compressed: bool = True, **variables: object) -> bytes:
    buffer = io.BytesIO()
    savemat(buffer, variables, do_compression=compressed)
    return buffer.getvalue()


def structs(stem: str = "data/eye", **changes: np.ndarray) -> Files:
    """Two images of 12x8 pixels; the second viewer saw only the second one."""

    def viewer(x: list[float], y: list[float], ms: list[int]) -> dict[str, np.ndarray]:
        parts = {"fix_x": np.array([x]), "fix_y": np.array([y])}
        return parts | {"fix_duration": np.array([ms], np.uint16)} | changes

    first = {
        "img": "1.jpg",
        "subjects": cells(viewer([3, 6.6], [2, 4], [200, 150]), viewer([], [], [])),
    }
    second = {"img": "2.jpg", "subjects": cells(viewer([9], [6], [99]), viewer([0], [0], [70]))}
    return {
        "data/stimuli/1.jpg": picture(1, form="JPEG"),
        "data/stimuli/2.jpg": picture(2, form="JPEG"),
        f"{stem}/fixations.mat": saved(fixations=cells(first, second)),
    }


def matrices() -> Files:
    table = np.empty((2, 2), object)
    table[0] = [np.array([[2, 3, 0.1, 0.2], [4, 6.6, 0.35, 0.15]]), np.zeros((0, 0))]
    table[1] = [np.array([[6, 9, 0.2, 0.099]]), np.array([[0, 0, 0.5, 0.07]])]
    return structs("data/tidy") | {"data/tidy/fixations.mat": saved(fixations=table)}


def sequences(rows: list[list[float]] | None = None) -> Files:
    """MATLAB 7.3: two names, of which the second one's file is written with a space."""
    names = ("Clip", "OtherClip")
    if rows is None:
        rows = [[6, 2, 1, 340, 32, 12], [6, 1, 268, 197, 16, 24], [9, 2, 40, 200, 0, 0]]
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", userblock_size=512) as file:
        group = file.create_group("video_database")
        refs = group.create_dataset("video_names_list", (1, len(names)), h5py.ref_dtype)
        for i, name in enumerate(names):
            text = np.array([[ord(c)] for c in name], np.uint16)
            refs[0, i] = file.create_dataset(f"#refs#/{i}", data=text).ref
        group["fixdata"] = np.array(rows, np.float64).T
    return {"video_database.mat": buffer.getvalue()}


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """64x48, one second."""
    return write_clip(
        tmp_path_factory.mktemp("clip") / "clip.avi", moving(25), "mpeg4"
    ).read_bytes()


@pytest.fixture
def source(clip: bytes) -> Callable[[str], Files]:
    """The authors' files by layout."""
    videos = {"videos/Clip.avi": clip, "videos/Other Clip.avi": clip}
    made = {
        "osie": structs(),
        "crowd": structs(),
        "scene": matrices(),
        "hevc": sequences() | videos,
    }
    return made.__getitem__


@pytest.mark.parametrize("layout", ["osie", "crowd", "scene"])
@pytest.mark.parametrize("name", ["in", "in.tar", "in.zip"])
@pytest.mark.parametrize("wrapper", ["", "repository-main/"])
def test_images(
    tmp_path: Path, layout: str, name: str, wrapper: str, source: Callable[[str], Files]
) -> None:
    content = {wrapper + k: v for k, v in source(layout).items()}
    write = write_archive if "." in name else write_folder
    found = import_set(layout, write(tmp_path / name, content), tmp_path / "out")
    assert found.problems == ()
    assert (found.name, found.viewers) == ("out", ("1", "2"))
    one, two = found.stimuli
    assert one.source == tmp_path / "out/images/1.jpg"
    assert (tmp_path / "out/images/1.jpg").read_bytes() == content[f"{wrapper}data/stimuli/1.jpg"]
    assert (one.fixations.x.tolist(), one.fixations.y.tolist()) == ([0.25, 0.55], [0.25, 0.5])
    assert one.fixations.duration_ms.tolist() == [200, 150]
    assert two.fixations.viewer.tolist() == [0, 1]
    assert two.fixations.duration_ms.tolist() == [99, 70]


@pytest.mark.parametrize("name", ["in", "in.tar", "in.zip"])
def test_videos(tmp_path: Path, name: str, source: Callable[[str], Files]) -> None:
    write = write_archive if "." in name else write_folder
    found = import_set("hevc", write(tmp_path / name, source("hevc")), tmp_path / "out")
    assert [s.name for s in found.stimuli] == ["Clip", "OtherClip"]
    assert found.viewers == ("6", "9")
    gaze = found.stimuli[1].fixations
    assert (gaze.x.tolist(), gaze.y.tolist()) == ([0.5, 0], [0.25, 0])
    assert (gaze.onset_ms.tolist(), gaze.duration_ms.tolist()) == ([1, 40], [340, 200])
    text = gzip.decompress((tmp_path / "out/fixations.csv.gz").read_bytes()).decode()
    assert text.splitlines()[:2] == [
        "video,viewer,onset_ms,duration_ms,x,y",
        "OtherClip,6,1,340,32,12",
    ]


def test_bad_rows_are_kept_and_reported(tmp_path: Path, clip: bytes) -> None:
    rows = [
        [1, 1, 0, 10, 1, 1],
        [1, 2, 0, 10, 1, 1],
        [1, np.nan, 0, 10, 1, 1],
        [1, 3, 0, 10, 1, 1],
        [1, 1, 1000, 10, 1, 1],
        [1, 1, 0, 10, 64, 1],
    ]
    content = sequences(rows) | {f"videos/{name}.avi": clip for name in ("Clip", "OtherClip")}
    found = import_set("hevc", write_folder(tmp_path / "in", content), tmp_path / "out")
    assert [(p.kind, p.count) for p in found.problems] == [
        ("unknown video", 2),
        ("after the end of the video", 1),
        ("outside the picture", 1),
    ]


def test_equal_input_gives_equal_bytes(tmp_path: Path, source: Callable[[str], Files]) -> None:
    root = write_folder(tmp_path / "in", source("osie"))
    tables = []
    for name in ("a", "b"):
        import_set("osie", root, tmp_path / name)
        tables.append((tmp_path / name / "fixations.csv.gz").read_bytes())
        os.utime(root / "data/eye/fixations.mat", (1, 1))
    assert tables[0] == tables[1]


@pytest.mark.parametrize(
    ("layout", "change", "message"),
    [
        (
            "osie",
            {"data/eye/fixations.mat": None},
            "not contain data/eye.* images in data/stimuli/",
        ),
        ("osie", {"data/stimuli/1.jpg": None}, "1 images with fixations are missing in .* is '1'"),
        ("osie", {"data/stimuli/1.jpg": b"words"}, "unreadable image"),
        (
            "osie",
            {"data/eye/fixations.mat": b"words" * 99},
            "is not a MATLAB file of the layout",
        ),
        ("osie", {"data/eye/fixations.mat": saved(other=1)}, "is not a MATLAB file of the layout"),
        (
            "osie",
            {"data/eye/fixations.mat": saved(fixations=1)},
            "is not a MATLAB file of the layout",
        ),
        ("osie", structs(fix_x=np.array([[1.0, 2, 3]])), "is not a MATLAB file of the layout"),
        ("osie", matrices(), "does not contain data/eye"),
        (
            "scene",
            {"data/stimuli/3.jpg": picture(form="JPEG")},
            "the file has 2 images, but the folder has 3",
        ),
        ("hevc", {"video_database.mat": b"words" * 99}, "is not a MATLAB file of the layout"),
        (
            "hevc",
            sequences([[1, 1, 0, 10, 1]]),
            r"fixdata has the shape \(1, 5\), expected \(rows, 6\)",
        ),
    ],
)
def test_what_is_no_such_set_is_refused_and_leaves_nothing(
    tmp_path: Path,
    layout: str,
    change: dict[str, bytes | None],
    message: str,
    source: Callable[[str], Files],
) -> None:
    base = {} if message == "does not contain data/eye" else source(layout)
    content = {k: v for k, v in (base | change).items() if v is not None}
    root = write_folder(tmp_path / "in", content)
    with pytest.raises(DatasetError, match=message) as caught:
        import_set(layout, root, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


def test_a_file_that_swells_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = structs() | {"data/eye/fixations.mat": saved(fixations=np.zeros(200_000))}
    assert len(content["data/eye/fixations.mat"]) < 10_000
    monkeypatch.setattr(importers, "MAX_BYTES", 1_000_000)
    with pytest.raises(DatasetError, match="more than the allowed 1,000,000 bytes"):
        import_set("osie", write_folder(tmp_path / "in", content), tmp_path / "out")


@pytest.mark.parametrize("name", ["in.tar", "in.zip"])
def test_a_name_that_leads_out_of_the_archive_is_refused(tmp_path: Path, name: str) -> None:
    content = structs() | {"data/stimuli/../../../evil.jpg": picture()}
    with pytest.raises(DatasetError, match="leads out of the archive"):
        import_set("osie", write_archive(tmp_path / name, content), tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_a_folder_that_is_there_is_left_alone(
    tmp_path: Path, source: Callable[[str], Files]
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine").write_text("words")
    with pytest.raises(OutputError, match="exists already"):
        import_set("osie", write_folder(tmp_path / "in", source("osie")), tmp_path / "out")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["mine"]


def test_an_unknown_layout_lists_the_known() -> None:
    with pytest.raises(DatasetError, match="choose one of: osie, crowd, scene, hevc"):
        find_layout("salicon")


def test_every_layout_is_in_the_catalogue() -> None:
    from eyeline.datasets.catalogue import catalogue

    assert catalogue().keys() >= LAYOUTS.keys()


command = partial(commands.run, "data")


def test_the_command_shows_the_terms_first_and_needs_a_yes(
    tmp_path: Path, source: Callable[[str], Files]
) -> None:
    root, out = write_folder(tmp_path / "in", source("osie")), tmp_path / "out"
    refused = command("import", "osie", root, "-o", out)
    assert refused.returncode == 2
    assert refused.stderr.index("terms: MIT") < refused.stderr.index("add --yes")
    assert not out.exists()
    done = command("import", "osie", root, "-o", out, "--yes")
    assert done.returncode == 0
    assert "out: 2 images, 2 viewers, 4 fixations" in done.stdout


def test_check_counts_what_a_set_holds_and_what_is_wrong(tmp_path: Path) -> None:
    table = b"image,viewer,x,y\na,anna,0.5,0.5\na,anna,1.5,0.5\n"
    gaze = write_folder(tmp_path / "gaze", {"images/a.png": picture(), "fixations.csv": table})
    done = command("check", gaze)
    assert done.returncode == 0
    assert "gaze: 1 images, 1 viewers, 1 fixations" in done.stdout
    assert "1 x outside the picture: a, line 3: x = 1.5" in done.stdout
    masks = {f"{folder}/a.png": picture() for folder in ("images", "masks")}
    assert "1 images with masks" in command("check", write_folder(tmp_path / "set", masks)).stdout
    lonely = command("check", write_folder(tmp_path / "bad", {"images/a.png": picture()}))
    assert lonely.returncode == 2
