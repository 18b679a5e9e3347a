"""Every method that asks a teacher takes one whose velocity is guided, and copies or looks into the network itself."""

import copy
import math
from dataclasses import replace

import pytest
import torch
from objective_parts import Field, make_batch
from torch import nn

from edgegen.flow.guidance import Guidance
from edgegen.flow.guided_velocity import GuidedVelocity
from edgegen.models.edge_unet import EdgeUNet, EdgeUNetConfig
from edgegen.models.zero_layers import randomize_zero_layers
from edgegen.registry import load, names
from edgegen.support.rng import generator
from edgegen.training.batch import Batch
from edgegen.training.networks import TrainedNetwork
from edgegen.training.objective import Objective

WITH_TEACHER = [
    (name, keys)
    for name in names("objective")
    for keys in ({}, {"velocity": "teacher"}, {"teacher_step": "heun"}, {"features": "teacher"})
    if keys.keys() <= load("objective", name).model_fields.keys() and "teacher" in load("objective", name)(**keys).needs
]


def plain_teacher() -> EdgeUNet:
    config = EdgeUNetConfig(4, channels=(16, 16), blocks=1, num_classes=3, embedding=8, unconditional=True)
    network = EdgeUNet(config).eval().requires_grad_(False)
    randomize_zero_layers(network, 0)
    return network


def figures(objective: Objective, teacher: nn.Module) -> dict[str, float]:
    torch.manual_seed(0)
    student = Field(0.3)
    trained = {"student": TrainedNetwork(student), **objective.networks(student, teacher)}
    for part in trained.values():
        assert not any(isinstance(module, GuidedVelocity) for module in part.network.modules())
        part.network.requires_grad_(True)
    networks = {name: part.network for name, part in trained.items()}
    frozen = {"teacher": teacher, "slimmed": Field(0.2)}
    batch: Batch = replace(make_batch(0), due=frozenset(networks))
    values = objective.losses({**frozen, **networks}, copy.deepcopy(networks), batch, generator(0))
    return {name: float(value.detach()) for name, value in values.items()}


def test_all_kinds_of_use_are_there() -> None:
    assert {name for name, _ in WITH_TEACHER} >= {
        "align_your_flow",
        "consistency_tuning",
        "distribution_matching",
        "free_flow",
        "progressive",
        "shortcut",
        "adversarial",
        "density_ratio",
    }


@pytest.mark.parametrize(("name", "keys"), WITH_TEACHER)
def test_the_method_works_on_the_guided_velocity(name: str, keys: dict[str, str]) -> None:
    objective: Objective = load("objective", name)(**keys)
    plain = plain_teacher()
    before = figures(objective, plain)
    guided = figures(objective, GuidedVelocity(plain, Guidance(3.0)))
    assert math.isfinite(guided["student"])
    looks_alone = name in ("adversarial", "density_ratio", "drifting")  # at features, which guidance does not change
    assert (guided["student"] == before["student"]) == looks_alone
