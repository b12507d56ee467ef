"""Encode a video with QP offsets by saliency, so that salient regions get more bits.

::

    from eyeline.roi.encode import EncodeOptions, encode

    result = encode("clip.mp4", "out.mp4", EncodeOptions("x264", crf=26))
    print(result.video_bytes)

A region is a rectangle with one QP offset. `SteerOptions(strength=0)` encodes with the same pipeline, but
without regions. An option that makes an encoder ignore regions is an error. Before each encode, a probe
encodes three small pictures to check that regions change the output.

| file | subject |
|---|---|
| `capabilities.toml` | what each encoder does with regions; `_encoder.py` reads it |
| `_job.py` | the options and the state of an encode |
| `_regions.py` | conversion of QP offsets per block to regions, and regions as side data of a frame |
| `_encoder.py` | an encoder in PyAV and its output file |
| `_kvazaar.py` | kvazaar in the `ffmpeg` program, with a map file |
| `_encode.py` | the complete encode |
| `_debug_video.py` | a video of the offsets and of the QPs that the decoder reports |
"""

from eyeline.roi.encode._encode import EncodeResult, encode
from eyeline.roi.encode._job import EncodeOptions
from eyeline.roi.steering import SteerOptions

__all__ = ["EncodeOptions", "EncodeResult", "SteerOptions", "encode"]
