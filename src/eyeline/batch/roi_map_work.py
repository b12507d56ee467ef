"""`eyeline batch roi-map`: what a worker does to a title, in one piece."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from eyeline.batch.manifest import Title
from eyeline.batch.work import OnFrame, Product, Runner, Work, plain
from eyeline.roi.maps import MapFormat, write_map_file
from eyeline.roi.steering import SteerOptions
from eyeline.saliency.pipeline import MACHINE, ExtractOptions


@dataclass(frozen=True)
class RoiMapWork(Work):
    """`eyeline roi map` for every title.

    Attributes:
        kind: format of the map files.
        steer: see `eyeline.roi.steering.SteerOptions`.
        extract: how the model looks.
        block: side of a cell, pixels, where the format takes any.
    """

    kind: MapFormat = "json"
    steer: SteerOptions = field(default_factory=SteerOptions)
    extract: ExtractOptions = field(default_factory=ExtractOptions)
    block: int | None = None

    command = "roi-map"
    use = "roi"

    @property
    def file(self) -> str:
        """See `Work`."""
        suffix = {"kvazaar": "txt", "kvazaar-binary": "bin", "svtav1": "txt"}.get(
            self.kind, self.kind
        )
        return f"map.{suffix}"

    def options(self) -> dict[str, Any]:
        """See `Work`."""
        said = {"kind": self.kind, "block": self.block, "steer": asdict(self.steer)}
        return said | {"extract": plain(self.extract, *MACHINE)}

    def open(self, threads: int) -> Runner:
        """See `Work`."""
        return _RoiMapRunner(self, threads)


class _RoiMapRunner(Runner):
    def __init__(self, work: RoiMapWork, threads: int) -> None:
        self._work = work
        self._extract = replace(work.extract, workers=threads)
        self._video = replace(work.video, threads=threads)
        self._model = work.resolve()

    def whole(
        self, title: Title, paths: Sequence[str], said: dict[str, Any], on_frame: OnFrame
    ) -> Product:
        w = self._work
        with tempfile.TemporaryDirectory(prefix="eyeline-") as folder:
            out = Path(folder) / w.file
            result = write_map_file(
                paths[0],
                out,
                w.kind,
                w.steer,
                block=w.block,
                video=title.video_options(self._video),
                extract_options=self._extract,
                model=self._model,
                on_frame=lambda done: on_frame(),
            )
            return Product(out.read_bytes(), result.frames)
