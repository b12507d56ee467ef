"""ONNX Runtime sessions: from bytes, on one thread, and one clear error for what is no model."""

from pathlib import Path

import numpy as np
import pytest

from eyeline.errors import ModelError, UsageError
from eyeline.registry.registry import Registry
from eyeline.runtime import INPUT_NAME, OUTPUT_NAME, import_runtime, open_runtime_session


def test_a_model_runs_by_the_names_of_the_contract() -> None:
    session = open_runtime_session(Registry().get("placeholder").data, "placeholder", "cpu")
    x = np.zeros((1, 3, 4, 6), np.float32)
    (y,) = session.run([OUTPUT_NAME], {INPUT_NAME: x})
    assert y.shape == (1, 1, 4, 6)
    assert session.get_session_options().intra_op_num_threads == 1


@pytest.mark.parametrize("data", [b"", b"no model", b"....ORTM...."])
def test_bytes_that_are_no_model(data: bytes) -> None:
    with pytest.raises(ModelError, match="theirs"):
        open_runtime_session(data, "theirs", "cpu")


def test_cuda_is_refused_where_it_is_missing() -> None:
    if "CUDAExecutionProvider" in import_runtime().get_available_providers():
        pytest.skip("this ONNX Runtime has CUDA")
    with pytest.raises(UsageError, match="CUDA"):
        open_runtime_session(Registry().get("placeholder").data, "placeholder", "cuda")


def test_tensors_in_other_files_are_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnx

    model = onnx.load_from_string(Registry().get("placeholder").data)
    tensor = model.graph.initializer[0]
    tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor), tensor.name))
    (tmp_path / "weights").write_bytes(tensor.raw_data)
    onnx.external_data_helper.set_external_data(tensor, "weights")
    tensor.ClearField("raw_data")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match="theirs"):
        open_runtime_session(model.SerializeToString(), "theirs", "cpu")
