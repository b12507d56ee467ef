"""Unweighted VMAF by libvmaf itself, in the FFmpeg that the extra `vmaf` installs.

One FFmpeg process reads the pairs from its stdin: a reference frame, then its distorted frame, and so
on. So libvmaf measures the same planes as the other metrics, with equal alignment, size, crop and
depth.
"""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from eyeline.errors import EncoderError, MissingExtraError, QualityError
from eyeline.logs import read_log
from eyeline.media.colour import PlaneLayout, Planes

DEPTHS = (8, 10, 12, 16)


def check_depth(depth: int) -> None:
    """Check that libvmaf supports a bit depth.

    Raises:
        QualityError: the depth is not one of `DEPTHS`.
    """
    if depth not in DEPTHS:
        raise QualityError(
            f"libvmaf does not support {depth} bits per sample, only {', '.join(map(str, DEPTHS))}",
            "leave vmaf out of --metrics",
        )


def find_ffmpeg() -> str:
    """Return the path of an FFmpeg that has libvmaf.

    Raises:
        MissingExtraError: imageio-ffmpeg is not installed.
    """
    try:
        import imageio_ffmpeg  # type: ignore[import-untyped]
    except ImportError as exc:
        raise MissingExtraError("imageio-ffmpeg", "vmaf") from exc
    path: str = imageio_ffmpeg.get_ffmpeg_exe()
    return path


class LibvmafRun:
    """An FFmpeg process that runs libvmaf on pairs of frames, which `write` sends one by one.

    Args:
        width, height: size of the luma plane in samples.
        layout: layout of the planes.
        model: name of a built-in model of libvmaf, such as `vmaf_v0.6.1`.
        threads: number of threads that libvmaf uses.

    Raises:
        EncoderError: FFmpeg cannot be started.
        MissingExtraError: imageio-ffmpeg is not installed.
        QualityError: libvmaf does not support the bit depth.
    """

    def __init__(
        self,
        width: int,
        height: int,
        layout: PlaneLayout,
        model: str = "vmaf_v0.6.1",
        threads: int = 1,
    ) -> None:
        check_depth(layout.depth)
        # FFmpeg gets grey video as 4:2:0 with constant chroma, since VMAF ignores chroma.
        self._neutral = layout.chroma == "grey"
        self._layout = PlaneLayout("420", layout.depth) if self._neutral else layout
        self._folder = tempfile.TemporaryDirectory(prefix="eyeline-vmaf-")
        self._stderr = (Path(self._folder.name) / "stderr").open("w+b")
        options = f"model=version={model}:log_fmt=json:log_path=vmaf.json:n_threads={threads}"
        graph = (
            "[0:v]split[a][b];"
            "[a]select='not(mod(n,2))',setpts=N[ref];"
            "[b]select='mod(n,2)',setpts=N[dist];"
            f"[dist][ref]libvmaf={options}"
        )
        try:
            self._process = subprocess.Popen(  # noqa: S603 - the package's own binary, no shell
                [
                    find_ffmpeg(), "-nostdin", "-v", "error", "-f", "rawvideo",
                    "-pix_fmt", self._layout.pix_fmt, "-s", f"{width}x{height}", "-r", "50",
                    "-i", "pipe:0", "-filter_complex", graph, "-f", "null", "-",
                ],
                stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=self._stderr,
                cwd=self._folder.name,
            )  # fmt: skip
        except OSError as exc:
            self._clean_up()
            raise EncoderError(
                f"FFmpeg cannot be started: {exc.strerror or exc}", "reinstall imageio-ffmpeg"
            ) from exc
        except MissingExtraError:
            self._clean_up()
            raise
        self._stdin = cast("BinaryIO", self._process.stdin)

    def write(self, reference: Planes, distorted: Planes) -> None:
        """Send a pair to libvmaf.

        Raises:
            EncoderError: FFmpeg ended early.
        """
        try:
            for planes in (reference, distorted):
                for plane in self._all_planes(planes):
                    self._stdin.write(np.ascontiguousarray(plane).data)
        except BrokenPipeError as exc:
            raise self._failed() from exc

    def _all_planes(self, planes: Planes) -> tuple[np.ndarray, ...]:
        if not self._neutral:
            return planes.planes
        h, w = planes.luma.shape
        flat = np.full((-(-h // 2), -(-w // 2)), 1 << (planes.depth - 1), planes.luma.dtype)
        return planes.luma, flat, flat

    def finish(self) -> dict[str, list[float]]:
        """Wait for libvmaf to end and return one value per pair for each metric, by libvmaf's names.

        Raises:
            EncoderError: FFmpeg or libvmaf failed.
        """
        try:
            with contextlib.suppress(BrokenPipeError):
                self._stdin.close()
            log = Path(self._folder.name) / "vmaf.json"
            if self._process.wait() != 0 or not log.exists():
                raise self._failed()
            read = read_log(log)
            return {name: list(values) for name, values in read.values.items()}
        finally:
            self.discard()

    def discard(self) -> None:
        """End the process and remove its files; further calls do nothing."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        with contextlib.suppress(OSError):
            self._stdin.close()
        self._clean_up()

    def _clean_up(self) -> None:
        self._stderr.close()
        self._folder.cleanup()

    def _failed(self) -> EncoderError:
        self._process.wait()
        self._stderr.seek(0)
        lines = self._stderr.read().decode(errors="replace").strip().splitlines()
        reason = lines[0] if lines else f"exit code {self._process.returncode}"
        return EncoderError(f"libvmaf failed: {reason}", "check that the frames are large enough")
