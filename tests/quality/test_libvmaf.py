"""Our numbers against the real libvmaf of the extra `vmaf`, and plain VMAF from it."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from eyeline.errors import EncoderError, QualityError
from eyeline.logs import read_log
from eyeline.logs.base import Log
from eyeline.media.colour import PlaneLayout, Planes
from eyeline.media.types import VideoOptions
from eyeline.quality.libvmaf import LibvmafRun, find_ffmpeg
from eyeline.quality.score import ScoreOptions, score
from quality.pair_clips import noisy, textured, write_ffv1

pytest.importorskip("imageio_ffmpeg")

PSNR_BOUND = 1e-5  # dB; libvmaf prints six decimals
SSIM_BOUND = 1.5e-4  # libvmaf rounds the window to six decimals, so its weights sum to 1.000002


def libvmaf(ref: Path, dist: Path, folder: Path, *layout: str, form: str = "json") -> Path:
    """The log of an FFmpeg run as people make it."""
    graph = (
        "[0:v]setpts=N[d];[1:v]setpts=N[r];[d][r]libvmaf=feature=name=psnr|name=float_ssim|"
        f"name=float_ms_ssim:log_fmt={form}:log_path=log.{form}"
    )
    inputs = [w for path in (dist, ref) for w in (*layout, "-i", str(path))]
    command = [find_ffmpeg(), "-v", "error", *inputs, "-lavfi", graph, "-f", "null", "-"]
    subprocess.run(command, cwd=folder, check=True)
    return folder / f"log.{form}"


def check(
    theirs: Log, ours: Log, exact: tuple[str, ...] = ("psnr_y", "psnr_cb", "psnr_cr")
) -> None:
    for name in exact:
        assert list(ours.values[name]) == pytest.approx(list(theirs.values[name]), abs=PSNR_BOUND)
    for name in ("float_ssim", "float_ms_ssim"):
        assert list(ours.values[name]) == pytest.approx(list(theirs.values[name]), abs=SSIM_BOUND)
    assert list(ours.values["vmaf"]) == list(theirs.values["vmaf"])


PLAIN = ScoreOptions(metrics=("psnr", "ssim", "ms_ssim", "vmaf"), weight=0)


@pytest.mark.parametrize(
    ("size", "pix_fmt"),
    [
        ((320, 192), "yuv420p"),
        ((389, 390), "yuv420p"),
        ((321, 193), "yuv444p"),
        ((320, 192), "yuv420p10le"),
    ],
)
def test_plain_features_are_libvmafs(tmp_path: Path, size, pix_fmt: str) -> None:
    deep = "10" in pix_fmt
    frames = textured(3, size, top=940 if deep else 235)
    if "444" in pix_fmt:
        frames = [[f[0], f[0][::-1], f[0][:, ::-1]] for f in frames]
    ref = write_ffv1(tmp_path / "r.mkv", frames, pix_fmt)
    dist = write_ffv1(tmp_path / "d.mkv", noisy(frames, 40 if deep else 12), pix_fmt)
    # libvmaf leaves out the last column and row of chroma where luma's side is odd; we count them.
    exact = ("psnr_y",) if "420" in pix_fmt and size[0] % 2 else ("psnr_y", "psnr_cb", "psnr_cr")
    check(read_log(libvmaf(ref, dist, tmp_path)), score(ref, dist, options=PLAIN).log, exact)


def test_plain_features_are_libvmafs_on_netflix_10_bit_pair(
    shared_data: Path, tmp_path: Path
) -> None:
    ref, dist = (shared_data / "video" / f"src01_hrc0{i}_576x324.yuv420p10le.yuv" for i in (0, 1))
    layout = ("-f", "rawvideo", "-pix_fmt", "yuv420p10le", "-s", "576x324")
    raw = VideoOptions(width=576, height=324, pix_fmt="yuv420p10le")
    log = score(ref, dist, options=PLAIN, ref_options=raw, dist_options=raw).log
    check(read_log(libvmaf(ref, dist, tmp_path, *layout)), log)


def test_plain_features_are_libvmafs_on_carphone(shared_data: Path, tmp_path: Path) -> None:
    ref, dist = (shared_data / "video" / f"carphone_{k}.mp4" for k in ("pristine", "distorted"))
    options = ScoreOptions(metrics=("psnr", "ssim", "vmaf"), weight=0)
    ours = score(ref, dist, options=options).log
    graph = "[0:v]setpts=N[d];[1:v]setpts=N[r];[d][r]libvmaf=feature=name=psnr|name=float_ssim"
    graph += ":log_fmt=json:log_path=log.json"
    command = [
        find_ffmpeg(),
        "-v",
        "error",
        "-i",
        dist,
        "-i",
        ref,
        "-lavfi",
        graph,
        "-f",
        "null",
        "-",
    ]
    subprocess.run(command, cwd=tmp_path, check=True)
    theirs = read_log(tmp_path / "log.json")
    for name, bound in (("psnr_y", PSNR_BOUND), ("float_ssim", SSIM_BOUND), ("vmaf", 0)):
        worst = np.abs(np.array(ours.values[name]) - np.array(theirs.values[name])).max()
        assert worst <= bound, name


@pytest.mark.parametrize("form", ["xml", "json", "csv"])
def test_columns_are_merged_into_libvmafs_own_log(tmp_path: Path, form: str) -> None:
    from eyeline.quality.save import save_scores

    frames = textured(3, (192, 180))
    ref, dist = (
        write_ffv1(tmp_path / "r.mkv", frames),
        write_ffv1(tmp_path / "d.mkv", noisy(frames)),
    )
    theirs = libvmaf(ref, dist, tmp_path, form=form)
    log = score(ref, dist, options=ScoreOptions(metrics=("psnr", "ssim"))).log
    sw = list(log.values["sw_ssim"])
    kept = save_scores(log, (str(tmp_path / f"both.{form}"),), str(theirs))
    assert {"psnr_y", "float_ssim"} <= set(kept)
    both, before = read_log(tmp_path / f"both.{form}"), read_log(theirs)
    assert list(both.values["sw_ssim"]) == sw
    for name, values in before.values.items():
        assert list(both.values[name]) == list(values)


def test_grey_goes_through(tmp_path: Path) -> None:
    frames = [[f[0]] for f in textured(2, (192, 180))]
    ref = write_ffv1(tmp_path / "r.mkv", frames, "gray")
    log = score(ref, ref, options=ScoreOptions(metrics=("psnr", "vmaf"), weight=0)).log
    assert log.columns == ["psnr_y", "sw_psnr_y", "vmaf"]
    assert log.values["vmaf"][1] > 95


def test_a_picture_that_libvmaf_refuses_is_its_own_words() -> None:
    run = LibvmafRun(8, 8, PlaneLayout("420", 8))
    flat = Planes(tuple(np.zeros(s, np.uint8) for s in ((8, 8), (4, 4), (4, 4))), 8)
    with pytest.raises(EncoderError, match="libvmaf failed"):
        for _ in range(3):
            run.write(flat, flat)
        run.finish()
    run.discard()


def test_a_depth_that_libvmaf_lacks_is_refused() -> None:
    with pytest.raises(QualityError, match="9 bits"):
        LibvmafRun(64, 64, PlaneLayout("420", 9))


def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    run = LibvmafRun(64, 64, PlaneLayout("420", 8))
    assert list(tmp_path.iterdir())
    run.discard()
    run.discard()
    assert not list(tmp_path.iterdir())
    assert run._process.poll() is not None


def test_json_of_a_score_has_libvmafs_layout(tmp_path: Path) -> None:
    from eyeline.logs import write_log

    frames = textured(2, (64, 48))
    ref = write_ffv1(tmp_path / "r.mkv", frames)
    log = score(ref, ref, options=ScoreOptions(metrics=("psnr",), weight=0)).log
    write_log(log, tmp_path / "s.json")
    document = json.loads((tmp_path / "s.json").read_text())
    assert document["frames"][1]["metrics"]["psnr_y"] == 60
    assert document["pooled_metrics"]["sw_psnr_y"]["harmonic_mean"] == pytest.approx(60)
