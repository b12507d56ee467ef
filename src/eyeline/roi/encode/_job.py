"""One encode: its options, and what every route to an encoder needs to know of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

from eyeline.errors import DamagedMediaError, UsageError
from eyeline.media.types import VideoInfo, VideoOptions
from eyeline.roi._footage import Footage, LevelStore, Picture
from eyeline.roi.encode._capabilities import Capability, capability, check_options
from eyeline.roi.encode._encoder import Passengers, Rate, pixel_format
from eyeline.roi.steering import SteerOptions
from eyeline.saliency.pipeline import ExtractOptions

Progress = Callable[[int, int], None]
"""Called after each picture with the pass (1 or 2) and the pictures done in it."""


@dataclass(frozen=True)
class EncodeOptions:
    """How a source is encoded.

    Attributes:
        codec: a row of `capabilities.toml`.
        crf: constant quality on the encoder's scale; the encoder's default if no rate is given.
        bitrate: bits a second, in two passes where the encoder has them.
        qp: constant QP, kvazaar only.
        preset: the encoder's own name.
        steer: how maps become offsets; strength 0 encodes plainly.
        extra: the encoder's own options by FFmpeg's names; checked, see `check_options`.
        extract: how the model is run; its `start` and `stop` choose frames for every kind of map.
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

    def checked(self) -> tuple[Capability, Rate]:
        """The encoder's row and what rate control is asked for.

        Raises:
            EncoderError: an encoder or an option that does not go with regions.
            UsageError: two rates, or one that the encoder does not have.
        """
        row = capability(self.codec)
        given = {
            k: v
            for k, v in (("crf", self.crf), ("bitrate", self.bitrate), ("qp", self.qp))
            if v is not None
        }
        if len(given) > 1:
            raise UsageError(f"{' and '.join(given)} together", "give one of them")
        for name, value in given.items():
            if name not in row.rates:
                if name == "qp":
                    check_options(row, {"qp": str(value)})
                raise UsageError(
                    f"{self.codec}: has no {name}", f"give one of {', '.join(row.rates)}"
                )
        if self.bitrate is not None and self.bitrate < 1000:
            raise UsageError(
                f"bitrate is {self.bitrate} bits/s", "1000 at the least; as 800k or 2M"
            )
        top = 51 if row.library != "libvpx-vp9" else 63
        if self.crf is not None and not 0 < self.crf <= top:
            raise UsageError(f"crf is {self.crf:g}", f"give more than 0, up to {top}")
        if self.qp is not None and not 1 <= self.qp <= 51:
            raise UsageError(f"qp is {self.qp}", "give 1..51")
        options = dict(self.extra)
        if self.preset is not None:
            options[row.preset_option] = self.preset
        check_options(row, options)
        if not given:
            return row, Rate(crf=row.default_crf, qp=row.default_qp)
        return row, Rate(self.crf, self.bitrate, self.qp)


class EncodeJob:
    """One encode: what its passes share, whichever way it takes.

    Args:
        source: see `eyeline.roi.encode.encode`.
        out: the file.
        options: as they were given.
        row: of the encoder.
        rate: as `EncodeOptions.checked` says.
        footage: the pictures and their levels.
        advance: progress.
    """

    def __init__(
        self,
        source: Any,
        out: str | os.PathLike[str],
        options: EncodeOptions,
        row: Capability,
        rate: Rate,
        footage: Footage,
        advance: Progress,
    ) -> None:
        self.source, self.out, self.options = source, Path(out), options
        self.row, self.rate, self.footage, self.advance = row, rate, footage, advance
        self.pix_fmt = pixel_format(row, footage.info)
        self.damage: DamagedMediaError | None = None
        self.drawn: LevelStore | None = None
        self.start_seconds: float | None = None
        """Time of the first picture, which becomes 0 where only a part is encoded."""

    @property
    def info(self) -> VideoInfo:
        """Facts of the source."""
        return self.footage.info

    @property
    def whole(self) -> bool:
        """Whether all frames of the source are encoded."""
        return self.footage.start == 0 and self.footage.stop is None

    def passengers(self) -> Passengers:
        """The source's other streams; a part of a source goes without."""
        kind = self.info.codec not in ("rawvideo", "wrapped_avframe")
        return Passengers(self.source, container=kind and self.whole and not self._image())

    def _image(self) -> bool:
        from eyeline.media.types import IMAGE_SUFFIXES

        path = self.source
        if not isinstance(path, str | os.PathLike):
            return True
        return Path(path).suffix.lower() in IMAGE_SUFFIXES or not Path(path).is_file()

    def aspect(self, passengers: Passengers) -> Fraction:
        """Width of a sample over its height: as stated, or as the display size implies."""
        if passengers.aspect:
            return passengers.aspect
        i = self.info
        shown = i.display_height if i.rotation in (90, 270) else i.display_width
        return Fraction(shown, i.width).limit_denominator(255)

    def moment(self, picture: Picture) -> float:
        """When a picture is shown in the output, seconds."""
        if self.start_seconds is None:
            self.start_seconds = 0.0 if self.whole else picture.seconds
        return picture.seconds - self.start_seconds
