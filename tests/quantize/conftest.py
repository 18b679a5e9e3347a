"""One tiny generator with every kind of weight that the schemes touch: kernels, a class table, attention."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from edgegen.models.edge_unet import EdgeUNet, EdgeUNetConfig
from edgegen.models.zero_layers import randomize_zero_layers
from edgegen.program.capture import reference
from edgegen.program.fold import fold
from edgegen.program.inputs import example_inputs
from edgegen.program.one_step import OneStep
from edgegen.types import Signature


@dataclass(frozen=True)
class Tiny:
    module: torch.nn.Module
    signature: Signature
    inputs: dict[str, NDArray[Any]]
    expected: NDArray[np.float32]


@pytest.fixture(scope="session")
def tiny() -> Tiny:
    torch.manual_seed(0)
    net = EdgeUNet(EdgeUNetConfig(8, 1, (32,), 1, (0,), 4))
    randomize_zero_layers(net, 1)
    signature = Signature.of(channels=1, size=8, num_classes=4)
    module = fold(OneStep(net, time=1.0), signature).module
    inputs = example_inputs(signature, 12, 7)
    return Tiny(module, signature, inputs, reference(module, inputs))
