"""Bias correction: the mean error that rounding leaves in a channel is taken off its bias.

M. Nagel and others, "Data-free quantization through weight equalization and bias correction", arXiv:1906.04721, section
4.2; the means are over calibration's noise (their appendix D), layer after layer, so that each sees those before it.
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

    def visit(one: LayerOnBatch) -> None:
        nonlocal corrected
        if one.bias is None:
            return
        weights = one.weights if one.rounding is None else one.rounding(one.weights)
        error = one.exact - one.run(weights)
        channel = error.ndim - 1 if one.layer.node.target is torch.ops.aten.linear.default else 1
        one.bias.add_(error.mean([axis for axis in range(error.ndim) if axis != channel]))
        corrected += 1

    walk(exact, simulated, batch, visit)
    return corrected
