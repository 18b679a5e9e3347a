"""A fixed-point network as a student: GET, the Generative Equilibrium Transformer (arXiv:2401.08639, section 4).

    [slim]
    method = "pair_regression"
    network = "equilibrium.py:digits"      # relative to the recipe; any method of [slim] and [distill] trains it

Blocks of a transformer read the noise once; what they give is injected into further blocks, which are applied again and
again with the same weights. GET's authors train it by going backwards through all of its iterations (`--f_max_iter 0
--grad 6` in run.sh of their code), and so does any method here. A file holds the iterations one after another, and
their large weights once.

Otherwise than there: a time (and a second one) beside the class, for methods that train velocities; it is a constant in
the exported file. The state starts at zero and not at random, since a file has one noise; positions are learned.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

FREQUENCIES = 16  # of a time's sines and cosines


class Block(nn.Module):
    """Attention and an MLP of tokens (batch, tokens, width); `injected` is added to queries, keys and values."""

    def __init__(self, width: int, heads: int, ratio: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm, self.qkv, self.out = nn.LayerNorm(width), nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, ratio * width), nn.GELU(), nn.Linear(ratio * width, width)
        )

    def forward(self, z: Tensor, injected: Tensor) -> Tensor:
        parts = (self.qkv(self.norm(z)) + injected).chunk(3, dim=-1)
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        attended = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        z = z + self.out(attended)
        return z + self.mlp(z)


class EquilibriumTransformer(nn.Module):
    """z <- blocks(z, injection) `iterations` times from z = 0, of images (batch, channels, side, side) in patches."""

    def __init__(
        self,
        channels: int,
        side: int,
        classes: int,
        *,
        patch: int = 2,
        width: int = 64,
        heads: int = 4,
        injection_blocks: int = 2,
        tied_blocks: int = 1,
        iterations: int = 6,
        ratio: int = 4,
    ) -> None:
        super().__init__()
        self.patch, self.rows, self.iterations = patch, side // patch, iterations
        values = channels * patch * patch
        self.stem = nn.Linear(values, width)
        self.positions = nn.Parameter(0.02 * torch.randn(1, self.rows**2, width))
        self.times = nn.Sequential(
            nn.Linear(4 * FREQUENCIES, width), nn.SiLU(), nn.Linear(width, 3 * width, bias=False)
        )
        self.classes = nn.Embedding(classes, 3 * width) if classes else None
        self.injection = nn.ModuleList(Block(width, heads, ratio) for _ in range(injection_blocks))
        self.inject = nn.ModuleList(nn.Linear(width, 3 * width, bias=False) for _ in range(tied_blocks))
        self.tied = nn.ModuleList(Block(width, heads, ratio) for _ in range(tied_blocks))
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, values))
        nn.init.zeros_(self.head[1].weight)
        nn.init.zeros_(self.head[1].bias)
        self.register_buffer("frequencies", math.pi * 2.0 ** torch.linspace(-1, 4, FREQUENCIES), persistent=False)

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None, r: Tensor | None = None) -> Tensor:
        """Velocities like x, at times t and, of a mean velocity, r (batch,), for classes (batch,) or None."""
        angles = torch.stack([t, t if r is None else t - r], dim=1)[:, :, None] * self.frequencies
        about = self.times(torch.cat([angles.sin(), angles.cos()], dim=2).flatten(1))
        if self.classes is not None:
            about = about + self.classes(condition)
        about = about[:, None]
        p, n = self.patch, self.rows
        tokens = x.unflatten(3, (n, p)).unflatten(2, (n, p)).permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)
        h = self.stem(tokens) + self.positions
        for block in self.injection:
            h = block(h, about)
        injected = [about + linear(h) for linear in self.inject]
        z = torch.zeros_like(h)
        for _ in range(self.iterations):
            for block, read in zip(self.tied, injected, strict=True):
                z = block(z, read)
        out: Tensor = self.head(z).unflatten(2, (-1, p, p)).unflatten(1, (n, n)).permute(0, 3, 1, 4, 2, 5)
        return out.flatten(4, 5).flatten(2, 3)


def digits() -> EquilibriumTransformer:
    """For the digits of scikit-learn: 1 x 8 x 8, 10 classes."""
    return EquilibriumTransformer(channels=1, side=8, classes=10)
