"""How long learned rounding and recovery will take here, from one timed run of the network: before they start."""

import time

import torch

from edgegen.program.generator import Generator
from edgegen.quantize.adaround import ITERATIONS, SAMPLES
from edgegen.quantize.layers import layers_of
from edgegen.recipe import Quantize, Recover

TRIED = 4  # samples of the timed run
TRAINING = 3.0  # a step forwards and backwards, as a multiple of a run
RECOVERY = 6.0  # a step of the rounded network, which also runs the float one
STEP_S = 2e-3  # what an optimiser's step costs beside: a small layer is all overhead


def refinement_seconds(generator: Generator, quantize: Quantize, recover: Recover | None, *, schemes: int) -> float:
    """Seconds of refining a generator for that many schemes; 0 where no method takes long."""
    rounds = "rounding" in quantize.methods
    if not schemes or not (rounds or recover):
        return 0.0
    folded = generator.folded().module
    inputs = generator.inputs(0).examples(TRIED)
    arguments = [torch.from_numpy(inputs[spec.name]) for spec in generator.signature.inputs]
    samples = len(arguments[0])
    with torch.no_grad():
        folded(*arguments)  # the first run sets things up
        before = time.monotonic()
        folded(*arguments)
        sample_s = (time.monotonic() - before) / samples
    seconds = 0.0
    if rounds:
        layers = len(layers_of(folded))
        seconds += ITERATIONS * (TRAINING * SAMPLES * sample_s + layers * STEP_S)
    if recover is not None:
        seconds += recover.steps * (RECOVERY * recover.batch * sample_s + 10 * STEP_S)
    return schemes * seconds
