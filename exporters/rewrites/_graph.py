"""Helpers of the rewrites of captured graphs: read constants, store new ones, replace a call."""

import operator
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Convolution:
    """A 2D convolution of `x` (batch, inputs, height, width), all of known size, by a stored `weight`; not transposed.

    `bias` is a node or None; `name` is that of the weight, for those that are made of it.
    """

    x: fx.Node
    sizes: tuple[int, int, int, int]
    weight: Tensor
    bias: Any
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int
    name: str

    @property
    def is_dense(self) -> bool:
        """Whether every output reads every input, and neighbouring pixels: no stride, dilation or groups."""
        return (self.stride, self.dilation, self.groups) == ((1, 1), (1, 1), 1)

    @property
    def result_size(self) -> tuple[int, int]:
        """Height and width of what it gives; for dense ones."""
        height, width = (
            size + 2 * padding - taps + 1
            for size, padding, taps in zip(self.sizes[2:], self.padding, self.weight.shape[2:], strict=True)
        )
        return height, width


CONVOLUTION_DEFAULTS = (None, [1, 1], [0, 0], [1, 1], 1)  # of aten.conv2d's arguments from the bias on


def convolution(module: fx.GraphModule, node: fx.Node) -> Convolution | None:
    """The parts of a call of aten.conv2d, None where a size is symbolic, the weight is computed or padding a word."""
    if node.kwargs or not is_call(node, ATEN.conv2d.default):
        return None
    arguments: Any = (*node.args, *CONVOLUTION_DEFAULTS[len(node.args) - 2 :])
    x, kernel, bias, stride, padding, dilation, groups = arguments
    weight, sizes = constant(module, kernel), shape(x)
    if (
        weight is None
        or isinstance(padding, str)
        or sizes is None
        or len(sizes) != 4
        or not all(isinstance(size, int) for size in sizes)
    ):
        return None
    return Convolution(
        x,
        (sizes[0], sizes[1], sizes[2], sizes[3]),
        weight,
        bias,
        stride=_pair(stride),
        padding=_pair(padding),
        dilation=_pair(dilation),
        groups=groups,
        name=str(kernel.target),
    )


@dataclass(frozen=True)
class Border:
    """`x` with (left, right, top, bottom) pixels around it: `mode` is "reflect" or "replicate"."""

    x: fx.Node
    padding: tuple[int, int, int, int]
    mode: str


def border(node: Any) -> Border | None:
    """The parts of a padding of an image by its own pixels, None for another operator or another padding."""
    if is_call(node, ATEN.pad.default) and not node.kwargs and len(node.args) in (3, 4):
        x, padding, mode = node.args[:3]
    elif is_call(node, ATEN.reflection_pad2d.default, ATEN.replication_pad2d.default):
        x, padding = node.args
        mode = "reflect" if node.target is ATEN.reflection_pad2d.default else "replicate"
    else:
        return None
    sizes = shape(x)
    if mode not in ("reflect", "replicate") or sizes is None or len(sizes) != 4 or len(padding) != 4:
        return None
    if not all(isinstance(number, int) and number >= 0 for number in (*sizes, *padding)):
        return None
    return Border(x, (padding[0], padding[1], padding[2], padding[3]), mode)


def _pair(value: Any) -> tuple[int, int]:
    numbers = tuple(value) if isinstance(value, (list, tuple)) else (value,)
    return (numbers * 2)[:2]


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
