"""EdgeUNet: a small U-Net velocity field u(x, t[, r], c) made to be slimmed, folded and run on phones.

Pre-activation residual blocks (GroupNorm, SiLU, 3x3 convolution), the conditioning *added* between the two
convolutions as in DDPM (arXiv:2006.11239) and SlimFlow (arXiv:2407.12718), one skip per resolution. Because the
conditioning is only ever added after a convolution, a network that runs at one fixed time needs no time branch at all:
`edgegen.program.fold.fold` turns it into biases.
"""

import copy
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import TypeAdapter
from torch import Tensor, nn

from edgegen.flow.condition import enlarged
from edgegen.models.edge_unet_blocks import ResidualBlock, SelfAttention, convolution, group_count
from edgegen.program.parameters import parameter_count

MOST_WIDTH, MOST_LEVELS, MOST_BLOCKS, MOST_CLASSES = 1 << 16, 12, 64, 1 << 24  # of a file; beyond is a mistake
TIME_FREQUENCIES = 32
MAX_PERIOD = 10_000.0  # of the positional time embedding, as in DDPM's code and SlimFlow's
TIME_SCALE = 1000.0  # t is fed as 1000 t, as there
# With a second time: methods for such a network take its derivative in time, which 1000 t makes wild (measured on
# digits: 35 times the velocity, with 10 t 0.3 times). MeanFlow's networks take t itself, with their frequencies.
TWO_TIMES_SCALE = 10.0


@dataclass(frozen=True)
class EdgeUNetConfig:
    """The architecture: what `config.json` of a generator folder holds.

    Attributes:
        sample_size: of the image: one number for height and width, or (height, width).
        in_channels: of the image.
        channels: one width per resolution, each resolution half the one before.
        blocks: number of residual blocks of a resolution on the way down, and again on the way up.
        attention: resolutions (0 = full size) whose blocks are followed by self-attention.
        num_classes: 0 means that it takes no class.
        embedding: width of the embedding of time and class.
        groups: most groups of a GroupNorm.
        second_time: whether it takes the time r of u(x, t, r, c), the mean velocity (see edgegen.flow.path).
        unconditional: whether there is one class more, of number `num_classes`, that stands for none of them
            (see edgegen.flow.guidance).
        upscale: of a network whose condition is an image: how many times smaller that is; None: it takes none.
        signal: whether it makes signals (channels, length), whose length is sample_size: its kernels are 1x3.
    """

    sample_size: int | tuple[int, int]
    in_channels: int = 1
    channels: tuple[int, ...] = (32, 64)
    blocks: int = 2
    attention: tuple[int, ...] = ()
    num_classes: int = 0
    embedding: int = 128
    groups: int = 8
    second_time: bool = False
    unconditional: bool = False
    upscale: int | None = None
    signal: bool = False

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """(channels, height, width), or (channels, length) of a signal."""
        sides = self.sample_size if isinstance(self.sample_size, tuple) else (self.sample_size,)
        return self.in_channels, *(sides if self.signal or len(sides) == 2 else sides * 2)

    def to_dict(self) -> dict[str, Any]:
        """What `config.json` holds; a switch only where it is on, so that files of networks without it stay."""
        fields = {key: value for key, value in asdict(self).items() if value is not False and value is not None}
        return {"_class_name": "EdgeUNet", **fields}

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> "EdgeUNetConfig":
        """The inverse of `to_dict`, also of JSON, which has lists for tuples. Raises TypeError and ValueError."""
        fields = {key: value for key, value in values.items() if key != "_class_name"}
        if unknown := fields.keys() - EdgeUNetConfig.__dataclass_fields__.keys():
            raise TypeError(f"no setting {min(unknown)}")
        # By way of JSON, whose strict mode takes a list for a tuple, and no text for a number.
        config = CONFIG.validate_json(json.dumps(fields), strict=True)
        sides = config.sample_size if isinstance(config.sample_size, tuple) else (config.sample_size,)
        levels = range(len(config.channels))
        ranges = {
            "sample_size": (sides, 1, MOST_WIDTH),
            "in_channels": ((config.in_channels,), 1, MOST_WIDTH),
            "channels": (config.channels, 1, MOST_WIDTH),
            "the number of channels": ((len(levels),), 1, MOST_LEVELS),
            "blocks": ((config.blocks,), 1, MOST_BLOCKS),
            "attention": (config.attention, 0, len(levels) - 1),
            "num_classes": ((config.num_classes,), 0, MOST_CLASSES),
            "embedding": ((config.embedding,), 1, MOST_WIDTH),
            "groups": ((config.groups,), 1, MOST_WIDTH),
            "upscale": ((config.upscale or 1,), 1, min(sides)),
        }
        for name, (numbers, least, most) in ranges.items():
            if not all(least <= number <= most for number in numbers):
                raise ValueError(f"{name} is {list(numbers)}; {least} to {most} would do")
        if config.unconditional and not config.num_classes:
            raise ValueError("unconditional is true, and there are no classes")
        if config.signal and (config.upscale or len(sides) > 1):
            raise ValueError(f"signal is true, and sample_size is {list(sides)}, upscale {config.upscale}: one length")
        if config.upscale and (config.num_classes or any(side % config.upscale for side in sides)):
            raise ValueError(f"upscale is {config.upscale}: sides of {list(sides)} are no multiples, or it has classes")
        return config


CONFIG = TypeAdapter(EdgeUNetConfig)


class Conditioning(nn.Module):
    """(time, second time, class) -> one additive shift per residual block: shifts (batch, sum of block widths).

    The second time r enters as the interval t - r, by a branch that is zero at first: such a network starts as one
    without it.
    """

    def __init__(self, config: EdgeUNetConfig, total: int) -> None:
        super().__init__()
        width = config.embedding
        self.time = nn.Sequential(nn.Linear(2 * TIME_FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width))
        self.classes = nn.Embedding(config.num_classes + config.unconditional, width) if config.num_classes else None
        self.project = nn.Linear(width, total)
        steps = torch.arange(TIME_FREQUENCIES, dtype=torch.float32) / TIME_FREQUENCIES
        self.register_buffer("frequencies", torch.exp(-math.log(MAX_PERIOD) * steps), persistent=False)
        self.frequencies: Tensor
        self.scale = TWO_TIMES_SCALE if config.second_time else TIME_SCALE
        self.interval = None
        if config.second_time:
            last = nn.Linear(width, width)
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
            self.interval = nn.Sequential(nn.Linear(2 * TIME_FREQUENCIES, width), nn.SiLU(), last)

    def forward(self, t: Tensor, condition: Tensor | None, r: Tensor | None) -> Tensor:
        hidden: Tensor = self.time(self._embedded(t))
        if self.interval is not None:
            hidden = hidden + self.interval(self._embedded(torch.zeros_like(t) if r is None else t - r))
        elif r is not None:
            raise ValueError("this EdgeUNet takes no second time r: its config has second_time = false")
        if self.classes is not None:
            if condition is None:
                raise ValueError("this EdgeUNet is class-conditional: pass classes (batch,) as its condition")
            hidden = hidden + self.classes(condition)
        shifts: Tensor = self.project(F.silu(hidden))
        return shifts

    def _embedded(self, t: Tensor) -> Tensor:
        angle = self.scale * t[:, None].float() * self.frequencies
        return torch.cat([angle.cos(), angle.sin()], dim=1)


class EdgeUNet(nn.Module):
    """u(x, t, c): velocity of the straight path x_t = (1-t) x + t e at (batch, channels, height, width).

    Of signals (batch, channels, length), where its config says so.

    The condition c is classes, a smaller image, which stands beside x at its size, or None (flow.condition). With a
    second time r in its config, u(x, t, r, c): the mean velocity from r to t, which is the velocity at t where r is t
    or None.

    Attributes:
        config: its architecture.
        widths: channels of the residual blocks, in the order of `blocks()`.
    """

    def __init__(self, config: EdgeUNetConfig) -> None:
        super().__init__()
        self.config = config
        widths, groups, levels = config.channels, config.groups, len(config.channels)

        signal = self.signal = config.signal

        def block(width_in: int, width: int) -> ResidualBlock:
            return ResidualBlock(width_in, width, groups=groups, signal=signal)

        def attention(level: int) -> nn.Module:
            return SelfAttention(widths[level], groups=groups) if level in config.attention else nn.Identity()

        self.upscale, self.growth = config.upscale, (1.0, 2.0) if signal else (2.0, 2.0)
        self.stem = convolution(config.in_channels * (2 if self.upscale else 1), widths[0], signal=signal)
        self.down = nn.ModuleList()
        self.shrink = nn.ModuleList()
        for level, width in enumerate(widths):
            self.down.append(nn.ModuleList(block(width, width) for _ in range(config.blocks)))
            if level + 1 < levels:
                self.shrink.append(convolution(width, widths[level + 1], signal=signal, stride=2))
        self.attend_down = nn.ModuleList(attention(level) for level in range(levels))
        self.up = nn.ModuleList()
        self.grow = nn.ModuleList()
        for level in range(levels - 2, -1, -1):
            width = widths[level]
            self.grow.append(nn.Conv2d(widths[level + 1], width, 1))
            self.up.append(nn.ModuleList(block(2 * width if i == 0 else width, width) for i in range(config.blocks)))
        self.attend_up = nn.ModuleList(attention(level) for level in range(levels - 2, -1, -1))
        self.head_norm = nn.GroupNorm(group_count(widths[0], groups), widths[0])
        self.head = convolution(widths[0], config.in_channels, signal=signal)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]
        self.widths = tuple(block.width for block in self.blocks())
        self.conditioning = Conditioning(config, sum(self.widths))
        self.second_time = config.second_time
        self.image_channels, self.num_classes = config.in_channels, config.num_classes
        self.unconditional_class = config.num_classes if config.unconditional else None

    def blocks(self) -> list[ResidualBlock]:
        """The residual blocks in the order in which `forward` runs them (the order of the shifts)."""
        return [block for part in (self.down, self.up) for level in part for block in _blocks_of(level)]

    def encoder(self) -> "EdgeUNet":
        """A copy of the way down alone, for `encode`."""
        network = copy.deepcopy(self)
        network.up, network.grow, network.attend_up = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        del network.head_norm, network.head
        return network

    def encode(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> list[Tensor]:
        """Features (batch, width, rows, columns) of each resolution on the way down, the full one first.

        A signal has one row.
        """
        return self._down(x, self._base(condition), t, condition, None)[0]

    def _down(
        self, x: Tensor, base: Tensor | None, t: Tensor, condition: Tensor | None, r: Tensor | None
    ) -> tuple[list[Tensor], Iterator[Tensor]]:
        """The features of each resolution, and the shifts of the blocks on the way up; `base` is that of `_base`."""
        shifts = iter(torch.split(self.conditioning(t, condition, r), list(self.widths), dim=1))
        x = x[:, :, None] if self.signal else x
        h: Tensor = self.stem(x if base is None else torch.cat([x, base], dim=1))
        features: list[Tensor] = []
        for level, blocks in enumerate(self.down):
            if level:
                h = self.shrink[level - 1](h)
            for block in _blocks_of(blocks):
                h = block(h, next(shifts))
            h = self.attend_down[level](h)
            features.append(h)
        return features, shifts

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None, r: Tensor | None = None) -> Tensor:
        """Images (batch, channels, height, width), or signals (batch, channels, length), times t and r (batch,), and
        conditions -> velocities like x.
        """
        base = self._base(condition)
        features, pending = self._down(x, base, t, condition, r)
        h = features.pop()
        for level, blocks in enumerate(self.up):
            h = F.interpolate(self.grow[level](h), scale_factor=self.growth, mode="nearest")
            h = torch.cat([h, features.pop()], dim=1)
            for block in _blocks_of(blocks):
                h = block(h, next(pending))
            h = self.attend_up[level](h)
        out: Tensor = self.head(F.silu(self.head_norm(h)))
        out = out[:, :, 0] if self.signal else out
        return out if base is None else out + x - base

    def _base(self, condition: Tensor | None) -> Tensor | None:
        """The small image at full size: the velocity is x_t - base at t = 1 but for the details, which are learned."""
        if not self.upscale:
            return None
        if condition is None:
            raise ValueError("this EdgeUNet makes its image from a smaller one: pass that as its condition")
        return enlarged(condition, self.upscale)


def _blocks_of(level: nn.Module) -> list[ResidualBlock]:
    """The blocks of one resolution, which a ModuleList holds without their type."""
    return [block for block in level.children() if isinstance(block, ResidualBlock)]


def count_parameters(config: EdgeUNetConfig) -> int:
    """Parameters of the network with this architecture, without making its weights."""
    with torch.device("meta"):
        return parameter_count(EdgeUNet(config))
