"""The float and the rounded network side by side, layer by layer: where weights are corrected one after another."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from edgegen.errors import ExportError
from edgegen.quantize.fake_quant import FakeQuantizedNetwork, Rounding
from edgegen.quantize.layers import Layer, tensor_of


@dataclass(frozen=True)
class LayerOnBatch:
    """One layer on one batch: its output in the float network, and its input in the rounded network so far.

    `weights` and `bias` are the layer's own, to be changed in place; `bias` is None where it has none. `rounding` is
    that of the weights, None where they stay float.
    """

    layer: Layer
    exact: Tensor
    rounded_input: Tensor
    weights: Tensor
    bias: Tensor | None
    rounding: Rounding | None

    def run(self, weights: Tensor, rows: Tensor | None = None) -> Tensor:
        """The layer on its rounded input (of some rows of the batch) with these weights, as they are."""
        inputs = self.rounded_input if rows is None else self.rounded_input[rows]
        others = [self.bias if index == 2 else value for index, value in enumerate(self.layer.node.args)][2:]
        result: Tensor = self.layer.node.target(inputs, weights, *others)  # type: ignore[operator]
        return result


@torch.no_grad()
def walk(
    exact: fx.GraphModule,
    simulated: FakeQuantizedNetwork,
    batch: tuple[Tensor, ...],
    visit: Callable[[LayerOnBatch], None],
) -> None:
    """Calls `visit` with every layer in the order in which they run; a layer sees what was changed before it.

    `exact` is a copy of `floating(simulated)` from before any change. The whole batch goes through both at once: every
    output is in memory while it is needed.
    """
    layers = {layer.node: layer for layer in simulated.layers}
    floats, rounds = _StepwiseInterpreter(exact, batch), _StepwiseInterpreter(simulated.module, batch)
    for node in simulated.module.graph.nodes:
        if node in layers:
            visit(_visit(simulated.module, layers[node], floats.until(node.name), rounds.env))
            rounds.read_again(node)
        rounds.step(node)


class _StepwiseInterpreter(fx.Interpreter):
    """A graph run node by node; a value that no later node needs is freed."""

    def __init__(self, module: fx.GraphModule, batch: tuple[Tensor, ...]) -> None:
        super().__init__(module)
        self.args_iter = iter(batch)
        self.nodes = iter(module.graph.nodes)
        self.last: dict[fx.Node, fx.Node] = {}
        for node in module.graph.nodes:
            for source in node.all_input_nodes:
                self.last[source] = node

    def step(self, node: fx.Node) -> Any:
        value = self.env[node] = self.run_node(node)
        for source in node.all_input_nodes:
            if self.last[source] is node:
                del self.env[source]
        return value

    def until(self, name: str) -> Any:
        """Run up to the node of this name, and give its value."""
        for node in self.nodes:
            value = self.step(node)
            if node.name == name:
                return value
        raise ExportError(f"the float and the rounded network differ: no {name}")

    def read_again(self, node: fx.Node) -> None:
        """The weights and the bias of a layer: they were read, and rounded, before they were changed."""
        for source in node.all_input_nodes[1:]:
            for reader in (*source.all_input_nodes, source):
                if reader.op == "get_attr":
                    self.env[reader] = self.run_node(reader)
            if source.op == "call_module":
                self.env[source] = self.run_node(source)


def _visit(module: fx.GraphModule, layer: Layer, exact: Tensor, env: dict[fx.Node, Any]) -> LayerOnBatch:
    node = layer.node
    inputs: Any = node.args[0]
    weights: Any = node.args[1]
    bias: Any = node.args[2] if len(node.args) > 2 else None
    rounding = module.get_submodule(str(weights.target)) if weights.op == "call_module" else None
    return LayerOnBatch(
        layer,
        exact,
        env[inputs],
        tensor_of(module, layer.target),
        None if bias is None else tensor_of(module, str(bias.target)),
        rounding if isinstance(rounding, Rounding) else None,
    )
