"""Define the network architectures; to add one, add a class here and a row to `ARCHITECTURES`.

Every network takes ImageNet-normalised RGB, float32 (N, 3, H, W), and returns a list of logit maps,
float32 (N, 1, h, w). The first map has the size of the input. The others are deep-supervision heads,
which exist in training mode only. `Contract` wraps a network for export: its only output is the
saliency map that `SaliencyNet.to_map` computes from the first logits.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from eyeline.errors import TrainingError
from eyeline.runtime import IMAGENET_MEAN, IMAGENET_STD


class SaliencyNet(nn.Module):
    """Base class of the architectures.

    Attributes:
        multiple: height and width of the input must be multiples of this.
    """

    multiple = 1

    def to_map(self, logits: Tensor) -> Tensor:
        """Turn logits into a saliency map in [0, 1], float32 (N, 1, H, W)."""
        return torch.sigmoid(logits)


def _conv_bn(
    c_in: int, c_out: int, kernel: int = 3, stride: int = 1, dilation: int = 1, relu: bool = True
) -> nn.Sequential:
    layers: list[nn.Module] = [
        nn.Conv2d(c_in, c_out, kernel, stride, dilation * (kernel // 2), dilation, bias=False),
        nn.BatchNorm2d(c_out),
    ]
    if relu:
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


def _resize(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)


class _Residual(nn.Module):
    """Dense 3x3 convolution with an identity path; efficient on CPUs at 32 channels or more."""

    def __init__(self, channels: int, dilation: int = 1) -> None:
        super().__init__()
        self.conv = _conv_bn(channels, channels, dilation=dilation)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.conv(x)
        return out

    def init_as_identity(self) -> None:
        """Initialize near the identity; with weights of exactly 0, the ReLU would pass no gradient."""
        nn.init.constant_(self.conv[1].weight, 0.1)  # type: ignore[arg-type]


class _Separable(nn.Module):
    """Depthwise 3x3, then 1x1, with an identity path (Howard et al., "MobileNets", 2017).

    It has a ninth of the parameters of a dense block, and is meant for stages of low resolution.
    """

    def __init__(self, channels: int, dilation: int = 1) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(channels, channels, 3, 1, dilation, dilation, channels, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
            _conv_bn(channels, channels, kernel=1, relu=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.conv(x))

    def init_as_identity(self) -> None:
        """Initialize as the identity on values >= 0 (Goyal et al., arXiv 1706.02677, section 5.1)."""
        nn.init.zeros_(self.conv[3][1].weight)  # type: ignore[index]


class _GlobalContext(nn.Module):
    """Applies two 1x1 convolutions to the mean feature of the image, and adds the result to each position.

    This is the image-level branch of ASPP (Chen et al., "Rethinking Atrous Convolution", 2017), but
    added rather than concatenated.
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, hidden, 1)
        self.expand = nn.Conv2d(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        pooled = x.mean((2, 3), keepdim=True)
        out: Tensor = x + self.expand(F.relu(self.squeeze(pooled)))
        return out


# The keys are the names in a recipe.
BLOCKS: dict[str, type[_Residual | _Separable]] = {"dense": _Residual, "separable": _Separable}


class Fpn(SaliencyNet):
    """Feature pyramid network (Lin et al., CVPR 2017) with output at stride 4.

    Args:
        stem: channels of the stride-2 stem.
        stages: one table per stage; each stage halves the resolution. Keys: `channels`; `dilations` of
            the residual blocks; `block`, the kind of these blocks, and `down`, the kind of the
            stride-2 convolution, each `dense` (default) or `separable`.
        lateral: channels of the pyramid.
        fuse: number of residual blocks after each merge.
        context: hidden channels of the image-level branch; None = the channels of the last stage.
    """

    def __init__(
        self,
        stem: int,
        stages: list[dict[str, Any]],
        lateral: int,
        fuse: int = 1,
        context: int | None = None,
    ) -> None:
        super().__init__()
        self.stem = _conv_bn(3, stem, stride=2)
        self.stages = nn.ModuleList()
        previous = stem
        for stage in stages:
            channels = int(stage["channels"])
            block = BLOCKS[stage.get("block", "dense")]
            if stage.get("down", "dense") == "separable":
                halve = nn.Sequential(
                    nn.Conv2d(previous, previous, 3, 2, 1, groups=previous, bias=False),
                    nn.BatchNorm2d(previous),
                    _conv_bn(previous, channels, kernel=1),
                )
            else:
                halve = _conv_bn(previous, channels, stride=2)
            blocks = [block(channels, int(d)) for d in stage["dilations"]]
            self.stages.append(nn.Sequential(halve, *blocks))
            previous = channels
        self.context = _GlobalContext(previous, context or previous)
        self.laterals = nn.ModuleList(
            _conv_bn(int(s["channels"]), lateral, kernel=1, relu=False) for s in stages
        )
        self.fuse = nn.ModuleList(
            nn.Sequential(*(_Residual(lateral) for _ in range(fuse))) for _ in stages[:-1]
        )
        self.heads = nn.ModuleList([nn.Conv2d(lateral, 1, 3, padding=1)])
        self.heads.extend(nn.Conv2d(lateral, 1, 1) for _ in stages[1:])

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the logits of all heads, finest first; side heads exist in training mode only."""
        features = [self.stem(x)]
        for stage in self.stages:
            features.append(stage(features[-1]))
        paths = [F.relu(self.laterals[-1](self.context(features.pop())))]
        for i in reversed(range(len(self.fuse))):
            fine = features.pop()
            paths.insert(0, self.fuse[i](F.relu(_resize(paths[0], fine) + self.laterals[i](fine))))
        logits = [_resize(self.heads[0](paths[0]), x)]
        if self.training:
            logits += [head(p) for head, p in zip(list(self.heads)[1:], paths[1:], strict=True)]
        return logits


class UNet(SaliencyNet):
    """The U-Net (Ronneberger et al., 2015) of `student_v1` and `student_v2`.

    Args:
        encoder: channels of each level, finest first.
        bottleneck: channels at the lowest resolution.
        decoder: channels of each level on the way up, coarsest first.
        upsample: `deconv` (v1: ConvTranspose 2x2) or `resize` (v2: bilinear + 3x3 convolution).
    """

    multiple = 8

    def __init__(
        self, encoder: list[int], bottleneck: int, decoder: list[int], upsample: str
    ) -> None:
        super().__init__()
        self.down = nn.ModuleList()
        previous = 3
        for c in encoder:
            self.down.append(nn.Sequential(_conv_bn(previous, c), _conv_bn(c, c)))
            previous = c
        self.bottleneck = _conv_bn(previous, bottleneck)
        self.up = nn.ModuleList()
        self.merge = nn.ModuleList()
        previous = bottleneck
        for c, skip in zip(decoder, reversed(encoder), strict=True):
            resize = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
            self.up.append(
                nn.ConvTranspose2d(previous, c, 2, 2, bias=False)
                if upsample == "deconv"
                else nn.Sequential(resize, nn.Conv2d(previous, c, 3, padding=1, bias=False))
            )
            self.merge.append(_conv_bn(c + skip, c))
            previous = c
        self.head = nn.Conv2d(previous, 1, 1)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return one logit map of the size of the input."""
        skips: list[Tensor] = []
        for level in self.down:
            skips.append(level(x))
            x = F.max_pool2d(skips[-1], 2)
        y = self.bottleneck(x)
        for up, merge, skip in zip(self.up, self.merge, reversed(skips), strict=True):
            y = merge(torch.cat([up(y), skip], dim=1))
        return [self.head(y)]


# Stages of MobileNetV2 (Sandler et al., CVPR 2018, table 2): expansion, channels at width 1, number of
# blocks, stride and dilation. As in DeepLab (Chen et al., ECCV 2018), the output stride is 16: the last
# stride is replaced by a dilation of 2 in the blocks after it.
_STAGES = (
    (1, 16, 1, 1, 1),
    (6, 24, 2, 2, 1),
    (6, 32, 3, 2, 1),
    (6, 64, 4, 2, 1),
    (6, 96, 3, 1, 1),
    (6, 160, 1, 1, 1),
    (6, 160, 2, 1, 2),
    (6, 320, 1, 1, 2),
)


def _apply_depthwise(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """Apply a depthwise 3x3 convolution; in training on a CPU, compute it so that its gradient is fast.

    The bfloat16 gradient of PyTorch 2.13 is slow with a stride or a dilation. So a convolution with a
    stride is computed in float32. A convolution with a dilation of 2 is computed as one without dilation on
    each of the four pictures that consist of every second row and column.
    """
    n, c, h, w = x.shape
    if layer.training and torch.is_grad_enabled() and x.device.type == "cpu":
        if layer.stride == (2, 2):
            with torch.autocast("cpu", enabled=False):
                return layer(x.to(layer.weight.dtype))  # type: ignore[no-any-return]
        if layer.dilation == (2, 2) and h % 2 == 0 and w % 2 == 0:
            # With channels last, the copies move all channels of a pixel at once.
            x = x.permute(0, 2, 3, 1).reshape(n, h // 2, 2, w // 2, 2, c).permute(2, 4, 0, 1, 3, 5)
            x = x.reshape(4 * n, h // 2, w // 2, c).permute(0, 3, 1, 2)
            x = F.conv2d(x, layer.weight, layer.bias, padding=1, groups=c)
            x = x.permute(0, 2, 3, 1).reshape(2, 2, n, h // 2, w // 2, c).permute(2, 3, 0, 4, 1, 5)
            return x.reshape(n, h, w, c).permute(0, 3, 1, 2)
    return layer(x)  # type: ignore[no-any-return]


class _InvertedResidual(nn.Module):
    """1x1 expansion, 3x3 depthwise convolution and 1x1 projection; also returns the expanded feature."""

    def __init__(self, c_in: int, c_out: int, expansion: int, stride: int, dilation: int) -> None:
        super().__init__()
        hidden = c_in * expansion
        self.expand = nn.Conv2d(c_in, hidden, 1) if expansion > 1 else None
        self.depthwise = nn.Conv2d(hidden, hidden, 3, stride, dilation, dilation, hidden)
        self.project = nn.Conv2d(hidden, c_out, 1)
        self.residual = stride == 1 and c_in == c_out

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        expanded = x if self.expand is None else F.relu6(self.expand(x))
        y = self.project(F.relu6(_apply_depthwise(self.depthwise, expanded)))
        return expanded, x + y if self.residual else y


class MobileNetV2(nn.Module):
    """MobileNetV2 with output stride 16; batch normalisation is folded into the weights.

    Args:
        width: multiplier of the channels.

    Attributes:
        convolutions: all convolutions, in the order of execution.
        channels: channels of the features that `forward` returns.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, width: float) -> None:
        super().__init__()
        # The pretrained weights expect RGB in [-1, 1], not ImageNet-normalised RGB.
        mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
        self.register_buffer("scale", (2 * std)[None, :, None, None], persistent=False)
        self.register_buffer("shift", (2 * mean - 1)[None, :, None, None], persistent=False)
        c = int(32 * width)
        self.stem = nn.Conv2d(3, c, 3, 2, 1)
        self.blocks = nn.ModuleList()
        skips = []
        for expansion, channels, count, stride, dilation in _STAGES:
            for i in range(count):
                if i == 0 and stride == 2:
                    skips.append(c * expansion)
                c_out = int(channels * width)
                self.blocks.append(
                    _InvertedResidual(c, c_out, expansion, stride if i == 0 else 1, dilation)
                )
                c = c_out
        self.channels = (*skips[1:], c)
        self.convolutions = [m for m in self.modules() if isinstance(m, nn.Conv2d)]

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the features at strides 4, 8 and 16. Those at 4 and 8 are expanded features."""
        x = F.relu6(self.stem(x * self.scale + self.shift))
        features = []
        for block in self.blocks:
            expanded, x = block(x)
            if expanded.shape[-2:] != x.shape[-2:]:
                features.append(expanded)
        return [*features[1:], x]


class GazeNet(SaliencyNet):
    """Predicts a gaze density with a small pyramid over strides 16 and 8 of a pretrained encoder.

    The density is the softmax of the logits over the whole picture. Because viewers prefer the centre, a
    learned grid is resized to the picture and added to the logits.

    Args:
        width: multiplier of the channels of the encoder.
        channels: channels of the pyramid.
        centre: weight of an additional Gaussian centre prior in `to_map`. The network is trained on
            still pictures, and viewers of videos look at the centre more.
    """

    centre: Tensor
    GRID = (12, 16)
    CENTRE_SIGMA = 0.25  # relative to each side

    def __init__(self, width: float, channels: int, centre: float = 0.0) -> None:
        super().__init__()
        self.encoder = MobileNetV2(width)
        _, middle, deep = self.encoder.channels
        self.lateral16 = nn.Conv2d(deep, channels, 1)
        self.lateral8 = nn.Conv2d(middle, channels, 1)
        self.context = nn.Sequential(
            nn.Conv2d(deep, channels, 1), nn.ReLU(inplace=True), nn.Conv2d(channels, channels, 1)
        )
        self.fuse16 = nn.Conv2d(channels, channels, 3, 1, 1)
        self.widen16 = nn.Conv2d(channels, channels, 3, 1, 2, dilation=2)
        self.fuse8 = nn.Conv2d(channels, channels, 3, 1, 1)
        self.head = nn.Conv2d(channels, 1, 3, 1, 1)
        with torch.no_grad():  # the first predictions are then close to the prior
            self.head.weight.mul_(0.1)
            self.head.bias.zero_()  # type: ignore[union-attr]
        rows, columns = self.GRID
        y = torch.linspace(-1, 1, rows)[:, None] ** 2
        x = torch.linspace(-1, 1, columns)[None] ** 2
        self.prior = nn.Parameter((-2.0 * y - 1.5 * x)[None, None])
        offsets = [(torch.arange(n) + 0.5) / n - 0.5 for n in self.GRID]  # of cell centres
        squares = offsets[0][:, None] ** 2 + offsets[1][None] ** 2
        gaussian = -0.5 * squares / self.CENTRE_SIGMA**2
        self.register_buffer("centre", centre * gaussian[None, None], persistent=False)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the logits of the density at the size of the input."""
        _, middle, deep = self.encoder(x)
        y = F.relu(self.lateral16(deep) + self.context(deep.mean((2, 3), keepdim=True)))
        y = y + F.relu(self.fuse16(y))
        y = y + F.relu(self.widen16(y))
        y = F.relu(_resize(y, middle) + self.lateral8(middle))
        y = y + F.relu(self.fuse8(y))
        logits = self.head(y)
        return [_resize(logits + _resize(self.prior, logits), x)]

    def to_map(self, logits: Tensor) -> Tensor:
        """Apply the centre prior to the density, and divide it by its maximum."""
        logits = logits + _resize(self.centre, logits)
        return torch.exp(logits - logits.amax((1, 2, 3), keepdim=True))


class PyramidNet(SaliencyNet):
    """Predicts object masks with a pyramid over strides 16, 8 and 4 of a pretrained encoder.

    Args:
        width: multiplier of the channels of the encoder.
        channels: channels of the pyramid at strides 8 and 4.
        deep: channels of the pyramid at stride 16.
        dilations: dilations of the residual blocks at stride 16.
    """

    def __init__(self, width: float, channels: int, deep: int, dilations: list[int]) -> None:
        super().__init__()
        self.encoder = MobileNetV2(width)
        fine, middle, coarse = self.encoder.channels
        self.entry = _conv_bn(coarse, deep, kernel=1)
        self.context = _GlobalContext(deep, deep)
        self.wide = nn.Sequential(*(_Residual(deep, d) for d in dilations))
        self.down = nn.ModuleList(
            _conv_bn(c, channels, kernel=1, relu=False) for c in (channels, deep)
        )
        self.laterals = nn.ModuleList(
            _conv_bn(c, channels, kernel=1, relu=False) for c in (fine, middle)
        )
        self.fuse = nn.ModuleList(_Residual(channels) for _ in range(2))
        self.heads = nn.ModuleList([nn.Conv2d(channels, 1, 3, padding=1)])
        self.heads.extend(nn.Conv2d(c, 1, 1) for c in (channels, deep))

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the logits of all heads, finest first; side heads exist in training mode only."""
        fine, middle, coarse = self.encoder(x)
        paths = [self.wide(self.context(self.entry(coarse)))]
        for i, skip in ((1, middle), (0, fine)):
            up = _resize(self.down[i](paths[0]), skip)
            paths.insert(0, self.fuse[i](F.relu(up + self.laterals[i](skip))))
        logits = [_resize(self.heads[0](paths[0]), x)]
        if self.training:
            logits += [head(p) for head, p in zip(list(self.heads)[1:], paths[1:], strict=True)]
        return logits


# The keys are the values of `arch` in a recipe; the other keys of `[net]` are arguments of the class.
ARCHITECTURES: dict[str, type[SaliencyNet]] = {
    "fpn": Fpn,
    "unet": UNet,
    "pyramid": PyramidNet,
    "gaze": GazeNet,
}


def build_net(config: dict[str, Any]) -> SaliencyNet:
    """Build a network from the `[net]` table of a recipe.

    Raises:
        KeyError: `arch` is unknown.
        TypeError: the architecture does not have such an argument.
    """
    arguments = dict(config)
    return ARCHITECTURES[arguments.pop("arch")](**arguments)


def start_from(net: nn.Module, state: dict[str, Tensor]) -> list[str]:
    """Copy the weights of a smaller network, so that the larger one computes the same function at first.

    New residual blocks are initialized as the identity. New channels are initialized at random, and the
    weights from new to old channels with zeros. (Net2Net, arXiv 1511.05641, copies channels instead.)

    Returns:
        Names of the new blocks and of the tensors that are larger.

    Raises:
        TrainingError: a tensor in `state` does not fit into `net`, or `net` needs one that is missing.
    """
    own = net.state_dict()
    strange = [k for k, v in state.items() if k not in own or not _holds(own[k], v)]
    larger = [k for k, v in state.items() if k in own and own[k].shape != v.shape]
    if larger and not isinstance(net, Fpn):  # networks that concatenate would get shifted channels
        strange += larger
    blocks = {k: m for k, m in net.named_modules() if isinstance(m, _Residual | _Separable)}
    new = [name for name in blocks if not any(k.startswith(f"{name}.") for k in state)]
    lacking = [k for k in own if k not in state and not k.startswith(tuple(f"{n}." for n in new))]
    if strange or lacking:
        raise TrainingError(
            f"the weights to start from belong to another network: {(strange + lacking)[0]} does not fit",
            "start from a run of the same network, or of one with fewer blocks or channels",
        )
    net.load_state_dict({k: _grown(own[k], v) for k, v in state.items()}, strict=False)
    for name in new:
        blocks[name].init_as_identity()
    return new + larger


def _holds(large: Tensor, small: Tensor) -> bool:
    return large.ndim == small.ndim and bool(np.all(np.array(large.shape) >= small.shape))


def _grown(fresh: Tensor, learned: Tensor) -> Tensor:
    """Copy `learned` into the first channels of `fresh`, and set the weights of new input channels to 0."""
    if fresh.shape == learned.shape:
        return learned
    out = fresh.clone()
    if fresh.ndim > 1:
        out[: learned.shape[0], learned.shape[1] :] = 0
    out[tuple(slice(n) for n in learned.shape)] = learned
    return out


class Contract(nn.Module):
    """A network from `input` (N, 3, H, W) to `saliency_map` (N, 1, H, W) in [0, 1]: the tensor contract."""

    def __init__(self, net: SaliencyNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, input: Tensor) -> Tensor:
        """Return the saliency map of the first logits."""
        return self.net.to_map(self.net(input)[0])


def count_parameters(net: nn.Module) -> int:
    """Return the number of parameters of the exported network, which has no side heads."""
    kept = (p for k, p in net.named_parameters() if not re.match(r"heads\.[1-9]", k))
    return sum(p.numel() for p in kept)
