"""Soft maps of a teacher for every training image, made once and kept: the targets of distillation.

One map an image is enough for every augmented crop: the map is warped along with the image.
The teacher is an ONNX file with one image input and its map as first output, such as u2netp; it
is run by U-2-Net's own preprocessing (Qin et al., 2020): squashed, divided by the image's maximum,
ImageNet-normalised.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from eyeline.datasets.pairs import Pair, read_image
from eyeline.digest import sha256_hex
from eyeline.errors import ModelError
from eyeline.models.files import read_regular_file
from eyeline.models.records import IoSpec
from eyeline.saliency.preprocess import prepare
from eyeline.saliency.runtime import open_runtime_session, runtime_errors

Map = npt.NDArray[np.float32]

SIZE = 320  # U-2-Net's input side, pixels
STORED = 160  # side of the kept maps: half, finer than any student's output
CHUNK = 64  # images between two notes of progress

_IO = IoSpec(scale="max", multiple=1)


def soft_maps(
    pairs: list[Pair],
    teacher: Path,
    cache: Path,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> npt.NDArray[np.uint8]:
    """Run the teacher over a dataset, or map what an earlier call left in `cache`.

    An interrupted call goes on where it stopped.

    Args:
        pairs: images, in order.
        teacher: ONNX file.
        cache: folder for the maps, named by the digests of teacher and data.
        on_progress: called with images done and in all.

    Returns:
        uint8 (N, 160, 160), memory-mapped: the teacher's probability times 255.

    Raises:
        ModelError: a teacher that ONNX Runtime can't run on such images.
        DatasetError: an unreadable image.
    """
    data = read_regular_file(teacher)
    key = sha256_hex("\n".join([sha256_hex(data), *(p.digest for p in pairs)]).encode())[:16]
    folder = cache / f"teacher-{key}"
    folder.mkdir(parents=True, exist_ok=True)
    path, note = folder / "maps.npy", folder / "done.json"
    done = int(json.loads(note.read_text())) if note.exists() else 0
    maps: np.memmap[tuple[int, ...], np.dtype[np.uint8]] = np.lib.format.open_memmap(  # type: ignore[no-untyped-call]
        path,
        mode="r+" if done else "w+",
        dtype=np.uint8,
        shape=(len(pairs), STORED, STORED),
    )
    infer = _session(data, teacher)

    def fill(i: int) -> None:
        image = read_image(pairs[i].image).resize((SIZE, SIZE), Image.Resampling.BILINEAR)
        planes = np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))
        y = infer(prepare(planes, _IO))
        halved = y.reshape(STORED, SIZE // STORED, STORED, SIZE // STORED).mean((1, 3))
        maps[i] = np.round(halved * 255).astype(np.uint8)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(done, len(pairs), CHUNK):
            stop = min(start + CHUNK, len(pairs))
            list(pool.map(fill, range(start, stop)))
            maps.flush()
            note.write_text(json.dumps(stop))
            on_progress(stop, len(pairs))
    return np.load(path, mmap_mode="r")  # type: ignore[no-any-return]


def _session(data: bytes, teacher: Path) -> Callable[[Map], Map]:
    """The teacher as a function of (1, 3, 320, 320) to (320, 320)."""
    session = open_runtime_session(data, str(teacher), "cpu")
    failures = runtime_errors()
    source, answer = session.get_inputs()[0].name, session.get_outputs()[0].name

    def infer(x: Map) -> Map:
        try:
            y: Map = session.run([answer], {source: x})[0]
        except failures as exc:
            raise ModelError(f"{teacher}: fails on a {SIZE}x{SIZE} image", "not a teacher") from exc
        if y.shape != (1, 1, SIZE, SIZE) or not (y.min() >= 0 and y.max() <= 1):
            raise ModelError(f"{teacher}: its first output is no map in [0, 1]", "not a teacher")
        map_: Map = y[0, 0]
        return map_

    return infer
