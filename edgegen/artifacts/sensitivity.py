"""The error that rounding each layer of a generator causes in its images, measured on its inputs in PyTorch."""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgegen.artifacts.build import BuildInput
from edgegen.artifacts.lower import CANONICAL
from edgegen.exporters.rewrites import apply
from edgegen.program.capture import reference
from edgegen.program.generator import Generator, SavedProgram, load_graph
from edgegen.program.inputs import InputSource
from edgegen.quantize.calibration import calibration_batches
from edgegen.quantize.fake_quant import FakeQuantizedNetwork, simulate
from edgegen.quantize.sensitivity import (
    LayerSensitivity,
    pareto,
    sensitivity,
    worst,
)
from edgegen.recipe import Quantize
from edgegen.support.progress import Progress
from edgegen.types import Signature
from edgegen.verification.parity import psnr_db, psnr_of, psnr_range

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import nn
    from torch.export import ExportedProgram

IMAGES = 64  # of the figures before and after

# Of the figures of each layer, where all images are made once for every layer: 64 of 32x32 pixels, one channel.
LAYER_NUMBERS, LEAST_IMAGES = 2**16, 8


def sensitivity_rows(costs: Sequence[LayerSensitivity], data_range: float) -> dict[str, Any]:
    """Plain data: each layer with the PSNR when only it is rounded, and the Pareto set of layers left float."""
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


def canonical(saved: SavedProgram, signature: Signature) -> "ExportedProgram":
    """A generator's program as `build` quantizes it: whatever becomes a convolution is one."""
    return apply(load_graph(saved, signature), CANONICAL, signature=signature, batch=None)


class FloatImages:
    """A float generator's images, and the distance of a simulated file's images to them."""

    def __init__(self, module: "nn.Module", source: InputSource, count: int = IMAGES) -> None:
        self.inputs = source.examples(count)
        self.expected = reference(module, self.inputs)
        self.data_range = psnr_range(source.signature, self.expected)

    def images(self, simulated: FakeQuantizedNetwork) -> "NDArray[np.float32]":
        return reference(simulated.module, self.inputs)

    @staticmethod
    def of_layers(module: "nn.Module", source: InputSource) -> "FloatImages":
        """As many images as the figures of each layer take."""
        numbers = math.prod(size for size in source.signature.outputs[0].shape if isinstance(size, int))
        return FloatImages(module, source, min(IMAGES, max(LEAST_IMAGES, LAYER_NUMBERS // numbers)))

    def mse(self, simulated: FakeQuantizedNetwork) -> float:
        return self.data_range**2 / 10 ** (self.psnr_db(simulated) / 10)

    def psnr_db(self, simulated: FakeQuantizedNetwork) -> float:
        return psnr_db(self.expected, self.images(simulated), data_range=self.data_range)


def layer_sensitivities(
    simulated: FakeQuantizedNetwork,
    float_images: FloatImages,
    progress: Progress,
    fd_local: "Callable[[NDArray[np.float32]], float] | None" = None,
) -> list[LayerSensitivity]:
    with progress.task("sensitivity", len(simulated.layers)) as task:
        return sensitivity(simulated, float_images.images, fd_local=fd_local, update=task.update)


def worst_layers(build_input: BuildInput, source: InputSource, scheme: str, *, progress: Progress) -> str:
    """The layers whose rounding changes the images most, with their shares, in words."""
    options, program = build_input.quantization, canonical(build_input.program, source.signature)
    simulated = simulate(program, scheme, calibration_batches(source, samples=options.samples), options)
    return worst(layer_sensitivities(simulated, FloatImages.of_layers(build_input.module, source), progress))


def sensitivity_of(
    generator: Generator,
    scheme: str,
    *,
    options: Quantize,
    seed: int,
    fd_local: "Callable[[NDArray[np.float32]], float] | None" = None,
    images: int | None = None,
    progress: Progress,
) -> dict[str, Any]:
    """The error that rounding each layer of a generator alone causes, and the Pareto set: `sensitivity_rows`.

    With `fd_local` of `images` images, also how much each layer adds to it, as a share of the float generator's.
    """
    module, source = generator.folded().module, generator.inputs(seed)
    float_images = FloatImages.of_layers(module, source) if images is None else FloatImages(module, source, images)
    program = canonical(generator.saved(), generator.signature)
    simulated = simulate(program, scheme, calibration_batches(source, samples=options.samples), options)
    costs = layer_sensitivities(simulated, float_images, progress, fd_local)
    figures = sensitivity_rows(costs, float_images.data_range)
    if fd_local is not None:
        float_fd = fd_local(float_images.expected)
        figures["fd_local"] = float_fd
        for row, cost in zip(figures["layers"], costs, strict=True):
            assert cost.fd_local is not None, "measured for every layer"
            row["fd_change"] = cost.fd_local / float_fd - 1
    return figures
