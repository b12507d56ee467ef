"""Run a model on one frame: prepare the input, run the model, and turn its output into a saliency map.

::

    session = Session(resolve_model("saliency_student_v4"), "cpu")
    x = prepare(rgb, session.model.io)              # uint8 (3, h, w) to float32 (1, 3, H, W)
    m = finish(session.run(x), h, w, session.model.io)     # float32 (h, w) in [0, 1]

`input_size` returns the size to which a frame must be scaled first; `upscale` resizes a map to the size of
the frame. The code is in `session`; `eyeline.runtime` creates the ONNX Runtime sessions.
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
