"""EdgeUNet: shapes, the meaning of its arguments, and folding."""

import json
from itertools import product

import pytest
import torch

from edgegen.models.edge_unet import EdgeUNet, EdgeUNetConfig, count_parameters
from edgegen.models.zero_layers import randomize_zero_layers


def build(**fields: object) -> EdgeUNet:
    torch.manual_seed(0)
    config = EdgeUNetConfig(**{"sample_size": 8, "channels": (8, 16), "embedding": 16, **fields})  # type: ignore[arg-type]
    network = EdgeUNet(config)
    randomize_zero_layers(network, 1)
    return network


@pytest.mark.parametrize(
    ("channels", "blocks", "attention", "classes"),
    [*product([(8,), (8, 16), (8, 16, 24)], [1, 3], [()], [0, 5]), ((8, 16), 1, (0, 1), 5)],
)
def test_output_is_like_the_input_and_depends_on_everything(
    channels: tuple[int, ...], blocks: int, attention: tuple[int, ...], classes: int
) -> None:
    network = build(in_channels=3, channels=channels, blocks=blocks, attention=attention, num_classes=classes)
    x, t = torch.randn(4, 3, 8, 8), torch.tensor([0.1, 0.5, 0.9, 1.0])
    labels = torch.arange(4) if classes else None
    out = network(x, t, labels)
    assert out.shape == x.shape
    assert not torch.allclose(out, network(x, t.flip(0), labels))
    assert not torch.allclose(out, network(x.flip(2), t, labels))
    if labels is not None:
        assert not torch.allclose(out, network(x, t, labels + 1))
    alone = network(x[2:3], t[2:3], None if labels is None else labels[2:3])
    torch.testing.assert_close(out[2:3], alone)


def test_a_fresh_net_has_velocity_zero() -> None:
    network = EdgeUNet(EdgeUNetConfig(sample_size=8, channels=(8, 16)))
    assert not network(torch.randn(2, 1, 8, 8), torch.rand(2)).any()


def test_a_conditional_net_asks_for_its_classes() -> None:
    with pytest.raises(ValueError, match="class-conditional: pass classes"):
        build(num_classes=3)(torch.randn(1, 1, 8, 8), torch.ones(1))


def test_counting_parameters_makes_no_weights() -> None:
    config = EdgeUNetConfig(sample_size=32, channels=(128, 256, 256), blocks=2)
    assert count_parameters(config) == sum(p.numel() for p in EdgeUNet(config).parameters())


def test_without_a_second_time_nothing_of_it_is_there() -> None:
    network = build(num_classes=3)
    assert "second_time" not in network.config.to_dict()
    assert not any("interval" in name for name in network.state_dict())
    with pytest.raises(ValueError, match="takes no second time r: its config has second_time = false"):
        network(torch.randn(1, 1, 8, 8), torch.ones(1), torch.zeros(1, dtype=torch.long), r=torch.zeros(1))


def test_a_network_with_a_second_time_starts_as_the_one_without() -> None:
    x, t, r = torch.randn(4, 1, 8, 8), torch.tensor([0.1, 0.5, 0.9, 1.0]), torch.tensor([0.0, 0.5, 0.2, 0.0])
    torch.manual_seed(0)
    plain = EdgeUNet(EdgeUNetConfig(8, 1, (8, 16), 1))
    torch.manual_seed(0)
    second = EdgeUNet(EdgeUNetConfig(8, 1, (8, 16), 1, second_time=True))
    assert all(torch.equal(value, second.state_dict()[name]) for name, value in plain.state_dict().items())
    for network in (plain, second):
        torch.nn.init.normal_(network.head.weight, generator=torch.Generator().manual_seed(1))
    assert torch.equal(plain(x, t), second(x, t, r=r))


def test_the_second_time_matters_and_is_the_first_by_default() -> None:
    network = build(second_time=True, num_classes=5)
    x, t, labels = torch.randn(4, 1, 8, 8), torch.tensor([0.1, 0.5, 0.9, 1.0]), torch.arange(4)
    out = network(x, t, labels, r=t / 2)
    assert torch.equal(network(x, t, labels), network(x, t, labels, r=t))
    assert not torch.allclose(out, network(x, t, labels))
    assert not torch.allclose(out, network(x, t, labels, r=t / 3))
    assert not torch.allclose(out, network(x, t / 1.5, labels, r=t / 2))
    torch.testing.assert_close(out[2:3], network(x[2:3], t[2:3], labels[2:3], r=t[2:3] / 2))


@pytest.mark.parametrize("second_time", [False, True])
def test_a_config_comes_back_from_json(second_time: bool) -> None:
    config = EdgeUNetConfig(8, 3, (8, 16), 1, (1,), 5, second_time=second_time)
    assert EdgeUNetConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    with pytest.raises(TypeError, match="no setting depth"):
        EdgeUNetConfig.from_dict({**config.to_dict(), "depth": 3})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sample_size", "8"),
        ("sample_size", 0),
        ("sample_size", [8]),
        ("channels", []),
        ("channels", [8.5, 8]),
        ("channels", [10**9]),
        ("channels", [8] * 40),
        ("blocks", 10**9),
        ("attention", [9]),
        ("num_classes", -1),
        ("embedding", 10**12),
        ("groups", 0),
        ("none", 1),
    ],
)
def test_settings_that_make_no_network_are_refused_before_it_is_made(field: str, value: object) -> None:
    good = {"_class_name": "EdgeUNet", "sample_size": 8, "channels": [8, 16], "embedding": 16}
    assert EdgeUNetConfig.from_dict(good).channels == (8, 16)
    with pytest.raises((TypeError, ValueError), match=field):
        EdgeUNetConfig.from_dict({**good, field: value})
