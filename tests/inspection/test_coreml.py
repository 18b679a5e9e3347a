"""`inspect` on Core ML packages, against coremltools' own reading and torch's count of multiplications."""

import json
import subprocess
import sys
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import inspected
import pytest

from edgegen.formats import mlpackage
from edgegen.inspection.record import Inspection, Macs, inspect
from edgegen.support.storage import nbytes_of
from edgegen.types import Signature

SIGNATURE = Signature.of(channels=1, size=8, num_classes=0).to_dict()


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return inspected.package(tmp_path_factory.mktemp("coreml") / "net.mlpackage")


@pytest.fixture(scope="module")
def found(path: Path) -> Inspection:
    return inspect(path)


@pytest.fixture(scope="module")
def newer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("coreml18")
    return inspected.package(folder / "net.mlpackage", target="iOS18", precision="FLOAT32")


def test_multiplications_are_those_of_torch(found: Inspection, newer: Path) -> None:
    expected = Macs(inspected.macs(inspected.net()), inspected.ATTENTION)
    assert found.main.macs == expected
    assert inspect(newer).main.macs == expected
    assert "scaled_dot_product_attention" in inspect(newer).main.operations


def test_operations_and_signature_are_those_of_coremltools(found: Inspection, path: Path) -> None:
    (function,) = mlpackage.read(path).spec.mlProgram.functions.values()
    (block,) = function.block_specializations.values()
    assert found.main.operations == Counter(op.type for op in block.operations if op.type != "const")
    (taken,) = found.main.inputs
    assert (taken.name, taken.dtype, taken.shape) == ("sample", "float32", (1, 3, 8, 8))


def test_every_weight_and_every_byte(found: Inspection, path: Path) -> None:
    assert {weight.dtype for weight in found.weights} == {"float16"}
    assert all(weight.nbytes == 2 * weight.parameters for weight in found.weights)
    # Vectors of a few numbers may stand in the program itself.
    large = sum(p.numel() for p in inspected.net().parameters() if p.numel() > 64)
    assert large <= found.parameters <= sum(p.numel() for p in inspected.net().parameters())
    assert sum(found.bytes_by_kind.values()) == nbytes_of(path)


def test_what_it_needs_and_what_is_not_known(found: Inspection, newer: Path) -> None:
    assert found.needs[0] == "specification version 8: iOS 17, macOS 14 or newer"
    assert inspect(newer).needs[0] == "specification version 9: iOS 18, macOS 15 or newer"
    assert found.notes[0].startswith("it computes in float16 in ")
    assert inspect(newer).notes[0].startswith("it computes in float32 in ")
    assert "not checked" in found.notes[1]


def compressed(path: Path, target: Path, kind: str) -> Inspection:
    optimize = mlpackage.coremltools("a test").optimize.coreml
    with mlpackage.silent(), warnings.catch_warnings(action="ignore"):
        model = mlpackage.coremltools("a test").models.MLModel(str(path), skip_model_load=True)
        configs: dict[str, Any] = {
            "int8": lambda: optimize.OpLinearQuantizerConfig(weight_threshold=0),
            "int4": lambda: optimize.OpLinearQuantizerConfig(
                dtype="int4", granularity="per_block", block_size=4, weight_threshold=0
            ),
            "palette": lambda: optimize.OpPalettizerConfig(nbits=6, weight_threshold=0),
            "sparse": lambda: optimize.OpMagnitudePrunerConfig(target_sparsity=0.5, weight_threshold=0),
        }
        config = optimize.OptimizationConfig(global_config=configs[kind]())
        run = {"palette": optimize.palettize_weights, "sparse": optimize.prune_weights}
        run.get(kind, optimize.linear_quantize_weights)(model, config=config).save(str(target))
    return inspect(target)


@pytest.mark.parametrize(
    ("kind", "label", "bits"),
    [("int8", "int8", 8), ("int4", "int4 per block", 4), ("palette", "palette 6-bit", 6), ("sparse", "sparse ", 1)],
)
@pytest.mark.parametrize("generation", ["iOS17", "iOS18"])
def test_compressed_weights(
    path: Path, newer: Path, tmp_path: Path, kind: str, label: str, bits: int, generation: str
) -> None:
    if kind == "int4" and generation == "iOS17":
        return  # iOS 18 is the first to have it
    small = compressed(path if generation == "iOS17" else newer, tmp_path / "a.mlpackage", kind)
    found = {weight.name: weight for weight in small.weights if weight.dtype.startswith(label)}
    assert found, [weight.dtype for weight in small.weights]
    big = max(found.values(), key=lambda weight: weight.parameters)
    assert big.shape in {tuple(p.shape) for p in inspected.net().parameters()}
    assert big.parameters * bits / 8 <= big.nbytes <= 4 * big.parameters
    assert sum(small.bytes_by_kind.values()) == nbytes_of(tmp_path / "a.mlpackage")
    assert small.main.macs == Macs(inspected.macs(inspected.net()), inspected.ATTENTION)


def test_edgegens_metadata(path: Path, tmp_path: Path) -> None:
    package = mlpackage.read(path)
    package.spec.description.metadata.license = "MIT"
    package.spec.description.metadata.userDefined["com.edgegen.signature"] = json.dumps(SIGNATURE)
    mlpackage.write(package.spec, package.weights, tmp_path / "a.mlpackage")
    found = inspect(tmp_path / "a.mlpackage")
    assert (found.metadata["license"], found.signature) == ("MIT", json.loads(json.dumps(SIGNATURE)))


def test_it_is_read_without_importing_coremltools_or_torch(path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from edgegen.inspection.record import inspect; "
        f"print(inspect(Path({str(path)!r})).main.macs.total, {{'torch', 'coremltools'}} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == f"{inspected.macs(inspected.net()) + inspected.ATTENTION} set()\n"
