"""Put logs and clips on one HTML page that opens from disk, without a network.

::

    write_report(["clip.json"], "report.html", PageOptions(media=MediaOptions("clip.mp4")))

`_build` puts the page together from the HTML, CSS and JavaScript files in this folder. `_series` reads
the logs and computes charts, pooled numbers, intervals and worst frames. `_pictures` makes the pictures
of the clips.
"""

from eyeline.report._build import PageFacts, PageOptions, write_report
from eyeline.report._pictures import MediaOptions

__all__ = ["MediaOptions", "PageFacts", "PageOptions", "write_report"]
