"""Presentation times: those that FFmpeg's command line shows, in whatever container they come."""

import json
import re
import subprocess
import sys
from fractions import Fraction
from itertools import pairwise

import av
import pytest

from eyeline import extract
from eyeline.media import open_video
from eyeline.media.container import FrameTimes
from eyeline.media.index import index_frames
from eyeline.media.types import VideoOptions
from shared import SHARED

imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg")

CASES = SHARED.parent / "cases" / "media"
SOURCE = ("-f", "lavfi", "-i", "testsrc2=s=128x96:r=25:d=1.2")
UNEVEN = ("-vf", "select='not(mod(n,3))+eq(mod(n,7),1)'", "-fps_mode", "vfr")
X264 = ("-c:v", "libx264", "-g", "12", "-preset", "ultrafast")

X265 = ("-c:v", "libx265", "-x265-params", "log-level=error")


def x264(b_frames, pyramid):
    return (*X264, "-x264-params", f"bframes={b_frames}:b-pyramid={pyramid}:b-adapt=0")


ENCODES = {
    **{
        f"h264_{b}_{pyramid}.avi": x264(b, pyramid)
        for b in (0, 1, 2, 3)
        for pyramid in ("none", "normal")
    },
    "h264_open_gop.avi": (*X264, "-bf", "3", "-x264-params", "open-gop=1"),
    "h264_interlaced.avi": (*X264, "-bf", "2", "-x264-params", "interlaced=1"),
    "h264_uneven.avi": (*UNEVEN, *X264, "-bf", "2"),
    "mpeg4.avi": ("-c:v", "mpeg4", "-bf", "2"),
    "mpeg4_uneven.avi": (*UNEVEN, "-c:v", "mpeg4", "-bf", "2"),
    "xvid.avi": ("-c:v", "libxvid", "-bf", "2"),
    "mpeg2.avi": ("-c:v", "mpeg2video", "-bf", "2"),
    "mjpeg.avi": ("-c:v", "mjpeg"),
    **{
        f"{codec}.{suffix}": ("-c:v", codec, "-bf", "2")
        for codec in ("libx264", "mpeg2video", "mpeg4")
        for suffix in ("ts", "mkv", "mp4", "mov", "asf", "nut")
    },
    **{
        f"{codec}.{suffix}": ("-c:v", codec, "-bf", "2")
        for codec in ("mpeg2video", "mpeg4")
        for suffix in ("mpg", "vob")
    },
    **{f"libx265.{suffix}": X265 for suffix in ("ts", "mkv", "mp4")},
    **{f"uneven.{suffix}": (*UNEVEN, *X264, "-bf", "2") for suffix in ("mp4", "mkv", "ts")},
    "telecine.mpg": ("-vf", "telecine", "-r", "30000/1001", "-c:v", "mpeg2video", "-bf", "2"),
    "es.h264": (*X264, "-bf", "2"),
    "es.hevc": X265,
    "es.m4v": ("-c:v", "mpeg4", "-bf", "2"),
}
"""File name to FFmpeg's options."""


def ffmpeg(*arguments):
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-y", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def encode(path, *arguments):
    done = ffmpeg("-v", "error", *arguments, path)
    if done.returncode:
        pytest.skip(f"this FFmpeg can't make {path.name}: {done.stderr.splitlines()[0]}")
    return path


def shown(path):
    """Times of all frames as FFmpeg's command line has them, seconds."""
    log = ffmpeg(
        *("-copyts", "-i", path, "-map", "0:v:0"),
        *("-fps_mode", "passthrough", "-vf", "showinfo", "-f", "null", "-"),
    ).stderr
    top, bottom = map(int, re.search(r"config in time_base: (\d+)/(\d+)", log).groups())
    return [int(ticks) * top / bottom for ticks in re.findall(r"\] n: *\d+ pts: *(-?\d+)", log)]


def eyeline(*words):
    command = [sys.executable, "-m", "eyeline", *map(str, words)]
    subprocess.run(command, check=True, capture_output=True)


def times_of(path, threads=0):
    with open_video(path, VideoOptions(threads=threads)) as video:
        return [picture.seconds for picture in video.pictures()]


def assert_as_ffmpeg(path, threads=0):
    times = times_of(path, threads)
    assert all(left < right for left, right in pairwise(times))
    assert times == pytest.approx(shown(path), abs=1e-6)


@pytest.mark.parametrize("name", ENCODES)
def test_times_are_those_that_ffmpeg_shows(tmp_path, name):
    path = encode(tmp_path / name, *SOURCE, *ENCODES[name])
    assert_as_ffmpeg(path, threads=1)
    assert_as_ffmpeg(path, threads=3)


def test_times_behind_an_edit_list(tmp_path):
    whole = encode(tmp_path / "whole.mp4", *SOURCE, *X264, "-bf", "3")
    assert_as_ffmpeg(encode(tmp_path / "cut.mp4", "-ss", "0.7", "-i", whole, "-c", "copy"))


@pytest.mark.parametrize("options", [(*X264, "-bf", "2"), X265], ids=["h264", "hevc"])
def test_times_where_a_program_stream_states_few(tmp_path, options):
    """FFmpeg shows times that repeat here, since it takes decoding times for the missing ones."""
    path = encode(tmp_path / "a.mpg", *SOURCE, *options)
    times, reference = times_of(path), shown(path)
    assert all(left < right for left, right in pairwise(times))
    assert times == pytest.approx(reference, abs=0.041)


def pack(source, target):
    """Rewrite MPEG-4 as DivX 5 packed it: a B-frame lies in the packet of the frame before it, and
    an empty picture follows (that FFmpeg reads so by the name in the stream's user data)."""

    def kind(data):
        return "IPBS"[data[data.find(b"\0\0\1\xb6") + 4] >> 6]

    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        track = old.streams.video[0]
        coded = [bytes(packet) for packet in old.demux(track) if packet.size]
        out = new.add_stream_from_template(track)
        packets = []
        for data in coded:
            if kind(data) == "B":
                packets[-1] += data
                packets.append(b"\0\0\1\xb6\x50\x40")  # a P picture that is not coded
            else:
                packets.append(re.sub(rb"(?<=\x00\x00\x01\xb2)Lavc[0-9.]+", b"DivX503b1393p", data))
        for i, data in enumerate(packets):
            packet = av.Packet(data)
            packet.stream, packet.time_base = out, track.time_base
            packet.pts = packet.dts = i
            packet.is_keyframe = kind(data) == "I"
            new.mux(packet)
    return target


def test_times_of_divx_with_packed_b_frames(tmp_path):
    options = ("-c:v", "mpeg4", "-bf", "1", "-vtag", "DX50")
    path = pack(encode(tmp_path / "plain.avi", *SOURCE, *options), tmp_path / "packed.avi")
    assert "packed B-frames" in ffmpeg("-i", path, "-f", "null", "-").stderr
    assert_as_ffmpeg(path)
    assert len(times_of(path)) == 30


@pytest.mark.parametrize("rate", ["24", "50", "60000/1001"])
@pytest.mark.parametrize("name", ["a.h264", "a.hevc"])
def test_elementary_streams_have_the_rate_that_they_state(tmp_path, name, rate):
    source = ("-f", "lavfi", "-i", f"testsrc2=s=128x96:r={rate}:d=0.5")
    path = encode(tmp_path / name, *source, *(X265 if name == "a.hevc" else X264))
    with open_video(path) as video:
        assert video.info.fps == Fraction(rate)
    assert_as_ffmpeg(path)


@pytest.mark.parametrize(
    "path",
    sorted((*CASES.glob("*bframes*"), *CASES.glob("androidx*.avi"), *CASES.glob("es*.*"))),
    ids=lambda p: p.name,
)
def test_times_of_files_from_the_field(path):
    assert_as_ffmpeg(path)


def test_times_that_run_back_go_on_where_they_were(tmp_path):
    first = encode(tmp_path / "a.ts", *SOURCE, *UNEVEN, *X264, "-bf", "2")
    (tmp_path / "b.ts").write_bytes(first.read_bytes() * 2)
    once, twice = times_of(first), times_of(tmp_path / "b.ts")
    shift = twice[len(once)] - once[0]
    assert twice[: len(once)] == once
    assert twice[len(once)] - once[-1] == pytest.approx(0.04, abs=0.02)
    assert twice[len(once) :] == pytest.approx([time + shift for time in once], abs=1e-6)


def stamped(*stamps):
    """Times of frames whose presentation and decoding times are these, at 10 ticks per second."""
    times = FrameTimes(Fraction(1, 10), 0.1, "h264")
    out = []
    for pts, dts in stamps:
        frame = av.VideoFrame(16, 16)
        frame.pts, frame.dts = pts, dts
        out.append(times.time_of(frame))
    return out


def test_a_single_time_that_repeats_does_not_move_those_behind_it():
    assert stamped((1, 1), (2, 2), (2, 2), (3, 3), (4, 4)) == [0.1, 0.2, 0.25, 0.3, 0.4]


def test_decoding_times_count_where_presentation_times_run_back():
    assert stamped((1, 2), (4, 3), (3, 4), (5, 5), (2, 6))[2:] == pytest.approx([0.45, 0.5, 0.6])


def test_frames_without_times_follow_at_the_rate():
    assert stamped((None, None), (None, None)) == [0.0, 0.1]


# --- what depends on them


@pytest.fixture
def reordered(tmp_path):
    """An AVI file with B-frames, of 30 frames."""
    return encode(tmp_path / "in.avi", *SOURCE, *x264(3, "normal"))


def test_rows_of_extract(reordered):
    rows = [frame.pts_time for frame in extract(reordered)]
    assert rows == pytest.approx(shown(reordered), abs=1e-6)


def test_frames_that_are_picked_have_the_times_of_a_whole_run(reordered):
    with open_video(reordered, VideoOptions(index=index_frames(reordered))) as video:
        picked = [picture.seconds for picture in video.pictures(14, 20)]
    assert picked == times_of(reordered)[14:20]


def test_an_overlay_does_not_move_frames(reordered, tmp_path):
    target = tmp_path / "overlay.mp4"
    eyeline("extract", reordered, "-o", tmp_path / "a.json", "--overlay", target)
    times = times_of(reordered)
    assert times_of(target) == pytest.approx([t - times[0] for t in times], abs=1e-4)


def test_an_encode_keeps_the_times(reordered, tmp_path):
    target = tmp_path / "encode.mkv"
    eyeline("roi", "encode", reordered, "-o", target)
    assert times_of(target) == pytest.approx(times_of(reordered), abs=1e-3)


FIELD = pytest.mark.skipif(not CASES.exists(), reason="needs ../shared/cases")


@FIELD
@pytest.mark.parametrize(
    "name", ["h264_bframes.avi", "androidx_sample-with-large-length.avi", "pts_reset.ts"]
)
def test_overlays_and_encodes_of_files_from_the_field(tmp_path, name):
    path, overlay, target = CASES / name, tmp_path / "overlay.mp4", tmp_path / "encode.mkv"
    eyeline("extract", path, "-o", tmp_path / "a.json", "--overlay", overlay)
    eyeline("roi", "encode", path, "-o", target)
    times = times_of(path)
    assert times_of(overlay) == pytest.approx([t - times[0] for t in times], abs=1e-4)
    steps = [right - left for left, right in pairwise(times_of(target))]
    assert steps == pytest.approx([right - left for left, right in pairwise(times)], abs=2e-3)


@FIELD
def test_scores_of_a_file_from_the_field(tmp_path):
    """33.05 dB: what FFmpeg's filter psnr says of pairs of frames that belong together."""
    pair = [CASES / name for name in ("h264_bframes.avi", "h264_bframes_dist.mp4")]
    log = tmp_path / "a.json"
    eyeline("score", "--resample", *pair, "--metrics", "psnr", "-o", log)
    pooled = json.loads(log.read_text())["pooled_metrics"]
    assert pooled["psnr_y"]["mean"] == pytest.approx(33.05, abs=0.005)
