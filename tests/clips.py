"""Videos with known content, written by PyAV's own encoders and muxers."""

from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from eyeline.media import Video, open_video
from eyeline.media.types import Frame, VideoOptions

WIDTH, HEIGHT = 64, 48


def fill_planes(frame: av.VideoFrame, codes: Sequence[int]) -> av.VideoFrame:
    """Every sample of plane i set to `codes[i]`."""
    for plane, code in zip(frame.planes, codes, strict=True):
        width = "<u2" if max(c.bits for c in frame.format.components) > 8 else "u1"
        plane.update(np.full(plane.buffer_size // np.dtype(width).itemsize, code, width).tobytes())
    return frame


def flat(pix_fmt: str, codes: Sequence[int], size: tuple[int, int] = (48, 32)) -> av.VideoFrame:
    """A planar frame whose every sample of plane i is `codes[i]`."""
    return fill_planes(av.VideoFrame(*size, pix_fmt), codes)


def put_planes(
    pix_fmt: str, size: tuple[int, int], planes: Sequence[np.ndarray | float]
) -> av.VideoFrame:
    """A planar frame of these samples, rounded: an array (rows, columns) or one value a plane."""
    frame = av.VideoFrame(*size, pix_fmt)
    deep = max(c.bits for c in frame.format.components) > 8
    for plane, samples in zip(frame.planes, planes, strict=True):
        rows = np.zeros((plane.height, plane.line_size // (1 + deep)), "<u2" if deep else "u1")
        rows[:, : plane.width] = np.round(samples)
        plane.update(rows.tobytes())
    return frame


def picture(rgb: np.ndarray) -> av.VideoFrame:
    """uint8 (h, w, 3) to a frame."""
    return av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), "rgb24")


def moving(count: int, size: tuple[int, int] = (WIDTH, HEIGHT), seed: int = 0) -> list[np.ndarray]:
    """Noise that moves to the right three pixels a frame: costly to code, so files have a body."""
    noise = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), np.uint8)
    return [np.roll(noise, 3 * i, 1) for i in range(count)]


def write_clip(
    path: Path,
    frames: Iterable[av.VideoFrame | np.ndarray],
    codec: str = "libx264",
    *,
    pix_fmt: str = "yuv420p",
    fps: int = 25,
    times: Sequence[Fraction] | None = None,
    rotation: int = 0,
    aspect: Fraction | None = None,
    tags: dict[str, int] | None = None,
    codec_options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    sound: bool = False,
) -> Path:
    """Write a video.

    Args:
        path: its suffix names the container.
        frames: uint8 (h, w, 3) arrays, or frames in `pix_fmt`.
        codec: FFmpeg's encoder.
        pix_fmt: pixel format of the encoder.
        fps: frame rate.
        times: presentation times in place of a constant rate, seconds.
        rotation: clockwise degrees that players are to apply.
        aspect: sample aspect ratio.
        tags: colour tags of the encoder, FFmpeg's codes, by attribute name.
        codec_options: options of the encoder.
        container_options: options of the muxer.
        sound: add a silent audio stream.
    """
    with av.open(str(path), "w", container_options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=fps, options=codec_options or {})
        stream.pix_fmt = pix_fmt
        if rotation:
            stream.set_display_rotation(-rotation)  # FFmpeg counts counterclockwise
        for name, value in (tags or {}).items():
            setattr(stream.codec_context, name, value)
        tick = Fraction(1, 90000) if times is not None else Fraction(1, fps)
        stream.codec_context.time_base = tick
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        audio = container.add_stream("aac", rate=48000) if sound else None
        for i, given in enumerate(frames):
            frame = given
            if isinstance(given, np.ndarray):
                frame = picture(given).reformat(format=pix_fmt)
            if i == 0:
                stream.width, stream.height = frame.width, frame.height
            frame.time_base = tick
            frame.pts = i if times is None else int(times[i] / tick)
            container.mux(stream.encode(frame))
            if audio is not None and i % 2 == 0:
                silence = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), "fltp")
                silence.sample_rate, silence.pts = 48000, i // 2 * 1024
                container.mux(audio.encode(silence))
        container.mux(stream.encode(None))
        if audio is not None:
            container.mux(audio.encode(None))
    return path


def planes_of(frame: av.VideoFrame) -> bytes:
    """The samples of a frame as raw video stores them: rows without padding, plane by plane."""
    data = b""
    for plane in frame.planes:
        sample = 2 if max(c.bits for c in frame.format.components) > 8 else 1
        rows = np.frombuffer(bytes(plane), np.uint8).reshape(plane.height, plane.line_size)
        data += rows[:, : plane.width * sample].tobytes()
    return data


def place_inside(path: Path, number: int) -> int:
    """An offset in the middle of a video packet's bytes, whatever the encoder made.

    It is no end of a packet of MPEG's transport and program streams either, which are 188 and 2048
    bytes long.
    """
    data, at = path.read_bytes(), 0
    with av.open(str(path)) as container:
        packets = [bytes(p) for p in container.demux(video=0) if p.size]
    for i, packet in enumerate(packets):
        # In a container that is made of packets itself only its first bytes are in one piece, and
        # those of a few are not: the next one is taken then.
        begins = data.find(packet[:40], at)
        if begins >= 0:
            at = begins + len(packet)
            if i >= number:
                place = begins + len(packet) // 2
                return place + (place % 188 == 0 or place % 2048 == 0)
    raise ValueError(f"{path} has no packet from {number} on that begins in one piece")


def half(width: int, height: int) -> tuple[int, int]:
    """A plan: half the display size."""
    return max(1, width // 2), max(1, height // 2)


def whole(width: int, height: int) -> tuple[int, int]:
    """A plan: the display size."""
    return width, height


def read_all(path: object, options: VideoOptions | None = None, plan=half, **range_) -> list[Frame]:
    """Every frame of a video."""
    with open_video(path, options) as video:
        return list(video.frames(plan, **range_))


def read_until_error(video: Video, kind: type[Exception]) -> tuple[list[Frame], Exception | None]:
    """The frames before an error of this kind, and the error."""
    frames: list[Frame] = []
    try:
        for frame in video.frames(half):
            frames.append(frame)
    except kind as exc:
        return frames, exc
    return frames, None
