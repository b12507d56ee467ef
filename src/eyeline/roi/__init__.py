"""Spend bits where viewers look: saliency maps to QP offsets per block, to encodes that follow them.

::

    from eyeline.roi.encode import EncodeOptions, encode

    encode("clip.mp4", "out.mp4", EncodeOptions("x265", bitrate=800_000))

| file | subject |
|---|---|
| `steering.py` | a map to QP offsets per block, pure NumPy: laws, block means, smoothing, levels |
| `_footage.py` | the pictures of a source, each with its levels |
| `maps.py` | files of QP offsets: written, read back and checked |
| `encode/` | encoders that follow the levels |
| `compare/` | whether steering pays on a clip |
"""
