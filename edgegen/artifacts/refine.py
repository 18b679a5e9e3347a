"""Refines a generator for one scheme: its weights are changed so that rounding them changes the images less.

No data set: calibration and training inputs are the generator's own, and the float generator's images are the targets.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from edgegen.artifacts.relative_latency import MixedLatency, RelativeLatency
from edgegen.artifacts.sensitivity import FloatImages, canonical, layer_sensitivities, sensitivity_rows
from edgegen.program.capture import capture
from edgegen.program.generator import Generator
from edgegen.program.inputs import InputSource
from edgegen.program.parameters import parameter_count
from edgegen.quantize.adaround import ITERATIONS, learn_rounding
from edgegen.quantize.bias_correction import correct_biases
from edgegen.quantize.budget import Budget, require_mixed
from edgegen.quantize.calibration import Batches, calibration_batches, correcting_samples
from edgegen.quantize.cross_layer_equalization import equalize
from edgegen.quantize.fake_quant import FakeQuantizedNetwork, floating, simulate
from edgegen.quantize.schemes import with_float
from edgegen.quantize.sensitivity import (
    FLOAT_BYTES,
    Figures,
    FloatLayers,
    LayerSensitivity,
    fitting,
)
from edgegen.quantize.smoothquant import smooth
from edgegen.recipe import Quantize, Recover
from edgegen.support.progress import Progress
from edgegen.support.vendor_logs import EXPORT, quiet
from edgegen.types import Signature

if TYPE_CHECKING:
    from torch import fx, nn
    from torch.export import ExportedProgram


@dataclass(frozen=True)
class RefinedProgram:
    """`program` in float, to be quantized by its scheme with `options`.

    PSNR of the rounded generator's images to the float one's, before and after; of "mixed" also the error that rounding
    each layer alone causes.
    """

    program: "ExportedProgram"
    options: Quantize
    psnr_before_db: float
    psnr_after_db: float
    data_range: float
    costs: Sequence[LayerSensitivity] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain data for a file: a row of the report's `refined`, without the scheme."""
        return {
            "float_layers": list(self.options.float_layers),
            "psnr_before_db": self.psnr_before_db,
            "psnr_after_db": self.psnr_after_db,
            **sensitivity_rows(self.costs, self.data_range),
        }


def refine(
    generator: Generator,
    scheme: str,
    *,
    options: Quantize,
    recover: Recover | None = None,
    relative_latency: RelativeLatency | None = None,
    backends: Sequence[str] = (),
    seed: int,
    folder: Path,
    progress: Progress,
) -> RefinedProgram:
    """The program of a generator for a scheme of GRIDS; `folder` keeps the checkpoint of its training.

    "mixed" needs a budget among the `options`, which decides the layers that stay float; that is before recovery, which
    fits the weights to what is rounded. For a limit of latency, `relative_latency` times files in each of `backends`.
    `seed` is that of the calibration of the files. Raises ExportError where the network cannot be captured or
    quantized, TrainingError where training fails, BudgetError where no choice of layers keeps the budget, DeviceError
    where a file cannot be timed.
    """
    module, signature, methods = generator.folded().module, generator.signature, options.methods
    inputs = generator.inputs(seed)
    float_images = FloatImages(module, inputs)
    calibration = calibration_batches(inputs, samples=options.samples)
    plain = canonical(generator.saved(), signature)
    program = _rescaled(plain, signature, methods, calibration, progress)
    costs: Sequence[LayerSensitivity] = ()
    if scheme == "mixed":
        budget = None if options.budget is None else Budget.parse(options.budget)
        require_mixed(budget)
        assert budget is not None, "required"
        latencies = [relative_latency.of_mixed(backend) for backend in backends if relative_latency and budget.latency]
        costs = layer_sensitivities(
            simulate(program, scheme, calibration, options), FloatImages.of_layers(module, inputs), progress
        )
        float_layers = _choose_float_layers(
            program,
            calibration,
            float_images,
            costs,
            options=options,
            budget=budget,
            latencies=latencies,
            progress=progress,
        )
        options = with_float(options, float_layers)
        progress.message(f"mixed: float are {', '.join(options.float_layers) or 'no layers'}")
    simulated = simulate(program, scheme, calibration, options)
    before = float_images.psnr_db(simulated if program is plain else simulate(plain, scheme, calibration, options))
    exact = copy.deepcopy(floating(simulated))
    _correct(exact, simulated, signature, methods, calibration, seed=seed, progress=progress)
    if recover is not None:  # last: it trains on the images, the other methods on one layer each
        simulated = _recover(simulated, exact, inputs, recover, folder=folder, progress=progress, label=scheme)
    after = float_images.psnr_db(simulated)
    progress.message(f"{scheme}, rounded in PyTorch: {before:.1f} dB -> {after:.1f} dB")
    program = capture(floating(simulated), signature, batch=None)
    return RefinedProgram(program, options, before, after, float_images.data_range, costs)


def _choose_float_layers(
    program: "ExportedProgram",
    calibration: Batches,
    float_images: FloatImages,
    costs: Sequence[LayerSensitivity],
    *,
    options: Quantize,
    budget: Budget,
    latencies: Sequence[MixedLatency],
    progress: Progress,
) -> tuple[str, ...]:
    """Those of the smallest file of the budget's psnr, or of the best psnr of its size; by `latencies` fast enough."""

    def slowest(file_options: Quantize) -> float | None:
        return max((latency(program, file_options) for latency in latencies), default=None)

    def measured(choice: FloatLayers) -> Figures:
        file_options = with_float(options, choice.float_layers)
        mse = None
        if limits.mse is not None:
            mse = float_images.mse(simulate(program, "mixed", calibration, file_options))
        return Figures(mse=mse, latency=slowest(file_options))

    limits = Figures(
        # A tenth of a decibel and 2 % more: the file is checked on other noises, and latencies vary.
        mse=None if budget.psnr_db is None else float_images.data_range**2 / 10 ** ((budget.psnr_db + 0.1) / 10),
        nbytes=None if budget.size is None else int(budget.size * FLOAT_BYTES * parameter_count(program)),
        latency=None if budget.latency is None else 0.98 * budget.latency,
    )
    if limits.nbytes is not None:  # of the layers alone
        others = parameter_count(program) - sum(cost.weights for cost in costs)
        limits = replace(limits, nbytes=limits.nbytes - FLOAT_BYTES * others)
    rounded_latency = slowest(options)
    if rounded_latency is not None:
        progress.message(f"mixed: all rounded takes {rounded_latency:.2f} of the float file's time")
    choice = fitting(costs, measured, limits, rounded_latency=1.0 if rounded_latency is None else rounded_latency)
    return choice.float_layers


def _rescaled(
    program: "ExportedProgram", signature: Signature, methods: Sequence[str], calibration: Batches, progress: Progress
) -> "ExportedProgram":
    """The same function with other weights: by equalization, then by smoothing, where they are among `methods`."""
    if not {"equalization", "smoothing"} & set(methods):
        return program
    with quiet(EXPORT):
        module: Any = copy.deepcopy(program.module(check_guards=False))
    if "equalization" in methods:
        progress.message(f"equalization: {equalize(module)} pairs of layers")
    if "smoothing" in methods:
        progress.message(f"smoothing: {smooth(module, calibration)} multiplications more")
    return capture(module, signature, batch=None)


def _correct(
    exact: "fx.GraphModule",
    simulated: FakeQuantizedNetwork,
    signature: Signature,
    methods: Sequence[str],
    calibration: Batches,
    *,
    seed: int,
    progress: Progress,
) -> None:
    """Learned rounding, then bias correction, where they are among `methods`: changes `simulated` towards `exact`."""
    parts = [torch.from_numpy(np.concatenate([batch[name] for batch in calibration])) for name in calibration[0]]
    batch = tuple(part[: correcting_samples(signature)] for part in parts)
    if "rounding" in methods:
        with progress.task("rounding", len(simulated.layers)) as task:
            learned = learn_rounding(exact, simulated, batch, iterations=ITERATIONS, seed=seed, update=task.update)
        share = learned.error_after / max(learned.error_before, 1e-30)
        progress.message(f"rounding: learned in {learned.layers} layers; their errors sum to {share:.0%} of before")
    if "bias_correction" in methods:
        progress.message(f"bias correction: {correct_biases(exact, simulated, batch)} layers")


def _recover(
    simulated: FakeQuantizedNetwork,
    exact: "nn.Module",
    inputs: InputSource,
    settings: Recover,
    *,
    folder: Path,
    progress: Progress,
    label: str,
) -> FakeQuantizedNetwork:
    from edgegen.training.batch import FreshInputs
    from edgegen.training.distributed import accelerator
    from edgegen.training.loop import fit

    fitted = fit(
        settings.objective,
        FreshInputs(inputs, settings.steps * settings.batch),
        student=simulated.module,
        frozen={"float": exact},
        settings=settings,
        seed=inputs.seed,
        folder=folder,
        accelerator=accelerator("fp32"),  # bf16 is coarser than the changes to be learned
        progress=progress,
        label=f"recover {label}",
    )
    return FakeQuantizedNetwork.of(fitted["student"].ema)
