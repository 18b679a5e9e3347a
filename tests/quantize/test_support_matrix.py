"""The support matrix: every cell loads, empty ones name the full ones, nothing heavy is imported by looking."""

import subprocess
import sys

import pytest

from edgegen import registry
from edgegen.artifacts.target import Target, check_targets
from edgegen.errors import UsageError
from edgegen.exporters.coreml.backend import FEATURES
from edgegen.exporters.coreml.cells import CELLS, SCHEME_FEATURES
from edgegen.quantize.support_matrix import cell, matrix
from edgegen.recipe import Export
from edgegen.types import SchemeCell


@pytest.mark.parametrize(("scheme", "backend"), sorted(matrix()))
def test_every_cell_belongs_to_a_backend_and_loads(scheme: str, backend: str) -> None:
    chosen = cell(scheme, backend)
    assert backend in registry.BUILT_IN["backend"]
    assert chosen.engine
    assert 0 < chosen.floor_db < 130
    assert (chosen.function is None) == (chosen.stage == "float")
    if chosen.function is not None:
        assert callable(chosen.load())


def test_every_scheme_has_a_float_cell_beside_it() -> None:
    floating = {backend for (_, backend), chosen in matrix().items() if chosen.stage == "float"}
    assert floating == {backend for _, backend in matrix()}


def test_an_empty_cell_names_the_full_ones_and_the_nearest() -> None:
    message = (
        "no quantization scheme 'w8' for backend 'executorch'; there are: coreml fp16, coreml fp32, coreml mixed, "
        "coreml w4, coreml w4-block, coreml w6, coreml w8, coreml w8a8, executorch fp32, executorch mixed, "
        "executorch w8a8, onnx fp16, onnx fp32, onnx mixed, onnx w8, onnx w8a8. Did you mean 'executorch w8a8'?"
    )
    with pytest.raises(UsageError) as error:
        cell("w8", "executorch")
    assert str(error.value) == message
    with pytest.raises(UsageError, match=r"no backend 'onxn'; .* Did you mean 'onnx'\?"):
        cell("w8a8", "onxn")


def test_what_the_system_lacks_is_told_before_any_work() -> None:
    blocks = [Target("coreml", "w4-block")]
    check_targets(blocks, Export(coreml_target="iOS18"))
    with pytest.raises(UsageError, match=r"coreml-w4-block: .* from iOS18 on; the deployment target is iOS17: set"):
        check_targets(blocks, Export(coreml_target="iOS17"))


def test_every_feature_is_one_of_core_ml() -> None:
    assert SCHEME_FEATURES.keys() <= CELLS.keys()
    assert set(SCHEME_FEATURES.values()) <= FEATURES.keys()


def test_a_float_cell_has_no_function() -> None:
    with pytest.raises(AssertionError, match="a 'float' cell without a function"):
        SchemeCell("float", "fp32", "none", 80.0).load()


def test_looking_at_the_matrix_imports_no_vendor() -> None:
    heavy = ("torch", "onnx", "onnxruntime", "executorch", "torchao", "coremltools")
    modules = (
        "edgegen.quantize.support_matrix, edgegen.exporters.base, edgegen.artifacts.build, edgegen.verification.parity"
    )
    code = (
        f"import sys, {modules}; edgegen.quantize.support_matrix.matrix();"
        f"sys.exit(','.join(set({heavy}) & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.strip()) == (0, "")
