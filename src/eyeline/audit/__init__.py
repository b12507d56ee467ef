"""The upstream audit: it decides whether a published model may be released with this project.

The audit judges four axes: licence, distribution, architecture and ops. It reads files of one pinned
git commit, of a folder, or of a forge's repository, and never imports or runs them::

    from pathlib import Path

    from eyeline.audit import audit, load_policy, open_tree

    verdict = audit(open_tree(Path("U-2-Net")), load_policy())
    print(verdict.admissible, [f.code for f in verdict.blockers])

`verdict` is the place to start: it joins the axes and writes the report. `tree` reads the files;
`records` holds the policy (`policy.toml`) and the findings. `_licence`, with `licence_text` and
`licences.json`, judges the terms, `_distribution` the links to the weights, and `architecture` the
net's class and its ops; `words.toml` lists the words that these three look for.
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
