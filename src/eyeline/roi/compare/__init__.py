"""Compare steered encodes, which have QP offsets by saliency, with plain encodes, which have none.

The judging maps, from masks, recorded fixations or another model, mark where viewers look. These maps
define which samples are inside the subject, and weight the quality metrics.

::

    from eyeline.roi.compare import CompareOptions, compare

    result = compare("clip.mp4", "work", CompareOptions(judge_masks="masks"))
    print(result.deltas["psnr_inside"].rate)

| file | subject |
|---|---|
| `_records.py` | options and results of a comparison |
| `_compare.py` | one comparison, and comparisons of several maps at several strengths |
| `_work.py` | the work folder: maps, and file names by options |
| `_judge.py` | the quality of an encode inside the subject, outside it, and over the whole frame |
| `report.py` | tables, plots and stills |
"""

from eyeline.roi.compare._compare import (
    SteerMap,
    TradeOff,
    compare,
    compare_maps,
    mean_lines,
    steer_map,
)
from eyeline.roi.compare._records import CompareOptions, Comparison

__all__ = [
    "CompareOptions",
    "Comparison",
    "SteerMap",
    "TradeOff",
    "compare",
    "compare_maps",
    "mean_lines",
    "steer_map",
]
