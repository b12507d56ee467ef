"""A mirror held against its source: the asset that it came from, or the torch net in its child."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from eyeline.errors import ModelError
from eyeline.models.parity import GATE, SIZES, ParityProof, natural_inputs, prove_parity
from eyeline.models.records import IoSpec
from eyeline.models.registry import Model
from eyeline.models.rewrite import load_model
from eyeline.saliency.runtime import first_line, open_runtime_session, runtime_errors
from eyeline.saliency.session import Session

Array = npt.NDArray[Any]
Function = Callable[[Array], Array]
OnStep = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""

INPUTS = 5
"""Random inputs a size; a natural-looking image comes on top."""


@dataclass(frozen=True)
class Parity:
    """How the mirror was held against its source.

    Attributes:
        source: what it was compared with.
        proofs: see `eyeline.models.parity.ParityProof`, by what was compared.
    """

    source: str
    proofs: dict[str, ParityProof]

    @property
    def passed(self) -> bool:
        """Whether every proof holds."""
        return all(p.passed for p in self.proofs.values())

    @property
    def by_float64(self) -> bool:
        """Whether a decision needed the float64 run."""
        return any(p.by_float64 for p in self.proofs.values())

    def to_json(self) -> dict[str, object]:
        """JSON values."""
        proofs = {name: proof.to_json() for name, proof in self.proofs.items()}
        return {"source": self.source, "passed": self.passed, "proofs": proofs}


def _counter(total: int, on_step: OnStep) -> Callable[[Function], Function]:
    """Wraps functions so that every call is told; a run that needs float64 goes past the total."""
    done = 0

    def wrap(function: Function) -> Function:
        def run(x: Array) -> Array:
            nonlocal done
            done += 1
            on_step("parity", done, max(done, total))
            return function(x)

        return run

    return wrap


def _remembered(function: Function) -> Function:
    """Answers kept by their input: the same inputs are compared several times."""
    known: dict[bytes, Array] = {}

    def run(x: Array) -> Array:
        key = hashlib.sha256(x.tobytes() + str(x.shape).encode()).digest()
        if key not in known:
            known[key] = function(x)
        return known[key]

    return run


def _session(data: bytes, name: str) -> Function:
    """The mirror as it will be run: by our session, held to the contract."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "model.onnx"
        place.write_bytes(data)
        session = Session(Model(name, place, IoSpec(multiple=1)), "cpu")
    return lambda x: session.run(x)[None, None]


def against_asset(source: bytes, head: int, made: bytes, name: str, on_step: OnStep) -> Parity:
    """Against the asset itself at its own size, and against its graph with the size freed."""
    candidate = _remembered(_session(made, name))
    original = load_model(source, name)
    dims = original.graph.input[0].type.tensor_type.shape.dim
    fixed = (dims[2].dim_value, dims[3].dim_value)
    proofs = {}
    cases = (INPUTS + 1) * (len(SIZES) + all(fixed))
    counted = _counter(cases, on_step)
    if all(fixed):
        exact = counted(_runner(source, head, name))
        proofs[f"the asset as it is, {fixed[1]}x{fixed[0]}"] = prove_parity(
            exact, candidate, sizes=(fixed,), inputs=INPUTS, images=natural_inputs((fixed,))
        )
    for i, letter in ((0, "N"), (2, "H"), (3, "W")):
        dims[i].dim_param = letter
    for tensor in original.graph.output:
        tensor.type.tensor_type.ClearField("shape")
    del original.graph.value_info[:]
    freed = counted(_runner(original.SerializeToString(), head, name))
    proofs["the asset with its size freed"] = prove_parity(
        freed, candidate, inputs=INPUTS, images=natural_inputs()
    )
    return _gate(Parity("the pinned ONNX asset on ONNX Runtime", proofs), name)


def _runner(data: bytes, head: int, name: str) -> Function:
    session = open_runtime_session(data, name, "cpu")
    output, given = session.get_outputs()[head].name, session.get_inputs()[0].name

    def run(x: Array) -> Array:
        try:
            y: Array = session.run([output], {given: x})[0]
        except runtime_errors() as exc:
            raise ModelError(
                f"{name}: the source fails: {first_line(exc)}", "is it the right file?"
            ) from exc
        return y

    return run


def against_torch(run: Function, made: bytes, name: str, on_step: OnStep) -> Parity:
    """Against torch in float32; where round-off exceeds the gate, both against torch in float64."""
    candidate = _remembered(_session(made, name))
    counted = _counter((INPUTS + 1) * len(SIZES), on_step)
    source = _remembered(counted(run))
    exact = _remembered(counted(lambda x: run(x.astype(np.float64))))
    proof = prove_parity(source, candidate, exact, inputs=INPUTS, images=natural_inputs())
    return _gate(Parity("the torch net", {"the checkout's net": proof}), name)


def _gate(parity: Parity, name: str) -> Parity:
    for what, proof in parity.proofs.items():
        if not proof.passed:
            worst = max(proof.reports.values(), key=lambda r: r.max_abs)
            raise ModelError(
                f"{name}: differs from {what} by {worst.max_abs:.2e} at {worst.worst}",
                f"the gate is {GATE:g}",
            )
    return parity
