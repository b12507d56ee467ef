"""The bounded reader: it reads what ONNX reads, and whatever the bytes, it ends."""

from __future__ import annotations

import random
import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import benign
import hostile
from eyeline.registry.registry import BUILTIN
from eyeline.scan import load_policy, scan
from eyeline.scan.wire import MESSAGES, Message, Packed, WireError, WireReader
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


def read(data: bytes) -> Message:
    reader = WireReader(data, 200_000, 40)
    message = reader.read()
    assert not reader.unknown
    return message


def same(ours: Message, theirs: Any) -> None:
    """Field by field, as the real parser reads them."""
    listed = {f.name: v for f, v in theirs.ListFields()}
    assert set(ours.fields) == set(listed)
    for name, value in listed.items():
        mine = ours.fields[name]
        if isinstance(mine, Packed):
            assert len(mine) == len(value)
        elif isinstance(mine, Message):
            same(mine, value)
        elif isinstance(mine, list) and mine and isinstance(mine[0], Message):
            assert len(mine) == len(value)
            for a, b in zip(mine, value, strict=True):
                same(a, b)
        elif isinstance(mine, memoryview):
            assert bytes(mine) == value
        elif isinstance(mine, list):
            assert [bytes(v) if isinstance(v, memoryview) else v for v in mine] == list(value)
        else:
            assert mine == value


@pytest.mark.parametrize("path", sorted(BUILTIN.glob("*.onnx")), ids=lambda p: p.stem)
def test_it_reads_what_onnx_reads(path: Path) -> None:
    data = path.read_bytes()
    same(read(data), onnx.load_from_string(data))


def test_it_reads_a_quantised_net_as_onnx_does(tmp_path: Path) -> None:
    data = benign.quantised(tmp_path)
    same(read(data), onnx.load_from_string(data))


@pytest.mark.parametrize(
    "tensor",
    [
        onnx.TensorProto(name="t", dims=[3], data_type=1, float_data=[1, 2, 3]),
        onnx.TensorProto(name="t", dims=[3], data_type=7, int64_data=[1, -2, 1 << 62]),
        onnx.TensorProto(name="t", dims=[2], data_type=6, int32_data=[-1, 7]),
        onnx.TensorProto(name="t", dims=[5000], data_type=3, int32_data=[-100, 100] * 2500),
        onnx.TensorProto(name="t", dims=[2], data_type=11, double_data=[0.5, 1e300]),
    ],
    ids=["float", "int64", "int32", "many int8", "double"],
)
def test_it_reads_packed_values_and_admits_them(tensor: Any) -> None:
    model = hostile.base()
    model.graph.initializer.append(tensor)
    data = hostile.dump(model)
    same(read(data), onnx.load_from_string(data))
    findings = scan(data, load=False).findings
    assert {f.code for f in findings} <= {
        "integer"
    }  # 1 << 62 is beyond the policy, and nothing else
    assert bool(findings) == (tensor.data_type == 7)


def test_the_limit_on_fields_is_exact() -> None:
    data = plane_model()
    reader = WireReader(data, 10_000, 40)
    reader.read()
    WireReader(data, reader.fields, 40).read()
    with pytest.raises(WireError, match="more than"):
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


SEEDS = [plane_model(), benign.unet(), benign.unet(transpose=False), benign.half_weights()]
SEEDS += [
    hostile.CORPUS[n][1]() for n in ("Loop in an If", "function", "SequenceMap", "training info")
]
SEEDS.append((BUILTIN / "saliency_student_v3.onnx").read_bytes())


def mutate(data: bytes, rng: random.Random) -> bytes:
    """A few flips, cuts, copies and inserted integers, more often near the front and the end."""
    buffer = bytearray(data)
    for _ in range(rng.randint(1, 6)):
        at = rng.randrange(len(buffer) + 1)
        if len(data) > 20_000 and rng.random() < 0.7:  # the structure is not among the weights
            at = rng.choice([rng.randrange(4000), len(buffer) - rng.randrange(4000)])
        kind = rng.randrange(6)
        if kind == 0 and at < len(buffer):
            buffer[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del buffer[at : at + rng.randint(1, 16)]
        elif kind == 2:
            buffer[at:at] = buffer[at : at + rng.randint(1, 200)]
        elif kind == 3:
            buffer[at : at + 1] = hostile.varint(rng.choice([0, 1, 127, 1 << 31, 1 << 63, -1]))
        elif kind == 4:
            buffer[at:at] = hostile.field(rng.randint(1, 30), rng.randbytes(rng.randint(0, 20)))
        elif kind == 5 and at < len(buffer):
            buffer[at] = rng.randrange(256)
    return bytes(buffer)


@given(st.sampled_from(range(len(SEEDS))), st.integers(0, 2**32))
@settings(max_examples=400)
def test_mutated_models_stay_in_bounds_and_mean_what_onnx_reads(index: int, seed: int) -> None:
    data = mutate(SEEDS[index], random.Random(seed))
    report = check_bounded(data)
    if report.admitted:
        model = onnx.load_from_string(data)
        assert sum(report.ops.values()) == len(model.graph.node)
        assert set(report.ops) == {n.op_type for n in model.graph.node}


OPS = sorted(load_policy().ops)
NUMBERS = [
    -(1 << 63),
    -(1 << 31),
    -3,
    -2,
    -1,
    0,
    1,
    2,
    3,
    4,
    7,
    31,
    64,
    4096,
    1 << 31,
    (1 << 63) - 1,
]


def rearrange(data: bytes, rng: random.Random) -> bytes:
    """A model that still parses, with ops, wires, attributes and constants changed."""
    model = onnx.load_from_string(data)
    graph = model.graph
    names = [i.name for i in (*graph.input, *graph.initializer)]
    names += [o for n in graph.node for o in n.output]
    for _ in range(rng.randint(1, 5)):
        node = rng.choice(graph.node)
        kind = rng.randrange(9)
        if kind == 0:
            node.op_type = rng.choice(OPS)
        elif kind == 1 and node.input:
            node.input[rng.randrange(len(node.input))] = rng.choice([*names, ""])
        elif kind == 2:
            node.input.append(rng.choice([*names, ""]))
        elif kind == 3 and node.input:
            del node.input[rng.randrange(len(node.input))]
        elif kind == 4 and node.attribute:
            attribute = rng.choice(node.attribute)
            attribute.i = rng.choice(NUMBERS) if attribute.type == 2 else attribute.i
            if attribute.ints:
                attribute.ints[rng.randrange(len(attribute.ints))] = rng.choice(NUMBERS)
        elif kind == 5:
            rule = load_policy().ops.get(node.op_type)
            for name in list(rule.attributes)[: rng.randrange(6)] if rule else []:
                value = rng.choice(
                    [rng.choice(NUMBERS), rng.choices(NUMBERS, k=rng.randrange(5)), 0.5]
                )
                node.attribute.append(
                    onnx.helper.make_attribute(name, value, attr_type=_kind(value))
                )
        elif kind == 6 and graph.initializer:
            tensor = rng.choice(graph.initializer)
            if tensor.dims:
                tensor.dims[rng.randrange(len(tensor.dims))] = rng.choice(NUMBERS)
        elif kind == 7:
            shape = rng.choices(range(5), k=rng.randrange(4))
            array = np.array(rng.choices(NUMBERS, k=int(np.prod(shape))), np.int64).reshape(shape)
            if rng.random() < 0.5:
                array = array.astype(np.float32)
            name = f"new{rng.randrange(10**6)}"
            graph.initializer.append(onnx.numpy_helper.from_array(array, name))
            node.input.append(name)
        elif kind == 8:
            node.output.append(f"extra{rng.randrange(10**6)}")
    model.opset_import[0].version = rng.choice([11, 13, 17, 18, 21])
    result: bytes = model.SerializeToString()
    return result


def _kind(value: Any) -> Any:
    kinds = {int: onnx.AttributeProto.INT, float: onnx.AttributeProto.FLOAT}
    return kinds.get(type(value), onnx.AttributeProto.INTS)


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
