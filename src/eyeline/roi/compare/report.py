"""Report comparisons as Markdown tables and sentences, as plots, and as a still of two encodes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from eyeline.errors import MissingExtraError, OutputError, UsageError
from eyeline.files import whole_file
from eyeline.media import open_video
from eyeline.media.colour import upright_rgb
from eyeline.roi.compare._compare import Lines, TradeOff
from eyeline.roi.compare._records import GOOD_OVERLAP, Comparison, Point
from eyeline.tables import markdown_table

METRICS = {
    "psnr_inside": ("PSNR inside the subject", "dB", 2),
    "vmaf_crop": ("VMAF, subject's box", "", 2),
    "sw_psnr": ("PSNR weighted by saliency", "dB", 2),
    "sw_ssim": ("SSIM weighted by saliency", "", 4),
    "psnr_outside": ("PSNR outside", "dB", 2),
    "psnr_whole": ("PSNR whole frame", "dB", 2),
    "ssim": ("SSIM whole frame", "", 4),
    "vmaf": ("VMAF whole frame", "", 2),
}
"""Name, unit and number of decimals by attribute of `SubjectQuality`, in the order of the table."""

BY_GAZE = {
    "psnr_inside": "PSNR where gaze exceeds half its peak",
    "vmaf_crop": "VMAF, box of the gaze",
    "sw_psnr": "EWPSNR (weighted by recorded gaze)",
    "sw_ssim": "SSIM weighted by recorded gaze",
    "psnr_outside": "PSNR elsewhere",
}
"""Names of metrics if the judging maps are recorded gaze; EWPSNR is defined in Li, Qin & Itti (2011)."""


def name_of(metric: str, comparison: Comparison) -> str:
    """Return the name of a metric, which depends on the kind of judging maps."""
    name = METRICS[metric][0]
    return BY_GAZE.get(metric, name) if comparison.by_gaze else name


def to_markdown(comparison: Comparison, *, points: bool = True) -> str:
    """Return a comparison as Markdown; `points` adds a table with a row per encode."""
    c = comparison
    lines = [heading(c), ""]
    rows = []
    for metric, (_, unit, digits) in METRICS.items():
        name = name_of(metric, c)
        delta = c.deltas.get(metric)
        if delta is None:
            rows.append([name, "-", "-", c.refused[metric]])
            continue
        care = "" if delta.overlap >= GOOD_OVERLAP else f"curves share {delta.overlap:.0%}"
        gain = f"{delta.quality:+.{digits}f} {unit}".rstrip()
        rows.append([name, f"{delta.rate:+.1f} %", gain, care])
    heads = ["metric", "rate at equal quality", "quality at equal rate", ""]
    lines += markdown_table(heads, rows, aligned=True)
    lines += ["", verdict(c)]
    if points:
        lines += ["", *_points(c)]
    return "\n".join(lines) + "\n"


def verdict(comparison: Comparison) -> str:
    """Return sentences on the gain inside the subject and the cost over the whole frame."""
    deltas = comparison.deltas
    said = []
    gain = "sw_psnr" if comparison.by_gaze else "psnr_inside"
    if gain in deltas:
        d = deltas[gain]
        kind = "fewer" if d.rate < 0 else "more"
        what = "EWPSNR" if comparison.by_gaze else "The subject's PSNR"
        said.append(f"{what} stays the same with {abs(d.rate):.1f} % {kind} bits.")
    paid = [
        f"{deltas[m].quality:+.2f} {name}"
        for m, name in (
            ("psnr_outside", "dB outside"),
            ("psnr_whole", "dB over the whole frame"),
            ("vmaf", "points of whole-frame VMAF"),
        )
        if m in deltas
    ]
    if paid:
        said.append(f"At equal rate the picture changes by {', '.join(paid)}.")
    said.append(f"At equal {comparison.setting.upper()} it takes {comparison.growth:+.1%} bits.")
    return " ".join(said)


def heading(comparison: Comparison) -> str:
    """Return sentences on the options and the judging maps of a comparison."""
    c, p = comparison, comparison.provenance
    steer = p["steer"]
    rates = ", ".join(f"{r:g}" for r in p[c.setting])
    s = c.subject
    judged = f"Judged by {c.judge}"
    if c.judged_by_steering_maps and c.by_gaze:
        judged += ", which also steers: the most that any prediction of gaze could gain"
    elif c.judged_by_steering_maps:
        judged += (
            ", which also steers and so favours its own maps (`--judge-masks` or `--judge-model` "
            "gives an independent judge)"
        )
    return (
        f"{c.source}: {p['codec']} {p['preset'] or ''} at {c.setting} {rates}; law {steer['law']}, "
        f"strength {steer['strength']:g}, steered by {p['steered_by']}. {judged}. "
        f"{s.frames} frames{_unseen(c)}, "
        f"the subject covers {s.share:.1%}; its box is {s.box[0]}x{s.box[1]} at {s.box[2]},{s.box[3]}. "
        f"Bjontegaard deltas by {p['bd_method']} interpolation; negative rate and positive quality "
        f"are gains."
    ).replace("  at ", " at ")


def _unseen(c: Comparison) -> str:
    if not c.by_gaze or not c.subject.empty:
        return ""
    return f" ({c.subject.empty} without an active fixation, which the weighted metrics leave out)"


def trade_off_table(trade_off: TradeOff) -> str:
    """Return a Markdown table of gain and cost, with a row per map and strength."""
    first = trade_off.first
    shown = ("sw_psnr", "psnr_whole", "vmaf")
    head = [
        "steered by",
        "law, strength",
        *(name_of(m, first) for m in shown),
        "bits at equal setting",
    ]
    rows = []
    for name, found in trade_off.comparisons.items():
        for c in found:
            steer = c.provenance["steer"]
            cells = [delta_cell(c, m) for m in shown]
            law = f"{steer['law']} {steer['strength']:g}"
            rows.append([name, law, *cells, f"{c.growth:+.1%}"])
    encoder = " ".join(filter(None, (first.provenance["codec"], first.provenance["preset"])))
    said = (
        f"{first.source}: {encoder}, judged by "
        f"{first.judge}; {first.subject.frames} frames{_unseen(first)}. Each cell is the rate at equal "
        "quality and the quality at equal rate against the plain encodes; negative rates and positive "
        "qualities are gains."
    )
    return "\n".join([said, "", *markdown_table(head, rows, aligned=True)]) + "\n"


def delta_cell(c: Comparison, metric: str) -> str:
    """Return the text of a metric's deltas, or a dash if the metric has none."""
    delta = c.deltas.get(metric)
    if delta is None:
        return "-"
    _, unit, digits = METRICS[metric]
    return f"{delta.rate:+.1f} %, {delta.quality:+.{digits}f} {unit}".rstrip()


def _points(c: Comparison) -> list[str]:
    names = [m for m in METRICS if getattr(c.points[0].quality, m) is not None]
    head = ["encode", "kbit/s", *(name_of(m, c) for m in names)]
    rows = [[_label(c, p), f"{p.kbps:.0f}", *_cells(p, names)] for p in c.points]
    return markdown_table(head, rows, aligned=True)


def _label(c: Comparison, p: Point) -> str:
    return f"{p.kind} {c.setting} {p.setting:g}"


def _cells(p: Point, names: Sequence[str]) -> list[str]:
    return [f"{getattr(p.quality, m):.{METRICS[m][2]}f}" for m in names]


Rgb = npt.NDArray[np.uint8]

PANELS = (
    ("psnr_inside", "inside the subject", "PSNR-Y, dB"),
    ("psnr_outside", "outside", "PSNR-Y, dB"),
    ("psnr_whole", "whole frame", "PSNR-Y, dB"),
    ("vmaf_crop", "subject's box", "VMAF"),
    ("sw_psnr", "weighted by saliency", "PSNR-Y, dB"),
    ("vmaf", "whole frame", "VMAF"),
)
"""Metric, title and unit of each panel, in rows of three; the second row is drawn only with VMAF."""

COSTS = {
    "vmaf": ("whole-frame VMAF", "points"),
    "psnr_whole": ("whole-frame PSNR", "dB"),
}
"""Name and unit of the metrics of the whole frame, by metric."""

LINES = ("#c2571a", "#1a6fc2", "#555555", "#2a8c4a", "#8a4ab0", "#b08a1a")
PLAIN, ROI = "#555555", "#c2571a"
INK, FAINT = "#333333", "#dddddd"
STILL_SUFFIXES = (".png", ".jpg", ".jpeg")
PLOT_SUFFIXES = (".png", ".svg")


def check_picture(path: str | Path, suffixes: tuple[str, ...]) -> None:
    """Raise an OutputError for a path whose suffix is not one of `suffixes`."""
    suffix = Path(path).suffix.lower()
    if suffix not in suffixes:
        raise OutputError(
            f"{path}: {suffix or 'a file without a suffix'} is not a supported picture format",
            f"give a file name with the suffix {' or '.join(suffixes)}",
        )


def _figure(width: float, height: float) -> Any:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ModuleNotFoundError as exc:
        raise MissingExtraError("matplotlib", "roi") from exc
    # pyplot would need a window system and keep global state, so the figure is created directly.
    figure = Figure(figsize=(width, height), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def plot_curves(comparison: Comparison, path: str | Path) -> None:
    """Plot quality against rate for plain and steered encodes, to a `.png` or `.svg`.

    Raises:
        OutputError: the suffix is not supported, or the file cannot be written.
        MissingExtraError: matplotlib is not installed.
    """
    check_picture(path, PLOT_SUFFIXES)
    panels = PANELS if comparison.curve("plain", "vmaf") is not None else PANELS[:3]
    rows = len(panels) // 3
    figure = _figure(10.5, 0.5 + 2.9 * rows)
    axes = figure.subplots(rows, 3, squeeze=False).ravel()
    for axis, (metric, title, unit) in zip(axes, panels, strict=True):
        _draw_curves(axis, comparison, metric, title, unit)
    axes[0].legend(frameon=False, fontsize=9, loc="lower right")
    judge = comparison.judge + (" (also steers)" if comparison.judged_by_steering_maps else "")
    steer = comparison.provenance["steer"]
    figure.suptitle(
        f"{comparison.source}, {comparison.provenance['codec']}, {steer['law']} "
        f"{steer['strength']:g}, judged by {judge}",
        x=0.01, ha="left", fontsize=10, color=INK, parse_math=False,
    )  # fmt: skip
    _save(figure, path)


def _save(figure: Any, path: str | Path) -> None:
    suffix = Path(path).suffix.lower()[1:]
    metadata = {"Date": None} if suffix == "svg" else {"Software": None}
    with whole_file(path) as temporary:
        figure.savefig(temporary, format=suffix, metadata=metadata)


def plot_trade_off(lines: Lines, title: str, gain: str, path: str | Path) -> None:
    """Plot the gain where viewers look against the cost over the whole frame.

    Args:
        lines: gains and costs of each map, per strength.
        title: title of the plot.
        gain: name of the metric that measures the gain.
        path: `.png` or `.svg` to write.

    Raises:
        OutputError: the suffix is not supported, or the file cannot be written.
        UsageError: no map has both a gain where viewers look and a cost over the whole frame.
        MissingExtraError: matplotlib is not installed.
    """
    check_picture(path, PLOT_SUFFIXES)
    costs = [m for m in COSTS if any(m in p.costs for points in lines.values() for p in points)]
    if not costs:
        raise UsageError(
            "no map has both a gain where viewers look and a whole-frame cost, so no curve can be plotted",
            "leave out --plot; the table has the reasons",
        )
    figure = _figure(5.4 * len(costs), 4.6)
    axes = figure.subplots(1, len(costs), squeeze=False, sharey=True)[0]
    for axis, metric in zip(axes, costs, strict=True):
        name, unit = COSTS[metric]
        for (label, points), colour, marker in zip(
            lines.items(), cycle(LINES), cycle("osD^vPX"), strict=False
        ):
            known = [p for p in points if metric in p.costs]
            x = [0.0, *(p.costs[metric] for p in known)]
            y = [0.0, *(p.gain for p in known)]
            axis.plot(
                x, y, color=colour, marker=marker, markersize=4, linewidth=1.4, label=label,
                markevery=slice(1, None),
            )  # fmt: skip
            for p in known:
                axis.annotate(
                    f"{p.strength:g}", (p.costs[metric], p.gain), fontsize=7, color=colour,
                    xytext=(4, -9), textcoords="offset points",
                )  # fmt: skip
        axis.set_title(f"cost in {name}", fontsize=9.5, loc="left", color=INK)
        axis.set_xlabel(f"{name} lost at equal rate, {unit} (below 0: gained)", fontsize=8.5)
        _style(axis)
    axes[0].set_ylabel(f"bits saved at equal {gain}, %", fontsize=8.5)
    axes[0].legend(frameon=False, fontsize=8.5, loc="lower right")
    figure.suptitle(
        f"{title}; numbers are strengths", x=0.01, ha="left", fontsize=10, color=INK,
        parse_math=False,
    )  # fmt: skip
    _save(figure, path)


def _draw_curves(axis: Any, comparison: Comparison, metric: str, title: str, unit: str) -> None:
    from matplotlib.ticker import NullFormatter, ScalarFormatter

    for kind, colour, marker in (("plain", PLAIN, "o"), ("roi", ROI, "s")):
        curve = comparison.curve(kind, metric)  # type: ignore[arg-type]
        assert curve is not None  # noqa: S101 - the panel is drawn only if it was measured
        axis.plot(
            curve.rates, curve.quality, color=colour, marker=marker, markersize=4, linewidth=1.4,
            label=kind,
        )  # fmt: skip
    delta = comparison.deltas.get(metric)
    note = "no delta" if delta is None else f"BD-rate {delta.rate:+.1f} %"
    axis.set_title(f"{title}: {note}", fontsize=9.5, loc="left", color=INK)
    axis.set_xscale("log", base=2)
    axis.xaxis.set_major_formatter(ScalarFormatter())
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.set_xlabel("kbit/s", fontsize=8.5)
    axis.set_ylabel(unit, fontsize=8.5)
    _style(axis)


def _style(axis: Any) -> None:
    axis.tick_params(labelsize=8, color=FAINT)
    axis.grid(color=FAINT, linewidth=0.6)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)


def draw_still(comparison: Comparison, path: str | Path, frame: int | None = None) -> None:
    """Draw one frame of a plain and a steered encode at nearly the same rate, and enlarge the subject.

    Args:
        comparison: a comparison with `CompareOptions.still`, whose work folder still exists.
        path: `.png` or `.jpg` to write.
        frame: frame number in the source; None means the middle of the compared frames.

    Raises:
        OutputError: the suffix is not supported, or the file cannot be written.
        MediaError: an encode is missing in the work folder.
        UsageError: the comparison was made without `CompareOptions.still`.
        MissingExtraError: matplotlib is not installed.
    """
    check_picture(path, STILL_SUFFIXES)
    c = comparison
    at = c.start + c.subject.frames // 2 if frame is None else frame
    if c.pair is None:
        raise UsageError(
            "the comparison has no two encodes of equal rate to draw",
            "compare again with CompareOptions(still=True), which adds such an encode",
        )
    pair = c.pair
    pictures = [_picture(p, at - c.start) for p in pair]
    height, width = pictures[0].shape[:2]
    x, y, w, h = upright_box(c)
    sides = (w / h) / (width / height)
    figure = _figure(12, 6 * height / width * (1 + min(2.0, 1 / sides)) + 0.7)
    grid = figure.subplots(2, 2, squeeze=False, height_ratios=[1, min(2.0, 1 / sides)])
    more = pair[1].kbps / pair[0].kbps - 1
    for column, (point, picture) in enumerate(zip(pair, pictures, strict=True)):
        q = point.quality
        extra = f" ({more:+.1%} bits)" if column else ""
        vmaf = "" if q.vmaf_crop is None else f", VMAF box {q.vmaf_crop:.1f}, whole {q.vmaf:.1f}"
        grid[0, column].set_title(
            f"{point.kind}, {point.kbps:.0f} kbit/s{extra}: PSNR inside {q.psnr_inside:.2f} dB, "
            f"outside {q.psnr_outside:.2f} dB{vmaf}",
            fontsize=8.5, loc="left", color=INK,
        )  # fmt: skip
        grid[0, column].imshow(picture, interpolation="lanczos")
        grid[0, column].add_patch(_frame(x, y, w, h))
        grid[1, column].imshow(picture[y : y + h, x : x + w], interpolation="bicubic")
    for axis in grid.ravel():
        axis.set_axis_off()
    suffix = Path(path).suffix.lower()[1:].replace("jpeg", "jpg")
    more_options = (
        {"pil_kwargs": {"quality": 88}} if suffix == "jpg" else {"metadata": {"Software": None}}
    )
    with whole_file(path) as temporary:
        figure.savefig(temporary, format=suffix, **more_options)


def _frame(x: int, y: int, w: int, h: int) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((x, y), w, h, fill=False, edgecolor="white", linewidth=1)


def upright_box(comparison: Comparison) -> tuple[int, int, int, int]:
    """Return (x, y, width, height) of the subject's box in the upright picture in square pixels."""
    i, (w, h, x, y) = comparison.info, comparison.subject.box
    turns = {
        0: (x, y, w, h),
        90: (i.height - y - h, x, h, w),
        180: (i.width - x - w, i.height - y - h, w, h),
        270: (y, i.width - x - w, h, w),
    }
    left, top, wide, high = turns[i.rotation]
    upright = (i.width, i.height) if i.rotation in (0, 180) else (i.height, i.width)
    sx, sy = i.display_width / upright[0], i.display_height / upright[1]
    return round(left * sx), round(top * sy), round(wide * sx), round(high * sy)


def _picture(point: Point, index: int) -> Rgb:
    """Return an upright frame of an encode as uint8 (height, width, 3)."""
    with open_video(point.path) as video:
        i = video.info
        decoded = next(iter(video.pictures(index, index + 1)))
        size = i.display_width, i.display_height
        rgb = upright_rgb(decoded.frame, i.colour, i.rotation, size)
    return np.ascontiguousarray(rgb.transpose(1, 2, 0))
