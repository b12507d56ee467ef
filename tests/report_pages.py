"""What the tests of the report share: a clip with known pictures, and a page that is watched."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

MakeLog = Callable[..., Path]

WIDTH, HEIGHT, FRAMES, STEP = 160, 96, 14, 8


def square(count: int = FRAMES) -> list[np.ndarray]:
    """A white square that moves right by `STEP` pixels a frame, over dark grey."""
    frames = []
    for i in range(count):
        rgb = np.full((HEIGHT, WIDTH, 3), 40, np.uint8)
        rgb[32:64, 8 + STEP * i : 40 + STEP * i] = 250
        frames.append(rgb)
    return frames


def noisy(frames: list[np.ndarray]) -> list[np.ndarray]:
    """The same with noise in its right half."""
    noise = np.random.default_rng(3).integers(-30, 30, (HEIGHT, WIDTH // 2, 3))
    out = [f.astype(np.int16) for f in frames]
    for f in out:
        f[:, WIDTH // 2 :] += noise
    return [np.clip(f, 0, 255).astype(np.uint8) for f in out]


class Opened:
    """A page in the browser, and what it said and asked for.

    Attributes:
        page: playwright's.
        complaints: errors and warnings of its console, uncaught ones included.
        requests: addresses it asked for, its own file and data inside it left out.
    """

    def __init__(self, page: Any, path: Path) -> None:
        self.page, self.complaints, self.requests = page, [], []
        own = path.resolve().as_uri()
        page.on(
            "console", lambda m: m.type in ("error", "warning") and self.complaints.append(m.text)
        )
        page.on("pageerror", lambda e: self.complaints.append(str(e)))
        page.on(
            "request",
            lambda r: (
                r.url != own and not r.url.startswith("data:") and self.requests.append(r.url)
            ),
        )
        page.goto(own)
        self.wait("app.ready && [...document.images].every((i) => i.complete)")

    def wait(self, condition: str) -> None:
        """Until an expression is true; playwright's own waiting needs what the page's policy forbids."""
        end = time.monotonic() + 20
        while not self.page.evaluate(condition):
            assert time.monotonic() < end, condition
            time.sleep(0.02)


Open = Callable[..., Opened]
