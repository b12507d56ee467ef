"""sw_vmaf against the real libvmaf, and what its weights are for."""

import json
import subprocess
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from clips import write_clip
from eyeline.errors import QualityError
from eyeline.quality.sw_vmaf import LumaPair, SwVmaf, VmafScore, load_model

imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg")
pytest.importorskip("cv2")
pytest.importorskip("ffmpeg_quality_metrics")

MODELS = ("vmaf_v0.6.1", "vmaf_v0.6.1neg")
FEATURE_BOUND, SCORE_BOUND = 1e-3, 0.05


def lumas(path: Path, count: int, depth: int = 8, crop: tuple[int, int] | None = None) -> list:
    """The first frames' luma, (H, W), as the decoder gives it, times a power of two for `depth`."""
    frames = []
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            plane = frame.planes[0]
            deep = max(c.bits for c in frame.format.components) > 8
            line = np.frombuffer(plane, "<u2" if deep else "u1").reshape(plane.height, -1)
            luma = line[:, : frame.width]
            if crop:
                luma = luma[: crop[1], : crop[0]]
            if depth > 8 and not deep:
                luma = luma.astype(np.uint16) << (depth - 8)
            frames.append(np.ascontiguousarray(luma))
            if len(frames) == count:
                break
    return frames


def raw(path: Path, size: tuple[int, int]) -> list:
    """The luma of a yuv420p10le file."""
    width, height = size
    codes = np.fromfile(path, "<u2").reshape(-1, width * height * 3 // 2)
    return [frame[: width * height].reshape(height, width) for frame in codes]


def encoded(frames: list, path: Path, crf: int) -> list:
    """The luma that x264 makes of these frames, all of 8 bits."""
    pictures = []
    for luma in frames:
        frame = av.VideoFrame(luma.shape[1], luma.shape[0], "gray")
        rows = np.zeros((luma.shape[0], frame.planes[0].line_size), np.uint8)
        rows[:, : luma.shape[1]] = luma
        frame.planes[0].update(rows.tobytes())
        pictures.append(frame)
    options = {"crf": str(crf), "preset": "veryfast"}
    return lumas(write_clip(path, pictures, pix_fmt="gray", codec_options=options), len(frames))


def libvmaf(reference: list, distorted: list, depth: int, model: str, folder: Path) -> list[dict]:
    """Every frame's metrics from the libvmaf of imageio-ffmpeg."""
    height, width = reference[0].shape
    pix_fmt = {8: "yuv420p", 10: "yuv420p10le"}[depth]
    chroma = np.full(2 * ((height + 1) // 2) * ((width + 1) // 2), 1 << depth - 1)
    inputs: list = []
    for name, frames in (("dist", distorted), ("ref", reference)):
        path = folder / f"{name}.yuv"
        grey = chroma.astype(frames[0].dtype).tobytes()
        path.write_bytes(b"".join(f.tobytes() + grey for f in frames))
        inputs += ["-f", "rawvideo", "-pix_fmt", pix_fmt, "-s", f"{width}x{height}", "-i", path]
    log = folder / "log.json"
    subprocess.run(
        [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", *inputs, "-lavfi",
         f"[0:v][1:v]libvmaf=log_fmt=json:log_path={log}:model=version={model}", "-f", "null", "-"],
        check=True,
    )  # fmt: skip
    return [frame["metrics"] for frame in json.loads(log.read_text())["frames"]]


def scores(engine: SwVmaf, pairs: Iterable[LumaPair]) -> list[VmafScore]:
    """The scores of a clip, as `eyeline score` makes them."""
    clip = list(pairs)
    parts = [engine.part(p, clip[i - 1] if i else None) for i, p in enumerate(clip)]
    return [engine.finish(a, b) for a, b in pairwise([*parts, None])]


def assert_equal(reference, distorted, depth, model, folder, bounds=(FEATURE_BOUND, SCORE_BOUND)):
    theirs = libvmaf(reference, distorted, depth, model, folder)
    uniform = np.ones(reference[0].shape, np.float32)
    pairs = (LumaPair(r, d, depth, uniform) for r, d in zip(reference, distorted, strict=True))
    ours = scores(SwVmaf(load_model(model)), pairs)
    assert len(ours) == len(theirs)
    for score, metrics in zip(ours, theirs, strict=True):
        for name, value in score.whole.items():
            suffix = "_egl_1" if model.endswith("neg") and name not in ("motion2", "vmaf") else ""
            key = "vmaf" if name == "vmaf" else f"integer_{name}{suffix}"
            bound = bounds[name == "vmaf"]
            assert value == pytest.approx(metrics[key], abs=bound), name
            assert score.weighted[name] == pytest.approx(metrics[key], abs=bound), name


@pytest.mark.parametrize("model", MODELS)
def test_libvmaf_on_the_8_bit_reference_pair(shared_data, tmp_path, model):
    reference = lumas(shared_data / "video/carphone_pristine.mp4", 30)
    distorted = lumas(shared_data / "video/carphone_distorted.mp4", 30)
    assert_equal(reference, distorted, 8, model, tmp_path)


@pytest.mark.parametrize("model", MODELS)
def test_libvmaf_on_the_10_bit_reference_pair(shared_data, tmp_path, model):
    pair = [
        raw(shared_data / f"video/src01_hrc0{i}_576x324.yuv420p10le.yuv", (576, 324))
        for i in range(2)
    ]
    assert_equal(*pair, 10, model, tmp_path)


@pytest.mark.parametrize("crf", [28, 40])
@pytest.mark.parametrize("clip", ["bikes", "bigbuckbunny", "Seeking_30_480_1050"])
def test_libvmaf_on_encoded_clips(shared_data, tmp_path, clip, crf):
    reference = lumas(shared_data / f"video/{clip}.mp4", 6, crop=(480, 270))
    distorted = encoded(reference, tmp_path / "x.mp4", crf)
    assert_equal(reference, distorted, 8, MODELS[0], tmp_path)


@pytest.mark.parametrize("crf", [28, 40])
def test_libvmaf_on_encoded_clips_of_10_bits(shared_data, tmp_path, crf):
    reference = lumas(shared_data / "video/bikes.mp4", 6, crop=(480, 270))
    distorted = encoded(reference, tmp_path / "x.mp4", crf)
    deep = [[f.astype(np.uint16) * 4 + i % 3 for i, f in enumerate(c)]
            for c in (reference, distorted)]  # fmt: skip
    assert_equal(*deep, 10, MODELS[0], tmp_path)


def pattern(size: tuple[int, int]) -> tuple[list, list]:
    """Five frames of moving waves and squares, and the same under noise."""
    width, height = size
    y, x = np.mgrid[:height, :width]
    reference = []
    for i in range(5):
        waves = 60 * np.sin(x / 3 + i) * np.cos(y / 4)
        squares = 40 * ((x // 8 + y // 8 + i) % 2)
        reference.append((128 + waves + squares).clip(0, 255).astype(np.uint8))
    rng = np.random.default_rng(6)
    return reference, [
        (f + rng.normal(0, 6, f.shape)).clip(0, 255).astype(np.uint8) for f in reference
    ]


@pytest.mark.parametrize("size", [(64, 64), (50, 50), (35, 41), (97, 71)])
@pytest.mark.parametrize("model", MODELS)
def test_libvmaf_on_small_and_odd_sizes(tmp_path, size, model):
    assert_equal(*pattern(size), 8, model, tmp_path)


def test_libvmaf_at_a_width_where_its_vector_code_leaves_its_portable_code(tmp_path):
    assert_equal(*pattern((66, 50)), 8, MODELS[0], tmp_path, bounds=(3e-3, 0.2))


def patches(seed: int = 6) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A picture of texture that repeats after 96 columns, and two boxes of the same content."""
    rng = np.random.default_rng(seed)
    tile = rng.normal(0, 1, (192, 96))
    spectrum = np.fft.rfft2(tile) / (1 + 40 * np.hypot(*np.meshgrid(
        np.fft.fftfreq(192), np.fft.rfftfreq(96), indexing="ij")))  # fmt: skip
    tile = np.fft.irfft2(spectrum, tile.shape)
    picture = np.tile(128 + 35 * tile / tile.std(), (1, 5)).clip(0, 255).astype(np.uint8)
    left, right = np.zeros(picture.shape, bool), np.zeros(picture.shape, bool)
    left[56:136, 96:192] = True
    right[56:136, 288:384] = True
    return picture, left, right


def test_the_same_distortion_costs_more_on_the_subject():
    picture, subject, background = patches()
    weight = np.where(subject, 1, 0.02).astype(np.float32)
    noise = np.tile(np.random.default_rng(1).normal(0, 14, (192, 96)), (1, 5))
    engine = SwVmaf(load_model())

    def score(where):
        distorted = np.where(where, picture + noise, picture).clip(0, 255).astype(np.uint8)
        return scores(engine, [LumaPair(picture, distorted, 8, weight)])[0]

    on_subject, on_background = score(subject), score(background)
    plain = on_background.whole["vmaf"] - on_subject.whole["vmaf"]
    weighted = on_background.weighted["vmaf"] - on_subject.weighted["vmaf"]
    assert abs(plain) < 0.5  # the boxes hold the same texture and the same noise
    assert weighted > 20
    assert on_background.weighted["vmaf"] > 95
    for name in ("vif_scale0", "vif_scale3", "adm2"):
        assert on_subject.weighted[name] < on_subject.whole[name] < on_background.weighted[name]


def clip(count: int = 5, size: tuple[int, int] = (64, 80)) -> list[LumaPair]:
    rng = np.random.default_rng(6)
    frames = rng.integers(0, 256, (count, *size), np.uint8)
    damaged = rng.integers(0, 256, (count, *size), np.uint8) // 2 + frames // 2
    maps = rng.random((count, *size), np.float32)
    return [LumaPair(r, d, 8, m) for r, d, m in zip(frames, damaged, maps, strict=True)]


def test_a_frame_of_its_own_moves_not_at_all():
    (score,) = scores(SwVmaf(load_model()), clip(1))
    assert score.whole["motion2"] == score.weighted["motion2"] == 0


def test_motion_of_the_first_frame_is_zero_and_a_cut_does_not_count():
    still = np.random.default_rng(6).integers(0, 256, (64, 64), np.uint8)
    other = 255 - still
    pairs = [LumaPair(f, f, 8, None) for f in (still, still, other, other)]
    found = scores(SwVmaf(load_model()), pairs)
    assert [s.whole["motion2"] for s in found] == [0, 0, 0, 0]
    assert found[0].weighted is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"distorted": np.zeros((64, 64), np.uint8)}, "80x64, the distorted frame 64x64"),
        ({"weight": np.ones((32, 40), np.float32)}, "the map is 40x32"),
        ({"weight": np.zeros((64, 80), np.float32)}, "zero everywhere"),
        ({"weight": np.full((64, 80), -1, np.float32)}, "negative"),
        ({"weight": np.full((64, 80), np.nan, np.float32)}, "NaN or infinite"),
    ],
)
def test_input_that_has_no_score(change, message):
    pair = clip(1)[0]._replace(**change)
    with pytest.raises(QualityError, match=message):
        SwVmaf(load_model()).part(pair)


def test_a_frame_too_small_for_four_scales():
    with pytest.raises(QualityError, match="at least 33x33"):
        SwVmaf(load_model()).part(clip(1, (32, 80))[0])


def test_frames_that_change_size():
    with pytest.raises(QualityError, match="frame size changes from 80x64 to 48x48"):
        scores(SwVmaf(load_model()), [clip(1)[0], clip(1, (48, 48))[0]])


def test_an_identical_pair_is_near_the_top_and_finite():
    pair = clip(1)[0]
    engine = SwVmaf(load_model())
    part = engine.part(pair._replace(distorted=pair.reference))
    assert part.whole.adm.adm2 == pytest.approx(1, abs=1e-6)
    assert part.weighted.vif == pytest.approx([1] * 4, abs=2e-3)
    assert engine.finish(part).whole["vmaf"] == pytest.approx(97.43, abs=0.01)  # libvmaf's, too
