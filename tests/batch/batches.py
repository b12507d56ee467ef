"""A folder of small clips, batches over it, and what they leave: shared by the tests of batches."""

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import av

from clips import moving, write_clip
from eyeline.batch.driver import run_batch
from eyeline.batch.local import LocalEngine
from eyeline.batch.manifest import read_titles
from eyeline.batch.store import VersionStatus, read_status, version_of
from eyeline.batch.task import BatchResult, Job, TaskLimits
from eyeline.batch.work import ExtractWork, ScoreWork, Work
from eyeline.errors import BatchError
from eyeline.quality.score import ScoreOptions

SEGMENT = 20  # frames: a clip of 60 has three


def make_clips(folder: Path, count: int = 4, frames: int = 60) -> Path:
    """Clips with a keyframe every ten frames and a cut in the middle."""
    folder.mkdir(parents=True, exist_ok=True)
    options = {"g": "10", "sc_threshold": "0", "preset": "ultrafast"}
    for i in range(count):
        shots = [*moving(frames // 2, seed=2 * i), *moving(frames - frames // 2, seed=2 * i + 1)]
        write_clip(folder / f"clip{i:03}.mp4", shots, codec_options=options)
    return folder


METRICS = ("psnr", "sw_vmaf")


def make_pairs(folder: Path, count: int = 3, frames: int = 60) -> Path:
    """A manifest of pairs of clips with a cut each: keyframes at other places, and open GOPs."""
    make_clips(folder / "ref", count, frames)
    rows = ["title,reference,distorted"]
    for ref in sorted((folder / "ref").iterdir()):
        with av.open(str(ref)) as container:
            pictures = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
        dist = folder / f"{ref.stem}.mkv"
        options = {"g": "13", "crf": "38", "x264-params": "open-gop=1:bframes=2:scenecut=0"}
        write_clip(dist, pictures, codec_options=options)
        rows.append(f"{ref.stem},{ref},{dist}")
    manifest = folder / "pairs.csv"
    manifest.write_text("\n".join(rows) + "\n")
    return manifest


OBJECTS = "saliency_student_v4"  # whose maps depend on single frames, so that pairs are split


def score_work(**options) -> ScoreWork:
    """What `eyeline batch score --metrics psnr,sw_vmaf --map objects` does to a title."""
    return ScoreWork(model=OBJECTS, score=ScoreOptions(**{"metrics": METRICS} | options))


def make_job(
    out: Path | str, work: Work | None = None, limits: TaskLimits | None = None, **more
) -> Job:
    """What `eyeline batch` would do."""
    work = work or ExtractWork()
    model = work.resolve()
    work = replace(work, model_sha256=model.sha256)
    version = version_of(work.command, model.id, work.facts())
    more = {"segment": SEGMENT} | more
    return Job(work, str(out), version, limits or TaskLimits(), **more)


def run(
    source: Path | str, out: Path | str, workers: int = 1, job: Job | None = None, **more
) -> BatchResult:
    """A batch on local processes."""
    job = job or make_job(out)
    titles = read_titles(str(source), pairs=job.work.pairs)
    with LocalEngine(job, workers) as engine:
        return run_batch(titles, job, engine, **more)


def dataset(out: Path) -> dict[str, bytes]:
    """Every file that a reader of the dataset sees, and its bytes."""
    return {
        str(f.relative_to(out)): f.read_bytes()
        for f in sorted(out.rglob("*"))
        if f.is_file() and not any(p.startswith(("_", ".")) for p in f.relative_to(out).parts)
    }


def command(*words: object) -> list[str]:
    """`eyeline ...` as a process."""
    return [sys.executable, "-m", "eyeline", *map(str, words)]


def call(*words: object, **more: object) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(command(*words), capture_output=True, text=True, check=False, **more)  # type: ignore[call-overload]


def parts(out: Path) -> Sequence[Path]:
    """The parts of a dataset, by title."""
    return sorted(out.glob("version=*/title=*/*"), key=lambda p: p.parent.name)


def nothing_is_left_over(out: Path) -> None:
    """Neither temporary files nor segments of titles that are done."""
    assert not [f for f in out.rglob(".*") if f.is_file()]
    assert not [f for f in (out / "_eyeline" / "work").rglob("*") if f.is_file()]


def status_of(out: Path) -> list[VersionStatus]:
    """The versions of a dataset; none where a batch died before its first write."""
    try:
        return read_status(str(out))
    except BatchError:
        return []
