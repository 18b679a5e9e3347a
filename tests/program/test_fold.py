"""fold: the same generator without its time branch, for nets of several makes; tables, biases, what must stay."""

import copy
from pathlib import Path

import pytest
import torch
from families import TINY
from torch import Tensor, nn

from edgegen.errors import ExportError
from edgegen.models.edge_unet import EdgeUNet, EdgeUNetConfig
from edgegen.models.generator import signature_of
from edgegen.models.sources.load import load_sources
from edgegen.models.zero_layers import randomize_zero_layers
from edgegen.program import fold as folding
from edgegen.program.capture import capture, reference
from edgegen.program.fold import fold
from edgegen.program.inputs import example_inputs
from edgegen.program.one_step import OneStep
from edgegen.program.rebuild import GraphRebuilder
from edgegen.types import Signature, TensorSpec

SAMPLES = 6


def inputs_of(signature: Signature) -> list[Tensor]:
    return [torch.from_numpy(values) for values in example_inputs(signature, SAMPLES, 3).values()]


def in_float64(module: nn.Module, inputs: list[Tensor]) -> Tensor:
    """The unfolded generator in double precision: the independent reference."""
    with torch.no_grad():
        out: Tensor = copy.deepcopy(module).double()(*(x.double() if x.is_floating_point() else x for x in inputs))
    return out


def image(channels: int = 4, *, classes: int = 0) -> Signature:
    return Signature.of(channels=channels, size=8, num_classes=classes)


@pytest.mark.parametrize("classes", [0, 5])
@pytest.mark.parametrize("second_time", [False, True])
def test_an_edge_unet_loses_its_conditioning_and_nothing_else(classes: int, second_time: bool) -> None:
    torch.manual_seed(0)
    net = EdgeUNet(EdgeUNetConfig(8, 1, (8, 16), 2, (1,), classes, second_time=second_time)).eval()
    randomize_zero_layers(net, 1)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    signature, module = image(1, classes=classes), OneStep(net, time=1.0)
    folded, inputs = fold(module, signature), inputs_of(image(1, classes=classes))
    expected = in_float64(module, inputs)
    with torch.no_grad():
        error = (folded.module(*inputs) - expected).abs().max() / expected.abs().max()
    assert float(error) < 1e-5
    body = folded.parameters_before - sum(p.numel() for p in net.conditioning.parameters())
    assert folded.parameters_after == body + max(1, classes) * sum(net.widths)
    assert folded.class_table == ((classes, sum(net.widths)) if classes else None)
    assert folded.operations_after < folded.operations_before
    assert folded.max_relative_error <= folding.FOLD_TOLERANCE
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())


@pytest.mark.parametrize("classes", [0, 5])
def test_one_step_of_a_network_with_a_second_time_goes_from_1_to_0(classes: int) -> None:
    torch.manual_seed(0)
    net = EdgeUNet(EdgeUNetConfig(8, 1, (8, 16), 1, (), classes, second_time=True)).eval()
    randomize_zero_layers(net, 1)
    signature = image(1, classes=classes)
    inputs = inputs_of(signature)
    z, labels = inputs[0].double(), inputs[1] if classes else None
    exact = copy.deepcopy(net).double()
    with torch.no_grad():
        expected = z - exact(z, torch.ones(SAMPLES), labels, r=torch.zeros(SAMPLES))
        instantaneous = z - exact(z, torch.ones(SAMPLES), labels)
    module = fold(OneStep(net, time=1.0), signature).module
    exported = torch.export.export(module, tuple(inputs)).module()
    for generator in (module, exported):
        with torch.no_grad():
            error = (generator(*inputs) - expected).abs().max() / expected.abs().max()
        assert float(error) < 1e-5
    assert float((instantaneous - expected).abs().max()) > 0.01


def test_any_batch_goes_through_the_folded_program() -> None:
    net = EdgeUNet(EdgeUNetConfig(8, 1, (8,), 1, (), 3)).eval()
    randomize_zero_layers(net, 1)
    signature = image(1, classes=3)
    folded = fold(OneStep(net, time=1.0), signature).module
    inputs = inputs_of(signature)
    together = capture(folded, signature, batch=None).module()(*inputs)
    alone = capture(folded, signature, batch=1).module()
    apart = torch.cat([alone(*(x[i : i + 1] for x in inputs)) for i in range(SAMPLES)])
    torch.testing.assert_close(together, apart, atol=1e-5, rtol=1e-5)


class Modulated(nn.Module):
    """Time and class by every road at once: full_like, a scale, a concatenation, a linear layer, an attention mask."""

    def __init__(self, classes: int, *, embedding: int = 64) -> None:
        super().__init__()
        self.time = nn.Linear(1, embedding)
        self.classes = nn.Embedding(classes, embedding)
        self.scale = nn.Linear(embedding, 4)
        self.plane = nn.Linear(embedding, 64)
        self.conv = nn.Conv2d(5, 4, 3, padding=1, bias=False)

    def forward(self, sample: Tensor, class_labels: Tensor) -> Tensor:
        t = torch.full_like(sample[:, 0, 0, 0], 1.0)[:, None]
        hidden = torch.tanh(self.time(t) + self.classes(class_labels))
        plane = self.plane(torch.sin(self.time(t))).view(-1, 1, 8, 8)
        out = self.conv(torch.cat([sample, plane], dim=1)) * self.scale(hidden)[:, :, None, None]
        return out + self.scale(torch.cos(self.time(t)))[:, :, None, None]


@pytest.mark.parametrize(("classes", "table"), [(3, (3, 4)), (5000, None)])
def test_a_table_is_kept_only_where_it_is_smaller(classes: int, table: tuple[int, int] | None) -> None:
    torch.manual_seed(1)
    # One number of embedding a class: a table of four a class would be larger.
    module = Modulated(classes, embedding=64 if table else 1).eval()
    signature = image(4, classes=classes)
    folded, inputs = fold(module, signature), inputs_of(signature)
    assert folded.class_table == table
    assert folded.parameters_after < folded.parameters_before
    torch.testing.assert_close(folded.module(*inputs).double(), in_float64(module, inputs), atol=1e-5, rtol=1e-5)


def test_what_differs_between_samples_is_no_constant() -> None:
    class Indexed(nn.Module):
        def forward(self, sample: Tensor) -> Tensor:
            return sample + torch.arange(sample.shape[0], dtype=torch.float32)[:, None, None, None]

    inputs = inputs_of(image())
    folded = fold(Indexed().eval(), image())
    torch.testing.assert_close(folded.module(*inputs), Indexed()(*inputs))


def test_an_expansion_is_left_to_the_runtime() -> None:
    class Expanding(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.row = nn.Parameter(torch.randn(1, 4, 1, 256))

        def forward(self, sample: Tensor) -> Tensor:
            return sample * torch.cos(self.row).expand(1, 4, 256, 256)

    signature = Signature.of(channels=4, size=256, num_classes=0)
    folded = fold(Expanding().eval(), signature)
    assert folded.parameters_after == 4 * 256


def test_a_net_of_fixed_batch_is_folded_at_batch_one() -> None:
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.time = nn.Linear(1, 4)

        def forward(self, sample: Tensor) -> Tensor:
            if sample.shape[0] > 2:
                raise ValueError("at most two")
            return sample.reshape(1, 4, -1).reshape(1, 4, 8, 8) + self.time(torch.ones(1, 1))[:, :, None, None]

    module = Fixed().eval()
    folded = fold(module, image())
    assert folded.parameters_after == 4
    (noise,) = inputs_of(image())
    torch.testing.assert_close(folded.module(noise[:1]), module(noise[:1]))


def test_a_fold_that_changes_the_net_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    net = EdgeUNet(EdgeUNetConfig(8, 1, (16,), 1, (), 0)).eval()
    randomize_zero_layers(net, 1)
    store = GraphRebuilder._store
    monkeypatch.setattr(GraphRebuilder, "_store", lambda self, name, value: store(self, name, value * 1.01))
    with pytest.raises(ExportError, match=r"folding the time of OneStep changed it: the largest relative error is \d"):
        fold(OneStep(net, time=1.0), image(1))


def test_an_output_that_is_not_finite_is_refused() -> None:
    class Broken(nn.Module):
        def forward(self, sample: Tensor) -> Tensor:
            return sample / 0.0 * 0.0

    with pytest.raises(ExportError, match="gives numbers that are not finite"):
        fold(Broken().eval(), image())


def test_one_dimension_and_other_inputs() -> None:
    class Speech(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.time = nn.Linear(1, 2)
            self.conv = nn.Conv1d(2, 2, 3, padding=1)
            self.speaker = nn.Linear(3, 2)

        def forward(self, sample: Tensor, speaker: Tensor) -> Tensor:
            shift = self.time(sample.new_ones(sample.shape[0], 1))[:, :, None]
            return self.conv(sample) + shift + self.speaker(speaker)[:, :, None]

    signature = Signature(
        (
            TensorSpec("sample", ("batch_size", 2, 16), "float32", "noise"),
            TensorSpec("speaker", ("batch_size", 3), "float32", "features"),
        ),
        (TensorSpec("out_sample", ("batch_size", 2, 16), "float32", "signal"),),
    )
    torch.manual_seed(3)
    module, inputs = Speech().eval(), inputs_of(signature)
    folded = fold(module, signature)
    assert folded.parameters_before - folded.parameters_after == 4 - 2
    torch.testing.assert_close(folded.module(*inputs).double(), in_float64(module, inputs), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", ["edge_unet_class", "unet2d_condition", "sd3", "autoencoder_kl"])
def test_a_net_folded_for_any_size_is_the_net_at_another(family: str, tmp_path: Path) -> None:
    (source,) = load_sources(str(TINY[family](tmp_path / family)))
    folded = fold(source.module, source.signature, any_size=True)
    height, width = source.signature.inputs[0].shape[2:]
    inputs = example_inputs(source.signature.resized(int(height), 2 * int(width)), 3, 1)
    expected, got = reference(source.module, inputs), reference(folded.module, inputs)
    assert float(abs(got - expected).max() / abs(expected).max()) < 1e-6


def test_what_has_no_height_and_width_has_no_other_size(tmp_path: Path) -> None:
    (source,) = load_sources(str(TINY["unet1d_trajectory"](tmp_path / "net")))
    with pytest.raises(ExportError, match=r"no file for any size: sample .* is no image"):
        fold(source.module, source.signature, any_size=True)


class Expanded(nn.Module):
    """Repeats a weight over the picture and joins it to the sample, as UNet1DModel does with its embedded time."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(1, 2, 8, 8))

    def forward(self, sample: Tensor) -> Tensor:
        repeated = torch.sin(self.weight).expand(sample.shape[0], 2, 8, 8)
        return torch.cat([sample, repeated], dim=1)[:, 1:4]


def test_a_stored_constant_has_strides_that_every_runtime_takes() -> None:
    torch.manual_seed(0)
    folded = fold(Expanded(), image(3)).module
    (stored,) = folded.parameters()
    assert stored.stride() == (128, 64, 8, 1)  # of batch 2 it was (0, 64, 8, 1), and ExecuTorch refuses a 0


def test_the_time_branch_goes_at_any_width_and_number_of_classes() -> None:
    """Ten rows of 128 numbers on two threads: a matrix product does not add up each of them in the same order."""
    torch.set_num_threads(2)
    config = EdgeUNetConfig(8, 1, channels=(16, 32), blocks=1, num_classes=10, embedding=128)
    net = EdgeUNet(config)
    randomize_zero_layers(net, 0)
    branch = sum(parameter.numel() for parameter in net.conditioning.time.parameters())
    try:
        folded = fold(OneStep(net, time=1.0), signature_of(config))
    finally:
        torch.set_num_threads(1)  # as tests/conftest.py has it
    assert folded.parameters_before - folded.parameters_after >= branch
