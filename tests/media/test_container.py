"""Containers: facts, order, time, geometry, ranges; what may not be opened."""

import gc
from fractions import Fraction

import av
import numpy as np
import pytest

from clips import HEIGHT, WIDTH, half, moving, picture, read_all, whole, write_clip
from eyeline.errors import MediaError, UsageError
from eyeline.media import open_video
from eyeline.media.types import MAX_SIDE, VideoOptions, check_size

LOSSLESS = {"qp": "0"}


def level(frame):
    return float(frame.rgb.mean())


def plain(levels, size=(WIDTH, HEIGHT)):
    return [np.full((size[1], size[0], 3), v, np.uint8) for v in levels]


@pytest.mark.parametrize(
    ("name", "codec", "frames"),
    [
        ("a.mp4", "libx264", 8),
        ("a.mkv", "libx264", None),
        ("a.webm", "libvpx-vp9", None),
        ("a.ts", "libx264", None),
        ("a.avi", "mpeg4", 8),
        ("a.mov", "prores_ks", 8),
    ],
)
def test_info(tmp_path, name, codec, frames):
    pix_fmt = "yuv422p10le" if codec == "prores_ks" else "yuv420p"
    path = write_clip(
        tmp_path / name, moving(8), codec, pix_fmt=pix_fmt, sound=name in ("a.mp4", "a.mkv")
    )
    with open_video(path) as video:
        info = video.info
        delivered = list(video.frames(half))
    assert (info.width, info.height, info.display_width, info.display_height) == (64, 48, 64, 48)
    assert (info.rotation, info.pix_fmt, info.frames) == (0, pix_fmt, frames)
    assert info.bit_depth == (10 if codec == "prores_ks" else 8)
    assert info.fps == 25
    assert info.path == str(path)
    assert [f.index for f in delivered] == list(range(8))
    assert video.report.delivered == 8
    assert video.report.corrupt == 0
    assert video.report.size_changes == []


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_times_of_avi_rise_steadily_with_b_frames(tmp_path, threads):
    options = {"bf": "3", "b-pyramid": "normal"}
    path = write_clip(tmp_path / "a.avi", moving(20), codec_options=options)
    with open_video(path, VideoOptions(threads=threads)) as video:
        times = [d.seconds - video.info.start for d in video.pictures()]
    assert times == pytest.approx([i / 25 for i in range(20)], abs=1e-6)


@pytest.mark.parametrize("threads", [1, 3])
def test_frames_come_in_order_of_presentation(tmp_path, threads):
    levels = [40 + 9 * i for i in range(20)]
    options = {"bf": "3", "b-pyramid": "normal"}
    path = write_clip(tmp_path / "a.mp4", plain(levels), codec_options=options)
    frames = read_all(path, VideoOptions(threads=threads))
    assert np.allclose([level(f) for f in frames], levels, atol=3)
    assert [f.pts_time for f in frames] == [i / 25 for i in range(20)]


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_a_variable_frame_rate_keeps_its_timestamps(tmp_path, name):
    times = [Fraction(n, 1000) for n in (0, 40, 50, 300, 301, 1700)]
    path = write_clip(tmp_path / name, moving(6), times=times)
    assert [f.pts_time for f in read_all(path)] == pytest.approx([float(t) for t in times])


def test_a_stream_without_timestamps_goes_by_its_frame_rate(tmp_path):
    path = write_clip(tmp_path / "a.h264", moving(6), codec_options={"bf": "0"})
    times = [f.pts_time for f in read_all(path)]
    assert np.allclose(np.diff(times), 1 / 25)


def test_ranges(tmp_path):
    levels = [40 + 9 * i for i in range(12)]
    path = write_clip(tmp_path / "a.mp4", plain(levels))
    part = read_all(path, start=3, stop=7)
    assert [f.index for f in part] == [3, 4, 5, 6]
    assert [f.pts_time for f in part] == [i / 25 for i in range(3, 7)]
    assert np.allclose([level(f) for f in part], levels[3:7], atol=3)
    assert [f.index for f in read_all(path, start=10)] == [10, 11]
    assert read_all(path, stop=0) == []


def test_a_range_behind_the_end_names_the_length(tmp_path):
    path = write_clip(tmp_path / "a.mkv", moving(4))
    with pytest.raises(UsageError, match="no frame 9: the video has 4"):
        read_all(path, start=9)


def test_frames_are_read_once(tmp_path):
    with open_video(write_clip(tmp_path / "a.mkv", moving(4))) as video:
        assert len(list(video.frames(half))) == 4
        with pytest.raises(UsageError, match="read already"):
            video.frames(half)


def test_the_decoded_frame_is_kept_on_demand_only(tmp_path):
    path = write_clip(tmp_path / "a.mkv", moving(3))
    assert all(f.source is None for f in read_all(path))
    frames = read_all(path, keep_source=True)
    assert [(f.source.width, f.source.height) for f in frames] == [(WIDTH, HEIGHT)] * 3


def test_planes_given_out_belong_to_the_caller(tmp_path):
    with open_video(write_clip(tmp_path / "a.mkv", plain([10, 200]))) as video:
        first, second = video.frames(half)
    assert np.allclose([level(first), level(second)], [10, 200], atol=3)


def test_small_frames_do_not_keep_large_ones_alive(tmp_path):
    size = (82, 54)  # of no other test: all objects of the process are looked through
    frames = read_all(write_clip(tmp_path / "a.mkv", moving(6, size), "ffv1"))
    alive = [o for o in gc.get_objects() if isinstance(o, av.VideoFrame) and o.width == size[0]]
    assert [f.display_size for f in frames] == [size] * 6
    assert alive == []


QUADRANTS = [(200, 40, 40), (40, 200, 40), (40, 40, 200), (200, 200, 200)]


def quadrants(size=(WIDTH, HEIGHT)):
    """Red, green over blue, white."""
    w, h = size
    rgb = np.zeros((h, w, 3), np.uint8)
    for i, colour in enumerate(QUADRANTS):
        rgb[i // 2 * h // 2 :][: h // 2, i % 2 * w // 2 :][:, : w // 2] = colour
    return rgb


def corners(rgb):
    """Which quadrant of the source lies top left, top right, bottom left, bottom right."""
    _, h, w = rgb.shape
    found = []
    for y, x in ((1, 1), (1, 3), (3, 1), (3, 3)):
        difference = [
            np.abs(rgb[:, y * h // 4, x * w // 4].astype(int) - c).sum() for c in QUADRANTS
        ]
        found.append(int(np.argmin(difference)))
    return found


@pytest.mark.parametrize(
    ("rotation", "expected"),
    # Turned clockwise by 90 degrees, bottom left comes to lie top left.
    [(0, [0, 1, 2, 3]), (90, [2, 0, 3, 1]), (180, [3, 2, 1, 0]), (270, [1, 3, 0, 2])],
)
def test_rotation_metadata_is_honoured(tmp_path, rotation, expected):
    path = write_clip(tmp_path / "a.mp4", [quadrants()] * 2, rotation=rotation)
    with open_video(path) as video:
        info = video.info
        frame = next(video.frames(half))
    upright = (WIDTH, HEIGHT) if rotation % 180 == 0 else (HEIGHT, WIDTH)
    assert info.rotation == frame.rotation == rotation
    assert (info.width, info.height) == (WIDTH, HEIGHT)
    assert (info.display_width, info.display_height) == upright == frame.display_size
    assert frame.rgb.shape == (3, upright[1] // 2, upright[0] // 2)
    assert corners(frame.rgb) == expected


def test_a_phones_track_matrix_turns_clockwise(tmp_path):
    """The matrix of ISO/IEC 14496-12, section 8.3.2, as phones held upright write it."""
    path = write_clip(tmp_path / "a.mp4", [quadrants()] * 2)
    data = path.read_bytes()
    at = data.index(b"tkhd") + 4 + 40
    one = 1 << 16
    identity, turned = (one, 0, 0, 0, one, 0, 0, 0, 1 << 30), (0, one, 0, -one, 0, 0, 0, 0, 1 << 30)
    assert data[at : at + 36] == np.array(identity, ">i4").tobytes()
    path.write_bytes(data[:at] + np.array(turned, ">i4").tobytes() + data[at + 36 :])
    (first, _) = read_all(path)
    assert first.rotation == 90
    assert corners(first.rgb) == [2, 0, 3, 1]


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
@pytest.mark.parametrize(("aspect", "width"), [((4, 3), 85), ((8, 9), 57)])
def test_display_size_is_in_square_pixels(tmp_path, name, aspect, width):
    path = write_clip(tmp_path / name, moving(2), aspect=Fraction(*aspect))
    with open_video(path) as video:
        assert (video.info.width, video.info.height) == (64, 48)
        assert (video.info.display_width, video.info.display_height) == (width, 48)
        assert next(video.frames(whole)).rgb.shape == (3, 48, width)


def test_a_change_of_resolution_is_planned_again(tmp_path):
    parts = [
        write_clip(tmp_path / f"{i}.h264", plain([60, 60], size), codec_options={"bf": "0"})
        for i, size in enumerate([(64, 48), (96, 32)])
    ]
    path = tmp_path / "both.h264"
    path.write_bytes(b"".join(p.read_bytes() for p in parts))
    planned = []

    def plan(width, height):
        planned.append((width, height))
        return half(width, height)

    with open_video(path) as video:
        frames = list(video.frames(plan))
    assert planned == [(64, 48), (96, 32)]
    assert [f.rgb.shape for f in frames] == [(3, 24, 32)] * 2 + [(3, 16, 48)] * 2
    assert [f.display_size for f in frames] == [(64, 48)] * 2 + [(96, 32)] * 2
    assert video.report.size_changes == [(2, (96, 32))]
    assert np.allclose([level(f) for f in frames], 60, atol=3)


def test_an_edit_list_is_applied_and_is_no_damage(tmp_path):
    """Cut without decoding, as `-ss` with a stream copy does: packets before the cut stay hidden."""
    source = write_clip(tmp_path / "a.mp4", plain(range(40, 64)), codec_options={"g": "12"})
    target = tmp_path / "cut.mp4"
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                shift = int(Fraction(5, 25) / packet.time_base)
                packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
                new.mux(packet)
    with open_video(target) as video:
        frames = list(video.frames(half))
    assert video.info.frames == len(frames) == 19
    assert np.allclose([level(f) for f in frames], range(45, 64), atol=3)


def test_a_cut_scores_high_and_the_rest_low(tmp_path):
    levels = [60, 61, 62, 200, 201, 202]
    path = write_clip(tmp_path / "a.mkv", plain(levels), codec_options=LOSSLESS)
    scores = [f.scene_score for f in read_all(path)]
    assert scores[0] == 0
    assert scores[3] == pytest.approx(138 / 2.55, abs=1.5)
    assert max(scores[:3] + scores[4:]) < 2


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.m3u8", "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nsecret.mp4\n#EXT-X-ENDLIST\n"),
        ("a.mp4", "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nsecret.mp4\n#EXT-X-ENDLIST\n"),
        ("a.txt", "ffconcat version 1.0\nfile secret.mp4\n"),
        ("a.mpd", '<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011"></MPD>\n'),
    ],
)
def test_playlists_are_refused(tmp_path, name, text):
    write_clip(tmp_path / "secret.mp4", moving(2))
    (tmp_path / name).write_text(text)
    with pytest.raises(MediaError, match="playlist"):
        open_video(tmp_path / name)


def test_a_name_is_never_a_protocol(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_clip(tmp_path / "b.mkv", moving(2))
    (tmp_path / "b.mkv").rename(tmp_path / "concat:x|y%03d.mkv")
    assert len(read_all("concat:x|y%03d.mkv")) == 2
    with pytest.raises(MediaError, match="no such file"):
        open_video("http://127.0.0.1:9/a.mp4")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty"),
        (b"just some text, not a video\n" * 50, "not a video"),
        (bytes(5000), "not a video"),
    ],
)
def test_what_is_no_video_gets_one_clear_line(tmp_path, data, message):
    (tmp_path / "a.mp4").write_bytes(data)
    with pytest.raises(MediaError, match=message) as caught:
        open_video(tmp_path / "a.mp4")
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_missing_file(tmp_path):
    with pytest.raises(MediaError, match="no such file"):
        open_video(tmp_path / "a.mp4")


def test_a_device_is_no_file():
    with pytest.raises(MediaError, match="not a file"):
        open_video("/dev/zero")


def write_sound(path):
    with av.open(str(path), "w") as container:
        audio = container.add_stream("aac", rate=48000)
        silence = av.AudioFrame.from_ndarray(np.zeros((2, 4096), np.float32), "fltp")
        silence.sample_rate = 48000
        container.mux(audio.encode(silence))
        container.mux(audio.encode(None))
    return path


def test_sound_without_picture(tmp_path):
    with pytest.raises(MediaError, match="no video stream"):
        open_video(write_sound(tmp_path / "a.mp4"))


def test_zero_frames(tmp_path):
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        container.start_encoding()
    with pytest.raises(MediaError, match="no frames"):
        open_video(path)


def test_nothing_behind_the_header(tmp_path):
    path = write_clip(tmp_path / "a.mkv", moving(2))
    data = path.read_bytes()
    path.write_bytes(data[: data.index(bytes.fromhex("1f43b675"))])  # up to the first cluster
    with pytest.raises(MediaError, match="truncated before its first frame"):
        open_video(path)


@pytest.mark.parametrize("size", [(MAX_SIDE + 1, 2), (16384, 16385), (2**31, 2**31)])
def test_absurd_sizes_are_refused(size):
    with pytest.raises(MediaError, match=f"{size[0]}x{size[1]}"):
        check_size("a", *size)
    check_size("a", 16384, 16384)


def test_a_header_that_claims_an_absurd_size_is_refused(tmp_path):
    path = tmp_path / "a.png"
    with av.open(str(path), "w", format="image2") as container:
        stream = container.add_stream("png", rate=1)
        stream.width, stream.height, stream.pix_fmt = 8, 8, "rgb24"
        container.mux(stream.encode(picture(np.zeros((8, 8, 3), np.uint8))))
    data = bytearray(path.read_bytes())
    data[16:24] = (60000).to_bytes(4, "big") * 2
    path.write_bytes(data)
    with pytest.raises(MediaError):
        open_video(path)


def test_real_clips(shared_data):
    folder = shared_data / "video"
    expected = {
        "bikes.mp4": ("h264", 640, 272, "yuv420p", 250, "bt601"),
        "bigbuckbunny.mp4": ("h264", 1280, 720, "yuv420p", 132, "bt709"),
        "blue_sky_360p_60f_8b_converted_to_10b.mp4": ("h264", 640, 360, "yuv420p10le", 3, "bt601"),
        "park_joy_420_720p50_frm0to9_480x270.y4m": ("rawvideo", 480, 270, "yuv420p", 10, "bt601"),
    }
    for name, (codec, width, height, pix_fmt, count, matrix) in expected.items():
        with open_video(folder / name) as video:
            info = video.info
            assert (info.codec, info.width, info.height) == (codec, width, height)
            assert (info.pix_fmt, info.frames, info.colour.matrix) == (pix_fmt, count, matrix)
            assert sum(1 for _ in video.frames(lambda w, h: (32, 18), stop=10)) == min(10, count)


def test_the_real_raw_clip_looks_like_a_picture(shared_data):
    options = VideoOptions(576, 324, "yuv420p10le")
    frames = read_all(shared_data / "video" / "src01_hrc00_576x324.yuv420p10le.yuv", options)
    assert len(frames) == 3
    assert all(20 < f.rgb.mean() < 235 and f.rgb.std() > 20 for f in frames)
    assert max(f.scene_score for f in frames) < 10
