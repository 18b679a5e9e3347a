"""A generator made ready for one scheme: its weights are changed so that rounding them costs the pictures less.

No data set: calibration and training inputs are noise, and the float generator says what every picture should be.
"""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from edgegen.artifacts.build import CANONICAL
from edgegen.artifacts.relative_latency import Race, Timed
from edgegen.exporters.rewrites import apply
from edgegen.program.capture import capture, reference
from edgegen.program.inputs import example_inputs
from edgegen.program.parameters import parameter_count
from edgegen.quantize.adaround import learn_rounding
from edgegen.quantize.bias_correction import correct_biases
from edgegen.quantize.budget import Budget, require_mixed
from edgegen.quantize.calibration import Batches, calibration_batches, correcting_samples, enough_samples, fitting_batch
from edgegen.quantize.cross_layer_equalization import equalize
from edgegen.quantize.fake_quant import FakeQuantizedNetwork, floating, simulate
from edgegen.quantize.sensitivity import (
    FLOAT_BYTES,
    Figures,
    FloatLayers,
    LayerSensitivity,
    fitting,
    pareto,
    sensitivity,
    worst,
)
from edgegen.quantize.smoothquant import smooth
from edgegen.recipe import Quantize, Recover
from edgegen.support.progress import Progress
from edgegen.support.vendor_logs import EXPORT, quiet
from edgegen.types import Signature
from edgegen.verification.parity import psnr_db, psnr_of, psnr_range

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import fx, nn
    from torch.export import ExportedProgram

JUDGED = 64  # noises of the figures before and after
# Of what each layer costs: they run once for every layer. As many numbers as 64 pictures of 32x32, one channel.
LAYER_NUMBERS, LEAST_JUDGED = 2**16, 8
ITERATIONS = 500  # of learned rounding, a layer


@dataclass(frozen=True)
class Refined:
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


def refine(
    module: "nn.Module",
    signature: Signature,
    scheme: str,
    *,
    options: Quantize,
    methods: Sequence[str] = (),
    recover: Recover | None = None,
    budget: Budget | None = None,
    race: Race | None = None,
    backends: Sequence[str] = (),
    seed: int,
    folder: Path,
    progress: Progress,
) -> Refined:
    """A folded one-step `module` for a scheme of GRIDS; `folder` keeps the checkpoint of its training.

    "mixed" needs a `budget`, which chooses the layers that stay float: before recovery, which fits the weights to what
    is rounded. A budget of latency needs the `race` that times its files in each of `backends`. `seed` is that of the
    calibration of its files. Raises ExportError where the network cannot be captured or quantized, TrainingError where
    training fails, BudgetError where no choice of layers keeps the budget, DeviceError where a file cannot be timed.
    """
    judge = _Judge(module, signature, seed)
    noise = calibration(signature, options, seed)
    plain = canonical(module, signature)
    program = _rescaled(plain, signature, methods, noise, progress)
    costs: Sequence[LayerSensitivity] = ()
    if scheme == "mixed":
        require_mixed(budget)
        assert budget is not None
        timed = [race.of_mixed(backend) for backend in backends] if race and budget.latency else []
        costs = _costs(simulate(program, scheme, noise, options), _Judge.of_layers(module, signature, seed), progress)
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
    return Refined(program, options, before, after, judge.data_range, costs)


class _Judge:
    """A float generator's pictures, and how near others come."""

    def __init__(self, module: "nn.Module", signature: Signature, seed: int, noises: int = JUDGED) -> None:
        self.inputs = example_inputs(signature, noises, seed)
        self.expected = reference(module, self.inputs)
        self.data_range = psnr_range(signature, self.expected)

    def pictures(self, simulated: FakeQuantizedNetwork) -> "NDArray[np.float32]":
        return reference(simulated.module, self.inputs)

    @staticmethod
    def of_layers(module: "nn.Module", signature: Signature, seed: int) -> "_Judge":
        numbers = math.prod(size for size in signature.outputs[0].shape if isinstance(size, int))
        return _Judge(module, signature, seed, min(JUDGED, max(LEAST_JUDGED, LAYER_NUMBERS // numbers)))

    def mse(self, simulated: FakeQuantizedNetwork) -> float:
        return self.data_range**2 / 10 ** (self.psnr_db(simulated) / 10)

    def psnr_db(self, simulated: FakeQuantizedNetwork) -> float:
        return psnr_db(self.expected, self.pictures(simulated), data_range=self.data_range)


def _left_float(
    program: "ExportedProgram",
    noise: Batches,
    judge: _Judge,
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


def _costs(
    simulated: FakeQuantizedNetwork,
    judge: _Judge,
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
    return worst(_costs(simulated, _Judge.of_layers(module, signature, seed), progress))


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
    judge = _Judge.of_layers(module, signature, seed) if noises is None else _Judge(module, signature, seed, noises)
    simulated = simulate(canonical(module, signature), scheme, calibration(signature, options, seed), options)
    costs = _costs(simulated, judge, progress, fd_local)
    found = sensitivity_rows(costs, judge.data_range)
    if fd_local is not None:
        floats = fd_local(judge.expected)
        found["fd_local"] = floats
        for row, cost in zip(found["layers"], costs, strict=True):
            assert cost.fd_local is not None, "judged"
            row["fd_change"] = cost.fd_local / floats - 1
    return found


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
