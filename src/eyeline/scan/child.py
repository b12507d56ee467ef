"""Load a model for the first time, in a child process.

A static scan can't predict every bug of ONNX Runtime: some files crash it, hang it or fill its memory.
The child process has almost no environment variables, can't write files, has limits on memory and CPU
time, and is killed after a time limit. The child reads the model from stdin and writes one line of JSON
to stdout.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from eyeline.scan.records import FirstLoad, printable

TIME_LIMIT = 30.0
"""Seconds of wall time; the default model takes 0.3 s."""

MEMORY_LIMIT = 2 << 30
"""Bytes of address space, in addition to that of ONNX Runtime itself."""

_PACKAGES = Path(__file__).resolve().parents[2]
_PASSED_ON = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT", "LANG")
_THREADS = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "ORT_DISABLE_TELEMETRY": "1"}


def load_in_child(data: bytes, shape: tuple[int, ...], *, seconds: float = TIME_LIMIT) -> FirstLoad:
    """Load a model in a child process and run it once on noise of `shape` (1, 3, H, W).

    `seconds` limits the wall time and the CPU time of the child.
    """
    environment = {k: os.environ[k] for k in _PASSED_ON if k in os.environ} | _THREADS
    code = (
        f"import sys; sys.path.insert(0, {str(_PACKAGES)!r}); "
        "from eyeline.scan.child import main; main()"
    )
    arguments = [str(MEMORY_LIMIT), str(int(seconds) + 1), *map(str, shape)]
    began = time.monotonic()
    child = subprocess.Popen(  # noqa: S603 - runs this module
        [sys.executable, "-I", "-B", "-c", code, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        start_new_session=True,
        cwd=os.sep,
    )
    try:
        answer, errors = child.communicate(data, timeout=seconds)
    except subprocess.TimeoutExpired:
        spent = time.monotonic() - began
        return FirstLoad("timeout", f"killed after {seconds:g} s", spent, MEMORY_LIMIT)
    finally:
        if child.poll() is None:
            child.kill()
            child.communicate()
    spent = time.monotonic() - began
    if child.returncode < 0:
        name = signal.Signals(-child.returncode).name
        outcome = "timeout" if name == "SIGXCPU" else "crashed"
        return FirstLoad(outcome, f"killed by {name}", spent, MEMORY_LIMIT)
    try:
        result = json.loads(answer.decode())
        outcome, detail, limited = result["outcome"], str(result["detail"]), result["limited"]
    except (ValueError, KeyError, TypeError):
        last = errors.decode("utf-8", "replace").strip().rsplit("\n", 1)[-1]
        detail = f"exit code {child.returncode} without an answer: {printable(last, 160)}"
        return FirstLoad("crashed", detail, spent, MEMORY_LIMIT)
    return FirstLoad(outcome, printable(detail, 200), spent, MEMORY_LIMIT if limited else None)


def main() -> None:
    """Entry point of the child process: set the limits, then load and run the model."""
    memory, seconds, *shape = (int(a) for a in sys.argv[1:])
    import numpy as np

    from eyeline.errors import ModelError, first_line
    from eyeline.runtime import open_runtime_session, runtime_errors

    # This imports ONNX Runtime before the memory is limited.
    errors: tuple[type[Exception], ...] = (*runtime_errors(), MemoryError)
    data = sys.stdin.buffer.read()
    limited = _set_limits(memory, seconds)
    outcome, detail = "loaded", ""
    try:
        session = open_runtime_session(data, "model", "cpu")
        x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
        session.run(None, {session.get_inputs()[0].name: x})
    except ModelError as exc:
        outcome, detail = "refused", exc.message.removeprefix("model: ")
    except errors as exc:
        outcome, detail = "refused", first_line(exc)
    sys.stdout.write(json.dumps({"outcome": outcome, "detail": detail, "limited": limited}))
    sys.stdout.flush()
    os._exit(0)  # skips the shutdown of ONNX Runtime, in which a hostile model could run code


def _set_limits(memory: int, seconds: int) -> bool:
    """Set resource limits of this process; return whether its memory is limited."""
    try:
        import resource
    except ModuleNotFoundError:  # Windows: only the wall time is limited
        return False
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    statm = Path("/proc/self/statm")
    if not statm.exists():  # macOS does not enforce a limit on address space
        return False
    used = int(statm.read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + memory, used + memory))
    return True
