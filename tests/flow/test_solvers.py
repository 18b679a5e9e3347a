"""ODE solvers against SciPy and against solutions known in closed form."""

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from edgegen.flow.solvers import solve


def swirl(x: Tensor, t: Tensor, labels: Tensor | None) -> Tensor:
    """A field that is not linear in x and depends on t; labels scale it."""
    scale = 1.0 if labels is None else (1 + labels)[:, None, None, None]
    s = t[:, None, None, None]
    return scale * (torch.sin(3 * x) * (1 + s) - x.flip(-1) * s * s)


def by_scipy(noise: Tensor, labels: Tensor) -> np.ndarray:
    out = []
    for z, label in zip(noise, labels, strict=True):

        def slope(t: float, flat: np.ndarray, label: Tensor = label) -> np.ndarray:
            x = torch.from_numpy(flat).reshape(1, 1, 2, 2)
            return swirl(x, torch.tensor([t], dtype=torch.float64), label[None]).numpy().ravel()

        out.append(solve_ivp(slope, (1, 0), z.double().numpy().ravel(), rtol=1e-10, atol=1e-10).y[:, -1])
    return np.stack(out).reshape(noise.shape)


@pytest.fixture(scope="module")
def problem() -> tuple[Tensor, Tensor, np.ndarray]:
    noise = torch.randn(3, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1, 2])
    return noise, labels, by_scipy(noise, labels)


@pytest.mark.parametrize(("tolerance", "error"), [(1e-3, 5e-3), (1e-5, 5e-5)])
def test_rk45_keeps_its_tolerance(problem: tuple[Tensor, Tensor, np.ndarray], tolerance: float, error: float) -> None:
    noise, labels, expected = problem
    got = solve(swirl, noise, labels, solver="rk45", steps=0, tolerance=tolerance)
    assert np.abs(got.x.numpy() - expected).max() < error


def test_rk45_gives_a_sample_the_same_alone_and_in_a_batch(problem: tuple[Tensor, Tensor, np.ndarray]) -> None:
    noise, labels, _ = problem
    together = solve(swirl, noise, labels, solver="rk45", steps=0).x
    alone = solve(swirl, noise[1:2], labels[1:2], solver="rk45", steps=0).x
    assert torch.equal(together[1:2], alone)


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("heun", 2)])
def test_order_of_convergence(problem: tuple[Tensor, Tensor, np.ndarray], solver: str, order: int) -> None:
    noise, labels, expected = problem
    errors = [np.abs(solve(swirl, noise, labels, solver=solver, steps=n).x.numpy() - expected).max() for n in (40, 80)]
    # Heun's last step is an Euler step of size 1/n, whose local error is of second order too.
    assert np.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.35)


def test_one_euler_step_is_noise_minus_velocity(problem: tuple[Tensor, Tensor, np.ndarray]) -> None:
    noise, labels, _ = problem
    got = solve(swirl, noise, labels, solver="euler", steps=1)
    assert got.evaluations == 1
    assert torch.allclose(got.x, noise - swirl(noise, torch.ones(3), labels))


def test_a_tolerance_beyond_float32_is_an_error(problem: tuple[Tensor, Tensor, np.ndarray]) -> None:
    with pytest.raises(ArithmeticError, match="raise the tolerance"):
        solve(swirl, problem[0], problem[1], solver="rk45", steps=0, tolerance=1e-12)


class MeanVelocity:
    """u(x, t, r) of dx/dt = x: x_r = x_t exp(r - t), so u = x_t (1 - exp(r - t)) / (t - r), and x_t at r = t."""

    second_time = True

    def __call__(self, x: Tensor, t: Tensor, labels: Tensor | None, r: Tensor | None = None) -> Tensor:
        h = torch.zeros_like(t) if r is None else t - r
        factor = torch.where(h > 0, -torch.expm1(-h) / torch.where(h > 0, h, 1.0), 1.0)
        return x * factor[:, None, None, None]


@pytest.mark.parametrize("steps", [1, 3])
def test_euler_takes_the_mean_velocity_to_the_next_time(steps: int) -> None:
    noise = torch.randn(3, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    exact = noise * torch.exp(torch.tensor(-1.0))
    got = solve(MeanVelocity(), noise, None, solver="euler", steps=steps)
    assert got.evaluations == steps
    torch.testing.assert_close(got.x, exact)


@pytest.mark.parametrize(("solver", "error"), [("heun", 2e-2), ("rk45", 1e-4)])
def test_solvers_of_higher_order_take_the_velocity(solver: str, error: float) -> None:
    noise = torch.randn(3, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    got = solve(MeanVelocity(), noise, None, solver=solver, steps=10).x
    plain = solve(lambda x, t, labels: x, noise, None, solver=solver, steps=10).x
    assert torch.equal(got, plain)
    assert float((got - noise * torch.exp(torch.tensor(-1.0))).abs().max()) < error
