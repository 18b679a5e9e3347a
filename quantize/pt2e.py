"""w8a8, w8a16 and w8: torchao's PT2E with XNNPACK's quantizer, calibrated on noise; one quantization for every runtime.

The captured program gets its 8-bit weights and ranges before any runtime's lowering, so that ONNX Runtime, ExecuTorch
and Core ML compute the same image, and whatever improves the numbers is written once.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from edgegen.errors import EdgegenError, ExportError
from edgegen.quantize import observers
from edgegen.quantize.calibration import Batches
from edgegen.quantize.layers import Layer, layers_of
from edgegen.quantize.schemes import GRIDS, QuantizationGrid, matching
from edgegen.recipe import Quantize
from edgegen.support.extras import require
from edgegen.support.vendor_logs import EXECUTORCH, quiet

if TYPE_CHECKING:
    from torch import fx
    from torch.export import ExportedProgram

# Of a weight. XNNPACK's quantizer takes 2^-12 here, too: a 3x3 kernel over 192 channels, drawn as PyTorch draws it, has
# weights up to 0.024 and would use 100 of its 127 steps.
SMALLEST_WEIGHT_SCALE = 2**-24


def quantize(program: "ExportedProgram", scheme: str, calibration: Batches, options: Quantize) -> "fx.GraphModule":
    """The program with the numbers of `scheme` ("w8a8", "w8a16", "w8"), float again where a runtime has no kernel.

    Convolutions and dense layers are quantized: with additions and products as well, as the quantizer does when asked
    for everything, the file is no smaller, no faster and 1 to 2 dB worse. Attention's products of two activations stay
    float. `program` stays as it is. For w8 one input is enough: PT2E sees weights only as they are used. Raises
    ExportError where PT2E cannot quantize it, or a range is not finite; UsageError for a pattern without a layer.
    """
    return converted(observed(program, scheme, calibration, options))


def observed(program: "ExportedProgram", scheme: str, calibration: Batches, options: Quantize) -> "fx.GraphModule":
    """The program with an observer at every number that `scheme` rounds, which have seen `calibration`."""
    import torch

    require("executorch", purpose="quantizing to 8 bits")
    batches = [tuple(torch.from_numpy(values) for values in batch.values()) for batch in calibration]
    with _torchao():
        from torchao.quantization.pt2e.quantize_pt2e import prepare_pt2e

        module: Any = program.module(check_guards=False)
        layers = layers_of(module)
        if not layers:
            raise ExportError("nothing to quantize: the network has no convolution and no dense layer")
        floating = matching(options.float_layers, {layer.name for layer in layers})
        float_nodes = {layer.node.name for layer in layers if layer.name in floating}
        quantizer = (_xnnpack if GRIDS[scheme].activation_bits else _weights_only)(
            layers, float_nodes, GRIDS[scheme], options
        )
        prepared: fx.GraphModule = prepare_pt2e(module, quantizer)
        with torch.no_grad():
            for batch in batches:
                prepared(*batch)
        _require_finite(prepared)
    return prepared


def converted(prepared: "fx.GraphModule") -> "fx.GraphModule":
    """What `observed` gave, with its numbers rounded and the observers gone."""
    with _torchao():
        from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e

        quantized: fx.GraphModule = convert_pt2e(prepared)
        _unshare(quantized)
    return quantized


@contextmanager
def _torchao() -> Iterator[None]:
    with quiet(EXECUTORCH):
        try:
            yield
        except EdgegenError:
            raise
        except Exception as e:
            raise ExportError(f"torchao PT2E could not quantize the program: {e}") from e


def _xnnpack(layers: list[Layer], floating: set[str], grid: QuantizationGrid, options: Quantize) -> Any:
    """XNNPACK's quantizer, with our ranges; `floating` are the nodes that stay float."""
    import torch
    from executorch.backends.xnnpack.quantizer import xnnpack_quantizer as xnnpack
    from torchao.quantization.pt2e import PerChannelMinMaxObserver

    config = xnnpack.get_symmetric_quantization_config(
        is_per_channel=True, weight_qmin=-grid.largest, weight_qmax=grid.largest
    )
    numbers = {8: torch.int8, 16: torch.int16}[grid.activation_bits]
    activations = replace(
        config.input_activation,
        dtype=numbers,
        quant_min=torch.iinfo(numbers).min,
        quant_max=torch.iinfo(numbers).max,
        observer_or_fake_quant_ctr=observers.observer(options.ranges, grid.activation_bits),
    )
    each = PerChannelMinMaxObserver.with_args(eps=SMALLEST_WEIGHT_SCALE)
    weights = replace(config.weight, observer_or_fake_quant_ctr=each)
    config = replace(config, input_activation=activations, output_activation=activations, weight=weights)
    quantizer = xnnpack.XNNPACKQuantizer()
    # It excludes layers and lists none: a ReLU after a convolution passes it too, and both are quantized as one.
    quantizer.set_filter_function(lambda node: node.name not in floating)
    for operator in dict.fromkeys(layer.node.target for layer in layers):
        quantizer.set_operator_type(operator, config)
    return quantizer


def _weights_only(layers: list[Layer], floating: set[str], grid: QuantizationGrid, _: Quantize) -> Any:
    """A quantizer for weights alone: XNNPACK's needs the ranges of activations."""
    import torch
    from torchao.quantization.pt2e import PerChannelMinMaxObserver
    from torchao.quantization.pt2e.quantizer import QuantizationAnnotation, QuantizationSpec, Quantizer

    def spec(axis: int) -> Any:
        return QuantizationSpec(
            dtype=torch.int8,
            observer_or_fake_quant_ctr=PerChannelMinMaxObserver.with_args(eps=SMALLEST_WEIGHT_SCALE),
            quant_min=-grid.largest,
            quant_max=grid.largest,
            qscheme=torch.per_channel_symmetric,
            ch_axis=axis,
        )

    axes = {layer.node.name: layer.axis for layer in layers if layer.node.name not in floating}

    class WeightsOnly(Quantizer):  # type: ignore[misc]
        def annotate(self, model: Any) -> Any:
            for node in model.graph.nodes:
                if node.name in axes:
                    input_specs = {node.args[1]: spec(axes[node.name])}
                    node.meta["quantization_annotation"] = QuantizationAnnotation(
                        input_qspec_map=input_specs, _annotated=True
                    )
            return model

        def validate(self, model: Any) -> None:
            pass

    return WeightsOnly()


def _require_finite(prepared: Any) -> None:
    """Raises ExportError where a range that calibration saw is not finite."""
    import torch

    for node in prepared.graph.nodes:
        if node.op != "call_module":
            continue
        observer = prepared.get_submodule(node.target)
        low, high = getattr(observer, "min_val", None), getattr(observer, "max_val", None)
        if low is None or high is None:
            continue
        if not (torch.isfinite(low).all() and torch.isfinite(high).all()):
            source = node.args[0]
            raise ExportError(
                f"calibration saw values that are not finite, or none at all, at {source}: {low.min():g} to "
                f"{high.max():g}; does the network give finite images?"
            )


def _unshare(quantized: Any) -> None:
    """Give each user of a dequantized tensor a dequantization of its own, in place.

    ExecuTorch 1.5.1's partitioner takes an operator and all that is joined to it by a dequantization as one group; a
    skip connection then ties both ends of a residual block, and lowering ends in "found dependency cycles".
    """
    for node in list(quantized.graph.nodes):
        if "dequantize_per_tensor" in str(node.target):
            for user in list(node.users)[1:]:
                with quantized.graph.inserting_after(node):
                    user.replace_input_with(node, quantized.graph.node_copy(node))
    quantized.recompile()
