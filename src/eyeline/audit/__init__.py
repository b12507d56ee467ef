"""Audit a model of another project: decide whether it may be released with this project.

The other project is called the upstream. The audit has four checks: licence, distribution (where the
weights are published), architecture and ops. It reads the files of a git commit, of a folder, or of a
repository on GitHub or a similar server (a forge), and never imports or runs them.

::

    from pathlib import Path

    from eyeline.audit import audit, load_policy, open_tree

    verdict = audit(open_tree(Path("U-2-Net")), load_policy())
    print(verdict.admissible, [f.code for f in verdict.blockers])

Start with `verdict`, which runs the four checks and writes the report. `tree` reads the files;
`records` contains the policy (`policy.toml`) and the findings. `_licence`, with `licence_text` and
`licences.json`, checks the licence, `_distribution` checks the links to the weights, and `architecture`
checks the network class and its ops. `words.toml` lists the keywords that these checks search for.
"""

from __future__ import annotations

from eyeline.audit.records import AuditPolicy, load_policy
from eyeline.audit.tree import ForgeTree, is_url, open_tree
from eyeline.audit.verdict import Audit, AuditOptions, audit

__all__ = [
    "Audit",
    "AuditOptions",
    "AuditPolicy",
    "ForgeTree",
    "audit",
    "is_url",
    "load_policy",
    "open_tree",
]
