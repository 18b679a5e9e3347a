"""ODE solvers that carry noise (t = 1) to an image (t = 0) along dx/dt = v(x, t), deterministically.

Of a network with a second time, Euler takes the mean velocity between two times of its grid; the others, whose
corrections are for velocities, take the velocity at one time. The times are even, or those of the network's own sampler
(edgegen.flow.time_grid).
"""

import itertools
import math
from collections.abc import Collection
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from edgegen.flow.path import Velocity, has_second_time, per_sample, time_dtype
from edgegen.flow.time_grid import TimeGrid, grid_of

START_STEPS = 50  # a sampler's first time depends on the number of its steps; rk45 starts where it starts with these
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
    """x (batch, channels, height, width) at t = 0, and how many times the velocity was evaluated.

    `knots` are states like x on the way, at the times of `knot_times`, where they were asked for.
    """

    x: Tensor
    evaluations: int
    knots: tuple[Tensor, ...] = ()


@torch.no_grad()
def solve(
    velocity: Velocity,
    noise: Tensor,
    condition: Tensor | None,
    *,
    solver: str,
    steps: int,
    tolerance: float = 1e-4,
    knots: int = 0,
) -> Solution:
    """From noise at t = 1 to an image at t = 0 along the velocity's ODE.

    Args:
        velocity: velocity(x, t, condition) -> like x.
        noise: (batch, channels, height, width).
        condition: of each sample, or None (edgegen.flow.condition).
        solver: "euler", "heun", "dpm_solver_pp" or "rk45".
        steps: of all but rk45.
        tolerance: of rk45, relative and absolute.
        knots: how many of the states at the starts of the steps are kept, spread evenly from the first; at most
            `steps`, and none of rk45, whose samples have steps of their own.

    Returns:
        The images, how often the velocity was evaluated, and the knots.

    Raises:
        ValueError: more knots than there are steps of all samples.
        ArithmeticError: rk45 did not reach t = 0: the tolerance asks for more than float32 holds.
    """
    if knots > (most := 0 if solver == "rk45" else steps):
        raise ValueError(f"{knots} knots of a path by {solver}; at most {most} would do")
    if solver == "rk45":
        return rk45(velocity, noise, condition, tolerance=tolerance)
    grid = grid_of(velocity, steps)
    path = _Path(knot_times(velocity, steps, knots))
    if solver == "dpm_solver_pp":
        solution = dpm_solver_pp(velocity, noise, condition, grid=grid, path=path)
    else:
        solution = fixed(velocity, noise, condition, grid=grid, second_order=solver == "heun", path=path)
    return replace(solution, knots=tuple(path.states))


def knot_times(velocity: object, steps: int, knots: int) -> list[float]:
    """The falling times of the knots that `solve` keeps."""
    grid = grid_of(velocity, steps)
    return [grid.times[index * grid.steps // knots] for index in range(knots)]


class _Path:
    """Keeps the states at the given times."""

    def __init__(self, times: Collection[float]) -> None:
        self.times, self.states = times, list[Tensor]()

    def passes(self, x: Tensor, t: float) -> None:
        if t in self.times:
            self.states.append(x)


def fixed(
    velocity: Velocity,
    noise: Tensor,
    condition: Tensor | None,
    *,
    grid: TimeGrid,
    second_order: bool,
    path: _Path | None = None,
) -> Solution:
    """Euler, or Heun, whose last step is an Euler step as in EDM (arXiv:2206.00364, Alg. 1).

    Euler on the times of a diffusion model's sampler is DDIM (arXiv:2010.02502, Eq. 13).
    """
    x, evaluations = grid.start_gain * noise, 0
    dtype = time_dtype(velocity, x.dtype)
    for t, s in itertools.pairwise(grid.times):
        if path is not None:
            path.passes(x, t)
        now = x.new_full((len(x),), t, dtype=dtype)
        if has_second_time(velocity) and not second_order:
            v = velocity(x, now, condition, r=x.new_full((len(x),), s))  # type: ignore[call-arg]
        else:
            v = velocity(x, now, condition)
        evaluations += 1
        if second_order and s > 0:
            v = (v + velocity(x + (s - t) * v, x.new_full((len(x),), s, dtype=dtype), condition)) / 2
            evaluations += 1
        x = x + (s - t) * v
    return Solution(grid.end_gain * x, evaluations)


def dpm_solver_pp(
    velocity: Velocity, noise: Tensor, condition: Tensor | None, *, grid: TimeGrid, path: _Path | None = None
) -> Solution:
    """DPM-Solver++ (2M) (arXiv:2211.01095, Alg. 2): second order with one evaluation a step.

    On the straight path alpha = 1 - t, sigma = t, and the data estimate is x - t v. The first step is of first order,
    as is one to t = 0, where lambda = log(alpha / sigma) is infinite; so is lambda at t = 1.
    """
    x = grid.start_gain * noise
    dtype = time_dtype(velocity, x.dtype)
    before, length_before = None, 0.0  # the data estimate of the last step, and its length in lambda
    for t, s in itertools.pairwise(grid.times):
        if path is not None:
            path.passes(x, t)
        data = x - t * velocity(x, x.new_full((len(x),), t, dtype=dtype), condition)
        length = math.inf if s == 0 or t == 1 else math.log((1 - s) / s) - math.log((1 - t) / t)
        target = data
        if before is not None and math.isfinite(length) and math.isfinite(length_before):
            target = data + (data - before) * (length / (2 * length_before))  # 1 / (2 r), r = h_(i-1) / h_i
        # sigma_s / sigma_t x - alpha_s (exp(-h) - 1) target, where alpha_s exp(-h) = alpha_t sigma_s / sigma_t
        x = s / t * x + ((1 - s) - s / t * (1 - t)) * target
        before, length_before = data, length
    return Solution(grid.end_gain * x, grid.steps)


def rk45(velocity: Velocity, noise: Tensor, condition: Tensor | None, *, tolerance: float) -> Solution:
    """Dormand-Prince 5(4) with a step size for every sample, so that a sample does not depend on its batch.

    From the start of the network's own times, where it brings any, to t = 0.
    """
    grid = grid_of(velocity, START_STEPS)
    x, evaluations = grid.start_gain * noise, 0
    dtype = time_dtype(velocity, x.dtype)
    t = x.new_full((len(x),), grid.times[0], dtype=torch.float64)
    h = torch.full_like(t, 0.05)
    for _ in range(MAX_TRIES):
        h = torch.minimum(h, t)  # t = 0 is the end; a finished sample steps by 0 and stays where it is
        slopes: list[Tensor] = []
        for node, row in zip(NODES, STAGES, strict=True):
            point = x - per_sample(h, x).to(x) * _combine(row, slopes, x)
            slopes.append(velocity(point, (t - node * h).to(dtype), condition))
        evaluations += len(NODES)
        error = per_sample(h, x).to(x) * _combine(ERROR, slopes, x)
        scale = tolerance * (1 + torch.maximum(x.abs(), point.abs()))
        ratio = (error / scale).double().square().flatten(1).mean(dim=1).sqrt()
        accept = ratio <= 1
        x = torch.where(per_sample(accept, x), point, x)  # the last stage's point is the 5th order solution
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
