"""ODE solvers that carry noise (t = 1) to an image (t = 0) along dx/dt = v(x, t), deterministically.

Of a network with a second time, Euler takes the mean velocity between two times of its grid; Heun and rk45, whose
corrections are for velocities, take the velocity at one time.
"""

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

from edgegen.flow.path import Velocity, has_second_time, per_sample

MAX_TRIES = 1000  # of rk45's steps; more means that the tolerance asks for more than float32 holds

# Dormand and Prince (1980), doi:10.1016/0771-050X(80)90013-3: nodes, stages, 5th order weights, 5th minus 4th order.
NODES = (0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0)
STAGES = (
    (),
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
ERROR = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)


@dataclass(frozen=True)
class Solution:
    """x (batch, channels, height, width) at t = 0, and how many times the velocity was evaluated."""

    x: Tensor
    evaluations: int


@torch.no_grad()
def solve(
    velocity: Velocity, noise: Tensor, labels: Tensor | None, *, solver: str, steps: int, tolerance: float = 1e-4
) -> Solution:
    """From noise at t = 1 to an image at t = 0 along the velocity's ODE.

    Args:
        velocity: velocity(x, t, labels) -> like x.
        noise: (batch, channels, height, width).
        labels: classes (batch,), or None.
        solver: "euler", "heun" or "rk45".
        steps: of euler and heun.
        tolerance: of rk45, relative and absolute.

    Returns:
        The images, and how often the velocity was evaluated.

    Raises:
        ArithmeticError: rk45 did not reach t = 0: the tolerance asks for more than float32 holds.
    """
    if solver == "rk45":
        return rk45(velocity, noise, labels, tolerance=tolerance)
    return fixed(velocity, noise, labels, steps=steps, second_order=solver == "heun")


def fixed(velocity: Velocity, noise: Tensor, labels: Tensor | None, *, steps: int, second_order: bool) -> Solution:
    """Euler on an even grid, or Heun, whose last step is an Euler step as in EDM (arXiv:2206.00364, Alg. 1)."""
    x, evaluations = noise, 0
    times = torch.linspace(1, 0, steps + 1, dtype=torch.float64).tolist()
    for t, s in itertools.pairwise(times):
        now = x.new_full((len(x),), t)
        if has_second_time(velocity) and not second_order:
            v = velocity(x, now, labels, r=x.new_full((len(x),), s))  # type: ignore[call-arg]
        else:
            v = velocity(x, now, labels)
        evaluations += 1
        if second_order and s > 0:
            v = (v + velocity(x + (s - t) * v, x.new_full((len(x),), s), labels)) / 2
            evaluations += 1
        x = x + (s - t) * v
    return Solution(x, evaluations)


def rk45(velocity: Velocity, noise: Tensor, labels: Tensor | None, *, tolerance: float) -> Solution:
    """Dormand-Prince 5(4) with a step size for every sample, so that a sample does not depend on its batch."""
    x, evaluations = noise, 0
    t = x.new_ones(len(x), dtype=torch.float64)
    h = torch.full_like(t, 0.05)
    for _ in range(MAX_TRIES):
        h = torch.minimum(h, t)  # t = 0 is the end; a finished sample steps by 0 and stays where it is
        slopes: list[Tensor] = []
        for node, row in zip(NODES, STAGES, strict=True):
            point = x - per_sample(h).to(x) * _combine(row, slopes, x)
            slopes.append(velocity(point, (t - node * h).to(x), labels))
        evaluations += len(NODES)
        error = per_sample(h).to(x) * _combine(ERROR, slopes, x)
        scale = tolerance * (1 + torch.maximum(x.abs(), point.abs()))
        ratio = (error / scale).double().square().flatten(1).mean(dim=1).sqrt()
        accept = ratio <= 1
        x = torch.where(per_sample(accept), point, x)  # the last stage's point is the 5th order solution
        t = torch.where(accept, t - h, t)
        if not bool((t > 0).any()):
            return Solution(x, evaluations)
        # Standard step control (Hairer, Norsett, Wanner: Solving ODEs I, II.4), safety 0.9.
        h = torch.where(t > 0, h * (0.9 * ratio.clamp(min=1e-10) ** -0.2).clamp(0.2, 5.0), h)
    raise ArithmeticError(f"rk45 did not reach t = 0 in {MAX_TRIES} steps: raise the tolerance (now {tolerance})")


def _combine(weights: tuple[float, ...], slopes: list[Tensor], like: Tensor) -> Tensor:
    total = torch.zeros_like(like)
    for weight, slope in zip(weights, slopes, strict=False):
        if weight:
            total = total + weight * slope
    return total
