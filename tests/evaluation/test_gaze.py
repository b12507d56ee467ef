"""Models with known answers over fixation sets made here: rows, baselines, resuming, reports."""

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clips import write_clip
from eyeline.admission.card import make_card
from eyeline.admission.promote import promote
from eyeline.datasets.fixations import fold_of, load_fixation_set
from eyeline.errors import DatasetError, UsageError
from eyeline.evaluation.benchmark import evaluate
from eyeline.evaluation.gaze import (
    EvaluateOptions,
    GazeJudge,
    GazeOptions,
    ScoreBaseline,
    judged_frames,
)
from eyeline.evaluation.gaze_metrics import (
    GAZE_MEASURES,
    combined,
    fit_prior,
    priors_for,
    shipped_priors,
)
from eyeline.evaluation.report import CELL, GAP, LINE, contact_sheet, html_page, markdown
from eyeline.evaluation.results import EvaluationReport, GazeResult
from eyeline.registry.registry import Model, Registry
from tiny_models import plane_model, write_registry

ROOT = Path(__file__).parents[2]
WIDTH, HEIGHT = 80, 60
IMAGES, VIEWERS = 10, 6
FPS, FRAMES = 25, 20
Places = list[tuple[float, float]]


def disc(x: float, y: float) -> np.ndarray:
    """A red disc around a place, on a blue ground."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    inside = (columns - x * WIDTH) ** 2 + (rows - y * HEIGHT) ** 2 < 64
    picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    picture[inside, 0] = 255
    picture[~inside, 2] = 200
    return picture


def places(count: int, seed: int = 0) -> Places:
    """Centres of discs, away from the middle and from the edges."""
    angles = np.random.default_rng(seed).uniform(0, 2 * np.pi, count)
    return [(float(0.5 + 0.3 * np.cos(a)), float(0.5 + 0.3 * np.sin(a))) for a in angles]


def make_images(root: Path, count: int = IMAGES, *, extra: str = "") -> Path:
    """Images with a red disc that every viewer looks at."""
    (root / "images").mkdir(parents=True)
    rng = np.random.default_rng(1)
    rows = ["image,viewer,x,y,duration_ms"]
    for i, (x, y) in enumerate(places(count)):
        Image.fromarray(disc(x, y)).save(root / "images" / f"{i:02}.png")
        for viewer in range(VIEWERS):
            dx, dy = rng.normal(0, 0.02, 2)
            rows.append(f"{i:02},{viewer},{x + dx:.4f},{y + dy:.4f},200")
    (root / "fixations.csv").write_text("\n".join(rows) + "\n" + extra)
    return root


def make_videos(root: Path, count: int = 3) -> Path:
    """Videos whose disc jumps in the middle; viewers look at it at once, the last one never."""
    (root / "videos").mkdir(parents=True)
    rows = ["video,viewer,onset_ms,duration_ms,x,y"]
    length = FRAMES / FPS * 1000
    for i in range(count):
        ends = places(2, seed=10 + i)
        frames = [disc(*ends[n >= FRAMES // 2]) for n in range(FRAMES)]
        write_clip(root / "videos" / f"clip{i}.mkv", frames)
        for viewer in range(VIEWERS):
            for part, (x, y) in enumerate(ends):
                shift = 2 * viewer
                at = f"{x * WIDTH + shift - 5:.2f},{y * HEIGHT + shift - 5:.2f}"
                rows.append(f"clip{i},{viewer},{part * length / 2},{length / 2},{at}")
    (root / "fixations.csv").write_text("\n".join(rows) + "\n")
    return root


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_images(tmp_path_factory.mktemp("data") / "discs")


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_videos(tmp_path_factory.mktemp("data") / "jumps")


@pytest.fixture(scope="module")
def report(images: Path, red: Model, blue: Model) -> EvaluationReport:
    return evaluate([red, blue], [images], EvaluateOptions(draws=200))


@pytest.fixture(scope="module")
def video_report(videos: Path, red: Model) -> EvaluationReport:
    options = EvaluateOptions(draws=200, gaze=GazeOptions(frames=6, temporal="none"))
    return evaluate([red], [videos], options)


def by_name(report: EvaluationReport) -> dict[str, GazeResult]:
    return {r.model: r for r in report.gaze.results}


def value(result: GazeResult, measure: str) -> float:
    return result.estimates[measure].value


def without_clock(report: EvaluationReport) -> list[object]:
    return [[replace(r, latency_ms=None) for r in report.gaze.results], report.gaze.comparisons]


# Models and baselines


def test_models_come_first_and_the_three_baselines_always_follow(report: EvaluationReport) -> None:
    assert list(by_name(report)) == ["red", "blue", "uniform", "centre prior", "inter-observer"]
    assert report.results == []


def test_the_right_map_beats_the_prior_and_the_wrong_one_does_not(report: EvaluationReport) -> None:
    found = by_name(report)
    for measure in ("nss", "cc", "auc_judd", "shuffled_auc", "information_gain"):
        assert value(found["red"], measure) > value(found["centre prior"], measure)
        assert value(found["red"], measure) > value(found["blue"], measure)
    assert value(found["red"], "kl") < value(found["centre prior"], "kl")
    assert value(found["blue"], "nss") < 0
    assert value(found["blue"], "shuffled_auc") < 0.1


def test_the_baselines_have_their_known_values(report: EvaluationReport) -> None:
    found = by_name(report)
    assert value(found["uniform"], "nss") == value(found["uniform"], "cc") == 0
    assert value(found["uniform"], "auc_judd") == value(found["uniform"], "shuffled_auc") == 0.5
    assert value(found["centre prior"], "information_gain") == 0
    assert value(found["inter-observer"], "nss") > value(found["red"], "nss")


def test_models_are_compared_with_each_other_and_with_the_prior(report: EvaluationReport) -> None:
    pairs = {(c.model, c.other): c.differences["nss"] for c in report.gaze.comparisons}
    assert set(pairs) == {("blue", "red"), ("red", "centre prior"), ("blue", "centre prior")}
    assert pairs["blue", "red"].high < 0
    assert pairs["blue", "red"].p_value == pytest.approx(2 / 201)
    nss = {name: value(r, "nss") for name, r in by_name(report).items()}
    assert pairs["blue", "red"].value == pytest.approx(nss["blue"] - nss["red"])


def test_the_numbers_hardly_depend_on_the_resolution(images: Path, red: Model) -> None:
    fine, coarse = (
        by_name(
            evaluate([red], [images], EvaluateOptions(draws=10, gaze=GazeOptions(longest_side=n)))
        )
        for n in (80, 160)
    )
    for measure in ("nss", "cc", "auc_judd"):
        for name in ("red", "centre prior", "inter-observer"):
            assert value(fine[name], measure) == pytest.approx(
                value(coarse[name], measure), rel=0.03
            )


def test_processes_change_nothing(images: Path, red: Model, report: EvaluationReport) -> None:
    options = EvaluateOptions(draws=200, workers=2)
    parallel = by_name(evaluate([red], [images], options))
    for name, result in parallel.items():
        assert result.estimates == by_name(report)[name].estimates


def test_a_finished_run_is_not_made_again(
    images: Path, red: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = EvaluateOptions(draws=50, resume=tmp_path / "kept")
    first = evaluate([red], [images], options)

    def refuse(*_: object) -> None:
        raise AssertionError("a finished row was made again")

    monkeypatch.setattr("eyeline.evaluation.gaze.ScoreStimulus.__call__", refuse)
    monkeypatch.setattr("eyeline.evaluation.gaze.ScoreBaseline.__call__", refuse)
    assert without_clock(evaluate([red], [images], options)) == without_clock(first)


def test_another_blur_is_another_run(images: Path, red: Model, tmp_path: Path) -> None:
    kept = EvaluateOptions(draws=50, resume=tmp_path / "kept")
    narrow = evaluate([red], [images], kept)
    wide = evaluate([red], [images], replace(kept, gaze=GazeOptions(pixels_per_degree=8)))
    assert value(by_name(wide)["red"], "cc") != value(by_name(narrow)["red"], "cc")
    assert value(by_name(wide)["red"], "nss") == value(by_name(narrow)["red"], "nss")
    assert "one degree of visual angle, 8 pixels" in markdown(wide)
    assert "3% of the width" in markdown(narrow)


def test_masks_and_fixations_in_one_run(images: Path, red: Model, tmp_path: Path) -> None:
    pytest.importorskip("py_sod_metrics")
    for folder in ("images", "masks"):
        (tmp_path / "squares" / folder).mkdir(parents=True)
        picture = Image.fromarray(disc(0.3, 0.4))
        (picture if folder == "images" else picture.getchannel(0)).save(
            tmp_path / "squares" / folder / "a.png"
        )
    found = evaluate([red], [tmp_path / "squares", images], EvaluateOptions(draws=10))
    assert [r.dataset for r in found.results] == ["squares"]
    assert {r.dataset for r in found.gaze.results} == {"discs"}
    text = markdown(found)
    assert "### squares, 1 images" in text
    assert "### discs: 10 images" in text


# Videos


def test_judged_frames_stand_in_the_middle_of_equal_parts() -> None:
    assert judged_frames(20, 4) == [2, 7, 12, 17]
    assert judged_frames(3, 24) == [0, 1, 2]


def test_frames_are_judged_by_the_fixations_of_their_time(video_report: EvaluationReport) -> None:
    result = by_name(video_report)["red"]
    frames = result.stimuli[0]["frames"]
    assert [f["time_ms"] for f in frames] == [
        pytest.approx(1000 * n / FPS, abs=1) for n in judged_frames(FRAMES, 6)
    ]
    assert {f["fixations"] for f in frames} == {VIEWERS}
    assert min(f["nss"] for f in frames) > 2  # after the jump, too


def test_history_follows_late(videos: Path, red: Model, video_report: EvaluationReport) -> None:
    """A moving average still shows the old place after the jump, unless the filter sees a cut."""
    options = EvaluateOptions(draws=10, gaze=GazeOptions(frames=FRAMES, temporal="ema"))
    single = replace(options, gaze=GazeOptions(frames=FRAMES, temporal="none"))
    late, prompt = (by_name(evaluate([red], [videos], o))["red"] for o in (options, single))
    after = FRAMES // 2
    assert late.stimuli[0]["frames"][after]["nss"] < prompt.stimuli[0]["frames"][after]["nss"]
    assert late.stimuli[0]["frames"][0]["nss"] == prompt.stimuli[0]["frames"][0]["nss"]


def test_intervals_are_over_videos(video_report: EvaluationReport) -> None:
    """Three videos have at most ten distinct draws; their frames would have many more."""
    result = by_name(video_report)["inter-observer"]
    means = np.array([row["nss"] for row in result.stimuli])
    e = result.estimates["nss"]
    assert e.value == pytest.approx(means.mean())
    assert means.min() <= e.low <= e.high <= means.max()
    assert e.low == pytest.approx(means.min())


def test_one_video_has_no_interval(tmp_path: Path, red: Model) -> None:
    root = make_videos(tmp_path / "one", count=1)
    found = evaluate([red], [root], EvaluateOptions(gaze=GazeOptions(frames=3)))
    e = by_name(found)["red"].estimates
    assert np.isfinite(e["nss"].value) and np.isnan(e["nss"].low)
    assert np.isnan(e["shuffled_auc"].value)  # there is no other video
    assert found.dumps()


def test_a_frame_that_nobody_looks_at_has_no_score(tmp_path: Path, red: Model) -> None:
    root = make_videos(tmp_path / "late", count=2)
    lines = (root / "fixations.csv").read_text().splitlines()
    kept = [line for line in lines if not line.startswith("clip0") or ",400.0,400.0" in line]
    (root / "fixations.csv").write_text("\n".join(kept) + "\n")
    options = EvaluateOptions(draws=10, gaze=GazeOptions(frames=4, temporal="none"))
    found = evaluate([red], [root], options)
    frames = by_name(found)["red"].stimuli[0]["frames"]
    assert [f["nss"] is None for f in frames] == [True, True, False, False]
    assert found.gaze.sets[0].empty == 2
    assert "(2 without a fixation)" in markdown(found)


@pytest.mark.usefixtures("no_builtin_models")
def test_the_promotion_gate_and_the_card_read_what_an_evaluation_writes(tmp_path: Path) -> None:
    videos = make_videos(tmp_path / "jumps", count=6)  # of fewer, p would be above 0.05
    io = {"working_lines": HEIGHT, "multiple": 1, "temporal_ms": 20}
    models = {"eyes": plane_model((1.0, 0.0, 0.0), gain=0.998, offset=0.001)}
    folder = write_registry(tmp_path / "r", models, schema_version=3, task="gaze", io=io)
    report = evaluate([Registry(folder).get("eyes")], [videos], EvaluateOptions(draws=200))
    path = folder / "eyes.evaluation.json"
    path.write_text(report.summary())
    margins = "".join(
        f'[[better]]\nmeasure = "{m}"\nmargin = 0.0\nagainst = "centre prior"\n'
        for m in ("nss", "information_gain")
    )
    (folder / "promotion_gaze.toml").write_text(
        f"schema_version = 1\nsignificance = 0.05\n{margins}"
        "[latency]\nmilliseconds = 1e6\n"
        f'[[set]]\nname = "jumps"\ndigest = "{report.gaze.sets[0].digest}"\n'
    )
    decision = promote("eyes", folder, report=path)
    assert decision.promoted, decision.grounds
    assert {"nss against the centre prior on jumps", "latency on jumps"} <= {
        g.name for g in decision.grounds
    }
    (folder / "eyes.toml").write_text('does = "Follows the disc."\nmeaning = "Red."\n')
    card = make_card(Registry(folder).get("eyes"), folder)
    assert "jumps, 6 videos with" in card
    assert "| **eyes** | 4 | 80x60 |" in card
    assert "| inter-observer | - | - | - |" in card
    assert "with each model's own temporal filter" in card


def test_a_squash_can_not_be_asked_for_with_videos(videos: Path, red: Model) -> None:
    with pytest.raises(UsageError, match="--size 64x64 may change the aspect"):
        evaluate([red], [videos], EvaluateOptions(size=(64, 64)))


# Baselines


def test_the_prior_is_never_fitted_on_the_set_that_is_judged(images: Path, tmp_path: Path) -> None:
    shipped = {p.name: p for p in shipped_priors()}
    assert set(shipped) == {"osie", "crowd", "scene"}
    judged = load_fixation_set(images)
    assert len(priors_for(judged)) == 3
    for name, digest in (("mine", shipped["osie"].digest), ("OSIE", "0" * 64)):
        used = priors_for(replace(judged, name=name, digest=digest))
        assert [p.name for p in used] == ["crowd", "scene"]
    with pytest.raises(UsageError, match="the set that is evaluated"):
        priors_for(judged, [fit_prior(judged)])


def test_a_prior_of_ones_own_set(images: Path, videos: Path, red: Model) -> None:
    found = evaluate([red], [videos], EvaluateOptions(draws=10, prior=(images,)))
    [used] = found.gaze.sets
    assert [p.name for p in used.prior_sets] == ["discs"]
    x = np.concatenate([s.fixations.x for s in load_fixation_set(images).stimuli])
    assert (used.prior.x, used.prior.std_x) == pytest.approx((x.mean(), x.std()), abs=1e-4)


def test_several_priors_weigh_alike(images: Path) -> None:
    one = fit_prior(load_fixation_set(images))
    other = replace(one, x=one.x + 0.2, fixations=10 * one.fixations)
    both = combined([one, other])
    assert both.x == pytest.approx(one.x + 0.1)
    assert both.std_x**2 == pytest.approx(one.std_x**2 + 0.01)
    assert both.std_y == pytest.approx(one.std_y)


def test_observers_do_not_depend_on_what_else_is_judged(images: Path) -> None:
    dataset = load_fixation_set(images)
    judge = GazeJudge(dataset, combined(shipped_priors()), GazeOptions())
    score = ScoreBaseline("inter-observer", judge, seed=1)
    jobs = [(s, (0.0,)) for s in dataset.stimuli]
    assert [score(j) for j in jobs] == [score(j) for j in reversed(jobs)][::-1]
    assert score(jobs[0]) != ScoreBaseline("inter-observer", judge, seed=2)(jobs[0])


def test_a_single_viewer_predicts_nobody(tmp_path: Path, red: Model) -> None:
    root = make_images(tmp_path / "alone", 3)
    lines = (root / "fixations.csv").read_text().splitlines()
    kept = [lines[0], *(line for line in lines if line.split(",")[1] == "0")]
    (root / "fixations.csv").write_text("\n".join(kept) + "\n")
    found = by_name(evaluate([red], [root], EvaluateOptions(draws=10)))
    assert np.isnan(value(found["inter-observer"], "nss"))
    assert value(found["red"], "nss") > 2


# What people look at


def test_the_tables_have_every_row_with_intervals(report: EvaluationReport) -> None:
    text = markdown(report)
    rows = {line.split(" | ")[0]: line for line in text.splitlines()}
    nss = by_name(report)["red"].estimates["nss"]
    assert f"{nss.value:.3f} [{nss.low:.3f}, {nss.high:.3f}]" in rows["| red"]
    assert "0.000 [0.000, 0.000]" in rows["| centre prior"]
    assert "(p " in rows["| blue - red"]
    assert "fitted on osie, crowd, scene" in text
    assert f"{IMAGES * VIEWERS} fixations of {VIEWERS} viewers" in text
    assert html_page(report).count("<tr>") == 2 + 5 + 3


def test_json_has_every_image_and_the_summary_none(report: EvaluationReport) -> None:
    whole, short = json.loads(report.dumps())["gaze"], json.loads(report.summary())["gaze"]
    assert set(whole["measures"]) == set(GAZE_MEASURES)
    assert whole["lower_is_better"] == ["kl"]
    first = whole["results"][0]
    assert len(first["stimuli"]) == IMAGES
    assert set(first["stimuli"][0]) == {"name", "fixations", *GAZE_MEASURES}
    assert first["model_sha256"] and whole["results"][-1]["model_sha256"] is None
    assert short["results"][0]["stimulus_count"] == IMAGES
    assert "stimuli" not in short["results"][0]
    assert short["results"][0]["estimates"] == first["estimates"]


def test_problems_of_the_data_stand_in_the_report(tmp_path: Path, red: Model) -> None:
    root = make_images(tmp_path / "bad", 3, extra="00,0,1.5,0.5,200\nxx,0,0.5,0.5,200\n")
    found = evaluate([red], [root], EvaluateOptions(draws=10))
    assert {p.count for p in found.gaze.sets[0].problems} == {1}
    assert "| outside the picture | 1 | 00, line" in markdown(found)


def test_the_contact_sheet_shows_fixations_density_and_map(
    images: Path, videos: Path, red: Model, tmp_path: Path
) -> None:
    options = EvaluateOptions(draws=10, gaze=GazeOptions(frames=4))
    found = evaluate([red], [images, videos], options)
    sheet = Image.open(io.BytesIO(contact_sheet(found, [red], [images, videos], options)))
    worst = found.gaze.results[0].worst
    assert len(worst) == IMAGES
    x, y = places(IMAGES)[int(worst[0][1])]
    top = 3 * LINE + int(y * CELL[1])
    at = [(GAP + i * (CELL[0] + GAP) + int(x * CELL[0]), top) for i in range(3)]
    density, saliency = (min(sheet.getpixel(p)) for p in at[1:])
    assert density > 120 and saliency > 200  # viewers look at the disc, and the map shows it
    box = np.asarray(sheet.crop((GAP, 3 * LINE, GAP + CELL[0], 3 * LINE + CELL[1])))
    pink = (box[..., 0] > 230) & (box[..., 1] < 80) & (np.abs(box[..., 2] - 149.0) < 40)
    assert pink.any()


def test_the_contact_sheet_shows_strips(tmp_path: Path, red: Model) -> None:
    root = make_images(tmp_path / "strips", 1)
    Image.new("RGB", (4096, 2), (200, 0, 0)).save(root / "images" / "00.png")
    options = EvaluateOptions(draws=10)
    found = evaluate([red], [root], options)
    sheet = Image.open(io.BytesIO(contact_sheet(found, [red], [root], options)))
    assert sheet.height == 4 * LINE + GAP + 1  # a title, a label, and a picture of one line


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"frames": 0}, "--frames is 0"),
        ({"temporal": "smooth"}, "--temporal 'smooth' is not a temporal filter"),
        ({"pixels_per_degree": -1.0}, "--pixels-per-degree is -1"),
    ],
)
def test_options_out_of_range_say_what_is_allowed(options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        GazeOptions(**options)


def test_a_fold_of_training_is_judged_alone(images: Path, red: Model, tmp_path: Path) -> None:
    folds = {s.name: fold_of(s.digest) for s in load_fixation_set(images).stimuli}
    options = EvaluateOptions(gaze=GazeOptions(fold="train"))
    report = evaluate([red], [images], options).gaze
    judged = [row["name"] for row in report.results[0].stimuli]
    assert judged == [name for name, fold in folds.items() if fold == "train"]
    assert report.sets[0].fold == "train"


def test_an_empty_fold_and_an_unknown_one_are_refused(tmp_path: Path, red: Model) -> None:
    few = make_images(tmp_path / "few", 1)
    (fold,) = {fold_of(s.digest) for s in load_fixation_set(few).stimuli}
    other = "report" if fold != "report" else "select"
    with pytest.raises(DatasetError, match=f"is in the fold '{other}'"):
        evaluate([red], [few], EvaluateOptions(gaze=GazeOptions(fold=other)))
    with pytest.raises(UsageError, match="choose one of: train, select, report"):
        GazeOptions(fold="test")  # type: ignore[arg-type]


@pytest.mark.slow
def test_the_gaze_model_of_the_package_beats_the_centre_prior(shared_data: Path) -> None:
    """On five videos with recorded gaze that it never learned from, as its card says."""
    model = Registry().default("gaze")
    options = EvaluateOptions(draws=10, workers=0)
    found = evaluate([model], [shared_data / "gaze/hevc-dev.tar"], options)
    ours, prior = by_name(found)[model.id].estimates, by_name(found)["centre prior"].estimates
    assert ours["nss"].value > 2.5 > 1.6 > prior["nss"].value
    assert ours["cc"].value > 0.54 > prior["cc"].value
    assert ours["auc_judd"].value > 0.87 > prior["auc_judd"].value
    assert ours["information_gain"].value > 0.5
    card = json.loads((ROOT / f"docs/models/{model.id}.evaluation.json").read_text())
    (row,) = (
        r for r in card["gaze"]["results"] if r["model"] == model.id and r["dataset"] == "hevc-dev"
    )
    for measure, estimate in row["estimates"].items():
        assert ours[measure].value == pytest.approx(estimate["value"], abs=2e-3)
