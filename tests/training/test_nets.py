"""Nets: sizes and parameters with known answers, and nets that begin as the function of smaller ones."""

import json

import pytest

torch = pytest.importorskip("torch")
torch.set_num_threads(1)  # two threads on a busy machine wait for each other

from eyeline.errors import TrainingError  # noqa: E402
from eyeline.training._backbone import load_backbone  # noqa: E402
from eyeline.training.nets import (  # noqa: E402
    ARCHITECTURES,
    GazeNet,
    MobileNetV2,
    build_net,
    count_parameters,
    start_from,
)
from eyeline.training.recipes import load_recipe, recipe_names  # noqa: E402
from training.samples import deeper, sensible_backbone  # noqa: E402


@pytest.mark.parametrize(("name", "parameters"), [("student_v1", 112_841), ("student_v2", 123_721)])
def test_the_reference_students_have_their_parameters(name: str, parameters: int) -> None:
    assert count_parameters(build_net(load_recipe(name).net)) == parameters


def test_v3_keeps_its_parameter_budget() -> None:
    assert count_parameters(build_net(load_recipe("student_v3").net)) <= 300_000


@pytest.mark.parametrize("name", recipe_names())
def test_built_in_recipes_build_nets_that_answer_at_the_input_size(name: str) -> None:
    recipe = load_recipe(name)
    net = build_net(recipe.net).eval()
    assert recipe.net["arch"] in ARCHITECTURES
    with torch.no_grad():
        assert net(torch.zeros(1, 3, 64, 96))[0].shape == (1, 1, 64, 96)


def test_a_deeper_net_begins_as_the_function_it_starts_from() -> None:
    torch.manual_seed(3)
    small = deeper(load_recipe("student_v3_separable"))
    net, grown = build_net(small.net), build_net(deeper(small).net)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.uniform_(module.running_mean, -0.5, 0.5)
    new = start_from(grown, net.state_dict())
    assert new == ["stages.3.6"]
    x = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        assert torch.equal(net.eval()(x)[0], grown.eval()(x)[0])
    grown.train()(x)[0].sum().backward()
    assert max(float(p.grad.abs().max()) for p in grown.stages[3][6].parameters()) > 0


def test_a_wider_net_begins_as_the_function_it_starts_from() -> None:
    torch.manual_seed(4)
    recipe = load_recipe("student_v3_separable").net
    net = build_net(recipe)
    wide = json.loads(json.dumps(recipe)) | {"stem": 24, "lateral": 40, "context": 32}
    for stage in wide["stages"]:
        stage["channels"] += 8
    grown = build_net(wide)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.uniform_(module.running_mean, -0.5, 0.5)
    assert "stem.0.weight" in start_from(grown, net.state_dict())
    x = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        torch.testing.assert_close(net.eval()(x)[0], grown.eval()(x)[0], rtol=1e-4, atol=1e-4)
    grown.train()(x)[0].sum().backward()
    for name, p in grown.named_parameters():
        if name.startswith(("stem", "stages", "laterals", "fuse")):
            assert float(p.grad.abs().max()) > 0, name  # what is new learns, too


def test_a_net_with_concatenated_skips_is_not_widened() -> None:
    net = build_net(load_recipe("student_v2").net)
    wide = build_net(load_recipe("student_v2").net | {"bottleneck": 72})
    with pytest.raises(TrainingError, match="belong to another network"):
        start_from(wide, net.state_dict())


@pytest.mark.parametrize("size", [(64, 96), (48, 80)], ids=["even at stride 16", "odd"])
def test_the_encoder_has_the_same_features_and_gradients_in_training(
    size: tuple[int, int],
) -> None:
    encoder = MobileNetV2(0.25)
    load_backbone(encoder, sensible_backbone())
    encoder.double()
    x = torch.rand(2, 3, *size).double()

    def run(training: bool) -> list["torch.Tensor"]:
        encoder.train(training).zero_grad()
        features = encoder(x)
        torch.stack([f.square().mean() for f in features]).sum().backward()
        return [*features, *(p.grad.clone() for p in encoder.parameters())]

    for mine, theirs in zip(run(True), run(False), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-12)


def test_the_pyramid_has_side_heads_in_training_only() -> None:
    net = build_net(load_recipe("student_v6").net)
    assert count_parameters(net) == 589_425
    x = torch.zeros(2, 3, 64, 96)
    assert [tuple(y.shape[-2:]) for y in net.train()(x)] == [(64, 96), (8, 12), (4, 6)]
    assert len(net.eval()(x)) == 1


def test_the_map_is_the_density_divided_by_its_maximum_at_any_scale_of_the_logits() -> None:
    net = GazeNet(0.25, 8)
    logits = torch.randn(2, 1, 12, 16) * 4 + torch.tensor([50.0, -50.0])[:, None, None, None]
    m = net.to_map(logits)
    torch.testing.assert_close(m.amax((1, 2, 3)), torch.ones(2))
    density = logits.flatten(1).softmax(1).view_as(logits)
    torch.testing.assert_close(m, density / density.amax((1, 2, 3), keepdim=True))


def test_the_prior_of_videos_is_a_gaussian_of_a_quarter_of_each_side() -> None:
    net = GazeNet(0.25, 8, centre=1.0)
    m = net.to_map(torch.zeros(1, 1, 96, 128))[0, 0]
    row = m[48].log()
    sigma = ((torch.arange(128) + 0.5) / 128 - 0.5)[16].abs() / (-2 * (row[16] - row[64])).sqrt()
    assert float(sigma) == pytest.approx(0.25, rel=0.03)
