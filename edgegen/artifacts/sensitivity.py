"""What rounding each layer of a generator costs its images, measured on noise in PyTorch."""

import copy
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgegen.artifacts.build import CANONICAL
from edgegen.exporters.rewrites import apply
from edgegen.program.capture import capture, reference
from edgegen.program.inputs import example_inputs
from edgegen.quantize.calibration import Batches, calibration_batches, enough_samples, fitting_batch
from edgegen.quantize.fake_quant import FakeQuantizedNetwork, simulate
from edgegen.quantize.sensitivity import (
    LayerSensitivity,
    pareto,
    sensitivity,
    worst,
)
from edgegen.recipe import Quantize
from edgegen.support.progress import Progress
from edgegen.support.vendor_logs import EXPORT, quiet
from edgegen.types import Signature
from edgegen.verification.parity import psnr_db, psnr_of, psnr_range

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import nn
    from torch.export import ExportedProgram

JUDGED = 64  # noises of the figures before and after

# Of what each layer costs: they run once for every layer. As many numbers as 64 pictures of 32x32, one channel.
LAYER_NUMBERS, LEAST_JUDGED = 2**16, 8


def sensitivity_rows(costs: Sequence[LayerSensitivity], data_range: float) -> dict[str, Any]:
    """Plain data: each layer with the PSNR when it alone is rounded, and the Pareto set of layers left float."""
    layers = [
        {"name": cost.name, "weights": cost.weights, "psnr_db": psnr_of(cost.mse, data_range=data_range)}
        for cost in costs
    ]
    choices = [
        {
            "nbytes": choice.nbytes,
            "psnr_db": psnr_of(choice.mse, data_range=data_range),
            "float_layers": list(choice.float_layers),
        }
        for choice in (pareto(costs) if costs else ())
    ]
    return {"layers": layers, "pareto": choices}


def canonical(module: "nn.Module", signature: Signature) -> "ExportedProgram":
    """A folded generator's program as it is quantized: what turns into convolutions is one. `module` stays as it is."""
    with quiet(EXPORT):
        own = copy.deepcopy(module)
    graph = capture(own, signature, batch=None).module(check_guards=False)
    return apply(graph, CANONICAL, signature=signature, batch=None, any_size=False)


def calibration(signature: Signature, options: Quantize, seed: int) -> Batches:
    """The noise that `build` would calibrate with."""
    samples = options.samples or enough_samples(signature)
    return calibration_batches(signature, samples=samples, seed=seed, batch=fitting_batch(signature))


class FloatImages:
    """A float generator's pictures, and how near others come."""

    def __init__(self, module: "nn.Module", signature: Signature, seed: int, noises: int = JUDGED) -> None:
        self.inputs = example_inputs(signature, noises, seed)
        self.expected = reference(module, self.inputs)
        self.data_range = psnr_range(signature, self.expected)

    def pictures(self, simulated: FakeQuantizedNetwork) -> "NDArray[np.float32]":
        return reference(simulated.module, self.inputs)

    @staticmethod
    def of_layers(module: "nn.Module", signature: Signature, seed: int) -> "FloatImages":
        numbers = math.prod(size for size in signature.outputs[0].shape if isinstance(size, int))
        return FloatImages(module, signature, seed, min(JUDGED, max(LEAST_JUDGED, LAYER_NUMBERS // numbers)))

    def mse(self, simulated: FakeQuantizedNetwork) -> float:
        return self.data_range**2 / 10 ** (self.psnr_db(simulated) / 10)

    def psnr_db(self, simulated: FakeQuantizedNetwork) -> float:
        return psnr_db(self.expected, self.pictures(simulated), data_range=self.data_range)


def layer_sensitivities(
    simulated: FakeQuantizedNetwork,
    judge: FloatImages,
    progress: Progress,
    fd_local: "Callable[[NDArray[np.float32]], float] | None" = None,
) -> list[LayerSensitivity]:
    with progress.task("sensitivity", len(simulated.layers)) as task:
        return sensitivity(simulated, judge.pictures, fd_local=fd_local, tell=task.update)


def worst_layers(
    module: "nn.Module", signature: Signature, scheme: str, *, options: Quantize, seed: int, progress: Progress
) -> str:
    """The layers of a folded one-step `module` whose rounding moves its pictures most, with their shares, in words."""
    simulated = simulate(canonical(module, signature), scheme, calibration(signature, options, seed), options)
    return worst(layer_sensitivities(simulated, FloatImages.of_layers(module, signature, seed), progress))


def sensitivity_of(
    module: "nn.Module",
    signature: Signature,
    scheme: str,
    *,
    options: Quantize,
    seed: int,
    fd_local: "Callable[[NDArray[np.float32]], float] | None" = None,
    noises: int | None = None,
    progress: Progress,
) -> dict[str, Any]:
    """What rounding each layer of a folded one-step `module` alone costs, and the Pareto set: `sensitivity_rows`.

    With `fd_local` of `noises` pictures also how much of it each layer adds, as a share of the float generator's.
    """
    judge = (
        FloatImages.of_layers(module, signature, seed)
        if noises is None
        else FloatImages(module, signature, seed, noises)
    )
    simulated = simulate(canonical(module, signature), scheme, calibration(signature, options, seed), options)
    costs = layer_sensitivities(simulated, judge, progress, fd_local)
    found = sensitivity_rows(costs, judge.data_range)
    if fd_local is not None:
        floats = fd_local(judge.expected)
        found["fd_local"] = floats
        for row, cost in zip(found["layers"], costs, strict=True):
            assert cost.fd_local is not None, "judged"
            row["fd_change"] = cost.fd_local / floats - 1
    return found
