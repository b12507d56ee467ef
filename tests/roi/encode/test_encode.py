"""Encoders obey: the decoder, the packets and the samples are the witnesses."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from witness import SIZE, exact, frames, noise_clip, packets, qps, square

from clips import moving, write_clip
from eyeline.errors import DamagedMediaError, EncoderError, MediaError, OutputError, UsageError
from eyeline.roi.encode import EncodeOptions, encode
from eyeline.roi.steering import LevelMapper, SteerOptions

INTRA = {"g": "1", "bf": "0", "x264-params": "mbtree=0:aq-strength=0.01"}
"""Every frame decodes on its own, and the encoder's own adaptation is as good as off."""


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv420p10le"])
@pytest.mark.parametrize("motion", [0, 16])
def test_x264_block_qps_are_the_ones_asked(tmp_path: Path, pix_fmt: str, motion: int) -> None:
    clip, out = noise_clip(tmp_path / "in.mkv", pix_fmt=pix_fmt), tmp_path / "out.mkv"
    maps = [square(motion * i) for i in range(6)]
    got = {}
    for strength in (6, 0):
        encode(clip, out, EncodeOptions(crf=26, steer=exact(strength), extra=INTRA), maps)
        got[strength] = qps(out)
    steering = LevelMapper(exact(6), *SIZE, 16)
    assert len(got[6]) == 6
    for steered, plain, m in zip(got[6], got[0], maps, strict=True):
        assert len(np.unique(plain)) == 1
        asked = steering(m)
        assert set(np.unique(asked)) == {-6, 6}
        # Rate control may move a whole frame; from block to block it is what was asked.
        moved = steered - plain - asked
        assert (moved == moved[0, 0]).all()
        assert abs(int(moved[0, 0])) <= 1


RATES = {
    "x264": {"crf": 28, "extra": {"g": "100", "bf": "0", "x264-params": "mbtree=0:rc-lookahead=0"}},
    "x265": {"crf": 28, "preset": "veryfast", "extra": {"x265-params": "bframes=0:rc-lookahead=1"}},
    "vp9": {"crf": 30},
}


@pytest.mark.parametrize("codec", RATES)
def test_a_mark_on_one_frame_lands_on_that_frame(tmp_path: Path, codec: str) -> None:
    clip = noise_clip(tmp_path / "in.mkv")
    flat = np.full((SIZE[1], SIZE[0]), 0.5, np.float32)
    marked = [flat] * 6
    marked[3] = square()
    seen = []
    for maps in ([flat] * 6, marked):
        out = tmp_path / "out.mkv"
        encode(clip, out, EncodeOptions(codec, steer=exact(8), **RATES[codec]), maps)
        seen.append(list(packets(out).values()))
    same = [a == b for a, b in zip(*seen, strict=True)]
    # The first has the parameter sets, which hold no regions.
    assert same[:3] == [True] * 3
    assert not same[3]


@pytest.mark.parametrize("codec", RATES)
def test_a_level_map_is_the_plain_encode_and_a_steered_one_is_not(
    tmp_path: Path, codec: str
) -> None:
    clip, out = noise_clip(tmp_path / "in.mkv"), tmp_path / "out.mkv"
    flat = np.full((SIZE[1], SIZE[0]), 0.5, np.float32)
    found = []
    for strength, m in ((8, flat), (0, flat), (8, square())):
        encode(clip, out, EncodeOptions(codec, steer=exact(strength), **RATES[codec]), [m] * 6)
        found.append(list(packets(out).values()))
    if codec != "vp9":  # whose segments are signalled even where all are alike
        assert found[0] == found[1]
    assert found[2] != found[1]


def mse(clip: Path, out: Path, inside: bool) -> float:
    mask = square().astype(bool) == inside
    return float(
        np.mean(
            [
                np.square(a.astype(float) - b)[mask].mean()
                for a, b in zip(frames(clip), frames(out), strict=True)
            ]
        )
    )


@pytest.mark.parametrize("codec", RATES)
def test_bits_move_to_the_region_at_a_matched_size(tmp_path: Path, codec: str) -> None:
    clip, outs = noise_clip(tmp_path / "in.mkv"), {}
    o = dict(RATES[codec])
    best = None
    plain = encode(
        clip, tmp_path / "plain.mkv", EncodeOptions(codec, steer=exact(0), **o), None
    ).video_bytes
    outs["plain"] = tmp_path / "plain.mkv"
    for shift in (-3, -2, -1, 0, 1, 2, 3, 4):
        out = tmp_path / f"roi{shift}.mkv"
        tuned = o | {"crf": o["crf"] + shift * (3 if codec == "vp9" else 1)}
        size = encode(
            clip, out, EncodeOptions(codec, steer=exact(5), **tuned), [square()] * 6
        ).video_bytes
        if size <= plain and (best is None or size > best[0]):
            best = size, out
    assert best is not None
    assert mse(clip, best[1], True) < 0.9 * mse(clip, outs["plain"], True)
    assert mse(clip, best[1], False) > mse(clip, outs["plain"], False)


def test_x265_survives_regions_on_few_frames_and_many_encodes(tmp_path: Path) -> None:
    clip, out = noise_clip(tmp_path / "in.mkv", 12), tmp_path / "out.mkv"
    flat = np.full((SIZE[1], SIZE[0]), 0.5, np.float32)
    sparse = [square() if i in (2, 9) else flat for i in range(12)]
    for extra in ({}, {"x265-params": "ctu=32"}, {"x265-params": "pools=1"}, {}):
        o = EncodeOptions("x265", crf=30, preset="veryfast", steer=exact(8), extra=extra)
        assert encode(clip, out, o, sparse).frames == 12


@pytest.mark.parametrize(("codec", "slack"), [("x264", 0.1), ("x265", 0.3)])
def test_a_bitrate_is_met_in_two_passes(tmp_path: Path, codec: str, slack: float) -> None:
    clip, out = noise_clip(tmp_path / "in.mkv", 50), tmp_path / "out.mkv"
    o = EncodeOptions(codec, bitrate=1_500_000, preset="veryfast", steer=exact(4))
    result = encode(clip, out, o, [square()] * 50)
    assert result.frames == 50
    assert result.video_bytes * 8 / 2 == pytest.approx(1_500_000, rel=slack)


def test_sound_tags_times_and_count_survive(tmp_path: Path) -> None:
    times = [Fraction(n, 1000) for n in (0, 40, 70, 190, 200, 260, 300, 420)]
    clip, out = tmp_path / "in.mkv", tmp_path / "out.mkv"
    tags = {"colorspace": 9, "color_trc": 16, "color_primaries": 9, "color_range": 1}
    write_clip(
        clip, moving(8, SIZE), times=times, sound=True, tags=tags,
        aspect=Fraction(16, 15), pix_fmt="yuv420p10le",
    )  # fmt: skip
    m = [np.pad(square(), ((0, 0), (0, 13)))] * 8  # 200 samples are shown 213 wide
    with av.open(str(clip)) as a:
        shape = a.streams.video[0].sample_aspect_ratio
    with pytest.raises(MediaError):  # a map of coded shape is not one of the shown picture
        encode(clip, out, EncodeOptions(), [np.zeros((136, 120), np.float32)] * 8)
    encode(clip, out, EncodeOptions(steer=SteerOptions(strength=4)), m)
    with av.open(str(clip)) as a, av.open(str(out)) as b:
        v, w = a.streams.video[0], b.streams.video[0]
        sounds = [[(p.pts, bytes(p)) for p in c.demux(audio=0) if p.size] for c in (a, b)]
        assert sounds[0] == sounds[1] != []
        assert w.sample_aspect_ratio == shape == v.sample_aspect_ratio
    with av.open(str(out)) as b:
        shown = list(b.decode(video=0))
    assert [f.time for f in shown] == pytest.approx([float(t) for t in times], abs=1e-6)
    f = shown[0]
    assert (int(f.colorspace), int(f.color_trc), int(f.color_primaries)) == (9, 16, 9)
    assert f.format.name == "yuv420p10le"


def test_chapters_survive(tmp_path: Path) -> None:
    clip, marked, out = (tmp_path / name for name in ("in.mkv", "marked.mkv", "out.mkv"))
    write_clip(clip, moving(8, SIZE), "ffv1")
    chapters = [
        {"id": n, "start": 100 * n, "end": 100 * n + 100, "time_base": Fraction(1, 1000),
         "metadata": {"title": title}}
        for n, title in enumerate(("one", "two"), 1)
    ]  # fmt: skip
    with av.open(str(clip)) as a, av.open(str(marked), "w") as b:
        stream = b.add_stream_from_template(a.streams.video[0])
        b.set_chapters(chapters)  # type: ignore[arg-type]
        for packet in a.demux(video=0):
            if packet.size:
                packet.stream = stream
                b.mux(packet)
    encode(marked, out, EncodeOptions(preset="veryfast", steer=SteerOptions(strength=0)))
    with av.open(str(out)) as b:
        found = [
            (c["start"] * c["time_base"], c["end"] * c["time_base"], c["metadata"]["title"])
            for c in b.chapters()
        ]
    tenth = Fraction(1, 10)
    assert found == [(tenth, 2 * tenth, "one"), (2 * tenth, 3 * tenth, "two")]


def test_a_rotated_source_is_steered_where_it_is_coded(tmp_path: Path) -> None:
    clip, out = tmp_path / "in.mp4", tmp_path / "out.mp4"
    noise_clip(clip, codec="libx264", rotation=90)
    upright = np.rot90(square(), -1)  # shown turned clockwise
    got = []
    for strength in (6, 0):
        o = EncodeOptions(crf=26, steer=exact(strength), extra=INTRA)
        encode(clip, out, o, [upright.copy()] * 6)
        got.append(qps(out)[0])
    asked = LevelMapper(exact(6), *SIZE, 16)(square())
    assert len(np.unique(got[0] - got[1] - asked)) == 1
    with av.open(str(out)) as c:
        assert next(c.decode(video=0)).rotation == -90


def test_an_encoder_that_refuses_says_why_and_leaves_no_file(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "in.mkv", moving(2, (63, 48)), "ffv1")
    with pytest.raises(EncoderError, match="width not divisible by 2"):
        encode(clip, tmp_path / "out.mp4", EncodeOptions(), [np.zeros((48, 63), np.float32)] * 2)
    assert [p.name for p in tmp_path.iterdir()] == ["in.mkv"]


def test_an_existing_file_and_the_input_are_kept(tmp_path: Path) -> None:
    clip, out = noise_clip(tmp_path / "in.mkv"), tmp_path / "out.mkv"
    out.write_text("mine")
    with pytest.raises(OutputError, match="exists"):
        encode(clip, out, EncodeOptions(), [square()] * 6, force=False)
    assert out.read_text() == "mine"
    with pytest.raises(UsageError, match="is also the input"):
        encode(clip, clip, EncodeOptions(), [square()] * 6)


def test_a_damaged_source_keeps_what_came_before(tmp_path: Path) -> None:
    clip = noise_clip(tmp_path / "in.mp4", 20, codec="libx264")
    whole = clip.read_bytes()
    faststart = write_clip(
        tmp_path / "cut.mp4", moving(20, SIZE), container_options={"movflags": "+faststart"}
    )
    data = faststart.read_bytes()
    faststart.write_bytes(data[: len(data) * 3 // 4])
    assert whole
    out = tmp_path / "out.mp4"
    with pytest.raises(DamagedMediaError):
        encode(faststart, out, EncodeOptions(preset="veryfast"))
    assert 0 < len(list(frames(out))) < 20


def test_an_audio_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "in.wav"
    with av.open(str(path), "w") as c:
        s = c.add_stream("pcm_s16le", rate=8000)
        f = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), "s16", "mono")
        f.sample_rate = 8000
        c.mux(s.encode(f))
    with pytest.raises(MediaError, match="no video"):
        encode(path, tmp_path / "out.mp4")
