"""Compare the scanner with ONNX's checker and ONNX Runtime, on the hostile files of the tests.

`python benchmarks/scanners.py` takes two minutes, because a child process of its own checks and
loads each file.
"""

from __future__ import annotations

import resource
import subprocess
import sys
from collections import Counter
from pathlib import Path

from eyeline.scan import scan
from eyeline.scan.child import load_in_child

CHECK = (
    "import sys, onnx; model = onnx.load_from_string(sys.stdin.buffer.read()); "
    "onnx.checker.check_model(model, full_check=True)"
)
SECONDS = 10.0


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))


def check(data: bytes) -> str:
    """Return the result of ONNX's full checker, in a child process limited to 4 GiB and 10 s."""
    try:
        run = subprocess.run(
            [sys.executable, "-c", CHECK],
            input=data,
            capture_output=True,
            check=False,
            timeout=SECONDS,
            preexec_fn=_limit,
        )
    except subprocess.TimeoutExpired:
        return "timeout"
    if run.returncode == 0:
        return "passes"
    return "crashed" if run.returncode < 0 else "refused"


def main() -> None:
    tests = Path(__file__).parents[1] / "tests"
    sys.path.insert(0, str(tests))
    import hostile

    checker: Counter[str] = Counter()
    runtime: Counter[str] = Counter()
    ours: Counter[str] = Counter()
    both = 0
    for name, (_, make) in hostile.CORPUS.items():
        data = make()
        said = check(data)
        loaded = load_in_child(data, (1, 3, 64, 96), seconds=SECONDS).outcome
        checker[said] += 1
        runtime[loaded] += 1
        both += (said, loaded) == ("passes", "loaded")
        ours["admitted" if scan(data).admitted else "refused"] += 1
        print(f"{name:44} checker {said:8} runtime {loaded}")
    print(
        f"{len(hostile.CORPUS)} files; full checker: {dict(checker)}; ONNX Runtime: {dict(runtime)}"
    )
    print(f"both pass: {both}; eyeline: {dict(ours)}")


if __name__ == "__main__":
    main()
