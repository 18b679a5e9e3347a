"""ExecuTorch w8a8: torchao's PT2E with XNNPACK's quantizer, calibrated on noise."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from edgegen.errors import ExportError
from edgegen.extras import require
from edgegen.quantize.calibrate import Batches
from edgegen.quiet import EXECUTORCH, quiet

if TYPE_CHECKING:
    from torch.export import ExportedProgram

SMALLEST_SCALE = 2**-12  # what XNNPACK's quantizer sets for its observers


def quantize_w8a8(program: "ExportedProgram", calibration: Batches) -> "ExportedProgram":
    """A new program with int8 weights per channel (symmetric) and int8 activations per tensor, static ranges.

    Only convolutions and linear layers are quantized: with additions and products as well, as the quantizer does when
    asked for everything, the file is no smaller, no faster and 1 to 2 dB worse. `calibration` batches have the
    program's static batch. Raises ExportError where PT2E cannot quantize it.
    """
    import torch

    require("executorch", purpose="quantizing for ExecuTorch")
    batches = [tuple(torch.from_numpy(values) for values in batch.values()) for batch in calibration]
    wanted = [tuple(value.shape) for value in program.example_inputs[0]]
    for batch in batches:
        found = [tuple(value.shape) for value in batch]
        if found != wanted:
            raise ExportError(f"calibration gives inputs of shape {found}, the program takes {wanted}")
    with quiet(EXECUTORCH):
        try:
            from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

            observed = prepare_pt2e(program.module(), _quantizer())
            with torch.no_grad():
                for batch in batches:
                    observed(*batch)
            quantized = convert_pt2e(observed)
            _unshare(quantized)
            return torch.export.export(quantized, batches[0])
        except Exception as e:
            raise ExportError(f"torchao PT2E could not quantize the program: {e}") from e


def _quantizer() -> Any:
    import torch
    from executorch.backends.xnnpack.quantizer import xnnpack_quantizer as xnnpack
    from torchao.quantization.pt2e import MinMaxObserver

    config = xnnpack.get_symmetric_quantization_config(is_per_channel=True)
    # XNNPACK's own choice, a histogram, cuts the tails of the noise: with 1024 samples it left single pixels wrong by a
    # quarter of the image's range, minimum and maximum by less than a tenth.
    observer = MinMaxObserver.with_args(eps=SMALLEST_SCALE)
    activations = replace(config.input_activation, observer_or_fake_quant_ctr=observer)
    config = replace(config, input_activation=activations, output_activation=activations)
    quantizer = xnnpack.XNNPACKQuantizer()
    for operator in (torch.ops.aten.conv2d.default, torch.ops.aten.linear.default):
        quantizer.set_operator_type(operator, config)
    return quantizer


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
