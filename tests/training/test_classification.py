"""The extractor's objective against the formula of smoothed cross entropy."""

import numpy as np
import pytest
import torch
from torch import nn

from edgegen.registry import load
from edgegen.support.rng import generator
from edgegen.training.batch import Batch


def test_smoothed_cross_entropy_on_noisy_images() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    images, labels = torch.randn(6, 1, 4, 4), torch.arange(6) % 3
    objective = load("objective", "classification")(noise=0.5, label_smoothing=0.3)
    got = objective.losses({"student": network}, {}, Batch(0, 10, images, labels), generator(4))
    noisy = images + 0.5 * torch.randn(images.shape, generator=generator(4))
    log_p = torch.log_softmax(network(noisy).double(), dim=1).detach().numpy()
    target = np.full((6, 3), 0.1) + 0.7 * np.eye(3)[labels.numpy()]
    assert got["student"].item() == pytest.approx(-(target * log_p).sum(1).mean(), rel=1e-5)
