"""coreml: every cell on every tiny generator; what a Mac would read in the package; the same bytes twice."""

import inspect
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgegen.errors import ExportError, MissingExtraError
from edgegen.exporters.base import Precision
from edgegen.exporters.coreml.backend import BACKEND, CoreMLSession
from edgegen.formats import mlpackage
from edgegen.program.capture import capture, reference
from edgegen.quantize.coreml import SMALLEST, palettize_w6, quantize_w4_block, quantize_w8
from edgegen.recipe import Export
from edgegen.support.storage import sha256_of
from edgegen.types import Signature
from edgegen.verification.parity import psnr_db

if TYPE_CHECKING:
    from tests.exporters.conftest import Tiny

pytest.importorskip("coremltools")


class Summed(nn.Module):
    """A convolution whose channels are averaged: an image of the noise's shape."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, sample: Tensor) -> Tensor:
        out: Tensor = self.net(sample).mean(dim=1, keepdim=True)
        return out


PLAIN: dict[str, Any] = {"options": Export(), "variant": ""}


def lower(tiny: "Tiny", path: Path, *, precision: Precision = "fp16", **metadata: str) -> Path:
    program = capture(tiny.module, tiny.signature, batch=1)
    BACKEND.lower(program, path, signature=tiny.signature, precision=precision, metadata=metadata, **PLAIN)
    return path


@pytest.fixture(scope="module")
def package(tiny: "Tiny", tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("coreml") / "tiny.mlpackage"
    return lower(tiny, path, license="CC0-1.0", seed="7")


@pytest.fixture(scope="module")
def quantized(package: Path) -> Path:
    path = package.with_name("small.mlpackage")
    quantize_w8(package, path)
    return path


def test_fp32_is_exact(tiny: "Tiny", tmp_path: Path) -> None:
    path = lower(tiny, tmp_path / "tiny.mlpackage", precision="fp32")
    assert psnr_db(tiny.expected, BACKEND.open(path)(tiny.inputs)["out_sample"]) > 120


def test_names_types_and_metadata(tiny: "Tiny", package: Path, quantized: Path) -> None:
    for path in (package, quantized):
        spec = mlpackage.read(path).spec
        description = spec.description
        features = {f.name: f.type.multiArrayType for f in (*description.input, *description.output)}
        kinds = {name: (kind.ArrayDataType.Name(kind.dataType), list(kind.shape)) for name, kind in features.items()}
        image = ("FLOAT32", [1, 1, 8, 8])
        assert kinds == {"sample": image, "class_labels": ("INT32", [1]), "out_sample": image}
        assert spec.specificationVersion == 8  # iOS 17
        texts = {f.name: f.shortDescription for f in (*description.input, *description.output)}
        assert texts == {
            "sample": "Noise: 1 x 1 x 8 x 8 values drawn from the standard normal distribution.",
            "class_labels": "The class to draw, an integer from 0 to 9.",
            "out_sample": "The image: 1 x 1 x 8 x 8 (batch, channels, height, width), values from -1.0 to 1.0.",
        }
        about = description.metadata
        assert (about.author, about.license) == ("not stated", "CC0-1.0")
        assert about.shortDescription == "One-step image generator: noise in, image out."
        assert about.versionString
        ours = {key: about.userDefined[key] for key in about.userDefined if key.startswith("com.edgegen.")}
        assert set(ours) == {"com.edgegen.license", "com.edgegen.seed", "com.edgegen.signature"}
        assert json.loads(ours["com.edgegen.signature"]) == json.loads(json.dumps(tiny.signature.to_dict()))


def test_big_weights_take_8_bits_each_and_small_ones_stay(package: Path, quantized: Path) -> None:
    def weights(path: Path) -> dict[str, int]:
        function = mlpackage.read(path).spec.mlProgram.functions["main"]
        operations = function.block_specializations[function.opset].operations
        found = {}
        for op in operations:
            dims = op.outputs[0].type.tensorType.dimensions
            size = int(np.prod([d.constant.size for d in dims]))
            if len(dims) > 1 and op.type in ("const", "constexpr_affine_dequantize"):
                found[op.outputs[0].name.removesuffix("_quantized"), op.type != "const"] = size
        return found

    before, after = weights(package), weights(quantized)
    assert {name for name, small in after if small} == {name for (name, _), size in before.items() if size > SMALLEST}
    assert any(size <= SMALLEST for size in before.values())


def test_the_same_program_gives_the_same_bytes(tiny: "Tiny", package: Path, quantized: Path, tmp_path: Path) -> None:
    again = lower(tiny, tmp_path / "again.mlpackage", license="CC0-1.0", seed="7")
    quantize_w8(again, tmp_path / "small.mlpackage")
    assert sha256_of(again) == sha256_of(package)
    assert sha256_of(tmp_path / "small.mlpackage") == sha256_of(quantized)
    other = lower(tiny, tmp_path / "other.mlpackage", license="CC0-1.0", seed="8")
    roots = {json.loads((p / "Manifest.json").read_text())["rootModelIdentifier"] for p in (package, again, other)}
    assert len(roots) == 2


def test_channels_of_zeros_stay_zero(tmp_path: Path) -> None:
    net = nn.Conv2d(1, 64, 5, padding=2)
    with torch.no_grad():
        net.weight[3:30] = 0
    module, inputs = Summed(net), {"sample": np.random.default_rng(0).standard_normal((2, 1, 8, 8), np.float32)}
    signature = Signature.of(channels=1, size=8, num_classes=0)
    program = capture(module, signature, batch=1)
    BACKEND.lower(program, tmp_path / "a.mlpackage", signature=signature, precision="fp16", metadata={}, **PLAIN)
    quantize_w8(tmp_path / "a.mlpackage", tmp_path / "b.mlpackage")
    got = BACKEND.open(tmp_path / "b.mlpackage")(inputs)["out_sample"]
    assert psnr_db(reference(module, inputs), got) > 40


def make(folder: Path) -> None:
    """A small net through everything, self-contained so that another process can run its source."""
    import torch

    from edgegen.exporters.coreml.backend import BACKEND
    from edgegen.models.edge_unet import EdgeUNet, EdgeUNetConfig
    from edgegen.program.capture import capture
    from edgegen.program.fold import fold
    from edgegen.program.one_step import OneStep
    from edgegen.quantize.coreml import quantize_w8
    from edgegen.recipe import Export
    from edgegen.types import Signature

    torch.manual_seed(0)
    signature = Signature.of(channels=1, size=8, num_classes=4)
    module = fold(OneStep(EdgeUNet(EdgeUNetConfig(8, 1, (32,), 1, (), 4)), time=1.0), signature).module
    program = capture(module, signature, batch=1)
    options = {"metadata": {"b": "1", "a": "2"}, "options": Export(), "variant": ""}
    BACKEND.lower(program, folder / "a.mlpackage", signature=signature, precision="fp16", **options)
    quantize_w8(folder / "a.mlpackage", folder / "b.mlpackage")
    BACKEND.open(folder / "b.mlpackage")


@pytest.mark.long
def test_another_process_gives_the_same_bytes_and_prints_nothing(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    make(here)
    script = f"import sys\nfrom pathlib import Path\n{inspect.getsource(make)}\nmake(Path(sys.argv[1]))"
    command = [sys.executable, "-c", script, str(there)]
    hashed = {**os.environ, "PYTHONHASHSEED": "7"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=hashed)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert [sha256_of(there / name) for name in ("a.mlpackage", "b.mlpackage")] == [
        sha256_of(here / name) for name in ("a.mlpackage", "b.mlpackage")
    ]


def test_a_program_that_does_not_fit_the_signature(tiny: "Tiny", tmp_path: Path) -> None:
    program = capture(tiny.module, tiny.signature, batch=2)
    with pytest.raises(
        ExportError, match=r"takes \[\[2, 1, 8, 8\], \[2\]\], the signature says \{'sample': \[1, 1, 8, 8\]"
    ):
        BACKEND.lower(
            program, tmp_path / "a.mlpackage", signature=tiny.signature, precision="fp16", metadata={}, **PLAIN
        )
    assert list(tmp_path.iterdir()) == []


def test_a_program_that_coremltools_cannot_convert(tiny: "Tiny", tmp_path: Path) -> None:
    options: dict[str, Any] = {"signature": tiny.signature, "precision": "fp16", "metadata": {}, **PLAIN}
    with pytest.raises(ExportError, match=r"coremltools could not convert the program: it is a str"):
        BACKEND.lower("no program", tmp_path / "a.mlpackage", **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("compress", [quantize_w8, palettize_w6, quantize_w4_block])
def test_a_network_too_small_to_compress_is_refused(compress: Callable[[Path, Path], None], tmp_path: Path) -> None:
    """Else an fp16 file would be called w8. Twelve channels fill no block of 32, eight by nine no 1024 elements."""
    module = nn.Sequential(nn.Conv2d(1, 12, 3, padding=1), nn.Conv2d(12, 1, 3, padding=1)).eval()
    signature = Signature.of(channels=1, size=8, num_classes=0)
    program = capture(module, signature, batch=1)
    options = {**PLAIN, "options": Export(coreml_target="iOS18")}
    BACKEND.lower(program, tmp_path / "a.mlpackage", signature=signature, precision="fp16", metadata={}, **options)
    with pytest.raises(ExportError, match="nothing to compress: a weight needs more than 1024 elements"):
        compress(tmp_path / "a.mlpackage", tmp_path / "b.mlpackage")
    assert not (tmp_path / "b.mlpackage").exists()


def test_quantizing_what_is_no_package(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"cannot read the Core ML package a.mlpackage \(nothing there\)"):
        quantize_w8(tmp_path / "a.mlpackage", tmp_path / "b.mlpackage")


def test_without_the_extra_the_pip_line_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "coremltools", None)
    signature = Signature.of(channels=1, size=8, num_classes=0)
    with pytest.raises(MissingExtraError, match=r"writing a Core ML package needs 'coremltools'.*edgegen\[coreml\]"):
        BACKEND.lower(None, tmp_path / "a.mlpackage", signature=signature, precision="fp16", metadata={}, **PLAIN)  # type: ignore[arg-type]
    with pytest.raises(MissingExtraError, match="quantizing a Core ML package needs 'coremltools'"):
        quantize_w8(tmp_path / "a.mlpackage", tmp_path / "b.mlpackage")


def test_on_a_mac_core_ml_itself_is_asked(tiny: "Tiny", package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As far as another system goes: the vendor's object opens the package and says that it cannot predict here."""
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    monkeypatch.setattr(platform, "mac_ver", lambda: ("15.1", ("", "", ""), "arm64"))
    session = BACKEND.open(package)
    assert session.method == "Core ML 15.1"
    with pytest.raises(ExportError, match=r"Core ML refused the inputs sample, class_labels: .*macOS"):
        session(tiny.inputs)


def test_core_ml_gets_single_samples_in_its_own_types(tiny: "Tiny") -> None:
    class Model:
        def predict(self, inputs: dict[str, Any]) -> dict[str, Any]:
            assert {name: (a.dtype, a.shape) for name, a in inputs.items()} == {
                "sample": (np.float32, (1, 1, 8, 8)),
                "class_labels": (np.int32, (1,)),
            }
            return {"out_sample": inputs["sample"] + inputs["class_labels"]}

    got = CoreMLSession(Model(), "a stand-in")(tiny.inputs)["out_sample"]
    labels = tiny.inputs["class_labels"][:, None, None, None]
    np.testing.assert_allclose(got, tiny.inputs["sample"] + labels, rtol=1e-6)
