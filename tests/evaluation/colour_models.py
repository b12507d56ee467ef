"""Models whose map is a mix of the colour planes of a picture."""

from pathlib import Path

from eyeline.registry.records import IoSpec
from eyeline.registry.registry import Model
from tiny_models import plane_model

RED, BLUE = (1.0, 0.0, 0.0), (0.0, 0.0, 1.0)


def as_model(folder: Path, name: str, mix: tuple[float, float, float], lines: int = 60) -> Model:
    """A model that answers .998 times the mix + .001, at so many lines."""
    path = folder / f"{name}.onnx"
    path.write_bytes(plane_model(mix, gain=0.998, offset=0.001))
    return Model(str(path), path, IoSpec(working_lines=lines, multiple=1))
