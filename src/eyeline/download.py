"""Files from the network by pinned digest: resumed after a drop, checked before they appear.

The part that has arrived is kept beside the target as `NAME.part`, so that a second call goes on
where the first one stopped. A file appears under its own name only when its sha256 is the pinned
one.
"""

from __future__ import annotations

import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from eyeline.digest import file_sha256
from eyeline.errors import DownloadError
from eyeline.output import output_error

BLOCK = 1 << 20  # bytes between two notes of progress
TIMEOUT = 30.0  # seconds without a byte
RETRIES = 5
SCHEMES = ("http://", "https://")


@dataclass(frozen=True)
class Asset:
    """A file on the network whose bytes are known in advance.

    Attributes:
        url: http or https address.
        sha256: hex digest of the whole file.
        size: bytes.
    """

    url: str
    sha256: str
    size: int


def download(
    asset: Asset,
    target: Path,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    *,
    retries: int = RETRIES,
    pause: float = 1.0,
) -> Path:
    """Fetch an asset, or go on where an earlier call stopped.

    Args:
        asset: what to fetch.
        target: the file's name; one that is there already with the right digest is kept.
        on_progress: called with bytes done and in all.
        retries: further attempts after a drop that brought nothing new.
        pause: seconds before an attempt, doubled each time.

    Raises:
        DownloadError: the address can't be reached, keeps dropping, or serves other bytes than the
            pinned ones (nothing is left then).
        OutputError: the file can't be written; what arrived is kept.
    """
    if target.exists():
        if file_sha256(target) == asset.sha256:
            on_progress(asset.size, asset.size)
            return target
        raise DownloadError(f"{target}: is there, with other bytes", "move it away")
    part = target.with_name(target.name + ".part")
    attempt = 0
    while (before := _size(part)) < asset.size:
        try:
            _append(asset, part, on_progress)
        except (urllib.error.HTTPError, urllib.error.URLError) as exc:
            code = exc.code if isinstance(exc, urllib.error.HTTPError) else 500
            if code == 416 and before:  # the range is refused: from the start
                part.unlink()
                continue
            if code < 500:
                raise DownloadError(f"{asset.url}: {exc}", "check the address") from exc
            failure = str(exc.reason)
        except (http.client.HTTPException, TimeoutError, ConnectionError) as exc:
            failure = str(exc) or type(exc).__name__
        else:
            failure = "the connection ended early"
        if _size(part) > before:
            attempt = 0
        elif _size(part) < asset.size:
            attempt += 1
            if attempt > retries:
                raise DownloadError(
                    f"{asset.url}: stopped at byte {before:,} of {asset.size:,}: {failure}",
                    "run it again: it goes on from there",
                )
            time.sleep(pause * 2 ** (attempt - 1))
    if (found := file_sha256(part)) != asset.sha256:
        part.unlink()
        raise DownloadError(
            f"{asset.url}: sha256 is {found[:16]}..., not the pinned {asset.sha256[:16]}...",
            "the address serves another file today: nothing was kept",
        )
    part.replace(target)
    return target


def _append(asset: Asset, part: Path, on_progress: Callable[[int, int], None]) -> None:
    """One request for what is missing, written behind what is there."""
    if not asset.url.startswith(SCHEMES):
        raise DownloadError(f"{asset.url}: neither http nor https", "give such an address")
    have = _size(part)
    request = urllib.request.Request(asset.url, headers={"User-Agent": "eyeline"})  # noqa: S310
    if have:
        request.add_header("Range", f"bytes={have}-")
    with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:  # noqa: S310
        if have and not _continues(answer, have):
            have = 0  # a server without ranges sends the whole file again
        length = answer.headers.get("Content-Length")
        if length is not None and have + int(length) != asset.size:
            raise DownloadError(
                f"{asset.url}: has {have + int(length):,} bytes, not the pinned {asset.size:,}",
                "the address serves another file today",
            )
        try:
            with part.open("ab" if have else "wb") as f:
                while block := answer.read(min(BLOCK, asset.size - have)):
                    f.write(block)
                    have += len(block)
                    on_progress(have, asset.size)
        except http.client.HTTPException:
            raise
        except OSError as exc:
            if isinstance(exc, ConnectionError | TimeoutError):
                raise
            raise output_error(part, exc) from exc


def _continues(answer: http.client.HTTPResponse, have: int) -> bool:
    """Whether an answer goes on at byte `have`."""
    return answer.status == 206 and (answer.headers.get("Content-Range") or "").startswith(
        f"bytes {have}-"
    )


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
