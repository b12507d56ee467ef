"""Pictures that belong to the log: errors by hand, and clips of other lengths or contents refused."""

import json
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest

from clips import picture, write_clip
from eyeline.errors import LogError, UsageError, VerificationError
from eyeline.report._pictures import MediaOptions, error_map, grey, make_media, resize_map, webp
from eyeline.report._series import read_rows
from eyeline.saliency.maps import open_map_sink
from report_pages import FRAMES, HEIGHT, WIDTH, noisy, square


def decode(data: bytes) -> np.ndarray:
    codec = av.CodecContext.create("webp", "r")
    return codec.decode(av.Packet(data))[0].to_ndarray(format="rgb24")


def test_webp_keeps_colours() -> None:
    rgb = np.zeros((40, 60, 3), np.uint8)
    rgb[:, :30], rgb[:, 30:] = (200, 30, 40), (20, 60, 220)
    back = decode(webp(rgb)).astype(int)
    assert back.shape == rgb.shape
    assert np.abs(back[10:30, 5:25] - (200, 30, 40)).max() < 9
    assert np.abs(back[10:30, 35:55] - (20, 60, 220)).max() < 9


def test_error_by_hand() -> None:
    a, b = np.full((4, 4, 3), 100, np.uint8), np.full((4, 4, 3), 100, np.uint8)
    b[0, 0] = 108  # alone in its square of four: sqrt(64 / 4)
    b[2:, 2:] = 95
    assert error_map(a, b, 2) == pytest.approx(np.array([[4, 0], [0, 5]]), abs=1e-4)


def test_a_map_is_shrunk_by_means() -> None:
    saliency = np.arange(24, dtype=np.float32).reshape(4, 6) / 24
    assert resize_map(saliency, 3, 2) == pytest.approx(saliency.reshape(2, 2, 3, 2).mean((1, 3)))
    assert grey(np.full((400, 800), 0.5, np.float32)).shape == (160, 320, 3)
    assert set(grey(np.full((4, 8), 1.0, np.float32)).ravel()) == {255}


def test_every_frame_has_its_pictures(saliency_log: Path, clip: Path) -> None:
    rows = read_rows([str(saliency_log)])[0]
    media = make_media(MediaOptions(str(clip), side=80), rows)
    assert (media["width"], media["height"]) == (80, 48)
    assert media["frames"] == list(range(FRAMES))
    assert all(media["tracks"][name] for name in ("picture", "heat"))
    assert "saliency_student_v4" in media["maps"]


def test_a_small_budget_keeps_the_frames_picked_out(saliency_log: Path, clip: Path) -> None:
    rows = read_rows([str(saliency_log)])[0]
    whole = make_media(MediaOptions(str(clip)), rows)
    small = make_media(MediaOptions(str(clip), max_size=whole["megabytes"] / 3), rows, (5, 11))
    assert {5, 11} < set(small["frames"])
    assert small["every"] > 1
    assert small["megabytes"] <= whole["megabytes"] / 3


def test_a_budget_that_nothing_fits(saliency_log: Path, clip: Path) -> None:
    rows = read_rows([str(saliency_log)])[0]
    with pytest.raises(UsageError, match="max-size"):
        make_media(MediaOptions(str(clip), max_size=0.0005), rows)


def test_ready_maps(saliency_log: Path, clip: Path, tmp_path: Path) -> None:
    with open_map_sink(tmp_path / "maps.npz") as sink:
        for i in range(FRAMES):
            sink.write(i, i / 25, np.full((HEIGHT, WIDTH), i / FRAMES, np.float32))
    rows = read_rows([str(saliency_log)])[0]
    media = make_media(MediaOptions(str(clip), maps=str(tmp_path / "maps.npz")), rows)
    assert media["maps"] == "maps of maps.npz"
    assert len(set(media["tracks"]["heat"])) == FRAMES


def test_a_log_without_a_model_has_no_heat(scores: Path, clip: Path) -> None:
    media = make_media(MediaOptions(str(clip)), read_rows([str(scores)])[0])
    assert "heat" not in media["tracks"]
    assert "names no model" in media["maps"]


@pytest.mark.parametrize("count", [FRAMES - 3, FRAMES + 3])
def test_a_clip_of_another_length_is_refused(
    saliency_log: Path, tmp_path: Path, count: int
) -> None:
    other = write_clip(tmp_path / "other.mp4", map(picture, square(count)))
    with pytest.raises(LogError, match=f"{FRAMES} frames.*other.mp4 has .*{count}"):
        make_media(MediaOptions(str(other)), read_rows([str(saliency_log)])[0])


@pytest.mark.parametrize("count", [FRAMES - 3, FRAMES + 3])
def test_a_raw_clip_of_another_length_is_refused(
    saliency_log: Path, tmp_path: Path, count: int
) -> None:
    """A stream that does not say its length is found out while it is read."""
    other = write_clip(tmp_path / "other.h264", map(picture, square(count)))
    with pytest.raises(LogError, match=f"{FRAMES} frames"):
        make_media(MediaOptions(str(other), heat=False), read_rows([str(saliency_log)])[0])


def test_a_clip_of_other_content_is_refused(saliency_log: Path, tmp_path: Path) -> None:
    frames = [np.maximum(f, np.roll(f, 90, 1)) for f in noisy(square())]
    other = write_clip(tmp_path / "other.mp4", map(picture, frames))
    with pytest.raises(LogError, match=r"frame \d+ has saliency_mean"):
        make_media(MediaOptions(str(other)), read_rows([str(saliency_log)])[0])


@pytest.mark.parametrize("suffix", [".mp4", ".h264"])  # .h264 does not say its length
@pytest.mark.parametrize("count", [5, FRAMES + 2])
def test_a_distorted_clip_of_another_length(
    scores: Path, clip: Path, tmp_path: Path, count: int, suffix: str
) -> None:
    other = write_clip(tmp_path / f"other{suffix}", map(picture, square(count)))
    with pytest.raises(
        LogError, match=rf"other{suffix} has .*\d frames|other{suffix}: the clip ends"
    ):
        make_media(MediaOptions(str(clip), str(other)), read_rows([str(scores)])[0])


def test_another_model_than_the_logs(saliency_log: Path, clip: Path, tmp_path: Path) -> None:
    document = json.loads(saliency_log.read_text())
    document["provenance"]["model_sha256"] = "0" * 64
    changed = tmp_path / "changed.json"
    changed.write_text(json.dumps(document))
    with pytest.raises(VerificationError, match="sha256"):
        make_media(MediaOptions(str(clip)), read_rows([str(changed)])[0])


@pytest.mark.parametrize("options", [{"stride": "x"}, {"start": True}, {"stop": [3]}])
def test_options_of_a_log_that_make_no_sense(
    saliency_log: Path, clip: Path, tmp_path: Path, options: dict[str, object]
) -> None:
    document = json.loads(saliency_log.read_text())
    document["provenance"]["options"] |= options
    changed = tmp_path / "changed.json"
    changed.write_text(json.dumps(document))
    with pytest.raises(LogError, match="provenance"):
        make_media(MediaOptions(str(clip)), read_rows([str(changed)])[0])


def score_log(clip: Path, distorted: Path, out: Path, *words: str) -> Path:
    """What `eyeline score` writes of the pair."""
    command = [
        "score",
        str(clip),
        str(distorted),
        "-o",
        str(out),
        "--metrics",
        "psnr",
        "-q",
        *words,
    ]
    subprocess.run([sys.executable, "-m", "eyeline", *command], check=True)
    return out


def test_a_score_log_has_the_heat_of_its_weights(
    clip: Path, distorted: Path, tmp_path: Path
) -> None:
    log = read_rows([str(score_log(clip, distorted, tmp_path / "s.json"))])[0]
    media = make_media(MediaOptions(str(clip), distorted=str(distorted)), log)
    assert "heat" in media["tracks"]
    assert "saliency_gaze_v1 (map: gaze)" in media["maps"]


def test_a_pair_scored_in_part_has_the_pictures_of_that_part(
    clip: Path, distorted: Path, tmp_path: Path
) -> None:
    log = read_rows([str(score_log(clip, distorted, tmp_path / "s.json", "--frames", "3"))])[0]
    media = make_media(MediaOptions(str(clip), distorted=str(distorted)), log)
    assert media["frames"] == [0, 1, 2]
    assert len(media["tracks"]["distorted"]) == 3


def test_a_pair_scored_with_offsets_is_paired_by_them(clip: Path, tmp_path: Path) -> None:
    objects = ("--map", "objects")  # maps that do not depend on where a run begins
    whole = read_rows([str(score_log(clip, clip, tmp_path / "w.json", *objects))])[0]
    want = make_media(MediaOptions(str(clip), distorted=str(clip)), whole)
    words = ("--ref-offset", "2", "--dist-offset", "3", "--frames", "2")
    log = read_rows([str(score_log(clip, clip, tmp_path / "s.json", *words, *objects))])[0]
    media = make_media(MediaOptions(str(clip), distorted=str(clip)), log)
    assert media["frames"] == [0, 1]
    assert media["tracks"]["picture"] == want["tracks"]["picture"][2:4]
    assert media["tracks"]["distorted"] == want["tracks"]["distorted"][3:5]
    assert media["tracks"]["heat"] == want["tracks"]["heat"][2:4]


def test_a_log_of_every_second_frame_has_those_pictures(
    clip: Path, distorted: Path, scores: Path, tmp_path: Path
) -> None:
    document = json.loads(scores.read_text())
    document["frames"] = document["frames"][::2]  # as libvmaf's n_subsample=2 leaves them
    half = tmp_path / "half.json"
    half.write_text(json.dumps(document))
    log = read_rows([str(half)])[0]
    media = make_media(MediaOptions(str(clip), distorted=str(distorted)), log)
    assert media["frames"] == list(range(0, FRAMES, 2))


def test_a_pair_that_was_cropped_is_refused(clip: Path, distorted: Path, tmp_path: Path) -> None:
    words = ("--crop", f"{WIDTH // 2}:{HEIGHT // 2}:0:0")
    log = read_rows([str(score_log(clip, distorted, tmp_path / "s.json", *words))])[0]
    with pytest.raises(LogError, match=r"scored with crop.*--no-media"):
        make_media(MediaOptions(str(clip), distorted=str(distorted)), log)
