"""The model scanner: it decides whether an ONNX file is safe to load.

The scanner rejects every model that contains anything outside its policy. The scanner decides
before an ONNX parser reads the file.

::

    from eyeline.scan import scan

    report = scan(data, name="theirs.onnx")
    for finding in report.findings:
        print(finding.op_type, finding.path, finding.reason)

Start with `scanner`, which runs all steps and visits all graphs. `policy.toml` lists what a model
may contain; `records` contains the policy reader and the report. `_wire` parses the file, `_constants`
checks constants and attributes, `_sizes` and `_layer_rules` compute the size of every tensor, and
`child` loads the model once in a child process.
"""

from __future__ import annotations

from eyeline.scan.records import ScanReport
from eyeline.scan.scanner import admit, load_policy, scan, scan_file

__all__ = ["ScanReport", "admit", "load_policy", "scan", "scan_file"]
