"""The first load of a model, in a child process that may die of it.

A static scan can't foresee every bug of a runtime: some files kill, hang or fill whoever loads them.
The child has no environment, limits on memory, time, processes' files and core dumps, and is killed
when it is late. Run as a module it is that child: the model on stdin, one line of JSON on stdout.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from eyeline.scan.records import FirstLoad, printable

TIME_LIMIT = 30.0
"""Seconds of wall time; the default model takes .3."""

MEMORY_LIMIT = 2 << 30
"""Bytes of address space on top of the runtime's own."""

_PACKAGES = Path(__file__).resolve().parents[2]
_PASSED_ON = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT", "LANG")
_THREADS = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "ORT_DISABLE_TELEMETRY": "1"}


def load_in_child(
    data: bytes,
    shape: tuple[int, ...],
    *,
    seconds: float = TIME_LIMIT,
    memory: int = MEMORY_LIMIT,
) -> FirstLoad:
    """Load a model once and run it once on noise, where it can do no harm.

    Args:
        data: an ONNX model.
        shape: of the input to run, (1, 3, H, W).
        seconds: wall time after which the child is killed; CPU time is limited to the same.
        memory: bytes of address space for the model.
    """
    environment = {k: os.environ[k] for k in _PASSED_ON if k in os.environ} | _THREADS
    code = (
        f"import sys; sys.path.insert(0, {str(_PACKAGES)!r}); "
        "from eyeline.scan.child import main; main()"
    )
    arguments = [str(memory), str(int(seconds) + 1), *map(str, shape)]
    began = time.monotonic()
    child = subprocess.Popen(  # noqa: S603 - this interpreter, on code of this module
        [sys.executable, "-I", "-B", "-c", code, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        start_new_session=True,
        cwd=os.sep,
    )
    try:
        answer, complaint = child.communicate(data, timeout=seconds)
    except subprocess.TimeoutExpired:
        return FirstLoad("timeout", f"killed after {seconds:g} s", time.monotonic() - began, memory)
    finally:
        if child.poll() is None:
            child.kill()
            child.communicate()
    spent = time.monotonic() - began
    if child.returncode < 0:
        name = signal.Signals(-child.returncode).name
        outcome = "timeout" if name == "SIGXCPU" else "crashed"
        return FirstLoad(outcome, f"killed by {name}", spent, memory)
    try:
        said = json.loads(answer.decode())
        outcome, detail, limited = said["outcome"], str(said["detail"]), bool(said["limited"])
    except (ValueError, KeyError, TypeError):
        last = complaint.decode("utf-8", "replace").strip().rsplit("\n", 1)[-1]
        detail = f"exit code {child.returncode} and no answer: {printable(last, 160)}"
        return FirstLoad("crashed", detail, spent, memory)
    return FirstLoad(outcome, printable(detail, 200), spent, memory if limited else None)


def _limit(memory: int, seconds: int) -> bool:
    """Set this process's limits; whether its memory could be limited."""
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


def main() -> None:
    """Be the child: limits first, then the model."""
    memory, seconds, *shape = (int(a) for a in sys.argv[1:])
    from eyeline.errors import ModelError, first_line
    from eyeline.runtime import runtime_errors

    errors: tuple[type[Exception], ...] = (
        *runtime_errors(),
        MemoryError,
    )  # imports the runtime, before its memory is limited
    data = sys.stdin.buffer.read()
    limited = _limit(memory, seconds)
    try:
        _run_once(data, shape)
        outcome, detail = "loaded", ""
    except ModelError as exc:
        outcome, detail = "refused", exc.message.removeprefix("model: ")
    except errors as exc:
        outcome, detail = "refused", first_line(exc)
    sys.stdout.write(json.dumps({"outcome": outcome, "detail": detail, "limited": limited}))
    sys.stdout.flush()
    os._exit(0)  # a hostile model gets no say in how the runtime is taken down


def _run_once(data: bytes, shape: list[int]) -> Any:
    import numpy as np

    from eyeline.runtime import open_runtime_session

    session = open_runtime_session(data, "model", "cpu")
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    return session.run(None, {session.get_inputs()[0].name: x})
