"""Saliency maps of a video, frame by frame: where viewers look.

::

    from eyeline.saliency.pipeline import ExtractOptions, extract

    for frame in extract("clip.mp4", options=ExtractOptions(stride=2)):
        print(frame.index, frame.features["saliency_mean"], frame.map.shape)

`pipeline` decodes, infers and writes all outputs; `temporal` fills skipped frames and smooths maps
over time; `features` computes the numbers per map and plots them; `maps` reads and writes maps;
`overlay` draws them over the video.
"""
