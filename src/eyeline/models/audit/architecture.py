"""The architecture axis: what the net takes and gives, and what its files do beside computing.

It judges what `source` read. What can't be told statically is said so, not guessed.
"""

from __future__ import annotations

import ast
import re

from eyeline.models.audit.findings import AxisReport, Finding, axis_report
from eyeline.models.audit.policy import Policy
from eyeline.models.audit.source import (
    Net,
    find_nets,
    last_name,
    module_classes,
    parse_source,
    read_net,
)
from eyeline.models.audit.tree import Tree

_DEPTH = re.compile(
    r"^(?:.*_)?(?:depths?|dep|dpt|disp(?:arity)?|hha|thermal|flow|nir|x_d|xd|d)(?:_.*)?$", re.I
)
_RISKY = {
    "eval": "evaluates text as code",
    "exec": "runs text as code",
    "__import__": "imports by a computed name",
    "system": "runs a shell command",
    "Popen": "starts a process",
    "check_output": "starts a process",
    "urlopen": "opens a network address",
    "urlretrieve": "downloads a file",
    "load_url": "downloads weights",
    "load_state_dict_from_url": "downloads weights",
}


def audit_architecture(
    tree: Tree, policy: Policy, net: str | None = None
) -> tuple[AxisReport, Net | None]:
    """Judge what the net takes and gives.

    Args:
        tree: the upstream.
        policy: which inputs are admitted.
        net: name of the class, when the likeliest is not the one meant.

    Returns:
        The report, and the net that was judged.
    """
    source = parse_source(tree)
    readmes = [p for p in tree.entries if "/" not in p and p.lower().startswith("readme")]
    nets = find_nets(source, tree.text(readmes[0]) or "" if readmes else "")
    if net is not None:
        nets = [n for n in nets if n.name == net] or [
            read_net(d, module_classes(source), source)
            for d in module_classes(source) if d.node.name == net
        ]  # fmt: skip
    findings = [
        Finding("review", "SYNTAX", f"does not parse: {why}", p) for p, why in source.broken.items()
    ]
    if not nets:
        text = f"no module class {net}" if net else "no class that looks like a net"
        mend = "name the class with --net" if not net else "check the name"
        findings.append(Finding("blocker", "NO-NET", text, unblock=mend))
        return axis_report("architecture", "no net found", findings, {"nets": []}), None
    chosen = nets[0]
    kind = _judge_inputs(chosen, policy, findings)
    _judge_outputs(chosen, findings)
    for path in chosen.closure:
        findings += _risks(path, source.modules[path])
    extra = sorted(set(chosen.imports) - {"torch"})
    if extra:
        findings.append(
            Finding(
                "note",
                "IMPORTS",
                f"the net's files import {', '.join(extra)} beside torch",
                chosen.path,
            )
        )
    facts: dict[str, object] = {
        "net": _net_json(chosen),
        "others": [f"{n.path}:{n.line} {n.name}.{n.signature}" for n in nets[1:9]],
    }
    return axis_report(
        "architecture", f"{kind}: {chosen.name}.{chosen.signature}", findings, facts
    ), chosen


def _net_json(net: Net) -> dict[str, object]:
    return {
        "class": net.name, "file": net.path, "line": net.line, "forward": net.signature,
        "inputs": list(net.inputs), "outputs": net.outputs, "sigmoid": net.sigmoid,
        "parts": list(net.parts), "files": list(net.closure), "imports": list(net.imports),
    }  # fmt: skip


def _judge_inputs(net: Net, policy: Policy, findings: list[Finding]) -> str:
    where = f"{net.path}:{net.line}"
    depth = [n for n in (*net.inputs[1:], *net.keys) if _DEPTH.match(n)]
    required = [n for n in net.inputs[1:] if n not in net.optional]
    severity = "review" if policy.inputs == "any" else "blocker"
    if depth:
        optional = " (optional: the net was trained with it)" if depth[0] in net.optional else ""
        findings.append(
            Finding("review" if severity == "review" else "blocker", "RGB-D",
                    f"{net.name}.{net.signature} takes {depth[0]!r}{optional}: the contract has RGB only",
                    where, "a net that takes RGB alone, or an RGB checkpoint of this one")
        )  # fmt: skip
        return "RGB-D"
    if required:
        findings.append(
            Finding("review", "INPUTS", f"{net.name}.{net.signature} needs {', '.join(required)} "
                    "too: a wrapper must fix them", where)
        )  # fmt: skip
    if net.keys:
        findings.append(
            Finding("review", "INPUTS", f"{net.name}.{net.signature} takes a mapping with "
                    f"{', '.join(net.keys)}: a wrapper must make it", where)
        )  # fmt: skip
    return "RGB"


def _judge_outputs(net: Net, findings: list[Finding]) -> None:
    where = f"{net.path}:{net.line}"
    if net.outputs is not None and net.outputs > 1:
        findings.append(
            Finding("note", "OUTPUTS", f"{net.outputs} outputs: an export keeps one of them", where)
        )
    if not net.sigmoid:
        findings.append(
            Finding("review", "LOGITS", "no sigmoid is seen where the outputs are made: the contract wants "
                    "[0, 1]", where)
        )  # fmt: skip


def _risks(path: str, module: ast.Module) -> list[Finding]:
    found: dict[str, int] = {}
    for node in ast.walk(module):
        if isinstance(node, ast.Call) and last_name(node.func) in _RISKY:
            name = last_name(node.func)
            # `model.eval()` sets a mode; `eval(text)` runs it.
            if name == "eval" and (isinstance(node.func, ast.Attribute) or not node.args):
                continue
            found.setdefault(name, node.lineno)
    return [
        Finding("review", "RISK", f"{name}() {_RISKY[name]}", f"{path}:{line}")
        for name, line in found.items()
    ]
