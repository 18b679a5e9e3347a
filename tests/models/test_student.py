"""What `keep` means: the largest student under the budget, by counting real nets."""

import pytest
import torch

from edgegen.errors import RecipeError
from edgegen.models.edge_unet import EdgeUNet, EdgeUNetConfig
from edgegen.models.student import architecture, shrink
from edgegen.models.zero_layers import randomize_zero_layers
from edgegen.recipe import Architecture
from edgegen.types import Signature


def count(model: Architecture) -> int:
    network = EdgeUNet(EdgeUNetConfig(8, 1, model.channels, model.blocks, model.attention, 10, model.embedding))
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize("keep", [0.1, 0.33, 0.7])
def test_students_keep_at_most_that_share(keep: float) -> None:
    teacher = Architecture(channels=(24, 64, 128), blocks=3)
    student = shrink(teacher, keep=keep, count=count)
    assert count(student) <= keep * count(teacher)
    assert student.blocks == 2
    assert all(width % 8 == 0 for width in student.channels)
    wider = student.model_copy(update={"channels": tuple(width + 8 for width in student.channels)})
    assert count(wider) > keep * count(teacher)


def test_a_share_that_is_too_small_says_what_is_possible() -> None:
    with pytest.raises(RecipeError, match=r"slim.keep = 0.01: at most .* parameters, but the narrowest student has"):
        shrink(Architecture(channels=(16, 16), blocks=1), keep=0.01, count=count)


def test_a_narrow_network_hears_its_time_and_class() -> None:
    """GroupNorm with groups of one channel takes away what is added to a channel as a whole."""
    config = architecture(Architecture(channels=(8, 8)), Signature.of(channels=1, size=8, num_classes=10))
    network = EdgeUNet(config).eval()
    randomize_zero_layers(network, seed=0)
    x, t = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.full((2,), 0.5)
    with torch.no_grad():
        v, other_time, other_class = (
            network(x, time, torch.full((2,), label)) for time, label in ((t, 0), (t + 0.3, 0), (t, 7))
        )
    for other in (other_time, other_class):
        assert (other - v).abs().mean() > 0.05 * v.abs().mean()
