"""bisect_rewrites: rewrites and graph passes that make a file wrong stay out of it, and the manifest names them."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, fx, nn

from edgegen.artifacts.bisect_rewrites import write_what_is_true
from edgegen.artifacts.build import build
from edgegen.artifacts.target import Target
from edgegen.errors import ExportError
from edgegen.exporters import rewrites as all_rewrites
from edgegen.program.capture import capture, reference
from edgegen.program.inputs import example_inputs
from edgegen.registry import load
from edgegen.support.vendor_logs import EXECUTORCH, quiet
from edgegen.types import Signature

pytestmark = pytest.mark.long

SIGNATURE = Signature.of(channels=3, size=8, num_classes=0)
KINDS = {"rewrites": ["a", "b", "c", "quantized_cat"], "passes": ["d", "e"]}
NAMES = [name for kind in KINDS.values() for name in kind]


class Writer:
    """Files that are true unless one of `harmful` is in them; without `needed` none is.

    `raises` says with how many names, fewer or all, the vendor's tool fails.
    """

    def __init__(self, *harmful: str, needed: str = "quantized_cat", raises: str = "") -> None:
        self.harmful, self.needed, self.raises = harmful, needed, raises
        self.written: list[list[str]] = []

    def __call__(self, names: Sequence[str]) -> str:
        fails = {"fewer": len(names) < len(NAMES), "all": any(name in names for name in self.harmful), "": False}
        if fails[self.raises]:
            raise ExportError(f"the vendor's tool fails at {len(names)}") from ValueError("of the vendor")
        self.written.append(list(names))
        if self.needed not in names:
            return "not without it"
        return "refused" if any(name in names for name in self.harmful) else ""


@pytest.mark.parametrize("raises", ["", "all"])
@pytest.mark.parametrize("harmful", [("a",), ("c",), ("e",), ("b", "d"), ("a", "b")])
def test_what_harms_is_left_out(harmful: tuple[str, ...], raises: str) -> None:
    writer = Writer(*harmful, raises=raises)
    left_out = write_what_is_true(writer, KINDS)
    assert left_out["reason"] == ("the vendor's tool fails at 6" if raises else "refused")
    named = [*left_out.get("rewrites", ()), *left_out.get("passes", ())]
    assert set(harmful) <= set(named)
    assert set(left_out.get("passes", ())) <= {"d", "e"}
    assert len(harmful) > 1 or named == list(harmful)
    assert writer.written[-1] == [name for name in NAMES if name not in named], "the file that stays"


@pytest.mark.parametrize(
    "writer", [Writer(), Writer("quantized_cat"), Writer("a", needed="a"), Writer("a", raises="fewer")]
)
def test_the_file_of_all_stays_where_nothing_helps_or_nothing_is_wrong(writer: Writer) -> None:
    assert write_what_is_true(writer, KINDS) == {}
    assert writer.written[-1] == NAMES


def test_a_tool_that_always_fails_is_told_in_its_first_words() -> None:
    with pytest.raises(ExportError, match="fails at 6"):
        write_what_is_true(Writer("quantized_cat", raises="all"), KINDS)


def test_a_refusal_of_our_own_is_not_tried_again() -> None:
    written = []

    def write(names: Sequence[str]) -> str:
        written.append(names)
        raise ExportError("not in this opset")

    with pytest.raises(ExportError, match="not in this opset"):
        write_what_is_true(write, KINDS)
    assert len(written) == 1


class Channels(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, sample: Tensor) -> Tensor:
        out: Tensor = self.conv(sample).tanh()
        return out


def channels_last(module: fx.GraphModule) -> None:
    """A rewrite after which the picture leaves the file in another layout, which the session refuses."""
    for node in module.graph.nodes:
        if node.target == torch.ops.aten.tanh.default:
            with module.graph.inserting_after(node):
                copy = module.graph.call_function(
                    torch.ops.aten.clone.default, (node,), {"memory_format": torch.channels_last}
                )
            node.replace_all_uses_with(copy, delete_user_cb=lambda user, copy=copy: user is not copy)
    module.recompile()


def test_the_file_runs_and_its_manifest_says_what_was_left_out(
    tmp_path: Path, in_process: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with quiet(EXECUTORCH):
        from executorch.exir.pass_base import ExportPass

    load_rewrite = all_rewrites._load
    harmful = SimpleNamespace(rewrite=channels_last)
    monkeypatch.setattr(all_rewrites, "_load", lambda name: harmful if name == "harmful" else load_rewrite(name))
    monkeypatch.setattr("edgegen.exporters.executorch.backend.contiguous_layout", ExportPass)
    torch.manual_seed(0)
    net, target = Channels().eval(), Target("executorch", "fp32")
    arguments: dict[str, Any] = {"name": "a", "target": target, "folder": tmp_path, "seed": 0, "metadata": {}}
    artifact = build(net, SIGNATURE, rewrites=["pointwise", "harmful", "split_slices"], **arguments).artifact
    assert artifact.details["left_out"]["rewrites"] == ["harmful"]
    reason = "'out_sample' [1, 3, 8, 8] leaves the file in another layout than the signature's"
    assert reason in artifact.details["left_out"]["reason"]
    inputs = example_inputs(SIGNATURE, 2, 0)
    out = load("backend", "executorch").open(tmp_path / artifact.file)(inputs)["out_sample"]
    np.testing.assert_allclose(out, reference(net, inputs), rtol=1e-5, atol=1e-6)
    whole = build(net, SIGNATURE, rewrites=["pointwise", "split_slices"], **arguments).artifact
    assert whole.sha256 == artifact.sha256
    assert "left_out" not in whole.details


class Windowed(nn.Module):
    """A convolution times a window over its width, as wide as it has channels: onnxslim 0.1.98 scales channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.register_buffer("window", torch.hann_window(8) + 0.1)
        self.head = nn.Conv2d(8, 3, 1)

    def forward(self, sample: Tensor) -> Tensor:
        return torch.tanh(self.head(self.conv(sample) * self.window))


@pytest.mark.parametrize("text", ["onnx", "onnx:generate"])
def test_a_pass_of_the_vendor_that_changes_the_numbers_is_left_out(tmp_path: Path, in_process: None, text: str) -> None:
    torch.manual_seed(0)
    net, target = Windowed().eval(), Target.parse(text)
    made = build(net, SIGNATURE, name="a", target=target, folder=tmp_path, seed=0, metadata={}).artifact
    assert made.details["left_out"]["passes"] == ["onnxslim.FusionConvMul"]
    assert "dB is below the floor of" in made.details["left_out"]["reason"]
    assert "rewrites" not in made.details["left_out"]
    inputs = example_inputs(SIGNATURE, 2, 0)
    (out,) = load("backend", "onnx").open(tmp_path / made.file)(inputs).values()
    expected = reference(net, inputs)
    if text == "onnx":
        np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-6)
    else:
        assert np.abs(out.transpose(0, 3, 1, 2) - (expected * 127.5 + 127.5)).max() < 1


def test_every_pass_of_onnx_can_be_left_out(tmp_path: Path) -> None:
    torch.manual_seed(0)
    backend, net = load("backend", "onnx"), Channels().eval()
    program = capture(net, SIGNATURE, batch=None)
    assert len(set(backend.passes())) == len(backend.passes()) > 10
    for left_out in ((), backend.passes()):
        path = tmp_path / f"{len(left_out)}.onnx"
        backend.lower(program, path, signature=SIGNATURE, precision="fp32", metadata={}, left_out=left_out)
        inputs = example_inputs(SIGNATURE, 2, 0)
        out = backend.open(path)(inputs)["out_sample"]
        np.testing.assert_allclose(out, reference(net, inputs), rtol=1e-5, atol=1e-6)
