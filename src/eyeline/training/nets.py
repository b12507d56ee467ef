"""Define the network architectures; to add a net, add a class here and a row to `ARCHITECTURES`.

Every net takes ImageNet-normalised RGB, float32 (N, 3, H, W), and returns a list of logit maps,
float32 (N, 1, h, w). The first has the input's size. The others are deep-supervision heads, which
exist in training mode only. `Contract` wraps a net for export: its only output is the map that
`SaliencyNet.to_map` makes of the first logits.
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
        """Return the map in [0, 1] of logits, float32 (N, 1, H, W)."""
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
    """Dense 3x3 convolution with an identity path: runs near the CPU's peak at 32 channels or more."""

    def __init__(self, channels: int, dilation: int = 1) -> None:
        super().__init__()
        self.conv = _conv_bn(channels, channels, dilation=dilation)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.conv(x)
        return out

    def init_as_identity(self) -> None:
        """Start near the identity; at the identity itself the ReLU would pass no gradient."""
        nn.init.constant_(self.conv[1].weight, 0.1)  # type: ignore[arg-type]


class _Separable(nn.Module):
    """Depthwise 3x3, then 1x1, with an identity path (Howard et al., "MobileNets", 2017).

    It has a ninth of a dense block's parameters, for stages of low resolution.
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
        """Start as the identity on values >= 0 (Goyal et al., arXiv 1706.02677, section 5.1)."""
        nn.init.zeros_(self.conv[3][1].weight)  # type: ignore[index]


class _GlobalContext(nn.Module):
    """Adds two 1x1 convolutions of the image's mean feature, with `hidden` channels between them.

    The image-level branch of ASPP (Chen et al., "Rethinking Atrous Convolution", 2017), as a sum.
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, hidden, 1)
        self.expand = nn.Conv2d(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        pooled = x.mean((2, 3), keepdim=True)
        out: Tensor = x + self.expand(F.relu(self.squeeze(pooled)))
        return out


# By their names in a recipe.
BLOCKS: dict[str, type[_Residual | _Separable]] = {"dense": _Residual, "separable": _Separable}


class Fpn(SaliencyNet):
    """Feature pyramid (Lin et al., CVPR 2017), output at stride 4.

    Args:
        stem: channels of the stride-2 stem.
        stages: one table per stage, which halves the resolution: `channels`, the `dilations` of
            its residual blocks, and optionally the kind of these (`block`) and of the convolution
            that halves (`down`), both `dense` or `separable`.
        lateral: channels of the pyramid.
        fuse: residual blocks after each merge.
        context: hidden channels of the image-level branch; as many as the last stage has when None.
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
        """Return the logits, finest first; side heads in training mode only."""
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
    """The U-Net of the reference students (Ronneberger et al., 2015).

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
        """Return one logit map at the input's size."""
        skips: list[Tensor] = []
        for level in self.down:
            skips.append(level(x))
            x = F.max_pool2d(skips[-1], 2)
        y = self.bottleneck(x)
        for up, merge, skip in zip(self.up, self.merge, reversed(skips), strict=True):
            y = merge(torch.cat([up(y), skip], dim=1))
        return [self.head(y)]


# Expansion, channels at width 1, blocks, stride and dilation of MobileNetV2's stages (Sandler et al.,
# CVPR 2018, table 2), as DeepLab uses it at output stride 16: in place of the last stride, the blocks
# after it have a dilation of 2 (Chen et al., ECCV 2018).
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


class _InvertedResidual(nn.Module):
    """Expansion by 1x1, depthwise 3x3, projection by 1x1; returns the expanded feature, too."""

    def __init__(self, c_in: int, c_out: int, expansion: int, stride: int, dilation: int) -> None:
        super().__init__()
        hidden = c_in * expansion
        self.expand = nn.Conv2d(c_in, hidden, 1) if expansion > 1 else None
        self.depthwise = nn.Conv2d(hidden, hidden, 3, stride, dilation, dilation, hidden)
        self.project = nn.Conv2d(hidden, c_out, 1)
        self.residual = stride == 1 and c_in == c_out

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        expanded = x if self.expand is None else F.relu6(self.expand(x))
        y = self.project(F.relu6(self.depthwise(expanded)))
        return expanded, x + y if self.residual else y


class MobileNetV2(nn.Module):
    """MobileNetV2 at output stride 16; batch normalisation is folded into the weights.

    Args:
        width: multiplier of the channels.

    Attributes:
        convolutions: all convolutions in the order in which they run.
        channels: channels of the features that `forward` returns.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, width: float) -> None:
        super().__init__()
        # The pretrained weights take RGB in [-1, 1], not normalised by ImageNet.
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
        """Return the features at strides 4, 8 and 16; the first two are expanded features."""
        x = F.relu6(self.stem(x * self.scale + self.shift))
        features = []
        for block in self.blocks:
            expanded, x = block(x)
            if expanded.shape[-2:] != x.shape[-2:]:
                features.append(expanded)
        return [*features[1:], x]


class GazeNet(SaliencyNet):
    """Predicts a density of gaze: a small pyramid over strides 16 and 8 of a pretrained encoder.

    The softmax of the logits over the whole picture is the density. A learned grid, resized to the
    picture, is added to the logits, because viewers prefer the centre.

    Args:
        width: multiplier of the encoder's channels.
        channels: channels of the pyramid.
        centre: weight of a further Gaussian prior at the centre, in the exported map only: viewers
            of videos look at the centre more than viewers of the pictures it learns from.
    """

    centre: Tensor
    GRID = (12, 16)
    CENTRE_SIGMA = 0.25  # of each side

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
        with torch.no_grad():  # so that the first densities are near the prior
            self.head.weight.mul_(0.1)
            self.head.bias.zero_()  # type: ignore[union-attr]
        rows, columns = self.GRID
        y = torch.linspace(-1, 1, rows)[:, None] ** 2
        x = torch.linspace(-1, 1, columns)[None] ** 2
        self.prior = nn.Parameter((-2.0 * y - 1.5 * x)[None, None])
        offsets = [(torch.arange(n) + 0.5) / n - 0.5 for n in self.GRID]  # of the cells' centres
        squares = offsets[0][:, None] ** 2 + offsets[1][None] ** 2
        gaussian = -0.5 * squares / self.CENTRE_SIGMA**2
        self.register_buffer("centre", centre * gaussian[None, None], persistent=False)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the logits of the density at the input's size."""
        _, middle, deep = self.encoder(x)
        y = F.relu(self.lateral16(deep) + self.context(deep.mean((2, 3), keepdim=True)))
        y = y + F.relu(self.fuse16(y))
        y = y + F.relu(self.widen16(y))
        y = F.relu(_resize(y, middle) + self.lateral8(middle))
        y = y + F.relu(self.fuse8(y))
        logits = self.head(y)
        return [_resize(logits + _resize(self.prior, logits), x)]

    def to_map(self, logits: Tensor) -> Tensor:
        """Return the density with the prior of videos, divided by its maximum."""
        logits = logits + _resize(self.centre, logits)
        return torch.exp(logits - logits.amax((1, 2, 3), keepdim=True))


# By their names in a recipe, whose other keys of `[net]` are the arguments of the class.
ARCHITECTURES: dict[str, type[SaliencyNet]] = {"fpn": Fpn, "unet": UNet, "gaze": GazeNet}


def build_net(config: dict[str, Any]) -> SaliencyNet:
    """Build a net from a recipe's `[net]` table.

    Raises:
        KeyError: an unknown `arch`.
        TypeError: an argument that the architecture does not take.
    """
    arguments = dict(config)
    return ARCHITECTURES[arguments.pop("arch")](**arguments)


def start_from(net: nn.Module, state: dict[str, Tensor]) -> list[str]:
    """Give a net the weights of a smaller net, so that it begins as the same function.

    New residual blocks begin as the identity. New channels begin at random, and the weights from
    them to earlier channels begin at zero. (Net2Net, arXiv 1511.05641, copies channels instead.)

    Returns:
        Names of the new blocks and of the tensors that are larger.

    Raises:
        TrainingError: `state` belongs to a net that this one does not contain.
    """
    own = net.state_dict()
    strange = [k for k, v in state.items() if k not in own or not _holds(own[k], v)]
    larger = [k for k, v in state.items() if k in own and own[k].shape != v.shape]
    if larger and not isinstance(net, Fpn):  # concatenated skips would move channels
        strange += larger
    blocks = {k: m for k, m in net.named_modules() if isinstance(m, _Residual | _Separable)}
    new = [name for name in blocks if not any(k.startswith(f"{name}.") for k in state)]
    lacking = [k for k in own if k not in state and not k.startswith(tuple(f"{n}." for n in new))]
    if strange or lacking:
        raise TrainingError(
            f"the weights to start from belong to another net: {(strange + lacking)[0]} does not fit",
            "start from a run whose net is the same, or has fewer blocks or channels",
        )
    net.load_state_dict({k: _grown(own[k], v) for k, v in state.items()}, strict=False)
    for name in new:
        blocks[name].init_as_identity()
    return new + larger


def _holds(large: Tensor, small: Tensor) -> bool:
    return large.ndim == small.ndim and bool(np.all(np.array(large.shape) >= small.shape))


def _grown(fresh: Tensor, learned: Tensor) -> Tensor:
    """Put learned values into the first channels of a fresh tensor, and zeros where new ones enter."""
    if fresh.shape == learned.shape:
        return learned
    out = fresh.clone()
    if fresh.ndim > 1:
        out[: learned.shape[0], learned.shape[1] :] = 0
    out[tuple(slice(n) for n in learned.shape)] = learned
    return out


class Contract(nn.Module):
    """A net with the tensor contract: `input` (N, 3, H, W) to `saliency_map` (N, 1, H, W) in [0, 1]."""

    def __init__(self, net: SaliencyNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, input: Tensor) -> Tensor:
        """Return the map of the net's first logits."""
        return self.net.to_map(self.net(input)[0])


def count_parameters(net: nn.Module) -> int:
    """Return the number of parameters of the exported net; side heads do not count."""
    kept = (p for k, p in net.named_parameters() if not re.match(r"heads\.[1-9]", k))
    return sum(p.numel() for p in kept)
