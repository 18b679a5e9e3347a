"""The tiny generators that every backend must carry: class-conditional, with attention, unconditional."""

import getpass
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from edgegen.capture import OneStep, example_inputs, randomize_zero_layers, reference
from edgegen.folding import fold
from edgegen.models.edge_unet import EdgeUNet, EdgeUNetConfig
from edgegen.types import Signature

SAMPLES = 12
# Wide enough that the weights dominate the file, few blocks so that lowering takes seconds.
CONFIGS = {
    "conditional": EdgeUNetConfig(8, 1, (32, 64), 1, (), 10),
    "attention": EdgeUNetConfig(8, 3, (64,), 1, (0,), 4),
    "unconditional": EdgeUNetConfig(8, 1, (64,), 1, (), 0),
}


@dataclass(frozen=True)
class Tiny:
    """A folded one-step generator, inputs for it (portable noise) and what PyTorch makes of them."""

    name: str
    module: torch.nn.Module
    signature: Signature
    inputs: dict[str, NDArray[Any]]
    expected: NDArray[np.float32]


def make(name: str) -> Tiny:
    torch.manual_seed(0)
    config = CONFIGS[name]
    net = EdgeUNet(config)
    randomize_zero_layers(net, 1)
    signature = Signature.of(channels=config.in_channels, size=config.sample_size, num_classes=config.num_classes)
    module = fold(OneStep(net, time=1.0), signature).module
    inputs = example_inputs(signature, SAMPLES, 7)
    return Tiny(name, module, signature, inputs, reference(module, inputs))


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def quickly(in_process: None) -> None:
    """No child processes here: tests/test_child.py and tests/test_build.py have them."""


@pytest.fixture(scope="session")
def tiny() -> Tiny:
    """The class-conditional generator, for tests that need only one."""
    return make("conditional")


@pytest.fixture(scope="session", params=sorted(CONFIGS))
def each_tiny(request: pytest.FixtureRequest) -> Tiny:
    """Each of the tiny generators in turn."""
    return make(request.param)


@pytest.fixture(scope="session")
def traces() -> Callable[[bytes], list[str]]:
    """What in an artifact's bytes tells of the machine that built it."""
    folders = {str(Path.cwd()), str(Path.home()), tempfile.gettempdir(), str(Path(torch.__file__).parent), sys.prefix}
    clues = {*folders, "site-packages", ".py", getpass.getuser() + "@"}
    return lambda content: sorted(clue for clue in clues if clue.encode() in content)
