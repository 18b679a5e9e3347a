"""The error that each layer's rounding causes, and which layers to leave float under a budget."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from edgegen.errors import BudgetError
from edgegen.quantize.fake_quant import FakeQuantizedNetwork
from edgegen.quantize.layers import macs_of, tensor_of

FLOAT_BYTES, ROUNDED_BYTES = 4, 1  # of a weight
TRIES = 6  # at a choice whose layers together cost more than their sum

Images = NDArray[np.float32]


@dataclass(frozen=True)
class LayerSensitivity:
    """Rounding this layer alone (its weights, its input and its output) changes the images by `mse`.

    `fd_local` is the distribution's distance then, None where nothing judged it; `weights` counts its elements, `macs`
    its products at batch 1.
    """

    name: str
    weights: int
    mse: float
    fd_local: float | None = None
    macs: int = 0


@dataclass(frozen=True)
class FloatLayers:
    """Layers left float, what the weights then take, and the sum of the costs of the others: a prediction.

    `latency` is the share of the float file's time, 1 where nothing was timed.
    """

    float_layers: tuple[str, ...]
    nbytes: int
    mse: float
    latency: float = 1.0


@dataclass(frozen=True)
class Figures:
    """Of a choice of float layers: its limits, or its measured values; None is no limit, or not measured."""

    mse: float | None = None
    nbytes: int | None = None
    latency: float | None = None


def sensitivity(
    simulated: FakeQuantizedNetwork,
    run: Callable[[FakeQuantizedNetwork], Images],
    *,
    fd_local: Callable[[Images], float] | None = None,
    update: Callable[[int], None] = lambda count: None,
) -> list[LayerSensitivity]:
    """Each layer rounded alone, in the order in which they run; `run` gives the images of the same noises each time.

    The change of the images and the change of the distribution are separate figures: a generator may make other images
    that are as good. `simulated` rounds everything again at the end.
    """
    costs = []
    simulated.set_active(False)
    exact = run(simulated)
    for number, layer in enumerate(simulated.layers):
        simulated.set_active(True, {layer.name})
        images = run(simulated)
        simulated.set_active(False, {layer.name})
        mse = float(np.mean((images.astype(np.float64) - exact) ** 2))
        distance = None if fd_local is None else fd_local(images)
        weights = tensor_of(simulated.module, layer.target).numel()
        costs.append(LayerSensitivity(layer.name, weights, mse, distance, macs_of(layer, weights)))
        update(number + 1)
    simulated.set_active(True)
    return costs


def choose(costs: Sequence[LayerSensitivity], limits: Figures, *, rounded_latency: float = 1.0) -> FloatLayers:
    """The smallest weights that cost at most `limits.mse`, without that the cheapest; within the other limits.

    Exactly, by SciPy's milp. Errors are taken to add up, as independent errors do; and the time that rounding saves
    (`rounded_latency` is that of the file with all rounded) to be in proportion to the layers' products: measure the
    result. Raises BudgetError where even all rounded is too much.
    """
    from scipy.optimize import Bounds, LinearConstraint, milp

    weights = np.array([cost.weights for cost in costs], np.float64)
    errors = np.array([cost.mse for cost in costs], np.float64)
    macs = np.array([cost.macs for cost in costs], np.float64)
    saved = weights * (FLOAT_BYTES - ROUNDED_BYTES)
    everything = float(weights.sum()) * FLOAT_BYTES
    faster = (1.0 - rounded_latency) * macs / max(float(macs.sum()), 1.0)
    # Scaled to sums of 1: the solver's tolerances are absolute.
    scale = max(float(errors.sum()), 1e-30)
    objective = errors / scale if limits.mse is None else -saved / saved.sum()
    constraints = []
    if limits.mse is not None:
        constraints.append(LinearConstraint(errors / scale, ub=limits.mse / scale))
    if limits.nbytes is not None:
        constraints.append(LinearConstraint(saved / everything, lb=(everything - limits.nbytes) / everything))
    if limits.latency is not None:
        constraints.append(LinearConstraint(faster, lb=1.0 - limits.latency))
    assert constraints, "a budget"
    solved = milp(objective, constraints=constraints, integrality=np.ones(len(costs)), bounds=Bounds(0, 1))
    if solved.x is None:
        least = f"{everything - saved.sum():,.0f} bytes and {rounded_latency:.2f} of the float file's time"
        raise BudgetError(f"no choice of layers keeps the budget: with all rounded they take {least}")
    rounded = solved.x > 0.5
    left = tuple(cost.name for cost, is_rounded in zip(costs, rounded, strict=True) if not is_rounded)
    return FloatLayers(
        left,
        int(everything - saved[rounded].sum()),
        float(errors[rounded].sum()),
        float(1.0 - faster[rounded].sum()),
    )


def pareto(costs: Sequence[LayerSensitivity], *, points: int = 12) -> list[FloatLayers]:
    """Choices of growing size, none beaten by another: from all rounded to all float."""
    total = sum(cost.weights for cost in costs)
    sizes = np.linspace(total * ROUNDED_BYTES, total * FLOAT_BYTES, points)
    front: list[FloatLayers] = []
    for size in sizes:
        choice = choose(costs, Figures(nbytes=int(np.ceil(size))))
        if not front or choice.mse < front[-1].mse:
            front.append(choice)
    return front


def fitting(
    costs: Sequence[LayerSensitivity],
    measured: Callable[[FloatLayers], Figures],
    limits: Figures,
    *,
    rounded_latency: float = 1.0,
) -> FloatLayers:
    """As `choose`, but with limits tightened until the choice as `measured` keeps them. Raises BudgetError."""
    tightened, nearest = limits, ""
    for _ in range(TRIES):
        try:
            choice = choose(costs, tightened, rounded_latency=rounded_latency)
        except BudgetError as e:
            raise BudgetError(f"{e}{nearest}") from e
        figures = measured(choice)
        if not (over := _over(figures, limits, rounded_latency)):
            return choice
        complaints = [f"{name} {getattr(figures, name):.3g}, asked {getattr(limits, name):.3g}" for name in over]
        nearest = f"; nearest: {', '.join(complaints)}"
        if "mse" in over:
            tightened = replace(tightened, mse=choice.mse * 0.95 * over["mse"])
        if "latency" in over:
            slower = 0.95 * over["latency"] * (choice.latency - rounded_latency)
            tightened = replace(tightened, latency=rounded_latency + slower)
    raise BudgetError(f"no choice of float layers keeps the budget{nearest}")


def _over(figures: Figures, limits: Figures, rounded_latency: float) -> dict[str, float]:
    """limit / figure of each figure over its limit; of a latency, both less that of the file with all rounded."""
    pairs = {"mse": (limits.mse, figures.mse, 0.0), "latency": (limits.latency, figures.latency, rounded_latency)}
    return {
        name: (limit - least) / (figure - least)
        for name, (limit, figure, least) in pairs.items()
        if limit is not None and figure is not None and figure > limit
    }


def worst(costs: Sequence[LayerSensitivity], count: int = 5) -> str:
    """The layers that cost most, with their share, in words."""
    total = sum(cost.mse for cost in costs) or 1.0
    ranked = sorted(costs, key=lambda cost: -cost.mse)[:count]
    return ", ".join(f"{cost.name} ({cost.mse / total:.0%})" for cost in ranked)
