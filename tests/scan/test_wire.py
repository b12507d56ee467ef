"""The bounded reader: it reads what ONNX reads, and whatever the bytes, it ends."""

from __future__ import annotations

import random
import time
import tracemalloc
from pathlib import Path
from typing import Any

import onnx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from mutations import SEEDS, mutate, rearrange
from parsed import read, same

import benign
import hostile
from eyeline.registry.registry import BUILTIN
from eyeline.scan import scan
from eyeline.scan._wire import MESSAGES, WireReader
from eyeline.scan.records import RefusedError
from tiny_models import plane_model

KINDS = {1: "f64", 2: "f32", 3: "i64", 4: "u64", 5: "i32", 9: "str", 12: "bytes", 14: "i32"}
RENAMED = {"TypeProto.Tensor": "TensorType", "TensorShapeProto.Dimension": "Dimension"}
RENAMED |= {"TensorProto.Segment": "Segment", "TypeProto.SparseTensor": "SparseTensorType"}
RENAMED |= {f"TypeProto.{n}": n for n in ("Sequence", "Map", "Optional", "Opaque")}


def short(descriptor: Any) -> str:
    name = descriptor.full_name.removeprefix("onnx.")
    return RENAMED.get(name, name.removesuffix("Proto"))


def test_the_tables_are_those_of_onnx() -> None:
    found: dict[str, dict[int, tuple[str, str, bool]]] = {}
    todo = [onnx.ModelProto.DESCRIPTOR]
    while todo:
        message = todo.pop()
        if short(message) in found:
            continue
        found[short(message)] = {
            f.number: (
                f.name,
                short(f.message_type) if f.message_type else KINDS[f.type],
                f.is_repeated,
            )
            for f in message.fields
        }
        todo += [f.message_type for f in message.fields if f.message_type]
    ours = {name: {n: tuple(f) for n, f in table.items()} for name, table in MESSAGES.items()}
    assert ours == found


@pytest.mark.parametrize("path", sorted(BUILTIN.glob("*.onnx")), ids=lambda p: p.stem)
def test_it_reads_what_onnx_reads(path: Path) -> None:
    data = path.read_bytes()
    same(read(data), onnx.load_from_string(data))


def test_it_reads_a_quantised_net_as_onnx_does(tmp_path: Path) -> None:
    data = benign.quantised(tmp_path)
    same(read(data), onnx.load_from_string(data))


def test_the_limit_on_fields_is_exact() -> None:
    data = plane_model()
    reader = WireReader(data, 10_000, 40)
    reader.read()
    WireReader(data, reader.fields, 40).read()
    with pytest.raises(RefusedError, match="more than"):
        WireReader(data, reader.fields - 1, 40).read()


# --- whatever the bytes


def check_bounded(data: bytes) -> Any:
    """A scan neither raises, nor goes on without end, nor fills the memory."""
    began = time.process_time()
    report = scan(data, load=False)
    assert time.process_time() - began < 20
    assert report.size == len(data)
    for finding in report.findings:
        assert str(finding).isprintable()
        assert len(str(finding)) < 2000
    return report


@given(st.binary(max_size=600))
@example(b"\x00")
@example(b"\x08")
@example(b"\xff" * 30)
@settings(max_examples=300)
def test_arbitrary_bytes_are_refused_in_bounds(data: bytes) -> None:
    assert not check_bounded(data).admitted


@given(st.sampled_from(range(len(SEEDS))), st.integers(0, 2**32))
@settings(max_examples=400)
def test_mutated_models_stay_in_bounds_and_mean_what_onnx_reads(index: int, seed: int) -> None:
    data = mutate(SEEDS[index], random.Random(seed))
    report = check_bounded(data)
    if report.admitted:
        model = onnx.load_from_string(data)
        assert sum(report.ops.values()) == len(model.graph.node)
        assert set(report.ops) == {n.op_type for n in model.graph.node}


@given(st.sampled_from(range(len(SEEDS))), st.integers(0, 2**32))
@settings(max_examples=500)
def test_rearranged_models_stay_in_bounds(index: int, seed: int) -> None:
    check_bounded(rearrange(SEEDS[index], random.Random(seed)))


def test_memory_is_bounded_by_the_file() -> None:
    tracemalloc.start()
    try:
        for name in ("20 MB of empty nodes", "messages nested in messages", "a name of 100 kB"):
            data = hostile.CORPUS[name][1]()
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            scan(data, load=False)
            # Python's objects: about 300 bytes a field, and the policy stops at 200,000 fields.
            assert tracemalloc.get_traced_memory()[1] - before < 100e6 + 2 * len(data)
    finally:
        tracemalloc.stop()


@pytest.mark.slow
@given(st.sampled_from(range(len(SEEDS))), st.integers(0, 2**32))
@settings(max_examples=20_000)
def test_many_mutated_models(index: int, seed: int) -> None:
    data = mutate(SEEDS[index], random.Random(seed))
    report = check_bounded(data)
    if report.admitted:
        onnx.load_from_string(data)


@pytest.mark.slow
@given(st.sampled_from(range(len(SEEDS))), st.integers(0, 2**32))
@settings(max_examples=20_000)
def test_many_rearranged_models(index: int, seed: int) -> None:
    check_bounded(rearrange(SEEDS[index], random.Random(seed)))


@pytest.mark.slow
def test_what_the_static_scan_admits_does_not_kill_the_child() -> None:
    rng = random.Random(7)
    outcomes = []
    while len(outcomes) < 100:
        data = rng.choice([mutate, rearrange])(rng.choice(SEEDS), rng)
        if scan(data, load=False).admitted:
            outcomes.append(scan(data).load.outcome)
    assert set(outcomes) <= {"loaded", "refused"}
