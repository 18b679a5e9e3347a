"""Flow matching with minibatch optimal transport."""

import numpy as np
import pytest
import torch
from objective_parts import Field, f64, loss_of, make_batch, velocity
from scipy.optimize import linear_sum_assignment

from edgegen.registry import load
from edgegen.support.rng import generator


def test_the_formula_with_the_nearest_noise_within_the_class() -> None:
    batch, rng = make_batch(), generator(7)
    e, t = f64(torch.randn(batch.images.shape, generator=rng)), torch.rand(6, generator=rng)
    x, labels = f64(batch.images), batch.condition.numpy()
    costs = ((x[:, None] - e[None]) ** 2).sum(axis=(2, 3, 4))
    costs[labels[:, None] != labels[None]] = 1e6
    order = linear_sum_assignment(costs)[1]
    assert not np.array_equal(order, np.arange(6))
    rows = []
    for i, s in enumerate(f64(t)):
        n = e[order[i]]
        rows.append((velocity(0.3, (1 - s) * x[i] + s * n, s, i % 3) - (n - x[i])) ** 2)
    got = loss_of("flow_matching", {"student": Field(0.3)}, batch, coupling="minibatch_ot")
    assert got.item() == pytest.approx(np.mean(rows), rel=1e-5)


def test_the_default_is_left_out_so_that_the_keys_of_results_stay() -> None:
    record = load("objective", "flow_matching")
    assert record().model_dump() == {}
    assert record(coupling="minibatch_ot").model_dump() == {"coupling": "minibatch_ot"}
