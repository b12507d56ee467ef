"""Compare steered encodes with plain ones, and judge both where viewers look and elsewhere.

::

    from eyeline.roi.compare import CompareOptions, compare

    result = compare("clip.mp4", "work", CompareOptions(judge_masks="masks"))
    print(result.deltas["psnr_inside"].rate)

| file | subject |
|---|---|
| `_records.py` | the options, and what a comparison found |
| `_compare.py` | one comparison, and several maps at several strengths |
| `_work.py` | the work folder: maps, and names of files by all that they depend on |
| `_judge.py` | the quality of one encode inside the subject, outside it, and as a whole |
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
