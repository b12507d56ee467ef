"""Datasets: images with masks, and images or videos with recorded gaze.

::

    from eyeline.datasets.fixations import load_fixation_set

    for stimulus in load_fixation_set(Path("osie")).stimuli:
        print(stimulus.name, len(stimulus.fixations))

| file | subject |
|---|---|
| `pairs.py` | image/mask pairs, and several sets without the pictures that they share |
| `fixations.py` | fixation sets, and the density of gaze |
| `importers.py` | fixation sets from their authors' layouts |
| `files.py` | files of a set, found and read in folders and archives |
| `catalogue.py`, `catalogue.toml` | sources of known sets |

This module imports nothing, because the catalogue does not need Pillow.
"""
