"""Batches that are killed for real, at random but seeded points, until they are done."""

import contextlib
import multiprocessing
import os
import random
import signal
import subprocess
import time
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path

import psutil
from batches import command, make_job, score_work
from inline import run_inline

from clips import moving, write_clip
from eyeline.batch.task import Job


def make_catalogue(folder: Path, count: int, shared: Path | None) -> Path:
    """Clips of one to four seconds, cut from the films at hand, or drawn where there are none."""
    import av

    folder.mkdir()
    films: list[list[object]] = []
    for name in ("bigbuckbunny.mp4", "bikes.mp4", "carphone_pristine.mp4") if shared else ():
        with av.open(str(shared / "video" / name)) as container:  # type: ignore[operator]
            frames = container.decode(video=0)
            films.append([f.reformat(160, 96, "rgb24").to_ndarray() for f in frames])
    films = films or [moving(200, (160, 96), seed=s) for s in range(3)]  # type: ignore[list-item]
    rng = random.Random(11)
    for i in range(count):
        film = films[i % len(films)]
        start = rng.randrange(len(film) - 30)
        shots = film[start : start + rng.choice((25, 50, 75, 100))]
        options = {"g": rng.choice(("8", "12", "250")), "preset": "ultrafast"}
        write_clip(folder / f"{i:03}.mp4", shots, codec_options=options)  # type: ignore[arg-type]
    return folder


def make_long_pair(folder: Path, shared: Path) -> Path:
    """A manifest of one pair of 400 frames, cut from a film and coded twice: 8 and 10 bits."""
    import av

    with av.open(str(shared / "video" / "bikes.mp4")) as container:
        frames = [f.reformat(240, 180, "rgb24").to_ndarray() for f in container.decode(video=0)]
    shots = (frames + frames[::-1])[:400]
    ref = write_clip(
        folder / "ref.mkv", shots, codec_options={"g": "25", "crf": "10"}, pix_fmt="yuv420p10le"
    )
    how = {"g": "48", "crf": "35", "x264-params": "open-gop=1:bframes=3"}
    dist = write_clip(folder / "dist.mp4", shots, codec_options=how)
    manifest = folder / "pair.csv"
    manifest.write_text(f"title,reference,distorted\nlong,{ref},{dist}\n")
    return manifest


def children_of(pid: int) -> list[psutil.Process]:
    """The processes below one, those of Ray's own machinery left out."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).children(recursive=True)
    return []


def is_worker(process: psutil.Process) -> bool:
    """Whether it is one of `LocalEngine`."""
    with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
        line = process.cmdline()
        return any("spawn_main" in word for word in line)
    return False


def start(*words: object, **more: object) -> subprocess.Popen[str]:
    """A batch in a process group of its own."""
    return subprocess.Popen(
        command("batch", *words), stderr=subprocess.PIPE, text=True, start_new_session=True, **more
    )  # type: ignore[call-overload, no-any-return]


def kill_machine(process: subprocess.Popen[str]) -> None:
    """Everything of a batch at once, as when the power goes."""
    below = children_of(process.pid)
    for victim in [process.pid, *(c.pid for c in below)]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL)
    process.communicate()
    psutil.wait_procs(below, timeout=60)


def kill_driver(process: subprocess.Popen[str]) -> None:
    """The driver alone; its workers must follow by themselves."""
    below = children_of(process.pid)
    process.kill()
    process.communicate()
    _, alive = psutil.wait_procs(below, timeout=60)
    assert not alive, "workers went on without their driver"


def kill_workers(
    process: subprocess.Popen[str], rng: random.Random, pause: float, most: int = 8
) -> int:
    """A random worker, every `pause` seconds or so; how many, when the batch has ended.

    At most `most`: where workers take longer to begin than they live, a batch would never end.
    """
    count = 0
    while process.poll() is None and count < most:
        time.sleep(rng.uniform(0.3 * pause, 1.7 * pause))
        victims = [c for c in children_of(process.pid) if is_worker(c)]
        if victims and process.poll() is None:
            with contextlib.suppress(psutil.NoSuchProcess):
                rng.choice(victims).kill()
                count += 1
    process.wait()
    return count


def _batch_until(
    at: int, when: str, source: Path, out: Path, job: Job, count: "Synchronized[int]"
) -> None:
    replace = Path.replace

    def renamed(self: Path, target: Path) -> Path:
        count.value += 1
        if count.value == at and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        done = replace(self, target)
        if count.value == at and when == "after":
            os.kill(os.getpid(), signal.SIGKILL)
        return done

    Path.replace = renamed  # type: ignore[assignment, method-assign]
    run_inline(source, out, job)


def die_at_write(
    source: Path, out: Path, at: int, when: str, command: str = "extract"
) -> tuple[int | None, int]:
    """A batch in one process that is killed at its `at`-th write: exit code, and number of writes.

    The process is forked, so it does not import anything again.
    """
    context = multiprocessing.get_context("fork")
    count = context.Value("i", 0)
    job = make_job(out, score_work() if command == "score" else None)
    process = context.Process(target=_batch_until, args=(at, when, source, out, job, count))
    process.start()
    process.join()
    return process.exitcode, count.value
