"""`--map gaze|objects`: every command that runs a model takes the production model of that task."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from clips import write_clip
from eyeline.batch.store import read_status
from eyeline.cli import main
from eyeline.logs import read_log
from tiny_models import GREEN, RED, plane_model, write_registry

FRAMES = 4
Run = Callable[..., str]


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two production models: `things` gives the red plane, `eyes` the green one."""
    folder = tmp_path / "models"
    models = {"things": plane_model(RED), "eyes": plane_model(GREEN)}
    write_registry(folder, models, schema_version=3, role="production")
    content = json.loads((folder / "registry.json").read_text())
    content["models"][1]["task"] = "gaze"
    (folder / "registry.json").write_text(json.dumps(content))
    monkeypatch.setenv("EYELINE_REGISTRY", str(folder))
    monkeypatch.delenv("EYELINE_MODEL", raising=False)
    return folder


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Red on the left, green on the right."""
    rgb = np.full((48, 64, 3), 40, np.uint8)
    rgb[:, :32, 0], rgb[:, 32:, 1] = 220, 220
    return write_clip(tmp_path / "clip.mkv", [rgb] * FRAMES, "libx264rgb", pix_fmt="rgb24")


@pytest.fixture
def coded(tmp_path: Path) -> Path:
    """What x264 can encode with regions: noise in 4:2:0."""
    noise = np.random.default_rng(0).integers(0, 255, (96, 128, 3), np.uint8)
    frames = [np.roll(noise, 3 * i, 1) for i in range(FRAMES)]
    return write_clip(tmp_path / "coded.mp4", frames)


@pytest.fixture
def run(registry: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    def call(*words: object, code: int = 0) -> str:
        """The command in this process; what it said on both streams."""
        monkeypatch.setattr(sys, "argv", ["eyeline", *map(str, words)])
        with pytest.raises(SystemExit) as caught:
            main()
        said = "".join(capfd.readouterr())
        assert caught.value.code == code, said
        return said

    return call


def test_extract_takes_the_map_that_was_asked_for(run: Run, clip: Path, tmp_path: Path) -> None:
    means = {}
    for task, words in ((None, ()), ("objects", ("--map", "objects")), ("gaze", ("--map", "gaze"))):
        out = tmp_path / f"{task}.json"
        said = run("extract", clip, "-o", out, "-v", *words)
        log = read_log(out)
        assert log.provenance["task"] == (task or "objects")
        model = "eyes" if task == "gaze" else "things"
        assert log.provenance["model"] == model
        assert f"model {model} (map: {task or 'objects'})" in said
        means[task] = log.values["saliency_cx"][0]
    assert means[None] == means["objects"] < 0.4
    assert means["gaze"] > 0.6


def test_a_model_wins_and_one_of_another_task_is_refused(run: Run, clip: Path) -> None:
    assert json.loads(run("extract", clip, "--model", "eyes", "-q"))["provenance"]["task"] == "gaze"
    said = run("extract", clip, "--model", "things", "--map", "gaze", code=2)
    assert "things makes objects maps, but gaze maps were requested" in said
    assert "--map" in said.splitlines()[1]


def test_score_weighs_by_the_map_that_was_asked_for(run: Run, clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "scores.json"
    said = run("score", clip, clip, "--metrics", "psnr", "--map", "gaze", "-o", out, "-v")
    assert read_log(out).provenance["saliency"]["task"] == "gaze"
    assert "model eyes (map: gaze)" in said


def test_roi_steers_by_the_map_that_was_asked_for(run: Run, coded: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    assert "steered by eyes (map: gaze)" in run("roi", "encode", coded, "-o", out, "--map", "gaze")
    said = run("roi", "encode", coded, "-o", out, "--map", "gaze", "-v", "--force")
    assert json.loads(said.splitlines()[-2])["task"] == "gaze"
    said = run("roi", "map", coded, "-o", tmp_path / "m.json", "--format", "json", "--map", "gaze")
    assert "steered by eyes (map: gaze)" in said


def test_roi_compare_names_the_map_that_steers(run: Run, coded: Path) -> None:
    pytest.importorskip("bjontegaard", reason="the extra roi is not installed")
    said = run("roi", "compare", coded, "--map", "gaze", "--no-vmaf", "--codec-option", "threads=1")
    assert "steered by eyes (map: gaze)" in said


@pytest.mark.parametrize("command", ["extract", "score", "roi-map"])
def test_batch_takes_the_map_that_was_asked_for(
    run: Run, coded: Path, tmp_path: Path, command: str
) -> None:
    manifest = tmp_path / "titles.csv"
    manifest.write_text(
        f"title,reference,distorted\na,{coded},{coded}\n"
        if command == "score"
        else f"title,path\na,{coded}\n"
    )
    words = ("--metrics", "psnr") if command == "score" else ()
    out = tmp_path / "out"
    said = run("batch", command, manifest, "-o", out, "--map", "gaze", "--workers", 1, "-v", *words)
    assert "eyes (map: gaze)" in said
    (version,) = read_status(str(out))
    assert "eyes" in version.version.name


def test_report_takes_the_map_that_was_asked_for(run: Run, clip: Path, tmp_path: Path) -> None:
    log, page = tmp_path / "log.json", tmp_path / "page.html"
    run("extract", clip, "-o", log)
    run("report", log, "--video", clip, "-o", page)
    assert "maps by things (map: objects), sha256" in page.read_text()
    run("report", log, "--video", clip, "-o", page, "--map", "gaze")
    assert "maps by eyes (map: gaze), as asked for" in page.read_text()


def test_ready_maps_and_a_kind_of_map_exclude_each_other(
    run: Run, clip: Path, coded: Path, tmp_path: Path
) -> None:
    maps = ("--map", "gaze", "--maps", "maps.npz")
    for words in (
        ("score", clip, clip, *maps),
        ("score", clip, clip, "--map", "gaze", "--masks", "truth"),
        ("roi", "encode", coded, "-o", tmp_path / "o.mp4", *maps),
        ("roi", "map", coded, "-o", tmp_path / "o.json", "--format", "json", *maps),
        ("roi", "compare", coded, *maps),
        ("report", tmp_path / "log.json", "--video", clip, *maps),
    ):
        assert "leave out --map or --ma" in run(*words, code=2)


def test_a_time_constant_is_for_averages_only(run: Run, clip: Path) -> None:
    assert "150 ms" in run("extract", clip, "--temporal-ms", 150, code=2)
    log = json.loads(run("extract", clip, "--temporal", "ema", "--temporal-ms", 150, "-q"))
    assert log["provenance"]["options"]["temporal_ms"] == 150
