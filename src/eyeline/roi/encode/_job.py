"""The options of an encode, and the state that `_encode.py` and `_kvazaar.py` share."""

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
"""Function that is called after each picture, with the pass (1 or 2) and its number of pictures done."""


@dataclass(frozen=True)
class EncodeOptions:
    """Options of an encode; without `crf`, `bitrate` and `qp`, the default of the encoder is used.

    Attributes:
        codec: name of an encoder in `capabilities.toml`.
        crf: constant quality on the scale of the encoder.
        bitrate: bit rate in bits per second, in two passes if the encoder supports them.
        qp: constant QP, for kvazaar only.
        preset: preset of the encoder.
        steer: options of the conversion from saliency to QP offsets; a strength of 0 disables offsets.
        extra: further encoder options by FFmpeg's names; an option that disables regions is an error.
        extract: options for running the model; `start` and `stop` also apply to ready-made maps.
        video: options for reading the source.
        threads: number of encoder threads; 0 means that the encoder chooses.
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
        """Check the options; return the capabilities of the encoder and the target of its rate control.

        Raises:
            EncoderError: the encoder ignores regions, or an option makes the encoder ignore them.
            UsageError: several rate targets are given, or the encoder does not support the target.
        """
        row = capability(self.codec)
        rates = {name: getattr(self, name) for name in ("crf", "bitrate", "qp")}
        given = {name: value for name, value in rates.items() if value is not None}
        if len(given) > 1:
            raise UsageError(
                f"--{' and --'.join(given)} are given together", "give only one of them"
            )
        for name, value in given.items():
            if name not in row.rates:
                if name == "qp":
                    check_options(row, {"qp": str(value)})
                raise UsageError(
                    f"{self.codec} does not support --{name}",
                    f"give one of --{', --'.join(row.rates)}",
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
                f"give a value in this range; the default of {self.codec} is {row.default_crf:g}",
            )
        if self.qp is not None and not 1 <= self.qp <= 51:
            raise UsageError(
                f"the QP is {self.qp}; it must be between 1 and 51",
                f"give a value in this range; the default of {self.codec} is {row.default_qp}",
            )
        preset = {} if self.preset is None else {row.preset_option: self.preset}
        check_options(row, dict(self.extra) | preset)
        if not given:
            return row, RateTarget(crf=row.default_crf, qp=row.default_qp)
        return row, RateTarget(**given)


class EncodeJob:
    """The state that all passes of one encode share."""

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
        """Properties of the source."""
        return self.footage.info

    @property
    def whole(self) -> bool:
        """Whether all frames of the source are encoded."""
        return self.footage.start == 0 and self.footage.stop is None

    def side_streams(self) -> SideStreams:
        """Open the audio and subtitles of the source; they are left out if only a part is encoded."""
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
        """Return the sample aspect ratio (width / height); without one, derive it from the display size."""
        if streams.aspect:
            return streams.aspect
        i = self.info
        shown = i.display_height if i.rotation in (90, 270) else i.display_width
        return Fraction(shown, i.width).limit_denominator(255)

    def moment(self, picture: Picture) -> float:
        """Return the output time of a picture, seconds; if only a part is encoded, the part begins at 0."""
        if self._first_seconds is None:
            self._first_seconds = 0.0 if self.whole else picture.seconds
        return picture.seconds - self._first_seconds
