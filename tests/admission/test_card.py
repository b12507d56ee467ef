"""Cards: every number from a source, and a check that notices when one moves."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from eyeline.admission.card import GAZE_QUALITY, check_card, make_card
from eyeline.digests import sha256_hex
from eyeline.errors import RegistryError
from eyeline.registry.registry import Registry
from tiny_models import RED, conv, make_model, plane_weights, write_registry

DOCS = Path(__file__).parents[2] / "docs/models"

NO_MASKS = {
    "schema_version": 1, "lower_is_better": [], "results": [], "comparisons": [], "notes": [],
}  # fmt: skip
"""An evaluation that holds no dataset with masks."""


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """The words of the placeholder, and a made-up evaluation of its very bytes."""
    shutil.copy(DOCS / "placeholder.toml", tmp_path)
    estimate = {"value": 0.25, "low": 0.2, "high": 0.3}
    row = {
        "model": "placeholder", "model_sha256": Registry().get("placeholder").sha256,
        "parameters": 4, "smoke": True, "io": {}, "dataset": "discs", "dataset_digest": "d" * 64,
        "size": "model", "working_size": [64, 48], "latency_ms": 0.1, "image_count": 7,
        "estimates": dict.fromkeys(
            ("max_fmeasure_dataset", "max_fmeasure_mean", "mae", "iou", "smeasure"), estimate
        ),
    }  # fmt: skip
    other = row | {"model": "other", "model_sha256": "0" * 64}
    difference = {"max_fmeasure_dataset": estimate | {"value": -0.5, "p_value": 0.0001}}
    evaluation = {
        "schema_version": 1,
        "lower_is_better": ["mae"],
        "results": [row, other],
        "comparisons": [
            {
                "dataset": "discs",
                "model": "other",
                "other": "placeholder",
                "differences": difference,
            }
        ],
        "notes": ["a note"],
    }
    (tmp_path / "placeholder.evaluation.json").write_text(json.dumps(evaluation))
    return tmp_path


def test_quality_comes_from_the_evaluation(sources: Path) -> None:
    card = make_card(Registry().get("placeholder"), sources)
    assert "| **placeholder** | 4 | 64x48 | 0.1 | 0.250 [0.200, 0.300] |" in card
    assert "- against other: max F +0.500 (p < 0.001, paired bootstrap)" in card


def test_an_evaluation_with_each_image_serves_as_its_summary_does(sources: Path) -> None:
    model, path = Registry().get("placeholder"), sources / "placeholder.evaluation.json"
    card = make_card(model, sources)
    whole = json.loads(path.read_text())
    for row in whole["results"]:
        row["images"] = [{}] * row.pop("image_count")
    path.write_text(json.dumps(whole))
    assert make_card(model, sources) == card


@pytest.mark.parametrize(
    "content", ['{"results": []}', "[]", '{"results": [{"model_sha256": "SHA", "dataset": "d"}]}']
)
def test_an_evaluation_that_is_none_is_one_line(sources: Path, content: str) -> None:
    model = Registry().get("placeholder")
    text = content.replace("SHA", model.sha256)
    (sources / "placeholder.evaluation.json").write_text(text)
    with pytest.raises(RegistryError) as caught:
        make_card(model, sources)
    assert "\n" not in str(caught.value)


def test_operators_come_from_a_scan_of_the_file(sources: Path) -> None:
    card = make_card(Registry().get("placeholder"), sources)
    assert "Conv 1, Sigmoid 1: all admitted" in card


def test_an_evaluation_of_other_bytes_is_refused(sources: Path) -> None:
    path = sources / "placeholder.evaluation.json"
    path.write_text(path.read_text().replace(Registry().get("placeholder").sha256, "1" * 64))
    with pytest.raises(RegistryError, match="has no results of a model with this sha256"):
        make_card(Registry().get("placeholder"), sources)


def test_a_number_that_moved_fails_the_check(sources: Path) -> None:
    model = Registry().get("placeholder")
    card = make_card(model, sources)
    assert check_card(card, model, sources) == []
    path = sources / "placeholder.evaluation.json"
    path.write_text(path.read_text().replace("0.25", "0.26"))
    assert any("0.260 [" in line for line in check_card(card, model, sources))


def test_a_card_without_words_says_where_they_belong(tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match=r"placeholder\.toml.*texts for the model card"):
        make_card(Registry().get("placeholder"), tmp_path)


def test_the_command_exits_with_1_when_a_card_was_edited(sources: Path, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "eyeline", "model", "card", "placeholder", "--sources", sources]
    target = tmp_path / "card.md"
    subprocess.run([*words, "-o", target], check=True)
    assert subprocess.run([*words, "--check", target], check=False).returncode == 0
    target.write_text(target.read_text().replace("role `smoke`", "role `production`"))
    done = subprocess.run([*words, "--check", target], capture_output=True, check=False, text=True)
    assert done.returncode == 1
    assert "differs from its sources" in done.stderr
    assert "role `production`" in done.stdout


QDQ = make_model(
    [
        helper.make_node("QuantizeLinear", ["input", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["x"]),
        conv("x"),
    ],
    {"s": np.full(1, 0.05, np.float32), "z": np.full(1, 128, np.uint8)} | plane_weights(RED),
)


@pytest.fixture
def quantised(tmp_path: Path) -> Path:
    """A registry with a quantised model, its words, and a made-up report of its quantisation."""
    write_registry(tmp_path, {"small": QDQ})
    words = ('does = "a"', 'meaning = "b"', 'calibration = "duts-tr"')
    (tmp_path / "small.toml").write_text("\n".join(words))
    (tmp_path / "big.md").write_text("the float model's card")
    report = {
        "kind": "quantisation", "passed": True, "reasons": [],
        "source": {"name": "big", "sha256": "a" * 64, "bytes": 4000, "parameters": 4},
        "model": {"file": "small.onnx", "sha256": sha256_hex(QDQ), "bytes": 1234},
        "how": {
            "method": "percentile", "ops": ["Conv", "Add"], "keep_float": ["Conv:0"],
            "activations": "uint8", "weights": "int8, 7 bits used", "per_channel": True,
        },
        "calibration": {"data": "DUTS-TR", "images": 200, "sha256": "c" * 64},
        "check": {"data": "DUTS-TR", "images": 100, "sha256": "d" * 64},
        "limits": {"shift": 0.01, "ratio": 1.0},
        "losses": [{
            "lines": 192, "images": 100, "map_mean": 0.0044, "map_max": 0.43, "shift": 0.0029,
            "shift_max": 0.08, "bias": 0.001, "iou": 0.98,
        }],
        "speed": {
            "size": [341, 192], "float_ms": 3.0, "quantized_ms": 2.0, "runs": 41, "ratio": 1.5,
        },
        "versions": {"onnxruntime": "1.31.1"}, "machine": {"machine": "x86_64", "vnni": True},
    }  # fmt: skip
    (tmp_path / "small.quantization.json").write_text(json.dumps(report))
    return tmp_path


def test_a_quantised_model_says_from_what_how_and_at_what_cost(quantised: Path) -> None:
    card = make_card(Registry(quantised).get("small"), quantised)
    assert f"Made from `big` ([card](big.md)), sha256 `{'a' * 64}`" in card
    assert (
        "; these nodes stay float: Conv:0. Activations are uint8. Weights are int8, 7 bits" in card
    )
    assert "by the method percentile over 200 images of DUTS-TR (digest `cccccccccccccccc`)" in card
    assert "Data: DUTS-TR, 10,553 images" in card
    assert "| 192 | 100 | 0.0044 | 0.430 | 0.0029 | 0.0800 | 0.980 |" in card
    assert "takes 2.00 ms, and the float model 3.00 ms: 1.50 times as fast" in card
    assert "At 341x192 on one thread" in card


def test_a_quantised_model_without_its_report_has_no_card(quantised: Path) -> None:
    (quantised / "small.quantization.json").unlink()
    with pytest.raises(RegistryError, match=r"small\.quantization\.json is missing"):
        make_card(Registry(quantised).get("small"), quantised)


def test_a_quantisation_of_other_bytes_is_refused(quantised: Path) -> None:
    path = quantised / "small.quantization.json"
    path.write_text(path.read_text().replace(sha256_hex(QDQ), "0" * 64))
    with pytest.raises(RegistryError, match="describes a file with another sha256"):
        make_card(Registry(quantised).get("small"), quantised)


@pytest.mark.parametrize("content", ["[]", "{}", '{"model": 3}', "no JSON"])
def test_a_quantisation_that_is_no_report_is_refused(quantised: Path, content: str) -> None:
    (quantised / "small.quantization.json").write_text(content)
    with pytest.raises(RegistryError, match=r"small\.quantization\.json"):
        make_card(Registry(quantised).get("small"), quantised)


def test_calibration_data_without_terms_is_refused(quantised: Path) -> None:
    (quantised / "small.toml").write_text('does = "a"\nmeaning = "b"\n')
    with pytest.raises(RegistryError, match="not in the catalogue"):
        make_card(Registry(quantised).get("small"), quantised)


def test_a_loss_that_moved_fails_the_check(quantised: Path) -> None:
    model = Registry(quantised).get("small")
    card = make_card(model, quantised)
    assert check_card(card, model, quantised) == []
    path = quantised / "small.quantization.json"
    path.write_text(path.read_text().replace("0.0044", "0.0045"))
    assert any("0.0045" in line for line in check_card(card, model, quantised))


@pytest.mark.parametrize("model", list(Registry()), ids=lambda m: m.id)
def test_the_cards_of_the_built_in_models_hold(model) -> None:  # type: ignore[no-untyped-def]
    assert check_card((DOCS / f"{model.id}.md").read_text(), model, DOCS) == []


# --- a gaze model


@pytest.fixture
def gaze(tmp_path: Path) -> Path:
    """A registry with a gaze model, and the sources of its card beside it."""
    data = make_model([conv()], plane_weights(RED))
    io = {"working_lines": 64, "multiple": 1, "temporal_ms": 150}
    write_registry(tmp_path, {"eyes": data}, schema_version=3, task="gaze", io=io)
    (tmp_path / "eyes.toml").write_text(
        'does = "Predicts gaze."\nmeaning = "1 is the place that is looked at most."\ndata = ["osie"]\n'
    )

    def estimates(nss: float) -> dict[str, dict[str, float]]:
        return {m: {"value": nss, "low": nss - 1, "high": nss + 10} for m in GAZE_QUALITY}

    facts = {"dataset": "clips", "stimuli": 5, "kind": "videos", "fixations": 4167, "viewers": 32}
    facts |= {"digest": "d" * 64, "temporal": "model"}
    own = {
        "model": "eyes", "model_sha256": sha256_hex(data), "parameters": 4, "smoke": False, "io": io,
        "size": "model", "dataset": "clips", "dataset_digest": "d" * 64,
        "working_size": [114, 64], "latency_ms": 0.1, "baseline": False, "estimates": estimates(2.9),
    }  # fmt: skip
    prior = dict.fromkeys(
        ("model_sha256", "parameters", "io", "size", "working_size", "latency_ms")
    )
    prior |= {"model": "centre prior", "dataset": "clips", "dataset_digest": "d" * 64}
    prior |= {"baseline": True, "smoke": False}
    difference = {"value": 1.5, "low": 1, "high": 2, "p_value": 0.0005}
    found = {
        "lower_is_better": ["kl"],
        "sets": [facts],
        "results": [own, prior | {"estimates": estimates(1.4)}],
        "comparisons": [
            {
                "dataset": "clips",
                "model": "eyes",
                "other": "centre prior",
                "differences": {"nss": difference, "information_gain": difference},
            }
        ],
        "notes": ["a note"],
    }
    (tmp_path / "eyes.evaluation.json").write_text(json.dumps(NO_MASKS | {"gaze": found}))
    backbone = {"url": "https://example.org/net.tflite", "sha256": "a" * 64}
    backbone |= {"license": "Apache-2.0", "trained_on": ["ImageNet", "COCO"]}
    recipe = {"name": "gaze_v1", "epochs": 24, "batch": 16, "optimizer": "adamw", "lr": 0.001}
    run = {
        "recipe": recipe | {"seed": 0, "unlabelled": 16, "backbone": backbone},
        "images": {"train": 1353, "selection": 184}, "versions": {"torch": "2"}, "device": "cpu",
        "curve": [{"loss": -0.5}], "machine": "x86_64", "data_digest": "b" * 64,
    }  # fmt: skip
    (tmp_path / "eyes.run.json").write_text(json.dumps(run))
    return tmp_path


def test_the_card_of_a_gaze_model_has_the_table_of_gaze(gaze: Path) -> None:
    card = make_card(Registry(gaze).get("eyes"), gaze)
    assert (
        "clips, 5 videos with 4,167 fixations of 32 viewers; 95 % bootstrap intervals over" in card
    )
    assert "| **eyes** | 4 | 114x64 | 0.1 | 2.900 [1.900, 12.900] |" in card
    assert "| centre prior | - | - | - | 1.400 [0.400, 11.400] |" in card
    assert (
        "- against centre prior: NSS +1.500 (p < 0.001, paired bootstrap); information gain" in card
    )
    assert "max F" not in card
    assert "task `gaze`, role `candidate`" in card
    assert "with a time constant of 150 ms" in card


def test_the_card_of_a_gaze_model_says_where_its_encoder_comes_from(gaze: Path) -> None:
    card = make_card(Registry(gaze).get("eyes"), gaze)
    assert "https://example.org/net.tflite" in card
    assert "were trained on ImageNet, COCO." in card
    assert (
        "24 epochs of 1,353 images, batch 16 and 16 images with a teacher's density, adamw" in card
    )
    assert "OSIE, 700 images" in card


def test_the_card_of_a_gaze_model_needs_an_evaluation_of_gaze(gaze: Path) -> None:
    (gaze / "eyes.evaluation.json").write_text(json.dumps(NO_MASKS))
    with pytest.raises(RegistryError, match="has no results on a fixation set"):
        make_card(Registry(gaze).get("eyes"), gaze)
