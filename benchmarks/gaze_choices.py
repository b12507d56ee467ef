"""Print the tables by which a gaze model's prior and time constant were chosen (docs/research/gaze.md).

    python benchmarks/gaze_choices.py runs/gaze --videos hevc-dev.tar --images osie.tar

The first argument is the output folder of `eyeline train`. The script exports the net once per
weight of the prior (`centre` in the recipe). It evaluates each net as `eyeline evaluate` does: on
the videos with each time constant, and on the images that no recipe learned from.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path

from eyeline.convert.export import export_run
from eyeline.evaluation.benchmark import evaluate
from eyeline.evaluation.gaze import EvaluateOptions, GazeOptions
from eyeline.registry.records import IoSpec
from eyeline.registry.registry import Model
from eyeline.tables import markdown_table

WEIGHTS = (0.0, 0.5, 1.0)
TIMES = (0.0, 100.0, 200.0, 300.0, 450.0)
MEASURES = {"nss": "NSS", "cc": "CC", "auc_judd": "AUC-Judd", "information_gain": "IG, bits"}


def exported(run: Path, centre: float, folder: Path) -> Path:
    """Export the net of a run with another weight of the prior."""
    copy = folder / f"run-{centre:g}"
    copy.mkdir()
    shutil.copy(run / "weights.pt", copy)
    record = json.loads((run / "run.json").read_text())
    record["recipe"]["net"]["centre"] = centre
    (copy / "run.json").write_text(json.dumps(record))
    return export_run(copy, folder / f"{centre:g}.onnx").path


def cells(onnx: Path, data: Path, milliseconds: float) -> list[str]:
    """Return the mean scores of a model on a set, as table cells."""
    model = Model(str(onnx), onnx, IoSpec(multiple=16, temporal_ms=milliseconds))
    options = EvaluateOptions(draws=10, gaze=GazeOptions(fold="report"))
    values = evaluate([model], [data], options).gaze.results[0].estimates
    return [f"{values[m].value:.3f}" for m in MEASURES]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--videos", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    a = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        nets = {w: exported(a.run, w, Path(name)) for w in WEIGHTS}
        rows = [
            [f"{w:g}", where, *cells(net, data, 200.0)]
            for w, net in nets.items()
            for where, data in (("videos", a.videos), ("images", a.images))
        ]
        rows += [[f"0.5, {t:g} ms", "videos", *cells(nets[0.5], a.videos, t)] for t in TIMES]
        rows += [["0, 0 ms", "videos", *cells(nets[0.0], a.videos, 0.0)]]
    sys.stdout.write(
        "\n".join(markdown_table(["weight of the prior", "on", *MEASURES.values()], rows)) + "\n"
    )


if __name__ == "__main__":
    main()
