"""Is a model file safe to load? Default deny, by data, before any ONNX parser sees the bytes.

::

    report = scan(data, name="theirs.onnx")
    for finding in report.findings:
        print(finding.op_type, finding.path, finding.reason)

In order: file kind and size (`files`), a bounded read of the bytes (`wire`, `schema`), every node of
every graph against the allowlist (`graph`, `attributes`, `tensors`; `policy.toml` is the list), every
tensor's size at the worst input (`shapes` and the rules), and last a first load in a child that may
be killed (`child`). To admit an op: its size rule, and a row with its reason.
"""

from __future__ import annotations

from eyeline.scan.policy import load_policy
from eyeline.scan.records import FirstLoad, ScanFinding, ScanPolicy, ScanReport, WorstCase
from eyeline.scan.scanner import admit, scan, scan_file

__all__ = [
    "FirstLoad",
    "ScanFinding",
    "ScanPolicy",
    "ScanReport",
    "WorstCase",
    "admit",
    "load_policy",
    "scan",
    "scan_file",
]
