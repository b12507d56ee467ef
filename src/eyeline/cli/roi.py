"""`eyeline roi`: spend bits where viewers look."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from eyeline.cli import options
from eyeline.cli.roi_compare import compare
from eyeline.errors import UsageError

if TYPE_CHECKING:
    from eyeline.registry.registry import Model
    from eyeline.roi.steering import SteerOptions

app = typer.Typer(help="Spend bits where viewers look.", no_args_is_help=True)

_ENCODER = "Encoder"

ENCODE_EXAMPLES = """
Examples:

    eyeline roi encode clip.mp4 -o out.mp4

    eyeline roi encode clip.mp4 -o out.mp4 --codec x265 --crf 28 --preset slow

    eyeline roi encode clip.mp4 -o out.mp4 --bitrate 800k --strength 6

    eyeline roi encode clip.mp4 -o out.mp4 --maps clip_maps.mkv --debug-video look.mp4

    eyeline roi encode clip.mp4 -o plain.mp4 --strength 0
"""

MAP_EXAMPLES = """
Examples:

    eyeline roi map clip.mp4 -o clip.txt --format kvazaar

    eyeline roi map clip.mp4 -o clip.svt --format svtav1

    eyeline roi map clip.mp4 -o clip.json --format json --block 16

    eyeline roi map clip.mp4 --check clip.txt
"""

_Source = Annotated[
    str,
    typer.Argument(metavar="IN", help="Video, or Y4M.", show_default=False),
]
_Maps = Annotated[
    str | None,
    typer.Option(
        help="Maps of `extract --maps` (folder, .npz, .mkv) in place of the model.",
        rich_help_panel=options.STEERING,
    ),
]
_Frames = Annotated[str | None, typer.Option(help="Frames A:B; a part is encoded without sound.")]
_Force = Annotated[bool, typer.Option("--force", help="Replace a file of that name.")]


def encode(
    source: _Source,
    output: Annotated[
        str, typer.Option("--output", "-o", help="The file: .mp4, .mkv, .mov or .webm.")
    ],
    codec: Annotated[
        str, typer.Option(help="x264, x265, vp9 or kvazaar.", rich_help_panel=_ENCODER)
    ] = "x264",
    crf: Annotated[
        float | None,
        typer.Option(help="Constant quality, the encoder's scale.", rich_help_panel=_ENCODER),
    ] = None,
    bitrate: Annotated[
        str | None,
        typer.Option(
            help="Bits a second, as 800k or 2M; two passes with x264 and x265.",
            rich_help_panel=_ENCODER,
        ),
    ] = None,
    qp: Annotated[
        int | None, typer.Option(help="Base QP of kvazaar.", rich_help_panel=_ENCODER)
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(help="The encoder's own (VP9: cpu-used 5..8).", rich_help_panel=_ENCODER),
    ] = None,
    codec_option: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="An option of the encoder by FFmpeg's name. Repeatable.",
            rich_help_panel=_ENCODER,
        ),
    ] = None,
    threads: Annotated[
        int,
        typer.Option(min=0, help="Encoder threads; 0 = its own choice.", rich_help_panel=_ENCODER),
    ] = 0,
    strength: options.Strength = None,
    law: options.SteeringLaw = None,
    clamp: options.Clamp = 12.0,
    smoothing: options.Smoothing = None,
    levels: options.Levels = None,
    maps: _Maps = None,
    debug_video: Annotated[
        str | None,
        typer.Option(
            help="Offsets, and the decoder's QPs, drawn over the result: .mp4 or .mkv.",
            rich_help_panel=options.STEERING,
        ),
    ] = None,
    model: options.ModelName = None,
    task: options.MapTask = None,
    registry: options.Registry = None,
    size: options.Size = None,
    stride: options.Stride = 1,
    workers: options.InferenceWorkers = 0,
    frames: _Frames = None,
    force: _Force = False,
    quiet: options.Quiet = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Say what was run, as JSON on stderr.")
    ] = False,
) -> None:
    """Encode a video so that its bits follow the eye."""
    from eyeline.cli.progress import frame_progress
    from eyeline.roi.encode import EncodeOptions
    from eyeline.roi.encode import encode as library_encode

    options.check_map_alone(task, maps=maps)
    how = EncodeOptions(
        codec=codec,
        crf=crf,
        bitrate=parse_bitrate(bitrate),
        qp=qp,
        preset=preset,
        steer=steer_options(strength, law, clamp, smoothing, levels),
        extra=options.parse_pairs(codec_option or []),
        extract=_extract_options(size, stride, workers, frames),
        threads=threads,
    )
    row, rate = how.checked()
    chosen = None
    if maps is None and how.steer.strength != 0:
        chosen = options.choose_model(model, registry, task, "roi")
    passes = row.passes if rate.bitrate is not None else 1
    with frame_progress(_expected(source, frames, passes, quiet), quiet, "encode") as advance:
        result = library_encode(
            source, output, how, maps,
            model=chosen, force=force, debug=debug_video,
            on_frame=lambda run, done: advance(),
        )  # fmt: skip
    if verbose:
        sys.stderr.write(json.dumps(result.provenance) + "\n")
    if not quiet:
        sys.stderr.write(
            f"{result.frames} frames, {result.video_bytes:,} bytes of picture in "
            f"{result.seconds:.1f} s{_steered_by(chosen)}; wrote {result.path}\n"
        )


def _steered_by(model: Model | None) -> str:
    return f", steered by {model.label}" if model is not None else ""


def _expected(source: str, frames: str | None, passes: int, quiet: bool) -> int | None:
    """Frames to come, for the progress bar: None where nobody looks, or the source does not say."""
    if quiet or source == "-" or not sys.stderr.isatty():
        return None
    from eyeline.cli.extract import parse_frames
    from eyeline.media import open_video

    with open_video(source) as video:
        total = video.info.expected_frames
    start, stop = parse_frames(frames)
    if total is None:
        return None
    return passes * max(0, min(total, total if stop is None else stop) - start)


def make_map(
    source: _Source,
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="The file, or a folder for png.")
    ] = None,
    format_: Annotated[
        Literal["kvazaar", "kvazaar-binary", "svtav1", "json", "npz", "png"] | None,
        typer.Option("--format", help="Who is to read it."),
    ] = None,
    check: Annotated[
        str | None,
        typer.Option(help="Read a map file back and say what its encoder would do with it."),
    ] = None,
    block: Annotated[
        int | None, typer.Option(help="Side of a cell of json, npz and png, pixels (16).")
    ] = None,
    strength: options.Strength = None,
    law: options.SteeringLaw = None,
    clamp: options.Clamp = 12.0,
    smoothing: options.Smoothing = None,
    levels: options.Levels = None,
    maps: _Maps = None,
    model: options.ModelName = None,
    task: options.MapTask = None,
    registry: options.Registry = None,
    size: options.Size = None,
    stride: options.Stride = 1,
    workers: options.InferenceWorkers = 0,
    frames: _Frames = None,
    force: _Force = False,
    quiet: options.Quiet = False,
) -> None:
    """Write the QP offsets of every block to a file that an encoder reads; or check one."""
    if (output is None) == (check is None):
        raise UsageError("give -o FILE to write, or --check FILE", "one of the two")
    if output is not None:
        if format_ is None:
            raise UsageError("-o without --format", "kvazaar, svtav1, json, npz or png")
        from eyeline.cli.progress import frame_progress
        from eyeline.roi.maps import write_map_file

        options.check_map_alone(task, maps=maps)
        chosen = None if maps else options.choose_model(model, registry, task, "roi")
        with frame_progress(_expected(source, frames, 1, quiet), quiet, "map") as advance:
            result = write_map_file(
                source, output, format_, steer_options(strength, law, clamp, smoothing, levels), maps,
                block=block, extract_options=_extract_options(size, stride, workers, frames),
                model=chosen, force=force, on_frame=lambda done: advance(),
            )  # fmt: skip
        if not quiet:
            rows, columns = result.grid
            sys.stderr.write(
                f"{result.frames} maps of {columns} x {rows} cells of {result.block} pixels"
                f"{_steered_by(chosen)}; wrote {output}\n"
            )
        if format_ not in ("kvazaar", "kvazaar-binary", "svtav1") or output == "-":
            return
    _check(str(check or output), format_, source, written=check is None, quiet=quiet, frames=frames)


def _check(
    path: str, kind: Any, source: str, *, written: bool, quiet: bool, frames: str | None
) -> None:
    from eyeline.roi.maps import check_for

    report = check_for(path, source, kind, *_range(frames))
    if not quiet:
        typer.echo(json.dumps(report.to_json(), indent=2), err=written)
    if report.problems:
        raise typer.Exit(1)


def _range(frames: str | None) -> tuple[int, int | None]:
    from eyeline.cli.extract import parse_frames

    return parse_frames(frames)


def steer_options(
    strength: float | None, law: Any, clamp: float, smoothing: float | None, levels: int | None
) -> SteerOptions:
    """The options of steering, where those that were not given keep their defaults."""
    from eyeline.roi.steering import SteerOptions

    given = {"strength": strength, "smoothing": smoothing, "levels": levels}
    chosen: dict[str, Any] = {k: v for k, v in given.items() if v is not None}
    return SteerOptions(law=law, clamp=clamp, **chosen)


def _extract_options(size: str | None, stride: int, workers: int, frames: str | None) -> Any:
    from eyeline.cli.extract import parse_size
    from eyeline.saliency.pipeline import ExtractOptions

    start, stop = _range(frames)
    return ExtractOptions(
        lines=parse_size(size), stride=stride, workers=workers, start=start, stop=stop
    )


def parse_bitrate(text: str | None) -> int | None:
    """`800k`, `2M` or a number of bits a second.

    Raises:
        UsageError: anything else.
    """
    if text is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([kKmM]?)", text)
    if not match:
        raise UsageError(f"--bitrate {text!r} is none", "for example 800k, 2M or 800000")
    scale = {"": 1, "k": 1000, "m": 1000000}[match[2].lower()]
    return round(float(match[1]) * scale)


def _register(name: str, command: Callable[..., None], examples: str) -> None:
    command.__doc__ = f"{command.__doc__}\n{examples}"
    app.command(name)(command)


_register("encode", encode, ENCODE_EXAMPLES)
_register("map", make_map, MAP_EXAMPLES)
app.command("compare")(compare)
