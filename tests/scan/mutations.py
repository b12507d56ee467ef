"""Random changes of model files: of the bytes (`mutate`) and of the graph (`rearrange`)."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import onnx

import benign
import hostile
from eyeline.registry.registry import BUILTIN
from eyeline.scan import load_policy
from tiny_models import plane_model

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
