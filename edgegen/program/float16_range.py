"""What of a program float16 cannot hold: measured in float32, operation by operation, and noted at its nodes.

float16 ends at 65504. An operation whose result or input goes beyond it gives infinity, and what is made of that need
not look like it: 1/inf is 0, and a norm of infinite variance gives zeros. A backend leaves the noted operations in
float32, so that no such number is ever cut off on its way. Notes are kept by files and decompositions, as those of
edgegen.program.module_paths are.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, fx
from torch.export import ExportedProgram

from edgegen.program.module_paths import block_of

LARGEST = 65504.0  # in float16
# A value counts as too large from half of that on: inputs in the field go beyond those that were measured.
MARGIN = 2.0
SAMPLES, FEW_SAMPLES = 16, 2  # to choose what stays float32, and to warn
SHOWN = 3  # layers in a message
MASK = 1e8  # from here on it is what masks are filled with; files of float16 have a smaller number there
KEY = "float32"
NAME_END = ":float32"  # of the nodes of an ONNX file, where a program's notes are gone

Samples = Sequence[Mapping[str, NDArray[Any]]]


def note_large(program: ExportedProgram, samples: Samples) -> list[str]:
    """Notes the nodes of `program` that must stay float32, in place; returns their layers in order.

    These are the nodes whose largest value over the samples, or that of an input, times MARGIN is beyond float16.
    """
    largest = largest_values(program.module(check_guards=False), samples)
    by_name = {node.name: node for node in program.graph.nodes}
    layers: dict[str, None] = {}
    for name, value in largest.items():
        if value * MARGIN <= LARGEST or name not in by_name:
            continue
        for node in (by_name[name], *by_name[name].users):
            if node.op == "call_function":
                node.meta["custom"] = {**(node.meta.get("custom") or {}), KEY: True}
                layers.setdefault(_layer(node))
    return list(layers)


def stays_float32(node: fx.Node) -> bool:
    """Whether `note_large` noted the node."""
    return bool((node.meta.get("custom") or {}).get(KEY))


def overflow(graph: fx.GraphModule, samples: Samples) -> str:
    """In words, the layers whose values float16 does not hold, with the largest; "" where there is none."""
    nodes = {node.name: node for node in graph.graph.nodes}
    layers: dict[str, float] = {}
    for name, value in largest_values(graph, samples).items():
        if value > LARGEST:
            layer = _layer(nodes[name])
            layers[layer] = max(value, layers.get(layer, 0.0))
    if not layers:
        return ""
    blocks = {block_of(node) for node in graph.graph.nodes}
    named = {layer: value for layer, value in layers.items() if layer in blocks}  # others are operations between layers
    layers = named or layers
    listed = [f"{layer} reaches {value:,.0f}" for layer, value in list(layers.items())[:SHOWN]]
    further = f", and {len(layers) - SHOWN} more layers" if len(layers) > SHOWN else ""
    return f"in float32 {', '.join(listed)}{further}; float16 ends at {LARGEST:,.0f}"


def largest_values(graph: fx.GraphModule, samples: Samples) -> dict[str, float]:
    """By the name of a node, in the order in which they run, the largest absolute value that it computes.

    Inside a norm that is the largest square of a distance from the mean. `samples` are inputs by name (n, ...), each
    sample of which is run alone.
    """
    recorder = _Recorder(graph)
    with torch.no_grad():
        for batch in samples:
            for row in range(len(next(iter(batch.values())))):
                recorder.run(*(torch.from_numpy(values[row : row + 1]) for values in batch.values()))
    return recorder.largest


class _Recorder(fx.Interpreter):
    def __init__(self, graph: fx.GraphModule) -> None:
        super().__init__(graph)
        self.largest: dict[str, float] = {}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if n.op == "call_function":
            arguments, _ = self.fetch_args_kwargs_from_env(n)
            values = [result, _squares(n, arguments)]
            floats = [value for value in values if isinstance(value, Tensor) and value.is_floating_point()]
            self.largest[n.name] = max([self.largest.get(n.name, 0.0), *map(_largest, floats)])
        return result


def _largest(value: Tensor) -> float:
    magnitudes = value.abs()
    magnitudes = magnitudes[magnitudes < MASK]
    return float(magnitudes.max()) if magnitudes.numel() else 0.0


def _squares(node: fx.Node, arguments: Any) -> Tensor | None:
    """What a norm by groups or a variance computes on its way, and no other node shows."""
    name = str(node.target)
    if not name.startswith("aten."):
        return None
    x: Tensor = arguments[0]
    if "group_norm" in name or "instance_norm" in name:
        groups = x.shape[1]
        if "group_norm" in name:
            groups = arguments[6 if "native" in name else 1]
        x = x.reshape(x.shape[0], groups, -1)
        return (x - x.mean(-1, keepdim=True)).square()
    if name.startswith(("aten.var", "aten.std")):
        return (x - x.mean()).square()
    return None


def _layer(node: fx.Node) -> str:
    return block_of(node) or node.name
