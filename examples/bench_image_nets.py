"""Three image-to-image nets of the export benchmark, with weights from a fixed seed, from their papers' descriptions.

SRVGGNetCompact (Real-ESRGAN, arXiv:2107.10833: plain 3x3 convolutions with PReLU), a residual dense network
(arXiv:1802.08797) of 10 blocks of 3 convolutions, and Johnson's transformer-net (arXiv:1603.08155) with conditional
instance norms and nearest upsampling (arXiv:1610.07629). All are in evaluation mode and take images in [0, 1].
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgegen.types import Signature, TensorSpec

SEED = 0
STYLES = 10


def super_resolution(seed: int = SEED) -> nn.Module:
    """SRVGGNetCompact: forward(sample (batch, 3, h, w)) -> (batch, 3, 4 h, 4 w)."""
    return _ready(lambda: CompactVgg(width=64, depth=16, scale=4), seed)


def residual_dense(seed: int = SEED) -> nn.Module:
    """A small RDN: forward(sample (batch, 3, h, w)) -> (batch, 3, 2 h, 2 w)."""
    return _ready(lambda: ResidualDense(width=64, growth=64, blocks=10, layers=3, scale=2), seed)


def style_transfer(seed: int = SEED) -> nn.Module:
    """The transformer-net: forward(sample (batch, 3, h, w), style (batch,) in 0..9) -> (batch, 3, h, w)."""
    return _ready(lambda: TransformerNet(widths=(32, 64, 128), blocks=5, styles=STYLES), seed)


def image_signature(size: int, *, scale: int = 1, styles: int = 0) -> Signature:
    """Of a network from an image of `size` (and a style) to one `scale` times as large."""
    inputs = [TensorSpec("sample", ("batch_size", 3, size, size), "float32", "image", 0.0, 1.0)]
    if styles:
        inputs.append(TensorSpec("style", ("batch_size",), "int64", "class", 0, styles - 1))
    output = TensorSpec("out_sample", ("batch_size", 3, scale * size, scale * size), "float32", "image", 0.0, 1.0)
    return Signature(tuple(inputs), (output,), styles)


def _ready(make: Callable[[], nn.Module], seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = make()
        for module in net.modules():
            if isinstance(module, nn.PReLU):  # fresh ones are all 0.25
                nn.init.uniform_(module.weight, -0.2, 0.6)
            if isinstance(module, nn.Conv2d):  # variance is kept through the depth
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        for module in net.modules():
            if isinstance(module, DenseBlock):  # each block changes its image a little, as trained ones do
                module.fuse.weight.data.mul_(0.1)
    return net.eval()


def _conv(inputs: int, outputs: int, kernel: int = 3) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)


class CompactVgg(nn.Module):
    """conv, PReLU, `depth` times (conv, PReLU), conv, pixel shuffle; plus the image upsampled by repetition."""

    def __init__(self, *, width: int, depth: int, scale: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [_conv(3, width), nn.PReLU(width)]
        for _ in range(depth):
            layers += [_conv(width, width), nn.PReLU(width)]
        self.body = nn.Sequential(*layers, _conv(width, 3 * scale**2), nn.PixelShuffle(scale))
        self.scale = scale

    def forward(self, sample: Tensor) -> Tensor:
        large: Tensor = F.interpolate(sample, scale_factor=float(self.scale), mode="nearest")
        out: Tensor = self.body(sample) + large
        return out


class DenseBlock(nn.Module):
    """x + fuse([x, d_1, ..., d_n]), d_i = relu(conv_i([x, d_1, ..., d_(i-1)])): equations 2 to 5 of the paper."""

    def __init__(self, *, width: int, growth: int, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList([_conv(width + i * growth, growth) for i in range(layers)])
        self.fuse = _conv(width + layers * growth, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        parts = [x]
        for layer in self.layers:
            parts.append(F.relu(layer(torch.cat(parts, dim=1) if len(parts) > 1 else x)))
        out: Tensor = x + self.fuse(torch.cat(parts, dim=1))
        return out


class ResidualDense(nn.Module):
    """Two shallow convolutions, dense blocks, all their results fused, the first features added, pixel shuffle."""

    def __init__(self, *, width: int, growth: int, blocks: int, layers: int, scale: int) -> None:
        super().__init__()
        self.shallow1, self.shallow2 = _conv(3, width), _conv(width, width)
        self.blocks = nn.ModuleList([DenseBlock(width=width, growth=growth, layers=layers) for _ in range(blocks)])
        self.fuse = nn.Sequential(_conv(blocks * width, width, 1), _conv(width, width))
        self.grow = nn.Sequential(_conv(width, width * scale**2), nn.PixelShuffle(scale))
        self.last = _conv(width, 3)

    def forward(self, sample: Tensor) -> Tensor:
        first = self.shallow1(sample)
        x, results = self.shallow2(first), []
        for block in self.blocks:
            x = block(x)
            results.append(x)
        out: Tensor = self.last(self.grow(first + self.fuse(torch.cat(results, dim=1))))
        return out


class StyledConv(nn.Module):
    """Reflected borders, a convolution, an instance norm whose scale and shift are the style's."""

    def __init__(self, inputs: int, outputs: int, kernel: int, *, styles: int, stride: int = 1) -> None:
        super().__init__()
        self.pad = nn.ReflectionPad2d(kernel // 2)
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride)
        self.norm = nn.InstanceNorm2d(outputs)
        self.scale, self.shift = nn.Embedding(styles, outputs), nn.Embedding(styles, outputs)
        nn.init.uniform_(self.scale.weight, 0.5, 1.5)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        x = self.norm(self.conv(self.pad(x)))
        out: Tensor = x * self.scale(style)[:, :, None, None] + self.shift(style)[:, :, None, None]
        return out


class TransformerNet(nn.Module):
    """9x9 convolution, two of stride 2, residual blocks, two after nearest upsampling, 9x9 to the image, sigmoid."""

    def __init__(self, *, widths: tuple[int, int, int], blocks: int, styles: int) -> None:
        super().__init__()
        first, second, third = widths

        def styled(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> StyledConv:
            return StyledConv(inputs, outputs, kernel, styles=styles, stride=stride)

        self.down = nn.ModuleList([styled(3, first, 9), styled(first, second, 3, 2), styled(second, third, 3, 2)])
        self.first_half = nn.ModuleList([styled(third, third) for _ in range(blocks)])
        self.second_half = nn.ModuleList([styled(third, third) for _ in range(blocks)])
        self.up = nn.ModuleList([styled(third, second), styled(second, first)])
        self.last = styled(first, 3, 9)

    def forward(self, sample: Tensor, style: Tensor) -> Tensor:
        x = sample
        for layer in self.down:
            x = F.relu(layer(x, style))
        for first, second in zip(self.first_half, self.second_half, strict=True):
            x = x + second(F.relu(first(x, style)), style)
        for layer in self.up:
            x = F.relu(layer(F.interpolate(x, scale_factor=2.0, mode="nearest"), style))
        return self.last(x, style).sigmoid()
