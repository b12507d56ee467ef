"""How many cores there are to use: the one owner of that question."""

from __future__ import annotations

import os


def usable_cores() -> int:
    """Cores this process may run on; all of the machine's where the system can't say."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
