"""Steering: convert saliency maps to QP offsets per block, and encode videos with these offsets.

::

    from eyeline.roi.encode import EncodeOptions, encode

    encode("clip.mp4", "out.mp4", EncodeOptions("x265", bitrate=800_000))

| file | subject |
|---|---|
| `steering.py` | conversion of a map to QP offsets per block, in NumPy |
| `_footage.py` | the pictures of a source, each with its QP offsets |
| `maps.py` | files of QP offsets: write, read and check |
| `encode/` | encoding with QP offsets |
| `compare/` | gain and cost of steering on one clip |
"""
