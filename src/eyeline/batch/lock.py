"""One batch at a time on an output folder: the second refuses.

Locally a kernel lock, which ends with its process, however that ends. On an object store, which has
none, a note that is renewed while the batch lives and counts for `STALE` seconds.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

from eyeline.batch.manifest import LocalPlace, Place
from eyeline.batch.store import STATE
from eyeline.errors import BatchError, OutputError
from eyeline.files import output_error
from eyeline.locks import file_lock

RENEW = 15.0
STALE = 60.0
"""Seconds: a note is renewed every `RENEW`, and means nothing when it is older than `STALE`."""

_PAUSE = 1.0  # seconds between writing a note and the look whether it is still there

_LOCK = f"{STATE}/lock"


def _who() -> dict[str, Any]:
    return {"pid": os.getpid(), "host": socket.gethostname()}


def _refusal(
    place: Place, holder: dict[str, Any], hint: str = "wait for it, or stop it"
) -> BatchError:
    who = f"process {holder.get('pid', '?')} on {holder.get('host', '?')}"
    return BatchError(f"{place.url}: another batch is at work there, {who}", hint)


@contextlib.contextmanager
def exclusive(place: Place, *, renew: float = RENEW, stale: float = STALE) -> Iterator[None]:
    """Hold an output folder.

    Args:
        place: the folder.
        renew: seconds between two renewals of a note.
        stale: seconds that a note counts; clocks of machines must agree to a part of that.

    Raises:
        BatchError: another batch holds it.
        OutputError: the folder can't be written to.
    """
    with _local_lock(place) if isinstance(place, LocalPlace) else _lease(place, renew, stale):
        yield


@contextlib.contextmanager
def _local_lock(place: LocalPlace) -> Iterator[None]:
    path = place.root / _LOCK
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise output_error(path, exc) from exc
    with file_lock(path, lambda note: _refusal(place, _parse(note)), note=json.dumps(_who())):
        yield


@contextlib.contextmanager
def _lease(place: Place, every: float, stale: float) -> Iterator[None]:
    mine = _who() | {"nonce": os.urandom(8).hex()}

    def renew() -> None:
        place.write(_LOCK, json.dumps(mine | {"time": time.time()}).encode())

    looked = time.monotonic()
    holder = _parse((place.read(_LOCK) or b"").decode())
    left = stale - (time.time() - float(holder.get("time", 0)))
    if left > 0:
        hint = f"wait for it, or stop it; if it was killed, try again in {left:.0f} s"
        raise _refusal(place, holder, hint)
    renew()
    # Of two that began at once the later writer wins, and the other sees it here. One that took so
    # long that the other may have looked before waits for the other's renewal instead.
    prompt = time.monotonic() - looked < 0.8 * _PAUSE
    time.sleep(_PAUSE if prompt else every + _PAUSE)
    if _parse((place.read(_LOCK) or b"").decode()).get("nonce") != mine["nonce"]:
        raise _refusal(place, _parse((place.read(_LOCK) or b"").decode()))
    ended = threading.Event()

    def keep() -> None:
        while not ended.wait(every):
            with contextlib.suppress(OutputError):  # the next renewal tries again
                renew()

    keeper = threading.Thread(target=keep, name="eyeline-lease", daemon=True)
    keeper.start()
    try:
        yield
    finally:
        ended.set()
        keeper.join()
        place.remove(_LOCK)


def _parse(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
