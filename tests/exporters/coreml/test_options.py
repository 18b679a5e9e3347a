"""coreml: deployment targets, both precisions, pictures, several sizes, roles of inputs, families of networks."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pytest
import torch
from families import NETWORKS
from torch import Tensor, nn

from edgegen.errors import ExportError
from edgegen.exporters.base import Precision
from edgegen.exporters.coreml import backend
from edgegen.exporters.coreml import metadata as coreml_about
from edgegen.exporters.coreml.backend import BACKEND, FEATURES, CoreMLSession, require
from edgegen.exporters.coreml.evaluator.program import MilEvaluator
from edgegen.formats import mlpackage
from edgegen.models.sources.load import load_sources
from edgegen.program.capture import capture, reference
from edgegen.program.inputs import example_inputs
from edgegen.program.one_step import ToPixels
from edgegen.recipe import Export
from edgegen.support.storage import sha256_of
from edgegen.support.vendor_logs import EXPORT, quiet
from edgegen.types import Role, Signature, TensorSpec
from edgegen.verification.parity import psnr_db

if TYPE_CHECKING:
    from torch.export import ExportedProgram

    from tests.exporters.conftest import Tiny

pytest.importorskip("coremltools")
CoreMLTarget = Literal["iOS17", "iOS18", "iOS26"]
TARGETS: dict[CoreMLTarget, int] = {"iOS17": 8, "iOS18": 9, "iOS26": 10}  # and the version of the specification


class Blend(nn.Module):
    """A convolution of the noise and of each image beside it: any height and width."""

    def __init__(self, channels: int = 3, inputs: int = 1) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Conv2d(channels * inputs, channels, 3, padding=1)

    def forward(self, *images: Tensor) -> Tensor:
        out: Tensor = torch.tanh(self.net(torch.cat(images, 1)))
        return out


def image(
    name: str, role: Role, *, channels: int = 3, low: float | None = None, high: float | None = None
) -> TensorSpec:
    return TensorSpec(name, ("batch_size", channels, 8, 8), "float32", role, low, high)


OUT = image("out_sample", "image", low=-1.0, high=1.0)


def lower(
    program: "ExportedProgram",
    signature: Signature,
    path: Path,
    *,
    precision: Precision = "fp16",
    target: CoreMLTarget = "iOS17",
    sizes: tuple[tuple[int, int], ...] = (),
    variant: str = "",
) -> Path:
    options = Export(coreml_target=target, heights_widths=sizes)
    variant = "sizes" if sizes else variant
    BACKEND.lower(
        program, path, signature=signature, precision=precision, metadata={}, options=options, variant=variant
    )
    return path


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_every_target_and_precision_repeats_byte_by_byte(
    target: CoreMLTarget, precision: Precision, tiny: "Tiny", tmp_path: Path, traces: Callable[[bytes], list[str]]
) -> None:
    program = capture(tiny.module, tiny.signature, batch=1)
    first, second = (
        lower(program, tiny.signature, tmp_path / name, precision=precision, target=target)
        for name in ("a.mlpackage", "b.mlpackage")
    )
    assert sha256_of(first) == sha256_of(second)
    assert mlpackage.read(first).spec.specificationVersion == mlpackage.specification_version(first) == TARGETS[target]
    assert [traces(file.read_bytes()) for file in first.rglob("*") if file.is_file()] == [[]] * 3
    got = MilEvaluator(first, rounded=precision == "fp16")(tiny.inputs)["out_sample"]
    assert psnr_db(tiny.expected, got) > (100 if precision == "fp32" else 55)


def test_an_older_target_is_refused_what_it_lacks() -> None:
    with pytest.raises(
        ExportError, match=r'weights of 4 bits in blocks from iOS18 on; .* is iOS17: set coreml_target = "iOS18"'
    ):
        require("weights of 4 bits in blocks", "iOS17")
    for feature, first in FEATURES.items():
        require(feature, first)
        require(feature, "iOS26")


@pytest.mark.parametrize(("channels", "space"), [(1, "GRAYSCALE"), (3, "RGB")])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_picture(channels: int, space: str, precision: Precision, tmp_path: Path) -> None:
    signature = Signature.of(channels=channels, size=8, num_classes=0)
    module = Blend(channels)
    with torch.no_grad():
        module.net.weight *= 4  # so that both ends of the range occur
    program = capture(module, signature, batch=1)
    path = lower(program, signature, tmp_path / "a.mlpackage", precision=precision, variant="generate")
    output = mlpackage.read(path).spec.description.output[0]
    kind = output.type.imageType
    assert (output.name, kind.width, kind.height) == ("out_image", 8, 8)
    assert kind.ColorSpace.Name(kind.colorSpace) == space
    inputs = example_inputs(signature, 3, 0)
    expected, got = reference(ToPixels(module), inputs), BACKEND.open(path)(inputs)["out_image"]
    assert (got.dtype, got.shape) == (np.uint8, (3, 8, 8, channels))
    assert {0, 255} <= set(got.flatten().tolist())
    difference = np.abs(got.astype(int) - expected)
    assert difference.max() <= (0 if precision == "fp32" else 1)
    assert (difference > 0).mean() < 0.1


def test_no_picture_of_what_is_none(tmp_path: Path) -> None:
    signature = Signature((image("sample", "noise"),), (image("out_sample", "latent"),))
    with pytest.raises(ExportError, match=r"no image of out_sample: it is latent \['batch_size', 3, 8, 8\]"):
        lower(capture(Blend(), signature, batch=1), signature, tmp_path / "a.mlpackage", variant="generate")


def test_core_mls_own_pictures_become_arrays() -> None:
    from PIL import Image

    pixels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    images = {"image": Image.fromarray(pixels).convert("RGBA"), "gray": Image.fromarray(pixels[..., 0])}
    got = CoreMLSession(SimpleNamespace(predict=lambda inputs: images), "a stand-in")({"x": np.zeros((1, 2))})
    np.testing.assert_array_equal(got["image"], pixels[None])
    np.testing.assert_array_equal(got["gray"], pixels[None, ..., :1])


def any_size(module: nn.Module, inputs: int) -> "ExportedProgram":
    axes = {2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    with quiet(EXPORT):
        example = tuple(torch.zeros(1, 3, 8, 12) for _ in range(inputs))
        return torch.export.export(module.eval(), example, dynamic_shapes=(tuple(axes for _ in example),))


@pytest.mark.parametrize(("inputs", "target"), [(1, "iOS17"), (2, "iOS18")])
def test_several_sizes(inputs: int, target: CoreMLTarget, tmp_path: Path) -> None:
    module = Blend(inputs=inputs)
    signature = Signature((image("sample", "noise"), image("image", "image"))[:inputs], (OUT,))
    sizes = ((16, 16), (8, 24), (8, 8))
    program = any_size(module, inputs)
    path = lower(program, signature, tmp_path / "a.mlpackage", precision="fp32", target=target, sizes=sizes)
    description = mlpackage.read(path).spec.description
    shapes = [
        [list(shape.shape) for shape in entry.type.multiArrayType.enumeratedShapes.shapes]
        for entry in description.input
    ]
    assert shapes == [[[1, 3, 8, 8], [1, 3, 16, 16], [1, 3, 8, 24]]] * inputs
    assert all("also in 16 x 16, 8 x 24" in e.shortDescription for e in (*description.input, *description.output))
    for height, width in sizes:
        given = {spec.name: torch.randn(1, 3, height, width).numpy() for spec in signature.inputs}
        np.testing.assert_allclose(BACKEND.open(path)(given)["out_sample"], reference(module, given), atol=1e-6)


def test_sizes_that_cannot_be_had(tmp_path: Path) -> None:
    path = tmp_path / "a.mlpackage"
    signature = Signature((image("sample", "noise"), image("image", "image")), (OUT,))
    with pytest.raises(
        ExportError, match=r"sizes for more than one input from iOS18 on; the deployment target is iOS17"
    ):
        lower(any_size(Blend(inputs=2), 2), signature, path, sizes=((16, 16),))
    alone = Signature((image("sample", "noise"),), (OUT,))
    with pytest.raises(ExportError, match=r"16x16: .* captured for sample \[1, 3, 8, 8\] alone"):
        lower(capture(Blend(), alone, batch=1), alone, path, sizes=((16, 16),))
    flat = TensorSpec("sample", ("batch_size", 3), "float32", "noise")
    signature = Signature((flat,), (TensorSpec("out_sample", ("batch_size", 3), "float32", "signal"),))
    with pytest.raises(ExportError, match=r"sizes 16x16: sample .* has no height and width"):
        lower(capture(nn.Tanh(), signature, batch=1), signature, path, sizes=((16, 16),))
    assert list(tmp_path.iterdir()) == []


class Conditioned(nn.Module):
    """A latent from noise, hidden states of a text, sizes of the picture as SDXL takes them, and a class."""

    def forward(self, noise: Tensor, states: Tensor, sizes: Tensor, label: Tensor) -> Tensor:
        phases = sizes[:, :, None] * torch.exp(-torch.arange(4.0))  # up to 1024, where fp16 has steps of 0.5
        embedding = torch.cat([phases.sin(), phases.cos()], 1).sum((1, 2))
        return noise + 0.1 * states.mean((1, 2))[:, None] + embedding[:, None] + label[:, None]


def test_every_input_has_its_name_type_and_sentence(tmp_path: Path) -> None:
    batch: Literal["batch_size"] = "batch_size"
    signature = Signature(
        (
            TensorSpec("latent", (batch, 6), "float32", "noise"),
            TensorSpec("encoder_hidden_states", (batch, 7, 5), "float32", "text"),
            TensorSpec("time_ids", (batch, 6), "float32", "features", 0, 1024),
            TensorSpec("label", (batch,), "int64", "class", 0, 9),
        ),
        (TensorSpec("out_sample", (batch, 6), "float32", "signal"),),
        10,
    )
    module, inputs = Conditioned(), example_inputs(signature, 3, 0)
    path = lower(capture(module, signature, batch=1), signature, tmp_path / "a.mlpackage")
    description = mlpackage.read(path).spec.description
    kinds = {
        e.name: e.type.multiArrayType.ArrayDataType.Name(e.type.multiArrayType.dataType) for e in description.input
    }
    names = [spec.name for spec in signature.inputs]
    assert kinds == dict(zip(names, ["FLOAT32", "FLOAT32", "FLOAT32", "INT32"], strict=True))
    assert description.metadata.shortDescription == "One-step signal generator: noise in, signal out."
    assert [e.shortDescription for e in (*description.input, *description.output)] == [
        "Noise: 1 x 6 values drawn from the standard normal distribution.",
        "The hidden states of the text encoder: 1 x 7 x 5.",
        "A condition: 1 x 6, values from 0 to 1024.",
        "The class to draw, an integer from 0 to 9.",
        "The signal: 1 x 6.",
    ]
    # The sines are right although the rest is rounded to fp16.
    assert np.abs(BACKEND.open(path)(inputs)["out_sample"] - reference(module, inputs)).max() < 0.02


def test_sentences_of_decoders() -> None:
    latent = TensorSpec("latent_sample", ("batch_size", 4, 8, 8), "float32", "latent")
    assert coreml_about.sentence(latent) == "The latent, which a decoder turns into an image: 1 x 4 x 8 x 8."
    assert coreml_about.purpose(Signature((latent,), (OUT,))) == "Latent in, image out."


def test_what_is_stated_of_the_model_is_kept(tmp_path: Path) -> None:
    signature = Signature((image("sample", "noise"),), (OUT,))
    program = capture(Blend(), signature, batch=1)
    given = {"license": "MIT", "author": "Ada", "description": "Cats.", "version": "1.2"}
    found = []
    for metadata in (given, {}):
        options: dict[str, Any] = {"metadata": metadata, "options": Export(), "variant": ""}
        BACKEND.lower(program, tmp_path / "a.mlpackage", signature=signature, precision="fp32", **options)
        about = mlpackage.read(tmp_path / "a.mlpackage").spec.description.metadata
        found.append((about.license, about.author, about.shortDescription, about.versionString))
        assert json.loads(about.userDefined["com.edgegen.signature"])["num_classes"] == 0
    assert found[0] == ("MIT", "Ada", "Cats.", "1.2")
    assert found[1][:3] == ("not stated", "not stated", "One-step image generator: noise in, image out.")


def test_other_names_than_asked_for_are_an_error() -> None:
    entry = SimpleNamespace(name="x")
    spec = SimpleNamespace(description=SimpleNamespace(input=[entry], output=[entry]))
    with pytest.raises(ExportError, match=r"named the inputs \['x'\] and the outputs \['x'\]; asked for: \['sample'\]"):
        backend._check_names(spec, ["sample"], ["out_sample"])


# One of each architecture: their other forms use the same ops.
# tests/artifacts/test_families_by_runtime.py builds them all.
@pytest.mark.parametrize("family", ["unet2d_condition_sdxl", "dit", "sd3", "autoencoder_kl", "unet1d_trajectory"])
def test_the_evaluator_knows_every_op_of_a_family(family: str, tmp_path: Path) -> None:
    (source,) = load_sources(str(NETWORKS[family](tmp_path / family)))
    inputs = example_inputs(source.signature, 1, 0)
    expected = reference(source.module, inputs)
    program = capture(source.module, source.signature, batch=1)
    path = lower(program, source.signature, tmp_path / "net.mlpackage", target="iOS18")
    got = MilEvaluator(path)(inputs)["out_sample"]
    assert psnr_db(expected, got, data_range=float(np.ptp(expected))) > 45
