"""The options of an encode, and the state that every way to an encoder shares."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

from eyeline.errors import DamagedMediaError, UsageError
from eyeline.media.types import IMAGE_SUFFIXES, VideoInfo, VideoOptions
from eyeline.roi._footage import Footage, LevelStore, Picture
from eyeline.roi.encode._encoder import (
    Capability,
    RateTarget,
    SideStreams,
    capability,
    check_options,
    pixel_format,
)
from eyeline.roi.steering import SteerOptions
from eyeline.saliency.pipeline import ExtractOptions

EncodeProgress = Callable[[int, int], None]
"""Called after each picture with the number of the pass (1 or 2) and the pictures done in it."""


@dataclass(frozen=True)
class EncodeOptions:
    """How a source is encoded.

    Attributes:
        codec: a row of `capabilities.toml`.
        crf: constant quality on the encoder's scale; the encoder's default if no rate is given.
        bitrate: bits per second, in two passes if the encoder has two.
        qp: constant QP, kvazaar only.
        preset: the encoder's own name.
        steer: how maps become offsets; a strength of 0 encodes without regions.
        extra: the encoder's options by FFmpeg's names; options that undo regions are refused.
        extract: how the model is run; `start` and `stop` choose frames for every kind of map.
        video: how the source is read.
        threads: encoder threads; 0 = the encoder's choice.
    """

    codec: str = "x264"
    crf: float | None = None
    bitrate: int | None = None
    qp: int | None = None
    preset: str | None = None
    steer: SteerOptions = field(default_factory=SteerOptions)
    extra: Mapping[str, str] = field(default_factory=dict)
    extract: ExtractOptions = field(default_factory=ExtractOptions)
    video: VideoOptions = field(default_factory=VideoOptions)
    threads: int = 0

    def checked(self) -> tuple[Capability, RateTarget]:
        """Return the encoder's row and the target of its rate control.

        Raises:
            EncoderError: an encoder that ignores regions, or an option that undoes them.
            UsageError: two rates, or a rate that the encoder does not have.
        """
        row = capability(self.codec)
        rates = {name: getattr(self, name) for name in ("crf", "bitrate", "qp")}
        given = {name: value for name, value in rates.items() if value is not None}
        if len(given) > 1:
            raise UsageError(f"--{' and --'.join(given)} are given together", "give one of them")
        for name, value in given.items():
            if name not in row.rates:
                if name == "qp":
                    check_options(row, {"qp": str(value)})
                raise UsageError(
                    f"{self.codec} has no {name}", f"give one of {', '.join(row.rates)}"
                )
        if self.bitrate is not None and self.bitrate < 1000:
            raise UsageError(
                f"the bit rate is {self.bitrate} bits/s; it must be at least 1000",
                "write it like 800k or 2M",
            )
        top = 51 if row.library != "libvpx-vp9" else 63
        if self.crf is not None and not 0 < self.crf <= top:
            raise UsageError(
                f"the CRF is {self.crf:g}; it must be more than 0 and at most {top}",
                f"the default of {self.codec} is {row.default_crf:g}",
            )
        if self.qp is not None and not 1 <= self.qp <= 51:
            raise UsageError(
                f"the QP is {self.qp}; it must be between 1 and 51",
                f"the default of {self.codec} is {row.default_qp}",
            )
        preset = {} if self.preset is None else {row.preset_option: self.preset}
        check_options(row, dict(self.extra) | preset)
        if not given:
            return row, RateTarget(crf=row.default_crf, qp=row.default_qp)
        return row, RateTarget(**given)


class EncodeJob:
    """One encode: the state that its passes share, whichever way it takes."""

    def __init__(
        self,
        source: Any,
        out: str | os.PathLike[str],
        options: EncodeOptions,
        footage: Footage,
        on_frame: EncodeProgress,
    ) -> None:
        self.source, self.out, self.options = source, Path(out), options
        self.row, self.rate = options.checked()
        self.footage, self.on_frame = footage, on_frame
        self.pix_fmt = pixel_format(self.row, footage.info)
        self.damage: DamagedMediaError | None = None
        self.drawn: LevelStore | None = None
        self._first_seconds: float | None = None

    @property
    def info(self) -> VideoInfo:
        """Facts of the source."""
        return self.footage.info

    @property
    def whole(self) -> bool:
        """Whether all frames of the source are encoded."""
        return self.footage.start == 0 and self.footage.stop is None

    def side_streams(self) -> SideStreams:
        """Open the source's other streams; a part of a source has none, and neither has raw video."""
        path = self.source
        if (
            self.whole
            and isinstance(path, str | os.PathLike)
            and Path(path).is_file()
            and Path(path).suffix.lower() not in IMAGE_SUFFIXES
            and self.info.codec not in ("rawvideo", "wrapped_avframe")
        ):
            return SideStreams(os.fspath(path))
        return SideStreams(None)

    def aspect(self, streams: SideStreams) -> Fraction:
        """Return the width of a sample over its height: as stated, or as the display size implies."""
        if streams.aspect:
            return streams.aspect
        i = self.info
        shown = i.display_height if i.rotation in (90, 270) else i.display_width
        return Fraction(shown, i.width).limit_denominator(255)

    def moment(self, picture: Picture) -> float:
        """Return the presentation time of a picture in the output, seconds; a part begins at 0."""
        if self._first_seconds is None:
            self._first_seconds = 0.0 if self.whole else picture.seconds
        return picture.seconds - self._first_seconds
