"""bisect_rewrites: the rewrites that make a runtime refuse a file stay out of it, and the manifest names them."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, fx, nn

from edgegen.artifacts.bisect_rewrites import write_what_runs
from edgegen.artifacts.build import build
from edgegen.artifacts.target import Target
from edgegen.errors import ExportError
from edgegen.exporters import rewrites as all_rewrites
from edgegen.program.capture import reference
from edgegen.program.inputs import example_inputs
from edgegen.registry import load
from edgegen.support.vendor_logs import EXECUTORCH, quiet
from edgegen.types import Signature

SIGNATURE = Signature.of(channels=3, size=8, num_classes=0)
NAMES = ["a", "b", "c", "quantized_cat", "d", "e"]


class Writer:
    """Files that run unless all of a group of `harmful` rewrites are in them; without `needed` none runs."""

    def __init__(self, *harmful: str, needed: str = "quantized_cat", raises: bool = False) -> None:
        self.harmful, self.needed, self.raises = harmful, needed, raises
        self.written: list[list[str]] = []

    def __call__(self, names: Sequence[str]) -> str:
        if self.raises and len(names) < len(NAMES):
            raise ExportError("the vendor's tool fails")
        self.written.append(list(names))
        if self.needed not in names:
            return "not without it"
        return "refused" if any(name in names for name in self.harmful) else ""


@pytest.mark.parametrize("harmful", [("a",), ("c",), ("e",), ("b", "d"), ("a", "b")])
def test_what_harms_is_left_out(harmful: tuple[str, ...]) -> None:
    writer = Writer(*harmful)
    left_out = write_what_runs(writer, NAMES)
    assert left_out["reason"] == "refused"
    assert set(harmful) <= set(left_out["rewrites"])
    assert len(harmful) > 1 or left_out["rewrites"] == list(harmful)
    assert writer.written[-1] == [name for name in NAMES if name not in left_out["rewrites"]], "the file that stays"


@pytest.mark.parametrize(
    "writer", [Writer(), Writer("quantized_cat"), Writer("a", needed="a"), Writer("a", raises=True)]
)
def test_the_file_of_all_stays_where_nothing_helps_or_nothing_is_wrong(writer: Writer) -> None:
    assert write_what_runs(writer, NAMES) == {}
    assert writer.written[-1] == NAMES


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
