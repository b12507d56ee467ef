"""Plain VMAF from the real libvmaf, in the FFmpeg that the extra `vmaf` brings.

Pairs go to one FFmpeg process through its stdin, reference and distorted frame by turns, so what
libvmaf sees is what the other metrics see: the same alignment, size, crop and depth.
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


def find_ffmpeg() -> str:
    """Path of an FFmpeg that has libvmaf.

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
    """One run of libvmaf, fed pair by pair.

    Args:
        width: of luma, samples.
        height: of luma, samples.
        layout: of the planes.
        model: version name, such as `vmaf_v0.6.1`.
        features: libvmaf's feature extractors beside the model's, such as `float_ssim`.
        threads: of libvmaf.

    Raises:
        MissingExtraError: the extra is not installed.
        QualityError: a depth that libvmaf does not take.
    """

    def __init__(
        self,
        width: int,
        height: int,
        layout: PlaneLayout,
        model: str = "vmaf_v0.6.1",
        features: tuple[str, ...] = (),
        threads: int = 1,
    ) -> None:
        if layout.depth not in DEPTHS:
            raise QualityError(
                f"libvmaf does not take {layout.depth} bits a sample", "leave vmaf out of --metrics"
            )
        # Grey goes as 4:2:0 with flat chroma, which VMAF does not look at.
        self._neutral = layout.chroma == "grey"
        self._layout = PlaneLayout("420", layout.depth) if self._neutral else layout
        self._folder = tempfile.TemporaryDirectory(prefix="eyeline-vmaf-")
        self._complaints = (Path(self._folder.name) / "stderr").open("w+b")
        extra = "|".join(f"name={f}" for f in features)
        options = f"model=version={model}:log_fmt=json:log_path=vmaf.json:n_threads={threads}"
        options += f":feature={extra}" if extra else ""
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
                stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=self._complaints,
                cwd=self._folder.name,
            )  # fmt: skip
        except OSError as exc:
            self._tidy()
            raise EncoderError(f"FFmpeg does not start: {exc.strerror or exc}") from exc
        except MissingExtraError:
            self._tidy()
            raise
        self._stdin = cast("BinaryIO", self._process.stdin)

    def write(self, reference: Planes, distorted: Planes) -> None:
        """Add a pair.

        Raises:
            EncoderError: FFmpeg died.
        """
        try:
            for planes in (reference, distorted):
                for plane in self._whole(planes):
                    self._stdin.write(np.ascontiguousarray(plane).data)
        except BrokenPipeError as exc:
            raise self._failed() from exc

    def _whole(self, planes: Planes) -> tuple[np.ndarray, ...]:
        if not self._neutral:
            return planes.planes
        h, w = planes.luma.shape
        flat = np.full((-(-h // 2), -(-w // 2)), 1 << (planes.depth - 1), planes.luma.dtype)
        return planes.luma, flat, flat

    def finish(self) -> dict[str, list[float]]:
        """Metric name to one value a pair, in order, by libvmaf's own names.

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
        """End the process and remove what it wrote; safe to call twice."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        with contextlib.suppress(OSError):
            self._stdin.close()
        self._tidy()

    def _tidy(self) -> None:
        self._complaints.close()
        self._folder.cleanup()

    def _failed(self) -> EncoderError:
        self._process.wait()
        self._complaints.seek(0)
        said = self._complaints.read().decode(errors="replace").strip().splitlines()
        reason = said[0] if said else f"exit code {self._process.returncode}"
        return EncoderError(f"libvmaf failed: {reason}", "is the picture large enough for VMAF?")
