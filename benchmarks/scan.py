"""Measure the cost of a scan and of a signature: `python benchmarks/scan.py [MODEL.onnx ...]`.

Times are CPU times of this process. Only the time of the child process that loads the model is wall
time.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from eyeline.registry.registry import BUILTIN
from eyeline.scan import scan

FRESH = (
    "import time; began = time.process_time(); import sys; from pathlib import Path\n"
    "from eyeline.scan import scan_file\n"
    "scan_file(Path(sys.argv[1]), load=False); print(time.process_time() - began)"
)


def least_ms(call: Callable[[], object], times: int = 7) -> float:
    """Return the smallest CPU time of a call, milliseconds."""
    best = float("inf")
    for _ in range(times):
        began = time.process_time()
        call()
        best = min(best, time.process_time() - began)
    return best * 1e3


def fresh_ms(path: Path) -> float:
    """Return the CPU milliseconds of imports, policy and scan in a new interpreter, without its start."""
    runs = [
        subprocess.run([sys.executable, "-c", FRESH, str(path)], capture_output=True, check=True)
        for _ in range(5)
    ]
    return min(float(r.stdout) for r in runs) * 1e3


def signature_ms() -> tuple[float, float]:
    """Return the milliseconds of signing and of verifying a built-in model."""
    from eyeline.registry.signing import make_key, sign_model, verify_file

    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        model = folder / "model.onnx"
        model.write_bytes((BUILTIN / "saliency_student_v3.onnx").read_bytes())
        make_key(folder / "k.pem", folder / "k.pub")
        sign = least_ms(lambda: sign_model(model, folder / "k.pem", model_id="m", release=1))
        return sign, least_ms(lambda: verify_file(model, folder / "k.pub"))


def main() -> None:
    paths = [Path(a) for a in sys.argv[1:]] or sorted(BUILTIN.glob("*.onnx"))
    print(f"{'model':28} {'bytes':>10} {'nodes':>6} {'scan ms':>8} {'fresh ms':>9} {'load s':>7}")
    for path in paths:
        data = path.read_bytes()
        report = scan(data)
        if not report.admitted:
            print(f"{path.name:28} refused: {report.findings[0]}")
            continue
        static = least_ms(lambda data=data: scan(data, load=False))  # type: ignore[misc]
        nodes, load = sum(report.ops.values()), report.load.seconds
        print(
            f"{path.name:28} {len(data):10,} {nodes:6} {static:8.1f} {fresh_ms(path):9.1f} {load:7.2f}"
        )
    sign, verify = signature_ms()
    print(f"key signature of saliency_student_v3: {sign:.1f} ms to sign, {verify:.1f} ms to verify")


if __name__ == "__main__":
    main()
