"""capture: the one step, the re-drawn zero layers, example inputs, torch.export."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgegen.errors import ExportError
from edgegen.exporters.rewrites import apply
from edgegen.models.edge_unet import EdgeUNet, EdgeUNetConfig
from edgegen.models.zero_layers import randomize_zero_layers
from edgegen.noise import normal
from edgegen.program import capture
from edgegen.program.fold import fold
from edgegen.program.inputs import example_inputs, samples_of
from edgegen.program.one_step import OneStep, ToPixels, pixels_signature
from edgegen.support.pixels import to_uint8
from edgegen.types import Signature, TensorSpec


def net_of(*, classes: int) -> EdgeUNet:
    torch.manual_seed(0)
    net = EdgeUNet(EdgeUNetConfig(8, 1, (8, 16), 1, (1,), classes))
    randomize_zero_layers(net, 1)
    return net


def inputs_of(*, classes: int) -> tuple[Signature, list[Tensor]]:
    signature = Signature.of(channels=1, size=8, num_classes=classes)
    arrays = example_inputs(signature, 6, 3)
    return signature, [torch.from_numpy(values) for values in arrays.values()]


def test_one_step_is_noise_minus_velocity_at_time_one() -> None:
    class Velocity(nn.Module):
        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            return 3.0 * x * t[:, None, None, None]

    z = torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(OneStep(Velocity(), time=1.0)(z), z - 3.0 * z)


def test_zero_layers_are_drawn_anew_and_only_those() -> None:
    net = EdgeUNet(EdgeUNetConfig(8, 1, (8, 16), 1, (1,), 5))
    stem = net.stem.weight.clone()
    names = randomize_zero_layers(net, 1)
    assert {"head.weight", "head.bias", "down.0.0.conv2.weight", "attend_down.1.out.weight"} <= set(names)
    assert all(bool(p.any()) for p in net.parameters())
    assert torch.equal(net.stem.weight, stem)
    assert randomize_zero_layers(net, 1) == ()
    weight = net.head.weight.detach()
    assert 0.5 < float(weight.std()) * weight[0].numel() ** 0.5 < 2.0


def test_example_inputs_are_portable_noise_and_labels_in_turn() -> None:
    signature = Signature.of(channels=2, size=4, num_classes=3)
    inputs = example_inputs(signature, 5, 11)
    assert list(inputs) == [spec.name for spec in signature.inputs]
    assert np.array_equal(inputs["sample"], normal(11, 0, 5, (2, 4, 4)))
    assert inputs["class_labels"].tolist() == [0, 1, 2, 0, 1]
    assert inputs["class_labels"].dtype == np.int64


@pytest.mark.parametrize("classes", [0, 5])
@pytest.mark.parametrize("batch", [None, 1])
def test_the_program_computes_what_the_module_does(batch: int | None, classes: int) -> None:
    module = OneStep(net_of(classes=classes), time=1.0).train()
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
    with pytest.raises(ExportError, match=r"Shrink gives \(2, 1, 7, 8\) .*; its signature says \(2, 1, 8, 8\)"):
        capture.capture(Shrink(), signature, batch=None)
    wide = Signature.of(channels=3, size=8, num_classes=0)
    with pytest.raises(ExportError, match=r"torch.export could not capture OneStep: .*3 channels"):
        capture.capture(OneStep(net_of(classes=0), time=1.0), wide, batch=None)


class Shrink(nn.Module):
    def forward(self, sample: Tensor) -> Tensor:
        return sample[:, :, 1:]


def test_control_flow_over_data_is_named_with_the_way_out() -> None:
    class Branching(nn.Module):
        def forward(self, sample: Tensor) -> Tensor:
            return sample if sample.sum() > 0 else -sample

    signature, _ = inputs_of(classes=0)
    with pytest.raises(ExportError, match=r"Branching: its control flow depends on .*torch.where"):
        capture.capture(Branching(), signature, batch=1)


class Cast(nn.Module):
    """A convolution in another type, by casts or under autocast."""

    def __init__(self, kind: torch.dtype, *, autocast: bool = False) -> None:
        super().__init__()
        self.conv, self.kind, self.autocast = nn.Conv2d(1, 1, 3, padding=1), kind, autocast

    def forward(self, sample: Tensor) -> Tensor:
        if self.autocast:
            with torch.autocast("cpu", dtype=self.kind):
                return self.conv(sample).float()
        weight, bias = self.conv.weight.to(self.kind), self.conv.bias
        assert bias is not None
        return nn.functional.conv2d(sample.to(self.kind), weight, bias.to(self.kind), padding=1).float()


def test_bfloat16_is_refused_and_float16_computed_as_written() -> None:
    signature, (sample,) = inputs_of(classes=0)
    with pytest.raises(ExportError, match=r"^Cast computes in bfloat16 \(to.*\): take that out of its forward"):
        capture.capture(Cast(torch.bfloat16), signature, batch=None)
    with pytest.raises(ExportError, match=r"^Cast computes under torch.autocast: take that out of its forward"):
        capture.capture(Cast(torch.bfloat16, autocast=True), signature, batch=None)
    net = Cast(torch.float16).eval()
    folded = fold(net, signature).module
    assert {p.dtype for p in folded.parameters()} | {b.dtype for b in folded.buffers()} == {torch.float16}
    program = apply(folded, ("pointwise", "conv_bias"), signature=signature, batch=1)
    torch.testing.assert_close(program.module()(sample[:1]), net(sample[:1]))


def test_every_role_gets_inputs_of_its_own() -> None:
    signature = Signature(
        (
            TensorSpec("sample", ("batch_size", 2, 16), "float32", "noise"),
            TensorSpec("text", ("batch_size", 5, 4), "float32", "text"),
            TensorSpec("image", ("batch_size", 3, 4, 4), "float32", "image", -1.0, 1.0),
        ),
        (TensorSpec("out_sample", ("batch_size", 2, 16), "float32", "signal"),),
    )
    inputs = example_inputs(signature, 3, 5)
    assert {name: values.shape for name, values in inputs.items()} == {
        "sample": (3, 2, 16),
        "text": (3, 5, 4),
        "image": (3, 3, 4, 4),
    }
    assert np.array_equal(inputs["sample"], normal(5, 0, 3, (2, 16)))
    assert not np.array_equal(inputs["text"].ravel()[:16], inputs["sample"].ravel()[:16])
    assert float(abs(inputs["image"]).max()) <= 1.0
    later = samples_of(signature, range(1, 3), 5)
    assert all(np.array_equal(later[name], values[1:]) for name, values in inputs.items())


def test_pixels_are_what_an_app_shows() -> None:
    signature, (noise,) = inputs_of(classes=0)
    pixels = ToPixels(nn.Identity())(2 * noise)
    assert np.array_equal(pixels.numpy(), to_uint8(2 * noise))
    assert pixels_signature(signature).outputs[0].shape == ("batch_size", 8, 8, 1)
    latent = replace(signature, outputs=(replace(signature.outputs[0], role="latent"),))
    with pytest.raises(ExportError, match=r"no uint8 image of out_sample: it is latent"):
        pixels_signature(latent)
