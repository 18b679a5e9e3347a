"""Convolutions with padding="same" under every method: the figures are those of the same network in numbers."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgegen.artifacts.build import build
from edgegen.artifacts.refine import RefinedProgram, refine
from edgegen.artifacts.sensitivity import sensitivity_of
from edgegen.artifacts.target import Target
from edgegen.program.capture import reference
from edgegen.program.generator import Generator
from edgegen.program.inputs import example_inputs
from edgegen.recipe import Quantize
from edgegen.registry import load
from edgegen.support.progress import Silent
from edgegen.types import Signature
from edgegen.verification.parity import psnr_db

SIGNATURE = Signature.of(channels=3, size=8, num_classes=0)
# PyTorch's advice that such a convolution copies its input.
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")


@pytest.fixture(autouse=True)
def few_iterations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgegen.artifacts.refine.ITERATIONS", 40)


class Padded(nn.Module):
    """By torch's own padding="same", or by zeros that are added in numbers: one more behind than in front."""

    def __init__(self, *, same: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.same = same
        self.stem, self.wide = nn.Conv2d(3, 24, 3, padding=1), nn.Conv2d(24, 24, 4, padding="same" if same else 0)
        self.head = nn.Conv2d(24, 3, 3, padding="same" if same else 1)

    def forward(self, sample: Tensor) -> Tensor:
        wide = torch.relu(self.stem(sample))
        wide = torch.relu(self.wide(wide if self.same else F.pad(wide, (1, 2, 1, 2))))
        return torch.tanh(self.head(wide))


def refined(net: nn.Module, scheme: str, folder: Path, **options: Any) -> RefinedProgram:
    folder.mkdir()
    generator, settings = Generator(net.eval(), SIGNATURE), Quantize(samples=32, **options)
    return refine(generator, scheme, options=settings, seed=3, folder=folder, progress=Silent())


def test_sensitivity_is_that_of_the_same_network_in_numbers() -> None:
    figures = [
        sensitivity_of(
            Generator(Padded(same=same).eval(), SIGNATURE),
            "w8a8",
            options=Quantize(samples=32),
            seed=0,
            progress=Silent(),
        )
        for same in (True, False)
    ]
    for ours, plain in zip(*(figure["layers"] for figure in figures), strict=True):
        assert (ours["name"], ours["weights"]) == (plain["name"], plain["weights"])
        assert ours["psnr_db"] == pytest.approx(plain["psnr_db"], abs=0.1)
    assert len(figures[0]["layers"]) == 3


@pytest.mark.parametrize("methods", [("smoothing", "rounding"), ("equalization", "bias_correction")])
def test_methods_do_the_same_to_both(methods: tuple[str, ...], tmp_path: Path) -> None:
    ours, plain = (refined(Padded(same=same), "w8a8", tmp_path / str(same), methods=methods) for same in (True, False))
    assert ours.psnr_before_db == pytest.approx(plain.psnr_before_db, abs=0.1)
    assert ours.psnr_after_db == pytest.approx(plain.psnr_after_db, abs=0.3)
    inputs = example_inputs(SIGNATURE, 8, 1)
    images = reference(ours.program.module(check_guards=False), inputs)
    assert psnr_db(reference(Padded(same=False).eval(), inputs), images) > 30


@pytest.mark.slow
def test_a_mixed_file_of_such_a_network(tmp_path: Path, in_process: None) -> None:
    net, methods = Padded(same=True), ("rounding", "smoothing")
    limit_db = refined(net, "w8a8", tmp_path / "w8a8", methods=methods).psnr_after_db + 4
    mixed = refined(net, "mixed", tmp_path / "mixed", methods=methods, budget=f"psnr>={limit_db}")
    assert 0 < len(mixed.options.float_layers) < 3
    source = mixed.program.module(check_guards=False)
    fixed: dict[str, Any] = {"name": "t", "folder": tmp_path, "seed": 3, "metadata": {}}
    target = Target("onnx", "mixed")
    artifact = build(source, SIGNATURE, target=target, quantization=mixed.options, **fixed).artifact
    inputs = example_inputs(SIGNATURE, 64, 11)
    images = load("backend", "onnx").open(tmp_path / artifact.file)(inputs)["out_sample"]
    with torch.no_grad():
        expected = Padded(same=False).eval()(torch.from_numpy(inputs["sample"])).numpy()
    assert psnr_db(expected, images) == pytest.approx(mixed.psnr_after_db, abs=1.5)
    assert np.isfinite(images).all()
