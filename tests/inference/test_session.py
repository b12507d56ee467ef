"""Frames to a session and maps back, and models that keep the contract or get one clear line."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import NodeProto, TensorProto, helper, numpy_helper

from eyeline.errors import (
    ContractError,
    EyelineError,
    ModelError,
    RegistryError,
    UsageError,
    VerificationError,
)
from eyeline.inference import pad_to_multiple, upscale, working_size
from eyeline.inference.session import MAX_ASPECT, Session
from eyeline.registry.records import IoSpec
from eyeline.registry.registry import Model, resolve_model
from eyeline.runtime import IMAGENET_MEAN, IMAGENET_STD
from tiny_models import (
    BLUE,
    GREEN,
    RED,
    conv,
    make_model,
    plane_model,
    plane_weights,
    write_registry,
)

F32, F16, F64, U8 = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.UINT8
IN = {"input": (F32, ["N", 3, "H", "W"])}
OUT = {"saliency_map": (F32, ["N", 1, "H", "W"])}
WEIGHTS = plane_weights(RED)


def load(folder: Path, data: bytes) -> Session:
    path = folder / "model.onnx"
    path.write_bytes(data)
    return Session(Model("tiny", path, IoSpec()), "cpu")


def normalised(rgb: np.ndarray) -> np.ndarray:
    """uint8 (3, h, w) to what the contract wants, computed apart from the pipeline."""
    x = rgb.astype(np.float64) / 255
    x = (x - np.reshape(IMAGENET_MEAN, (3, 1, 1))) / np.reshape(IMAGENET_STD, (3, 1, 1))
    return x.astype(np.float32)[None]


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (3, height, width), np.uint8)


def one_line(exc: EyelineError) -> str:
    assert "\n" not in str(exc)
    assert len(str(exc)) < 500
    assert exc.exit_code == 2
    return str(exc)


def node(op: str, inputs: list[str], output: str, **attributes: object) -> NodeProto:
    return helper.make_node(op, inputs, [output], **attributes)


# --- models that keep the contract


@pytest.mark.parametrize(("plane", "mix"), list(enumerate([RED, GREEN, BLUE])))
@pytest.mark.parametrize("size", [(1, 1), (17, 23), (48, 80)])
def test_a_known_model_gives_the_known_map(
    tmp_path: Path, plane: int, mix: tuple[float, float, float], size: tuple[int, int]
) -> None:
    rgb = noise(*size)
    y = load(tmp_path, plane_model(mix)).run(normalised(rgb))
    assert (y.shape, y.dtype) == (size, np.float32)
    np.testing.assert_allclose(y, rgb[plane] / 255, rtol=0, atol=5e-7)


def test_round_off_around_the_range_is_clipped(tmp_path: Path) -> None:
    rgb = np.zeros((3, 2, 2), np.uint8)
    rgb[:, 0] = 255
    for offset in (-5e-6, 5e-6):
        y = load(tmp_path, plane_model(RED, 1, offset)).run(normalised(rgb))
        assert y.min() >= 0
        assert y.max() <= 1


def test_the_answer_is_the_same_bytes_from_any_thread(tmp_path: Path) -> None:
    session = Session(resolve_model(), "cpu")
    inputs = [normalised(noise(64, 96, seed)) for seed in range(6)]
    alone = [session.run(x).tobytes() for x in inputs]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda x: session.run(x).tobytes(), inputs * 3)) == alone * 3


def test_a_session_runs_the_bytes_that_were_verified(tmp_path: Path) -> None:
    folder = write_registry(tmp_path, {"mine": plane_model(RED)})
    model = resolve_model("mine", folder)
    assert model.sha256
    (folder / "mine.onnx").write_bytes(plane_model(BLUE))  # swapped after the check
    rgb = noise(4, 4)
    np.testing.assert_allclose(
        Session(model, "cpu").run(normalised(rgb)), rgb[0] / 255, rtol=0, atol=5e-7
    )


def test_a_model_of_one_static_size_runs_at_that_size_only(tmp_path: Path) -> None:
    data = make_model(
        [conv()],
        WEIGHTS,
        inputs={"input": (F32, [1, 3, 8, 12])},
        outputs={"saliency_map": (F32, [1, 1, 8, 12])},
    )
    session = load(tmp_path, data)
    assert session.run(normalised(noise(8, 12))).shape == (8, 12)
    with pytest.raises(ModelError, match="12x16") as caught:
        session.run(normalised(noise(16, 12)))
    one_line(caught.value)


def test_names_of_provider_and_runtime_are_known(tmp_path: Path) -> None:
    session = load(tmp_path, plane_model())
    assert session.provider == "CPUExecutionProvider"
    assert session.runtime_version == ort.__version__


# --- files that are not the model


def test_a_model_changed_by_one_byte_is_refused(tmp_path: Path) -> None:
    data = plane_model()
    folder = write_registry(tmp_path, {"mine": data})
    (folder / "mine.onnx").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(VerificationError) as caught:
        Session(resolve_model("mine", folder), "cpu")
    one_line(caught.value)


def test_a_missing_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match="can't be read") as caught:
        Session(resolve_model(str(tmp_path / "none.onnx")), "cpu")
    one_line(caught.value)


@pytest.mark.parametrize(
    "data",
    [
        b"not a model",
        b"\0" * 64,
        b"\x89PNG\r\n\x1a\n" + bytes(64),
        plane_model()[:-40],
        onnx.ModelProto(ir_version=8).SerializeToString(),
        b"name: 'text'\n" * 20,
    ],
    ids=["text", "zeros", "png", "cut off", "no graph", "lines"],
)
def test_what_is_not_onnx_is_refused(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(ModelError) as caught:
        load(tmp_path, data)
    one_line(caught.value)


def test_an_ort_format_polyglot_is_refused_by_name(tmp_path: Path) -> None:
    # Valid ONNX whose bytes 4 to 7 are the identifier of ONNX Runtime's own flatbuffer format:
    # field 2 (producer_name) first, holding "..ORTM..".
    data = b"\x12\x08\0\0ORTM\0\0" + plane_model()
    assert onnx.load_from_string(data).graph.node
    with pytest.raises(ModelError, match="ORT format") as caught:
        load(tmp_path, data)
    one_line(caught.value)


def test_weights_in_another_file_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Large enough not to be folded while loading; ONNX Runtime by itself reads it from where
    # the process happens to stand.
    bias = np.full((1, 1, 1, 4096), 0.25, np.float32)
    model = onnx.load_from_string(
        make_model(
            [conv(target="plane"), node("Add", ["plane", "bias"], "saliency_map")],
            plane_weights(RED, 0.5) | {"bias": bias},
        )
    )
    tensor = next(t for t in model.graph.initializer if t.name == "bias")
    (tmp_path / "bias.bin").write_bytes(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "bias.bin"), ("length", str(bias.nbytes))):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match="External data") as caught:
        load(tmp_path, model.SerializeToString())
    one_line(caught.value)


def test_a_damaged_file_is_one_of_our_errors_and_stdout_stays_clean() -> None:
    # In a child: what the runtime prints or kills must not pass for a success here.
    program = """
import pathlib, random, sys, tempfile
import numpy as np
from eyeline.errors import EyelineError
from eyeline.registry.records import IoSpec
from eyeline.registry.registry import BUILTIN, Model
from eyeline.inference.session import Session
rng = random.Random(5)
good, x = (BUILTIN / "placeholder.onnx").read_bytes(), np.zeros((1, 3, 5, 7), np.float32)
with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder) / "m.onnx"
    for i in range(600):
        data = bytearray(good)
        if i % 3 == 2:
            del data[rng.randrange(1, len(data)):]
        else:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        path.write_bytes(data)
        try:
            Session(Model("m", path, IoSpec()), "cpu").run(x)
        except EyelineError as exc:
            assert "\\n" not in str(exc), str(exc)
sys.stderr.write("all")
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "all")


# --- tensors that are not the contract's


def cast_model(kind: int) -> bytes:
    return make_model(
        [node("Cast", ["input"], "x", to=F32), conv("x")],
        WEIGHTS,
        inputs={"input": (kind, ["N", 3, "H", "W"])},
    )


BAD_TENSORS = {
    "input name": (
        make_model([conv("x")], WEIGHTS, inputs={"x": IN["input"]}),
        "input tensors are 'x'",
    ),
    "output name": (
        make_model([conv(target="y")], WEIGHTS, outputs={"y": OUT["saliency_map"]}),
        "output tensors are 'y'",
    ),
    "name with a line break": (
        make_model([conv(target="y\ny")], WEIGHTS, outputs={"y\ny": OUT["saliency_map"]}),
        "output tensors are",
    ),
    "second input": (
        make_model(
            [conv(target="a"), node("Add", ["a", "depth"], "saliency_map")],
            WEIGHTS,
            inputs=IN | {"depth": (F32, ["N", 1, "H", "W"])},
        ),
        "input tensors are 'input', 'depth'",
    ),
    "second output": (
        make_model(
            [conv(), node("Relu", ["saliency_map"], "edges")],
            WEIGHTS,
            outputs=OUT | {"edges": (F32, ["N", 1, "H", "W"])},
        ),
        "output tensors are 'saliency_map', 'edges'",
    ),
    "uint8 input": (cast_model(U8), r"'input' is tensor\(uint8\)"),
    "float16 input": (cast_model(F16), r"'input' is tensor\(float16\)"),
    "double input": (cast_model(F64), r"'input' is tensor\(double\)"),
    "float16 output": (
        make_model(
            [conv(target="y"), node("Cast", ["y"], "saliency_map", to=F16)],
            WEIGHTS,
            outputs={"saliency_map": (F16, ["N", 1, "H", "W"])},
        ),
        r"'saliency_map' is tensor\(float16\)",
    ),
    "input of rank 3": (
        make_model(
            [node("Unsqueeze", ["input", "axis"], "x"), conv("x")],
            WEIGHTS | {"axis": np.array([0], np.int64)},
            inputs={"input": (F32, [3, "H", "W"])},
        ),
        "'input' is .* of rank 3",
    ),
    "output of rank 3": (
        make_model(
            [conv(target="y"), node("Squeeze", ["y", "axis"], "saliency_map")],
            WEIGHTS | {"axis": np.array([1], np.int64)},
            outputs={"saliency_map": (F32, ["N", "H", "W"])},
        ),
        "'saliency_map' is .* of rank 3",
    ),
    "RGB-D input": (
        make_model(
            [node("Conv", ["input", "w", "b"], "saliency_map", kernel_shape=[1, 1])],
            {"w": np.full((1, 4, 1, 1), 0.1, np.float32), "b": np.zeros(1, np.float32)},
            inputs={"input": (F32, ["N", 4, "H", "W"])},
        ),
        "'input' has 4 channels, not 3",
    ),
    "output channels that are not declared": (
        make_model(
            [node("Relu", ["input"], "saliency_map")],
            outputs={"saliency_map": (F32, ["N", "C", "H", "W"])},
        ),
        "'saliency_map' has 3 channels, not 1",
    ),
    "two-channel output": (
        make_model(
            [conv(target="y"), node("Concat", ["y", "y"], "saliency_map", axis=1)],
            WEIGHTS,
            outputs={"saliency_map": (F32, ["N", 2, "H", "W"])},
        ),
        "'saliency_map' has 2 channels, not 1",
    ),
}


@pytest.mark.parametrize("case", BAD_TENSORS)
def test_wrong_tensors_are_refused_by_name(tmp_path: Path, case: str) -> None:
    data, words = BAD_TENSORS[case]
    with pytest.raises(ContractError, match=words) as caught:
        load(tmp_path, data)
    one_line(caught.value)


# --- answers that are not the contract's


def unary(*steps: str) -> bytes:
    """Elementwise operators after the red plane minus a half."""
    names = ["plane", *(f"s{i}" for i in range(len(steps) - 1)), "saliency_map"]
    nodes = [node(op, [names[i]], names[i + 1]) for i, op in enumerate(steps)]
    return make_model([conv(target="plane"), *nodes], plane_weights(RED, 1, -0.5))


BAD_ANSWERS = {
    "NaN": (unary("Sqrt"), r"\[nan, nan\]"),
    "infinity": (unary("Floor", "Neg", "Relu", "Reciprocal"), "inf"),
    "above 1": (plane_model(RED, 1.5), r"must be finite and in \[0, 1\]"),
    "below 0": (plane_model(RED, 1, -0.01), r"must be finite and in \[0, 1\]"),
    "logits": (plane_model(RED, 20, -10), "ends in a sigmoid"),
    "half the size": (
        make_model(
            [
                conv(target="y"),
                node("AveragePool", ["y"], "saliency_map", kernel_shape=[2, 2], strides=[2, 2]),
            ],
            WEIGHTS,
            outputs={"saliency_map": (F32, ["N", 1, "h", "w"])},
        ),
        r"map is \(1, 1, 5, 7\) for an input of \(1, 3, 10, 14\)",
    ),
    "one number": (
        make_model([conv(target="y"), node("GlobalAveragePool", ["y"], "saliency_map")], WEIGHTS,
                   outputs={"saliency_map": (F32, ["N", 1, "h", "w"])}),
        r"map is \(1, 1, 1, 1\)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_ANSWERS)
def test_wrong_answers_are_refused(tmp_path: Path, case: str) -> None:
    data, words = BAD_ANSWERS[case]
    rgb = noise(10, 14)
    rgb[:, 0, 0], rgb[:, 9, 13] = 0, 255
    session = load(tmp_path, data)
    with pytest.raises(ContractError, match=words) as caught:
        session.run(normalised(rgb))
    one_line(caught.value)


def test_a_single_nan_is_found(tmp_path: Path) -> None:
    rgb = np.full((3, 30, 40), 200, np.uint8)
    session = load(tmp_path, unary("Sqrt"))
    session.run(normalised(rgb))
    rgb[:, 17, 29] = 0
    with pytest.raises(ContractError, match="nan"):
        session.run(normalised(rgb))


def halves_and_doubles() -> bytes:
    """A U-Net's arithmetic: even sides pass, odd sides can't be added."""
    return make_model(
        [
            conv(target="y"),
            node("AveragePool", ["y"], "low", kernel_shape=[2, 2], strides=[2, 2]),
            node("Resize", ["low", "", "scales"], "up", mode="nearest"),
            node("Mul", ["y", "up"], "saliency_map"),
        ],
        WEIGHTS | {"scales": np.array([1, 1, 2, 2], np.float32)},
    )


def test_a_model_that_fails_at_a_size_is_refused_there_only(tmp_path: Path) -> None:
    session = load(tmp_path, halves_and_doubles())
    assert session.run(normalised(noise(8, 6))).shape == (8, 6)
    with pytest.raises(ModelError, match="failed on an input of 9x7") as caught:
        session.run(normalised(noise(7, 9)))
    assert "multiple" in one_line(caught.value)
    assert session.run(normalised(noise(8, 6))).shape == (8, 6)


# --- devices


@pytest.mark.skipif(
    "CUDAExecutionProvider" in ort.get_available_providers(), reason="this runtime has CUDA"
)
def test_cuda_is_refused_where_it_is_not(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(plane_model())
    model = Model("tiny", tmp_path / "m.onnx", IoSpec())
    with pytest.raises(UsageError, match="CUDA") as caught:
        Session(model, "cuda")
    one_line(caught.value)
    assert Session(model, "auto").provider == "CPUExecutionProvider"


def test_initializers_are_what_the_helpers_say() -> None:
    # The helpers above are the oracle of many tests: their weights undo the normalisation.
    model = onnx.load_from_string(plane_model(GREEN))
    w, b = (numpy_helper.to_array(t) for t in model.graph.initializer)
    black, white = normalised(np.zeros((3, 1, 1), np.uint8)), normalised(np.full((3, 1, 1), 255))
    assert float((w * black).sum() + b[0]) == pytest.approx(0, abs=1e-6)
    assert float((w * white).sum() + b[0]) == pytest.approx(1, abs=1e-6)


# --- working size, padding and upscaling

UNIT = st.floats(0, 1, width=32)
MAPS = hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=7), elements=UNIT)
SIDES = st.integers(1, 40)


def test_known_working_sizes() -> None:
    assert working_size(1920, 1080, 192) == (341, 192)
    assert working_size(1080, 1920, 192) == (192, 341)
    assert working_size(640, 480, 240) == (320, 240)
    assert working_size(500, 500, 64) == (64, 64)


def test_native_is_the_frames_own_size() -> None:
    assert working_size(1919, 1079, None) == (1919, 1079)


def test_a_banner_is_squeezed_to_the_largest_aspect() -> None:
    assert working_size(7000, 100, 100) == (MAX_ASPECT * 100, 100)
    assert working_size(100, 7000, 100) == (100, MAX_ASPECT * 100)


@given(st.integers(1, 8192), st.integers(1, 8192), st.integers(16, 2160))
def test_the_short_side_is_exact_and_the_aspect_is_kept(
    width: int, height: int, lines: int
) -> None:
    w, h = working_size(width, height, lines)
    assert min(w, h) == lines
    assert (w >= h) == (width >= height) or w == h
    aspect = min(Fraction(max(width, height), min(width, height)), Fraction(MAX_ASPECT))
    assert abs(max(w, h) - lines * aspect) <= Fraction(1, 2) + Fraction(1, 10**6)


@given(
    hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=4, max_side=9), elements=UNIT),
    st.integers(1, 12),
)
def test_padding_is_edge_replication_to_the_next_multiple(x: np.ndarray, multiple: int) -> None:
    h, w = x.shape[-2:]
    padded = pad_to_multiple(x, multiple)
    below, right = padded.shape[-2] - h, padded.shape[-1] - w
    assert padded.shape[-2] % multiple == padded.shape[-1] % multiple == 0
    assert 0 <= below < multiple
    assert 0 <= right < multiple
    widths = [(0, 0)] * (x.ndim - 2) + [(0, below), (0, right)]
    np.testing.assert_array_equal(padded, np.pad(x, widths, mode="edge"))
    assert padded.dtype == np.float32


@given(UNIT, SIDES, SIDES, SIDES, SIDES)
def test_a_constant_map_stays_that_constant(
    c: float, h: int, w: int, out_h: int, out_w: int
) -> None:
    m = upscale(np.full((h, w), c, np.float32), out_w, out_h)
    assert m.shape == (out_h, out_w)
    assert (m == np.float32(c)).all()
    assert m.mean(dtype=np.float64) == pytest.approx(float(np.float32(c)), rel=1e-15)


@given(MAPS, SIDES, SIDES)
@settings(max_examples=300)
def test_no_value_leaves_the_range_of_the_map(m: np.ndarray, width: int, height: int) -> None:
    big = upscale(m, width, height)
    assert big.min() >= m.min()
    assert big.max() <= m.max()


@pytest.mark.parametrize("ends", [(0.037679367, 0.22580962), (0.11291606, 3.220816e-08)])
def test_round_off_does_not_leave_the_range(ends: tuple[float, float]) -> None:
    # From 2 to 98 columns, column 73 lies 2e-16 before the right sample: a + (b - a) * 1 in
    # float32 is above 0.22580962, and below 3.220816e-08.
    m = np.array([ends], np.float32)
    big = upscale(m, 98, 1)
    assert big.min() >= m.min()
    assert big.max() <= m.max()


def half_pixel(m: np.ndarray, width: int, height: int) -> np.ndarray:
    """Bilinear with half-pixel centres, written pixel by pixel in Python's floats."""
    h, w = m.shape
    out = np.empty((height, width))
    for y in range(height):
        v = min(max((y + 0.5) * h / height - 0.5, 0.0), h - 1.0)
        top, below = int(v), min(int(v) + 1, h - 1)
        for x in range(width):
            u = min(max((x + 0.5) * w / width - 0.5, 0.0), w - 1.0)
            left, right = int(u), min(int(u) + 1, w - 1)
            upper = (1 - u + left) * float(m[top, left]) + (u - left) * float(m[top, right])
            lower = (1 - u + left) * float(m[below, left]) + (u - left) * float(m[below, right])
            out[y, x] = (1 - v + top) * upper + (v - top) * lower
    return out


@given(MAPS, st.integers(1, 17), st.integers(1, 17))
def test_upscale_equals_an_independent_computation(m: np.ndarray, width: int, height: int) -> None:
    np.testing.assert_allclose(
        upscale(m, width, height), half_pixel(m, width, height), rtol=0, atol=5e-7
    )


def test_upscale_is_the_half_pixel_mode_of_onnx_resize() -> None:
    node = helper.make_node(
        "Resize", ["x", "", "", "sizes"], ["y"], mode="linear",
        coordinate_transformation_mode="half_pixel",
    )  # fmt: skip
    data = make_model(
        [node],
        {"sizes": np.array([1, 1, 97, 150], np.int64)},
        inputs={"x": (F32, [1, 1, 12, 21])},
        outputs={"y": (F32, [1, 1, 97, 150])},
    )
    session = ort.InferenceSession(data, providers=["CPUExecutionProvider"])
    m = np.random.default_rng(0).random((12, 21), np.float32)
    expected = session.run(None, {"x": m[None, None]})[0][0, 0]
    np.testing.assert_allclose(upscale(m, 150, 97), expected, rtol=0, atol=2e-6)


def test_two_samples_doubled_are_known() -> None:
    np.testing.assert_allclose(
        upscale(np.array([[0, 1]], np.float32), 4, 1), [[0, 0.25, 0.75, 1]], rtol=0, atol=2e-7
    )


def test_a_mirrored_map_gives_the_mirrored_result() -> None:
    m = np.random.default_rng(1).random((9, 16), np.float32)
    np.testing.assert_allclose(
        upscale(np.ascontiguousarray(m[::-1, ::-1]), 101, 57),
        upscale(m, 101, 57)[::-1, ::-1],
        rtol=0,
        atol=1e-6,
    )
