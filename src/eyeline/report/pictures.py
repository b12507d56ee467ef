"""Pictures of the page: WebP in memory, maps as small grey pictures, and the error map.

WebP since every browser of the last years shows it, and it is smaller than JPEG at the same look.
A map travels grey and the page colours it, with the colours of `saliency.overlay`: painted with
its transparency it would take 54 kB in place of 2.

As many pictures as a size allows, evenly spread, found in one pass over frames of unknown cost.

Frames, heat and error maps for the page, taken from the clips that a log was made of.

The log says which model made its numbers, so the maps are made again by that model (its digest is
compared), or read from files. A clip that does not belong to the log is refused.
"""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Callable, Collection, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np
import numpy.typing as npt

from eyeline.arrays import block_means
from eyeline.errors import LogError, MediaError, OutputError, UsageError, VerificationError
from eyeline.media import open_video
from eyeline.media.colour import Scaler, kind_of
from eyeline.media.types import Colour, Frame, VideoInfo, VideoOptions
from eyeline.media.write import TIME_BASE
from eyeline.registry.records import Task
from eyeline.registry.registry import Model, resolve_model
from eyeline.report.series import Rows
from eyeline.saliency.maps import quantise, read_maps
from eyeline.saliency.overlay import CONTOUR, CONTOUR_LEVEL, ramp
from eyeline.saliency.pipeline import Extraction, ExtractOptions, extract

Pixels = npt.NDArray[np.uint8]

QUALITY = 78
"""libwebp's quality of the pictures: a 640x360 frame of a film takes 15 to 40 kB."""
MAP_QUALITY = 90
"""Of grey maps: off by two levels of 255 at most places, and soft anyway."""
ERROR_QUALITY = 70

MAP_SIDE = 320
"""Long side of a map, pixels, at most: the models answer at 192 lines."""

ERROR_TOP = 64.0
"""RMS luma error at the end of the error map's scale, in levels of 255."""
ERROR_MARKS = (0, 4, 16, 64)
"""Where the scale is labelled."""

ERROR_RAMP: tuple[tuple[float, int, int, int], ...] = (
    # place on the scale, red, green, blue
    (0.00, 4, 8, 16),
    (0.25, 10, 44, 92),
    (0.50, 0, 122, 163),
    (0.75, 74, 206, 201),
    (1.00, 250, 255, 236),
)
"""Dark where the two agree, through blue and cyan to white: unlike the heat's, and light is more."""


class PictureMaker:
    """Decoded frames to upright RGB of one size; keeps the filter graph from frame to frame.

    Args:
        colour: how the samples of the video become RGB.
    """

    def __init__(self, colour: Colour) -> None:
        self._colour = colour
        self._scalers: dict[tuple[int, int], tuple[tuple[object, ...], Scaler]] = {}

    def __call__(self, frame: Frame, width: int, height: int) -> Pixels:
        """One frame.

        Args:
            frame: with its `source`.
            width: of the result, pixels.
            height: of the result, pixels.

        Returns:
            uint8 (height, width, 3), full-range RGB.

        Raises:
            MediaError: the pixel format can't be converted.
            ValueError: the frame was decoded without its source.
        """
        source = frame.source
        if source is None:
            raise ValueError("a picture needs frames with their source")
        kind = (kind_of(source), frame.rotation)
        made = self._scalers.get((width, height))
        if made is None or made[0] != kind:
            made = kind, Scaler(source, (width, height), self._colour, frame.rotation)
            self._scalers[(width, height)] = made
        return np.ascontiguousarray(np.moveaxis(made[1](source), 0, 2))


def webp(pixels: Pixels, quality: int = QUALITY) -> bytes:
    """Encode a picture.

    Args:
        pixels: uint8 (h, w, 3) RGB, or (h, w, 4) RGBA with straight alpha.
        quality: 0..100, libwebp's.

    Returns:
        A WebP file.

    Raises:
        OutputError: the encoder fails.
    """
    height, width, channels = pixels.shape
    # libwebp is given RGB and converts by itself, as its format prescribes.
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
        raise OutputError(f"a picture of {width}x{height} can't be written as WebP: {exc}") from exc
    return b"".join(map(bytes, packets))


def working_size(width: int, height: int, side: int) -> tuple[int, int]:
    """A display size scaled down so that its long side has at most `side` pixels; never enlarged."""
    scale = min(1.0, side / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def luma(rgb: Pixels) -> npt.NDArray[np.float32]:
    """Luma of full-range RGB by ITU-R BT.709-6, item 3.2: uint8 (h, w, 3) to float32 (h, w)."""
    # Without BLAS, whose threads stall a machine that decodes at the same time.
    out: npt.NDArray[np.float32] = np.multiply(rgb[..., 0], np.float32(0.2126), dtype=np.float32)
    out += np.multiply(rgb[..., 1], np.float32(0.7152), dtype=np.float32)
    out += np.multiply(rgb[..., 2], np.float32(0.0722), dtype=np.float32)
    return out


def error_map(reference: Pixels, distorted: Pixels, factor: int) -> npt.NDArray[np.float32]:
    """Root mean square luma error of each square of `factor` pixels.

    Taken at full size and then averaged: pictures scaled down first would hide noise and ringing.

    Args:
        reference: uint8 (H, W, 3) RGB.
        distorted: the same size.
        factor: side of a square, pixels; columns and rows that fill none are left out.

    Returns:
        float32 (H // factor, W // factor), levels of 255.
    """
    squared = np.square(luma(reference) - luma(distorted))
    h, w = squared.shape[0] // factor, squared.shape[1] // factor
    blocks = squared[: h * factor, : w * factor].reshape(h, factor, w, factor)
    out: npt.NDArray[np.float32] = np.sqrt(blocks.mean(axis=(1, 3)))
    return out


@lru_cache(maxsize=1)
def _error_colours() -> Pixels:
    points = np.array(ERROR_RAMP)
    levels = np.arange(256) / 255
    channels = [np.interp(levels, points[:, 0], points[:, i]) for i in (1, 2, 3)]
    return np.stack(channels, 1).round().astype(np.uint8)


def paint_error(errors: npt.NDArray[np.float32]) -> Pixels:
    """Colour an error map on a square-root scale, so that what is just visible is not black.

    Args:
        errors: float32 (h, w), levels of 255; beyond `ERROR_TOP` all look alike.

    Returns:
        uint8 (h, w, 3) RGB.
    """
    place = np.sqrt(np.clip(errors / ERROR_TOP, 0, 1)) * 255 + 0.5
    return _error_colours()[place.astype(np.uint8)]


def grey(saliency: npt.NDArray[np.float32]) -> Pixels:
    """A map as grey RGB of at most `MAP_SIDE`: float32 (h, w) in [0, 1] to uint8 (h', w', 3)."""
    width, height = working_size(saliency.shape[1], saliency.shape[0], MAP_SIDE)
    levels = quantise(resize_map(saliency, width, height), 8)
    return np.repeat(levels.astype(np.uint8)[..., None], 3, axis=2)


def resize_map(
    saliency: npt.NDArray[np.float32], width: int, height: int
) -> npt.NDArray[np.float32]:
    """A map made smaller by the mean of each cell; one that is small enough stays as it is."""
    h, w = saliency.shape
    if (width, height) == (w, h):
        return saliency
    rows, columns = (np.linspace(0, n, m + 1).astype(int) for n, m in ((h, height), (w, width)))
    return block_means(saliency.astype(np.float64), rows, columns).astype(np.float32)


def heat_colours() -> dict[str, object]:
    """What the page needs to colour a map as `eyeline.saliency.overlay.paint` does."""
    levels = ramp().view(np.uint8).reshape(256, 4)
    some = [levels[round(i * 255 / 15)].tolist() for i in range(16)]
    return {
        "ramp": base64.b64encode(levels.tobytes()).decode(),
        "level": CONTOUR_LEVEL,
        "contour": CONTOUR.tolist(),
        "stops": [[i / 15, f"rgb({r},{g},{b})"] for i, (r, g, b, _) in enumerate(some)],
        "marks": [[0, "0"], [0.5, ".5"], [1, "1"]],
    }


def error_legend() -> dict[str, object]:
    """What the page needs to draw the error map's scale."""
    return {
        "stops": [[place, f"rgb({r},{g},{b})"] for place, r, g, b in ERROR_RAMP],
        "marks": [[float(np.sqrt(mark / ERROR_TOP)), str(mark)] for mark in ERROR_MARKS],
    }


MEGABYTE = 1_000_000


def base64_size(size: int) -> int:
    """Characters that `size` bytes take in a page."""
    return -(-size // 3) * 4


class Strip:
    """Pictures by frame, thinned to every second whenever they outgrow their budget.

    Frames that must be there are never thinned out.

    Args:
        budget: bytes that the pictures may take in the page, as base64.
        keep: frame numbers that must be there.
    """

    def __init__(self, budget: int, keep: Collection[int] = ()) -> None:
        self.every = 1
        self.size = 0
        self._budget = budget
        self._keep = frozenset(keep)
        self._shots: dict[int, tuple[int, Mapping[str, bytes]]] = {}

    def __len__(self) -> int:
        return len(self._shots)

    def wants(self, position: int, number: int) -> bool:
        """Whether a frame would be kept now.

        Args:
            position: its place among the frames, from 0.
            number: its frame number.
        """
        return position % self.every == 0 or number in self._keep

    def add(self, position: int, number: int, pictures: Mapping[str, bytes]) -> None:
        """Take a frame's pictures, by track.

        Raises:
            UsageError: not even the frames that must be there fit.
        """
        self._shots[number] = position, pictures
        self.size += self._cost(pictures)
        while self.size > self._budget:
            if self.every > position:
                raise UsageError(
                    f"{len(self)} frames alone take {self.size / MEGABYTE:.1f} MB, more than "
                    f"--max-size {self._budget / MEGABYTE:g}",
                    "raise --max-size, or lower --picture-size or --worst",
                )
            self.every *= 2
            for n, (place, old) in list(self._shots.items()):
                if not self.wants(place, n):
                    self.size -= self._cost(old)
                    del self._shots[n]

    @staticmethod
    def _cost(pictures: Mapping[str, bytes]) -> int:
        return sum(base64_size(len(data)) for data in pictures.values())

    def to_json(self) -> dict[str, Any]:
        """Frame numbers, and for each track a list of base64, one a frame; empty where a frame has none."""
        shots = [pictures for _, pictures in self._shots.values()]
        names = dict.fromkeys(name for pictures in shots for name in pictures)
        tracks = {
            name: [base64.b64encode(p.get(name, b"")).decode() for p in shots] for name in names
        }
        return {
            "every": self.every,
            "frames": list(self._shots),
            "tracks": tracks,
        }


Map = npt.NDArray[np.float32]
Shots = Generator[tuple[Frame, Map | None]]

MEAN = "saliency_mean"
MEAN_TOLERANCE = 5e-3
"""Largest difference between a log's `saliency_mean` and the clip's: another clip's is further off.
Other decoders and runtimes differ by less than 1e-3."""


@dataclass(frozen=True)
class MediaOptions:
    """Which clips are shown, and how large.

    Attributes:
        video: the clip, or the reference of a pair.
        distorted: the other one of a pair, or None.
        maps: ready maps of `video` (see `eyeline.saliency.maps`), or None.
        heat: show the heat map where the log's model or `maps` gives one.
        model: id or path of the model that makes the maps, in place of the log's.
        task: take the production model of this task, in place of the log's model.
        registry: the user's own registry folder.
        side: long side of a picture, pixels.
        max_size: megabytes that the pictures may take in the page.
        video_options: how to read the clips.
    """

    video: str
    distorted: str | None = None
    maps: str | None = None
    heat: bool = True
    model: str | None = None
    task: Task | None = None
    registry: str | None = None
    side: int = 640
    max_size: float = 16.0
    video_options: VideoOptions = field(default_factory=VideoOptions)

    @property
    def names_model(self) -> bool:
        """Whether the maps come from a model that was asked for, in place of the log's."""
        return self.model is not None or self.task is not None


def make_media(
    options: MediaOptions,
    log: Rows,
    keep: tuple[int, ...] = (),
    on_frame: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Pictures of a clip or a pair, for the page.

    Args:
        options: see there.
        log: the rows that the pictures belong to.
        keep: frame numbers that must be there.
        on_frame: called after each frame of the log, for progress.

    Returns:
        JSON values: panes, the pictures of each track, and what is said of them.

    Raises:
        LogError: the log belongs to another clip, or its provenance makes no sense.
        MediaError: a clip or the maps can't be read.
        ModelError: the model of the log can't be used.
        UsageError: the pictures don't fit in `max_size`.
    """
    skipped = _offsets(log)[0]
    strip = Strip(int(options.max_size * MEGABYTE), keep)
    rows = {int(n): row for row, n in enumerate(log.numbers)}
    with contextlib.ExitStack() as stack:
        shots, info, line = _shots(options, log, stack)
        _check_count(log, options.video, info, skipped)
        painter = _Painter(options, log, info, stack)
        seen, last = 0, -1
        for frame, saliency in shots:
            number = frame.index - skipped  # in the log
            if number < 0:
                continue
            last = number
            other = painter.following(number)
            if (row := rows.get(number)) is None:
                _check_surplus(log, options.video, number)
                continue
            if saliency is not None and not options.names_model and options.maps is None:
                _check_mean(log, row, saliency, options.video)
            if strip.wants(row, number):
                strip.add(row, number, painter(frame, other, saliency))
            seen += 1
            on_frame()
            if seen == len(rows) and _is_partial(log):
                break
        if seen < len(rows):
            _complain_short(log, options.video, last + 1)
        painter.conclude(log)
    width, height = painter.size
    return {
        **strip.to_json(),
        "width": width,
        "height": height,
        "source": [info.display_width, info.display_height],
        "fps": float(info.fps) if info.fps else None,
        "megabytes": strip.size / MEGABYTE,
        "maps": line,
        "heat": heat_colours(),
        "panes": painter.panes,
        "error": error_legend() if options.distorted else None,
    }


class _Painter:
    """Makes the pictures of one frame, and walks the distorted clip beside the reference."""

    def __init__(
        self, options: MediaOptions, log: Rows, info: VideoInfo, stack: contextlib.ExitStack
    ) -> None:
        self.full = info.display_width, info.display_height
        self.size = working_size(*self.full, options.side)
        self._picture = PictureMaker(info.colour)
        self._others: Iterator[Frame] | None = None
        name = Path(options.video).name
        self.panes = [{"track": "picture", "title": "Clip", "name": name, "heat": True}]
        if options.distorted is not None:
            other = stack.enter_context(open_video(options.distorted, options.video_options))
            self._skipped = _offsets(log)[1]
            _check_count(log, options.distorted, other.info, self._skipped)
            self._names = options.video, options.distorted
            self._other_picture = PictureMaker(other.info.colour)
            self._others = other.frames(lambda w, h: (2, 2), keep_source=True)
            other_name = Path(options.distorted).name
            self.panes[0]["title"] = "Reference"
            self.panes += [
                {"track": "distorted", "title": "Distorted", "name": other_name, "heat": True},
                {"track": "error", "title": "Error", "name": "RMS of luma", "heat": False},
            ]

    def following(self, number: int) -> Frame | None:
        """The distorted clip's frame of a row of the log, None where there is no such clip."""
        if self._others is None:
            return None
        for other in self._others:
            if other.index == number + self._skipped:
                return other
        raise LogError(
            f"{self._names[1]}: ends before frame {number} of the log, which {self._names[0]} has",
            "both must be the clips that were scored",
        )

    def conclude(self, log: Rows) -> None:
        """After the last frame: the distorted clip must have no more either."""
        more = next(self._others, None) if self._others and not _is_partial(log) else None
        if more is not None:
            raise _mismatch(log, self._names[1], f"more than {more.index} frames")

    def __call__(self, frame: Frame, other: Frame | None, saliency: Map | None) -> dict[str, bytes]:
        out = {"picture": webp(self._picture(frame, *self.size))}
        if other is not None:
            out["distorted"] = webp(self._other_picture(other, *self.size))
            # At half the picture's size: noise costs more bytes than it tells.
            factor = max(1, round(2 * max(self.full) / max(self.size)))
            errors = error_map(
                self._picture(frame, *self.full), self._other_picture(other, *self.full), factor
            )
            out["error"] = webp(paint_error(errors), ERROR_QUALITY)
        if saliency is not None:
            out["heat"] = webp(grey(saliency), MAP_QUALITY)
        return out


def _shots(
    options: MediaOptions, log: Rows, stack: contextlib.ExitStack
) -> tuple[Shots, VideoInfo, str]:
    """Frames with their maps, facts of the clip, and a line on where the maps come from."""
    if options.heat and options.maps is None:
        model, line = _model_of(options, log)
        if model is not None:
            extraction = extract(
                options.video,
                model=model,
                video_options=options.video_options,
                options=_extract_options(log, options),
            )
            stack.enter_context(extraction)
            return _extracted(extraction), extraction.info, line
    else:
        line = f"maps of {Path(options.maps).name}" if options.heat and options.maps else ""
    video = stack.enter_context(open_video(options.video, options.video_options))
    frames = video.frames(lambda w, h: (2, 2), keep_source=True)
    if options.heat and options.maps is not None:
        return _paired(frames, options.maps), video.info, line
    return ((frame, None) for frame in frames), video.info, line


def _extracted(extraction: Extraction) -> Shots:
    for found in extraction:
        yield found.frame, found.map


def _paired(frames: Iterator[Frame], path: str) -> Shots:
    """Frames with ready maps; frames before the first map and behind the last have none."""
    maps = read_maps(path)
    ahead = next(maps, None)
    for frame in frames:
        while ahead is not None and ahead[0] < frame.index:
            ahead = next(maps, None)
        fits = ahead is not None and ahead[0] == frame.index
        yield frame, ahead[1] if ahead is not None and fits else None


def _model_of(options: MediaOptions, log: Rows) -> tuple[Model | None, str]:
    """The model that made the log's numbers, checked by digest; or the one that was asked for."""
    registry = options.registry or None
    if options.names_model:
        model = resolve_model(options.model, registry, task=options.task)
        return model, f"maps by {model.label}, as asked for, sha256 {model.sha256[:16]}"
    maker = _maker_of_maps(log)
    name, digest = maker.get("model"), maker.get("model_sha256")
    if not isinstance(name, str) or not isinstance(digest, str):
        return None, "no maps: the log names no model"
    model = resolve_model(name, registry)
    if model.sha256 != digest:
        raise VerificationError(
            f"{log.path}: made by {name} with sha256 {digest[:16]}..., "
            f"this one has {model.sha256[:16]}...",
            "name the model with --model, give --maps, or leave the heat out with --no-heat",
        )
    return model, f"maps by {model.label}, sha256 {digest[:16]}"


def _maker_of_maps(log: Rows) -> dict[str, Any]:
    """What says how the maps were made: a score log keeps its extraction's provenance apart."""
    nested = log.provenance.get("saliency")
    return nested if isinstance(nested, dict) else log.provenance


def _offsets(log: Rows) -> tuple[int, int]:
    """Frames left out at the start of the reference and of the distorted clip.

    Raises:
        LogError: it was brought together by more: the pictures would not show what was scored.
    """
    options = log.provenance.get("options")
    pairs = options.get("pairs") if isinstance(options, dict) else None
    if not isinstance(pairs, dict):
        return 0, 0
    known = ("ref_offset", "dist_offset", "frames", "shortest")
    asked = ", ".join(str(name) for name, value in pairs.items() if value and name not in known)
    offsets = [pairs.get(name) or 0 for name in known[:2]]
    if asked or not all(isinstance(n, int) and n >= 0 for n in offsets):
        raise LogError(
            f"{log.path}: scored with {asked or offsets}: its pictures can't be paired here",
            "leave them out with --no-media",
        )
    return offsets[0], offsets[1]


def _extract_options(log: Rows, options: MediaOptions) -> ExtractOptions:
    """The options that the log was made with, as far as they shape a map."""
    kept = _maker_of_maps(log).get("options")
    kept = kept if isinstance(kept, dict) else {}
    own = () if options.names_model else ("lines", "stride", "fill", "temporal", "temporal_ms")
    given = {name: kept[name] for name in (*own, "start", "stop") if kept.get(name) is not None}
    for name, value in given.items():
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise LogError(f"{log.path}: option {name} of its provenance makes no sense")
    if any(isinstance(given.get(name, 0), str) for name in ("stride", "start", "stop")):
        raise LogError(f"{log.path}: its provenance has options that make no sense")
    return ExtractOptions(**given, keep_source=True)


def _is_partial(log: Rows) -> bool:
    """Whether the log says itself that it may end before its clip does."""
    options = log.provenance.get("options")
    stop = options.get("stop") if isinstance(options, dict) else None
    pairs = options.get("pairs") if isinstance(options, dict) else None
    cut = isinstance(pairs, dict) and bool(pairs.get("shortest") or pairs.get("frames"))
    return stop is not None or cut or log.provenance.get("complete") is False


def _step(log: Rows) -> int:
    """Frames from one row to the next: more than 1 in logs that were subsampled."""
    return int(np.median(np.diff(log.numbers))) if len(log.numbers) > 1 else 1


def _check_count(log: Rows, path: str, info: VideoInfo, skipped: int) -> None:
    """Refuse early, where the container says how many frames it has."""
    if info.frames is None:
        return
    last, count = int(log.numbers[-1]), info.frames - skipped
    too_long = count > last + _step(log) and not _is_partial(log)
    if count <= last or too_long:
        raise _mismatch(log, path, f"{info.frames} frames")


def _check_surplus(log: Rows, path: str, index: int) -> None:
    if index >= int(log.numbers[-1]) + _step(log) and not _is_partial(log):
        raise _mismatch(log, path, f"more than {index} frames")


def _complain_short(log: Rows, path: str, count: int) -> None:
    if not count:
        raise MediaError(f"{path}: no frames", "is it a whole video?")
    raise _mismatch(log, path, f"{count} frames")


def _mismatch(log: Rows, path: str, count: str) -> LogError:
    return LogError(
        f"{log.path}: {len(log.numbers)} frames, the last is {int(log.numbers[-1])}; "
        f"{path}: {count}",
        "give the clip that the log was made of, or --no-media",
    )


def _check_mean(log: Rows, row: int, saliency: Map, path: str) -> None:
    if MEAN not in log.values:
        return
    here, there = float(saliency.mean(dtype=np.float64)), float(log.values[MEAN][row])
    if abs(here - there) > MEAN_TOLERANCE:
        raise LogError(
            f"{log.path}: frame {int(log.numbers[row])} has {MEAN} {there:.4f}, in {path} it is "
            f"{here:.4f}",
            "give the clip that the log was made of, --model, --maps or --no-heat",
        )
