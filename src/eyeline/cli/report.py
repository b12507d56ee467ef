"""`eyeline report`: one page to look at and to send, from logs and clips."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from eyeline.cli import options
from eyeline.cli.extract import raw_options
from eyeline.errors import UsageError

if TYPE_CHECKING:
    from eyeline.report.build import PageFacts
    from eyeline.report.pictures import MediaOptions

_PAGE, _CLIPS, _MAPS, _RAW = "Page", "Clips", "Maps", "Raw video"

EXAMPLES = """
Examples:

    eyeline report clip.json --video clip.mp4 -o report.html

    eyeline report score.json --ref ref.mp4 --dist dist.mp4 -o report.html

    eyeline report crf23.json crf28.json crf33.json -o compare.html

    eyeline report vmaf.csv --worst-by integer_adm2 --worst 12 -o report.html
"""


def report(
    logs: Annotated[
        list[str],
        typer.Argument(
            metavar="LOG...",
            help="Logs of eyeline or libvmaf: JSON, CSV, Parquet. Pictures belong to the first.",
            show_default=False,
        ),
    ],
    output: Annotated[
        str,
        typer.Option("--output", "-o", help="The page, or `-` for stdout.", rich_help_panel=_PAGE),
    ] = "report.html",
    title: Annotated[
        str | None, typer.Option(help="Heading of the page.", rich_help_panel=_PAGE)
    ] = None,
    worst: Annotated[
        int, typer.Option(min=0, max=100, help="Frames to pick out.", rich_help_panel=_PAGE)
    ] = 6,
    worst_by: Annotated[
        str | None,
        typer.Option(
            help="Column to pick them by; a score if there is one.", rich_help_panel=_PAGE
        ),
    ] = None,
    video: Annotated[
        str | None,
        typer.Option(help="Clip that the first log was made of.", rich_help_panel=_CLIPS),
    ] = None,
    ref: Annotated[
        str | None, typer.Option(help="Reference of a score log.", rich_help_panel=_CLIPS)
    ] = None,
    dist: Annotated[
        str | None, typer.Option(help="Distorted clip of a score log.", rich_help_panel=_CLIPS)
    ] = None,
    max_size: Annotated[
        float,
        typer.Option(
            min=0.01,
            max=1000,
            help="Megabytes that pictures may take: fewer frames have one where they don't fit.",
            rich_help_panel=_CLIPS,
        ),
    ] = 16.0,
    picture_size: Annotated[
        int,
        typer.Option(
            min=16, max=4096, help="Long side of a picture, pixels.", rich_help_panel=_CLIPS
        ),
    ] = 640,
    no_media: Annotated[
        bool,
        typer.Option(
            "--no-media", help="No pictures, whatever else is given.", rich_help_panel=_CLIPS
        ),
    ] = False,
    maps: Annotated[
        str | None,
        typer.Option(
            help="Ready maps: a folder, .npz or .mkv of `extract --maps`.", rich_help_panel=_MAPS
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            help="Model for the maps, in place of the log's.",
            rich_help_panel=_MAPS,
        ),
    ] = None,
    task: options.MapTask = None,
    registry: Annotated[
        str | None,
        typer.Option(
            envvar="EYELINE_REGISTRY", help="Your own registry folder.", rich_help_panel=_MAPS
        ),
    ] = None,
    no_heat: Annotated[
        bool, typer.Option("--no-heat", help="Pictures without maps.", rich_help_panel=_MAPS)
    ] = False,
    width: Annotated[
        int | None,
        typer.Option("--width", "-w", min=1, help="Width, pixels.", rich_help_panel=_RAW),
    ] = None,
    height: Annotated[
        int | None, typer.Option(min=1, help="Height, pixels.", rich_help_panel=_RAW)
    ] = None,
    pix_fmt: Annotated[
        str | None,
        typer.Option(
            "--pix-fmt",
            "--pixel_format",
            "-p",
            help="FFmpeg pixel format, or 420, 422, 444 with --bitdepth.",
            rich_help_panel=_RAW,
        ),
    ] = None,
    bitdepth: Annotated[
        int | None,
        typer.Option(
            "--bitdepth", "-b", help="8, 10, 12 or 16, with -p 420.", rich_help_panel=_RAW
        ),
    ] = None,
    fps: Annotated[
        str | None,
        typer.Option(help="Frames a second, as 25 or 30000/1001.", rich_help_panel=_RAW),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but errors.")] = False,
) -> None:
    """Put logs and clips in one page that opens from disk, to look at and to send."""
    options.check_map_alone(task, maps=maps)
    from eyeline.report import PageOptions, write_report
    from eyeline.report.pictures import MediaOptions

    media: MediaOptions | None = None
    clip = _clip(video, ref, dist)
    if clip is not None and not no_media:
        media = MediaOptions(
            video=clip, distorted=dist, maps=maps, heat=not no_heat, model=model,
            task=task, registry=registry, side=picture_size, max_size=max_size,
            video_options=raw_options(width, height, pix_fmt, bitdepth, fps),
        )  # fmt: skip
    elif not no_media and (maps or model or task):
        raise UsageError("maps without a clip to lay them over", "add --video CLIP")
    page = PageOptions(title=title, worst=worst, worst_by=worst_by, media=media)
    from eyeline.cli.progress import item_progress

    with item_progress("frames", quiet) as advance:
        done = total = 0

        def on_start(frames: int) -> None:
            nonlocal total
            total = frames

        def on_frame() -> None:
            nonlocal done
            done += 1
            advance("frames", done, total)

        facts = write_report(logs, output, page, on_frame, on_start)
    if not quiet:
        _conclude(facts, output)


def _clip(video: str | None, ref: str | None, dist: str | None) -> str | None:
    """The clip, or the reference of a pair.

    Raises:
        UsageError: both, or half a pair.
    """
    if video is not None and (ref is not None or dist is not None):
        raise UsageError("--video and a pair", "give --video CLIP, or --ref REF --dist DIST")
    if (ref is None) != (dist is None):
        raise UsageError("half a pair", "give both --ref REF and --dist DIST, or --video CLIP")
    return video if video is not None else ref


def _conclude(facts: PageFacts, output: str) -> None:
    pictures = ""
    if facts.every:
        which = "one a frame" if facts.every == 1 else f"one for every {facts.every}, and the worst"
        pictures = (
            f"; {facts.pictures} pictures of {facts.width}x{facts.height} ({which}), "
            f"{facts.megabytes:.1f} MB"
        )
    where = "" if output == "-" else f"; wrote {output}"
    sys.stderr.write(f"{facts.frames} frames{pictures}; page {facts.size / 1e6:.1f} MB{where}\n")


report.__doc__ = f"{report.__doc__}\n{EXAMPLES}"
