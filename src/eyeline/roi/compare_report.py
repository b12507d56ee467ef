"""A comparison as text: what the subject gained, what the background paid, and who judged."""

from __future__ import annotations

from collections.abc import Sequence

from eyeline.roi.bd import GOOD_OVERLAP
from eyeline.roi.comparison import Comparison, Point
from eyeline.roi.trade_off import TradeOff

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
"""Attribute of `Quality` to its name, unit and decimals, in the order of the table."""

BY_GAZE = {
    "psnr_inside": "PSNR where gaze exceeds half its peak",
    "vmaf_crop": "VMAF, box of the gaze",
    "sw_psnr": "EWPSNR (weighted by recorded gaze)",
    "sw_ssim": "SSIM weighted by recorded gaze",
    "psnr_outside": "PSNR elsewhere",
}
"""Names that differ where recorded gaze judges; EWPSNR is that of Li, Qin & Itti (2011)."""


def name_of(metric: str, comparison: Comparison) -> str:
    """What a metric is called, by who judges."""
    name = METRICS[metric][0]
    return BY_GAZE.get(metric, name) if comparison.by_gaze else name


def to_markdown(comparison: Comparison, *, points: bool = True) -> str:
    """Tables that read as text too.

    Args:
        comparison: what was found.
        points: with every encode.
    """
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
    lines += table(["metric", "rate at equal quality", "quality at equal rate", ""], rows)
    lines += ["", verdict(c)]
    if points:
        lines += ["", *_points(c)]
    return "\n".join(lines) + "\n"


def verdict(comparison: Comparison) -> str:
    """What the subject gained and what the picture paid, in a sentence or two."""
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
    setting = "CRF" if "crf" in comparison.provenance else "QP"
    said.append(f"At equal {setting} it takes {comparison.growth:+.1%} bits.")
    return " ".join(said)


def heading(comparison: Comparison) -> str:
    """What was compared, and who judged."""
    c, p = comparison, comparison.provenance
    setting = "crf" if "crf" in p else "qp"
    steer = p["steer"]
    rates = ", ".join(f"{r:g}" for r in p[setting])
    s = c.subject
    judged = f"Judged by {c.judge}"
    if c.own_homework and c.by_gaze:
        judged += ", which also steers: the most that any prediction of gaze could gain"
    elif c.own_homework:
        judged += (
            ", which also steers: it grades its own homework (`--judge-masks` or `--judge-model` "
            "names another)"
        )
    return (
        f"{c.source}: {p['codec']} {p['preset'] or ''} at {setting} {rates}; law {steer['law']}, "
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
    """A row per map and strength: the gain where the judge looks, and what the whole frame pays."""
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
    return "\n".join([said, "", *table(head, rows)]) + "\n"


def delta_cell(c: Comparison, metric: str) -> str:
    """Rate at equal quality and quality at equal rate, or a dash."""
    delta = c.deltas.get(metric)
    if delta is None:
        return "-"
    _, unit, digits = METRICS[metric]
    return f"{delta.rate:+.1f} %, {delta.quality:+.{digits}f} {unit}".rstrip()


def _points(c: Comparison) -> list[str]:
    names = [m for m in METRICS if getattr(c.points[0].quality, m) is not None]
    head = ["encode", "kbit/s", *(name_of(m, c) for m in names)]
    return table(head, [[_label(c, p), f"{p.kbps:.0f}", *_cells(p, names)] for p in c.points])


def _label(c: Comparison, p: Point) -> str:
    return f"{p.kind} {'crf' if 'crf' in c.provenance else 'qp'} {p.setting:g}"


def _cells(p: Point, names: Sequence[str]) -> list[str]:
    return [f"{getattr(p.quality, m):.{METRICS[m][2]}f}" for m in names]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table whose columns line up as text."""
    sizes = [max(len(r[i]) for r in (head, *rows)) for i in range(len(head))]
    return [
        "| " + " | ".join(cell.ljust(n) for cell, n in zip(row, sizes, strict=True)) + " |"
        for row in (head, ["-" * n for n in sizes], *rows)
    ]
