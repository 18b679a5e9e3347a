"""Helpers of the rewrites of captured graphs: read constants, store new ones, replace a call."""

import operator
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx, nn

ATEN = torch.ops.aten


def calls(module: fx.GraphModule, *targets: Callable[..., Any]) -> list[Any]:
    """The calls of `targets`, in order; a list, so that the graph may change meanwhile.

    They are fx.Nodes, given as Any: their arguments are typed as a union of everything.
    """
    return [node for node in module.graph.nodes if node.op == "call_function" and node.target in targets]


def is_call(node: Any, *targets: Callable[..., Any]) -> bool:
    return isinstance(node, fx.Node) and node.op == "call_function" and node.target in targets


def shape(node: Any) -> tuple[Any, ...] | None:
    """The sizes of a node's value (SymInt where symbolic), None where they are not known."""
    value = node.meta.get("val") if isinstance(node, fx.Node) else None
    return tuple(value.shape) if isinstance(value, Tensor) else None


def constant(module: fx.GraphModule, node: Any) -> Tensor | None:
    """The weight that `node` reads, None where it is no weight."""
    if not isinstance(node, fx.Node) or node.op != "get_attr":
        return None
    value = operator.attrgetter(str(node.target))(module)
    return value if isinstance(value, Tensor) else None


def store(module: fx.GraphModule, name: str, value: Tensor, *, before: fx.Node) -> fx.Node:
    """A node that reads `value`, kept in `module` as a parameter of that name (or one like it)."""
    unique, count = name, 0
    while hasattr(module, unique):
        unique, count = f"{name}_{count}", count + 1
    value = value.detach().contiguous()
    module.register_parameter(unique, nn.Parameter(value, requires_grad=False))
    with module.graph.inserting_before(before):
        node = module.graph.get_attr(unique)
    node.meta["val"] = value
    return node


@contextmanager
def in_place_of(module: fx.GraphModule, node: fx.Node) -> Iterator[None]:
    """Calls made inside go before `node`, and belong to its block of the network."""
    before = set(module.graph.nodes)
    with module.graph.inserting_before(node):
        yield
    for new in module.graph.nodes:
        if new not in before and "custom" in node.meta:
            new.meta.setdefault("custom", node.meta["custom"])


def replace(module: fx.GraphModule, node: fx.Node, target: Callable[..., Any], *arguments: Any) -> fx.Node:
    """Replace `node` by the call target(*arguments); nodes that only `node` read become dead code."""
    with module.graph.inserting_before(node):
        new = module.graph.call_function(target, arguments)
    new.meta.update(node.meta)
    node.replace_all_uses_with(new)
    module.graph.erase_node(node)
    return new


def finish(module: fx.GraphModule) -> None:
    """Remove dead code, and generate the graph's code again."""
    module.graph.eliminate_dead_code()
    module.graph.lint()
    module.recompile()
