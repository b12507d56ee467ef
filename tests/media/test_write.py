import os
import signal
import subprocess
import sys
from fractions import Fraction

import av
import numpy as np
import pytest

from eyeline.errors import DamagedMediaError, OutputError
from eyeline.media.write import FFV1_GRAY8, FFV1_GRAY16, H264, VideoWriter, encodable_size

KR, KB = 0.2126, 0.0722  # ITU-R BT.709-6


def bt709_limited(rgb):
    """Full-range RGB 0..255 to limited YCbCr, 8 bits, in floats."""
    r, g, b = (c / 255 for c in rgb)
    y = KR * r + (1 - KR - KB) * g + KB * b
    cb, cr = (b - y) / 2 / (1 - KB), (r - y) / 2 / (1 - KR)
    return 16 + 219 * y, 128 + 224 * cb, 128 + 224 * cr


def write_solid(path, rgb=(200, 30, 60), size=(64, 48), times=(0, 0.04, 0.08), **options):
    picture = np.full((size[1], size[0], 3), rgb, np.uint8)
    with VideoWriter(path, *size, **options) as writer:
        for time in times:
            writer.write(picture, time)


def decode(path):
    with av.open(str(path)) as container:
        return list(container.decode(video=0))


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_h264_plays_everywhere(tmp_path, suffix):
    write_solid(tmp_path / f"a.{suffix}", fps=Fraction(30000, 1001))
    with av.open(str(tmp_path / f"a.{suffix}")) as container:
        codec = container.streams.video[0].codec_context
        assert codec.name == "h264"
        assert codec.profile == "High"
        assert codec.pix_fmt == "yuv420p"
        tags = (codec.color_range, codec.colorspace, codec.color_primaries, codec.color_trc)
        assert tags == (1, 1, 1, 1)  # limited, BT.709 three times
        assert len(list(container.decode(video=0))) == 3


def test_mp4_has_its_index_in_front(tmp_path):
    write_solid(tmp_path / "a.mp4")
    data = (tmp_path / "a.mp4").read_bytes()
    assert 0 < data.index(b"moov") < data.index(b"mdat")


@pytest.mark.parametrize(
    "rgb", [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (9, 99, 180)]
)
def test_rgb_becomes_bt709_limited(tmp_path, rgb):
    write_solid(tmp_path / "a.mp4", rgb)
    frame = decode(tmp_path / "a.mp4")[0]
    for plane, expected in zip(frame.planes, bt709_limited(rgb), strict=True):
        samples = np.frombuffer(plane, np.uint8).reshape(plane.height, -1)[:, : plane.width]
        assert np.abs(samples - expected).max() <= 2


@pytest.mark.parametrize(("suffix", "tick"), [("mp4", 1 / 90000), ("mkv", 1 / 1000)])
def test_a_variable_frame_rate_keeps_its_timestamps(tmp_path, suffix, tick):
    times = [0, 1001 / 30000, 0.2, 0.2417, 1.7, 1.75]
    write_solid(tmp_path / f"a.{suffix}", times=times)
    got = [frame.time for frame in decode(tmp_path / f"a.{suffix}")]
    assert np.abs(np.subtract(got, times)).max() <= tick * 0.51


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_time_that_stands_still_or_runs_back_moves_on_a_tick(tmp_path, suffix):
    write_solid(tmp_path / f"a.{suffix}", times=[0.04, 0.04, 0.01, 0.12])
    got = [frame.time for frame in decode(tmp_path / f"a.{suffix}")]
    assert got == sorted(set(got))
    assert len(got) == 4
    assert got[3] == pytest.approx(0.12, abs=1e-3)


def test_an_odd_size_loses_its_last_column_and_row(tmp_path):
    picture = np.zeros((49, 65, 3), np.uint8)
    picture[:48, :64] = 255
    with VideoWriter(tmp_path / "a.mp4", 65, 49) as writer:
        writer.write(picture, 0)
    (frame,) = decode(tmp_path / "a.mp4")
    assert (frame.width, frame.height) == encodable_size(65, 49, H264) == (64, 48)
    assert frame.to_ndarray()[:48].min() >= 233  # white throughout: nothing was scaled


@pytest.mark.parametrize(("encoding", "dtype"), [(FFV1_GRAY8, np.uint8), (FFV1_GRAY16, np.uint16)])
def test_grey_is_lossless_at_odd_sizes(tmp_path, encoding, dtype):
    maps = np.random.default_rng(1).integers(0, np.iinfo(dtype).max, (4, 33, 47)).astype(dtype)
    with VideoWriter(tmp_path / "a.mkv", 47, 33, encoding=encoding) as writer:
        for i, samples in enumerate(maps):
            writer.write(samples, i / 25)
    frames = decode(tmp_path / "a.mkv")
    assert {frame.format.name for frame in frames} == {encoding.pix_fmt}
    assert {frame.color_range for frame in frames} == {2}  # full
    assert np.array_equal(np.stack([frame.to_ndarray() for frame in frames]), maps)


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_the_same_frames_give_the_same_bytes(tmp_path, suffix):
    write_solid(tmp_path / f"a.{suffix}")
    write_solid(tmp_path / f"b.{suffix}")
    assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), DamagedMediaError("cut", frames=2)])
def test_what_was_finished_is_kept_when_a_run_is_stopped(tmp_path, stop):
    with pytest.raises(type(stop)), VideoWriter(tmp_path / "a.mp4", 64, 48) as writer:
        for i in range(2):
            writer.write(np.zeros((48, 64, 3), np.uint8), i / 25)
        raise stop
    assert len(decode(tmp_path / "a.mp4")) == 2


def test_any_other_error_leaves_nothing(tmp_path):
    with pytest.raises(ZeroDivisionError), VideoWriter(tmp_path / "a.mp4", 64, 48) as writer:
        writer.write(np.zeros((48, 64, 3), np.uint8), 0)
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_no_frame_no_file(tmp_path):
    VideoWriter(tmp_path / "a.mp4", 64, 48).commit()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path, suffix):
    script = (
        "import resource, signal, sys\n"
        "import numpy as np\n"
        "from eyeline.errors import OutputError\n"
        "from eyeline.media.write import VideoWriter\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (40000, 40000))\n"
        "noise = np.random.default_rng(0)\n"
        "try:\n"
        "    with VideoWriter(sys.argv[1], 320, 240) as w:\n"
        "        for i in range(20):\n"
        "            w.write(noise.integers(0, 255, (240, 320, 3)).astype(np.uint8), i / 25)\n"
        "except OutputError as exc: print(exc); sys.exit(7)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / f"a.{suffix}")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 7, done.stderr
    assert f"a.{suffix}: can't be written: File too large" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_killed_run_leaves_no_file_of_that_name(tmp_path):
    script = (
        "import sys, time\n"
        "import numpy as np\n"
        "from eyeline.media.write import VideoWriter\n"
        "w = VideoWriter(sys.argv[1], 64, 48)\n"
        "for i in range(60): w.write(np.full((48, 64, 3), i, np.uint8), i / 25)\n"
        "print('written', flush=True)\n"
        "time.sleep(60)\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "a.mp4")], stdout=subprocess.PIPE
    )
    assert child.stdout.readline() == b"written\n"
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    assert not (tmp_path / "a.mp4").exists()


@pytest.mark.parametrize(
    ("name", "size", "words"),
    [
        ("a.avi", (64, 48), r"as \.avi \(use \.mp4 or \.mkv\)"),
        ("a", (64, 48), "without a suffix"),
        ("no/a.mp4", (64, 48), "No such file"),
        ("a.mp4", (1, 48), "1x48 is too small"),
    ],
)
def test_what_can_not_be_written_is_refused_at_once(tmp_path, name, size, words):
    with pytest.raises(OutputError, match=words):
        VideoWriter(tmp_path / name, *size)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("frame", [av.VideoFrame(64, 50, "yuv420p"), av.VideoFrame(64, 48, "gray")])
def test_a_frame_of_another_shape_is_refused(tmp_path, frame):
    writer = VideoWriter(tmp_path / "a.mp4", 64, 48)
    with pytest.raises(OutputError, match="not 64x48 yuv420p"):
        writer.write(frame, 0)
    writer.discard()
