"""Frames found by packets alone, and frames that were sought: the same as in a decode from the start."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import psutil
import pytest

from clips import half, moving, place_inside, read_all, write_clip
from eyeline.errors import MediaError, SeekError, UsageError
from eyeline.media import open_video
from eyeline.media.index import H264References, index_frames, units
from eyeline.media.types import FrameIndex, VideoOptions

COUNT = 40
VP = {"g": "8", "deadline": "good", "cpu-used": "5", "auto-alt-ref": "1", "lag-in-frames": "12"}
X265 = "keyint=8:min-keyint=8:scenecut=0:bframes=3:log-level=none"
OPEN = {"x264-params": "keyint=8:scenecut=0:open-gop=1:bframes=3:b-pyramid=normal"}

CLIPS: dict[str, tuple[str, dict[str, str]]] = {
    "h264.mp4": ("libx264", {"g": "8"}),
    "h264.mkv": ("libx264", {"g": "8"}),
    "h264.ts": ("libx264", {"g": "8"}),
    "h264.flv": ("libx264", {"g": "8"}),
    "open.mp4": ("libx264", OPEN),
    "open.mkv": ("libx264", OPEN),
    "open.ts": ("libx264", OPEN),
    "interlaced.ts": ("libx264", {"x264-params": "keyint=8:interlaced=1"}),
    "shortest.mp4": ("libx264", {"x264-params": "keyint=2:min-keyint=1:bframes=1:open-gop=1"}),
    "hevc.mkv": ("libx265", {"x265-params": f"{X265}:open-gop=0"}),
    "rasl.mp4": ("libx265", {"x265-params": f"{X265}:open-gop=1"}),
    "rasl.ts": ("libx265", {"x265-params": f"{X265}:open-gop=1"}),
    "radl.mp4": ("libx265", {"x265-params": f"{X265}:open-gop=1:radl=2"}),
    "vp9.webm": ("libvpx-vp9", VP),
    "vp8.webm": ("libvpx", VP),  # with hidden packets
    "av1.mp4": ("libsvtav1", {"g": "8", "preset": "12"}),
    "mpeg2.ts": ("mpeg2video", {"g": "8", "bf": "2"}),
    "mpeg2.mpg": ("mpeg2video", {"g": "8", "bf": "2", "qmin": "2", "qmax": "2"}),
    "mpeg2.mxf": ("mpeg2video", {"g": "8", "bf": "2"}),
    "mpeg4.mp4": ("mpeg4", {"g": "8", "bf": "2"}),
    "mpeg4.avi": ("mpeg4", {"g": "8"}),
    "ffv1.mkv": ("ffv1", {"g": "8"}),
    "prores.mov": ("prores_ks", {}),
}


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A clip by its name in `CLIPS`."""
    folder = tmp_path_factory.mktemp("clips")

    def clip(name: str) -> Path:
        path = folder / name
        if not path.exists():
            codec, options = CLIPS[name]
            pix_fmt = "yuv422p10le" if codec == "prores_ks" else "yuv420p"
            frames = moving(COUNT)
            if name == "mpeg2.mpg":
                # Of frames that begin in one pack of 2048 bytes only the first has a time, so that
                # there is no index: each must be larger.
                frames = [moving(1, seed=i)[0] for i in range(COUNT)]
            write_clip(path, frames, codec, pix_fmt=pix_fmt, codec_options=options)
        return path

    return clip


def remux(source: Path, target: Path, change: Callable[[int, av.Packet], list[av.Packet]]) -> Path:
    """Copy packets without decoding; `change` gets each with its number and says what to write."""
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for i, packet in enumerate(old.demux(video=0)):
            if packet.dts is not None:
                for kept in change(i, packet):
                    kept.stream = stream
                    new.mux(kept)
    return target


def indexed(path: Path) -> FrameIndex:
    index = index_frames(path)
    assert index is not None
    return index


# --- the index


def test_a_known_index(clips: Callable[[str], Path]) -> None:
    index = indexed(clips("rasl.mp4"))
    steps = np.diff(index.pts)
    assert len(index) == COUNT
    assert (steps == steps[0]).all()
    assert index.keyframes.tolist() == [0, 8, 16, 24, 32]
    assert index.number(int(index.pts[17])) == 17
    assert index.number(int(index.pts[17]) + 1) is None
    assert index.number(int(index.pts[-1]) + 1) is None
    assert index.number(None) is None
    other = pickle.loads(pickle.dumps(index))
    assert np.array_equal(other.pts, index.pts)


def test_nothing_is_decoded_for_it(
    clips: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr("eyeline.media.container.ContainerReader._decode", refuse)
    assert len(indexed(clips("h264.mkv"))) == COUNT


@pytest.mark.parametrize("name", CLIPS)
def test_sought_frames_are_those_of_a_decode_from_the_start(
    clips: Callable[[str], Path], name: str
) -> None:
    path = clips(name)
    index = indexed(path)
    every = read_all(path)
    assert len(index) == len(every) == COUNT
    keyframes = index.keyframes.tolist()
    assert len(keyframes) >= 5
    starts = sorted({1, COUNT - 1, *(k for k in keyframes if k), *(k + 3 for k in keyframes[1:3])})
    for start in starts:
        got = read_all(path, VideoOptions(index=index), start=start)
        assert [f.index for f in got] == list(range(start, COUNT))
        for ours, straight in zip(got, every[start:], strict=True):
            assert ours.pts_time == straight.pts_time
            assert np.array_equal(ours.rgb, straight.rgb)


def test_times_may_be_irregular_and_begin_anywhere(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    ticks = 5000 + np.cumsum(rng.integers(1, 9, COUNT)) * 900
    times = [Fraction(int(t), 90000) for t in ticks]
    for suffix in ("mp4", "mkv", "ts"):
        path = write_clip(
            tmp_path / f"a.{suffix}", moving(COUNT), times=times, codec_options={"g": "8"}
        )
        got = read_all(path, VideoOptions(index=indexed(path)), start=21)
        want = read_all(path)[21:]
        assert [(f.index, f.pts_time) for f in got] == [(f.index, f.pts_time) for f in want]
        assert all(np.array_equal(a.rgb, b.rgb) for a, b in zip(got, want, strict=True))


def test_a_seek_reads_nothing_of_what_is_before(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", moving(600, (128, 96)), codec_options={"g": "20"})
    options = VideoOptions(index=indexed(path), threads=1)

    def read(start: int) -> int:
        before = psutil.Process().io_counters().read_chars
        frames = read_all(path, options, start=start, stop=start + 5)
        assert [f.index for f in frames] == list(range(start, start + 5))
        return psutil.Process().io_counters().read_chars - before

    size = path.stat().st_size
    assert read(302) < read(0) + size / 10
    assert read(0) < size / 4  # so that the line above says something


def test_an_index_changes_nothing_of_a_whole_run(clips: Callable[[str], Path]) -> None:
    path = clips("open.ts")
    plain, held = read_all(path), read_all(path, VideoOptions(index=indexed(path)))
    assert all(np.array_equal(a.rgb, b.rgb) for a, b in zip(plain, held, strict=True))


def test_a_range_behind_the_end_names_the_length(clips: Callable[[str], Path]) -> None:
    path = clips("h264.mp4")
    with pytest.raises(UsageError, match=f"no frame {COUNT}: the video has {COUNT}"):
        read_all(path, VideoOptions(index=indexed(path)), start=COUNT)


# --- what is held to it


def test_an_index_of_another_video_is_noticed(clips: Callable[[str], Path], tmp_path: Path) -> None:
    other = write_clip(tmp_path / "a.mp4", moving(30), fps=30, codec_options={"g": "5"})
    with pytest.raises(SeekError, match="frames are not where the index says"):
        read_all(clips("h264.mkv"), VideoOptions(index=indexed(other)), start=12)


@pytest.mark.parametrize("start", [0, 20])
def test_a_frame_that_does_not_come_is_noticed(clips: Callable[[str], Path], start: int) -> None:
    path = clips("h264.mp4")
    index = indexed(path)
    extra = np.sort(np.append(index.pts, index.pts[25] + 1))
    with pytest.raises(SeekError, match="frame 27 comes where frame 26 is due"):
        read_all(path, VideoOptions(index=FrameIndex(extra, index.keyframes)), start=start)
    more = np.append(index.pts, index.pts[-1] + 512)
    with pytest.raises(SeekError, match="frame 40 of 41 is missing"):
        read_all(path, VideoOptions(index=FrameIndex(more, index.keyframes)), start=start)


# --- where there is none


def test_containers_without_times_have_none(tmp_path: Path) -> None:
    for name, codec in (("a.h264", "libx264"), ("a.y4m", "wrapped_avframe")):
        path = write_clip(tmp_path / name, moving(12), codec, codec_options={"g": "4"})
        assert index_frames(path) is None


def test_a_single_keyframe_is_no_place_to_seek(tmp_path: Path) -> None:
    assert index_frames(write_clip(tmp_path / "a.mp4", moving(12))) is None


def test_stdin_and_pipes_are_not_touched(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.y4m")
    assert index_frames("-") is None
    assert index_frames(tmp_path / "pipe.y4m") is None  # else it would wait for a writer


def test_what_cannot_be_read_says_so(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"nothing of the kind" * 20)
    with pytest.raises(MediaError, match="not a video that FFmpeg reads"):
        index_frames(tmp_path / "a.mp4")


@pytest.mark.parametrize("name", ["h264.mp4", "h264.mkv", "h264.ts", "mpeg4.avi"])
def test_a_file_that_was_cut_off_has_none(
    clips: Callable[[str], Path], tmp_path: Path, name: str
) -> None:
    whole, path = clips(name), tmp_path / name
    if name.endswith("mp4"):  # its index in front, or nothing of it could be read
        options = {"movflags": "faststart"}
        whole = tmp_path / "whole.mp4"
        write_clip(whole, moving(COUNT), codec_options={"g": "8"}, container_options=options)
    path.write_bytes(whole.read_bytes()[: place_inside(whole, 32)])
    assert index_frames(path) is None


def test_a_matroska_file_that_is_broken_inside_has_none(
    clips: Callable[[str], Path], tmp_path: Path
) -> None:
    data = clips("h264.mkv").read_bytes()
    cluster = data.index(bytes.fromhex("1f43b675"))
    path = tmp_path / "a.mkv"
    path.write_bytes(data[: cluster + 2] + b"\0\0" + data[cluster + 4 :])
    assert index_frames(path) is None


def test_an_edit_list_that_hides_frames_has_none(
    clips: Callable[[str], Path], tmp_path: Path
) -> None:
    def shift(_: int, packet: av.Packet) -> list[av.Packet]:
        by = int(Fraction(5, 25) / packet.time_base)
        packet.pts, packet.dts = packet.pts - by, packet.dts - by
        return [packet]

    path = remux(clips("h264.mp4"), tmp_path / "cut.mp4", shift)
    assert len(read_all(path)) == COUNT - 5
    assert index_frames(path) is None


def test_streams_joined_end_to_end_have_none(clips: Callable[[str], Path], tmp_path: Path) -> None:
    """Their times begin anew, so that order of presentation is not order of time."""
    data = clips("h264.ts").read_bytes()
    path = tmp_path / "twice.ts"
    path.write_bytes(data + data)
    assert index_frames(path) is None


def test_a_recording_that_begins_inside_a_group_of_pictures_has_none(
    clips: Callable[[str], Path], tmp_path: Path
) -> None:
    path = remux(
        clips("h264.ts"), tmp_path / "late.ts", lambda i, packet: [packet] if i >= 3 else []
    )
    assert index_frames(path) is None


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_periodic_intra_refresh_has_none(tmp_path: Path, suffix: str) -> None:
    path = write_clip(
        tmp_path / f"a.{suffix}",
        moving(COUNT),
        codec_options={"x264-params": "intra-refresh=1:keyint=8:scenecut=0"},
    )
    assert index_frames(path) is None


@pytest.mark.parametrize(
    "name",
    [
        "h264.mp4",
        "open.mp4",
        "rasl.mp4",
        "vp8.webm",
        "vp9.webm",
        "mpeg2.ts",
        "mpeg4.mp4",
        "ffv1.mkv",
    ],
)
def test_a_containers_mark_of_a_keyframe_is_not_taken_on_trust(
    clips: Callable[[str], Path], tmp_path: Path, name: str
) -> None:
    def mark(_: int, packet: av.Packet) -> list[av.Packet]:
        packet.is_keyframe = True
        return [packet]

    path = remux(clips(name), tmp_path / f"marked{Path(name).suffix}", mark)
    assert indexed(path).keyframes.tolist() == indexed(clips(name)).keyframes.tolist()


# --- H.264


@pytest.mark.parametrize("name", ["h264.mp4", "h264.ts", "open.mp4"])
def test_a_reference_picture_that_is_missing_is_noticed_and_no_other(
    clips: Callable[[str], Path], tmp_path: Path, name: str
) -> None:
    """Decoders conceal it with what they saw before, without a word."""
    with av.open(str(clips(name))) as container:
        stream = container.streams.video[0]
        avcc = (stream.codec_context.extradata or b"")[:1] == b"\1"
        kinds = [
            [u[0] for u in units(bytes(p), 4 if avcc else None) if u[0] & 31 in (1, 5)]
            for p in container.demux(stream)
            if p.dts is not None
        ]
    references = [i for i, slices in enumerate(kinds) if slices[0] & 0x60 and slices[0] & 31 == 1]
    others = [i for i, slices in enumerate(kinds) if not slices[0] & 0x60]
    assert min(len(references), len(others)) >= 2
    for dropped in (*references[1:3], *others[:2]):
        path = remux(
            clips(name),
            tmp_path / f"{dropped}{Path(name).suffix}",
            lambda i, packet, dropped=dropped: [] if i == dropped else [packet],
        )
        assert (index_frames(path) is None) == (dropped in references)


@pytest.mark.parametrize(
    ("options", "pix_fmt"),
    [({"x264-params": "keyint=8:cqm=jvt"}, "yuv420p"), ({"g": "8"}, "yuv444p")],
)
def test_parameter_sets_of_all_kinds_are_read(
    tmp_path: Path, options: dict[str, str], pix_fmt: str
) -> None:
    path = write_clip(tmp_path / "a.mp4", moving(24), pix_fmt=pix_fmt, codec_options=options)
    assert len(indexed(path)) == 24


def sps(bits: str) -> bytes:
    """A sequence parameter set of high profile with these bits behind the level."""
    bits += "1"  # the trailing bit
    bits += "0" * (-len(bits) % 8)
    return b"\0\0\1" + bytes([0x67, 100, 0, 10]) + int(bits, 2).to_bytes(len(bits) // 8, "big")


def slice_header(frame_num: int, bits: int, kind: int = 0x61) -> bytes:
    """The first macroblock 0, a slice of type 5, parameter set 0, and `frame_num`."""
    text = "1" + "00110" + "1" + f"{frame_num:0{bits}b}" + "1" * 40
    text += "0" * (-len(text) % 8)
    return b"\0\0\1" + bytes([kind]) + int(text, 2).to_bytes(len(text) // 8, "big")


# seq_parameter_set_id 0, chroma_format_idc 1, depths 0 and 0, no bypass, then scaling lists and
# log2_max_frame_num_minus4 0, so that frame_num has four bits.
NO_LISTS = "1" + "010" + "1" + "1" + "0" + "0" + "1" + "1111"
# One that a difference of -8 ends at once, one of +1 and -9, and six that are absent.
LISTS = NO_LISTS[:7] + "1" + "1" + "000010001" + "1" + "010" + "000010011" + "000000" + "1" + "1111"


@pytest.mark.parametrize("fields", [NO_LISTS, LISTS])
def test_frame_numbers_are_followed_around_their_modulus(fields: str) -> None:
    pictures = H264References(sps(fields))
    assert pictures.add(slice_header(0, 4, 0x65))
    for number in [*range(1, 16), 0, 1, 1, 2]:
        assert not pictures.add(slice_header(number, 4))
    assert not pictures.gap
    pictures.add(slice_header(4, 4))
    assert pictures.gap


def test_pictures_that_nothing_refers_to_do_not_count() -> None:
    pictures = H264References(sps(NO_LISTS))
    pictures.add(slice_header(0, 4, 0x65))
    for number, kind in ((1, 0x61), (2, 0x01), (2, 0x01), (2, 0x61), (3, 0x61)):
        pictures.add(slice_header(number, 4, kind))
    assert not pictures.gap


@pytest.mark.parametrize(
    ("payload", "begins"),
    [
        ("06 01 c0", True),  # 1: zero frames; 1: exact
        ("06 01 80", False),  # not exact
        ("06 01 60", False),  # 011: two frames
        ("05 02 ff ff 06 01 c0", True),  # behind another message
        ("05 03 00 00 03 01 06 01 c0", True),  # with an emulation prevention byte in it
        ("01 01 c0", False),
    ],
)
def test_only_an_exact_recovery_point_is_a_beginning(payload: str, begins: bool) -> None:
    pictures = H264References(sps(NO_LISTS))
    message = b"\0\0\1\x06" + bytes.fromhex(payload) + b"\x80"
    assert pictures.add(message + slice_header(0, 4)) is begins


def test_a_stream_whose_headers_cannot_be_read_counts_as_broken() -> None:
    assert not H264References(b"").gap
    nothing = H264References(b"")
    nothing.add(slice_header(0, 4, 0x65))
    assert nothing.gap
    assert H264References(sps("0" * 40)).gap
    longer = NO_LISTS[:8] + "010" + "1111"  # five bits
    assert H264References(sps(NO_LISTS) + sps(longer)).gap


# --- without a container


def test_raw_video_and_images_can_be_split_anywhere(tmp_path: Path) -> None:
    raw = tmp_path / "a.yuv"
    raw.write_bytes(np.random.default_rng(1).bytes(10 * 64 * 48 * 3 // 2))
    options = VideoOptions(64, 48, "yuv420p")
    index = index_frames(raw, options)
    assert index is not None
    assert index.keyframes.tolist() == list(range(10))
    got = read_all(raw, VideoOptions(64, 48, "yuv420p", index=index), start=6)
    assert [f.index for f in got] == [6, 7, 8, 9]

    pictures = []
    for i, rgb in enumerate(moving(5)):
        pictures.append(tmp_path / f"{i}.ppm")
        pictures[-1].write_bytes(b"P6\n64 48\n255\n" + rgb.tobytes())
    index = index_frames(pictures)
    assert index is not None
    assert len(index) == 5
    with open_video(pictures, VideoOptions(index=index)) as video:
        assert [f.index for f in video.frames(half, 3)] == [3, 4]
