"""Scores weighted by recorded gaze: known answers, and fixations that do not belong to the video."""

import json
import math
import tarfile
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

import commands
from clips import put_planes, write_clip
from eyeline.datasets.fixations import DEFAULT_SIGMA, Fixations, gaze_density
from eyeline.errors import DatasetError, UsageError
from eyeline.logs.base import Log
from eyeline.quality.pairs import PairOptions
from eyeline.quality.score import ScoreOptions, score
from eyeline.roi.encode import EncodeOptions, encode
from eyeline.roi.steering import SteerOptions
from eyeline.saliency.pipeline import ExtractOptions
from shared import SHARED

W, H, FRAMES = 200, 120, 5
HEAD = "video,viewer,onset_ms,duration_ms,x,y\n"


def clip(path: Path, lumas: list[np.ndarray]) -> Path:
    frames = [put_planes("yuv420p", (W, H), (luma, 128, 128)) for luma in lumas]
    return write_clip(path, frames, "ffv1", pix_fmt="yuv420p")


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """The error is 2 in the left half and 8 in the right one."""
    grey = np.full((H, W), 100.0)
    error = np.where(np.arange(W) < W // 2, 2, 8) + np.zeros((H, 1))
    return clip(tmp_path / "park.mkv", [grey] * FRAMES), clip(
        tmp_path / "dist.mkv", [grey + error] * FRAMES
    )


def table(path: Path, *rows: str) -> Path:
    path.write_text(HEAD + "".join(f"{row}\n" for row in rows))
    return path


def ew_psnr(pair: tuple[Path, Path], fixations: Path, **options: object) -> Log:
    return score(
        *pair,
        options=ScoreOptions(("psnr",), fixations=str(fixations), **options),  # type: ignore[arg-type]
    ).log


def psnr(mse: float) -> float:
    return 10 * math.log10(255 * 255 / mse)


def test_errors_count_where_viewers_look(pair, tmp_path: Path) -> None:
    left = table(tmp_path / "left.csv", "park,a,0,400,40,60", "park,b,0,400,30,20")
    right = table(tmp_path / "right.csv", "park,a,0,400,160,60")
    assert list(ew_psnr(pair, left).values["ew_psnr_y"]) == pytest.approx([psnr(4)] * FRAMES)
    assert list(ew_psnr(pair, right).values["ew_psnr_y"]) == pytest.approx([psnr(64)] * FRAMES)


def test_ewpsnr_is_the_density_times_the_squared_errors(pair, tmp_path: Path) -> None:
    log = ew_psnr(pair, table(tmp_path / "f.csv", "park,a,0,400,90,60", "park,b,0,400,104,30"))
    both = Fixations(
        np.arange(2),
        np.array([90, 104]) / W,
        np.array([60, 30]) / H,
        np.zeros(2),
        np.full(2, 400.0),
    )
    density = gaze_density(both, W, H, DEFAULT_SIGMA)
    squares = np.where(np.arange(W) < W // 2, 4.0, 64.0)
    expected = psnr(float((density * squares).sum()))
    assert log.values["ew_psnr_y"][0] == pytest.approx(expected, abs=0.02)
    assert log.values["psnr_y"][0] == pytest.approx(psnr(34), abs=1e-5)


def test_a_fixation_counts_from_its_onset_until_it_ends(pair, tmp_path: Path) -> None:
    """At 25 frames/s frame n is shown at 40 n ms."""
    log = ew_psnr(pair, table(tmp_path / "f.csv", "park,a,0,80,20,60", "park,a,80,200,180,60"))
    assert list(log.values["ew_psnr_y"]) == pytest.approx([psnr(4)] * 2 + [psnr(64)] * 3)


def test_frames_that_nobody_looks_at_weigh_uniformly_and_are_counted(pair, tmp_path: Path) -> None:
    fixations = table(tmp_path / "f.csv", "park,a,80,40,20,60")
    result = score(*pair, options=ScoreOptions(("psnr",), fixations=str(fixations)))
    assert list(result.log.values["ew_psnr_y"]) == pytest.approx(
        [psnr(34)] * 2 + [psnr(4)] + [psnr(34)] * 2, abs=1e-4
    )
    assert result.log.provenance["frames_without_fixation"] == 4
    assert any("no fixation is active at 4 of 5 frames" in w for w in result.warnings)


def test_times_count_from_the_first_frame(pair, tmp_path: Path) -> None:
    grey = [put_planes("yuv420p", (W, H), (100, 128, 128))] * FRAMES
    times = [Fraction(148 + 4 * i, 100) for i in range(FRAMES)]
    (tmp_path / "late").mkdir()
    late = write_clip(tmp_path / "late" / "park.mkv", grey, "ffv1", times=times)
    fixations = table(tmp_path / "f.csv", "park,a,0,80,20,60", "park,a,80,200,180,60")
    log = ew_psnr((late, pair[1]), fixations)
    assert log.pts_time[0] == pytest.approx(1.48)
    assert list(log.values["ew_psnr_y"]) == pytest.approx([psnr(4)] * 2 + [psnr(64)] * 3)


def test_the_blur_is_one_degree_where_that_is_known(pair, tmp_path: Path) -> None:
    fixations = table(tmp_path / "f.csv", "park,a,0,400,85,60")
    narrow = ew_psnr(pair, fixations, pixels_per_degree=2.0)
    wide = ew_psnr(pair, fixations, pixels_per_degree=40.0)
    assert narrow.values["ew_psnr_y"][0] == pytest.approx(psnr(4), abs=1e-3)
    assert wide.values["ew_psnr_y"][0] < psnr(16)
    assert narrow.provenance["density_sigma"] == 0.01


def test_provenance_names_the_table_its_digest_and_the_viewers(pair, tmp_path: Path) -> None:
    fixations = table(tmp_path / "f.csv", "park,a,0,400,20,60", "park,b,0,400,30,60", "x,c,0,9,1,1")
    found = ew_psnr(pair, fixations).provenance
    assert found["map"] == "recorded gaze"
    assert found["fixations"] == "f.csv"
    assert len(found["fixations_sha256"]) == 64
    assert found["fixations_used"] == 2
    assert found["viewers"] == 2
    assert found["density_sigma"] == DEFAULT_SIGMA
    assert found["frames_without_fixation"] == 0


def test_rows_that_are_left_out_are_named(pair, tmp_path: Path) -> None:
    fixations = table(tmp_path / "f.csv", "park,a,0,400,20,60", "park,a,0,400,900,60")
    result = score(*pair, options=ScoreOptions(("psnr",), fixations=str(fixations)))
    assert sum(result.log.provenance["fixations_left_out"].values()) == 1
    assert any("f.csv: 1 rows left out" in warning for warning in result.warnings)


def test_a_fixation_set_gives_the_fixations_on_the_video_of_that_name(pair, tmp_path: Path) -> None:
    root = tmp_path / "set"
    (root / "videos").mkdir(parents=True)
    for name in ("park", "other"):
        (root / "videos" / f"{name}.mkv").write_bytes(pair[0].read_bytes())
    table(root / "fixations.csv", "park,a,0,400,20,60", "other,a,0,400,180,60")
    log = ew_psnr(pair, root)
    assert list(log.values["ew_psnr_y"]) == pytest.approx([psnr(4)] * FRAMES)
    assert log.provenance["fixations"] == "set"


def test_a_set_without_the_reference_names_what_it_holds(pair, tmp_path: Path) -> None:
    root = tmp_path / "set"
    (root / "videos").mkdir(parents=True)
    (root / "videos" / "other.mkv").write_bytes(pair[0].read_bytes())
    table(root / "fixations.csv", "other,a,0,400,180,60")
    with pytest.raises(
        DatasetError,
        match="needs one video named park with fixations, but has none; the set holds other",
    ):
        ew_psnr(pair, root)


def test_a_table_without_the_reference_is_refused(pair, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="park"):
        ew_psnr(pair, table(tmp_path / "f.csv", "other,a,0,400,180,60"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"maps": "a.npz", "fixations": "f.csv"}, "--maps and --fixations cannot be combined"),
        ({"fixations": "f.csv", "weight": 0.0}, "--fixations has no effect with --weight 0"),
        ({"pixels_per_degree": 40.0}, "without --fixations"),
        ({"fixations": "f.csv", "pixels_per_degree": -1.0}, "must be between 1 and 1000"),
        ({"fixations": "f.csv", "pixels_per_degree": 0.001}, "must be between 1 and 1000"),
        ({"fixations": "f.csv", "pixels_per_degree": float("inf")}, "must be between 1 and 1000"),
    ],
)
def test_contradictions_are_refused(options: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        ScoreOptions(**options)  # type: ignore[arg-type]


def test_ssim_and_vmaf_are_weighted_by_gaze_too(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    texture = np.clip(100 + 30 * rng.standard_normal((H, W)), 16, 235)
    noise = np.where(np.arange(W) < W // 2, 0, 25 * rng.standard_normal((H, W)))
    ref = clip(tmp_path / "park.mkv", [texture] * 3)
    dist = clip(tmp_path / "dist.mkv", [np.clip(texture + noise, 0, 255)] * 3)
    left = table(tmp_path / "left.csv", "park,a,0,400,40,60")
    options = ScoreOptions(("ssim", "sw_vmaf"), fixations=str(left))
    values = score(ref, dist, options=options).log.values
    assert values["ew_ssim"][1] > 0.999 > values["float_ssim"][1]
    assert values["ew_vmaf"][1] > values["eyeline_vmaf"][1] + 10
    assert not any(name.startswith("sw_") for name in values)


def test_the_command_prints_and_writes_the_scores(pair, tmp_path: Path) -> None:
    fixations = table(tmp_path / "f.csv", "park,a,80,40,20,60")
    out = tmp_path / "scores.json"
    done = commands.run(
        "score", *pair, "--fixations", fixations,
        "--pixels-per-degree", "10", "--metrics", "psnr", "-o", out,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "warning: f.csv: no fixation is active at 4 of 5 frames" in done.stderr
    frames = json.loads(out.read_text())["frames"]
    assert frames[2]["metrics"]["ew_psnr_y"] == pytest.approx(psnr(4), abs=1e-3)


def test_recorded_gaze_weights_a_real_encode(tmp_path: Path) -> None:
    archive = SHARED / "gaze" / "hevc-dev.tar"
    if not archive.exists():
        pytest.skip(f"{archive} is absent")
    with tarfile.open(archive) as tar:
        tar.extract("hevc-dev/videos/BasketballPass.avi", tmp_path, filter="data")
    source = tmp_path / "hevc-dev" / "videos" / "BasketballPass.avi"
    options = EncodeOptions(
        crf=35, preset="veryfast", steer=SteerOptions(strength=0), extract=ExtractOptions(stop=30)
    )
    encode(source, tmp_path / "coded.mp4", options)
    result = score(
        source,
        tmp_path / "coded.mp4",
        options=ScoreOptions(("psnr",), pairs=PairOptions(frames=30), fixations=str(archive)),
    )
    provenance = result.log.provenance
    assert provenance["fixations"] == "hevc-dev"
    assert 25 < provenance["viewers"] <= 32
    assert provenance["frames_without_fixation"] == 0
    weighted, whole = (np.array(result.log.values[n]) for n in ("ew_psnr_y", "psnr_y"))
    # Viewers look at the players, who move and are coded worse than the floor.
    assert weighted.mean() < whole.mean() - 1
