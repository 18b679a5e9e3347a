"""Guided velocities against their formula, in float64 and sample by sample."""

import numpy as np
import pytest
import torch
from objective_parts import Field, f64
from torch import Tensor, nn

from edgegen.flow.guidance import Guidance, unguided
from edgegen.flow.guided_velocity import GuidedVelocity
from edgegen.flow.solvers import solve
from edgegen.flow.time_grid import TimeGrid, even_grid
from edgegen.models.edge_unet import EdgeUNet, EdgeUNetConfig
from edgegen.models.generator import signature_of
from edgegen.models.zero_layers import randomize_zero_layers
from edgegen.program.fold import fold
from edgegen.program.one_step import NOISE_TIME, OneStep
from edgegen.support.rng import generator


class Classes(Field):
    """v = weight x (1 + t) + label / 10, of classes 0, 1, 2; 3 stands for none."""

    image_channels, num_classes, unconditional_class = 1, 3, 3
    second_time = False


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    x = torch.randn(4, 1, 4, 4, generator=generator(1), dtype=torch.float64)
    return x, torch.tensor([0.2, 0.21, 0.7, 0.71], dtype=torch.float64), torch.tensor([0, 1, 2, 0])


def test_the_velocity_is_pushed_away_from_that_without_a_class_inside_of_the_interval() -> None:
    x, t, labels = inputs()
    network = Classes(0.3).double()
    v = f64(GuidedVelocity(network, Guidance(2.5, (0.2, 0.7)))(x, t, labels))
    for i, scale in enumerate([1.0, 2.5, 2.5, 1.0]):  # at 0.2 not yet, at 0.7 still
        own, none = (0.3 * f64(x)[i] * (1 + float(t[i])) + 0.1 * label for label in (int(labels[i]), 3))
        np.testing.assert_allclose(v[i], none + scale * (own - none), rtol=1e-6)
    plain = GuidedVelocity(network, Guidance(1.0))(x, t, labels)
    assert torch.equal(plain, network(x, t, labels))


def test_a_worse_network_takes_the_place_of_the_velocity_without_a_class() -> None:
    x, t, labels = inputs()
    good, bad = Classes(0.3).double(), Classes(0.5).double()
    for classes in (labels, None):
        v = GuidedVelocity(good, Guidance(3.0), worse=bad)(x, t, classes)
        torch.testing.assert_close(v, 3 * good(x, t, classes) - 2 * bad(x, t, classes))
    assert unguided(GuidedVelocity(good, Guidance(3.0), worse=bad)) is good
    assert unguided(good) is good


def test_the_ode_of_the_guided_velocity_is_solved_and_an_evaluation_counts_once() -> None:
    x, _, labels = inputs()
    network = Classes(0.3).double()

    def velocity(x: Tensor, t: Tensor, labels: Tensor | None) -> Tensor:
        return 2 * network(x, t, labels) - network(x, t, torch.full((4,), 3))

    guided = solve(GuidedVelocity(network, Guidance(2.0)), x, labels, solver="heun", steps=4)
    explicit = solve(velocity, x, labels, solver="heun", steps=4)
    torch.testing.assert_close(guided.x, explicit.x)
    assert guided.evaluations == explicit.evaluations


def test_times_and_grid_are_those_of_the_network() -> None:
    class Timed(Classes):
        time_dtype = torch.float64

        def time_grid(self, steps: int) -> TimeGrid:
            return TimeGrid((0.9, 0.0), start_gain=0.5)

    assert GuidedVelocity(Timed(0.3), Guidance(2.0)).time_grid(7) == TimeGrid((0.9, 0.0), start_gain=0.5)
    assert GuidedVelocity(Timed(0.3), Guidance(2.0)).time_dtype == torch.float64
    assert GuidedVelocity(Classes(0.3), Guidance(2.0)).time_grid(7) == even_grid(7)


def test_what_cannot_be_guided_is_refused() -> None:
    x, t, _ = inputs()
    plain = nn.Identity()
    plain.image_channels, plain.num_classes = 1, 3  # type: ignore[assignment]
    with pytest.raises(ValueError, match="no unconditional class"):
        GuidedVelocity(plain, Guidance(2.0))
    with pytest.raises(ValueError, match="by its classes needs classes"):
        GuidedVelocity(Classes(0.3), Guidance(2.0))(x, t)


def test_an_edge_unet_knows_one_label_more_and_its_config_says_so() -> None:
    config = EdgeUNetConfig(sample_size=4, channels=(16, 16), blocks=1, num_classes=3, embedding=8, unconditional=True)
    assert EdgeUNetConfig.from_dict(config.to_dict()) == config
    network = EdgeUNet(config).eval()
    randomize_zero_layers(network, 0)
    x, t = torch.randn(2, 1, 4, 4, generator=generator(2)), torch.ones(2)
    none, first = (network(x, t, torch.full((2,), label)) for label in (3, 0))
    assert not torch.allclose(none, first)
    folded = fold(OneStep(network, time=NOISE_TIME), signature_of(config))
    assert folded.class_table == (3, sum(network.widths)), "an exported file knows the classes alone"
    with pytest.raises(ValueError, match="there are no classes"):
        EdgeUNetConfig.from_dict({**config.to_dict(), "num_classes": 0})
