"""The model scanner: it decides whether an ONNX file is safe to load.

The scanner refuses everything that its policy does not list, and it decides before any ONNX parser
sees the bytes::

    from eyeline.scan import scan

    report = scan(data, name="theirs.onnx")
    for finding in report.findings:
        print(finding.op_type, finding.path, finding.reason)

`scanner` is the place to start: it runs every step and walks over all graphs. `policy.toml` lists
what a model may contain; `records` holds its reader and the report. `_wire` reads the bytes,
`_constants` checks constants and attributes, `_sizes` and `_layer_rules` compute the size of every
tensor, and `child` loads the model once in a child process.
"""

from __future__ import annotations

from eyeline.scan.records import ScanReport
from eyeline.scan.scanner import admit, load_policy, scan, scan_file

__all__ = ["ScanReport", "admit", "load_policy", "scan", "scan_file"]
