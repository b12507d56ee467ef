"""Compare the speed of models at equal inputs: milliseconds, multiply-adds, share of the core's peak.

    python benchmarks/model_speed.py --beside saliency_student_v2.onnx --beside u2netp_mirror_v1.onnx

The script prints a Markdown table. All models run in turn, on one thread each, and the times are
medians of CPU time, so that a busy machine affects all models equally. The peak is the best rate of
a matrix product of 1024 x 1024 in ONNX Runtime, measured in the same rounds. A model cannot take
less time than its multiply-adds at that rate.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper

from eyeline.inference.session import Session
from eyeline.registry.registry import Model, resolve_model

SIZES = ((192, 144), (256, 144), (256, 192), (320, 192), (512, 288))
PRODUCT = 1024  # side of the matrices that measure the peak
ROUNDS = 25


def multiply_adds(model: Model, x: np.ndarray) -> int:
    """Return the multiply-adds of all convolutions for an input; output shapes come from a run."""
    graph = onnx.load_from_string(model.data)
    weights = {t.name: tuple(t.dims) for t in graph.graph.initializer}
    nodes = [n for n in graph.graph.node if n.op_type in ("Conv", "ConvTranspose")]
    del graph.graph.output[:]
    graph.graph.output.extend(
        helper.make_tensor_value_info(n.output[0], TensorProto.FLOAT, None) for n in nodes
    )
    session = ort.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    total = 0
    for node, out in zip(nodes, session.run(None, {"input": x}), strict=True):
        shape = weights[node.input[1]]
        if node.op_type == "Conv":
            total += out.size * math.prod(shape[1:])
        else:  # every input position is multiplied by the whole kernel; strides apply to outputs
            stride = next(a.ints for a in node.attribute if a.name == "strides")
            total += out.size // math.prod(stride) * shape[0] * math.prod(shape[2:])
    return int(total)


def matrix_product() -> Callable[[], object]:
    """Return a function that multiplies two square float32 matrices in ONNX Runtime, on one thread."""
    square = [PRODUCT, PRODUCT]
    a, b, c = (helper.make_tensor_value_info(n, TensorProto.FLOAT, square) for n in "abc")
    graph = helper.make_graph([helper.make_node("MatMul", ["a", "b"], ["c"])], "peak", [a, b], [c])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    x = np.random.default_rng(0).random((PRODUCT, PRODUCT), np.float32)
    return lambda: session.run(None, {"a": x, "b": x})


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default=None, help="model that the ratios refer to")
    parser.add_argument(
        "--beside", action="append", default=[], help="model to compare; repeatable"
    )
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    args = parser.parse_args()
    models = [resolve_model(name) for name in (args.model, *args.beside)]
    models = [replace(m, id=Path(m.id).stem) for m in models]
    sessions = [Session(m, "cpu") for m in models]
    product = matrix_product()
    runs: dict[tuple[str, tuple[int, int]], Callable[[], object]] = {}
    work = {}
    for model, session in zip(models, sessions, strict=True):
        for w, h in SIZES:
            x = np.random.default_rng(0).random((1, 3, h, w), np.float32)
            runs[model.id, (w, h)] = lambda session=session, x=x: session.run(x)
            work[model.id, (w, h)] = multiply_adds(model, x)
            session.run(x)
    product()
    times: dict[tuple[str, tuple[int, int]], list[float]] = {key: [] for key in runs}
    best = math.inf
    for _ in range(args.rounds):
        start = time.thread_time()
        product()
        best = min(best, time.thread_time() - start)
        for key, call in runs.items():
            start = time.thread_time()
            call()
            times[key].append((time.thread_time() - start) * 1e3)
    peak = 2 * PRODUCT**3 / best
    print(f"one core's FP32 peak: {peak / 1e9:.0f} GFLOP/s\n")
    print("| model | size | GMAC | ms, one thread | share of the peak | times the first |")
    print("|---|---|---|---|---|---|")
    for (name, size), spent in times.items():
        ms, macs = statistics.median(spent), work[name, size]
        first = statistics.median(times[models[0].id, size])
        print(
            f"| {name} | {size[0]}x{size[1]} | {macs / 1e9:.3f} | {ms:.2f} | "
            f"{2 * macs / peak * 1e3 / ms:.0%} | {ms / first:.2f} |"
        )


if __name__ == "__main__":
    main()
