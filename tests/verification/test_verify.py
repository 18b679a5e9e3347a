"""Verifier: the uint8 image counts, every size counts, and the worst is what is reported."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgegen import registry
from edgegen.artifacts.build import build
from edgegen.artifacts.target import Target
from edgegen.errors import ExportError
from edgegen.program.generator import Generator
from edgegen.recipe import Export, Quantize
from edgegen.support.pixels import to_uint8
from edgegen.types import Artifact, Signature
from edgegen.verification.verify import Verifier

SIGNATURE = Signature.of(channels=3, size=8, num_classes=0)
SIZES = ((8, 16), (12, 8))
Run = Callable[[Mapping[str, NDArray[Any]]], dict[str, NDArray[Any]]]


class Net(nn.Module):
    """A convolution and a normalisation over the image, which depends on its size."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm = nn.Conv2d(3, 3, 3, padding=1), nn.GroupNorm(1, 3)

    def forward(self, sample: Tensor) -> Tensor:
        return torch.tanh(self.norm(self.conv(sample)))


class Untrained(Net):
    """Its numbers lie far beyond the range of an image."""

    def forward(self, sample: Tensor) -> Tensor:
        return 40.0 * super().forward(sample)


@pytest.fixture
def generator() -> Generator:
    return Generator(Net(), SIGNATURE)


@pytest.fixture
def verify(generator: Generator) -> Iterator[Verifier]:
    with Verifier(generator, samples=3, seed=0, sizes=SIZES) as verifier:
        yield verifier


def made(generator: Generator, text: str, folder: Path) -> tuple[Artifact, Path]:
    target = Target.parse(text)
    options: dict[str, Any] = {"name": "net", "quantization": Quantize(samples=1), "seed": 0, "metadata": {}}
    module = generator.folded(any_size=target.kind().any_size).module
    lower = Export(heights_widths=SIZES, generate=False)
    artifact = build(module, SIGNATURE, target=target, folder=folder, options=lower, **options).artifact
    return artifact, folder / artifact.file


def spoiled(monkeypatch: pytest.MonkeyPatch, backend: str, spoil: Callable[[str, NDArray[Any]], NDArray[Any]]) -> None:
    """Every file of the backend gives what `spoil(name, output)` makes of its outputs."""
    whole = registry.load("backend", backend)
    plain = type(whole).open

    class Spoiled:
        method = "spoiled"

        def __init__(self, session: Run) -> None:
            self.session = session

        def __call__(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
            return {name: spoil(name, value) for name, value in self.session(inputs).items()}

    monkeypatch.setattr(type(whole), "open", lambda self, path: Spoiled(plain(self, path)))


@pytest.mark.parametrize(
    "target", ["onnx", "onnx:generate", "onnx:any_size", "coreml-fp32:sizes", "coreml-fp32:generate"]
)
def test_a_true_file(target: str, generator: Generator, verify: Verifier, tmp_path: Path, in_process: None) -> None:
    artifact, path = made(generator, target, tmp_path)
    parity, session = verify(artifact, path)
    assert parity.status == "ok", parity
    assert session is not None
    images = session(verify._expected(None)[0])["out_sample"]
    assert (images.dtype, images.shape) == (np.dtype(np.float32), (3, 3, 8, 8))


def test_a_false_image_fails(
    generator: Generator, verify: Verifier, tmp_path: Path, in_process: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact, path = made(generator, "onnx:generate", tmp_path)
    spoiled(monkeypatch, "onnx", lambda name, value: value[:, ::-1] if name == "out_image" else value)
    parity, _ = verify(artifact, path)
    assert parity.status == "failed"
    assert parity.reason.endswith("below the floor of 40.0 dB")


def test_a_range_that_the_signature_does_not_give_is_said(tmp_path: Path, in_process: None) -> None:
    for module, said in ((Net(), False), (Untrained(), True)):
        generator = Generator(module, SIGNATURE)
        with Verifier(generator, samples=3, seed=0) as verify:
            parity, _ = verify(*made(generator, "onnx", tmp_path))
            expected = verify._expected(None)[1]
        assert parity.status == "ok"
        assert ("that PyTorch's outputs span" in str(parity)) == said
        assert parity.data_range == pytest.approx(float(expected.max() - expected.min()) if said else 2.0)


def test_a_network_whose_numbers_are_no_images_is_told_so(
    tmp_path: Path, in_process: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = Generator(Untrained(), SIGNATURE)
    artifact, path = made(generator, "onnx:generate", tmp_path)
    spoiled(monkeypatch, "onnx", lambda name, value: value[:, ::-1] if name == "out_image" else value)
    with Verifier(generator, samples=3, seed=0) as verify:
        parity, _ = verify(artifact, path)
    assert parity.status == "failed"
    assert parity.reason.endswith("are cut off: is the network trained?")


@pytest.mark.parametrize(
    ("name", "reason"), [("generate", "the uint8 images of generate: "), ("another chip", "dB is below the floor")]
)
def test_a_further_session_that_is_false_fails(
    generator: Generator,
    verify: Verifier,
    tmp_path: Path,
    in_process: None,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    reason: str,
) -> None:
    """As in a .pte, or a file of an NPU: the session itself is true, and the further one gives it upside down."""
    artifact, path = made(generator, "onnx", tmp_path)
    plain = type(registry.load("backend", "onnx")).open

    class UpsideDown:
        method = "planted"

        def __init__(self, session: Run) -> None:
            self.session = session

        def __call__(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
            values = self.session(inputs)["out_sample"]
            return {"out_image": to_uint8(values)[:, ::-1], "out_sample": values[:, :, ::-1]}

    class Both(UpsideDown):
        method = "true"

        def __call__(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
            return dict(self.session(inputs))

        @property
        def further(self) -> dict[str, UpsideDown]:
            return {name: UpsideDown(self.session)}

    monkeypatch.setattr(type(registry.load("backend", "onnx")), "open", lambda self, path: Both(plain(self, path)))
    parity, _ = verify(artifact, path)
    assert parity.status == "failed"
    assert reason in parity.reason
    assert parity.method.startswith("planted")


@pytest.mark.parametrize(("target", "width"), [("onnx:any_size", 16), ("coreml-fp32:sizes", 16)])
def test_a_file_that_is_false_at_another_size_only_fails(
    target: str,
    width: int,
    generator: Generator,
    verify: Verifier,
    tmp_path: Path,
    in_process: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    artifact, path = made(generator, target, tmp_path)
    spoiled(monkeypatch, artifact.backend, lambda _, value: value + 0.5 * (value.shape[-1] == width))
    assert verify(artifact, path)[0].status == "failed"


def test_a_file_that_its_runtime_refuses_to_open_is_false(
    generator: Generator, verify: Verifier, tmp_path: Path
) -> None:
    (tmp_path / "cut.onnx").write_bytes(b"nothing")
    parity, session = verify(Artifact("cut.onnx", "onnx", "fp32", 7, "", "none"), tmp_path / "cut.onnx")
    assert session is None
    assert parity.status == "failed"
    assert parity.reason.startswith("onnxruntime cannot open cut.onnx")
    assert str(tmp_path) not in parity.reason


def test_a_file_that_its_runtime_refuses_to_run_is_false(
    generator: Generator, verify: Verifier, tmp_path: Path, in_process: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact, path = made(generator, "onnx", tmp_path)

    def refuse(session: object, inputs: object) -> None:
        raise ExportError("onnxruntime refused sample float32[2, 1, 8, 8]: out of memory")

    monkeypatch.setattr("edgegen.exporters.onnx.backend.OnnxSession.__call__", refuse)
    parity, session = verify(artifact, path)
    assert session is None
    assert (parity.status, parity.psnr_db) == ("failed", None)
    assert parity.method.startswith("onnxruntime ")
    assert "out of memory" in parity.reason


def test_a_file_for_a_delegate_that_is_not_here_is_not_checked(
    generator: Generator, verify: Verifier, tmp_path: Path, in_process: None
) -> None:
    artifact, path = made(generator, "executorch:vulkan", tmp_path)
    parity, session = verify(artifact, path)
    assert session is None
    assert parity.status == "not checked"
    assert "Backend VulkanBackend is not registered" in parity.reason
