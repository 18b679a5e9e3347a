"""What layers cost, and which to leave float: against all subsets, tried one by one."""

from itertools import pairwise, product

import numpy as np
import pytest

from edgegen.errors import BudgetError
from edgegen.quantize.sensitivity import (
    FLOAT_BYTES,
    Figures,
    FloatLayers,
    LayerSensitivity,
    choose,
    fitting,
    pareto,
    worst,
)


def costs(count: int = 9, seed: int = 0) -> list[LayerSensitivity]:
    rng = np.random.default_rng(seed)
    return [
        LayerSensitivity(f"layer{index}", int(weights), float(mse), macs=int(places * weights))
        for index, (weights, mse, places) in enumerate(
            zip(
                rng.integers(100, 90_000, count),
                10.0 ** rng.uniform(-7, -3, count),
                4 ** rng.integers(0, 5, count),
                strict=True,
            )
        )
    ]


def subsets(layers: list[LayerSensitivity]) -> list[tuple[int, float]]:
    """Bytes and summed cost of every choice of rounded layers."""
    found = []
    for rounded in product((False, True), repeat=len(layers)):
        chosen = list(zip(layers, rounded, strict=True))
        nbytes = sum(layer.weights * (1 if is_rounded else FLOAT_BYTES) for layer, is_rounded in chosen)
        found.append((nbytes, sum(layer.mse for layer, is_rounded in chosen if is_rounded)))
    return found


@pytest.mark.parametrize("seed", range(5))
def test_the_choice_is_the_best_of_all(seed: int) -> None:
    layers = costs(seed=seed)
    total = sum(layer.mse for layer in layers)
    for share in (0.01, 0.2, 0.7):
        choice = choose(layers, Figures(mse=share * total))
        assert choice.mse <= share * total * (1 + 1e-6)
        assert choice.nbytes == min(nbytes for nbytes, mse in subsets(layers) if mse <= share * total)
    weights = sum(layer.weights for layer in layers)
    for share in (1.2, 2.0, 3.5):
        limit = int(share * weights)
        choice = choose(layers, Figures(nbytes=limit))
        assert choice.nbytes <= limit
        best = min(mse for nbytes, mse in subsets(layers) if nbytes <= limit)
        assert choice.mse == pytest.approx(best, rel=1e-6)


def test_no_weights_fit_in_less_than_all_rounded() -> None:
    layers = costs()
    with pytest.raises(BudgetError, match="no choice of layers keeps the budget"):
        choose(layers, Figures(nbytes=int(0.99 * sum(layer.weights for layer in layers))))


def test_none_of_the_pareto_set_beats_another() -> None:
    found = pareto(costs(20))
    assert found[0].float_layers == ()
    assert found[-1].mse == 0.0
    for smaller, larger in pairwise(found):
        assert smaller.nbytes < larger.nbytes
        assert smaller.mse > larger.mse


@pytest.mark.parametrize("seed", range(5))
def test_the_truest_of_the_fast_enough(seed: int) -> None:
    """All rounded takes half the time: the saving lies with the layers by their products."""
    layers, rounded = costs(seed=seed), 0.5
    macs = sum(layer.macs for layer in layers)
    errors = np.array([layer.mse for layer in layers])
    saved = np.array([(1 - rounded) * layer.macs / macs for layer in layers])
    subsets = np.array(list(product((False, True), repeat=len(layers))))
    for limit in (0.55, 0.7, 0.95):
        choice = choose(layers, Figures(latency=limit), rounded_latency=rounded)
        best = min(subset @ errors for subset in subsets if 1 - subset @ saved <= limit)
        assert choice.mse == pytest.approx(best, rel=1e-6)
        assert choice.latency <= limit + 1e-6
    with pytest.raises(BudgetError, match="no choice of layers keeps the budget"):
        choose(layers, Figures(latency=0.45), rounded_latency=rounded)


def test_what_costs_more_than_predicted_is_asked_for_less() -> None:
    def measured(choice: FloatLayers) -> Figures:
        return Figures(mse=2.5 * choice.mse, latency=0.3 + 2.0 * (choice.latency - 0.3))

    layers = costs(12)
    limits = Figures(mse=0.9 * sum(layer.mse for layer in layers), latency=0.4)
    found = measured(fitting(layers, measured, limits, rounded_latency=0.3))
    assert 0 < (found.mse or 0) <= (limits.mse or 0)
    assert 0.3 < (found.latency or 0) <= 0.4
    with pytest.raises(BudgetError, match=r"nearest: mse 1, asked .*, latency 0.9, asked 0.4"):
        fitting(layers, lambda choice: Figures(mse=1.0, latency=0.9), limits, rounded_latency=0.3)


def test_the_worst_layers_in_words() -> None:
    layers = [LayerSensitivity("net.a", 1, 1.0), LayerSensitivity("net.b", 1, 3.0)]
    assert worst(layers, count=1) == "net.b (75%)"
    assert worst([LayerSensitivity("net.a", 1, 0.0)]) == "net.a (0%)"
