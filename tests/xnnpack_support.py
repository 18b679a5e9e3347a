"""For tests of what ExecuTorch's XNNPACK takes: a graph module to rewrite, and the nodes that stay outside."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram, export

from edgegen.program.module_paths import RetracedModule
from edgegen.support.vendor_logs import EXECUTORCH, EXPORT, quiet


def captured(module: nn.Module, *inputs: Tensor) -> ExportedProgram:
    with torch.no_grad(), quiet(EXPORT):
        return export(module.eval(), inputs)


def rewritten(
    module: nn.Module,
    *inputs: Tensor,
    rewrite: Callable[[fx.GraphModule], None] | None = None,
    operators: dict[Any, Callable[..., Any]] | None = None,
) -> ExportedProgram:
    """`module` captured, rewritten and captured again, as edgegen.exporters.rewrites.apply does it."""
    graph_module = captured(module, *inputs).module(check_guards=False)
    if rewrite is not None:
        rewrite(graph_module)
    return captured(RetracedModule(graph_module, operators or {}), *inputs)


def operators_of(program: ExportedProgram) -> list[str]:
    return [str(node.target) for node in program.graph.nodes if node.op == "call_function"]


def largest_error(program: ExportedProgram, module: nn.Module, *inputs: Tensor) -> float:
    """Of the float32 program, against PyTorch's own `module` in float64: max difference / max reference."""
    with torch.no_grad():
        got = program.module()(*inputs).double()
        expected = module.double()(*(value.double() if value.is_floating_point() else value for value in inputs))
    module.float()
    return float((got - expected).abs().max() / expected.abs().max())


def outside(program: ExportedProgram) -> tuple[int, list[str]]:
    """How many pieces XNNPACK takes of the program, and the operators that it leaves."""
    with quiet(EXECUTORCH):
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower

        edge = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
    targets = [_name(node.target) for node in edge.exported_program().graph.nodes if node.op == "call_function"]
    left = [target for target in targets if "getitem" not in target and "executorch_call_delegate" not in target]
    return sum("executorch_call_delegate" in target for target in targets), left


def _name(target: Any) -> str:
    """The operator of ATen: those of the edge dialect print their whole schema."""
    return str(getattr(target, "_op", target))
