"""Logs and pictures to one page that opens from disk, without a network.

::

    write_report(["clip.json"], "report.html", PageOptions(video="clip.mp4"))

`build` puts the page together; `series` turns logs into what is charted, `intervals` says how far
a mean can be trusted, `worst` picks frames, `media` makes the pictures, and `page` fills the
template, whose HTML, CSS and JavaScript lie beside it.
"""

from eyeline.report.build import PageOptions, write_report

__all__ = ["PageOptions", "write_report"]
