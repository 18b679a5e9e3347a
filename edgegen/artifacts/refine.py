"""A generator made ready for one scheme: its weights are changed so that rounding them costs the pictures less.

No data set: calibration and training inputs are noise, and the float generator says what every picture should be.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from edgegen.artifacts.relative_latency import RelativeLatency, Timed
from edgegen.artifacts.sensitivity import FloatImages, calibration, canonical, layer_sensitivities, sensitivity_rows
from edgegen.program.capture import capture
from edgegen.program.parameters import parameter_count
from edgegen.quantize.adaround import learn_rounding
from edgegen.quantize.bias_correction import correct_biases
from edgegen.quantize.budget import Budget, require_mixed
from edgegen.quantize.calibration import Batches, correcting_samples
from edgegen.quantize.cross_layer_equalization import equalize
from edgegen.quantize.fake_quant import FakeQuantizedNetwork, floating, simulate
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

ITERATIONS = 500  # of learned rounding, a layer


@dataclass(frozen=True)
class RefinedProgram:
    """`program` in float, to be quantized by its scheme with `options`.

    PSNR of the rounded pictures to the generator's own, before and after; of "mixed" also what rounding each layer
    alone costs.
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
    module: "nn.Module",
    signature: Signature,
    scheme: str,
    *,
    options: Quantize,
    methods: Sequence[str] = (),
    recover: Recover | None = None,
    budget: Budget | None = None,
    race: RelativeLatency | None = None,
    backends: Sequence[str] = (),
    seed: int,
    folder: Path,
    progress: Progress,
) -> RefinedProgram:
    """A folded one-step `module` for a scheme of GRIDS; `folder` keeps the checkpoint of its training.

    "mixed" needs a `budget`, which chooses the layers that stay float: before recovery, which fits the weights to what
    is rounded. A budget of latency needs the `race` that times its files in each of `backends`. `seed` is that of the
    calibration of its files. Raises ExportError where the network cannot be captured or quantized, TrainingError where
    training fails, BudgetError where no choice of layers keeps the budget, DeviceError where a file cannot be timed.
    """
    judge = FloatImages(module, signature, seed)
    noise = calibration(signature, options, seed)
    plain = canonical(module, signature)
    program = _rescaled(plain, signature, methods, noise, progress)
    costs: Sequence[LayerSensitivity] = ()
    if scheme == "mixed":
        require_mixed(budget)
        assert budget is not None
        timed = [race.of_mixed(backend) for backend in backends] if race and budget.latency else []
        costs = layer_sensitivities(
            simulate(program, scheme, noise, options), FloatImages.of_layers(module, signature, seed), progress
        )
        left = _left_float(program, noise, judge, costs, options=options, budget=budget, timed=timed, progress=progress)
        options = _with_float(options, left)
        progress.message(f"mixed: float are {', '.join(options.float_layers) or 'no layers'}")
    simulated = simulate(program, scheme, noise, options)
    before = judge.psnr_db(simulated if program is plain else simulate(plain, scheme, noise, options))
    exact = copy.deepcopy(floating(simulated))
    _correct(exact, simulated, signature, methods, noise, seed=seed, progress=progress)
    if recover is not None:  # last: it looks at the pictures, the others at one layer each
        simulated = _recover(
            simulated, exact, signature, recover, seed=seed, folder=folder, progress=progress, label=scheme
        )
    after = judge.psnr_db(simulated)
    progress.message(f"{scheme}, rounded in PyTorch: {before:.1f} dB -> {after:.1f} dB")
    program = capture(floating(simulated), signature, batch=None)
    return RefinedProgram(program, options, before, after, judge.data_range, costs)


def _left_float(
    program: "ExportedProgram",
    noise: Batches,
    judge: FloatImages,
    costs: Sequence[LayerSensitivity],
    *,
    options: Quantize,
    budget: Budget,
    timed: Sequence[Timed],
    progress: Progress,
) -> tuple[str, ...]:
    """The smallest weights that keep the budget's psnr, or the truest of its size; fast enough in all of `timed`."""

    def with_float(choice: FloatLayers) -> Quantize:
        return _with_float(options, choice.float_layers)

    def latency(numbers: Quantize) -> float | None:
        return max((time(program, numbers) for time in timed), default=None)

    def measured(choice: FloatLayers) -> Figures:
        numbers = with_float(choice)
        mse = None
        if limits.mse is not None:
            mse = judge.mse(simulate(program, "mixed", noise, numbers))
        return Figures(mse=mse, latency=latency(numbers))

    limits = Figures(
        # A tenth of a decibel more: the file is judged on other noises. And a time is never the same twice.
        mse=None if budget.psnr_db is None else judge.data_range**2 / 10 ** ((budget.psnr_db + 0.1) / 10),
        nbytes=None if budget.size is None else int(budget.size * FLOAT_BYTES * parameter_count(program)),
        latency=None if budget.latency is None else 0.98 * budget.latency,
    )
    if limits.nbytes is not None:  # of the layers alone
        others = parameter_count(program) - sum(cost.weights for cost in costs)
        limits = replace(limits, nbytes=limits.nbytes - FLOAT_BYTES * others)
    rounded = latency(options)
    if rounded is not None:
        progress.message(f"mixed: all rounded takes {rounded:.2f} of the float file's time")
    choice = fitting(costs, measured, limits, rounded_latency=1.0 if rounded is None else rounded)
    return choice.float_layers


def _with_float(options: Quantize, layers: Sequence[str]) -> Quantize:
    return options.model_copy(update={"float_layers": (*options.float_layers, *layers)})


def _rescaled(
    program: "ExportedProgram", signature: Signature, methods: Sequence[str], noise: Batches, progress: Progress
) -> "ExportedProgram":
    """The same function with other weights: equalization, then smoothing, as far as they are among `methods`."""
    if not {"equalization", "smoothing"} & set(methods):
        return program
    with quiet(EXPORT):
        module: Any = copy.deepcopy(program.module(check_guards=False))
    if "equalization" in methods:
        progress.message(f"equalization: {equalize(module)} pairs of layers")
    if "smoothing" in methods:
        progress.message(f"smoothing: {smooth(module, noise)} multiplications more")
    return capture(module, signature, batch=None)


def _correct(
    exact: "fx.GraphModule",
    simulated: FakeQuantizedNetwork,
    signature: Signature,
    methods: Sequence[str],
    noise: Batches,
    *,
    seed: int,
    progress: Progress,
) -> None:
    """Learned rounding, then bias correction, as far as they are among `methods`; in place, against `exact`."""
    parts = [torch.from_numpy(np.concatenate([batch[name] for batch in noise])) for name in noise[0]]
    batch = tuple(part[: correcting_samples(signature)] for part in parts)
    if "rounding" in methods:
        with progress.task("rounding", len(simulated.layers)) as task:
            learned = learn_rounding(exact, simulated, batch, iterations=ITERATIONS, seed=seed, tell=task.update)
        share = learned.error_after / max(learned.error_before, 1e-30)
        progress.message(f"rounding: learned in {learned.layers} layers; their errors sum to {share:.0%} of before")
    if "bias_correction" in methods:
        progress.message(f"bias correction: {correct_biases(exact, simulated, batch)} layers")


def _recover(
    simulated: FakeQuantizedNetwork,
    exact: "nn.Module",
    signature: Signature,
    settings: Recover,
    *,
    seed: int,
    folder: Path,
    progress: Progress,
    label: str,
) -> FakeQuantizedNetwork:
    from edgegen.training.batch import FreshInputs
    from edgegen.training.distributed import accelerator
    from edgegen.training.loop import fit

    fitted = fit(
        settings.objective,
        FreshInputs(signature, settings.steps * settings.batch, seed),
        student=simulated.module,
        frozen={"float": exact},
        settings=settings,
        seed=seed,
        folder=folder,
        accelerator=accelerator("fp32"),  # bf16 is coarser than what is to be learned
        progress=progress,
        label=f"recover {label}",
    )
    return FakeQuantizedNetwork.of(fitted["student"].ema)
