"""Models: known answers of a regression made by hand, and files that must be refused."""

import json
import math

import numpy as np
import pytest

from eyeline.errors import MissingExtraError, ModelError, VerificationError
from eyeline.quality import sw_vmaf as svr
from eyeline.quality.sw_vmaf import load_model, parse_model

FEATURES = {"adm2": 0.9, "motion2": 4.0, "vif_scale0": 0.5}


def record(**changes):
    """One support vector at adm2 = 0.9 (scaled 1.8), motion2 = 4, vif_scale0 = 0.5."""
    model = {
        "model_type": "LIBSVMNUSVR",
        "norm_type": "linear_rescale",
        "feature_names": [f"VMAF_integer_feature_{name}_score" for name in FEATURES],
        "slopes": [0.01, 2, 1, 1],
        "intercepts": [-0.5, 0, 0, 0],
        "score_clip": [0, 100],
        "model": "svm_type nu_svr\nkernel_type rbf\ngamma 0.5\nnr_class 2\ntotal_sv 1\nrho 0.25\n"
        "SV\n0.75 1:1.8 2:4 3:0.5\n",
    }
    model.update(changes)
    return json.dumps({"model_dict": model}).encode()


def parsed(**changes):
    return parse_model(record(**changes), name="m", sha256="0", where="m.json")


def test_at_a_support_vector_the_kernel_is_one():
    # (0.75 * 1 - 0.25 + 0.5) / 0.01 = 100
    assert parsed().score(FEATURES) == pytest.approx(100)


def test_away_from_it_the_kernel_falls_by_the_scaled_distance():
    moved = FEATURES | {"adm2": 0.4}  # scaled by 2: a distance of 1
    expected = (0.75 * math.exp(-0.5) - 0.25 + 0.5) / 0.01
    assert parsed().score(moved) == pytest.approx(expected)


def test_scores_are_clipped():
    assert parsed(intercepts=[-5, 0, 0, 0]).score(FEATURES) == 100
    assert parsed(intercepts=[5, 0, 0, 0]).score(FEATURES) == 0


def test_gain_limits_are_read():
    options = [{"adm_enhn_gain_limit": 1.0}, {}, {"vif_enhn_gain_limit": 1.0}]
    model = parsed(feature_opts_dicts=options)
    assert (model.adm_gain_limit, model.vif_gain_limit) == (1, 1)
    assert (parsed().adm_gain_limit, parsed().vif_gain_limit) == (100, 100)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "RESIDUEBOOTSTRAP_LIBSVMNUSVR"}, "not supported"),
        ({"feature_names": ["speed_chroma", "adm2", "vif_scale0"]}, "speed_chroma"),
        ({"feature_opts_dicts": [{"adm_norm_view_dist": 5}, {}, {}]}, "adm_norm_view_dist"),
        ({"slopes": [1, 2]}, "slopes and intercepts for 1 and 3 features"),
        ({"model": "svm_type nu_svr\nkernel_type linear\nSV\n"}, "kernel linear"),
        ({"model": "svm_type nu_svr"}, "not a VMAF model"),
    ],
)
def test_other_models_are_refused_by_what_they_need(changes, message):
    with pytest.raises(ModelError, match=message):
        parsed(**changes)


@pytest.mark.parametrize("vector", ["0.75 0:1", "0.75 4:1", "0.75 x"])
def test_a_support_vector_out_of_range_is_refused(vector):
    text = "svm_type nu_svr\nkernel_type rbf\ngamma 1\ntotal_sv 1\nrho 0\nSV\n" + vector
    with pytest.raises(ModelError, match="not a VMAF model"):
        parsed(model=text)


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"model_dict": 3}', b"\xff\xfe"])
def test_bytes_that_are_no_model(data):
    with pytest.raises(ModelError, match="not a VMAF model"):
        parse_model(data, name="m", sha256="0", where="m.json")


def test_the_published_model_loads_with_its_pin():
    pytest.importorskip("ffmpeg_quality_metrics")
    model = load_model("vmaf_v0.6.1neg")
    assert model.sha256 == svr.PINNED["vmaf_v0.6.1neg"]
    assert model.vectors.shape == (211, 6)
    assert (model.vif_gain_limit, model.adm_gain_limit) == (1, 1)


def test_a_packaged_file_of_other_bytes_is_refused(monkeypatch, tmp_path):
    (tmp_path / "vmaf_v0.6.1.json").write_bytes(record())
    monkeypatch.setattr(svr, "_packaged", lambda name: tmp_path / f"{name}.json")
    with pytest.raises(VerificationError, match=r"the SHA-256 is \w+, expected"):
        load_model("vmaf_v0.6.1")


def test_without_the_package_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(svr, "PACKAGE", "no-such-package-here")
    with pytest.raises(MissingExtraError, match=r"eyeline\[vmaf\]"):
        load_model()


def test_a_path_is_read_without_a_pin(tmp_path):
    path = tmp_path / "mine.json"
    path.write_bytes(record())
    model = load_model(path)
    assert model.name == "mine"
    assert len(model.sha256) == 64


@pytest.mark.parametrize("name", ["vmaf_v9", "absent.json"])
def test_a_model_that_is_not_there(name):
    with pytest.raises(ModelError):
        load_model(name)


def test_scores_do_not_depend_on_the_order_of_support_vectors():
    text = "svm_type nu_svr\nkernel_type rbf\ngamma 0.5\ntotal_sv 2\nrho 0\nSV\n{}\n{}\n"
    a, b = "0.3 1:1 2:3", "-0.2 3:0.5"
    scores = [parsed(model=text.format(*pair)).score(FEATURES) for pair in ((a, b), (b, a))]
    assert np.isclose(*scores)
