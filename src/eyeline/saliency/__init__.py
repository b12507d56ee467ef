"""Saliency maps of a video, one per frame: they show where viewers look.

::

    from eyeline.saliency.pipeline import ExtractOptions, extract

    for frame in extract("clip.mp4", options=ExtractOptions(stride=2)):
        print(frame.index, frame.features["saliency_mean"], frame.map.shape)

`pipeline` decodes, infers and writes all outputs. `temporal` interpolates the maps of skipped frames
and smooths maps over time. `features` computes the numbers per map and plots them. `maps` reads and
writes map files. `overlay` draws the maps over the video.
"""
