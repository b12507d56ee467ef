"""The whole pipeline: where the map comes from, what is weighted, and what is refused."""

import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest

from clips import put_planes
from eyeline.errors import DatasetError, LogError, MediaError, QualityError, UsageError
from eyeline.logs import write_log
from eyeline.logs.base import Log
from eyeline.quality._measure import CROP_BIAS, columns
from eyeline.quality.pairs import PairOptions
from eyeline.quality.save import save_scores
from eyeline.quality.score import METRICS, ScoreOptions, score
from eyeline.registry.registry import resolve_model
from eyeline.saliency.maps import open_map_sink
from eyeline.saliency.pipeline import extract
from quality.pair_clips import noisy, textured, write_ffv1

SIZE = (192, 176)
FRAMES = 4


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    frames = textured(FRAMES, SIZE)
    return write_ffv1(tmp_path / "ref.mkv", frames), write_ffv1(
        tmp_path / "dist.mkv", noisy(frames)
    )


@pytest.fixture
def halves(tmp_path: Path) -> tuple[Path, Path]:
    """Damage in the left half alone."""
    frames = textured(FRAMES, SIZE)
    left = np.arange(SIZE[0]) < SIZE[0] // 2
    damaged = [
        [np.where(left, n, f[0]), f[1], f[2]]
        for f, (n, *_) in zip(frames, noisy(frames, 60), strict=True)
    ]
    return write_ffv1(tmp_path / "ref.mkv", frames), write_ffv1(tmp_path / "dist.mkv", damaged)


def write_maps(path: Path, maps: list[np.ndarray], first: int = 0) -> Path:
    with open_map_sink(path) as sink:
        for i, m in enumerate(maps, first):
            sink.write(i, i / 25, m.astype(np.float32))
    return path


def half(side: str) -> np.ndarray:
    m = np.zeros(SIZE[::-1], np.float32)
    m[:, : SIZE[0] // 2] = side == "left"
    m[:, SIZE[0] // 2 :] = side == "right"
    return m


def run(ref: Path, dist: Path, *metrics: str, **options) -> Log:
    return score(
        ref, dist, options=ScoreOptions(metrics=metrics or ("psnr", "ssim"), **options)
    ).log


def test_every_metric_stands_whole_and_weighted_side_by_side(pair) -> None:
    pytest.importorskip("cv2")
    pytest.importorskip("imageio_ffmpeg")
    log = score(*pair).log
    assert set(log.columns) == {*columns(METRICS, grey=False), "vmaf"}
    assert "left_out" not in log.provenance
    for name, values in log.values.items():
        assert np.isfinite(values).all(), name
        assert len(values) == FRAMES
    # The same engine, other arithmetic: see test_sw_vmaf for the bound on features.
    assert list(log.values["eyeline_vmaf"]) == pytest.approx(list(log.values["vmaf"]), abs=0.05)


def test_without_opencv_the_extra_is_named() -> None:
    code = (
        "import sys\n"
        "sys.modules['cv2'] = None  # Python's own way to make an import fail\n"
        "from eyeline.cli import main\n"
        "sys.argv = ['eyeline', 'score', 'a.mp4', 'b.mp4']\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 2, done.stderr
    assert "opencv-python-headless is not installed" in done.stderr
    assert "pip install 'eyeline[vmaf]'" in done.stderr


def test_uniform_weights_give_the_whole(pair) -> None:
    pytest.importorskip("cv2")
    log = run(*pair, "psnr", "ssim", "ms_ssim", "sw_vmaf", weight=0)
    names = {"sw_ssim": "float_ssim", "sw_ms_ssim": "float_ms_ssim", "sw_vmaf": "eyeline_vmaf"}
    names |= {f"sw_psnr_{p}": f"psnr_{p}" for p in ("y", "cb", "cr", "611")}
    for weighted, whole in names.items():
        assert list(log.values[weighted]) == pytest.approx(list(log.values[whole]), abs=1e-4)


def test_ready_maps_give_what_the_model_gives(pair, tmp_path: Path) -> None:
    with extract(pair[0], model=resolve_model(task="gaze")) as extraction:
        maps = [f.full_map() for f in extraction]
    given = write_maps(tmp_path / "maps.npz", maps)
    direct, ready = run(*pair), run(*pair, maps=str(given))
    assert list(ready.values["sw_psnr_y"]) == pytest.approx(
        list(direct.values["sw_psnr_y"]), abs=1e-4
    )
    assert list(ready.values["sw_ssim"]) == pytest.approx(list(direct.values["sw_ssim"]), abs=1e-3)
    assert direct.provenance["saliency"]["model_sha256"]
    assert ready.provenance["map_path"] == "maps.npz"


def test_damage_under_the_map_costs_every_metric_more(halves, tmp_path: Path) -> None:
    pytest.importorskip("cv2")
    metrics = ("psnr", "ssim", "ms_ssim", "sw_vmaf")
    on, off = (
        run(*halves, *metrics, maps=str(write_maps(tmp_path / f"{s}.npz", [half(s)] * FRAMES)))
        for s in ("left", "right")
    )
    assert list(off.values["sw_psnr_y"]) == [60] * FRAMES
    whole = {
        "sw_psnr_y": "psnr_y",
        "sw_ssim": "float_ssim",
        "sw_ms_ssim": "float_ms_ssim",
        "sw_vmaf": "eyeline_vmaf",
    }
    for weighted, plain in whole.items():
        for hit, all_, missed in zip(
            on.values[weighted], on.values[plain], off.values[weighted], strict=True
        ):
            assert hit < all_ < missed, weighted


def test_weight_blends(halves, tmp_path: Path) -> None:
    maps = str(write_maps(tmp_path / "m.npz", [half("left")] * FRAMES))
    scores = [run(*halves, "psnr", maps=maps, weight=w).values["sw_psnr_y"][0] for w in (0, 0.5, 1)]
    assert scores[0] > scores[1] > scores[2]
    # The error's energy is all under the map, which doubles it at 1: +3.01 dB, +1.76 at one half.
    assert scores[0] - scores[2] == pytest.approx(10 * np.log10(2), abs=1e-3)
    assert scores[0] - scores[1] == pytest.approx(10 * np.log10(1.5), abs=1e-3)


def test_masks_are_maps(halves, tmp_path: Path) -> None:
    pytest.importorskip("PIL")
    folder = write_maps(tmp_path / "masks", [half("right")] * FRAMES)
    assert list(run(*halves, masks=str(folder)).values["sw_psnr_y"]) == [60] * FRAMES


def test_maps_follow_the_reference_through_an_offset(halves, tmp_path: Path) -> None:
    maps = [half("left"), half("left"), half("right"), half("right")]
    given = str(write_maps(tmp_path / "m.npz", maps))
    options = PairOptions(ref_offset=2, dist_offset=2)
    log = run(*halves, maps=given, pairs=options)
    assert list(log.values["sw_psnr_y"]) == [60, 60]
    assert list(log.frame_num) == [0, 1]


def test_a_crop_takes_its_part_of_the_map(halves, tmp_path: Path) -> None:
    given = str(write_maps(tmp_path / "m.npz", [half("right")] * FRAMES))
    kept = PairOptions(crop=(96, 176, 96, 0))
    assert run(*halves, maps=given, pairs=kept).values["sw_psnr_y"][0] == 60
    with pytest.raises(QualityError, match="frame 0: the map is zero everywhere"):
        run(*halves, maps=given, pairs=PairOptions(crop=(96, 176, 0, 0)))


@pytest.mark.parametrize(("count", "first"), [(FRAMES - 1, 0), (FRAMES, 1)])
def test_a_frame_without_a_map_is_named(pair, tmp_path: Path, count: int, first: int) -> None:
    given = write_maps(tmp_path / "m.npz", [half("left")] * count, first)
    missing = 0 if first else FRAMES - 1
    with pytest.raises(QualityError, match=f"no map for frame {missing} "):
        run(*pair, maps=str(given))


@pytest.mark.parametrize(
    ("value", "words"), [(0, "zero everywhere"), (np.nan, "NaN"), (-1, "negative")]
)
def test_a_map_that_is_none_names_its_frame(pair, tmp_path: Path, value: float, words: str) -> None:
    maps = [half("left") for _ in range(FRAMES)]
    maps[2] = np.full(SIZE[::-1], value, np.float32)
    given = write_maps(tmp_path / "m.npz", maps)
    with pytest.raises(QualityError, match=rf"frame 2: the map .*{words}"):
        run(*pair, maps=str(given))


def test_maps_that_are_none_are_refused(pair, tmp_path: Path) -> None:
    (tmp_path / "notes.npz").write_text("no maps")
    with pytest.raises(MediaError, match=r"notes\.npz: can't be read as maps"):
        run(*pair, maps=str(tmp_path / "notes.npz"))


def test_masks_that_are_none_are_refused(pair, tmp_path: Path) -> None:
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks" / "0.png").write_text("no picture")
    with pytest.raises(DatasetError, match="unreadable mask"):
        run(*pair, masks=str(tmp_path / "masks"))


def test_identical_files_have_the_cap_and_say_so(pair) -> None:
    log = run(pair[0], pair[0])
    assert set(log.values["psnr_y"]) == set(log.values["sw_psnr_611"]) == {60.0}
    assert list(log.values["float_ssim"]) == pytest.approx([1] * FRAMES)
    assert log.provenance["psnr_cap"] == 60


def test_a_turned_reference_turns_its_map_back(tmp_path: Path) -> None:
    frames = textured(2, (64, 48))
    damaged = [[f[0].copy(), f[1], f[2]] for f in frames]
    for f in damaged:
        f[0][:24] += (
            9  # the top half as coded; shown turned by 90 degrees clockwise: the right half
        )
    codec = {"codec_options": {"qp": "0", "preset": "ultrafast"}}
    paths = []
    for name, planes in (("r", frames), ("d", damaged)):
        from clips import write_clip

        made = [put_planes("yuv420p", (64, 48), f) for f in planes]
        paths.append(write_clip(tmp_path / f"{name}.mp4", made, rotation=90, **codec))
    upright = np.zeros((64, 48), np.float32)
    upright[:, :24] = 1  # the left half, where nothing is wrong
    given = write_maps(tmp_path / "m.npz", [upright] * 2)
    assert list(run(*paths, "psnr", maps=str(given)).values["sw_psnr_y"]) == [60, 60]


def test_the_crop_is_labelled_with_its_bias(halves, tmp_path: Path) -> None:
    pytest.importorskip("imageio_ffmpeg")
    given = str(write_maps(tmp_path / "m.npz", [half("right")] * FRAMES))
    log = run(*halves, "vmaf", method="crop", maps=given)
    assert log.provenance["method"] == {"name": "crop", "bias": CROP_BIAS}
    assert log.values["vmaf_crop"][1] > log.values["vmaf"][1]


def test_rgb_pictures_are_compared_by_the_videos_matrix(pair, tmp_path: Path) -> None:
    folder = tmp_path / "png"
    folder.mkdir()
    with av.open(str(pair[0])) as video:
        for i, frame in enumerate(video.decode(video=0)):
            frame.reformat(format="rgb24", src_colorspace=5).to_image().save(folder / f"{i}.png")
    log = run(folder, pair[0], "psnr", weight=0)
    assert min(log.values["psnr_y"]) > 45  # two roundings apart


@pytest.mark.parametrize(
    "options",
    [{"metrics": ("psnr", "ssmi")}, {"metrics": ()}, {"weight": 1.5}, {"weight": float("nan")},
     {"maps": "a", "masks": "b"}, {"method": "blur"}],
)  # fmt: skip
def test_options_that_are_none_are_refused(options) -> None:
    with pytest.raises(UsageError):
        ScoreOptions(**options)


def test_a_small_picture_leaves_ms_ssim_out_and_says_why(tmp_path: Path) -> None:
    ref = write_ffv1(tmp_path / "r.mkv", textured(2, (64, 48)))
    log = score(ref, ref, options=ScoreOptions(weight=0)).log
    assert "176" in log.provenance["left_out"]["ms_ssim"]
    assert "float_ms_ssim" not in log.columns
    with pytest.raises(QualityError, match="frames of 64x48 are too small for ms_ssim"):
        run(ref, ref, "ms_ssim", weight=0)


def test_a_log_of_another_pair_is_refused(pair, tmp_path: Path) -> None:
    other = Log(["psnr_y", "vmaf"], {})
    for i in range(FRAMES):
        other.append(i, i / 25, {"psnr_y": 20.0 + i, "vmaf": 50.0})
    write_log(other, tmp_path / "other.json")
    log = run(*pair)
    with pytest.raises(
        LogError, match="is the log of another pair of videos: its psnr_y of frame 0 is 20"
    ):
        save_scores(log, (str(tmp_path / "both.json"),), str(tmp_path / "other.json"))
    assert not (tmp_path / "both.json").exists()


def test_a_log_of_another_length_is_refused(pair, tmp_path: Path) -> None:
    other = Log(["vmaf"], {})
    other.append(0, 0.0, {"vmaf": 50.0})
    write_log(other, tmp_path / "other.csv")
    with pytest.raises(LogError, match="does not match"):
        save_scores(run(*pair), (str(tmp_path / "both.csv"),), str(tmp_path / "other.csv"))
