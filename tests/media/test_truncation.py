"""Damage: what is whole is handed out, what is not is counted and located; whole files never cry."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from clips import half, moving, place_inside, read_until_error, write_clip
from eyeline.errors import DamagedMediaError, MediaError
from eyeline.media import open_video
from eyeline.media._truncation import broken_at, cut_short
from eyeline.media.types import VideoOptions

FRONT = {"movflags": "faststart"}
COUNT = 40

FILES = [
    # name, encoder, its options, the muxer's options
    ("front.mp4", "libx264", {"bf": "3"}, FRONT),
    ("back.mp4", "libx264", {"bf": "0"}, {}),
    ("pieces.mp4", "libx264", {"g": "8"}, {"movflags": "frag_keyframe+empty_moov"}),
    ("a.mov", "mpeg4", {}, FRONT),
    ("a.mkv", "libx264", {"bf": "3"}, {}),
    ("a.webm", "libvpx-vp9", {"deadline": "realtime", "cpu-used": "8"}, {}),
    ("live.webm", "libvpx", {"deadline": "realtime"}, {"live": "1"}),
    ("a.ts", "libx264", {"bf": "2"}, {}),
    ("a.avi", "mpeg4", {}, {}),
    ("a.flv", "flv1", {}, {}),
    ("a.gif", "gif", {}, {}),
    ("a.h264", "libx264", {"bf": "2"}, {}),
    ("a.mpg", "mpeg2video", {}, {}),
]
NAMES = [name for name, *_ in FILES]


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> dict[str, Path]:
    """Whole files of `COUNT` frames, by name; some with sound."""
    folder = tmp_path_factory.mktemp("clips")
    pictures = moving(COUNT)
    return {
        name: write_clip(
            folder / name,
            pictures,
            codec,
            pix_fmt="rgb8" if codec == "gif" else "yuv420p",
            codec_options=codec_options,
            container_options=container_options,
            sound=name in ("front.mp4", "a.mkv", "a.ts"),
        )
        for name, codec, codec_options, container_options in FILES
    }


def cut(path: Path, part: float, folder: Path) -> Path:
    """The beginning of a file."""
    data = path.read_bytes()
    short = folder / path.name
    short.write_bytes(data[: int(len(data) * part)])
    return short


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", NAMES)
def test_a_whole_file_is_no_damage(clips, name, threads):
    with open_video(clips[name], VideoOptions(threads=threads)) as video:
        frames, error = read_until_error(video, DamagedMediaError)
    assert error is None
    assert len(frames) == COUNT
    assert (video.report.corrupt, video.report.first_corrupt) == (0, None)


@pytest.mark.parametrize("name", NAMES)
def test_a_range_of_a_cut_off_file_is_no_damage(clips, name, tmp_path):
    if name == "back.mp4":
        pytest.skip("its index is at the end")
    with open_video(cut(clips[name], 0.7, tmp_path)) as video:
        assert len(list(video.frames(half, start=1, stop=5))) == 4


@pytest.mark.parametrize("number", [22, 30, 36])
@pytest.mark.parametrize("name", [n for n in NAMES if n != "back.mp4"])
def test_a_cut_off_file_gives_its_frames_and_then_says_so(clips, name, number, tmp_path):
    bad = tmp_path / name
    bad.write_bytes(clips[name].read_bytes()[: place_inside(clips[name], number)])
    with open_video(bad) as video:
        frames, error = read_until_error(video, DamagedMediaError)
    assert isinstance(error, DamagedMediaError)
    assert error.exit_code == 3
    assert error.frames == len(frames) == video.report.delivered
    assert 1 < len(frames) < COUNT
    assert [f.index for f in frames] == list(range(len(frames)))
    assert f"truncated after frame {frames[-1].index} at {frames[-1].pts_time:.3f} s" in str(error)
    assert "\n" not in str(error)


def test_every_whole_packet_before_the_cut_is_delivered(clips, tmp_path):
    """Also those that the decoder holds back for reordering when the cut one arrives."""
    path = cut(clips["front.mp4"], 0.7, tmp_path)
    with av.open(str(path)) as container:
        good = [p for p in container.demux(video=0) if p.size and not p.is_corrupt]
    with open_video(path) as video:
        frames, _ = read_until_error(video, DamagedMediaError)
    assert len(frames) == len(good)


def test_an_index_that_was_cut_off_is_located(clips, tmp_path):
    with pytest.raises(MediaError, match=r"ends [\d,]+ bytes before its mdat box does") as caught:
        open_video(cut(clips["back.mp4"], 0.7, tmp_path))
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", ["back.mp4", "a.mkv", "a.mov", "a.avi", "a.flv"])
def test_corruption_in_the_middle_is_counted_located_and_survived(clips, name, threads, tmp_path):
    data = bytearray(clips[name].read_bytes())
    with av.open(str(clips[name])) as container:
        packets = [bytes(p) for p in container.demux(video=0) if p.size]
    for packet in packets[20:22]:
        at = data.index(packet)
        data[at : at + len(packet)] = bytes(b ^ 0xA5 for b in packet)
    bad = tmp_path / name
    bad.write_bytes(data)
    with open_video(bad, VideoOptions(threads=threads)) as video:
        frames, error = read_until_error(video, DamagedMediaError)
    assert error is None
    assert COUNT - 2 <= len(frames) <= COUNT
    assert 1 <= video.report.corrupt <= 5
    assert video.report.first_corrupt is not None
    assert 20 - 4 <= video.report.first_corrupt <= 20 + 4  # B-frames are coded out of order


def test_packets_that_a_transport_stream_lost_are_counted(tmp_path):
    # Intra frames of noise: each has many transport packets.
    whole = write_clip(tmp_path / "whole.ts", moving(COUNT), codec_options={"g": "1"})
    data = bytearray(whole.read_bytes())
    at = place_inside(whole, 20) // 188 * 188
    del data[at : at + 188]
    bad = tmp_path / "a.ts"
    bad.write_bytes(data)
    with open_video(bad) as video:
        frames, error = read_until_error(video, DamagedMediaError)
    assert error is None
    assert COUNT - 1 <= len(frames) <= COUNT
    assert 1 <= video.report.corrupt <= 3
    assert 15 <= (video.report.first_corrupt or 0) <= 24


def test_a_matroska_cluster_that_ffmpeg_leaves_out_is_no_secret(tmp_path):
    """A block's broken length makes FFmpeg skip to the next cluster, without an error."""
    path = write_clip(
        tmp_path / "a.mkv", moving(COUNT), container_options={"cluster_time_limit": "400"}
    )
    with av.open(str(path)) as container:
        packet = [bytes(p) for p in container.demux(video=0) if p.size][15]
    data = bytearray(path.read_bytes())
    at = data.index(packet)
    data[at - 8 : at] = bytes(8)  # the header of its block
    path.write_bytes(data)
    with open_video(path) as video:
        frames, error = read_until_error(video, DamagedMediaError)
    assert error is None
    assert len(frames) < COUNT
    assert frames[-1].pts_time == (COUNT - 1) / 25
    assert video.report.corrupt == 1
    times = [f.pts_time for f in frames]
    gap = next(i for i in range(1, len(times)) if times[i] - times[i - 1] > 0.12)
    assert video.report.first_corrupt == gap


def test_a_last_matroska_cluster_that_ffmpeg_leaves_out_is_a_loss(clips, tmp_path):
    data = bytearray(clips["a.webm"].read_bytes())
    with av.open(str(clips["a.webm"])) as container:
        packet = [bytes(p) for p in container.demux(video=0) if p.size][20]
    at = data.index(packet)
    data[at - 8 : at] = bytes(8)  # the header of its block
    bad = tmp_path / "a.webm"
    bad.write_bytes(data)
    with open_video(bad) as video:
        frames, error = read_until_error(video, DamagedMediaError)
    assert len(frames) == 20
    assert error is not None
    assert "structure is broken at byte" in str(error)
    assert broken_at(str(bad)) is not None


@pytest.mark.parametrize("name", ["a.mkv", "a.webm", "live.webm"])
def test_a_whole_matroska_file_is_not_broken(clips, name):
    assert broken_at(str(clips[name])) is None


def test_a_long_pause_is_no_damage(tmp_path):
    times = [Fraction(n, 100) for n in (0, 4, 8, 500, 504, 2000)]
    with open_video(write_clip(tmp_path / "a.mkv", moving(6), times=times)) as video:
        frames, error = read_until_error(video, DamagedMediaError)
    assert error is None
    assert len(frames) == 6
    assert video.report.corrupt == 0


def test_refused_packets_are_counted_too(clips, tmp_path):
    """VP9 packets with a broken first byte, which the decoder does not take at all."""
    with av.open(str(clips["a.webm"])) as container:
        packets = [bytes(p) for p in container.demux(video=0) if p.size]
    data = bytearray(clips["a.webm"].read_bytes())
    for i in (20, 21, 22):
        data[data.index(packets[i])] = 0  # the frame marker must be 2
    bad = tmp_path / "a.webm"
    bad.write_bytes(data)
    with open_video(bad) as video:
        frames, error = read_until_error(video, DamagedMediaError)
    assert error is None
    assert (len(frames), video.report.corrupt, video.report.first_corrupt) == (COUNT - 3, 3, 20)


def test_nothing_decodable(clips, tmp_path):
    with av.open(str(clips["back.mp4"])) as container:
        packets = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    data = bytearray(clips["back.mp4"].read_bytes())
    for at, size in packets:
        data[at : at + size] = b"\xff" * size
    bad = tmp_path / "a.mp4"
    bad.write_bytes(data)
    with pytest.raises(MediaError, match=f"none of its {COUNT} h264 packets") as caught:
        open_video(bad)
    assert caught.value.exit_code == 2


def test_an_encrypted_track_is_named(clips, tmp_path):
    """The sample entry `encv` of ISO/IEC 23001-7, with samples that are noise without the key."""
    data = bytearray(clips["back.mp4"].read_bytes())
    with av.open(str(clips["back.mp4"])) as container:
        for packet in container.demux(video=0):
            if packet.size:
                data[packet.pos : packet.pos + packet.size] = b"\xff" * packet.size
    at = data.index(b"avc1", data.index(b"stsd"))
    data[at : at + 4] = b"encv"
    bad = tmp_path / "a.mp4"
    bad.write_bytes(data)
    with pytest.raises(MediaError, match="encrypted"):
        open_video(bad)


@pytest.mark.parametrize("name", [n for n in NAMES if n.split(".")[1] not in ("h264", "mpg")])
def test_every_cut_inside_a_frame_is_noticed(clips, name, tmp_path):
    """A cut between two frames cannot be told from a file's end where the container states no length."""
    data = clips[name].read_bytes()
    for number in np.random.default_rng(0).permutation(COUNT)[:12].tolist():
        bad = tmp_path / name
        bad.write_bytes(data[: place_inside(clips[name], number)])
        try:
            with open_video(bad, VideoOptions(threads=1)) as video:
                frames, error = read_until_error(video, DamagedMediaError)
        except MediaError as exc:
            assert exc.exit_code == 2
            assert "truncated" in str(exc) or "not a video" in str(exc) or "no frames" in str(exc)
        else:
            assert error is not None or len(frames) == COUNT


@pytest.mark.parametrize("part", [0.1, 0.2])
def test_a_cut_before_the_first_frame_is_called_so(tmp_path, part):
    big = np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8)
    for name, options in (("a.mp4", FRONT), ("a.mkv", {}), ("a.avi", {})):
        path = write_clip(tmp_path / name, [big], "ffv1", container_options=options)
        with pytest.raises(MediaError, match="truncated before its first frame") as caught:
            open_video(cut(path, part, tmp_path))
        assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    "name", [n for n in NAMES if n.split(".")[1] in ("mp4", "mov", "mkv", "avi")]
)
def test_a_length_is_judged_to_the_byte(clips, name, tmp_path):
    assert cut_short(str(clips[name])) == ""
    data = clips[name].read_bytes()
    (tmp_path / name).write_bytes(data[:-1])
    assert "ends 1 bytes before its" in (cut_short(str(tmp_path / name)) or "")


def test_a_tag_and_a_trailer_that_are_cut_off(clips, tmp_path):
    flv, gif = clips["a.flv"].read_bytes(), clips["a.gif"].read_bytes()
    for name, data, expected in [
        ("a.flv", flv, ""),
        ("a.flv", flv[:-4], ""),  # without the length behind the last tag: nothing is lost
        ("a.flv", flv[:-5], "the file ends 1 bytes before its last tag does"),
        ("a.gif", gif, ""),
        ("a.gif", gif + b"note", ""),
        ("a.gif", gif[:-1], "its last block is missing"),
        ("a.gif", gif[:20], "its last block is missing"),
    ]:
        (tmp_path / name).write_bytes(data)
        assert cut_short(str(tmp_path / name)) == expected


@pytest.mark.parametrize("name", ["a.h264", "a.mpg"])
def test_other_containers_are_not_judged_by_length(clips, name):
    assert cut_short(str(clips[name])) is None


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0\0\0\x10ftyp",
        b"\0\0\0\1mdat\0\0",
        b"\0\0\0\2ftypisom\0\0\0\0",
        b"\x1a\x45\xdf\xa3",
        b"\x1a\x45\xdf\xa3\x00\x00\x00",
        b"RIFF",
        b"RIFF\0\0\0\0AVI ",
        b"FLV\1\5\0\0\0\x09\0\0\0\0\xff",
        b"GIF89a",
        b"GIF89a\1\0\1\0\0\0\0?",
    ],
)
def test_a_broken_header_does_not_trip_the_judge(tmp_path, data):
    (tmp_path / "a").write_bytes(data)
    assert cut_short(str(tmp_path / "a")) in (
        None,
        "",
        "the file ends 8 bytes before its ftyp box does",
        "the file ends 10 bytes before its last tag does",
        "its last block is missing",
    )


def test_bytes_behind_the_end_are_no_damage(clips, tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(clips["front.mp4"].read_bytes() + b"trailing note, no box")
    with open_video(path) as video:
        assert len(list(video.frames(half))) == COUNT


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
def test_sound_that_goes_on_is_no_damage(tmp_path, name):
    """Ten seconds of sound over eight frames."""
    path = tmp_path / name
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        audio = container.add_stream("aac", rate=48000)
        for i, rgb in enumerate(moving(8)):
            frame = av.VideoFrame.from_ndarray(rgb, "rgb24").reformat(format="yuv420p")
            frame.pts = i
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        for i in range(470):
            silence = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), "fltp")
            silence.sample_rate, silence.pts = 48000, 1024 * i
            container.mux(audio.encode(silence))
        container.mux(audio.encode(None))
    with open_video(path) as opened:
        frames, error = read_until_error(opened, DamagedMediaError)
    assert error is None
    assert (len(frames), opened.report.corrupt) == (8, 0)


def test_a_recording_that_begins_inside_a_group_of_pictures_is_no_loss_at_its_end(clips, tmp_path):
    """Transport streams are joined at any packet: what misses its key frame is counted, not fatal."""
    data = clips["a.ts"].read_bytes()
    path = tmp_path / "a.ts"
    path.write_bytes(data * 2)  # the second time begins with a jump back in time
    with open_video(path) as video:
        frames, error = read_until_error(video, DamagedMediaError)
    assert error is None
    assert len(frames) == 2 * COUNT
