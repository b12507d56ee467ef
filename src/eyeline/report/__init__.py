"""Put logs and clips on one HTML page that opens from disk, without a network.

::

    write_report(["clip.json"], "report.html", PageOptions(media=MediaOptions("clip.mp4")))

`build` puts the page together; its HTML, CSS and JavaScript lie beside it. `series` reads the logs
and computes charts, pooled numbers, intervals and worst frames. `pictures` makes the pictures of the
clips.
"""

from eyeline.report.build import PageOptions, write_report

__all__ = ["PageOptions", "write_report"]
