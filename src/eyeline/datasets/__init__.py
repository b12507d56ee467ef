"""Datasets: images with masks, and images or videos with recorded gaze.

::

    from eyeline.datasets.fixations import load_fixation_set

    for stimulus in load_fixation_set(Path("osie")).stimuli:
        print(stimulus.name, len(stimulus.fixations))

| file | subject |
|---|---|
| `pairs.py` | image/mask pairs, and the union of several datasets without near-duplicate images |
| `fixations.py` | fixation sets, and the density of gaze |
| `importers.py` | conversion of published gaze recordings to fixation sets |
| `files.py` | search and reading of a dataset's files in folders and archives |
| `catalogue.py`, `catalogue.toml` | terms and download addresses of known datasets |

This module imports nothing, so that the catalogue can be read without Pillow.
"""
