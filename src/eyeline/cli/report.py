"""`eyeline report`: make one HTML page of logs and clips."""

from __future__ import annotations

import itertools
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from eyeline.cli import options
from eyeline.cli.options import argument, command, group, option
from eyeline.errors import UsageError

if TYPE_CHECKING:
    from eyeline.report import MediaOptions, PageFacts


@dataclass(frozen=True)
class Page:
    """The page and its table of worst frames."""

    panel: ClassVar = "Page"
    output: str = option("report.html", "--output", "-o", help="The page, or `-` for stdout.")
    title: str | None = option(None, help="Heading of the page.")
    worst: int = option(6, min=0, max=100, help="Number of worst frames to show.")
    worst_by: str | None = option(
        None, help="Column that ranks the worst frames; by default a score, if the log has one."
    )


@dataclass(frozen=True)
class Clips:
    """The clips that pictures come from."""

    panel: ClassVar = "Clips"
    video: str | None = option(None, help="Clip that the first log belongs to.")
    ref: str | None = option(None, help="Reference of a score log.")
    dist: str | None = option(None, help="Distorted clip of a score log.")
    max_size: float = option(
        16.0, min=0.01, max=1000,
        help="Largest size of all pictures, megabytes; fewer frames have a picture where they do not fit.",
    )  # fmt: skip
    picture_size: int = option(640, min=16, max=4096, help="Long side of a picture, pixels.")
    no_media: bool = option(False, "--no-media", help="Leave out all pictures.")


@dataclass(frozen=True)
class DrawnMaps(options.ModelChoice):
    """Maps that are drawn over the pictures."""

    panel: ClassVar = "Maps"
    model: str | None = option(None, "--model", "-m", help="The log's model by default.")
    maps: str | None = option(None, help="Ready maps: a folder, .npz or .mkv of `extract --maps`.")
    no_heat: bool = option(False, "--no-heat", help="Draw pictures without maps.")


@command(
    "eyeline report clip.json --video clip.mp4 -o report.html",
    "eyeline report score.json --ref ref.mp4 --dist dist.mp4 -o report.html",
    "eyeline report crf23.json crf28.json crf33.json -o compare.html",
    "eyeline report vmaf.csv --worst-by integer_adm2 --worst 12 -o report.html",
)
def report(
    logs: list[str] = argument(
        "LOG...", "Logs of eyeline or libvmaf: JSON, CSV, Parquet. Pictures belong to the first."
    ),
    page: Page = group(),
    clips: Clips = group(),
    drawn: DrawnMaps = group(),
    raw: options.RawVideo = group(),
    quiet: bool = options.QUIET,
) -> None:  # fmt: skip
    """Make one HTML page of logs and clips, which opens without a server."""
    from eyeline.cli.progress import item_progress
    from eyeline.report import MediaOptions, PageOptions, write_report

    drawn.refuse_ready_maps(maps=drawn.maps)
    media: MediaOptions | None = None
    clip = _clip(clips.video, clips.ref, clips.dist)
    if clip is not None and not clips.no_media:
        media = MediaOptions(
            video=clip, distorted=clips.dist, maps=drawn.maps, heat=not drawn.no_heat,
            model=drawn.model, task=drawn.task, registry=drawn.registry, side=clips.picture_size,
            max_size=clips.max_size, video_options=raw.video_options(),
        )  # fmt: skip
    elif not clips.no_media and (drawn.maps or drawn.model or drawn.task):
        raise UsageError("maps are given without a clip to draw them over", "add --video CLIP")
    asked = PageOptions(title=page.title, worst=page.worst, worst_by=page.worst_by, media=media)
    with item_progress("frames", quiet) as advance:
        done, total = itertools.count(1), [0]

        def on_frame() -> None:
            advance("frames", next(done), total[-1])

        facts = write_report(logs, page.output, asked, on_frame, on_start=total.append)
    if not quiet:
        _conclude(facts, page.output)


def _clip(video: str | None, ref: str | None, dist: str | None) -> str | None:
    """Return the clip, or the reference of a pair."""
    if video is not None and (ref is not None or dist is not None):
        raise UsageError(
            "--video is given beside --ref or --dist", "give --video CLIP, or --ref REF --dist DIST"
        )
    if (ref is None) != (dist is None):
        raise UsageError(
            "only one of --ref and --dist is given", "give --ref REF --dist DIST, or --video CLIP"
        )
    return video if video is not None else ref


def _conclude(facts: PageFacts, output: str) -> None:
    pictures = ""
    if facts.every:
        which = (
            "one per frame" if facts.every == 1 else f"one for every {facts.every}, and the worst"
        )
        pictures = (
            f"; {facts.pictures} pictures of {facts.width}x{facts.height} ({which}), "
            f"{facts.megabytes:.1f} MB"
        )
    where = "" if output == "-" else f"; wrote {output}"
    sys.stderr.write(f"{facts.frames} frames{pictures}; page {facts.size / 1e6:.1f} MB{where}\n")
