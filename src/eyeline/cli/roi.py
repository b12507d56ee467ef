"""`eyeline roi`: encode with more bits where viewers look."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import typer

from eyeline.cli import options
from eyeline.cli.options import REQUIRED, argument, command, group, option
from eyeline.cli.roi_compare import Codec, compare
from eyeline.errors import UsageError

if TYPE_CHECKING:
    from eyeline.registry.registry import Model
    from eyeline.saliency.pipeline import ExtractOptions

app = typer.Typer(help="Encode with more bits where viewers look.", no_args_is_help=True)

_SOURCE = argument("IN", "Video, or Y4M.")
_FORCE = option(False, "--force", help="Replace an existing file.")


@dataclass(frozen=True)
class SteeringMaps(options.ModelChoice):
    """The maps that set the QP offsets, and the frames of the video."""

    maps: str | None = option(
        None, panel=options.STEERING,
        help="Maps of `extract --maps` (folder, .npz, .mkv) in place of the model.",
    )  # fmt: skip
    size: str | None = options.SIZE
    stride: int = options.STRIDE
    workers: int = options.INFERENCE_WORKERS
    frames: str | None = option(
        None, panel=options.FRAMES, help="Frames A:B, encoded without sound."
    )

    def extract_options(self) -> ExtractOptions:
        """Return the options for making maps; `--map` together with `--maps` is an error."""
        from eyeline.saliency.pipeline import ExtractOptions

        self.refuse_ready_maps(maps=self.maps)
        start, stop = options.parse_frames(self.frames)
        return ExtractOptions(
            lines=options.parse_size(self.size), stride=self.stride, workers=self.workers,
            start=start, stop=stop,
        )  # fmt: skip


@dataclass(frozen=True)
class RateOptions(Codec):
    """The encoder and its rate."""

    crf: float | None = option(None, help="Constant quality, on the encoder's scale.")
    bitrate: str | None = option(
        None, help="Bits per second, such as 800k or 2M; two passes with x264 and x265."
    )
    qp: int | None = option(None, help="Base QP of kvazaar.")
    threads: int = option(0, min=0, help="Encoder threads; 0 = the encoder's own choice.")


@command(
    "eyeline roi encode clip.mp4 -o out.mp4",
    "eyeline roi encode clip.mp4 -o out.mp4 --codec x265 --crf 28 --preset slow",
    "eyeline roi encode clip.mp4 -o out.mp4 --bitrate 800k --strength 6",
    "eyeline roi encode clip.mp4 -o out.mp4 --maps clip_maps.mkv --debug-video look.mp4",
    "eyeline roi encode clip.mp4 -o plain.mp4 --strength 0",
)
def encode(
    source: str = _SOURCE,
    output: str = option(
        REQUIRED, "--output", "-o", help="Encoded .mp4, .mkv, .mov or .webm."
    ),
    rate: RateOptions = group(),
    steering: options.SteeringOptions = group(),
    debug_video: str | None = option(
        None, panel=options.STEERING,
        help="Offsets, and the decoder's QPs, drawn over the result: .mp4 or .mkv.",
    ),
    maps: SteeringMaps = group(),
    force: bool = _FORCE,
    quiet: bool = options.QUIET,
    verbose: bool = options.RUN_AS_JSON,
) -> None:  # fmt: skip
    """Encode a video with more bits where viewers look."""
    from eyeline.cli.progress import frame_progress
    from eyeline.roi.encode import EncodeOptions
    from eyeline.roi.encode import encode as library_encode

    how = EncodeOptions(
        codec=rate.codec, crf=rate.crf, bitrate=parse_bitrate(rate.bitrate), qp=rate.qp,
        preset=rate.preset, steer=steering.record(), extra=options.parse_pairs(rate.codec_option or []),
        extract=maps.extract_options(), threads=rate.threads,
    )  # fmt: skip
    row, checked = how.checked()
    chosen = maps.choose("roi") if maps.maps is None and how.steer.strength != 0 else None
    passes = row.passes if checked.bitrate is not None else 1
    with frame_progress(_expected(source, maps.frames, passes, quiet), quiet, "encode") as advance:
        result = library_encode(
            source, output, how, maps.maps,
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
    """Return the number of frames for the progress bar; None if it is unknown or not shown."""
    if quiet or source == "-" or not sys.stderr.isatty():
        return None
    from eyeline.media import open_video

    with open_video(source) as video:
        total = video.info.expected_frames
    start, stop = options.parse_frames(frames)
    if total is None:
        return None
    return passes * max(0, min(total, total if stop is None else stop) - start)


@command(
    "eyeline roi map clip.mp4 -o clip.txt --format kvazaar",
    "eyeline roi map clip.mp4 -o clip.svt --format svtav1",
    "eyeline roi map clip.mp4 -o clip.json --format json --block 16",
    "eyeline roi map clip.mp4 --check clip.txt",
)
def make_map(
    source: str = _SOURCE,
    output: str | None = option(None, "--output", "-o", help="The map file."),
    format_: Literal["kvazaar", "kvazaar-binary", "svtav1", "json", "npz"] | None = option(
        None, "--format", help="The encoder or format that the file is for."
    ),
    check: str | None = option(None, help="Print what its encoder would do with this map file."),
    block: int | None = option(None, help="Side of a cell of json and npz, pixels (16)."),
    steering: options.SteeringOptions = group(),
    maps: SteeringMaps = group(),
    force: bool = _FORCE,
    quiet: bool = options.QUIET,
) -> None:
    """Write the QP offsets of every block to a file that an encoder reads; or check such a file."""
    from eyeline.cli.progress import frame_progress
    from eyeline.roi.maps import check_for, write_map_file

    if (output is None) == (check is None):
        raise UsageError(
            "either -o or --check must be given, and not both",
            "give -o FILE to write, or --check FILE",
        )
    if output is not None:
        if format_ is None:
            raise UsageError(
                "-o is given without --format",
                "choose one of: kvazaar, kvazaar-binary, svtav1, json, npz",
            )
        how = maps.extract_options()
        chosen = None if maps.maps else maps.choose("roi")
        with frame_progress(_expected(source, maps.frames, 1, quiet), quiet, "map") as advance:
            result = write_map_file(
                source, output, format_, steering.record(), maps.maps,
                block=block, extract_options=how,
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
    report = check_for(str(check or output), source, format_, *options.parse_frames(maps.frames))
    if not quiet:
        typer.echo(json.dumps(report.to_json(), indent=2), err=check is None)
    if report.problems:
        raise typer.Exit(1)


def parse_bitrate(text: str | None) -> int | None:
    """Return `800k`, `2M` or a number as bits per second."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([kKmM]?)", text)
    if not match:
        raise UsageError(f"--bitrate {text!r} is not a bit rate", "write it like 800k or 2.5M")
    scale = {"": 1, "k": 1000, "m": 1000000}[match[2].lower()]
    return round(float(match[1]) * scale)


app.command("encode")(encode)
app.command("map")(make_map)
app.command("compare")(compare)
