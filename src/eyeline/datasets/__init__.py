"""Datasets: images with masks (`pairs`, `union`), and images or videos with gaze (`fixations`).

`files` finds and reads their files in folders and archives, `importers` makes fixation sets from
their authors' layouts, `catalogue` says where sets come from. Nothing is imported here: the
catalogue needs no Pillow.
"""
