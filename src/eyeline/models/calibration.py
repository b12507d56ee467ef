"""Which images of a dataset calibrate a quantised model, and which ones it is checked on.

The choice goes by content alone: names, order and container of a dataset change nothing, and a copy
of an image can't stand on both sides.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from eyeline.datasets.pairs import Pair, find_pairs, read_image
from eyeline.digest import sha256_hex
from eyeline.errors import DatasetError
from eyeline.evaluation.metrics import Map
from eyeline.evaluation.scoring import Size, image_input
from eyeline.models.registry import Model
from eyeline.saliency.contract import INPUT_NAME


@dataclass(frozen=True)
class Images:
    """Images chosen from a dataset.

    Attributes:
        data: name of the dataset's folder or archive.
        pairs: in the order of their choice.
    """

    data: str
    pairs: tuple[Pair, ...]

    @property
    def digest(self) -> str:
        """sha256 hex digest over the digests of the images, in their order."""
        return sha256_hex("\n".join(p.digest for p in self.pairs).encode())

    def to_json(self) -> dict[str, object]:
        """JSON values."""
        return {"data": self.data, "images": len(self.pairs), "sha256": self.digest}


def choose_images(root: Path, calibrate: int, check: int) -> tuple[Images, Images]:
    """Divide a dataset by content hash.

    The hash is hashed once more: `train` divides by the hash itself, and the first images by it
    would all be from the fold that selected the epoch.

    Args:
        root: folder, .tar or .zip, see `eyeline.datasets.pairs`.
        calibrate: images to calibrate with; fewer when the dataset has not that many besides.
        check: images to check with; at most half of the dataset.

    Returns:
        Images that calibrate, and others that check.

    Raises:
        DatasetError: see `find_pairs`; or fewer than two different images.
    """
    different = {pair.digest: pair for pair in find_pairs(root)}
    ordered = [different[d] for d in sorted(different, key=lambda d: sha256_hex(d.encode()))]
    if len(ordered) < 2:
        raise DatasetError(
            f"{root}: one image only", "one must calibrate and another one check: name more"
        )
    held_out = min(check, len(ordered) // 2)
    name = root.resolve().name if root.is_dir() else root.stem
    used = min(calibrate, len(ordered) - held_out)
    return Images(name, tuple(ordered[:used])), Images(name, tuple(ordered[-held_out:]))


def model_input(pair: Pair, model: Model, size: Size = None) -> tuple[Map, tuple[int, int]]:
    """An image as a model takes it, see `eyeline.evaluation.scoring.image_input`.

    Raises:
        DatasetError: an unreadable image.
    """
    return image_input(read_image(pair.image), model, size)


class Reader:
    """Images as ONNX Runtime's calibration asks for them: read one by one, so memory is bounded.

    Args:
        pairs: to read.
        model: whose inputs they become.
        on_image: called with the images read.
    """

    def __init__(
        self, pairs: Sequence[Pair], model: Model, on_image: Callable[[int], None]
    ) -> None:
        self._pairs, self._model, self._on_image = pairs, model, on_image
        self._next, self._end = 0, len(pairs)

    def __len__(self) -> int:
        return len(self._pairs)

    def set_range(self, start_index: int, end_index: int) -> None:
        """Serve these images next."""
        self._next, self._end = start_index, end_index

    def get_next(self) -> dict[str, Map] | None:
        """The next image by the input's name, None at the end of the range."""
        if self._next >= self._end:
            return None
        x, _ = model_input(self._pairs[self._next], self._model)
        self._next += 1
        self._on_image(self._next)
        return {INPUT_NAME: x}
