"""Make `src/eyeline/audit/licences.json` from folders of licence texts.

::

    python tools/licence_table.py FOLDER ... > src/eyeline/audit/licences.json

Each folder has the text of a licence in `ID.txt`, or in the field `licenseText` of `ID.json`. One
folder is the SPDX licence list. The others have the layouts in which choosealicense.com and
Creative Commons publish the same licences.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from eyeline.audit.licence_text import (
    normalised_words,
    sentence_digest,
    split_notices,
    split_sentences,
)
from eyeline.digests import sha256_hex

# Licences under which code and weights are published, by the codes of the reasons to block them.
PERMISSIVE = (
    "0BSD AFL-3.0 Apache-1.1 Apache-2.0 Artistic-2.0 BSD-1-Clause BSD-2-Clause BSD-2-Clause-Patent "
    "BSD-3-Clause BSD-3-Clause-Clear BSD-4-Clause BSL-1.0 CC-BY-3.0 CC-BY-4.0 CC0-1.0 ECL-2.0 HPND ISC "
    "MIT MIT-0 MulanPSL-2.0 NCSA PostgreSQL PSF-2.0 Python-2.0 Unlicense UPL-1.0 WTFPL X11 Zlib libpng-2.0"
)
IDS: dict[str, str] = {
    "": PERMISSIVE,
    "COPYLEFT": "AGPL-3.0-only CDDL-1.0 EPL-1.0 EPL-2.0 EUPL-1.2 GPL-2.0-only GPL-3.0-only LGPL-2.1-only "
    "LGPL-3.0-only MPL-1.1 MPL-2.0 OSL-3.0",
    "SA": "CC-BY-SA-3.0 CC-BY-SA-4.0",
    "ND": "CC-BY-ND-3.0 CC-BY-ND-4.0",
    "NC": "CC-BY-NC-2.0 CC-BY-NC-3.0 CC-BY-NC-4.0 PolyForm-Noncommercial-1.0.0",
    "NC SA": "CC-BY-NC-SA-2.0 CC-BY-NC-SA-3.0 CC-BY-NC-SA-4.0",
    "NC ND": "CC-BY-NC-ND-3.0 CC-BY-NC-ND-4.0",
}
WITH_SENTENCES = "Apache-2.0 BSD-2-Clause BSD-3-Clause ISC MIT Zlib BSL-1.0 CC-BY-4.0 CC0-1.0"


def build_table(folders: list[Path]) -> list[dict[str, object]]:
    """Return the rows of `licences.json`."""
    rows: list[dict[str, object]] = []
    for codes, ids in IDS.items():
        for spdx in ids.split():
            digests, name, sentences = set(), spdx, set()
            for text, title in canonical_texts(folders, spdx):
                lines, _ = split_notices(text)
                words = layouts(spdx, normalised_words(lines))
                digests |= {sha256_hex(w.encode()) for w in words}
                name = title or name
                if spdx in WITH_SENTENCES.split():
                    sentences |= {sentence_digest(s) for _, s in split_sentences(lines)}
            rows.append(
                {
                    "id": spdx,
                    "name": name,
                    "codes": codes.split(),
                    "digests": sorted(digests),
                    "sentences": sorted(sentences),
                }
            )
    return sorted(rows, key=lambda r: str(r["id"]))


def layouts(spdx: str, words: str) -> set[str]:
    """Return a text with and without the parts that its SPDX template marks as optional."""
    found = {words}
    end = "end of terms and conditions"
    if f" {end}" in words:
        found.add(words.partition(f" {end}")[0] + f" {end}")
    if spdx == "MIT":
        paragraph = "this permission notice including the next paragraph shall"
        found.add(words.replace("this permission notice shall", paragraph))
    return found


def canonical_texts(folders: list[Path], spdx: str) -> list[tuple[str, str]]:
    """Return the texts of an id, each with the name of the licence if the folder has it."""
    found = []
    for folder in folders:
        plain, structured = folder / f"{spdx}.txt", folder / f"{spdx}.json"
        if structured.is_file():
            fields = json.loads(structured.read_text())
            found.append((fields["licenseText"], fields["name"]))
        elif plain.is_file():
            found.append((plain.read_text(), ""))
    if not found:
        raise FileNotFoundError(f"no text of {spdx} in {', '.join(map(str, folders))}")
    return found


if __name__ == "__main__":
    rows = [json.dumps(r) for r in build_table([Path(a) for a in sys.argv[1:]])]
    sys.stdout.write("[\n" + ",\n".join(rows) + "\n]\n")
