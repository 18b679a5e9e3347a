"""needless_work: the same bytes by less work, whatever the program; torch's functions and graphs are whole after it."""

import copy
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from torch import Tensor, fx, nn

from edgegen.exporters.executorch import backend
from edgegen.exporters.executorch.backend import BACKEND
from edgegen.exporters.executorch.needless_work import without_needless_work
from edgegen.program.capture import capture
from edgegen.program.one_step import OneStep
from edgegen.recipe import Export
from edgegen.types import Signature


class TwoDelegates(nn.Module):
    """XNNPACK has no sine: the program calls its delegate, a portable kernel, and the delegate again."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Conv2d(1, 4, 3, padding=1), nn.GroupNorm(2, 4), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(torch.sin(self.norm(self.first(x))).relu().mean(1, keepdim=True)).sin() * 2 + 1
        return out


def lowered(net: nn.Module, path: Path, options: Export) -> bytes:
    signature = Signature.of(channels=1, size=8, num_classes=0)
    program = capture(OneStep(net).eval(), signature, batch=1)
    BACKEND.lower(program, path, signature=signature, precision="fp32", metadata={}, options=options)
    return path.read_bytes()


@pytest.mark.parametrize("generate", [True, False])
@pytest.mark.parametrize("net", [nn.Conv2d(1, 1, 3, padding=1), TwoDelegates()], ids=["one", "two"])
def test_the_same_bytes(net: nn.Module, generate: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    options = Export(generate=generate)
    ours = lowered(net, tmp_path / "ours.pte", options)
    monkeypatch.setattr(backend, "without_needless_work", nullcontext)
    assert lowered(net, tmp_path / "plain.pte", options) == ours


def test_less_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._higher_order_ops import executorch_call_delegate

    done = {"source": 0, "delegate": 0}
    operator = sys.modules[type(executorch_call_delegate).__module__]
    recompile, run = fx.GraphModule.recompile, operator.call_delegate_cpu

    def counted_recompile(self: fx.GraphModule) -> object:
        done["source"] += 1
        return recompile(self)

    def counted_run(*args: object) -> object:
        done["delegate"] += 1
        return run(*args)

    monkeypatch.setattr(fx.GraphModule, "recompile", counted_recompile)
    monkeypatch.setattr(operator, "call_delegate_cpu", counted_run)
    lowered(TwoDelegates(), tmp_path / "ours.pte", Export(generate=True))
    ours = dict(done)
    assert (fx.GraphModule.recompile, operator.call_delegate_cpu) == (counted_recompile, counted_run)  # put back
    monkeypatch.setattr(backend, "without_needless_work", nullcontext)
    lowered(TwoDelegates(), tmp_path / "plain.pte", Export(generate=True))
    plain = {name: done[name] - ours[name] for name in done}
    assert ours["source"] < plain["source"] / 3
    assert ours["delegate"] < plain["delegate"] / 2


def doubled(graph: fx.GraphModule) -> None:
    """Changes a graph of x + 1 to x + 2, and says so to torch."""
    (add,) = (node for node in graph.graph.nodes if node.op == "call_function")
    add.args = (add.args[0], 2)
    graph.recompile()


@pytest.mark.parametrize("copied", [False, True])
def test_a_graph_that_was_changed_within_computes_and_prints_what_it_is_after(copied: bool) -> None:
    graph = fx.symbolic_trace(lambda x: x + 1)
    with without_needless_work():
        doubled(graph)
        if copied:
            graph = copy.deepcopy(graph)
    x = torch.arange(3.0)
    assert graph(x).tolist() == [2, 3, 4]
    assert "x + 2" in graph.code
    doubled(graph)
    assert graph(x).tolist() == [2, 3, 4]


def test_hooks_run_once() -> None:
    calls = []
    graph = fx.symbolic_trace(lambda x: x + 1)
    graph.register_forward_hook(lambda *_: calls.append(1))
    with without_needless_work():
        doubled(graph)
        graph(torch.zeros(1))
    assert calls == [1]
