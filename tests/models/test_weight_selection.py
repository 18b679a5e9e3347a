"""Slices of a teacher as the first weights of a student."""

import pytest
import torch
from torch import nn

from edgegen.errors import RecipeError
from edgegen.models.edge_unet import EdgeUNet, EdgeUNetConfig
from edgegen.models.weight_selection import select_weights
from edgegen.models.zero_layers import randomize_zero_layers

BIG = EdgeUNetConfig(8, 2, (16, 24, 40), blocks=3, attention=(1, 2), num_classes=3, embedding=24)


def network(config: EdgeUNetConfig, seed: int) -> EdgeUNet:
    torch.manual_seed(seed)
    net = EdgeUNet(config).eval()
    randomize_zero_layers(net, seed)
    for parameter in net.parameters():  # the norms' too
        parameter.data += 0.1 * torch.randn(parameter.shape)
    return net


def inputs() -> tuple[torch.Tensor, ...]:
    g = torch.Generator().manual_seed(0)
    return torch.randn(4, 2, 8, 8, generator=g), torch.rand(4, generator=g), torch.arange(4) % 3


def test_a_student_of_the_teachers_size_computes_the_same() -> None:
    teacher, student = network(BIG, 0), network(BIG, 1)
    assert not torch.allclose(teacher(*inputs()), student(*inputs()))
    select_weights(teacher, student)
    assert torch.equal(teacher(*inputs()), student(*inputs()))


def test_a_smaller_student_computes_the_same_as_a_teacher_whose_other_channels_are_silent() -> None:
    """Without normalisation, a teacher in which the channels that are left out write nothing is its own slice."""
    small = EdgeUNetConfig(8, 2, (8, 16, 16), blocks=3, attention=(), num_classes=3, embedding=16)
    teacher, student = network(BIG, 0), network(small, 1)
    _without_normalisation(teacher)
    _without_normalisation(student)
    _silence(teacher, small)
    select_weights(teacher, student)
    assert student(*inputs()).abs().max() > 0
    torch.testing.assert_close(student(*inputs()), teacher(*inputs()), rtol=1e-4, atol=1e-4)


def test_blocks_are_spread_evenly_over_the_teachers() -> None:
    teacher = network(BIG, 0)
    two = network(EdgeUNetConfig(8, 2, (16, 24, 40), blocks=2, attention=(), num_classes=3, embedding=24), 1)
    select_weights(teacher, two)
    for level in range(3):
        for own, origin in ((0, 0), (1, 1)):
            assert torch.equal(two.down[level][own].conv1.weight, teacher.down[level][origin].conv1.weight)


def test_what_only_the_student_has_stays_as_it_was() -> None:
    config = EdgeUNetConfig(8, 2, (8, 16, 16), 1, (0,), 3, 16, second_time=True)
    student = EdgeUNet(config)
    before = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    select_weights(network(BIG, 0), student)
    after = student.state_dict()
    stayed = {name for name in after if torch.equal(before[name], after[name])}
    assert {name.split(".")[0] + "." + name.split(".")[1] for name in stayed if "head" not in name} == {
        "attend_down.0",
        "attend_up.1",
        "conditioning.interval",
    }


@pytest.mark.parametrize(
    ("config", "fault"),
    [
        (EdgeUNetConfig(8, 2, (16, 24), num_classes=3), "it has 2 resolutions, the teacher 3"),
        (EdgeUNetConfig(8, 2, (8, 32, 32), num_classes=3), "it is 32 wide at resolution 1, the teacher 24"),
        (EdgeUNetConfig(8, 2, (8, 8, 8), 4, num_classes=3), "it has 4 blocks at a resolution, the teacher 3"),
        (EdgeUNetConfig(8, 2, (8, 8, 8), 1, num_classes=3, embedding=32), "its embedding is 32 wide, the teacher's 24"),
    ],
)
def test_a_student_that_is_no_part_of_the_teacher_is_refused(config: EdgeUNetConfig, fault: str) -> None:
    with pytest.raises(RecipeError, match=f"a student that cannot be sliced from the teacher: {fault}. Give init"):
        select_weights(network(BIG, 0), EdgeUNet(config))


def test_a_teacher_of_another_kind_is_refused() -> None:
    with pytest.raises(RecipeError, match="cannot be sliced from the teacher: the teacher is no EdgeUNet"):
        select_weights(nn.Conv2d(1, 1, 1), network(BIG, 0))


def _without_normalisation(net: EdgeUNet) -> None:
    """Where each GroupNorm has one group a channel, of silent channels only zeros come; here simply nothing is done."""
    for module in net.modules():
        for name, part in module.named_children():
            if isinstance(part, nn.GroupNorm):
                setattr(module, name, _Scale(part))


class _Scale(nn.Module):
    """A GroupNorm's weight and bias alone."""

    def __init__(self, norm: nn.GroupNorm) -> None:
        super().__init__()
        self.weight, self.bias = norm.weight, norm.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.weight[:, None, None] + self.bias[:, None, None]


@torch.no_grad()
def _silence(teacher: EdgeUNet, small: EdgeUNetConfig) -> None:
    """No layer of the teacher reads a channel that the student does not have; its attention adds nothing.

    The channels that are kept are spread over all, and others inside of a block than on the way through it.
    """
    kept = dict(zip(teacher.config.channels, small.channels, strict=True))
    trunk = {width: _some(width, count, 1) for width, count in kept.items()}
    hidden = {width: _some(width, count, 2) for width, count in kept.items()}
    for name, part in teacher.named_modules():
        if not isinstance(part, nn.Conv2d):
            continue
        writes = hidden if name.endswith("conv1") else trunk
        if part.out_channels in kept:
            part.weight[~writes[part.out_channels]] *= 1e-3  # of small norm: not taken
        if part is teacher.stem:
            continue
        reads = hidden if name.endswith("conv2") else trunk
        width = part.in_channels
        # The first block on the way up reads the grown channels and those of the skip.
        read = reads[width] if width in kept else torch.cat([trunk[width // 2]] * 2)
        part.weight[:, ~read] = 0
    for attention in (*teacher.attend_down, *teacher.attend_up):
        if not isinstance(attention, nn.Identity):
            attention.out.weight.zero_()
            attention.out.bias.zero_()
    conditioning, width = teacher.conditioning, teacher.config.embedding
    inner, outer = _some(width, small.embedding, 3), _some(width, small.embedding, 4)
    for layer, of in ((conditioning.time[0], inner), (conditioning.time[2], outer)):
        layer.weight[~of] = 0
        layer.bias[~of] = 0
    conditioning.time[2].weight[:, ~inner] = 0
    conditioning.project.weight[:, ~outer] = 0
    conditioning.classes.weight[:, ~outer] = 0


def _some(width: int, count: int, seed: int) -> torch.Tensor:
    """`count` of `width` channels: flags."""
    flags = torch.zeros(width, dtype=torch.bool)
    flags[torch.randperm(width, generator=torch.Generator().manual_seed(seed))[:count]] = True
    return flags
