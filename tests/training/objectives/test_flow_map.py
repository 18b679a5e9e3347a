"""Flow maps: against their formula in float64, identities, derivatives against differences, the map of a known flow."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from gaussian_flow import GaussianVelocity, coefficient, known, trained_scale
from objective_parts import Field, f64, make_batch
from torch import Tensor, nn

from edgegen.errors import TrainingError
from edgegen.models.edge_unet import EdgeUNet, EdgeUNetConfig
from edgegen.registry import load
from edgegen.support.rng import generator
from edgegen.training.batch import Batch
from edgegen.training.flow_maps import bare_mean_velocity, central_difference, exact, jvp
from edgegen.training.objectives.flow_map import FlowMap

PRESETS = ("flow_map", "mean_flow", "improved_mean_flow", "align_your_flow", "so_flow", "re_mean_flow", "s_cm")
Point = tuple[Tensor, Tensor, Tensor]


def mean_velocity(weight: float, x: np.ndarray, t: float, r: float, label: int) -> np.ndarray:
    """Field's u(x, t, r), written out."""
    return weight * x * (1 + t - 0.5 * (t - r)) + 0.1 * label


def expected(method: FlowMap, batch: Batch, weight: float, teacher: float) -> tuple[float, float]:
    """The loss and its gradient in the weight of a Field, sample by sample, with the derivative by hand."""
    rng, data = generator(7), batch if method.examples == "pairs" else batch.real
    e = batch.noise if method.examples == "pairs" else torch.randn(data.images.shape, generator=rng)
    t, r = method.two_times(len(data.images), rng)
    ratio = method.first_step * (method.last_step / method.first_step) ** (batch.step / batch.steps)
    losses, slopes = [], []
    for x, n, a, b, label in zip(f64(data.images), f64(e), f64(t), f64(r), data.condition.tolist(), strict=True):
        x_t = (1 - a) * x + a * n
        u = mean_velocity(weight, x_t, a, b, label)
        v = mean_velocity(teacher, x_t, a, a, label) if method.velocity == "teacher" else n - x
        along = mean_velocity(weight, x_t, a, a, label) if method.velocity == "own" else v
        if method.derivative == "finite_step":
            near = a - ratio * (a - b)
            u_near = mean_velocity(weight, x_t + (near - a) * along, near, b, label)
            change = (near - b) * (u - u_near) / (a - near) if a > b else 0 * u
        else:
            change = (a - b) * (weight * along * (1 + 0.5 * (a + b)) + 0.5 * weight * x_t)
        residual = u - v + method.tangent(batch.step, batch.steps) * change
        square = np.mean(residual**2)
        du = x_t * (1 + 0.5 * (a + b))  # of u in the weight
        if method.normaliser == "adaptive":
            factor = 1 / (square + method.constant) ** method.power
            losses.append(factor * square)
        else:
            factor = 1 / (np.sqrt(square) + method.constant)
            losses.append(factor**2 * square)
        slopes.append(2 * factor * np.mean(residual * du))
    return float(np.mean(losses)), float(np.mean(slopes))


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("velocity", ["data", "teacher", "own"])
@pytest.mark.parametrize("derivative", ["jvp", "central", "finite_step"])
def test_loss_and_gradient_of_every_switch(preset: str, velocity: str, derivative: str) -> None:
    """The gradient is that of a fixed target: none through the derivative, none into the teacher."""
    method = load("objective", preset)(velocity=velocity, derivative=derivative)
    networks = {"student": Field(0.3), "teacher": Field(0.25)}
    batch = make_batch()
    loss, slope = expected(method, batch, 0.3, 0.25)
    value = method.losses(networks, {}, batch, generator(7))["student"]
    value.backward()
    assert value.item() == pytest.approx(loss, rel=1e-3)
    assert networks["student"].weight.grad.item() == pytest.approx(slope, rel=1e-3, abs=1e-5)
    assert networks["teacher"].weight.grad is None


def test_with_r_equal_to_t_it_is_flow_matching() -> None:
    batch = make_batch()
    method = FlowMap(equal_share=1.0, power=0.0, derivative="central")
    value = method.losses({"student": Field(0.3)}, {}, batch, generator(7))
    rng = generator(7)
    e = torch.randn(batch.real.images.shape, generator=rng)
    t, r = method.two_times(6, rng)
    x_t = (1 - t[:, None, None, None]) * batch.real.images + t[:, None, None, None] * e
    flow_matching = (Field(0.3)(x_t, t, batch.real.condition) - (e - batch.real.images)).square().mean()
    assert torch.equal(t, r)
    assert value["student"].item() == pytest.approx(flow_matching.item(), rel=1e-6)
    assert value["residual r = t"].item() == pytest.approx(flow_matching.item(), rel=1e-6)


def test_what_each_switch_needs() -> None:
    assert {"second_time", "real_images"} == FlowMap().needs == load("objective", "so_flow")().needs
    assert load("objective", "align_your_flow")().needs == {"second_time", "real_images", "teacher"}
    assert load("objective", "re_mean_flow")(velocity="teacher").needs == {"second_time", "pairs", "teacher"}


@pytest.mark.parametrize("preset", PRESETS)
def test_times_are_in_order_and_as_often_equal_as_said(preset: str) -> None:
    method = load("objective", preset)()
    t, r = method.two_times(4000, generator(0))
    assert bool(((r >= 0) & (r <= t) & (t <= 1)).all())
    by_chance = 0.2 if preset in ("flow_map", "mean_flow", "so_flow") else 0.01  # two: r = min(t, r)
    assert method.equal_share - 0.03 < (t == r).float().mean().item() < method.equal_share + by_chance
    if preset == "s_cm":
        assert not r.any()


# --- derivatives ---


def network(**keys: Any) -> EdgeUNet:
    net = EdgeUNet(EdgeUNetConfig(8, 1, (8, 16), 1, (1,), 3, second_time=True, **keys))
    torch.manual_seed(1)
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.1)
    return net


def point(labels: bool = True) -> tuple[Point, Point, Tensor | None]:
    g = generator(4)
    x, v = (torch.randn(6, 1, 8, 8, generator=g) for _ in range(2))
    t = torch.rand(6, generator=g) * 0.5 + 0.4
    here, along = (x, t, t * torch.rand(6, generator=g)), (v, torch.ones(6), torch.zeros(6))
    return here, along, torch.arange(6) % 3 if labels else None


def test_the_forward_derivative_is_the_central_difference() -> None:
    here, along, labels = point()
    u = bare_mean_velocity(network(), labels)
    with exact(torch.device("cpu")):
        derivative = jvp(u, here, along)
        difference = central_difference(u, here, along, torch.full((6,), 1e-3))
    assert (derivative - difference).norm() / derivative.norm() < 1e-2
    wrong = jvp(u, here, (along[0], torch.zeros(6), torch.zeros(6)))  # not along t: must be seen
    assert (wrong - difference).norm() / derivative.norm() > 0.05


def test_the_finite_step_comes_to_the_derivative() -> None:
    here, along, labels = point()
    net = network()
    u = bare_mean_velocity(net, labels)
    x, t, r = here
    change = {
        (kind, share): FlowMap(derivative=kind, last_step=1e-3)._change(u, x, t, r, along[0], None, share=share)
        for kind, share in (("jvp", 0.0), ("finite_step", 0.0), ("finite_step", 1.0))
    }
    exactly, first, last = change.values()
    assert not first.any()  # the first step is the whole way to r: flow matching for every r
    assert (last - exactly).norm() / exactly.norm() < 2e-2


def wrapped(kind: str, net: nn.Module) -> nn.Module:
    if kind == "compiled":
        return torch.compile(net, backend="eager")
    return torch.nn.parallel.DistributedDataParallel(net)


@pytest.fixture
def process_group(tmp_path) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.usefixtures("process_group")
@pytest.mark.parametrize("kind", ["compiled", "distributed"])
def test_a_compiled_or_distributed_network_has_the_same_loss_and_gradient(kind: str) -> None:
    batch = Batch(1, 10, torch.randn(6, 1, 8, 8, generator=generator(5)), torch.arange(6) % 3)
    values = {}
    for name in ("plain", kind):
        net = network()
        student = net if name == "plain" else wrapped(name, net)
        loss = FlowMap().losses({"student": student}, {}, batch, generator(7))["student"]
        loss.backward()
        values[name] = loss.item(), net.head.weight.grad
    assert values[kind][0] == pytest.approx(values["plain"][0], rel=1e-5)
    torch.testing.assert_close(values[kind][1], values["plain"][1], rtol=1e-4, atol=1e-6)


def test_the_derivative_is_not_rounded_by_mixed_precision() -> None:
    """Accelerate wraps `forward` in autocast; inside of `exact` the network runs in float32 all the same."""
    here, along, labels = point()
    net = network()
    with exact(torch.device("cpu")):
        plain = jvp(bare_mean_velocity(net, labels), here, along)
    # Objects of their own: one that is entered twice leaves autocast on for the tests that follow.
    net.forward = torch.autocast("cpu", torch.bfloat16)(net.forward)
    with torch.autocast("cpu", torch.bfloat16), exact(torch.device("cpu")):
        assert torch.equal(jvp(bare_mean_velocity(net, labels), here, along), plain)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = net(*here[:2], labels, r=here[2])
        value = FlowMap().losses({"student": net}, {}, make_batch_8(), generator(7))["student"]
    assert rounded.dtype == torch.bfloat16
    assert value.dtype == torch.float32


def test_a_finite_step_divides_no_rounded_difference() -> None:
    """u(x_t, t, r) of the trained network is rounded to bf16; its difference to the next point is not."""

    def slope(autocast: bool) -> torch.Tensor:
        net, method = network(), load("objective", "so_flow")()
        batch = replace(make_batch_8(), step=10)  # at the end of the stage the step is 1/3200 of t - r
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss = method.losses({"student": net}, {}, batch, generator(7))["student"]
        gradients = torch.autograd.grad(loss, list(net.parameters()), materialize_grads=True)
        return torch.cat([each.flatten() for each in gradients])

    exactly, rounded = slope(False), slope(True)
    assert (rounded - exactly).norm() < 0.05 * exactly.norm()


def make_batch_8() -> Batch:
    return Batch(1, 10, torch.randn(6, 1, 8, 8, generator=generator(5)), torch.arange(6) % 3)


class Attending(nn.Module):
    """A student with PyTorch's own attention, whose fast kernels have no forward derivative."""

    second_time = True

    def __init__(self, operation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.weight, self.operation = nn.Parameter(torch.tensor(0.5)), operation

    def forward(self, x: Tensor, t: Tensor, labels: Tensor | None, r: Tensor) -> Tensor:
        return self.operation(self.weight * x) * (t - r)[:, None, None, None]


def attention(x: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(x, x, x)


class Halve(torch.autograd.Function):
    """An operation with a backward formula alone."""

    @staticmethod
    def forward(context: Any, x: Tensor) -> Tensor:
        return x / 2

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        return gradient / 2


def test_attention_has_a_derivative_and_what_has_none_is_said_with_the_switch() -> None:
    batch = make_batch_8()
    values = [
        FlowMap(derivative=kind, power=0.0).losses({"student": Attending(attention)}, {}, batch, generator(7))[
            "student"
        ]
        for kind in ("jvp", "central")
    ]
    assert values[0].item() == pytest.approx(values[1].item(), rel=1e-3)
    halving = {"student": Attending(Halve.apply)}
    with pytest.raises(TrainingError, match=r"has an operation without a forward derivative .* derivative = 'central'"):
        FlowMap().losses(halving, {}, batch, generator(7))
    FlowMap(derivative="central").losses(halving, {}, batch, generator(7))


def test_a_network_that_fsdp_has_split_is_refused() -> None:
    from torch.distributed.fsdp import FSDPModule

    split = network()
    split.__class__ = type("Split", (FSDPModule, EdgeUNet), {})
    with pytest.raises(TrainingError, match="use DistributedDataParallel"):
        FlowMap().losses({"student": split}, {}, make_batch_8(), generator(7))


# --- known flows ---


def test_the_identity_of_the_known_flow_leaves_no_residual() -> None:
    """u of a Gaussian flow in closed form, with the teacher's velocity: u = v - (t - r) du/dt exactly."""

    class Known(nn.Module):
        second_time = True

        def forward(self, x: Tensor, t: Tensor, labels: Tensor | None, r: Tensor) -> Tensor:
            sd_t, sd_r = (((1 - time) ** 2 * 0.16 + time**2).sqrt() for time in (t, r))
            return ((1 - sd_r / sd_t) / (t - r))[:, None, None, None] * x

    images = 0.4 * torch.randn(64, 1, 2, 2, generator=generator(1))
    networks = {"student": Known(), "teacher": GaussianVelocity(0.4)}
    for derivative, most in (("jvp", 1e-8), ("central", 1e-4), ("finite_step", 1e-2)):
        method = load("objective", "align_your_flow")(derivative=derivative, tangent_share=1.0, tangent_rise=0.0)
        values = method.losses(networks, {}, Batch(99, 100, images), generator(7))
        residuals = [value for name, value in values.items() if name.startswith("residual t") and not value.isnan()]
        assert residuals
        assert max(value.item() for value in residuals) < most


@pytest.mark.parametrize("preset", PRESETS[1:])
def test_every_preset_reaches_the_map_of_a_known_flow(preset: str) -> None:
    student, figures = trained_scale(preset, 0.4, steps=700)
    assert coefficient(student, 1.0, 0.0) == pytest.approx(known(0.4, 1.0, 0.0), abs=0.04)
    assert load("objective", preset)().warnings(figures) == []


def test_at_full_tangent_s_cm_moves_each_sample_as_trig_flow_does() -> None:
    """TrigFlow's tangent g of F (METHODS of sCM: g = -cos^2 (sd F - dx/dt) - cos sin x - sd J), on its own path.

    f = x_t - t u is one function of both; F = (cos x_trig - f) / (sd sin).
    """
    sd, net = 0.5, network().double()
    labels = torch.zeros(4, dtype=torch.long)
    g = generator(3)
    x, e = (torch.randn(4, 1, 8, 8, generator=g).double() for _ in range(2))
    t = (torch.rand(4, generator=g) * 0.8 + 0.1).double()

    def wide(a: Tensor) -> Tensor:
        return a[:, None, None, None]

    x_t, v = (1 - wide(t)) * x + wide(t) * e, e - x
    u = bare_mean_velocity(net, labels)
    zero = torch.zeros_like(t)
    residual = u(x_t, t, zero) - v + wide(t) * jvp(u, (x_t, t, zero), (v, torch.ones_like(t), zero))

    s = torch.atan(t / (1 - t) / sd)  # TrigFlow's time of sigma = t / (1 - t)
    x_trig = torch.cos(wide(s)) * x + torch.sin(wide(s)) * sd * e
    slope = torch.cos(wide(s)) * sd * e - torch.sin(wide(s)) * x

    def f_network(point: Tensor, time: Tensor) -> Tensor:
        tangent = sd * torch.tan(time)
        own_t = tangent / (1 + tangent)
        own_x = point / torch.cos(wide(time)) * (1 - wide(own_t))
        image = own_x - wide(own_t) * u(own_x, own_t, torch.zeros_like(time))
        return (torch.cos(wide(time)) * point - image) / (sd * torch.sin(wide(time)))

    f, derivative = torch.func.jvp(f_network, (x_trig, s), (slope, torch.ones_like(s)))
    cos, sin = torch.cos(wide(s)), torch.sin(wide(s))
    tangent = -(cos**2) * (sd * f - slope) - cos * sin * (x_trig + sd * derivative)
    likeness = F.cosine_similarity(tangent.flatten(1), -residual.flatten(1))
    torch.testing.assert_close(likeness, torch.ones_like(likeness), rtol=0, atol=1e-9)


def test_a_wild_derivative_is_said_in_words() -> None:
    """A network that turns quickly in time, as one that sees 1000 t does."""

    class Wild(Field):
        def forward(self, x: Tensor, t: Tensor, labels: Tensor | None, r: Tensor | None = None) -> Tensor:
            return super().forward(x, t, labels, r) + torch.sin(300 * t)[:, None, None, None]

    figures = [
        {name: value.item() for name, value in FlowMap().losses({"student": s}, {}, make_batch(), generator(7)).items()}
        for s in (Field(0.3), Wild(0.3))
    ]
    assert FlowMap().warnings(figures[0]) == []
    (warning,) = FlowMap().warnings(figures[1])
    assert warning.startswith("the derivative in time is wild: ")


def test_the_tangent_rises_and_stays() -> None:
    method = load("objective", "align_your_flow")(tangent_rise=0.1)
    assert [method.tangent(step, 100) for step in (0, 5, 10, 99)] == pytest.approx([0, 0.495, 0.99, 0.99])
    assert FlowMap().tangent(0, 100) == 1.0
