"""Options of the command line: each is declared once, alone or in a record of options.

::

    @dataclass(frozen=True)
    class RawVideo:
        panel: ClassVar = "Raw video"
        width: int | None = option(None, "--width", "-w", min=1, help="Width, pixels.")

    @app.command()
    @command("eyeline extract clip.yuv --width 576")
    def extract(video: str = argument("VIDEO", help="A video."), raw: RawVideo = group()) -> None: ...

`command` replaces each parameter that is a record by the options of the record's fields, so that Typer
sees plain parameters, and the function receives the records.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, get_type_hints

import typer

from eyeline.errors import UsageError

if TYPE_CHECKING:
    from eyeline.media.types import VideoOptions
    from eyeline.registry.registry import Model, Use
    from eyeline.roi.steering import SteerOptions

REQUIRED = dataclasses.MISSING
MODEL, FRAMES, STEERING = "Model", "Frames", "Steering"


def option(default: Any, *names: str, help: str, panel: str | None = None, **settings: Any) -> Any:
    """Declare an option; `settings` are more arguments of `typer.Option`, such as `min` or `envvar`.

    By default the flag is `--` and the name of the parameter, and the group in the help is that of its
    record; `names` and `panel` change them.
    """
    made = functools.partial(typer.Option, *names, help=help, **settings)
    return dataclasses.field(default=default, metadata={"make": made, "panel": panel})


def argument(metavar: str, help: str, default: Any = REQUIRED, **settings: Any) -> Any:
    """Declare an argument that is given by its place."""
    made = functools.partial(typer.Argument, metavar=metavar, help=help, **settings)
    return dataclasses.field(default=default, metadata={"make": made})


def group() -> Any:
    """Mark a parameter whose annotation is a record of options."""
    return None


def command(*examples: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator that makes a function a command for Typer.

    The docstring of the function and the examples are the help of the command.
    """
    return functools.partial(_command, examples)


def _command(examples: Sequence[str], function: Callable[..., None]) -> Callable[..., None]:
    records: dict[str, Any] = {}
    parameters = []
    hints = get_type_hints(function)
    for name, parameter in inspect.signature(function).parameters.items():
        if dataclasses.is_dataclass(hints[name]):
            records[name] = hints[name]
            types = get_type_hints(hints[name])
            parameters += [_parameter(f, f.name, types[f.name], hints[name].panel)
                           for f in dataclasses.fields(hints[name])]  # fmt: skip
        else:
            parameters.append(_parameter(parameter.default, name, hints[name], None))

    @functools.wraps(function)
    def run(**given: Any) -> None:
        for name, record in records.items():
            given[name] = record(**{f.name: given.pop(f.name) for f in dataclasses.fields(record)})
        function(**given)

    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    run.__doc__ = "\n\n    ".join((f"{inspect.getdoc(function)}\n\nExamples:", *examples))
    return run


def _parameter(field: Any, name: str, kind: Any, panel: str | None) -> inspect.Parameter:
    panel = field.metadata.get("panel") or panel
    info = field.metadata["make"](**({"rich_help_panel": panel} if panel else {}))
    default = inspect.Parameter.empty if field.default is REQUIRED else field.default
    by_name = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, by_name, default=default, annotation=Annotated[kind, info])


QUIET = option(False, "--quiet", "-q", help="Print nothing but errors.")
VERBOSE = option(False, "--verbose", "-v", help="Print what is being run.")
AS_JSON = option(False, "--json", help="Print JSON.")
RUN_AS_JSON = option(False, "--verbose", "-v", help="Print the used options as JSON on stderr.")
REGISTRY = option(None, "--registry", envvar="EYELINE_REGISTRY", help="Your own registry folder.")
SIZE = option(
    None,
    panel=MODEL,
    help="Short side in lines, or `native`; the model's own working size by default.",
)
DEVICE = option("auto", panel=MODEL, help="Where the model runs.")
INFERENCE_WORKERS = option(
    0, min=0, max=256, panel=MODEL, help="Inference threads; 0 = one per core."
)
STRIDE = option(
    1, min=1, panel=FRAMES, help="Infer every n-th frame, and the first of every scene."
)
PIXELS_PER_DEGREE = option(
    None,
    help="Pixels of the video or images per degree of visual angle: recorded gaze is blurred by 1 "
    "degree. Without it, the blur is 3 % of the width.",
)

Device = Literal["auto", "cpu", "cuda"]
Temporal = Literal["model", "none", "ema", "median", "motion"]
TEMPORAL = option(
    "model", panel=FRAMES,
    help="Filter over time, reset at cuts; `model` is the model's own (motion: extra `motion`).",
)  # fmt: skip

METRICS = option(
    None,
    help="Of psnr, ssim, ms_ssim, sw_vmaf, vmaf, separated by commas; by default all that are installed "
    "(VMAF: extra `vmaf`).",
)
VMAF_MODEL = option("vmaf_v0.6.1", help="Model of vmaf and sw_vmaf, by version.")
WEIGHT = option(1.0, min=0, max=1, help="0 = uniform weights, 1 = the map alone.")


@dataclass(frozen=True)
class LogFiles:
    """The logs that are written."""

    panel: ClassVar = "Output"
    output: list[str] | None = option(
        None, "--output", "-o",
        help="Log: .json, .csv, .xml, .parquet, or `-` (JSON on stdout; the default). Repeatable.",
    )  # fmt: skip
    with_log: str | None = option(None, help="libvmaf log (.json, .csv, .xml) to merge with.")


@dataclass(frozen=True)
class ModelChoice:
    """The model that makes the maps."""

    panel: ClassVar = MODEL
    model: str | None = option(
        None, "--model", "-m", envvar="EYELINE_MODEL", help="Registry id or path of an ONNX model."
    )
    task: Literal["gaze", "objects"] | None = option(
        None, "--map", help="Use the registry's production model for `gaze` or for `objects`."
    )
    registry: str | None = REGISTRY

    def choose(self, use: Use) -> Model:
        """Return the chosen model, or the production model for `--map` or the command's default task."""
        from eyeline.registry.registry import resolve_model

        chosen = resolve_model(self.model, self.registry or None, task=self.task, use=use)
        warn_of_smoke(chosen)
        return chosen

    def refuse_ready_maps(self, **files: str | None) -> None:
        """Refuse `--map` beside an option that names ready maps."""
        for name, path in files.items():
            if self.task is not None and path is not None:
                raise UsageError(
                    f"--map {self.task} asks for the maps of a model, and --{name} {path} for ready maps",
                    f"leave out --map or --{name}",
                )


@dataclass(frozen=True)
class TemporalFilter:
    """The filter over time."""

    panel: ClassVar = FRAMES
    temporal: Temporal = TEMPORAL
    temporal_ms: float | None = option(
        None, help="Time constant of `ema` and `motion`, ms; the model's own, or 80, by default."
    )


@dataclass(frozen=True)
class FrameFilling:
    """The choice of the inferred frames, and the filling of the others."""

    panel: ClassVar = FRAMES
    stride: int = STRIDE
    still: float = option(
        0.0, min=0, max=100,
        help="Fill frames that differ from the last inferred one by less than this percent; 0 = none.",
    )  # fmt: skip
    fill: Literal["linear", "motion", "hold"] = option(
        "linear", help="How skipped frames are filled (motion: extra `motion`)."
    )


@dataclass(frozen=True)
class ColourTagOptions:
    """The conversion of YUV to RGB."""

    panel: ClassVar = "Colour"
    matrix: Literal["bt601", "bt709", "bt2020"] | None = option(
        None, help="YUV matrix; overrides the tag of the stream."
    )
    color_range: Literal["limited", "full"] | None = option(
        None, "--range", help="Sample range; overrides the tag of the stream."
    )


@dataclass(frozen=True)
class ColourOptions(ColourTagOptions):
    """The conversion of YUV to RGB, and of HDR video to SDR."""

    hdr: Literal["map", "refuse"] = option("map", help="PQ and HLG: map to SDR, or refuse.")


@dataclass(frozen=True)
class RawVideo:
    """The layout of raw video, in FFmpeg's names or libvmaf's (`-p 420 -b 10`)."""

    panel: ClassVar = "Raw video"
    width: int | None = option(None, "--width", "-w", min=1, help="Width, pixels.")
    height: int | None = option(None, min=1, help="Height, pixels.")
    pix_fmt: str | None = option(
        None, "--pix-fmt", "--pixel_format", "-p",
        help="FFmpeg pixel format, or 420, 422, 444 with --bitdepth.",
    )  # fmt: skip
    bitdepth: int | None = option(None, "--bitdepth", "-b", help="8, 10, 12 or 16, with -p 420.")
    fps: str | None = option(None, help="Frames per second, such as 25 or 30000/1001.")

    def video_options(self, colour: ColourTagOptions | None = None) -> VideoOptions:
        """Return the options for `open_video`."""
        from eyeline.media.types import VideoOptions

        pix_fmt = self.pix_fmt
        if pix_fmt in ("420", "422", "444"):
            if self.bitdepth not in (None, 8, 10, 12, 16):
                raise UsageError(
                    f"--bitdepth is {self.bitdepth}; it must be 8, 10, 12 or 16",
                    "give one of them, or name a pixel format of FFmpeg with -p",
                )
            deep = f"{self.bitdepth}le" if self.bitdepth and self.bitdepth > 8 else ""
            pix_fmt = f"yuv{pix_fmt}p{deep}"
        elif self.bitdepth is not None:
            raise UsageError(
                "--bitdepth needs -p 420, 422 or 444", "or name a pixel format of FFmpeg with -p"
            )
        tags = dataclasses.asdict(colour) if colour is not None else {}
        return VideoOptions(
            width=self.width, height=self.height, pix_fmt=pix_fmt, fps=_frame_rate(self.fps), **tags
        )


def _frame_rate(text: str | None) -> Fraction | None:
    if text is None:
        return None
    try:
        rate = Fraction(text)
    except (ValueError, ZeroDivisionError) as exc:
        raise UsageError(
            f"--fps {text!r} is not a frame rate",
            "give frames per second, such as 25 or 30000/1001",
        ) from exc
    if not 0 < rate <= 100000:
        raise UsageError(
            f"--fps is {text}; it must be above 0 and at most 100000",
            "for example 25 or 30000/1001",
        )
    return rate


@dataclass(frozen=True)
class SteeringOptions:
    """The conversion of maps to QP offsets."""

    panel: ClassVar = STEERING
    strength: float | None = option(
        None,
        help="QPs between the most and the least salient (3), or per doubling of the weight with law "
        "`density` (1); 0 encodes without offsets.",
    )
    law: Literal["neutral", "symmetric", "density"] | None = option(
        None,
        help="`neutral` (for objects): weighted offsets sum to zero; `density` (for gaze): offsets follow "
        "the logarithm of a block's weight; `symmetric`: 2s - 1, twice the span.",
    )
    clamp: float = option(12.0, help="Largest offset either way, QP.")
    smoothing: float | None = option(None, help="Weight of the earlier maps, 0..0.99 (0.7).")
    levels: int | None = option(None, help="Largest number of distinct offsets (9).")

    def record(self) -> SteerOptions:
        """Return the library's options; those that were not given keep their defaults."""
        from eyeline.roi.steering import SteerOptions

        fields = dataclasses.asdict(self)
        return SteerOptions(**{k: v for k, v in fields.items() if v is not None or k == "law"})


def warn_of_smoke(model: Model) -> None:
    """Warn on stderr that the numbers of a smoke model mean nothing."""
    if model.smoke:
        sys.stderr.write(f"warning: {model.id} is a smoke model: its numbers mean nothing\n")


def parse_pairs(texts: list[str]) -> dict[str, str]:
    """Return the NAME=VALUE texts of `--codec-option` as a dict."""
    for text in texts:
        if "=" not in text[1:]:
            raise UsageError(f"--codec-option {text!r} has no value", "write NAME=VALUE")
    return dict(text.split("=", 1) for text in texts)


def parse_frames(text: str | None) -> tuple[int, int | None]:
    """Return `A:B` as (start, stop)."""
    if text is None:
        return 0, None
    match = re.fullmatch(r"(\d*):(\d*)", text)
    if not match:
        raise UsageError(f"--frames {text!r} is not A:B", "write it like 100:200, :50 or 300:")
    return int(match[1] or 0), int(match[2]) if match[2] else None


def parse_size(text: str | None) -> int | Literal["native"] | None:
    """Return lines, "native" or None.

    Raises:
        UsageError: anything else.
    """
    if text is None or text == "native":
        return "native" if text else None
    if not text.isdigit():
        raise UsageError(
            f"--size {text!r} is not a number of lines", "write it like 192, or native"
        )
    return int(text)


def parse_numbers(name: str, text: str, example: str) -> tuple[float, ...]:
    """Return numbers that are separated by commas."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as exc:
        raise UsageError(
            f"{name} {text!r} is not a list of numbers", f"separate numbers by commas: {example}"
        ) from exc
