"""Network architectures, built from a config: open this file to change or add a net.

Every net takes ImageNet-normalised RGB, float32 (N, 3, H, W) of any H and W, and returns a list of
logit maps, float32 (N, 1, h, w): the first is the answer at the input's size, the others are
deep-supervision heads that exist while training only. `Contract` wraps a net for export: one
output, the map that `Net.to_map` makes of the first logits.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from eyeline.errors import TrainingError
from eyeline.runtime import IMAGENET_MEAN, IMAGENET_STD


class Net(nn.Module):
    """What every architecture is.

    Attributes:
        multiple: what the sides of its input must be multiples of.
    """

    multiple = 1

    def to_map(self, logits: Tensor) -> Tensor:
        """Turn logits, float32 (N, 1, H, W), into the map of the contract: here their sigmoid."""
        return torch.sigmoid(logits)


def _conv_bn(
    c_in: int, c_out: int, kernel: int = 3, stride: int = 1, dilation: int = 1, relu: bool = True
) -> nn.Sequential:
    """Convolution without bias, BatchNorm, optional ReLU ("same" padding)."""
    layers: list[nn.Module] = [
        nn.Conv2d(
            c_in, c_out, kernel, stride, dilation * (kernel // 2), dilation=dilation, bias=False
        ),
        nn.BatchNorm2d(c_out),
    ]
    if relu:
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


def _resize(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)


class Residual(nn.Module):
    """One dense 3x3 convolution with an identity path: runs near the CPU's peak at >= 32 channels."""

    def __init__(self, channels: int, dilation: int = 1) -> None:
        super().__init__()
        self.conv = _conv_bn(channels, channels, dilation=dilation)

    def forward(self, x: Tensor) -> Tensor:
        """float32 (N, C, H, W) to the same shape."""
        out: Tensor = x + self.conv(x)
        return out

    def hush(self) -> None:
        """Start near the identity; not at it, where the ReLU would pass no gradient."""
        norm = self.conv[1]
        assert isinstance(norm, nn.BatchNorm2d)  # noqa: S101 - as `_conv_bn` built it
        nn.init.constant_(norm.weight, 0.1)


class Separable(nn.Module):
    """Depthwise 3x3, then 1x1, around an identity path (Howard et al., "MobileNets", 2017).

    A ninth of a dense block's parameters: depth and receptive field where the picture is small.
    """

    def __init__(self, channels: int, dilation: int = 1) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(
                channels, channels, 3, 1, dilation, dilation=dilation, groups=channels, bias=False
            ),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
            _conv_bn(channels, channels, kernel=1, relu=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        """float32 (N, C, H, W) to the same shape."""
        return F.relu(x + self.conv(x))

    def hush(self) -> None:
        """Start as the identity on what a ReLU left (Goyal et al., arXiv 1706.02677, section 5.1)."""
        norm = self.conv[3][1]  # type: ignore[index]
        nn.init.zeros_(norm.weight)


def _halve_separable(c_in: int, c_out: int) -> nn.Sequential:
    """Half the resolution by a depthwise 3x3 of stride 2, then 1x1 to the new channels."""
    return nn.Sequential(
        nn.Conv2d(c_in, c_in, 3, 2, 1, groups=c_in, bias=False),
        nn.BatchNorm2d(c_in),
        _conv_bn(c_in, c_out, kernel=1),
    )


class GlobalContext(nn.Module):
    """Adds what the image's mean feature says: two 1x1 convolutions on a (N, C, 1, 1) tensor.

    The image-level branch of ASPP (Chen et al., "Rethinking Atrous Convolution", 2017), as a sum.

    Args:
        channels: of the feature.
        hidden: channels between the two convolutions.
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, hidden, 1)
        self.expand = nn.Conv2d(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """float32 (N, C, H, W) to the same shape."""
        pooled = x.mean((2, 3), keepdim=True)
        out: Tensor = x + self.expand(F.relu(self.squeeze(pooled)))
        return out


BLOCKS: dict[str, type[Residual] | type[Separable]] = {
    "dense": Residual,
    "separable": Separable,
}
"""Names of residual blocks in a recipe."""


class Fpn(Net):
    """Feature pyramid (Lin et al., CVPR 2017), output at stride 4.

    Args:
        stem: channels of the stride-2 stem.
        stages: one entry per stage, each of which halves the resolution: `channels`, the
            `dilations` of its residual blocks, and optionally the kind of `block` (see `BLOCKS`)
            and of the halving before them, `down`.
        lateral: channels of the pyramid.
        fuse: residual blocks after each merge.
        context: hidden channels of the image-level branch; those of the last stage when None.
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
                halve = _halve_separable(previous, channels)
            else:
                halve = _conv_bn(previous, channels, stride=2)
            blocks = [block(channels, int(d)) for d in stage["dilations"]]
            self.stages.append(nn.Sequential(halve, *blocks))
            previous = channels
        self.context = GlobalContext(previous, context or previous)
        self.laterals = nn.ModuleList(
            _conv_bn(int(s["channels"]), lateral, kernel=1, relu=False) for s in stages
        )
        self.fuse = nn.ModuleList(
            nn.Sequential(*(Residual(lateral) for _ in range(fuse))) for _ in stages[:-1]
        )
        self.heads = nn.ModuleList(
            nn.Conv2d(lateral, 1, 3 if i == 0 else 1, padding=1 if i == 0 else 0)
            for i in range(len(stages))
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """Logits, finest first; side heads only in training mode."""
        features: list[Tensor] = []
        y = self.stem(x)
        for stage in self.stages:
            y = stage(y)
            features.append(y)
        features[-1] = self.context(features[-1])
        path = F.relu(self.laterals[-1](features[-1]))
        paths = [path]
        for i in range(len(features) - 2, -1, -1):
            path = self.fuse[i](F.relu(_resize(path, features[i]) + self.laterals[i](features[i])))
            paths.insert(0, path)
        logits = [_resize(self.heads[0](paths[0]), x)]
        if self.training:
            logits += [head(p) for head, p in zip(list(self.heads)[1:], paths[1:], strict=True)]
        return logits


class UNet(Net):
    """The reference students: three levels down, a bottleneck, three up (Ronneberger et al., 2015).

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
            if upsample == "deconv":
                self.up.append(nn.ConvTranspose2d(previous, c, 2, 2, bias=False))
            else:
                self.up.append(
                    nn.Sequential(
                        nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False),
                        nn.Conv2d(previous, c, 3, padding=1, bias=False),
                    )
                )
            self.merge.append(_conv_bn(c + skip, c))
            previous = c
        self.head = nn.Conv2d(previous, 1, 1)

    def forward(self, x: Tensor) -> list[Tensor]:
        """One logit map at the input's size (H and W must be multiples of 8)."""
        skips: list[Tensor] = []
        y = x
        for level in self.down:
            y = level(y)
            skips.append(y)
            y = F.max_pool2d(y, 2)
        y = self.bottleneck(y)
        for up, merge, skip in zip(self.up, self.merge, reversed(skips), strict=True):
            y = merge(torch.cat([up(y), skip], dim=1))
        return [self.head(y)]


# Expansion, channels at width 1, blocks, stride and dilation of MobileNetV2's stages (Sandler et al.,
# CVPR 2018, table 2) as DeepLab runs it at output stride 16: the last stride is a dilation of 2, from
# the block after it on (Chen et al., ECCV 2018).
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


class InvertedResidual(nn.Module):
    """Expansion by 1x1, depthwise 3x3, projection by 1x1 (Sandler et al., CVPR 2018).

    Args:
        c_in: channels before.
        c_out: channels behind.
        expansion: channels between, as a multiple of `c_in`; 1 has no expansion layer.
        stride: of the depthwise convolution.
        dilation: of the depthwise convolution.
    """

    def __init__(self, c_in: int, c_out: int, expansion: int, stride: int, dilation: int) -> None:
        super().__init__()
        hidden = c_in * expansion
        self.expand = nn.Conv2d(c_in, hidden, 1) if expansion > 1 else None
        self.depthwise = nn.Conv2d(
            hidden, hidden, 3, stride, dilation, dilation=dilation, groups=hidden
        )
        self.project = nn.Conv2d(hidden, c_out, 1)
        self.residual = stride == 1 and c_in == c_out

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the expanded feature at the input's size, and the block's output."""
        expanded = x if self.expand is None else F.relu6(self.expand(x))
        y = self.project(F.relu6(self.depthwise(expanded)))
        return expanded, x + y if self.residual else y


class MobileNetV2(nn.Module):
    """The encoder at output stride 16, without batch normalisation: its weights hold it already.

    Args:
        width: multiplier of the channels.

    Attributes:
        convolutions: all layers in the order in which they run.
        channels: of the features that `forward` returns.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, width: float) -> None:
        super().__init__()
        # Input as the pretrained weights know it: [-1, 1] instead of ImageNet-normalised.
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
                    InvertedResidual(c, c_out, expansion, stride if i == 0 else 1, dilation)
                )
                c = c_out
        self.channels = (*skips[1:], c)
        self.convolutions = [m for m in self.modules() if isinstance(m, nn.Conv2d)]

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the features at strides 4, 8 and 16; the first two are expanded ones."""
        x = F.relu6(self.stem(x * self.scale + self.shift))
        features = []
        for block in self.blocks:
            expanded, x = block(x)
            if expanded.shape[-2:] != x.shape[-2:]:
                features.append(expanded)
        return [*features[1:], x]


class GazeNet(Net):
    """A density of gaze from pretrained features: a small pyramid over strides 16 and 8.

    The logits are of a density over the whole picture. A learned grid, stretched over the picture,
    is added: the prior that viewers look at the centre.

    Args:
        width: of the encoder.
        channels: of the pyramid.
        centre: weight of a Gaussian prior at the centre, see `CENTRE_SIGMA`, in the exported map:
            viewers of videos look at the centre more than those of the pictures it learns from.
    """

    centre: Tensor
    GRID = (12, 16)
    CENTRE_SIGMA = 0.25

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
        with torch.no_grad():  # begin near the prior
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
        """Logits of the density at the input's size."""
        _, middle, deep = self.encoder(x)
        y = F.relu(self.lateral16(deep) + self.context(deep.mean((2, 3), keepdim=True)))
        y = y + F.relu(self.fuse16(y))
        y = y + F.relu(self.widen16(y))
        y = F.relu(_resize(y, middle) + self.lateral8(middle))
        y = y + F.relu(self.fuse8(y))
        logits = self.head(y)
        return [_resize(logits + _resize(self.prior, logits), x)]

    def to_map(self, logits: Tensor) -> Tensor:
        """Turn logits into the density, with the prior of videos, divided by its maximum."""
        logits = logits + _resize(self.centre, logits)
        return torch.exp(logits - logits.amax((1, 2, 3), keepdim=True))


ARCHITECTURES: dict[str, type[Net]] = {"fpn": Fpn, "unet": UNet, "gaze": GazeNet}
"""Architecture name in a recipe to the class that takes its remaining keys."""


def build_net(config: dict[str, Any]) -> Net:
    """Build a net from a recipe's `[net]` table: `arch` names the class, the rest are its arguments.

    Raises:
        KeyError: an unknown `arch`.
        TypeError: an argument that the architecture does not take.
    """
    arguments = dict(config)
    return ARCHITECTURES[arguments.pop("arch")](**arguments)


def start_from(net: nn.Module, state: dict[str, Tensor]) -> list[str]:
    """Give a net the weights of a smaller one of its kind, so that it begins as the same function.

    Residual blocks that the smaller net lacks begin as the identity. Channels that it lacks begin at
    random, and unheard: what was there before takes nothing of them yet (the opposite end of
    Net2Net, arXiv 1511.05641, which copies channels).

    Args:
        net: changed in place.
        state: the smaller net's state dict; all of it has to fit.

    Returns:
        Names of the blocks that are new, and of the tensors that are larger.

    Raises:
        TrainingError: `state` is of a net that this one does not contain.
    """
    own = net.state_dict()
    strange = [k for k, v in state.items() if k not in own or not _holds(own[k], v)]
    larger = [k for k, v in state.items() if k in own and own[k].shape != v.shape]
    if larger and not isinstance(net, Fpn):  # skips that are concatenated move channels about
        strange += larger
    blocks = {
        name: block
        for name, block in net.named_modules()
        if isinstance(block, Residual | Separable)
    }
    new = [name for name in blocks if not any(k.startswith(f"{name}.") for k in state)]
    lacking = [k for k in own if k not in state and not k.startswith(tuple(f"{n}." for n in new))]
    if strange or lacking:
        raise TrainingError(
            f"weights to start from are of another net: {(strange + lacking)[0]} does not fit",
            "start from a run of a recipe whose net is this one with fewer blocks or channels",
        )
    net.load_state_dict({k: _grown(own[k], v) for k, v in state.items()}, strict=False)
    for name in new:
        blocks[name].hush()
    return new + larger


def _holds(large: Tensor, small: Tensor) -> bool:
    return large.ndim == small.ndim and all(
        a >= b for a, b in zip(large.shape, small.shape, strict=True)
    )


def _grown(fresh: Tensor, learned: Tensor) -> Tensor:
    """Learned values in the first channels of a fresh tensor, whose others don't reach their outputs."""
    if fresh.shape == learned.shape:
        return learned
    out = fresh.clone()
    if fresh.ndim > 1:
        out[: learned.shape[0], learned.shape[1] :] = 0
    out[tuple(slice(n) for n in learned.shape)] = learned
    return out


class Contract(nn.Module):
    """The tensor contract around a net: `input` (N, 3, H, W) to `saliency_map` (N, 1, H, W) in [0, 1]."""

    def __init__(self, net: Net) -> None:
        super().__init__()
        self.net = net

    def forward(self, input: Tensor) -> Tensor:
        """Return the map of the net's first logits."""
        return self.net.to_map(self.net(input)[0])


def count_parameters(net: nn.Module) -> int:
    """Learnable parameters of the exported function: side heads are left out."""
    dropped = sum(
        p.numel()
        for name, p in net.named_parameters()
        if name.startswith("heads.") and name[6] != "0"
    )
    return sum(p.numel() for p in net.parameters()) - dropped
