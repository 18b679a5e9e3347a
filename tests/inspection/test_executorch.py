"""`inspect` on `.pte` files, against ExecuTorch's own delegation report and torch's count of multiplications."""

import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import inspected
import pytest
import torch

from edgegen.errors import ExportError
from edgegen.exporters import rewrites
from edgegen.exporters.executorch.backend import BACKEND
from edgegen.inspection import executorch
from edgegen.inspection.record import Inspection, Macs, inspect
from edgegen.program.capture import capture
from edgegen.support.vendor_logs import EXECUTORCH, quiet
from edgegen.types import Signature


@pytest.fixture(scope="module")
def edge() -> Any:
    return inspected.lower(delegate=True)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory, edge: Any) -> Path:
    path = tmp_path_factory.mktemp("pte") / "net.pte"
    path.write_bytes(inspected.content(edge))
    return path


@pytest.fixture(scope="module")
def found(path: Path) -> Inspection:
    return inspect(path)


def left_outside(edge: Any) -> tuple[int, Counter[str]]:
    """By ExecuTorch's report: delegated subgraphs, and operators outside them ("native_group_norm") with counts."""
    with quiet(EXECUTORCH), warnings.catch_warnings(action="ignore"):
        from executorch.devtools.backend_debug import get_delegation_info

        report = get_delegation_info(edge.exported_program().graph_module)
    count: Counter[str] = Counter()
    for name, numbers in report.delegation_by_operator.items():
        if numbers.non_delegated and name not in ("getitem", "alloc"):  # which are no work
            count[name.removeprefix("aten_").rpartition("_")[0]] += numbers.non_delegated
    return report.num_delegated_subgraphs, count


def test_partitions_and_nodes_outside_are_those_of_executorchs_report(found: Inspection, edge: Any) -> None:
    subgraphs, outside = left_outside(edge)
    assert len(found.main.partitions) == subgraphs == 7
    ours = Counter({entry.operation.removeprefix("aten::").split(".")[0]: entry.count for entry in found.main.outside})
    assert ours == outside
    assert found.main.nodes_outside == outside.total()


def test_multiplications_are_those_of_torch(found: Inspection, tmp_path: Path) -> None:
    assert found.main.macs == Macs(inspected.macs(inspected.net()), inspected.ATTENTION)
    portable = tmp_path / "portable.pte"
    portable.write_bytes(inspected.content(inspected.lower(delegate=False)))
    alone = inspect(portable)
    assert alone.main.macs == found.main.macs
    assert alone.main.partitions == ()
    assert "nothing was delegated" in " ".join(alone.hints)


def test_every_weight_of_the_net_is_stored_once(found: Inspection, path: Path) -> None:
    parameters = Counter(tuple(p.shape) for p in inspected.net().parameters())
    assert found.bytes_by_kind["weights float32"] == sum(4 * weight.parameters for weight in found.weights)
    assert found.parameters == sum(p.numel() for p in inspected.net().parameters())
    assert len(found.weights) == parameters.total()
    assert sum(found.bytes_by_kind.values()) == path.stat().st_size == found.nbytes


def test_why_and_which_rewrite(found: Inspection) -> None:
    by_name = {entry.operation: entry for entry in found.main.outside}
    norm = by_name["aten::native_group_norm.out"]
    assert norm.reason == "XNNPACK has no GroupNorm"
    assert norm.rewrite is not None
    assert f"rewrite {norm.rewrite}: would take" in " ".join(found.hints)
    assert by_name["aten::upsample_nearest2d.vec_out"].rewrite
    assert "with these arguments" in by_name["aten::mul.Scalar_out"].reason
    assert "XnnpackBackend" in found.needs[0]
    assert "aten::native_group_norm.out" in found.needs[1]


def test_the_reasons_fit_what_xnnpacks_partitioner_takes() -> None:
    with quiet(EXECUTORCH), warnings.catch_warnings(action="ignore"):
        from executorch.backends.xnnpack.partition.config import ALL_PARTITIONER_CONFIGS
    taken = {config.target_name.split(".")[0] for config in ALL_PARTITIONER_CONFIGS}
    assert set(executorch.SUPPORTED.split()) <= taken
    never = ("native_group_norm", "native_layer_norm", "upsample_nearest2d", "expand_copy", "embedding", "select_copy")
    assert not taken & {*never, "split_with_sizes_copy", "eq", "full_like", "logical_not", "any", "where"}


def test_a_file_of_another_project_has_numbered_inputs(found: Inspection) -> None:
    assert [value.name for value in (*found.main.inputs, *found.main.outputs)] == ["input_0", "output_0"]
    assert found.main.inputs[0].shape == (1, 3, 8, 8)
    assert (found.metadata, found.signature, found.constants) == ({}, None, {})


def test_edgegens_own_file_with_its_methods(tmp_path: Path) -> None:
    torch.manual_seed(0)
    signature = Signature.of(channels=1, size=8, num_classes=0)
    module = torch.nn.Conv2d(1, 1, 3, padding=1)
    path = tmp_path / "a.pte"
    about = {"license": "MIT"}
    with quiet(EXECUTORCH), warnings.catch_warnings(action="ignore"):
        program = capture(Named(module), signature, batch=1)
        BACKEND.lower(program, path, signature=signature, precision="fp32", metadata=about)
    found = inspect(path)
    assert found.main.inputs[0].name == "sample"
    assert found.main.outputs[0].name == "out_sample"
    assert found.metadata["license"] == "MIT"
    assert found.signature is not None
    assert found.signature["inputs"][0]["role"] == "noise"
    methods = {method.name: method for method in found.methods}
    assert set(methods) == {"forward", "generate"}
    assert methods["generate"].outputs[0].dtype == "uint8"
    assert {method.macs.weights for method in found.methods} == {64 * 9}
    assert found.parameters < 2 * (9 + 1), "both methods share the weights"


class Named(torch.nn.Module):
    """A convolution whose input is called as edgegen calls it."""

    def __init__(self, conv: torch.nn.Module) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, sample: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.conv(sample)
        return out


def test_an_unreadable_delegate_is_told(path: Path, tmp_path: Path) -> None:
    content = path.read_bytes()
    (tmp_path / "a.pte").write_bytes(content.replace(b"XnnpackBackend", b"UnheardBackend"))
    found = inspect(tmp_path / "a.pte")
    assert found.main.macs.uncounted == ("7 UnheardBackend delegate",)
    assert found.notes == ("what UnheardBackend runs inside its delegate: not read",)
    assert {entry.reason for entry in found.main.outside} == {"UnheardBackend did not take it"}


def test_every_rewrite_that_is_named_exists() -> None:
    named = {name for _, rewrite in executorch.REASONS.values() for name in (rewrite or "").split(" or ")}
    assert named - {""} <= set(rewrites.names())


def test_a_bundled_program_is_the_program_and_its_golden_tensors(path: Path, edge: Any, tmp_path: Path) -> None:
    with quiet(EXECUTORCH), warnings.catch_warnings(action="ignore"):
        from executorch.devtools.bundled_program.config import MethodTestCase, MethodTestSuite
        from executorch.devtools.bundled_program.core import BundledProgram
        from executorch.devtools.bundled_program.serialize import serialize_from_bundled_program_to_flatbuffer

        case = MethodTestCase(inputs=[inspected.example()], expected_outputs=[inspected.net()(inspected.example())])
        program = inspected.lower(delegate=True).to_executorch()
        content = serialize_from_bundled_program_to_flatbuffer(
            BundledProgram(program, [MethodTestSuite("forward", [case])])
        )
    bundled = tmp_path / "a.bpte"
    bundled.write_bytes(content)
    whole, alone = inspect(bundled), inspect(path)
    assert whole.methods == alone.methods
    assert whole.bytes_by_kind["golden inputs and outputs"] == len(content) - alone.nbytes
    bundled.write_bytes(content[: content.find(b"ET12eh00") + 1000])
    with pytest.raises(ExportError, match=r"cannot read a.bpte .*(the program in the bundle has|its header says)"):
        inspect(bundled)
    bundled.write_bytes(content.replace(b"eh00", b"none"))
    with pytest.raises(ExportError, match="no ExecuTorch program in the bundle"):
        inspect(bundled)
