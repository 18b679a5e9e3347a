"""The three nets of the export benchmark, with weights from a fixed seed: SlimFlow's, DDPM's and the demo's student.

SlimFlow's is built from its published description (arXiv:2407.12718, and the NCSN++ of arXiv:2011.13456 that it
slims), not from its code; the two counts that the description fixes, 15.707 M parameters and 3.90 G multiplications,
are tested. All nets are in evaluation mode; forward(sample, t): noise (batch, channels, height, width), times (batch,).
"""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgegen.models.edge_unet import EdgeUNet, EdgeUNetConfig, count_parameters
from edgegen.models.student import shrink
from edgegen.models.zero_layers import randomize_zero_layers
from edgegen.recipe import Architecture
from edgegen.support.vendor_logs import DIFFUSERS, quiet

SEED = 0
TIME_SCALE = 999.0  # SlimFlow feeds t in [0, 1] as 999 t


def slimflow_cifar10(seed: int = SEED) -> nn.Module:
    """SlimFlow's CIFAR-10 student of 15.7 M parameters: forward(sample (batch, 3, 32, 32), t (batch,) in [0, 1])."""
    return _ready(lambda: NCSNpp(width=96, multipliers=(1, 2, 2), blocks=2, size=32, attention=(16,)), seed)


def slimflow_respelled(seed: int = SEED) -> nn.Module:
    """The same network, resampled by torch's functions in place of views of six axes, which some converters refuse."""
    net = slimflow_cifar10(seed)
    spelled: dict[Any, Callable[[Tensor], Tensor]] = {
        _double: lambda x: F.interpolate(x, scale_factor=2.0, mode="nearest"),
        _halve: lambda x: F.avg_pool2d(x, 2),
    }
    for block in net.modules():
        if isinstance(block, BigGanBlock):
            block.resample = spelled.get(block.resample, block.resample)
    return net


def ddpm_cifar10(seed: int = SEED) -> nn.Module:
    """diffusers' UNet2DModel with google/ddpm-cifar10-32's config, 35.7 M: forward(sample, t (batch,) in 0..999)."""
    return _ready(DdpmCifar10, seed)


def demo_student(seed: int = SEED) -> EdgeUNet:
    """The student of the digits recipe: forward(sample (batch, 1, 8, 8), t, class_labels (batch,) int64 in 0..9)."""
    teacher = Architecture(channels=(24, 64, 128), blocks=1)

    def config(model: Architecture) -> EdgeUNetConfig:
        return EdgeUNetConfig(8, 1, model.channels, model.blocks, model.attention, 10, model.embedding)

    student = shrink(teacher, keep=0.33, count=lambda model: count_parameters(config(model)))
    net = _ready(lambda: EdgeUNet(config(student)), seed)
    assert isinstance(net, EdgeUNet)
    return net


def _ready(make: Callable[[], nn.Module], seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = make()
    randomize_zero_layers(net, seed)
    return net.eval()


class DdpmCifar10(nn.Module):
    """UNet2DModel as google/ddpm-cifar10-32 configures it, giving a tensor in place of diffusers' output record."""

    def __init__(self) -> None:
        super().__init__()
        with quiet(DIFFUSERS):
            from diffusers import UNet2DModel

        self.unet = UNet2DModel(
            sample_size=32,
            in_channels=3,
            out_channels=3,
            layers_per_block=2,
            block_out_channels=(128, 256, 256, 256),
            down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
            act_fn="silu",
            attention_head_dim=None,
            downsample_padding=0,
            flip_sin_to_cos=False,
            freq_shift=1,
            norm_eps=1e-6,
            norm_num_groups=32,
        )

    def forward(self, sample: Tensor, t: Tensor) -> Tensor:
        """Noise (batch, 3, 32, 32), times (batch,) in 0..999 -> (batch, 3, 32, 32)."""
        out: Tensor = self.unet(sample, t, return_dict=False)[0]
        return out


class NCSNpp(nn.Module):
    """NCSN++ in its "DDPM++" flavour, as SlimFlow slims it: BigGAN residual blocks, attention at some sizes.

    Down: per resolution `blocks` residual blocks (each followed by attention where the size is in `attention`), then a
    halving block. Middle: block, attention, block. Up: per resolution `blocks` + 1 blocks, each on the concatenation
    with the skip of the way down, attention after the last, then a doubling block.
    """

    def __init__(
        self, *, width: int, multipliers: tuple[int, ...], blocks: int, size: int, attention: tuple[int, ...]
    ) -> None:
        super().__init__()
        self.width, self.blocks = width, blocks
        widths = [width * multiplier for multiplier in multipliers]
        sizes = [size >> level for level in range(len(widths))]
        embedding = 4 * width
        self.time = nn.Sequential(nn.Linear(width, embedding), nn.SiLU(), nn.Linear(embedding, embedding))

        def block(inputs: int, outputs: int, resample: str = "") -> "BigGanBlock":
            return BigGanBlock(inputs, outputs, embedding=embedding, resample=resample)

        def attend(level: int) -> nn.Module:
            return NinAttention(widths[level]) if sizes[level] in attention else nn.Identity()

        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.down, self.down_attention, self.shrink = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        skips, current = [width], width
        for level, level_width in enumerate(widths):
            for _ in range(blocks):
                self.down.append(block(current, level_width))
                self.down_attention.append(attend(level))
                current = level_width
                skips.append(current)
            if level + 1 < len(widths):
                self.shrink.append(block(current, current, "down"))
                skips.append(current)
        self.middle = nn.ModuleList([block(current, current), NinAttention(current), block(current, current)])
        self.up, self.up_attention, self.grow = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for level in reversed(range(len(widths))):
            for _ in range(blocks + 1):
                self.up.append(block(current + skips.pop(), widths[level]))
                current = widths[level]
            self.up_attention.append(attend(level))
            if level:
                self.grow.append(block(current, current, "up"))
        self.head_norm = _norm(current)
        self.head = nn.Conv2d(current, 3, 3, padding=1)
        nn.init.zeros_(self.head.weight)

    def forward(self, sample: Tensor, t: Tensor) -> Tensor:
        """Noise (batch, 3, height, width), times (batch,) in [0, 1] -> velocity of the noise's shape."""
        emb = self.time(_positions(TIME_SCALE * t, self.width))
        h = self.stem(sample)
        skips = [h]
        for index, (block, attention) in enumerate(zip(self.down, self.down_attention, strict=True)):
            h = attention(block(h, emb))
            skips.append(h)
            level, last = divmod(index + 1, self.blocks)
            if last == 0 and level <= len(self.shrink):
                h = self.shrink[level - 1](h, emb)
                skips.append(h)
        h = self.middle[2](self.middle[1](self.middle[0](h, emb)), emb)
        for index, block in enumerate(self.up):
            h = block(torch.cat([h, skips.pop()], dim=1), emb)
            level, last = divmod(index + 1, self.blocks + 1)
            if last == 0:
                h = self.up_attention[level - 1](h)
                if level <= len(self.grow):
                    h = self.grow[level - 1](h, emb)
        out: Tensor = self.head(F.silu(self.head_norm(h)))
        return out


class BigGanBlock(nn.Module):
    """(skip(x) + h) / sqrt 2, h = conv(silu(norm(conv(silu(norm(x))) + dense(silu(emb))))).

    `resample` ("up", "down" or "") is done to x and before the first convolution of h.
    """

    def __init__(self, inputs: int, outputs: int, *, embedding: int, resample: str) -> None:
        super().__init__()
        self.norm1, self.norm2 = _norm(inputs), _norm(outputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.dense = nn.Linear(embedding, outputs)
        self.dropout = nn.Dropout(0.15)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs or resample else nn.Identity()
        self.resample = {"": _same, "up": _double, "down": _halve}[resample]

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = self.conv1(self.resample(F.silu(self.norm1(x))))
        h = h + self.dense(F.silu(emb))[:, :, None, None]
        h = self.conv2(self.dropout(F.silu(self.norm2(h))))
        out: Tensor = (self.skip(self.resample(x)) + h) / math.sqrt(2.0)
        return out


class NinAttention(nn.Module):
    """Single-head attention over the pixels by einsum; query, key, value and output are "networks in networks"."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = _norm(width)
        self.query, self.key, self.value, self.out = (Nin(width) for _ in range(4))
        nn.init.zeros_(self.out.weight)

    def forward(self, x: Tensor) -> Tensor:
        batch, width, rows, columns = x.shape
        h = self.norm(x)
        query, key, value = self.query(h), self.key(h), self.value(h)
        weights = torch.einsum("bchw,bcij->bhwij", query, key) * width**-0.5
        weights = weights.reshape(batch, rows, columns, rows * columns).softmax(dim=-1)
        h = torch.einsum("bhwij,bcij->bchw", weights.reshape(batch, rows, columns, rows, columns), value)
        out: Tensor = (x + self.out(h)) / math.sqrt(2.0)
        return out


class Nin(nn.Module):
    """One dense layer over the channels of every pixel, (batch, width, height, width) -> the same shape."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(width, width) * width**-0.5)
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        out = torch.einsum("bhwc,cd->bhwd", x.permute(0, 2, 3, 1), self.weight) + self.bias
        return out.permute(0, 3, 1, 2)


def _norm(width: int) -> nn.GroupNorm:
    return nn.GroupNorm(min(width // 4, 32), width, eps=1e-6)


def _positions(t: Tensor, width: int) -> Tensor:
    """Sines and cosines of t (batch,) at width/2 frequencies from 1 to 1/10000 -> (batch, width)."""
    half = width // 2
    frequencies = torch.exp(torch.arange(half, device=t.device) * (-math.log(10_000.0) / (half - 1)))
    angles = t[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def _same(x: Tensor) -> Tensor:
    return x


def _double(x: Tensor) -> Tensor:
    """Nearest upsampling by repetition: (batch, c, h, w) -> (batch, c, 2 h, 2 w)."""
    batch, width, rows, columns = x.shape
    return (
        x.reshape(batch, width, rows, 1, columns, 1)
        .repeat(1, 1, 1, 2, 1, 2)
        .reshape(batch, width, 2 * rows, 2 * columns)
    )


def _halve(x: Tensor) -> Tensor:
    """The mean of every 2x2 square: (batch, c, h, w) -> (batch, c, h/2, w/2)."""
    batch, width, rows, columns = x.shape
    return x.reshape(batch, width, rows // 2, 2, columns // 2, 2).mean(dim=(3, 5))
