"""What each layer's rounding costs, and which layers to leave float under a budget."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgegen.errors import BudgetError
from edgegen.quantize.layers import tensor_of
from edgegen.quantize.simulate import Simulated

FLOAT_BYTES, ROUNDED_BYTES = 4, 1  # of a weight
TRIES = 6  # at a choice whose layers together cost more than their sum

Pictures = NDArray[np.float32]


@dataclass(frozen=True)
class LayerCost:
    """Rounding this layer alone (its weights, its input and its output) moves the pictures by `mse`.

    `fd_local` is the distribution's distance then, None where nothing judged it; `weights` counts its elements.
    """

    name: str
    weights: int
    mse: float
    fd_local: float | None = None


@dataclass(frozen=True)
class Choice:
    """Layers left float, what the weights then take, and the sum of the costs of the others: a prediction."""

    float_layers: tuple[str, ...]
    nbytes: int
    mse: float


def sensitivity(
    simulated: Simulated,
    run: Callable[[Simulated], Pictures],
    *,
    fd_local: Callable[[Pictures], float] | None = None,
    tell: Callable[[int], None] = lambda done: None,
) -> list[LayerCost]:
    """Each layer rounded alone, in the order in which they run; `run` gives the pictures of the same noises each time.

    How far the pictures move and how far the distribution moves are told apart: a generator may draw other pictures
    that are as good. `simulated` rounds everything again at the end.
    """
    found = []
    simulated.set_active(False)
    exact = run(simulated)
    for number, layer in enumerate(simulated.layers):
        simulated.set_active(True, {layer.name})
        pictures = run(simulated)
        simulated.set_active(False, {layer.name})
        mse = float(np.mean((pictures.astype(np.float64) - exact) ** 2))
        distance = None if fd_local is None else fd_local(pictures)
        weights = tensor_of(simulated.module, layer.target).numel()
        found.append(LayerCost(layer.name, weights, mse, distance))
        tell(number + 1)
    simulated.set_active(True)
    return found


def choose(costs: Sequence[LayerCost], *, mse: float | None = None, nbytes: int | None = None) -> Choice:
    """The smallest weights that cost at most `mse`, or the cheapest in at most `nbytes`: exactly, by SciPy's milp.

    Costs are taken to add up, as errors that know nothing of each other do: measure the result. Raises BudgetError
    where even all rounded, or all float, is too much.
    """
    from scipy.optimize import Bounds, LinearConstraint, milp

    assert (mse is None) != (nbytes is None), "one budget"
    weights = np.array([cost.weights for cost in costs], np.float64)
    errors = np.array([cost.mse for cost in costs], np.float64)
    saved = weights * (FLOAT_BYTES - ROUNDED_BYTES)
    everything = float(weights.sum()) * FLOAT_BYTES
    # Scaled to sums of 1: the solver's tolerances are absolute.
    if mse is not None:
        scale = max(float(errors.sum()), 1e-30)
        objective, limits = -saved / saved.sum(), LinearConstraint(errors / scale, ub=mse / scale)
    else:
        assert nbytes is not None
        scale = max(float(errors.sum()), 1e-30)
        objective, limits = errors / scale, LinearConstraint(saved / everything, lb=(everything - nbytes) / everything)
    solved = milp(objective, constraints=limits, integrality=np.ones(len(costs)), bounds=Bounds(0, 1))
    if solved.x is None:
        raise BudgetError(f"no choice of layers keeps the budget: {solved.message}")
    rounded = solved.x > 0.5
    left = tuple(cost.name for cost, is_rounded in zip(costs, rounded, strict=True) if not is_rounded)
    return Choice(left, int(everything - saved[rounded].sum()), float(errors[rounded].sum()))


def pareto(costs: Sequence[LayerCost], *, points: int = 12) -> list[Choice]:
    """Choices of growing size, none beaten by another: from all rounded to all float."""
    total = sum(cost.weights for cost in costs)
    sizes = np.linspace(total * ROUNDED_BYTES, total * FLOAT_BYTES, points)
    found: list[Choice] = []
    for size in sizes:
        choice = choose(costs, nbytes=int(np.ceil(size)))
        if not found or choice.mse < found[-1].mse:
            found.append(choice)
    return found


def fitting(costs: Sequence[LayerCost], measured: Callable[[Choice], float], *, mse: float) -> Choice:
    """The smallest choice whose `measured` error keeps `mse`: asked for less until it does. Raises BudgetError."""
    allowed = mse
    for _ in range(TRIES):
        choice = choose(costs, mse=allowed)
        found = measured(choice)
        if found <= mse:
            return choice
        allowed = choice.mse * 0.95 * mse / found
    raise BudgetError(
        f"no choice of float layers keeps the budget; nearest: mean squared error {found:.3g}, asked {mse:.3g}"
    )


def worst(costs: Sequence[LayerCost], count: int = 5) -> str:
    """The layers that cost most, with their share, in words."""
    total = sum(cost.mse for cost in costs) or 1.0
    ranked = sorted(costs, key=lambda cost: -cost.mse)[:count]
    return ", ".join(f"{cost.name} ({cost.mse / total:.0%})" for cost in ranked)
