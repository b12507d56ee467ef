"""`eyeline roi compare`: gain and cost of steering on one clip."""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import typer

from eyeline.cli import options
from eyeline.cli.options import argument, command, group, option
from eyeline.errors import UsageError

if TYPE_CHECKING:
    from eyeline.roi.compare import Comparison, TradeOff


@dataclass(frozen=True)
class Codec:
    """The encoder."""

    panel: ClassVar = "Encoder"
    codec: str = option("x264", help="x264, x265, vp9 or kvazaar.")
    preset: str | None = option(None, help="Encoder preset (VP9: cpu-used 5..8 for `encode`).")
    codec_option: list[str] | None = option(
        None, metavar="NAME=VALUE", help="An option of the encoder by FFmpeg's name. Repeatable."
    )


@dataclass(frozen=True)
class CompareFiles:
    """The output files."""

    panel: ClassVar = "Output"
    output: str | None = option(None, "--output", "-o", help="Everything as JSON; `-` for stdout.")
    markdown: str | None = option(None, help="The tables as Markdown.")
    plot: str | None = option(
        None, help="Rate-quality curves, or gain against cost of several maps: .png or .svg."
    )
    still: str | None = option(None, help="One frame of both at equal rate: .png or .jpg.")
    work: str | None = option(
        None, help="Folder that keeps encodes and scores; an interrupted run resumes there."
    )


@dataclass(frozen=True)
class Steer:
    """The maps that set the QP offsets."""

    panel: ClassVar = options.STEERING
    steer: list[str] | None = option(
        None, metavar="MAP",
        help="The map that steers: gaze, objects, centre (a fixed Gaussian), recorded (the gaze that "
        "judges), a model's id or path, or gaze=PATH and objects=PATH. Repeatable: maps are compared.",
    )  # fmt: skip
    strength: float | None = option(None, help="QPs; see `eyeline roi encode`.")
    multiples: str = option(
        "1", help="Multiples of the strength, separated by commas; several give a curve."
    )
    law: Literal["neutral", "symmetric", "density"] | None = option(
        None, help="See `eyeline roi encode`."
    )
    maps: str | None = option(None, help="Maps of `extract --maps`, in place of the model.")


@dataclass(frozen=True)
class Judge:
    """The maps and metrics that measure the encodes."""

    panel: ClassVar = "Judging"
    judge_model: str | None = option(
        None, help="Registry id or path of a model that judges; the steering model by default."
    )
    judge_masks: str | None = option(
        None, help="Folder of ground-truth masks; the n-th by name belongs to frame n."
    )
    judge_fixations: str | None = option(
        None, metavar="FILE",
        help="Recorded gaze that judges: fixations.csv[.gz], or a fixation set with a video of IN's name.",
    )  # fmt: skip
    pixels_per_degree: float | None = options.PIXELS_PER_DEGREE
    vmaf: bool | None = option(
        None, "--vmaf/--no-vmaf", show_default=False,
        help="Measure libvmaf on the frame and on the subject's box; by default if its extra is installed.",
    )  # fmt: skip
    interpolation: Literal["akima", "pchip"] = option(
        "akima", help="Interpolation of the curves between their points."
    )


@command(
    "eyeline roi compare clip.mp4 --plot curves.png --still still.png",
    "eyeline roi compare bear/ --judge-masks masks/ --frames :50 --work bear_work",
    "eyeline roi compare park.mp4 --judge-fixations gaze.csv --steer gaze --steer centre",
    "eyeline roi compare clip.mp4 --codec x265 --rates 24,28,32,36 --judge-model u2netp_mirror_v1",
)
def compare(
    source: str = argument("IN", "Video, or a folder of images."),
    files: CompareFiles = group(),
    codec: Codec = group(),
    rates: str = option(
        "22,27,32,37", panel="Encoder", help="Four or more CRFs (kvazaar: QPs), separated by commas."
    ),
    steer: Steer = group(),
    model: options.ModelChoice = group(),
    judge: Judge = group(),
    frames: str | None = option(None, help="Frames A:B; either may be left out."),
    jobs: int = option(0, min=0, max=256, help="Encodes at once; 0 = one per core."),
    quiet: bool = options.QUIET,
    verbose: bool = options.RUN_AS_JSON,
) -> None:  # fmt: skip
    """Encode a clip plainly and with steering at several rates; print what steering gains and costs."""
    from eyeline.cli.progress import item_progress
    from eyeline.files import check_outputs
    from eyeline.roi.compare import CompareOptions, SteerMap, TradeOff, compare_maps, steer_map
    from eyeline.roi.compare import compare as library_compare
    from eyeline.roi.compare.report import (
        PLOT_SUFFIXES,
        STILL_SUFFIXES,
        check_picture,
    )
    from eyeline.roi.steering import SteerOptions
    from eyeline.saliency.pipeline import ExtractOptions

    registry = model.registry
    for path, suffixes in ((files.plot, PLOT_SUFFIXES), (files.still, STILL_SUFFIXES)):
        if path is not None:
            check_picture(path, suffixes)
    check_outputs((files.output, files.markdown, files.plot, files.still))
    start, stop = options.parse_frames(frames)
    multiples = options.parse_numbers("--multiples", steer.multiples, "0.5,1,2")
    several = bool(steer.steer) or multiples != (1.0,)
    if several and files.still is not None:
        raise UsageError(
            "--still shows one steered encode, and --steer or --multiples ask for several",
            "leave out --still, or --steer and --multiples",
        )
    if steer.steer and (model.task or steer.maps or model.model):
        raise UsageError(
            "--steer is given beside --map, --model or --maps, which also say what steers",
            "name all maps with --steer, and leave out the others (EYELINE_MODEL counts as --model)",
        )
    given = {"strength": steer.strength, "law": steer.law}
    steering = SteerOptions(**{k: v for k, v in given.items() if v is not None})  # type: ignore[arg-type]
    model.refuse_ready_maps(maps=steer.maps)
    how = CompareOptions(
        codec=codec.codec, rates=options.parse_numbers("--rates", rates, "22,27,32,37"),
        preset=codec.preset, steer=steering, extra=options.parse_pairs(codec.codec_option or []),
        maps=steer.maps, judge_model=judge.judge_model, judge_masks=judge.judge_masks,
        judge_fixations=judge.judge_fixations, pixels_per_degree=judge.pixels_per_degree,
        extract=ExtractOptions(start=start, stop=stop), vmaf=judge.vmaf, method=judge.interpolation,
        jobs=jobs, still=files.still is not None,
    )  # fmt: skip
    chosen = None if steer.maps or steer.steer else model.choose("roi")
    work: AbstractContextManager[str] = (
        contextlib.nullcontext(files.work)
        if files.work is not None
        else tempfile.TemporaryDirectory(prefix="eyeline-compare-")
    )
    with work as name_of_folder:
        folder = Path(name_of_folder)
        with item_progress("compare", quiet) as advance:
            found: Comparison | TradeOff
            if several:
                maps = [steer_map(name, registry) for name in steer.steer or ()]
                if not maps:
                    name = Path(str(steer.maps)).name if chosen is None else chosen.label
                    maps = [SteerMap(name, "model", chosen)]
                found = compare_maps(
                    source, folder, how, maps, multiples, registry=registry, on_progress=advance
                )
            else:
                found = library_compare(
                    source, folder, how, model=chosen, registry=registry, on_progress=advance
                )
        if verbose:
            for c in found.all() if isinstance(found, TradeOff) else [found]:
                sys.stderr.write(json.dumps(c.provenance) + "\n")
        _render(found, files, quiet)


def _render(found: Comparison | TradeOff, files: CompareFiles, quiet: bool) -> None:
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
        if files.plot is not None:
            first = found.first
            title = f"{first.source}, {first.provenance['codec']}, judged by {first.judge}"
            plot_trade_off(found.lines, title, name_of("sw_psnr", first), files.plot)
        text = trade_off_table(found)
    else:
        if files.plot is not None:
            plot_curves(found, files.plot)
        if files.still is not None:
            draw_still(found, files.still)
        text = to_markdown(found)
    if files.markdown is not None:
        write_bytes(files.markdown, text.encode())
    if files.output is not None:
        write_bytes(files.output, (json.dumps(found.to_json(), indent=2) + "\n").encode())
    if "-" not in (files.output, files.markdown):
        typer.echo(text, nl=False)
    wrote = [
        p for p in (files.output, files.markdown, files.plot, files.still) if p not in (None, "-")
    ]
    if wrote and not quiet:
        sys.stderr.write(f"wrote {', '.join(map(str, wrote))}\n")
