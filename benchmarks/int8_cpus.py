"""Compare the maps of INT8 models on two CPUs: save them on one CPU, compare on the other.

    python benchmarks/int8_cpus.py float.onnx int8.onnx -o here.npz
    qemu-x86_64 -cpu Haswell $(which python) benchmarks/int8_cpus.py float.onnx int8.onnx -o haswell.npz
    python benchmarks/int8_cpus.py --compare here.npz haswell.npz

QEMU's user mode (Debian: qemu-user) runs the same ONNX Runtime on a CPU without AVX-512 and VNNI.
An image takes seconds there, so the sizes are small. The first model is the float model that the
others are compared with.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from eyeline.convert.parity import natural_inputs
from eyeline.inference.session import Session
from eyeline.registry.records import IoSpec
from eyeline.registry.registry import Model

SIZES = ((96, 128), (128, 96))
SEEDS = 4  # images of each size


def save(models: list[Path], out: Path) -> None:
    io = IoSpec()
    inputs = [x for seed in range(SEEDS) for x in natural_inputs(SIZES, io, seed)]
    maps = {}
    for path in models:
        session = Session(Model(path.stem, path, io), "cpu")
        for i, x in enumerate(inputs):
            maps[f"{path.stem} {i}"] = session.run(x)
    np.savez(out, **maps)


def compare(here: Path, there: Path) -> None:
    a, b = np.load(here), np.load(there)
    names = list(dict.fromkeys(k.rpartition(" ")[0] for k in a.files))
    count = len(a.files) // len(names)
    print("| model | CPUs differ by | at most | loss here | loss there |\n|---|---|---|---|---|")
    for name in names:
        keys = [f"{name} {i}" for i in range(count)]
        gaps = [np.abs(a[k] - b[k]) for k in keys]
        losses = [
            np.mean([np.abs(m[k] - m[f"{names[0]} {i}"]).mean() for i, k in enumerate(keys)])
            for m in (a, b)
        ]
        print(
            f"| {name} | {np.mean([g.mean() for g in gaps]):.1e} | {max(g.max() for g in gaps):.1e} | "
            f"{losses[0]:.4f} | {losses[1]:.4f} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--compare", nargs=2, type=Path)
    args = parser.parse_args()
    if args.compare:
        compare(*args.compare)
    else:
        save(args.models, args.output)


if __name__ == "__main__":
    main()
