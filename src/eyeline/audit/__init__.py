"""May we ship this model? Licence, distribution, architecture and ops of an upstream, read as data.

Nothing of an upstream is imported, run or trusted: files are read from one pinned git tree or a folder
(`tree`), or through a forge's REST API (`forge`), and four rooms judge them: `licence`,
`distribution`, `architecture` and `ops`. `policy` says what is admitted, `verdict` puts the four
together, `report` renders.

::

    from eyeline.audit.policy import load_policy
    from eyeline.audit.tree import open_tree
    from eyeline.audit.verdict import audit

    verdict = audit(open_tree(Path("U-2-Net")), load_policy())
    print(verdict.admissible, [f.code for f in verdict.blockers])
"""
