"""A quantized network in float: every number is rounded as its scheme rounds it, and gradients pass straight through.

It computes what the file will compute (but for the order of sums), can be trained, and each layer's rounding can be
switched off: what recovery, learned rounding, bias correction and sensitivity work on.
"""

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx, nn

from edgegen.quantize.calibration import Batches
from edgegen.quantize.layers import Layer, layers_of, tensor_of
from edgegen.quantize.pt2e import SMALLEST_WEIGHT_SCALE, observed
from edgegen.quantize.schemes import GRIDS, QuantizationGrid
from edgegen.recipe import Quantize

if TYPE_CHECKING:
    from torch.export import ExportedProgram


class Rounding(nn.Module):
    """Rounds the numbers at one place of a captured graph, while it is `active`."""

    def __init__(self) -> None:
        super().__init__()
        self.active = True


class ActivationRounding(Rounding):
    """Affine 8-bit numbers of one static range: scale s, zero point z, from `low` to `high`."""

    scale: Tensor
    zero: Tensor

    def __init__(self, scale: Tensor, zero: Tensor, low: int, high: int) -> None:
        super().__init__()
        self.register_buffer("scale", scale.float().reshape(()))
        self.register_buffer("zero", zero.to(torch.int32).reshape(()))
        self.low, self.high = low, high

    def forward(self, x: Tensor) -> Tensor:
        if not self.active:
            return x
        return torch.fake_quantize_per_tensor_affine(x, self.scale, self.zero, self.low, self.high)


class WeightRounding(Rounding):
    """Symmetric numbers of a grid; the scales follow the weights as they are trained."""

    def __init__(self, grid: QuantizationGrid, layer: Layer) -> None:
        super().__init__()
        self.grid, self.axis, self.inputs = grid, layer.axis, layer.inputs

    def forward(self, weight: Tensor) -> Tensor:
        if not self.active:
            return weight
        scale = self.scale(weight)
        # Straight through (Bengio et al., arXiv:1308.3432): no weight lies outside, so the gradient is 1 everywhere.
        rounded = (weight.detach() / scale).round().clamp(-self.grid.largest, self.grid.largest) * scale
        return weight + (rounded - weight).detach()

    def scale(self, weight: Tensor) -> Tensor:
        """Of every weight, its step: of the weight's shape."""
        size = weight.detach().abs().movedim((self.axis, self.inputs), (0, 1))
        groups = size.reshape(len(size), -1, self.grid.block or size.shape[1], *size.shape[2:])
        largest = groups.amax(list(range(2, groups.ndim)), keepdim=True).expand_as(groups).reshape(size.shape)
        scale: Tensor = (largest / self.grid.largest).clamp_min(SMALLEST_WEIGHT_SCALE)
        return scale.movedim((0, 1), (self.axis, self.inputs))


@dataclass(frozen=True)
class FakeQuantizedNetwork:
    """`module` rounds; `roundings` are those of each layer: of its weights, and of its input and output.

    An output that is only reshaped on its way is rounded once more behind that; it belongs to the layer as well.
    """

    module: fx.GraphModule
    layers: list[Layer]
    roundings: dict[str, list[Rounding]]

    @staticmethod
    def of(module: nn.Module) -> "FakeQuantizedNetwork":
        """`module` is that of another `FakeQuantizedNetwork`, or a copy of it."""
        assert isinstance(module, fx.GraphModule)
        layers = layers_of(module)
        return FakeQuantizedNetwork(module, layers, _by_layer(module, layers))

    def set_active(self, active: bool, layers: set[str] | None = None) -> None:
        """Switch the roundings of some layers (None: of all). What two layers share follows the last call."""
        for name, roundings in self.roundings.items():
            if layers is None or name in layers:
                for rounding in roundings:
                    rounding.active = active


def simulate(program: "ExportedProgram", scheme: str, calibration: Batches, options: Quantize) -> FakeQuantizedNetwork:
    """`program` with the numbers of a scheme of GRIDS rounded, ranges from `calibration`. Raises as `observed` does."""
    grid = GRIDS[scheme]
    prepared = observed(program, scheme, calibration, options)
    layers = layers_of(prepared)
    weighted = {layer.node.args[1]: layer for layer in layers}
    for node in list(prepared.graph.nodes):
        if node.op != "call_module":
            continue
        observer: Any = prepared.get_submodule(str(node.target))
        if node in weighted:
            fits = _fits(grid, weighted[node], tensor_of(prepared, str(node.args[0].target)))
            rounding: nn.Module = WeightRounding(grid, weighted[node]) if fits else nn.Identity()
        else:
            scale, zero = observer.calculate_qparams()
            rounding = ActivationRounding(scale, zero, observer.quant_min, observer.quant_max)
        prepared.set_submodule(str(node.target), rounding)
    _flatten(prepared.graph)
    return FakeQuantizedNetwork.of(
        fx.GraphModule(prepared, prepared.graph)
    )  # without a captured module's refusal of train()


def _flatten(graph: fx.Graph) -> None:
    """Tensors in, one tensor out, in place of the nested containers that a captured program carries about."""
    graph.set_codegen(fx.graph.CodeGen())
    (end,) = (node for node in graph.nodes if node.op == "output")
    ((out,),) = end.args
    end.args = (out,)


def _fits(grid: QuantizationGrid, layer: Layer, weight: Tensor) -> bool:
    return weight.numel() > grid.smallest and (not grid.block or weight.shape[layer.inputs] % grid.block == 0)


def _by_layer(module: fx.GraphModule, layers: list[Layer]) -> dict[str, list[Rounding]]:
    """The roundings next to each layer; one that is next to none belongs to the layers of the rounding before it."""
    rounds: dict[fx.Node, Rounding] = {}
    for node in module.graph.nodes:
        part = module.get_submodule(str(node.target)) if node.op == "call_module" else None
        if isinstance(part, Rounding):
            rounds[node] = part
    nodes = {layer.name: [node for node in _neighbours(layer.node) if node in rounds] for layer in layers}
    for node in rounds:  # in the order in which they run
        if not any(node in neighbours for neighbours in nodes.values()):
            before: Any = node.args[0]
            while before not in rounds and before.all_input_nodes:
                before = before.all_input_nodes[0]
            for neighbours in nodes.values():
                if before in neighbours:
                    neighbours.append(node)
    return {name: [rounds[node] for node in neighbours] for name, neighbours in nodes.items()}


def _neighbours(node: fx.Node) -> list[fx.Node]:
    return [*node.all_input_nodes, *node.users]


def floating(simulated: FakeQuantizedNetwork) -> fx.GraphModule:
    """The network without its roundings, with the weights as they are now (the same tensors)."""
    module = fx.GraphModule(simulated.module, copy.deepcopy(simulated.module.graph))
    for node in list(module.graph.nodes):
        if node.op == "call_module" and isinstance(module.get_submodule(str(node.target)), Rounding):
            node.replace_all_uses_with(node.args[0])
            module.graph.erase_node(node)
    module.delete_all_unused_submodules()
    module.recompile()
    return module
