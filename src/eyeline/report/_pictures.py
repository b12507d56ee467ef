"""Pictures of the page: frames, heat maps and error maps of the clips that a log was made from.

The log names the model that made its numbers. This model computes the maps again, after a check of its
digest, unless the maps are read from files. A clip that does not belong to the log is an error.

Pictures are WebP, which every browser shows and which is smaller than JPEG at the same quality. A map
is stored as a grey picture, and the page colours it as `saliency.overlay` does.
A coloured map with transparency would take 54 kB instead of 2 kB.
"""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Callable, Collection, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np
import numpy.typing as npt

from eyeline.errors import LogError, MediaError, OutputError, UsageError, VerificationError
from eyeline.media import open_video
from eyeline.media.colour import Scaler, kind_of
from eyeline.media.types import Colour, Frame, VideoInfo, VideoOptions
from eyeline.media.write import TIME_BASE
from eyeline.registry.records import Task
from eyeline.registry.registry import Model, resolve_model
from eyeline.report._series import LogRows
from eyeline.saliency.maps import quantise, read_maps
from eyeline.saliency.overlay import CONTOUR, CONTOUR_LEVEL, ramp
from eyeline.saliency.pipeline import ExtractOptions, extract

Pixels = npt.NDArray[np.uint8]
Map = npt.NDArray[np.float32]

QUALITY = 78
"""libwebp's quality setting for pictures: a 640x360 frame of a film takes 15 to 40 kB."""
MAP_QUALITY = 90
"""libwebp's quality setting for grey maps: most samples change by at most 2 of 255 levels."""
ERROR_QUALITY = 70

MAP_SIDE = 320
"""Limit for the long side of a map, pixels; the models produce maps of 192 lines."""

ERROR_TOP = 64.0
"""RMS luma error at the end of the error map's scale, in levels of 255."""
ERROR_MARKS = (0, 4, 16, 64)
"""Labels on the scale of the error map, RMS luma error."""

ERROR_RAMP: tuple[tuple[float, int, int, int], ...] = (
    # place on the scale, red, green, blue
    (0.00, 4, 8, 16),
    (0.25, 10, 44, 92),
    (0.50, 0, 122, 163),
    (0.75, 74, 206, 201),
    (1.00, 250, 255, 236),
)
"""Colours of the error map: dark where the pictures agree, then blue, cyan and white, unlike heat maps."""

MEAN = "saliency_mean"
MEAN_TOLERANCE = 5e-3
"""Largest allowed difference between a log's `saliency_mean` and the clip's. Other decoders and
runtimes differ by less than 1e-3; another clip differs by more than this."""

MEGABYTE = 1_000_000


def webp(pixels: Pixels, quality: int = QUALITY) -> bytes:
    """Encode uint8 (h, w, 3) RGB, or (h, w, 4) RGBA with straight alpha, as WebP."""
    height, width, channels = pixels.shape
    # libwebp converts RGB to YUV itself, as the WebP format prescribes.
    bgra = np.full((height, width, 4), 255, np.uint8)
    bgra[..., :channels] = pixels
    bgra[..., :3] = bgra[..., 2::-1]
    try:
        codec = av.VideoCodecContext.create("libwebp", "w")
        codec.width, codec.height = width, height
        codec.pix_fmt = "bgra"
        codec.time_base = TIME_BASE
        codec.options = {"quality": str(quality), "compression_level": "3"}
        frame = av.VideoFrame.from_ndarray(bgra, format="bgra")
        packets = [*codec.encode(frame), *codec.encode(None)]
    except av.error.FFmpegError as exc:
        raise OutputError(
            f"a picture of {width}x{height} pixels can't be written as WebP: {exc}",
            "choose another --picture-size",
        ) from exc
    return b"".join(map(bytes, packets))


def _fit(width: int, height: int, side: int) -> tuple[int, int]:
    """Scale a size down, never up, so that its long side has at most `side` pixels."""
    scale = min(1.0, side / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def _luma(rgb: Pixels) -> npt.NDArray[np.float32]:
    """Convert full-range RGB to luma by ITU-R BT.709-6, item 3.2: uint8 (h, w, 3) to (h, w)."""
    # BLAS is not used, because its threads would slow down decoding.
    out: npt.NDArray[np.float32] = np.multiply(rgb[..., 0], np.float32(0.2126), dtype=np.float32)
    out += np.multiply(rgb[..., 1], np.float32(0.7152), dtype=np.float32)
    out += np.multiply(rgb[..., 2], np.float32(0.0722), dtype=np.float32)
    return out


def error_map(reference: Pixels, distorted: Pixels, factor: int) -> npt.NDArray[np.float32]:
    """Compute the RMS luma error of each square of `factor` pixels: float32, levels of 255.

    Errors of two uint8 (H, W, 3) pictures are computed at full size and then averaged, because scaling
    the pictures down first would hide noise and ringing.
    """
    squared = np.square(_luma(reference) - _luma(distorted))
    h, w = squared.shape[0] // factor, squared.shape[1] // factor
    blocks = squared[: h * factor, : w * factor].reshape(h, factor, w, factor)
    out: npt.NDArray[np.float32] = np.sqrt(blocks.mean(axis=(1, 3)))
    return out


@cache
def _error_colours() -> Pixels:
    points = np.array(ERROR_RAMP)
    channels = [np.interp(np.arange(256) / 255, points[:, 0], points[:, i]) for i in (1, 2, 3)]
    return np.stack(channels, 1).round().astype(np.uint8)


def paint_error(errors: npt.NDArray[np.float32]) -> Pixels:
    """Colour an error map, float32 (h, w), on a square-root scale, which shows small errors, too."""
    place = np.sqrt(np.clip(errors / ERROR_TOP, 0, 1)) * 255 + 0.5
    return _error_colours()[place.astype(np.uint8)]


def grey(saliency: Map) -> Pixels:
    """Convert a map, float32 (h, w) in [0, 1], to grey RGB with sides of at most `MAP_SIDE`."""
    width, height = _fit(saliency.shape[1], saliency.shape[0], MAP_SIDE)
    levels = quantise(resize_map(saliency, width, height), 8)
    return np.repeat(levels.astype(np.uint8)[..., None], 3, axis=2)


def resize_map(saliency: Map, width: int, height: int) -> Map:
    """Shrink a map to a size by the mean of each cell; a map of this size is returned as it is."""
    h, w = saliency.shape
    if (width, height) == (w, h):
        return saliency
    rows = np.linspace(0, h, height, endpoint=False).astype(int)
    columns = np.linspace(0, w, width, endpoint=False).astype(int)
    sums = np.add.reduceat(np.add.reduceat(saliency, rows, 0, dtype=np.float64), columns, 1)
    counts = np.outer(np.diff([*rows, h]), np.diff([*columns, w]))
    return (sums / counts).astype(np.float32)


def _heat_colours() -> dict[str, object]:
    """Return the values with which the page colours a map as `eyeline.saliency.overlay.paint` does."""
    levels = ramp().view(np.uint8).reshape(256, 4)
    some = [levels[round(i * 255 / 15)].tolist() for i in range(16)]
    return {
        "ramp": base64.b64encode(levels.tobytes()).decode(),
        "level": CONTOUR_LEVEL,
        "contour": CONTOUR.tolist(),
        "stops": [[i / 15, f"rgb({r},{g},{b})"] for i, (r, g, b, _) in enumerate(some)],
        "marks": [[0, "0"], [0.5, ".5"], [1, "1"]],
    }


def _error_legend() -> dict[str, object]:
    return {
        "stops": [[place, f"rgb({r},{g},{b})"] for place, r, g, b in ERROR_RAMP],
        "marks": [[float(np.sqrt(mark / ERROR_TOP)), str(mark)] for mark in ERROR_MARKS],
    }


class Thumbnails:
    """Pictures by frame; whenever they exceed a budget, every second frame is dropped.

    `budget` is in bytes of base64. Frames in `keep` are never dropped.
    """

    def __init__(self, budget: int, keep: Collection[int] = ()) -> None:
        self.every = 1
        self.size = 0
        self._budget = budget
        self._keep = frozenset(keep)
        self._frames: dict[int, tuple[int, Mapping[str, bytes]]] = {}

    def wants(self, position: int, number: int) -> bool:
        """Return whether a frame with this position (from 0) and frame number would be kept now."""
        return position % self.every == 0 or number in self._keep

    def add(self, position: int, number: int, pictures: Mapping[str, bytes]) -> None:
        """Add a frame's pictures, by track."""
        self._frames[number] = position, pictures
        self.size += self._cost(pictures)
        while self.size > self._budget:
            if self.every > position:
                raise UsageError(
                    f"even the pictures of {len(self._frames)} frames take "
                    f"{self.size / MEGABYTE:.1f} MB, more than --max-size {self._budget / MEGABYTE:g}",
                    "raise --max-size, or lower --picture-size or --worst",
                )
            self.every *= 2
            for n, (place, old) in list(self._frames.items()):
                if not self.wants(place, n):
                    self.size -= self._cost(old)
                    del self._frames[n]

    @staticmethod
    def _cost(pictures: Mapping[str, bytes]) -> int:
        return sum(-(-len(data) // 3) * 4 for data in pictures.values())

    def to_json(self) -> dict[str, Any]:
        """Return frame numbers, and per track one base64 picture per frame, empty if it has none."""
        kept = [pictures for _, pictures in self._frames.values()]
        names = dict.fromkeys(name for pictures in kept for name in pictures)
        tracks = {
            name: [base64.b64encode(p.get(name, b"")).decode() for p in kept] for name in names
        }
        return {"every": self.every, "frames": list(self._frames), "tracks": tracks}


@dataclass(frozen=True)
class MediaOptions:
    """Clips to show, and the size of their pictures."""

    video: str  # the clip, or the reference of a pair
    distorted: str | None = None  # the other clip of a pair
    maps: str | None = None  # file or folder with maps of `video` (see `eyeline.saliency.maps`)
    heat: bool = True  # show the heat map if `maps` or a model gives one
    model: str | None = None  # id or path of the model that makes the maps, instead of the log's
    task: Task | None = None  # use this task's production model instead of the log's
    registry: str | None = None  # the user's own registry folder
    side: int = 640  # long side of a picture, pixels
    max_size: float = 16.0  # megabytes that the pictures may take in the page
    video_options: VideoOptions = field(default_factory=VideoOptions)

    @property
    def names_model(self) -> bool:
        """Whether the user names the model of the maps."""
        return self.model is not None or self.task is not None


def make_media(
    options: MediaOptions,
    log: LogRows,
    keep: tuple[int, ...] = (),
    on_frame: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Make the pictures of a clip or a pair.

    Args:
        options: clips to show, and how to make their maps.
        log: log whose frames get pictures.
        keep: frame numbers that must have pictures.
        on_frame: called after each frame of the log.

    Returns:
        JSON values for the page: panes, the pictures of each track, and their captions.

    Raises:
        LogError: the log belongs to another clip, or its provenance is invalid.
        MediaError: a clip or the maps cannot be read.
        ModelError: the model of the log cannot be used.
        UsageError: the pictures do not fit in `max_size`.
    """
    skipped = _offsets(log)[0]
    thumbnails = Thumbnails(int(options.max_size * MEGABYTE), keep)
    rows = {int(n): row for row, n in enumerate(log.numbers)}
    with contextlib.ExitStack() as stack:
        frames, info, caption = _open(options, log, stack)
        _check_count(log, options.video, info, skipped)
        painter = _Painter(options, log, info, stack)
        seen, last = 0, -1
        for frame, saliency in frames:
            number = frame.index - skipped  # frame number in the log
            if number < 0:
                continue
            last = number
            other = painter.distorted_frame(number)
            if (row := rows.get(number)) is None:
                if number >= int(log.numbers[-1]) + _step(log) and not _is_partial(log):
                    raise _mismatch(log, options.video, f"more than {number} frames")
                continue
            if saliency is not None and not options.names_model and options.maps is None:
                _check_mean(log, row, saliency, options.video)
            if thumbnails.wants(row, number):
                thumbnails.add(row, number, painter(frame, other, saliency))
            seen += 1
            on_frame()
            if seen == len(rows) and _is_partial(log):
                break
        if last < 0:
            raise MediaError(
                f"{options.video}: the clip has no frames", "check that it is complete"
            )
        if seen < len(rows):
            raise _mismatch(log, options.video, f"{last + 1} frames")
        painter.check_end(log)
    width, height = painter.size
    return {
        **thumbnails.to_json(),
        "width": width,
        "height": height,
        "source": [info.display_width, info.display_height],
        "fps": float(info.fps) if info.fps else None,
        "megabytes": thumbnails.size / MEGABYTE,
        "maps": caption,
        "heat": _heat_colours(),
        "panes": painter.panes,
        "error": _error_legend() if options.distorted else None,
    }


class _FrameConverter:
    """Convert decoded frames to upright RGB; keep the filter graph of each size."""

    def __init__(self, colour: Colour) -> None:
        self._colour = colour
        self._scalers: dict[tuple[object, ...], Scaler] = {}

    def __call__(self, frame: Frame, size: tuple[int, int]) -> Pixels:
        """Return a frame, read with its source, as full-range RGB, uint8 (height, width, 3)."""
        source = frame.source
        assert source is not None  # noqa: S101 - all frames here are read with their source
        kind = kind_of(source), frame.rotation, size
        if kind not in self._scalers:
            self._scalers[kind] = Scaler(source, size, self._colour, frame.rotation)
        return np.ascontiguousarray(np.moveaxis(self._scalers[kind](source), 0, 2))


class _Painter:
    """Make the pictures of one frame, and read the distorted clip in step with the reference."""

    def __init__(
        self, options: MediaOptions, log: LogRows, info: VideoInfo, stack: contextlib.ExitStack
    ) -> None:
        self.full = info.display_width, info.display_height
        self.size = _fit(*self.full, options.side)
        self._convert = _FrameConverter(info.colour)
        self._others: Iterator[Frame] | None = None
        name = Path(options.video).name
        self.panes = [{"track": "picture", "title": "Clip", "name": name, "heat": True}]
        if options.distorted is not None:
            other = stack.enter_context(open_video(options.distorted, options.video_options))
            self._skipped = _offsets(log)[1]
            _check_count(log, options.distorted, other.info, self._skipped)
            self._names = options.video, options.distorted
            self._convert_other = _FrameConverter(other.info.colour)
            self._others = other.frames(lambda w, h: (2, 2), keep_source=True)
            other_name = Path(options.distorted).name
            self.panes[0]["title"] = "Reference"
            self.panes += [
                {"track": "distorted", "title": "Distorted", "name": other_name, "heat": True},
                {"track": "error", "title": "Error", "name": "RMS of luma", "heat": False},
            ]

    def distorted_frame(self, number: int) -> Frame | None:
        """Return the distorted clip's frame for a row of the log, or None without such a clip."""
        if self._others is None:
            return None
        for other in self._others:
            if other.index == number + self._skipped:
                return other
        raise LogError(
            f"{self._names[1]}: the clip ends before frame {number} of the log; {self._names[0]} has it",
            "give the two clips that were scored",
        )

    def check_end(self, log: LogRows) -> None:
        """Check after the reference's last frame that the distorted clip has ended, too."""
        more = next(self._others, None) if self._others and not _is_partial(log) else None
        if more is not None:
            raise _mismatch(log, self._names[1], f"more than {more.index} frames")

    def __call__(self, frame: Frame, other: Frame | None, saliency: Map | None) -> dict[str, bytes]:
        out = {"picture": webp(self._convert(frame, self.size))}
        if other is not None:
            out["distorted"] = webp(self._convert_other(other, self.size))
            # The error map has half the picture's size, because noise takes many bytes and shows little.
            factor = max(1, round(2 * max(self.full) / max(self.size)))
            errors = error_map(
                self._convert(frame, self.full), self._convert_other(other, self.full), factor
            )
            out["error"] = webp(paint_error(errors), ERROR_QUALITY)
        if saliency is not None:
            out["heat"] = webp(grey(saliency), MAP_QUALITY)
        return out


_MappedFrames = Generator[tuple[Frame, Map | None]]


def _open(
    options: MediaOptions, log: LogRows, stack: contextlib.ExitStack
) -> tuple[_MappedFrames, VideoInfo, str]:
    """Return frames with their maps, the clip's properties, and a caption on the origin of the maps."""
    caption = ""
    if options.heat and options.maps is None:
        model, caption = _model_of(options, log)
        if model is not None:
            extraction = extract(
                options.video,
                model=model,
                video_options=options.video_options,
                options=_extract_options(log, options),
            )
            stack.enter_context(extraction)
            return ((found.frame, found.map) for found in extraction), extraction.info, caption
    video = stack.enter_context(open_video(options.video, options.video_options))
    frames = video.frames(lambda w, h: (2, 2), keep_source=True)
    if options.heat and options.maps is not None:
        caption = f"maps of {Path(options.maps).name}"
        return _with_maps(frames, options.maps), video.info, caption
    return ((frame, None) for frame in frames), video.info, caption


def _with_maps(frames: Iterator[Frame], path: str) -> _MappedFrames:
    """Yield frames with their maps from files; the map is None for a frame without one."""
    maps = read_maps(path)
    ahead = next(maps, None)
    for frame in frames:
        while ahead is not None and ahead[0] < frame.index:
            ahead = next(maps, None)
        yield frame, ahead[1] if ahead is not None and ahead[0] == frame.index else None


def _model_of(options: MediaOptions, log: LogRows) -> tuple[Model | None, str]:
    """Return a model and its caption: the user's model, or else the log's after a check of its digest."""
    registry = options.registry or None
    if options.names_model:
        model = resolve_model(options.model, registry, task=options.task)
        return model, f"maps by {model.label}, as asked for, sha256 {model.sha256[:16]}"
    maker = _map_provenance(log)
    name, digest = maker.get("model"), maker.get("model_sha256")
    if not isinstance(name, str) or not isinstance(digest, str):
        return None, "no maps: the log names no model"
    model = resolve_model(name, registry)
    if model.sha256 != digest:
        raise VerificationError(
            f"{log.path}: was made by {name} with sha256 {digest[:16]}..., "
            f"but this model now has sha256 {model.sha256[:16]}...",
            "name the model with --model, give --maps, or leave the heat out with --no-heat",
        )
    return model, f"maps by {model.label}, sha256 {digest[:16]}"


def _map_provenance(log: LogRows) -> dict[str, Any]:
    """Return the provenance of the maps, which a score log keeps under `saliency`."""
    nested = log.provenance.get("saliency")
    return nested if isinstance(nested, dict) else log.provenance


def _logged_options(provenance: Mapping[str, Any], name: str = "options") -> dict[str, Any]:
    options = provenance.get(name)
    return options if isinstance(options, dict) else {}


def _offsets(log: LogRows) -> tuple[int, int]:
    """Return the numbers of frames left out at the start of the reference and the distorted clip."""
    pairs = _logged_options(_logged_options(log.provenance), "pairs")
    known = ("ref_offset", "dist_offset", "frames", "shortest")
    others = ", ".join(str(name) for name, value in pairs.items() if value and name not in known)
    offsets = [pairs.get(name) or 0 for name in known[:2]]
    if others or not all(isinstance(n, int) and n >= 0 for n in offsets):
        raise LogError(
            f"{log.path}: scored with {others or offsets}, which a report can't apply to pictures",
            "leave the pictures out with --no-media",
        )
    return offsets[0], offsets[1]


def _extract_options(log: LogRows, options: MediaOptions) -> ExtractOptions:
    """Return those options of the log's extraction that affect the maps."""
    kept = _logged_options(_map_provenance(log))
    own = () if options.names_model else ("lines", "stride", "fill", "temporal", "temporal_ms")
    given = {name: kept[name] for name in (*own, "start", "stop") if kept.get(name) is not None}
    for name, value in given.items():
        numeric = name in ("stride", "start", "stop")
        allowed = int | float if numeric else int | float | str
        if isinstance(value, bool) or not isinstance(value, allowed):
            raise LogError(
                f"{log.path}: the option {name} of its provenance is invalid: {value!r}",
                "make the log again, or leave the heat out with --no-heat",
            )
    return ExtractOptions(**given, keep_source=True)


def _is_partial(log: LogRows) -> bool:
    """Return whether the log itself says that it may end before its clip does."""
    options = _logged_options(log.provenance)
    pairs = _logged_options(options, "pairs")
    cut = bool(pairs.get("shortest") or pairs.get("frames"))
    return options.get("stop") is not None or cut or log.provenance.get("complete") is False


def _step(log: LogRows) -> int:
    """Return the number of frames from one row to the next, which is above 1 in subsampled logs."""
    return int(np.median(np.diff(log.numbers))) if len(log.numbers) > 1 else 1


def _check_count(log: LogRows, path: str, info: VideoInfo, skipped: int) -> None:
    """Raise an error early for a clip of another length, if the container states its frame count."""
    if info.frames is None:
        return
    last, count = int(log.numbers[-1]), info.frames - skipped
    too_long = count > last + _step(log) and not _is_partial(log)
    if count <= last or too_long:
        raise _mismatch(log, path, f"{info.frames} frames")


def _mismatch(log: LogRows, path: str, count: str) -> LogError:
    return LogError(
        f"{log.path} has {len(log.numbers)} frames, the last is {int(log.numbers[-1])}; "
        f"{path} has {count}",
        "give the clip that the log was made from, or --no-media",
    )


def _check_mean(log: LogRows, row: int, saliency: Map, path: str) -> None:
    if MEAN not in log.values:
        return
    here, there = float(saliency.mean(dtype=np.float64)), float(log.values[MEAN][row])
    if abs(here - there) > MEAN_TOLERANCE:
        raise LogError(
            f"{log.path}: frame {int(log.numbers[row])} has {MEAN} {there:.4f}; in {path} it is "
            f"{here:.4f}",
            "give the clip that the log was made from, --model, --maps or --no-heat",
        )
