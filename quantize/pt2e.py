"""w8a8 and w8: torchao's PT2E with XNNPACK's quantizer, calibrated on noise; one quantization for every runtime.

The captured program gets its 8-bit weights and ranges before any runtime's lowering, so that ONNX Runtime, ExecuTorch
and Core ML compute the same picture, and whatever improves the numbers is written once.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from edgegen.errors import ExportError
from edgegen.extras import require
from edgegen.quantize.calibrate import Batches
from edgegen.quiet import EXECUTORCH, quiet

if TYPE_CHECKING:
    from torch import nn
    from torch.export import ExportedProgram

SMALLEST_SCALE = 2**-12  # of an activation: what XNNPACK's quantizer sets for its observers
# Of a weight. XNNPACK's quantizer takes 2^-12 here, too: a 3x3 kernel over 192 channels, drawn as PyTorch draws it, has
# weights up to 0.024 and would use 100 of its 127 steps.
SMALLEST_WEIGHT_SCALE = 2**-24


def quantize_8_bits(program: "ExportedProgram", calibration: Batches) -> "nn.Module":
    """The program with int8 weights per channel (symmetric) and int8 activations per tensor, static ranges.

    Convolutions and dense layers are quantized: with additions and products as well, as the quantizer does when asked
    for everything, the file is no smaller, no faster and 1 to 2 dB worse. Attention's products of two activations stay
    float. `program` stays as it is. Raises ExportError where PT2E cannot quantize it, or a range is not finite.
    """
    return _quantize(program, calibration, lambda: _quantizer(127))


def quantize_7_bits(program: "ExportedProgram", calibration: Batches) -> "nn.Module":
    """As `quantize_8_bits`, with weights of at most +-64.

    x86 cores without VNNI add two uint8 x int8 products in 16 bits, which overflow with full weights and cannot with
    halved ones (2 x 255 x 64 < 2^15). It costs 0.3 to 0.8 dB and makes an ONNX file compute the same on every core.
    """
    return _quantize(program, calibration, lambda: _quantizer(64))


def quantize_weights(program: "ExportedProgram", calibration: Batches) -> "nn.Module":
    """As `quantize_8_bits`, the weights alone: they become float again as the file runs.

    `calibration` is one input: PT2E sees weights only as they are used.
    """
    return _quantize(program, calibration, _weights_only)


def _quantize(program: "ExportedProgram", calibration: Batches, quantizer: Callable[[], Any]) -> "nn.Module":
    import torch

    require("executorch", purpose="quantizing to 8 bits")
    batches = [tuple(torch.from_numpy(values) for values in batch.values()) for batch in calibration]
    with quiet(EXECUTORCH):
        try:
            from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

            observed = prepare_pt2e(program.module(check_guards=False), quantizer())
            with torch.no_grad():
                for batch in batches:
                    observed(*batch)
            _require_finite(observed)
            quantized: torch.fx.GraphModule = convert_pt2e(observed)
            if not any("dequantize_per_channel" in str(node.target) for node in quantized.graph.nodes):
                raise ExportError("nothing to quantize: the network has no convolution and no dense layer")
            _unshare(quantized)
        except ExportError:
            raise
        except Exception as e:
            raise ExportError(f"torchao PT2E could not quantize the program: {e}") from e
    return quantized


def _layers() -> dict[Any, int]:
    """The operators that carry weights, and the axis of the weights that is the output's channels."""
    import torch

    aten = torch.ops.aten
    transposed = (aten.conv_transpose1d.default, aten.conv_transpose2d.input)
    return dict.fromkeys((aten.conv1d.default, aten.conv2d.default, aten.linear.default), 0) | dict.fromkeys(
        transposed, 1
    )


def _quantizer(largest_weight: int) -> Any:
    """XNNPACK's, with ranges that hold all that calibration saw."""
    from executorch.backends.xnnpack.quantizer import xnnpack_quantizer as xnnpack
    from torchao.quantization.pt2e import MinMaxObserver, PerChannelMinMaxObserver

    config = xnnpack.get_symmetric_quantization_config(
        is_per_channel=True, weight_qmin=-largest_weight, weight_qmax=largest_weight
    )
    # XNNPACK's own choice, a histogram, cuts the tails of the noise: with 1024 samples it left single pixels wrong by a
    # quarter of the image's range, minimum and maximum by less than a tenth.
    observer = MinMaxObserver.with_args(eps=SMALLEST_SCALE)
    ranges = replace(config.input_activation, observer_or_fake_quant_ctr=observer)
    each = PerChannelMinMaxObserver.with_args(eps=SMALLEST_WEIGHT_SCALE)
    weights = replace(config.weight, observer_or_fake_quant_ctr=each)
    config = replace(config, input_activation=ranges, output_activation=ranges, weight=weights)
    quantizer = xnnpack.XNNPACKQuantizer()
    for operator in _layers():
        quantizer.set_operator_type(operator, config)
    return quantizer


def _weights_only() -> Any:
    """XNNPACK's quantizer asks for ranges; this one has none."""
    import torch
    from torchao.quantization.pt2e import PerChannelMinMaxObserver
    from torchao.quantization.pt2e.quantizer import QuantizationAnnotation, QuantizationSpec, Quantizer

    def spec(axis: int) -> Any:
        return QuantizationSpec(
            dtype=torch.int8,
            observer_or_fake_quant_ctr=PerChannelMinMaxObserver.with_args(eps=SMALLEST_WEIGHT_SCALE),
            quant_min=-127,
            quant_max=127,
            qscheme=torch.per_channel_symmetric,
            ch_axis=axis,
        )

    layers = _layers()

    class WeightsOnly(Quantizer):  # type: ignore[misc]
        def annotate(self, model: Any) -> Any:
            for node in model.graph.nodes:
                if node.target in layers:
                    weights = {node.args[1]: spec(layers[node.target])}
                    wanted = QuantizationAnnotation(input_qspec_map=weights, _annotated=True)
                    node.meta["quantization_annotation"] = wanted
            return model

        def validate(self, model: Any) -> None:
            pass

    return WeightsOnly()


def _require_finite(observed: Any) -> None:
    """Raises ExportError where a range that calibration saw is not finite."""
    import torch

    for node in observed.graph.nodes:
        if node.op != "call_module":
            continue
        observer = observed.get_submodule(node.target)
        low, high = getattr(observer, "min_val", None), getattr(observer, "max_val", None)
        if low is None or high is None:
            continue
        if not (torch.isfinite(low).all() and torch.isfinite(high).all()):
            of = node.args[0]
            raise ExportError(
                f"calibration saw values that are not finite, or none at all, at {of}: {low.min():g} to "
                f"{high.max():g}; does the network give finite pictures?"
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
