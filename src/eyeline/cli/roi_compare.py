"""`eyeline roi compare`: is it worth it on this clip?"""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from eyeline.cli import options
from eyeline.errors import UsageError

if TYPE_CHECKING:
    from eyeline.roi.compare import TradeOff
    from eyeline.roi.compare._records import Comparison

_STEER, _JUDGE, _ENCODER, _OUTPUT = "Steering", "Judging", "Encoder", "Output"

EXAMPLES = """
Examples:

    eyeline roi compare clip.mp4 --plot curves.png --still still.png

    eyeline roi compare bear/ --judge-masks masks/ --frames :50 --work bear_work

    eyeline roi compare park.mp4 --judge-fixations gaze.csv --steer gaze --steer centre

    eyeline roi compare clip.mp4 --codec x265 --rates 24,28,32,36 --judge-model u2netp_mirror_v1
"""


def compare(
    source: Annotated[
        str, typer.Argument(metavar="IN", help="Video, or a folder of images.", show_default=False)
    ],
    output: Annotated[
        str | None,
        typer.Option(
            "--output", "-o", help="Everything as JSON; `-` for stdout.", rich_help_panel=_OUTPUT
        ),
    ] = None,
    markdown: Annotated[
        str | None, typer.Option(help="The tables as Markdown.", rich_help_panel=_OUTPUT)
    ] = None,
    plot: Annotated[
        str | None,
        typer.Option(
            help="Rate-quality curves, or gain against cost of several: .png or .svg.",
            rich_help_panel=_OUTPUT,
        ),
    ] = None,
    still: Annotated[
        str | None,
        typer.Option(
            help="A frame of both at equal rate, the subject enlarged: .png or .jpg.",
            rich_help_panel=_OUTPUT,
        ),
    ] = None,
    work: Annotated[
        str | None,
        typer.Option(
            help="Folder that keeps encodes and scores: a run that was interrupted goes on there.",
            rich_help_panel=_OUTPUT,
        ),
    ] = None,
    codec: Annotated[
        str, typer.Option(help="x264, x265, vp9 or kvazaar.", rich_help_panel=_ENCODER)
    ] = "x264",
    rates: Annotated[
        str,
        typer.Option(
            help="CRFs (QPs of kvazaar), four or more, apart by commas.", rich_help_panel=_ENCODER
        ),
    ] = "22,27,32,37",
    preset: Annotated[
        str | None, typer.Option(help="The encoder's own.", rich_help_panel=_ENCODER)
    ] = None,
    codec_option: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="An option of the encoder by FFmpeg's name. Repeatable.",
            rich_help_panel=_ENCODER,
        ),
    ] = None,
    steer: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MAP",
            help="What steers: gaze, objects, centre (a fixed Gaussian), recorded (the gaze that judges), "
            "a model's id or path, or gaze=PATH and objects=PATH. Repeatable: maps are compared.",
            rich_help_panel=_STEER,
        ),
    ] = None,
    strength: Annotated[
        float | None,
        typer.Option(help="QPs; see `eyeline roi encode`.", rich_help_panel=_STEER),
    ] = None,
    multiples: Annotated[
        str,
        typer.Option(
            help="Multiples of the strength, separated by commas: several give a curve of gain and cost.",
            rich_help_panel=_STEER,
        ),
    ] = "1",
    law: Annotated[
        Literal["neutral", "symmetric", "density"] | None,
        typer.Option(help="See `eyeline roi encode`.", rich_help_panel=_STEER),
    ] = None,
    maps: Annotated[
        str | None,
        typer.Option(
            help="Maps of `extract --maps` that steer in place of the model.",
            rich_help_panel=_STEER,
        ),
    ] = None,
    model: options.ModelName = None,
    task: options.MapTask = None,
    registry: options.Registry = None,
    judge_model: Annotated[
        str | None,
        typer.Option(
            help="Registry id or path of a model that judges; the steering one by default.",
            rich_help_panel=_JUDGE,
        ),
    ] = None,
    judge_masks: Annotated[
        str | None,
        typer.Option(
            help="Folder of ground-truth masks, the n-th by name for frame n.",
            rich_help_panel=_JUDGE,
        ),
    ] = None,
    judge_fixations: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Recorded gaze that judges: fixations.csv[.gz], or a fixation set with a video of "
            "IN's name.",
            rich_help_panel=_JUDGE,
        ),
    ] = None,
    pixels_per_degree: Annotated[
        float | None,
        typer.Option(
            help="Pixels of IN per degree of visual angle; see `eyeline score`.",
            rich_help_panel=_JUDGE,
        ),
    ] = None,
    vmaf: Annotated[
        bool | None,
        typer.Option(
            "--vmaf/--no-vmaf",
            help="libvmaf on the frame and the subject's box; if its extra is there by default.",
            rich_help_panel=_JUDGE,
            show_default=False,
        ),
    ] = None,
    interpolation: Annotated[
        Literal["akima", "pchip"],
        typer.Option(help="Of the curves between their points.", rich_help_panel=_JUDGE),
    ] = "akima",
    frames: Annotated[str | None, typer.Option(help="Frames A:B; either may be left out.")] = None,
    jobs: Annotated[int, typer.Option(min=0, max=256, help="Encodes at once; 0 = one a core.")] = 0,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but errors.")] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Say what was run, as JSON on stderr.")
    ] = False,
) -> None:
    """Encode a clip plainly and with regions at several rates, and say what it gained and cost."""
    from eyeline.cli.extract import parse_frames
    from eyeline.cli.progress import item_progress
    from eyeline.roi.compare import SteerMap, TradeOff, compare_maps, steer_map
    from eyeline.roi.compare import compare as library_compare
    from eyeline.roi.compare._records import CompareOptions
    from eyeline.roi.compare.report import PLOT_SUFFIXES, STILL_SUFFIXES, check_picture
    from eyeline.roi.steering import SteerOptions
    from eyeline.saliency.pipeline import ExtractOptions

    for path, suffixes in ((plot, PLOT_SUFFIXES), (still, STILL_SUFFIXES)):
        if path is not None:
            check_picture(path, suffixes)
    start, stop = parse_frames(frames)
    multiples_ = parse_numbers("--multiples", multiples, "0.5,1,2")
    several = bool(steer) or multiples_ != (1.0,)
    if several and still is not None:
        raise UsageError(
            "--still shows one steered encode, and --steer or --multiples ask for several",
            "leave out --still, or --steer and --multiples",
        )
    if steer and (task or maps or model):
        raise UsageError(
            "--steer is given beside --map, --model or --maps, which also say what steers",
            "name all maps with --steer, and leave out the others (EYELINE_MODEL counts as --model)",
        )
    given = {"strength": strength, "law": law}
    steering = SteerOptions(**{k: v for k, v in given.items() if v is not None})  # type: ignore[arg-type]
    options.check_map_alone(task, maps=maps)
    how = CompareOptions(
        codec=codec, rates=parse_numbers("--rates", rates, "22,27,32,37"), preset=preset,
        steer=steering, extra=options.parse_pairs(codec_option or []), maps=maps,
        judge_model=judge_model, judge_masks=judge_masks, judge_fixations=judge_fixations,
        pixels_per_degree=pixels_per_degree, extract=ExtractOptions(start=start, stop=stop),
        vmaf=vmaf, method=interpolation, jobs=jobs, still=still is not None,
    )  # fmt: skip
    chosen = None if maps or steer else options.choose_model(model, registry, task, "roi")
    with _folder(work) as folder:
        with item_progress("compare", quiet) as advance:
            found: Comparison | TradeOff
            if several:
                maps_ = [steer_map(name, registry) for name in steer or ()]
                if not steer:
                    name = Path(str(maps)).name if chosen is None else chosen.label
                    maps_ = [SteerMap(name, "model", chosen)]
                found = compare_maps(
                    source, folder, how, maps_, multiples_, registry=registry, on_progress=advance
                )
            else:
                found = library_compare(
                    source, folder, how, model=chosen, registry=registry, on_progress=advance
                )
        if verbose:
            for c in found.all() if isinstance(found, TradeOff) else [found]:
                sys.stderr.write(json.dumps(c.provenance) + "\n")
        _render(found, output, markdown, plot, still, quiet)


def _render(
    found: Comparison | TradeOff,
    output: str | None,
    markdown: str | None,
    plot: str | None,
    still: str | None,
    quiet: bool,
) -> None:
    from eyeline.files import write_bytes
    from eyeline.roi.compare import TradeOff
    from eyeline.roi.compare.report import (
        draw_still,
        name_of,
        plot_curves,
        plot_trade_off,
        to_markdown,
        trade_off_table,
    )

    if isinstance(found, TradeOff):
        if plot is not None:
            first = found.first
            title = f"{first.source}, {first.provenance['codec']}, judged by {first.judge}"
            plot_trade_off(found.lines, title, name_of("sw_psnr", first), plot)
        text = trade_off_table(found)
    else:
        if plot is not None:
            plot_curves(found, plot)
        if still is not None:
            draw_still(found, still)
        text = to_markdown(found)
    if markdown is not None:
        write_bytes(markdown, text.encode())
    if output is not None:
        write_bytes(output, (json.dumps(found.to_json(), indent=2) + "\n").encode())
    if "-" not in (output, markdown):
        typer.echo(text, nl=False)
    wrote = [p for p in (output, markdown, plot, still) if p not in (None, "-")]
    if wrote and not quiet:
        sys.stderr.write(f"wrote {', '.join(map(str, wrote))}\n")


@contextlib.contextmanager
def _folder(work: str | None) -> Iterator[Path]:
    if work is not None:
        yield Path(work)
        return
    with tempfile.TemporaryDirectory(prefix="eyeline-compare-") as folder:
        yield Path(folder)


def parse_numbers(option: str, text: str, example: str) -> tuple[float, ...]:
    """Read numbers that are separated by commas.

    Raises:
        UsageError: anything else.
    """
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as exc:
        raise UsageError(
            f"{option} {text!r} are not numbers", f"write them like {example}"
        ) from exc


compare.__doc__ = f"{compare.__doc__}\n{EXAMPLES}"
