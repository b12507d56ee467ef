"""Encode with kvazaar in the `ffmpeg` program: write a map file, pipe the pictures, and mux the stream.

kvazaar runs in a child process, because it aborts on an invalid map file. Raw video in a pipe has no
timestamps, so the encoded stream is muxed again with the timestamps of the source. kvazaar reads the map
file in coding order; with `gop=lp-g4d3t1`, this is the display order.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from fractions import Fraction
from importlib import import_module
from pathlib import Path

import av
import av.error
import numpy as np

from eyeline.errors import EncoderError, MissingExtraError, UsageError
from eyeline.files import PendingFile
from eyeline.media import open_video
from eyeline.roi.encode._encoder import MUXERS, TICK, disk_error, parse_parameters
from eyeline.roi.encode._job import EncodeJob
from eyeline.roi.maps import WRITERS

SMALLEST_CU = 8
"""Smallest coding unit in pixels; kvazaar in FFmpeg rejects sizes that are not multiples of it."""

ENVIRONMENT = "EYELINE_FFMPEG"
"""Environment variable with the path of an FFmpeg that is used instead of any other."""


def find_ffmpeg(encoder: str = "libkvazaar") -> str:
    """Find an FFmpeg program with an encoder: in `EYELINE_FFMPEG`, in the extra `vmaf`, or on the `PATH`.

    Raises:
        EncoderError: the FFmpeg in `EYELINE_FFMPEG` does not have the encoder.
        MissingExtraError: no FFmpeg has the encoder.
    """
    if own := os.environ.get(ENVIRONMENT):
        if not _has(own, encoder):
            raise EncoderError(
                f"{own}: does not have the encoder {encoder}",
                f"unset {ENVIRONMENT}, or set it to an FFmpeg with {encoder}",
            )
        return own
    candidates = [shutil.which("ffmpeg")]
    try:
        imageio_ffmpeg = import_module("imageio_ffmpeg")  # the package has no type hints
        candidates.insert(0, str(imageio_ffmpeg.get_ffmpeg_exe()))
    except ImportError:
        pass
    for candidate in candidates:
        if candidate is not None and _has(candidate, encoder):
            return candidate
    raise MissingExtraError(f"an FFmpeg with {encoder}", "vmaf")


def _has(binary: str, encoder: str) -> bool:
    try:
        done = subprocess.run(  # noqa: S603 - the user's own FFmpeg or the extra's
            [binary, "-hide_banner", "-encoders"], capture_output=True, text=True, check=False
        )
    except OSError:
        return False
    return f" {encoder} " in done.stdout


def encode_kvazaar(job: EncodeJob) -> tuple[int, int]:
    """Encode with kvazaar; return the number of frames and bytes of the video stream.

    Raises:
        EncoderError: kvazaar failed, or it does not support the size of the source.
        MissingExtraError: no FFmpeg has kvazaar.
    """
    i, steered = job.info, job.options.steer.strength != 0
    if not isinstance(job.source, str | os.PathLike) or str(job.source) == "-":
        raise UsageError(
            "kvazaar needs all maps before the first picture, but this source can be read only once",
            "give the source as a file",
        )
    if i.width % SMALLEST_CU or i.height % SMALLEST_CU:
        raise EncoderError(
            f"libkvazaar: the width and the height must be multiples of {SMALLEST_CU}, but the source "
            f"is {i.width}x{i.height}",
            "crop or pad the source, or use x265",
        )
    binary = find_ffmpeg()
    pending = PendingFile(job.out)
    try:
        with tempfile.TemporaryDirectory(prefix="eyeline-") as folder:
            roi = Path(folder) / "roi.txt" if steered else None
            if roi is not None:
                _write_maps(job, roi)
            stream = Path(folder) / "out.hevc"
            times = _pipe(job, _command(job, binary, roi, stream), stream)
            size = stream.stat().st_size
            _mux(job, stream, pending.temporary, times)
    except BaseException:
        pending.discard()
        raise
    pending.commit()
    return len(times), size


def _write_maps(job: EncodeJob, roi: Path) -> None:
    with roi.open("wb") as f:
        writer = WRITERS["kvazaar"](f, job.info.width, job.info.height)
        for count, p in enumerate(job.footage, 1):
            assert p.levels is not None  # noqa: S101 - strength is not 0
            writer.write(p.index, p.levels)
            if job.drawn is not None:
                job.drawn.append(p.levels)
            job.on_frame(1, count)


def _command(job: EncodeJob, binary: str, roi: Path | None, stream: Path) -> list[str]:
    i, o, row = job.info, job.options, job.row
    parameters = dict(row.fixed_parameters)
    extra = dict(o.extra)
    if row.parameters in extra:
        parameters |= parse_parameters(extra.pop(str(row.parameters)), row.separator)
    if o.preset:
        parameters = {"preset": o.preset} | parameters  # first, since it resets earlier options
    if job.rate.qp is not None:
        parameters["qp"] = str(job.rate.qp)
    if roi is not None:
        parameters["roi"] = str(roi)
    return [
        *(binary, "-hide_banner", "-loglevel", "error", "-y"),
        *("-f", "rawvideo", "-pix_fmt", job.pix_fmt, "-s", f"{i.width}x{i.height}"),
        *("-r", str(i.fps or Fraction(25)), "-i", "pipe:0", "-c:v", row.library),
        *(("-b:v", str(job.rate.bitrate)) if job.rate.bitrate else ()),
        *(word for name, value in extra.items() for word in (f"-{name}", value)),
        *("-kvazaar-params", ",".join(f"{k}={v}" for k, v in parameters.items())),
        *("-f", "hevc", str(stream)),
    ]


def _pipe(job: EncodeJob, command: list[str], stream: Path) -> list[float]:
    """Write the pictures to kvazaar; return their presentation times in the output, seconds."""
    times: list[float] = []
    with tempfile.TemporaryFile() as words:
        child = subprocess.Popen(  # noqa: S603 - see find_ffmpeg
            command, stdin=subprocess.PIPE, stderr=words, stdout=words
        )
        assert child.stdin is not None  # noqa: S101 - stdin=PIPE
        try:
            with open_video(job.source, job.options.video) as video:
                for d in video.pictures(job.footage.start, job.footage.stop):
                    frame = d.frame
                    if frame.format.name != job.pix_fmt:
                        frame = frame.reformat(format=job.pix_fmt)
                    child.stdin.write(_samples(frame))
                    times.append(d.seconds)
                    job.on_frame(2, len(times))
            child.stdin.close()
        except BrokenPipeError:
            pass  # kvazaar's exit status and log are reported below
        except BaseException:
            child.kill()
            child.wait()
            raise
        status = child.wait()
        words.seek(0)
        last = words.read()[-2000:].decode("utf-8", "replace").strip().splitlines()
    if status or not stream.is_file():
        said = "; ".join(last[-3:]) or f"exit status {status}"
        raise EncoderError(
            f"libkvazaar: failed at frame {len(times)}: {said}",
            "check --codec-option, or use x264 or x265",
        )
    start = times[0] if times and not job.whole else 0.0
    return [t - start for t in times]


def _samples(frame: av.VideoFrame) -> bytes:
    """Return the bytes of a planar 8-bit frame without the padding of its rows."""
    parts = []
    for plane in frame.planes:
        rows = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)  # type: ignore[call-overload]
        parts.append(rows[:, : plane.width].tobytes())
    return b"".join(parts)


def _mux(job: EncodeJob, stream: Path, target: Path, times: list[float]) -> None:
    streams = job.side_streams()
    tick = streams.time_base or TICK
    count = 0
    try:
        with (
            av.open(str(stream), format="hevc") as source,
            av.open(str(target), "w", format=MUXERS[job.out.suffix.lower()]) as out,
        ):
            video = source.streams.video[0]
            copy = out.add_stream_from_template(video)
            copy.time_base = tick
            if job.info.rotation:
                copy.set_display_rotation(-job.info.rotation)
            streams.add_to(out, copy, job.out)
            for packet in source.demux(video):
                if not packet.size:
                    continue
                packet.time_base = tick
                packet.pts = packet.dts = round(times[count] / tick)
                packet.duration = 0
                packet.stream = copy
                out.mux(packet)
                streams.copy_until(out, times[count])
                count += 1
            streams.copy_until(out, None)
    except (av.error.FFmpegError, IndexError) as exc:
        message = f"{job.out}: the stream of libkvazaar can't be written: {exc}"
        raise (disk_error(job.out, exc) or EncoderError(message)) from exc
    finally:
        streams.close()
    if count != len(times):
        raise EncoderError(
            f"libkvazaar: encoded {count} of {len(times)} pictures", "use x264 or x265"
        )
