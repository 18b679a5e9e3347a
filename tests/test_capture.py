"""capture: the one step, the fold and its proof, the re-drawn zero layers, torch.export."""

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgegen import capture
from edgegen.errors import ExportError
from edgegen.models.edge_unet import EdgeUNet, EdgeUNetConfig
from edgegen.noise import normal
from edgegen.types import Signature


def net_of(*, classes: int) -> EdgeUNet:
    torch.manual_seed(0)
    net = EdgeUNet(EdgeUNetConfig(8, 1, (8, 16), 1, (1,), classes))
    capture.randomize_zero_layers(net, 1)
    return net


def inputs_of(*, classes: int) -> tuple[Signature, list[Tensor]]:
    signature = Signature.of(channels=1, size=8, num_classes=classes)
    arrays = capture.example_inputs(signature, 6, 3)
    return signature, [torch.from_numpy(values) for values in arrays.values()]


def test_one_step_is_noise_minus_velocity_at_time_one() -> None:
    class Velocity(nn.Module):
        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            return 3.0 * x * t[:, None, None, None]

    z = torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(capture.OneStep(Velocity(), time=1.0)(z), z - 3.0 * z)


@pytest.mark.parametrize("classes", [0, 5])
def test_the_folded_generator_is_the_unfolded_one_with_fewer_parameters(classes: int) -> None:
    net, (_, inputs) = net_of(classes=classes), inputs_of(classes=classes)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    folded = capture.fold(net, samples=inputs[0], class_labels=inputs[1] if classes else None)
    labels = inputs[1] if classes else None
    with torch.no_grad():
        expected = inputs[0].double() - copy.deepcopy(net).double()(inputs[0].double(), torch.ones(6).double(), labels)
        got = folded.module(*inputs)
    assert float((got - expected).abs().max()) < 1e-5
    assert folded.parameters_after < folded.parameters_before == sum(p.numel() for p in net.parameters())
    assert folded.max_relative_error <= capture.FOLD_TOLERANCE
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())


def test_a_fold_that_changes_the_net_is_refused() -> None:
    class Wrong(EdgeUNet):
        def fold_time(self, t: float) -> nn.Module:  # type: ignore[override]
            return super().fold_time(t - 0.01)

    wrong = Wrong(EdgeUNetConfig(8, 1, (8, 16), 1, (), 5))
    capture.randomize_zero_layers(wrong, 1)
    _, inputs = inputs_of(classes=5)
    with pytest.raises(ExportError, match=r"Wrong.fold_time changed the net: the largest relative error is \d"):
        capture.fold(wrong, samples=inputs[0], class_labels=inputs[1])


def test_a_net_that_cannot_fold_says_what_it_lacks() -> None:
    with pytest.raises(ExportError, match=r"Identity has no fold_time\(t\)"):
        capture.fold(nn.Identity(), samples=torch.zeros(1, 1, 4, 4), class_labels=None)


def test_zero_layers_are_drawn_anew_and_only_those() -> None:
    net = EdgeUNet(EdgeUNetConfig(8, 1, (8, 16), 1, (1,), 5))
    stem = net.stem.weight.clone()
    names = capture.randomize_zero_layers(net, 1)
    assert {"head.weight", "head.bias", "down.0.0.conv2.weight", "attend_down.1.out.weight"} <= set(names)
    assert all(bool(p.any()) for p in net.parameters())
    assert torch.equal(net.stem.weight, stem)
    assert capture.randomize_zero_layers(net, 1) == ()
    weight = net.head.weight.detach()
    assert 0.5 < float(weight.std()) * weight[0].numel() ** 0.5 < 2.0


def test_example_inputs_are_portable_noise_and_labels_in_turn() -> None:
    signature = Signature.of(channels=2, size=4, num_classes=3)
    inputs = capture.example_inputs(signature, 5, 11)
    assert list(inputs) == [spec.name for spec in signature.inputs]
    assert np.array_equal(inputs["sample"], normal(11, 0, 5, (2, 4, 4)))
    assert inputs["class_labels"].tolist() == [0, 1, 2, 0, 1]
    assert inputs["class_labels"].dtype == np.int64


@pytest.mark.parametrize("classes", [0, 5])
@pytest.mark.parametrize("batch", [None, 1])
def test_the_program_computes_what_the_module_does(batch: int | None, classes: int) -> None:
    module = capture.OneStep(net_of(classes=classes).fold_time(1.0)).train()
    signature, inputs = inputs_of(classes=classes)
    program = capture.capture(module, signature, batch=batch)
    assert module.training
    assert list(program.graph_signature.user_inputs) == [spec.name for spec in signature.inputs]
    inputs = [value[:batch] for value in inputs]
    expected = capture.reference(
        module, {spec.name: v.numpy() for spec, v in zip(signature.inputs, inputs, strict=True)}
    )
    got = program.module()(*inputs).detach().numpy()
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_a_module_that_does_not_fit_the_signature_is_refused() -> None:
    signature, _ = inputs_of(classes=0)
    with pytest.raises(ExportError, match=r"Shrink gives \(2, 1, 7, 8\) for noise \(2, 1, 8, 8\)"):
        capture.capture(Shrink(), signature, batch=None)
    wide = Signature.of(channels=3, size=8, num_classes=0)
    with pytest.raises(ExportError, match=r"torch.export could not capture OneStep: .*3 channels"):
        capture.capture(capture.OneStep(net_of(classes=0).fold_time(1.0)), wide, batch=None)


class Shrink(nn.Module):
    def forward(self, sample: Tensor) -> Tensor:
        return sample[:, :, 1:]
