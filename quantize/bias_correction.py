"""Bias correction: the mean error that rounding leaves in a channel is subtracted from its bias.

M. Nagel and others, "Data-free quantization through weight equalization and bias correction", arXiv:1906.04721, section
4.2; the means are over calibration's noise (their appendix D), layer after layer, so that each takes account of those
before it.
"""

import torch
from torch import Tensor, fx

from edgegen.quantize.fake_quant import FakeQuantizedNetwork
from edgegen.quantize.layerwise import LayerOnBatch, walk


def correct_biases(exact: fx.GraphModule, simulated: FakeQuantizedNetwork, batch: tuple[Tensor, ...]) -> int:
    """b <- b + E[y] - E[y of the rounded network] of each channel, in place; how many layers had a bias to correct.

    `exact` is the float network, see `walk`.
    """
    corrected = 0

    def visit(current: LayerOnBatch) -> None:
        nonlocal corrected
        if current.bias is None:
            return
        weights = current.weights if current.rounding is None else current.rounding(current.weights)
        error = current.exact - current.run(weights)
        channel = error.ndim - 1 if current.layer.node.target is torch.ops.aten.linear.default else 1
        current.bias.add_(error.mean([axis for axis in range(error.ndim) if axis != channel]))
        corrected += 1

    walk(exact, simulated, batch, visit)
    return corrected
