import subprocess
import sys
import zlib
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from eyeline.errors import MediaError, OutputError
from eyeline.saliency.maps import open_map_sink, quantise, read_maps

SINKS = [("maps/", 8), ("maps/", 16), ("m.npz", 8), ("m.mkv", 8), ("m.mkv", 16)]


def random_maps(count=3, shape=(33, 47)):
    return list(np.random.default_rng(7).random((count, *shape), np.float32))


def write(path, maps, depth=8, first=0):
    with open_map_sink(path, depth=depth, fps=25) as sink:
        for index, saliency in enumerate(maps, first):
            sink.write(index, index / 25, saliency)


@pytest.mark.parametrize(
    ("value", "depth", "expected"),
    [
        (0, 8, 0),
        (1, 8, 255),
        (0.5, 8, 128),
        (0.5, 16, 32768),
        (1, 16, 65535),
        (-0.1, 8, 0),
        (2, 8, 255),
    ],
)
def test_quantising_rounds_half_up_and_clips(value, depth, expected):
    assert quantise(np.full((1, 1), value, np.float32), depth)[0, 0] == expected


@pytest.mark.parametrize(("where", "depth"), SINKS)
@settings(max_examples=12)
@given(
    saliency=hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=40),
        elements=st.floats(0, 1, width=32),
    )
)
def test_maps_come_back_within_half_a_level(tmp_path_factory, where, depth, saliency):
    path = f"{tmp_path_factory.mktemp('maps')}/{where}"
    write(path, [saliency], depth)
    ((index, back),) = read_maps(path)
    assert index == 0
    assert back.dtype == np.float32
    assert back.shape == saliency.shape
    slack = 0 if where.endswith("npz") else 0.5 / (2**depth - 1) + 1e-7
    assert np.abs(back - saliency).max() <= slack


@pytest.mark.parametrize(("where", "depth"), SINKS)
def test_frame_numbers_come_back(tmp_path, where, depth):
    write(f"{tmp_path}/{where}", random_maps(), depth, first=100)
    assert [index for index, _ in read_maps(f"{tmp_path}/{where}")] == [100, 101, 102]


def test_npz_opens_with_numpy_by_frame_number(tmp_path):
    maps = random_maps()
    write(tmp_path / "m.npz", maps, first=123)
    with np.load(tmp_path / "m.npz") as members:
        assert np.array_equal(members["000124"], maps[1])
        assert members["000124"].dtype == np.float32


def test_png_of_16_bits_is_big_endian_in_the_file(tmp_path):
    write(tmp_path / "maps", [np.full((1, 1), 0x1234 / 65535, np.float32)], 16)
    data = (tmp_path / "maps" / "000000.png").read_bytes()
    header = data.index(b"IHDR") + 4
    assert data[header + 8 : header + 10] == bytes([16, 0])  # bit depth, grey
    body = data.index(b"IDAT")
    length = int.from_bytes(data[body - 4 : body], "big")
    assert zlib.decompress(data[body + 4 : body + 4 + length])[1:] == b"\x12\x34"


def test_maps_of_several_sizes_fit_in_a_folder_and_an_npz(tmp_path):
    maps = [*random_maps(1), *random_maps(1, (10, 12)), *random_maps(1)]
    for where in ("maps", "m.npz"):
        write(tmp_path / where, maps)
        assert [m.shape for _, m in read_maps(tmp_path / where)] == [(33, 47), (10, 12), (33, 47)]


def test_a_video_of_maps_has_one_size_and_no_gap(tmp_path):
    first, other = random_maps(1)[0], random_maps(1, (10, 12))[0]
    with open_map_sink(tmp_path / "m.mkv", fps=None) as sink:
        sink.write(5, 0.2, first)
        with pytest.raises(OutputError, match="frame 7 follows frame 5"):
            sink.write(7, 0.28, first)
        with pytest.raises(OutputError, match="frame 6 differs in size"):
            sink.write(6, 0.24, other)


@pytest.mark.parametrize("where", ["a.avi", "maps.png", "a.npy"])
def test_another_suffix_is_refused(tmp_path, where):
    with pytest.raises(OutputError, match="give a folder"):
        open_map_sink(tmp_path / where)


@pytest.mark.parametrize("where", ["no/maps", "no/m.npz", "no/m.mkv"])
def test_a_missing_folder_is_refused_before_the_first_frame(tmp_path, where):
    with pytest.raises(OutputError, match="No such file"):
        open_map_sink(tmp_path / where)


def test_a_folder_with_maps_is_refused(tmp_path):
    write(tmp_path / "maps", random_maps(1))
    with pytest.raises(OutputError, match=r"already holds maps, such as 000000\.png"):
        open_map_sink(tmp_path / "maps")


@pytest.mark.parametrize(("where", "depth"), SINKS)
def test_an_error_leaves_nothing(tmp_path, where, depth):
    with (
        pytest.raises(ZeroDivisionError),
        open_map_sink(f"{tmp_path}/{where}", depth=depth) as sink,
    ):
        sink.write(0, 0, random_maps(1)[0])
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("where", "depth"), SINKS)
def test_ctrl_c_keeps_what_was_finished(tmp_path, where, depth):
    with (
        pytest.raises(KeyboardInterrupt),
        open_map_sink(f"{tmp_path}/{where}", depth=depth) as sink,
    ):
        sink.write(0, 0, random_maps(1)[0])
        raise KeyboardInterrupt
    assert [index for index, _ in read_maps(f"{tmp_path}/{where}")] == [0]


def test_discarding_leaves_what_others_put_in_the_folder(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    sink = open_map_sink(tmp_path)
    sink.write(0, 0, random_maps(1)[0])
    sink.discard()
    assert [f.name for f in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("where", ["maps", "m.npz", "m.mkv"])
def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path, where):
    script = (
        "import resource, signal, sys\n"
        "import numpy as np\n"
        "from eyeline.errors import OutputError\n"
        "from eyeline.saliency.maps import open_map_sink\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))\n"
        "noise = np.random.default_rng(0)\n"
        "try:\n"
        "    with open_map_sink(sys.argv[1]) as sink:\n"
        "        for i in range(5): sink.write(i, i / 25, noise.random((200, 300), np.float32))\n"
        "except OutputError as exc: print(exc); sys.exit(7)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / where)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 7, done.stderr
    assert "can't be written: File too large" in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("where", "depth"), [("m.npz", 8), ("m.mkv", 8)])
def test_a_file_that_was_cut_is_refused(tmp_path, where, depth):
    write(tmp_path / where, random_maps(), depth)
    data = (tmp_path / where).read_bytes()
    (tmp_path / where).write_bytes(data[:60])
    with pytest.raises(MediaError, match=f"{where}: can't be read as maps"):
        list(read_maps(tmp_path / where))


def test_an_empty_folder_holds_no_maps(tmp_path):
    with pytest.raises(MediaError, match="holds no maps"):
        list(read_maps(tmp_path))


@pytest.mark.parametrize("size", [(1, 1), (17, 33), (272, 640), (720, 1280)])
@pytest.mark.parametrize("depth", [8, 16])
def test_ffv1_takes_every_size(
    tmp_path: Path, size: tuple[int, int], depth: Literal[8, 16]
) -> None:
    """FFmpeg's FFV1 refuses a single slice above 352x288: small clips alone don't show it."""
    path = tmp_path / "maps.mkv"
    saliency = np.random.default_rng(0).random(size, np.float32)
    with open_map_sink(path, depth=depth, fps=25) as sink:
        sink.write(0, 0.0, saliency)
    [(index, back)] = list(read_maps(path))
    assert index == 0
    assert np.abs(back - saliency).max() <= 0.51 / (2**depth - 1)
