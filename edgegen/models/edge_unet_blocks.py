"""The blocks of an EdgeUNet: residual blocks and self-attention, of images and of signals, which have one row."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def group_count(channels: int, most: int) -> int:
    """The largest number of groups, at most `most`, that divides `channels`."""
    return next(g for g in range(min(most, channels), 0, -1) if channels % g == 0)


def convolution(width_in: int, width: int, *, signal: bool, stride: int = 1) -> nn.Conv2d:
    """3x3 of an image, 1x3 of a signal, which is an image of one row inside: quantizers and runtimes know Conv2d."""
    if signal:
        return nn.Conv2d(width_in, width, (1, 3), stride=(1, stride), padding=(0, 1))
    return nn.Conv2d(width_in, width, 3, stride=stride, padding=1)


class ResidualBlock(nn.Module):
    """x + conv(silu(norm(conv(silu(norm(x))) + shift))); a 1x1 convolution on the skip where widths differ."""

    def __init__(self, width_in: int, width: int, *, groups: int, signal: bool = False) -> None:
        super().__init__()
        self.width = width
        self.norm1 = nn.GroupNorm(group_count(width_in, groups), width_in)
        self.conv1 = convolution(width_in, width, signal=signal)
        self.norm2 = nn.GroupNorm(group_count(width, groups), width)
        self.conv2 = convolution(width, width, signal=signal)
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)  # type: ignore[arg-type]
        self.skip = nn.Conv2d(width_in, width, 1) if width_in != width else nn.Identity()

    def forward(self, x: Tensor, shift: Tensor) -> Tensor:
        h: Tensor = self.conv1(F.silu(self.norm1(x)))
        h = h + shift[:, :, None, None]
        h = self.conv2(F.silu(self.norm2(h)))
        out: Tensor = self.skip(x) + h
        return out


class SelfAttention(nn.Module):
    """Single-head self-attention over the pixels, written as two matrix products: every runtime delegates those."""

    def __init__(self, width: int, *, groups: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(group_count(width, groups), width)
        self.qkv = nn.Conv2d(width, 3 * width, 1)
        self.out = nn.Conv2d(width, width, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        batch, width, rows, columns = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(batch, 3 * width, rows * columns).chunk(3, dim=1)
        weights = torch.softmax(torch.matmul(q.transpose(1, 2), k) * width**-0.5, dim=-1)
        mixed = torch.matmul(v, weights.transpose(1, 2)).reshape(batch, width, rows, columns)
        out: Tensor = x + self.out(mixed)
        return out
