"""ExecuTorch w8a8: torchao's PT2E with XNNPACK's quantizer, calibrated on noise."""

from typing import TYPE_CHECKING

from edgegen.errors import ExportError
from edgegen.extras import require
from edgegen.quantize.calibrate import Batches
from edgegen.quiet import EXECUTORCH, quiet

if TYPE_CHECKING:
    from torch.export import ExportedProgram


def quantize_w8a8(program: "ExportedProgram", calibration: Batches) -> "ExportedProgram":
    """A new program with int8 weights per channel (symmetric) and int8 activations per tensor, static ranges.

    `calibration` batches have the program's static batch. Raises ExportError where PT2E cannot quantize it.
    """
    import torch

    require("executorch", purpose="quantizing for ExecuTorch")
    batches = [tuple(torch.from_numpy(values) for values in batch.values()) for batch in calibration]
    with quiet(EXECUTORCH):
        try:
            from executorch.backends.xnnpack.quantizer import xnnpack_quantizer as xnnpack
            from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

            quantizer = xnnpack.XNNPACKQuantizer()
            quantizer.set_global(xnnpack.get_symmetric_quantization_config(is_per_channel=True))
            observed = prepare_pt2e(program.module(), quantizer)
            with torch.no_grad():
                for batch in batches:
                    observed(*batch)
            return torch.export.export(convert_pt2e(observed), batches[0])
        except Exception as e:
            raise ExportError(f"torchao PT2E could not quantize the program: {e}") from e
