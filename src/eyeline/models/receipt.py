"""The licence receipt: what section 4 of the Apache License 2.0 asks of who passes a changed work on.

(a) a copy of the licence; (b) a notice that the files were changed; (c) the attributions that the source
carries; (d) the NOTICE file's text, where there is one.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from eyeline.models.mirror_recipe import MirrorRecipe

CANONICAL = Path(__file__).parent / "mirrors" / "Apache-2.0.txt"


def licence_text() -> str:
    """The Apache License 2.0 as the Apache Software Foundation publishes it."""
    return CANONICAL.read_text()


def receipt(
    recipe: MirrorRecipe,
    *,
    changes: Sequence[str],
    source: str,
    license_text: str | None = None,
    notices: Sequence[str] = (),
    notice: str | None = None,
) -> bytes:
    """The receipt of a mirrored model.

    Args:
        recipe: what was mirrored.
        changes: what was done to it, one sentence each.
        source: what it was made from: commit, or asset and digest.
        license_text: the upstream's LICENSE; the canonical text when None.
        notices: copyright lines of the upstream's LICENSE, as they stand.
        notice: text of its NOTICE file; None or empty when it has none.

    Returns:
        Text, UTF-8.
    """
    named = [n for n in notices if "[yyyy]" not in n]
    copyright_lines = (
        "\n".join(named)
        if named else "The upstream's LICENSE names no holder: its copyright line is the unfilled template."
    )  # fmt: skip
    parts = [
        f"{recipe.id}: licence receipt",
        f"Made from {recipe.net} of {recipe.upstream}\n{source}\n"
        f"Licence: {recipe.license}. {recipe.weights_evidence}",
        "Changes (section 4 b). The files were modified:\n" + "\n".join(f"- {c}" for c in changes),
        f"Attribution (section 4 c).\n{recipe.attribution}\n{copyright_lines}",
        "NOTICE (section 4 d).\n"
        + (notice.strip() if notice and notice.strip() else "The upstream has no NOTICE file."),
        "Copy of the licence (section 4 a).\n\n" + (license_text or licence_text()).strip("\n"),
    ]
    return ("\n\n".join(parts) + "\n").encode()
