"""Run a model on one frame: frame to input, input to output, output to map.

::

    session = Session(resolve_model("saliency_student_v4"), "cpu")
    x = prepare(rgb, session.model.io)              # uint8 (3, h, w) to float32 (1, 3, H, W)
    m = finish(session.run(x), h, w, session.model.io)     # float32 (h, w) in [0, 1]

`input_size` says which size a frame is scaled to first, and `upscale` brings a map back to the frame's
size. Open `session` to change any of this; `eyeline.runtime` creates the ONNX Runtime session below it.
"""

from eyeline.inference.session import (
    Session,
    finish,
    input_size,
    pad_to_multiple,
    prepare,
    upscale,
    working_size,
)

__all__ = [
    "Session",
    "finish",
    "input_size",
    "pad_to_multiple",
    "prepare",
    "upscale",
    "working_size",
]
