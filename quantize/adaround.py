"""AdaRound: rounds each weight up or down, for the least error of its layer's output, not of the weight.

AdaRound (M. Nagel and others, arXiv:2004.10568, section 3), one layer after the other: each on its input in the rounded
network so far, against its output in the float network; the only data are calibration's noise.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, fx

from edgegen.quantize.fake_quant import FakeQuantizedNetwork, WeightRounding
from edgegen.quantize.layerwise import LayerOnBatch, walk

LOW, HIGH = -0.1, 1.1  # the stretched sigmoid's ends (their gamma and zeta)
WARM = 0.2  # share of the iterations without the term that makes every choice 0 or 1
FIRST_BETA, LAST_BETA = 20.0, 2.0
WEIGHT = 0.01  # of that term
SAMPLES = 32  # of the batch in one iteration
ITERATIONS = 500  # of a layer


@dataclass(frozen=True)
class RoundingResult:
    """How many layers were learned, and the summed error of their outputs before and after."""

    layers: int
    error_before: float
    error_after: float


def learn_rounding(
    exact: fx.GraphModule,
    simulated: FakeQuantizedNetwork,
    batch: tuple[Tensor, ...],
    *,
    iterations: int,
    seed: int,
    update: Callable[[int], None] = lambda count: None,
) -> RoundingResult:
    """Moves the weights of `simulated` onto their grids, in place, so that rounding does not change them any more.

    `exact` is the float network, see `walk`. A layer's choice is kept only if its output on the batch is nearer to the
    float one than by rounding to nearest.
    """
    rng = torch.Generator().manual_seed(seed)
    layers, before, after = 0, 0.0, 0.0

    def visit(layer: LayerOnBatch) -> None:
        nonlocal layers, before, after
        if not isinstance(layer.rounding, WeightRounding):
            return
        nearest = layer.rounding(layer.weights)
        with torch.enable_grad():
            learned = _learned(layer, layer.rounding, iterations, rng)
        errors = [float((layer.exact - layer.run(weights)).square().mean()) for weights in (nearest, learned)]
        layer.weights.copy_(learned if errors[1] < errors[0] else nearest)
        layers, before, after = layers + 1, before + errors[0], after + min(errors)
        update(layers)

    walk(exact, simulated, batch, visit)
    return RoundingResult(layers, before, after)


def _learned(layer: LayerOnBatch, rounding: WeightRounding, iterations: int, rng: torch.Generator) -> Tensor:
    weights = layer.weights.detach()
    scale, largest = rounding.scale(weights), rounding.grid.largest
    down = (weights / scale).floor().clamp(-largest, largest)
    fraction = (weights / scale - down).clamp(0.01, 0.99)
    # h(V) is the fraction at the start: the float weights.
    v = torch.logit((fraction - LOW) / (HIGH - LOW)).requires_grad_()
    adam = torch.optim.Adam([v], lr=1e-2)

    def choice() -> Tensor:
        return (torch.sigmoid(v) * (HIGH - LOW) + LOW).clamp(0.0, 1.0)

    channels = 1 if layer.exact.ndim > 2 else -1
    for step in range(iterations):
        rows = torch.randperm(len(layer.exact), generator=rng)[:SAMPLES]
        h = choice()
        output = layer.run(scale * (down + h).clamp(-largest, largest), rows)
        loss = (output - layer.exact[rows]).square().sum(channels).mean()
        share = step / iterations
        if share >= WARM:
            beta = LAST_BETA + (FIRST_BETA - LAST_BETA) * (1 + math.cos(math.pi * (share - WARM) / (1 - WARM))) / 2
            loss = loss + WEIGHT * (1 - (2 * h - 1).abs().pow(beta)).sum()
        adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        adam.step()
    learned = (down + (choice() >= 0.5)).clamp(-largest, largest)
    # The largest weight determines the scale, and must not move.
    ends = (weights / scale).abs() > largest - 0.5
    return (torch.where(ends, (weights / scale).round(), learned) * scale).detach()
