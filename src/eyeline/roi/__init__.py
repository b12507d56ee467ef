"""Spend bits where viewers look: maps to QP offsets, to regions that an encoder obeys.

`laws`, `grid`, `smooth` and `regions` are pure NumPy; `steer` chains them; `encode` feeds an
encoder; `mapfile` writes the files of encoders that read one. What each encoder does with regions
is data: `capabilities.toml`.
"""
