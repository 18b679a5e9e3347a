"""The fixed-point network of examples/: trained by methods of one and of two times, and a file of every runtime."""

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from edgegen.artifacts.library import export
from edgegen.models.load import load
from edgegen.pipeline.run import run_recipe

pytestmark = pytest.mark.long

EXAMPLES = Path(__file__).parents[2] / "examples"
RECIPE = """
name = "fixed"
[slim]
method = "flow_matching"
network = "{network}:digits"
steps = 100
batch = 32
learning_rate = 4e-3
warmup = 1
[distill]
method = "{method}"
steps = 10
batch = 16
"""


@pytest.fixture
def equilibrium(example: Callable[[str], ModuleType]) -> ModuleType:
    return example("equilibrium")


def network(equilibrium: ModuleType, **keys: int) -> Any:
    torch.manual_seed(0)
    net = equilibrium.EquilibriumTransformer(2, 8, 3, width=16, heads=2, **keys).eval()
    nn.init.normal_(net.head[1].weight, std=0.1)
    return net


def velocity(net: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        out: Tensor = net(x, torch.full((len(x),), 0.7), torch.arange(len(x)) % 3)
    return out


def test_the_same_blocks_are_applied_again_and_again(equilibrium: ModuleType) -> None:
    x, sizes, outputs = torch.randn(2, 2, 8, 8), set(), []
    for iterations in (1, 2, 5):
        net = network(equilibrium, tied_blocks=2, iterations=iterations)
        states: list[Tensor] = []
        net.tied[0].register_forward_pre_hook(lambda _, given, states=states: states.append(given[0]))
        outputs.append(velocity(net, x))
        sizes.add(sum(weight.numel() for weight in net.parameters()))
        assert len(states) == iterations
        assert not states[0].any()
    assert len(sizes) == 1
    assert not torch.allclose(outputs[0], outputs[1])
    assert not torch.allclose(outputs[1], outputs[2])


def test_a_patch_goes_back_where_it_came_from(equilibrium: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where each token attends to itself, a patch of the velocity depends on that patch alone."""
    monkeypatch.setattr(equilibrium.functional, "scaled_dot_product_attention", lambda q, k, v: v)
    net = network(equilibrium, patch=4)
    x = torch.randn(1, 2, 8, 8)
    other = x.clone()
    other[:, 1, 5, 2] += 1.0
    changed = (velocity(net, x) != velocity(net, other)).any(dim=1)[0]
    assert changed[4:, :4].any()
    changed[4:, :4] = False
    assert not changed.any()


@pytest.mark.parametrize("method", ["flow_matching", pytest.param("mean_flow", marks=pytest.mark.slow)])
def test_methods_of_one_and_two_times_train_it_and_files_hold_it_unrolled(tmp_path: Path, method: str) -> None:
    path = EXAMPLES / "equilibrium.py"
    (tmp_path / "recipe.toml").write_text(RECIPE.format(network=path, method=method))
    slim, distill = run_recipe(tmp_path / "recipe.toml", runs=tmp_path / "runs", to="distill")[-2:]
    losses = [json.loads(line)["student"] for line in (slim.folder / "log.jsonl").read_text().splitlines()]
    assert min(losses[-3:]) < 0.95 * losses[0]
    generator = distill.folder / "generator"
    assert load(generator).net.second_time == (method == "mean_flow")
    runtimes = ["onnx", "executorch", "coreml"] if method == "mean_flow" else ["onnx"]
    (result,) = export(generator, tmp_path / "files", to=runtimes)
    assert [parity.status for parity in result.parity.values()] == ["ok"] * len(runtimes)
    onnx = pytest.importorskip("onnx")
    graph = onnx.load(next((tmp_path / "files").glob("*.onnx"))).graph
    blocks = sum(node.op_type == "Softmax" for node in graph.node)
    assert blocks == 2 + 6, "blocks of the injection, and one block six times"
    matrices = {weight.name for weight in graph.initializer if len(weight.dims) == 2}
    uses = [sum(name in node.input for node in graph.node) for name in matrices]
    assert uses.count(6) == 2, "the large matrices, those of the block's MLP, are there once"
