"""Other streams of the source: what the output container refuses is one clear error."""

from pathlib import Path

import av
import numpy as np
import pytest
from witness import SIZE

from clips import moving, write_clip
from eyeline.errors import OutputError
from eyeline.roi.encode import EncodeOptions, SteerOptions, encode

PLAIN = EncodeOptions(preset="veryfast", steer=SteerOptions(strength=0))


@pytest.fixture
def stalled(tmp_path: Path) -> Path:
    """A file whose sound has two packets at one time, which Matroska holds and MP4 does not."""
    clip = write_clip(tmp_path / "whole.mkv", moving(8, SIZE), sound=True)
    with av.open(str(clip)) as source, av.open(str(tmp_path / "in.mkv"), "w") as target:
        copies = {s.index: target.add_stream_from_template(s) for s in source.streams}
        times = []
        for packet in source.demux():
            if not packet.size:
                continue
            if packet.stream.type == "audio":
                times.append(packet.pts if len(times) != 3 else times[-1])
                packet.pts = packet.dts = times[-1]
            packet.stream = copies[packet.stream_index]
            target.mux(packet)
    clip.unlink()
    return tmp_path / "in.mkv"


def test_sound_that_the_muxer_refuses_is_one_error_and_leaves_no_file(stalled: Path) -> None:
    out = stalled.with_name("out.mp4")
    with pytest.raises(OutputError, match=r"out\.mp4: the audio .* can't be copied") as caught:
        encode(stalled, out, PLAIN)
    assert ".mkv" in caught.value.hint
    assert [p.name for p in stalled.parent.iterdir()] == ["in.mkv"]
    assert encode(stalled, stalled.with_name("out.mkv"), PLAIN).frames == 8


def test_a_codec_that_the_container_can_not_hold_names_the_output(tmp_path: Path) -> None:
    clip = tmp_path / "in.avi"
    with av.open(str(clip), "w") as target:
        picture = target.add_stream("mpeg4", rate=25)
        picture.width, picture.height, picture.pix_fmt = 64, 48, "yuv420p"
        sound = target.add_stream("adpcm_ms", rate=8000, layout="mono")
        quiet = av.AudioFrame.from_ndarray(np.zeros((1, 2000), np.int16), "s16", "mono")
        quiet.sample_rate = 8000
        for stream, frame in ((picture, av.VideoFrame(64, 48, "yuv420p")), (sound, quiet)):
            target.mux([*stream.encode(frame), *stream.encode(None)])
    with pytest.raises(
        OutputError, match=r"out\.mkv: the container can't store the audio stream in adpcm_ms"
    ):
        encode(clip, tmp_path / "out.mkv", PLAIN)
