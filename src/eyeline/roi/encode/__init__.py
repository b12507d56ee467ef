"""Encode a video so that its bits follow saliency.

::

    from eyeline.roi.encode import EncodeOptions, encode

    result = encode("clip.mp4", "out.mp4", EncodeOptions("x264", crf=26))
    print(result.video_bytes)

`SteerOptions(strength=0)` runs the same pipeline without regions, for a comparison. An option that
makes an encoder ignore regions is an error, and a probe encodes three small pictures first to see
that the regions change the result.

| file | subject |
|---|---|
| `capabilities.toml` | what each encoder does with regions; `_encoder.py` reads it |
| `_job.py` | the options of an encode, and what every way to an encoder needs |
| `_regions.py` | levels per block to rectangles, and rectangles onto a frame |
| `_encoder.py` | one open encoder and its file, through PyAV |
| `_kvazaar.py` | kvazaar, through FFmpeg's binary and a map file |
| `_encode.py` | the whole encode |
| `_debug_video.py` | a video of the offsets and of the QPs that the decoder saw |
"""

from eyeline.roi.encode._encode import EncodeResult, encode
from eyeline.roi.encode._job import EncodeOptions
from eyeline.roi.steering import SteerOptions

__all__ = ["EncodeOptions", "EncodeResult", "SteerOptions", "encode"]
