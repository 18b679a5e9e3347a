"""Real signals, and damage to them of which there can be more or less; shared by the tests of what notices it."""

from functools import cache

import numpy as np
import torch
from scipy.ndimage import gaussian_filter1d
from torch import Tensor

from edgegen.data import oscillations, split
from edgegen.formats.signal_units import SignalUnits


@cache
def parts() -> tuple[Tensor, Tensor, Tensor]:
    """Signals (n, 2, 128) in [-1, 1]: 2,250 to train on, 750 others, and the classes of those."""
    train, heldout = split(oscillations.load(), holdout=0.25, seed=0)
    units = SignalUnits.spanning(train.images, sample_rate_hz=None)
    assert heldout.labels is not None
    real, others = (torch.from_numpy(units.normalised(part.images)) for part in (train, heldout))
    return real, others, torch.from_numpy(heldout.labels)


def warped(signals: Tensor, share: float) -> Tensor:
    """Played slower by this share, so that each wave is longer."""
    length = signals.shape[2]
    at = np.arange(length) * (1 - share)
    rows = [np.interp(at, np.arange(length), row) for row in signals.flatten(0, 1).numpy()]
    return torch.tensor(np.array(rows), dtype=torch.float32).reshape(signals.shape)


def damaged(kind: str) -> list[Tensor]:
    """The other signals, then with more and more damage."""
    _, others, labels = parts()
    noise = torch.randn(others.shape, generator=torch.Generator().manual_seed(1))
    order = torch.argsort(labels, stable=True)  # slow ones first
    half = len(order) // 2
    return {
        "noise": [others + level * noise for level in (0, 0.03, 0.1, 0.3)],
        "smoothing": [
            torch.from_numpy(gaussian_filter1d(others.numpy(), sigma, axis=2)) if sigma else others
            for sigma in (0, 1, 2, 4)
        ],
        "missing class": [others[order[: half + int(half * kept)]] for kept in (1, 0.6, 0.3, 0)],
        "few distinct signals": [others[torch.arange(700) % distinct] for distinct in (700, 100, 30, 10)],
        "slower": [warped(others, share) for share in (0, 0.05, 0.1, 0.2)],
        "fainter": [others * factor for factor in (1, 0.9, 0.8, 0.6)],
        "another delay of the channels": [
            torch.stack([others[:, 0], others[:, 1].roll(shift, dims=1)], dim=1) for shift in (0, 1, 2, 4)
        ],
    }[kind]


KINDS = (
    "noise",
    "smoothing",
    "missing class",
    "few distinct signals",
    "slower",
    "fainter",
    "another delay of the channels",
)
