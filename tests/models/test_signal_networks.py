"""EdgeUNets of signals: equal to one of images whose rows are all the signal, and exported by every runtime."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from edgegen.artifacts.library import export
from edgegen.errors import DataError, RecipeError
from edgegen.models.edge_unet import EdgeUNet, EdgeUNetConfig, count_parameters
from edgegen.models.generator import save
from edgegen.models.load import load
from edgegen.models.student import architecture
from edgegen.models.teacher_size import teacher_architecture
from edgegen.models.zero_layers import randomize_zero_layers
from edgegen.recipe import Architecture, Teacher
from edgegen.types import Signature

LENGTH = 32


def build(**fields: object) -> EdgeUNet:
    torch.manual_seed(0)
    settings = {"sample_size": LENGTH, "in_channels": 2, "channels": (8, 16, 24), "blocks": 1, "embedding": 16}
    network = EdgeUNet(EdgeUNetConfig(**{**settings, "signal": True, **fields}))  # type: ignore[arg-type]
    randomize_zero_layers(network, 1)
    return network.eval()


@pytest.mark.parametrize("attention", [(), (0, 2)])
def test_a_signal_is_a_row_of_an_image_whose_rows_are_all_alike(attention: tuple[int, ...]) -> None:
    network = build(num_classes=3, attention=attention)
    of_images = build(num_classes=3, attention=attention, signal=False, sample_size=(8, LENGTH))
    weights = {}
    for name, own in of_images.state_dict().items():
        given = network.state_dict()[name]
        weights[name] = torch.zeros_like(own)
        if own.shape[-2:] == (3, 3):  # the middle row alone, so that rows do not meet
            weights[name][:, :, 1:2] = given
        else:
            weights[name].copy_(given)
    of_images.load_state_dict(weights)
    x, t, labels = torch.randn(3, 2, LENGTH), torch.tensor([0.2, 0.7, 1.0]), torch.arange(3)
    with torch.no_grad():
        velocity = network(x, t, labels)
        expected = of_images(x[:, :, None].expand(-1, -1, 8, -1).contiguous(), t, labels)
    assert velocity.shape == x.shape
    torch.testing.assert_close(velocity[:, :, None].expand_as(expected), expected, rtol=1e-4, atol=1e-5)


def test_its_folder_holds_what_it_is(tmp_path: Path) -> None:
    network = build()
    units = {"offset": [0.0, 5.0], "scale": [1.0, 2.0], "sample_rate_hz": None}
    save(network, tmp_path / "generator", about={"role": "student", "units": units})
    loaded = load(tmp_path / "generator")
    x = torch.randn(2, 2, LENGTH)
    torch.testing.assert_close(loaded.net(x, torch.ones(2)), network(x, torch.ones(2)))
    assert loaded.signature == Signature.of_shape((2, LENGTH), num_classes=0)
    assert (loaded.signature.outputs[0].role, loaded.signature.makes_images) == ("signal", False)
    assert loaded.about["units"] == units
    card = (tmp_path / "generator" / "README.md").read_text()
    assert "2x32\nsignals (unconditional)" in card
    assert "Signals are float32 (batch, channels, length) in [-1, 1]." in card
    assert "image" not in card
    config = json.loads((tmp_path / "generator" / "config.json").read_text())
    assert EdgeUNetConfig.from_dict(config) == network.config
    assert count_parameters(network.config) == sum(p.numel() for p in network.parameters())
    (tmp_path / "generator" / "config.json").write_text(json.dumps({**config, "sample_size": [2, LENGTH]}))
    with pytest.raises(DataError, match=r"signal is true, and sample_size is \[2, 32\], upscale None: one length"):
        load(tmp_path / "generator")


def test_a_config_of_images_does_not_mention_signals() -> None:
    assert "signal" not in EdgeUNetConfig(sample_size=8).to_dict()


@pytest.mark.parametrize(("length", "levels"), [(16, 3), (100, 3), (128, 5), (4096, 6)])
def test_a_teacher_is_as_deep_as_the_length_allows(length: int, levels: int) -> None:
    about = {"image_shape": [2, length], "train": 1000, "num_classes": 0}
    model = teacher_architecture(Teacher(), about)
    assert len(model.channels) == levels
    assert architecture(model, Signature.of_shape((2, length), num_classes=0)).signal


def test_a_length_that_cannot_be_halved_is_one_error() -> None:
    model = Architecture(channels=(8, 16, 24))
    with pytest.raises(RecipeError, match=r"halve the signal 2 times, but 126 values cannot be"):
        architecture(model, Signature.of_shape((1, 126), num_classes=0))


def exported(folder: Path, targets: list[str], **fields: object) -> dict[str, float]:
    """PSNR in dB by file."""
    save(build(**fields), folder / "generator", about={"role": "student", "name": "waves"})
    (result,) = export(folder / "generator", folder / "files", to=targets)
    for parity in result.parity.values():
        assert (parity.status, parity.data_range, parity.ssim) == ("ok", 2.0, None), parity.reason
    return {file: parity.psnr_db or 0.0 for file, parity in result.parity.items()}


@pytest.mark.long
def test_a_file_computes_the_signals_of_one_step(tmp_path: Path) -> None:
    import onnxruntime

    figures = exported(tmp_path, ["onnx"], num_classes=3)
    assert figures["generator_onnx_fp32.onnx"] > 100
    session = onnxruntime.InferenceSession(tmp_path / "files" / "generator_onnx_fp32.onnx")
    noise, labels = torch.randn(4, 2, LENGTH), torch.arange(4) % 3
    (made,) = session.run(None, {"sample": noise.numpy(), "class_labels": labels.numpy()})
    network = load(tmp_path / "generator").net
    np.testing.assert_allclose(made, noise - network(noise, torch.ones(4), labels), atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("fields", [{"attention": (1,)}, {"channels": (64, 128), "sample_size": 512}])
def test_every_runtime_runs_its_files(fields: dict[str, object], tmp_path: Path) -> None:
    """The second is large enough for each rewrite that has a least size."""
    figures = exported(
        tmp_path,
        ["onnx", "onnx-fp16", "onnx-w8a8", "executorch", "executorch-w8a8", "coreml", "coreml-w8a8"],
        num_classes=2,
        **fields,
    )
    least = {"fp32": 100, "fp16": 55, "w8a8": 30}
    for file, psnr_db in figures.items():
        assert psnr_db > least[file.rpartition(".")[0].rpartition("_")[2]], file
