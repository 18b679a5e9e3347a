"""The block of the network that each node of a captured graph belongs to, noted at the capture, kept by rewrites.

    def forward(self, x): return self.up[0](x)     the nodes of up[0]'s own operations get "up.0"

torch.export notes the modules around each operation, and loses them when a changed graph is captured again. So the
first capture writes the innermost module's path into `node.meta["custom"]`, which exported programs keep, also in
files, and `RetracedModule` passes it on from a graph's nodes to those traced from them (torch.fx.traceback.annotate).
A node without such a note, such as one that a quantizer inserts, has no block.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import fx, nn
from torch.export import ExportedProgram
from torch.fx import traceback

KEY = "block"


def note(program: ExportedProgram) -> None:
    """Writes the path of the module that called each operation into its node; a path that is there already stays."""
    for node in program.graph.nodes:
        stack = list(node.meta.get("nn_module_stack", {}).values())
        if node.op == "call_function" and stack and block_of(node) is None and stack[-1][0]:
            node.meta["custom"] = {**(node.meta.get("custom") or {}), KEY: stack[-1][0]}


def block_of(node: fx.Node) -> str | None:
    """The path of the node's module in the network, such as "net.up.0.0.norm1"; None where it is not known."""
    block = (node.meta.get("custom") or {}).get(KEY)
    return block if isinstance(block, str) else None


class RetracedModule(nn.Module):
    """Runs a captured graph node by node, with `operators` (operator -> function) in place of some of them.

    The graph's own weights under their own names; it takes the inputs flat, in the graph's order, and gives one output.
    """

    def __init__(self, graph_module: fx.GraphModule, operators: Mapping[Any, Callable[..., Any]]) -> None:
        super().__init__()
        self._parameters, self._buffers = graph_module._parameters, graph_module._buffers
        self._modules = graph_module._modules
        # A function, so that deep copies of this module share the graph: copying it takes long and gives warnings.
        self._interpreter: Callable[[nn.Module], _Interpreter] = lambda module: _Interpreter(
            module, graph_module.graph, operators
        )

    def forward(self, *inputs: Any) -> Any:
        output = self._interpreter(self).run(*inputs, enable_io_processing=False)
        return output[0] if isinstance(output, tuple | list) else output


class _Interpreter(fx.Interpreter):
    """Replaces `operators`, and annotates what each node computes with its block."""

    def __init__(self, module: nn.Module, graph: fx.Graph, operators: Mapping[Any, Callable[..., Any]]) -> None:
        super().__init__(module, graph=graph)
        self.operators = operators

    def run_node(self, n: fx.Node) -> Any:
        block = block_of(n)
        if block is None:
            return super().run_node(n)
        with traceback.annotate({KEY: block}):
            return super().run_node(n)

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        return super().call_function(self.operators.get(target, target), args, kwargs)


def export(module: nn.Module, inputs: Any, shapes: Any) -> ExportedProgram:
    """torch.export of a module on example inputs; notes of a captured graph's nodes are kept."""
    with traceback.preserve_node_meta():
        program = torch.export.export(module, inputs, dynamic_shapes=shapes)
    note(program)
    return program
