"""EdgeUNet: shapes, the meaning of its arguments, and folding."""

from itertools import product

import pytest
import torch

from edgegen.models.edge_unet import EdgeUNet, EdgeUNetConfig, count_parameters
from edgegen.models.zero_layers import randomize_zero_layers


def build(**fields: object) -> EdgeUNet:
    torch.manual_seed(0)
    config = EdgeUNetConfig(**{"sample_size": 8, "channels": (8, 16), "embedding": 16, **fields})  # type: ignore[arg-type]
    net = EdgeUNet(config)
    randomize_zero_layers(net, 1)
    return net


@pytest.mark.parametrize(
    ("channels", "blocks", "attention", "classes"),
    [*product([(8,), (8, 16), (8, 16, 24)], [1, 3], [()], [0, 5]), ((8, 16), 1, (0, 1), 5)],
)
def test_output_is_like_the_input_and_depends_on_everything(
    channels: tuple[int, ...], blocks: int, attention: tuple[int, ...], classes: int
) -> None:
    net = build(in_channels=3, channels=channels, blocks=blocks, attention=attention, num_classes=classes)
    x, t = torch.randn(4, 3, 8, 8), torch.tensor([0.1, 0.5, 0.9, 1.0])
    labels = torch.arange(4) if classes else None
    out = net(x, t, labels)
    assert out.shape == x.shape
    assert not torch.allclose(out, net(x, t.flip(0), labels))
    assert not torch.allclose(out, net(x.flip(2), t, labels))
    if labels is not None:
        assert not torch.allclose(out, net(x, t, labels + 1))
    alone = net(x[2:3], t[2:3], None if labels is None else labels[2:3])
    torch.testing.assert_close(out[2:3], alone)


def test_a_fresh_net_has_velocity_zero() -> None:
    net = EdgeUNet(EdgeUNetConfig(sample_size=8, channels=(8, 16)))
    assert not net(torch.randn(2, 1, 8, 8), torch.rand(2)).any()


def test_a_conditional_net_asks_for_its_classes() -> None:
    with pytest.raises(ValueError, match="class-conditional: pass class_labels"):
        build(num_classes=3)(torch.randn(1, 1, 8, 8), torch.ones(1))


def test_counting_parameters_makes_no_weights() -> None:
    config = EdgeUNetConfig(sample_size=32, channels=(128, 256, 256), blocks=2)
    assert count_parameters(config) == sum(p.numel() for p in EdgeUNet(config).parameters())
