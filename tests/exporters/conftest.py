"""The tiny generator that tests of every backend share."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from edgegen.models.edge_unet import EdgeUNet, EdgeUNetConfig
from edgegen.models.generator import signature_of
from edgegen.models.zero_layers import randomize_zero_layers
from edgegen.program.capture import reference
from edgegen.program.fold import fold
from edgegen.program.inputs import example_inputs
from edgegen.program.one_step import OneStep
from edgegen.types import Signature

SAMPLES = 12
# Wide enough that the weights dominate the file, few blocks so that lowering takes seconds.
CONFIG = EdgeUNetConfig(8, 1, (32, 64), 1, (), 10)


@dataclass(frozen=True)
class Tiny:
    """A folded one-step generator, inputs for it (portable noise) and what PyTorch makes of them."""

    module: torch.nn.Module
    signature: Signature
    inputs: dict[str, NDArray[Any]]
    expected: NDArray[np.float32]


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def quickly(in_process: None) -> None:
    """No child processes here: tests/support/test_isolation.py and tests/artifacts/test_build.py have them."""


@pytest.fixture(scope="session")
def tiny() -> Tiny:
    """A class-conditional U-Net of one picture channel."""
    torch.manual_seed(0)
    net = EdgeUNet(CONFIG)
    randomize_zero_layers(net, 1)
    signature = signature_of(CONFIG)
    module = fold(OneStep(net, time=1.0), signature).module
    inputs = example_inputs(signature, SAMPLES, 7)
    return Tiny(module, signature, inputs, reference(module, inputs))
