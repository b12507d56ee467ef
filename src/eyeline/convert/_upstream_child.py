"""Run the Python module of another project with few permissions: `python -I -B _upstream_child.py FOLDER`.

`eyeline.convert.upstream` starts this script with an empty environment and resource limits; the script
imports nothing of eyeline. It reads `job.json`, `module.py` and `weights` in FOLDER, then one JSON
command per line from stdin, and answers each command with one JSON line. The command `export` writes
`net.onnx`; the command `run` reads the input `x.npy` and writes the output `y.npy`.
"""

from __future__ import annotations

import io
import json
import os
import sys
import warnings
from pathlib import Path
from typing import Any


def guard(folder: str) -> None:
    """Forbid sockets, new processes and files outside `folder`; inference needs none of them.

    An audit hook can't be removed (Python documentation, `sys.addaudithook`). The hook supplements the
    static check of imports; it is not a sandbox.
    """
    folders = {folder, sys.prefix, sys.base_prefix, "/proc", "/sys", *(p for p in sys.path if p)}
    readable = (*(f.rstrip("/") + "/" for f in folders), "/dev/null", "/dev/urandom")
    forbidden = (
        "socket.", "subprocess.", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork",
        "os.kill", "os.startfile", "os.putenv", "os.symlink", "os.link", "os.chmod", "os.chown",
        "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "os.utime", "shutil.",
        "pty.", "ftplib.", "smtplib.", "urllib.", "http.", "webbrowser.", "ctypes.dlopen",
        "code.__new__",
    )  # fmt: skip

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event.startswith(forbidden):
            raise PermissionError(f"the upstream code tried {event}, which is not allowed")
        if event == "open" and isinstance(args[0], str | bytes):
            path = os.fsdecode(args[0])
            whole = path if path.startswith("/") else f"{folder}/{path}"
            writes = bool((args[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
            inside = whole.startswith(f"{folder}/") or whole == "/dev/null"
            if ".." in whole or (not inside if writes else not whole.startswith(readable)):
                raise PermissionError(
                    f"the upstream code tried to open {path}, which is not allowed"
                )

    sys.addaudithook(hook)


def load_net(folder: Path, job: dict[str, Any]) -> Any:
    """Return the network of the job with its weights loaded, in evaluation mode."""
    import torch

    code = compile((folder / "module.py").read_bytes(), job["module"], "exec", dont_inherit=True)
    weights = io.BytesIO((folder / "weights").read_bytes())
    guard(str(folder))
    # weights_only: torch rejects a pickle that contains anything but tensors.
    state = torch.load(weights, map_location="cpu", weights_only=True)
    for key in ("state_dict", "model_state_dict", "model", "net"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(torch.is_tensor(v) for v in state.values()):
        raise TypeError("the checkpoint contains no state dict of tensors")
    torch.nn.modules.utils.consume_prefix_in_state_dict_if_present(state, "module.")
    scope: dict[str, Any] = {"__name__": "upstream"}
    exec(code, scope)  # noqa: S102  (verified source, under `guard` and limits)
    torch.manual_seed(0)
    net = scope[job["net"]](*job["arguments"])
    net.load_state_dict(state, strict=True)

    class Head(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: Any) -> Any:
            y = self.net(x)
            return y[job["head"]] if isinstance(y, tuple | list) else y

    return Head().eval()


def export(head: Any, folder: Path, opset: int) -> None:
    """Trace the network to `net.onnx` with dynamic axes; the parent process folds the batch norms later."""
    import torch

    axes = {0: "N", 2: "H", 3: "W"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the deprecated exporter needs no onnxscript
        torch.onnx.export(
            head,
            (torch.zeros(1, 3, 64, 96),),
            folder / "net.onnx",
            opset_version=opset,
            input_names=["input"],
            output_names=["saliency_map"],
            dynamic_axes={"input": axes, "saliency_map": axes},
            do_constant_folding=False,
            training=torch.onnx.TrainingMode.PRESERVE,
            dynamo=False,
        )


def serve(folder: Path, answers: Any) -> None:
    """Load the network of the job and answer commands until stdin ends."""
    import numpy as np
    import torch

    job = json.loads((folder / "job.json").read_text())
    torch.set_num_threads(job["threads"])
    head = load_net(folder, job)
    parameters = sum(p.numel() for p in head.parameters())
    versions = {"torch": torch.__version__.split("+")[0], "numpy": np.__version__}
    hello = {"ok": True, "parameters": parameters, "versions": versions}
    print(json.dumps(hello), file=answers, flush=True)
    double: Any = None
    for line in sys.stdin:
        command = json.loads(line)
        if command["do"] == "export":
            export(head, folder, command["opset"])
        else:
            x = torch.from_numpy(np.load(folder / "x.npy", allow_pickle=False))
            if x.dtype == torch.float64 and double is None:
                import copy

                double = copy.deepcopy(head).double()
            with torch.no_grad():
                y = (head if x.dtype == torch.float32 else double)(x)
            np.save(folder / "y.npy", y.numpy())
        print(json.dumps({"ok": True}), file=answers, flush=True)


def main() -> None:
    """Answer commands on stdout; redirect the printed text of the other project's code to stderr."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    try:
        serve(Path(sys.argv[1]), answers)
    except Exception as exc:
        text = " ".join(f"{type(exc).__name__}: {exc}".split())[:300]
        print(json.dumps({"ok": False, "error": text}), file=answers, flush=True)
        raise SystemExit(1) from exc


if __name__ == "__main__":
    main()
