"""Traces joined with blocks: only where nothing is in doubt; the block that works most is found in both runtimes."""

import tempfile
from pathlib import Path

import pytest
import torch
from measured import needs_compiler
from torch import nn
from typer.testing import CliRunner

from edgegen.artifacts.build import build
from edgegen.artifacts.target import Target
from edgegen.cli.main import app
from edgegen.profilers.devices.host import DEVICE
from edgegen.profilers.files.subject import place, read_subject
from edgegen.profilers.files.trace import traced
from edgegen.profilers.trace.module_paths import by_block, join_onnx, join_pte
from edgegen.profilers.trace.operators import OUTSIDE, Leaf
from edgegen.program.one_step import OneStep
from edgegen.types import Signature


def leaf(name: str, kind: str, place: str = "delegate 1", ms: float = 1.0, block: str | None = None) -> Leaf:
    return Leaf(name, kind, place, ms, block)


def test_names_that_onnxruntime_changed_are_found_and_its_own_are_not() -> None:
    known = {"a/conv": "a", "conv_out": "a", "b/silu": "b", "Transpose": "c"}
    rows = [
        leaf("a/conv", "Conv"),
        leaf("conv_out_nchwc", "Conv"),
        leaf("b/silu/QuickGeluFusion/", "QuickGelu"),
        leaf("a/conv/MatmulTransposeFusion//MatMulScaleFusion/", "FusedMatMul"),
        leaf("a/conv_token_12", "QLinearConv"),
        leaf("ReorderInput_token_3", "ReorderInput"),
        leaf("Transpose_token_4", "Transpose"),
        leaf("a/convolution", "Conv"),
    ]
    assert [one.block for one in join_onnx(rows, known)] == ["a", "a", "b", "a", "a", None, None, None]


def test_the_nodes_of_a_delegate_are_joined_in_order_and_only_where_their_numbers_agree() -> None:
    rows = [
        leaf("embedding.out", "embedding.out", OUTSIDE),
        leaf("Convolution (NHWC, F32) IGEMM #1", "Convolution (NHWC, F32) IGEMM"),
        leaf("Multiply (ND) #1", "Multiply (ND)"),
        leaf("Mean Squared (ND) Reduce2 #1", "Mean Squared (ND) Reduce2"),
        leaf("Fully Connected (NC, F32) GEMM #1", "Fully Connected (NC, F32) GEMM"),
        leaf("Add (ND) #1", "Add (ND)"),
    ]
    nodes: list[tuple[str, str | None]] = [
        ("XNNConv2d", "a"),
        ("XNNMultiply", "b"),
        ("XNNMultiply", "merged"),
        ("XNNGlobalAvgPooling2d", "c"),
        ("XNNConv2d", "d"),
        ("XNNAdd", "e"),
        ("XNNAdd", "f"),
    ]
    assert [one.block for one in join_pte(rows, [nodes])] == [None, "a", "b", "c", "d", None]
    assert [one.block for one in join_pte(rows, [nodes, nodes])] == [None] * 6


def test_paths_are_cut_until_a_reader_can_take_them_in() -> None:
    rows = [leaf("x", "k", ms=1.0, block=f"net.up.{i}.conv{j}") for i in range(4) for j in range(3)]
    rows += [leaf("y", "k", ms=5.0), leaf("z", "k", ms=0.5, block="net")]
    shown = [(one.block, one.count, one.ms) for one in by_block(rows, most=6)]
    assert shown == [(None, 1, 5.0), *((f"net.up.{i}", 3, 3.0) for i in range(4)), ("net", 1, 0.5)]
    assert len(by_block(rows, most=40)) == 14
    assert [one.block for one in by_block(rows, most=1)] == ["net", None]


class Uneven(nn.Module):
    """Its middle computes 24 times what its ends do, milliseconds long: other programs interrupt it more than them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(1, 48, 3, padding=1), nn.Conv2d(48, 1, 3, padding=1)
        self.middle = nn.Sequential(nn.Conv2d(48, 48, 3, padding=1), nn.SiLU())

    def forward(self, sample: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = self.last(self.middle(torch.relu(self.first(sample))))
        return made


@pytest.mark.parametrize("target", ["onnx-fp32", pytest.param("executorch-fp32", marks=needs_compiler)])
def test_the_block_that_works_most_is_told_by_a_real_trace(target: str, tmp_path: Path, in_process: None) -> None:
    torch.manual_seed(0)
    signature, wanted = Signature.of(channels=1, size=64, num_classes=0), Target.parse(target)
    net = OneStep(Uneven()).eval()
    build(net, signature, name="t", target=wanted, folder=tmp_path, seed=3, metadata={})
    with tempfile.TemporaryDirectory() as temporary:
        placement = place(read_subject(tmp_path / wanted.file("t")), DEVICE, Path(temporary))
        rows = traced(placement, 1, DEVICE, Path(temporary), timeout_s=60.0, runs=5)
    total = sum(row.ms for row in rows)
    layers = [row.block for row in rows if row.kind.startswith("Conv") and row.block is not None]
    assert layers == ["net.first", "net.middle.0", "net.last"]
    middle = sum(row.ms for row in rows if (row.block or "").startswith("net.middle"))
    assert middle > 0.4 * total
    assert {row.place for row in rows} == ({"CPUExecutionProvider"} if target == "onnx-fp32" else {"delegate 1"})


@needs_compiler
def test_the_command_tells_kinds_blocks_and_what_is_left_outside(tmp_path: Path, in_process: None) -> None:
    class Net(nn.Module):
        """An embedding, which XNNPACK does not take."""

        def __init__(self) -> None:
            super().__init__()
            self.conv, self.table = nn.Conv2d(1, 1, 3, padding=1), nn.Embedding(10, 1)

        def forward(self, sample: torch.Tensor, class_labels: torch.Tensor) -> torch.Tensor:
            made: torch.Tensor = self.conv(sample) + self.table(class_labels)[:, :, None, None]
            return made

    torch.manual_seed(0)
    signature = Signature.of(channels=1, size=8, num_classes=10)
    for target in map(Target.parse, ("onnx-fp32", "executorch-fp32")):
        build(OneStep(Net()).eval(), signature, name="t", target=target, folder=tmp_path, seed=3, metadata={})
    files = [str(tmp_path / name) for name in ("t_onnx_fp32.onnx", "t_executorch_fp32.pte")]
    done = CliRunner().invoke(app, ["profile", *files, "--per-op"])
    assert done.exit_code == 0, done.exception
    assert "| net.conv | " in done.stdout
    assert "operations by CPUExecutionProvider" in done.stdout
    assert "of the time; outside: 1 embedding.out" in done.stdout
