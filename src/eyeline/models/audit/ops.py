"""The ops axis: what the net lowers to in ONNX, held against the scanner's allowlist.

With an ONNX file at hand the scanner answers. Without one, the torch calls in the net's source tell what to
expect: a forecast, marked as one.
"""

from __future__ import annotations

import ast
from pathlib import Path

from eyeline.models.audit.findings import AxisReport, Finding, axis_report
from eyeline.models.audit.source import Net, parse_source
from eyeline.models.audit.tree import Tree

# What torch's ONNX exporter makes of a call in evaluation mode at opset 17
# (torch.onnx documentation, "ONNX supported TorchScript operators").
LOWERS_TO: dict[str, tuple[str, ...]] = {
    "Conv2d": ("Conv",),
    "ConvTranspose2d": ("ConvTranspose",),
    "BatchNorm2d": (),  # folded into the convolution before it
    "SyncBatchNorm": (),
    "Dropout": (),
    "Dropout2d": (),
    "Identity": (),
    "Sequential": (),
    "ModuleList": (),
    "Parameter": (),
    "ReLU": ("Relu",),
    "ReLU6": ("Clip",),
    "LeakyReLU": ("LeakyRelu",),
    "PReLU": ("PRelu",),
    "GELU": ("Erf", "Mul", "Add", "Div"),
    "SiLU": ("Sigmoid", "Mul"),
    "Hardswish": ("HardSwish",),
    "Sigmoid": ("Sigmoid",),
    "Softmax": ("Softmax",),
    "Tanh": ("Tanh",),
    "MaxPool2d": ("MaxPool",),
    "AvgPool2d": ("AveragePool",),
    "AdaptiveAvgPool2d": ("GlobalAveragePool",),
    "AdaptiveMaxPool2d": ("GlobalMaxPool",),
    "Upsample": ("Resize",),
    "UpsamplingBilinear2d": ("Resize",),
    "PixelShuffle": ("DepthToSpace",),
    "Linear": ("Gemm",),
    "LayerNorm": ("LayerNormalization",),
    "GroupNorm": ("InstanceNormalization",),
    "InstanceNorm2d": ("InstanceNormalization",),
    "interpolate": ("Resize",),
    "upsample": ("Resize",),
    "relu": ("Relu",),
    "leaky_relu": ("LeakyRelu",),
    "sigmoid": ("Sigmoid",),
    "softmax": ("Softmax",),
    "tanh": ("Tanh",),
    "gelu": ("Erf",),
    "cat": ("Concat",),
    "stack": ("Concat", "Unsqueeze"),
    "matmul": ("MatMul",),
    "bmm": ("MatMul",),
    "einsum": ("Einsum",),
    "max_pool2d": ("MaxPool",),
    "avg_pool2d": ("AveragePool",),
    "adaptive_avg_pool2d": ("GlobalAveragePool",),
    "conv2d": ("Conv",),
    "deform_conv2d": ("DeformConv",),
    "grid_sample": ("GridSample",),
    "unfold": ("Im2Col",),
    "roll": ("Slice", "Concat"),
    "pad": ("Pad",),
    "scaled_dot_product_attention": ("MatMul", "Softmax"),
    "permute": ("Transpose",),
    "transpose": ("Transpose",),
    "unsqueeze": ("Unsqueeze",),
    "squeeze": ("Squeeze",),
    "flatten": ("Flatten",),
    "view": ("Reshape",),
    "reshape": ("Reshape",),
    "abs": ("Abs",),
    "exp": ("Exp",),
    "sqrt": ("Sqrt",),
    "pow": ("Pow",),
    "where": ("Where",),
    "clamp": ("Clip",),
    "topk": ("TopK",),
    "nonzero": ("NonZero",),
}


def forecast(tree: Tree, net: Net) -> dict[str, str]:
    """ONNX ops that the net's source leads to, each with a place that does: `path:line`."""
    found: dict[str, str] = {}
    for path, module in parse_source(tree).modules.items():
        if path not in net.closure:
            continue
        for node in ast.walk(module):
            # Also `net.add(nn.ReLU)` and `act_layer=nn.GELU`: a mention is enough for a forecast.
            name = ""
            if isinstance(node, ast.Attribute):
                name = node.attr
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                name = node.func.id
            for op in LOWERS_TO.get(name, ()):
                found.setdefault(op, f"{path}:{node.lineno}")  # type: ignore[attr-defined]
    return dict(sorted(found.items()))


def audit_ops(tree: Tree, net: Net | None, onnx: Path | None = None) -> AxisReport:
    """Judge the ops.

    Args:
        tree: the upstream.
        net: the class that was found.
        onnx: an ONNX file of the model, None when there is none yet.

    Raises:
        RegistryError: the ONNX file can't be read.
    """
    if onnx is not None:
        return _scanned(onnx)
    from eyeline.models.scan import load_policy

    allowed = load_policy().ops
    expected = forecast(tree, net) if net else {}
    findings = [
        Finding("review", "OP", f"the source leads to {op}, which the scanner does not admit", where)
        for op, where in expected.items() if op not in allowed
    ]  # fmt: skip
    findings.append(
        Finding("note", "FORECAST", "read from the source: the scanner judges the export")
    )
    missing = [op for op in expected if op not in allowed]
    if not expected:
        summary = "not examined: no ONNX at hand"
    else:
        summary = f"forecast {len(expected)} ops" + (
            f", not admitted: {', '.join(missing)}" if missing else ""
        )
        summary += " (Resize)" if "Resize" in expected and not missing else ""
    return axis_report("ops", summary, findings, {"forecast": expected, "scanned": None})


def _scanned(onnx: Path) -> AxisReport:
    from eyeline.models.scan import scan_file

    report = scan_file(onnx)
    findings = [
        Finding("blocker", f"SCAN-{f.code}", str(f), onnx.name, "an export without it")
        for f in report.findings
    ]
    summary = f"{len(report.ops)} ops, " + (
        "all admitted" if report.admitted else "refused by the scanner"
    )
    return axis_report("ops", summary, findings, {"forecast": {}, "scanned": report.to_json()})
