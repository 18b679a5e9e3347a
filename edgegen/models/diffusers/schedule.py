"""Reads a diffusers scheduler_config.json, and derives the one step from noise to data of its network.

The step is affine in the noise z and the net's output: x = noise_gain z + net_gain net(input_gain z, time).

    variance preserving    x~ = a x + s e, a^2 + s^2 = 1, at the last of the training times (Karras et al.,
                           arXiv:2206.00364, table 1), in one of two ways:
      as its sampler does  x~ = z, and x is what follows from x~ and the net's output: for an epsilon net
                           (z - s net(z)) / a. Nets that were distilled to one step expect this.
      along our path       z is the point of the straight path at t = 1, x~ = (a + s) z its scaling as in
                           edgegen.models.diffusers.velocity, and x = z - (e - x): one Euler step of its velocity.
    flow matching          x = z - v(z, n), n the number of training times (arXiv:2210.02747); x = z - sigma v(z, t), at
                           the first sigma and time, of other samplers that take such networks (flow_prediction)
    consistency            x = c_skip(sigma) sigma z + c_out(sigma) net(c_in sigma z, 250 ln sigma) at the largest
                           sigma (arXiv:2303.01469, appendix C; the time as diffusers counts it)
    EDM                    x = c_skip k z + c_out net(c_in k z, ln(sigma) / 4), k z being the sampler's start at the
                           largest sigma (arXiv:2206.00364, table 1)
    SCM                    x = cos(t) z - sin(t) F of TrigFlow (arXiv:2410.11081) at t = pi / 2, F made of a network of
                           flow matching at the time s = sin t / (cos t + sin t) (SANA-Sprint, arXiv:2503.09641, Eq. 7)
    continuous v           x = -net(z, 1): v = a e - s x with a = 0, s = 1 at time 1 (arXiv:2202.00512, appendix D), the
                           nets of Dance Diffusion

Where the scheduler limits the data estimate, the step does as well: at the last time a is some 5e-3, and a network's
error in epsilon is 200 times that in x.
"""

import inspect
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from edgegen.errors import DataError
from edgegen.models.diffusers.weights import LOADING
from edgegen.support.storage import read_json
from edgegen.support.vendor_logs import DIFFUSERS, quiet

# They differ in the steps of sampling; the network's inputs and output have the same meaning.
VARIANCE_PRESERVING = (
    "DDPMScheduler",
    "DDIMScheduler",
    "PNDMScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "DEISMultistepScheduler",
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "HeunDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "LMSDiscreteScheduler",
    "LCMScheduler",
    "TCDScheduler",
    "UniPCMultistepScheduler",
)
FLOW = ("FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler", "FlowMatchLCMScheduler")
CONSISTENCY = ("CMStochasticIterativeScheduler",)
EDM = ("EDMEulerScheduler", "EDMDPMSolverMultistepScheduler")
CONTINUOUS_V = ("IPNDMScheduler",)
SCM = ("SCMScheduler",)
SCM_START = 1.5708  # its max_timesteps
MOST_STEPS = 1_000_000
LEAST_SIGNAL = 1e-4  # the largest schedules in use end at 4e-3
PREDICTIONS = ("epsilon", "sample", "v_prediction")
FLOW_PREDICTION = "flow_prediction"  # of networks of flow matching, by samplers of other names
EDM_PREDICTIONS = ("epsilon", "v_prediction")
KINDS = VARIANCE_PRESERVING + FLOW + CONSISTENCY + EDM + CONTINUOUS_V + SCM
NOISE_SCHEDULE = (
    "num_train_timesteps",
    "beta_start",
    "beta_end",
    "beta_schedule",
    "trained_betas",
    "rescale_betas_zero_snr",
)


@dataclass(frozen=True)
class DataLimit:
    """How a sampler keeps its data estimate in range: to [-`bound`, `bound`], or by dynamic thresholding.

    Dynamic thresholding (arXiv:2205.11487, section 2.3): the `quantile` of the absolute values of each image, at least
    1 and at most `largest`, becomes 1.
    """

    bound: float = 1.0
    quantile: float | None = None
    largest: float = 1.0

    def __call__(self, data: Tensor) -> Tensor:
        """The limited estimate (batch, channels, height, width)."""
        if self.quantile is None:
            return data.clamp(-self.bound, self.bound)
        edge = torch.quantile(data.abs().flatten(1), self.quantile, dim=1).clamp(1.0, max(1.0, self.largest))
        edge = edge[:, None, None, None]
        return torch.maximum(torch.minimum(data, edge), -edge) / edge


@dataclass(frozen=True)
class Schedule:
    """The settings of a scheduler, checked: `alphas_cumprod` (steps,) where it is variance preserving, else None.

    `limit` is what it does to the data estimate; `continuous` says that the network takes ln(sigma) / 4 for the time.
    """

    name: str
    steps: int
    prediction: str
    settings: dict[str, Any]
    alphas_cumprod: Tensor | None = None
    limit: DataLimit | None = None
    continuous: bool = False


@dataclass(frozen=True)
class Step:
    """The one step x = noise_gain z + net_gain net(input_gain z, time); see the head of this file.

    With a `bound`, that is the data estimate d, and the step is x = d' + rest_gain (z - d') of d' = d clamped to
    [-bound, bound].
    """

    time: float
    prediction: str
    input_gain: float = 1.0
    noise_gain: float = 0.0
    net_gain: float = 1.0
    bound: float | None = None
    rest_gain: float = 0.0


def read_schedule(path: Path, *, kinds: tuple[str, ...] = KINDS) -> Schedule:
    """Reads a scheduler_config.json. Raises DataError for no settings, or a scheduler not in `kinds`."""
    settings = read_json(path, infinities=True)
    if not isinstance(settings, dict):
        raise DataError(f"{path}: holds {type(settings).__name__}, not the settings of a scheduler")
    name, steps = settings.get("_class_name"), settings.get("num_train_timesteps", 1000)
    if not isinstance(steps, int) or not 2 <= steps <= MOST_STEPS:
        raise DataError(f"{path}: num_train_timesteps is {steps!r}; needed: a whole number from 2 to {MOST_STEPS}")
    if name not in kinds:
        raise DataError(f"{path}: scheduler {name!r}; there are: {', '.join(kinds)}")
    if name in FLOW:
        return Schedule(name, steps, "flow", settings)
    if name in CONSISTENCY:
        return Schedule(name, steps, "consistency", settings)
    if name in CONTINUOUS_V:
        return Schedule(name, steps, "continuous v", settings)
    if name in SCM:
        return Schedule(name, steps, "trigflow", settings)
    prediction = settings.get("prediction_type", "epsilon")
    known: tuple[str, ...] = PREDICTIONS if name in VARIANCE_PRESERVING else EDM_PREDICTIONS
    if kinds == KINDS and settings.get("use_flow_sigmas"):  # a source, not a teacher
        known = (FLOW_PREDICTION,)
    if prediction not in known:
        raise DataError(f"{path}: prediction_type {prediction!r}; there are: {', '.join(known)}")
    if prediction == FLOW_PREDICTION:
        return Schedule(name, steps, prediction, settings)
    if name in EDM:
        return Schedule(name, steps, prediction, settings, continuous=True)
    in_sigmas = name == "EulerDiscreteScheduler" and settings.get("timestep_type") == "continuous"
    continuous = in_sigmas and prediction == "v_prediction"
    alphas = _alphas(settings, path)
    limit = _limit(scheduler_of(name, settings, path))
    return Schedule(name, steps, prediction, settings, alphas, limit, continuous)


def scheduler_of(name: str, settings: dict[str, Any], path: Path | str, **changes: Any) -> Any:
    """diffusers' scheduler of that class with these settings and `changes`. Raises DataError where it refuses them."""
    with quiet(LOADING):
        import diffusers

        try:
            return getattr(diffusers, name).from_config({**settings, "_class_name": name}, **changes)
        except (TypeError, ValueError, ArithmeticError, NotImplementedError, RuntimeError, ImportError) as e:
            raise DataError(f"{path}: not settings that diffusers' {name} takes: {e}") from e


def scheduler_for(schedule: Schedule, steps: int, **changes: Any) -> Any:
    """diffusers' scheduler with the times of so many steps. Raises DataError where it does not sample in them."""
    path = "scheduler_config.json"
    scheduler = scheduler_of(schedule.name, schedule.settings, path, **changes)
    with quiet(LOADING):
        try:
            scheduler.set_timesteps(steps)
        except (ValueError, IndexError) as e:
            raise DataError(f"{path}: {schedule.name} does not sample in {steps} steps: {e}") from e
    return scheduler


def _limit(scheduler: Any) -> DataLimit | None:
    """What a scheduler does to its data estimate, from its settings with diffusers' own defaults filled in.

    A scheduler that was made from another one's settings keeps in its file those that it does not know.
    """
    known = inspect.signature(type(scheduler).__init__).parameters
    config = {key: value for key, value in scheduler.config.items() if key in known}
    if config.get("thresholding"):
        return DataLimit(quantile=config["dynamic_thresholding_ratio"], largest=config["sample_max_value"])
    return DataLimit(config["clip_sample_range"]) if config.get("clip_sample") else None


def require_signal(schedule: Schedule, path: Path, *, least: float) -> None:
    """Raises DataError where the net predicts epsilon and the share of data at the last time is under `least`."""
    if schedule.alphas_cumprod is None or schedule.prediction != "epsilon":
        return
    signal = math.sqrt(float(schedule.alphas_cumprod.double()[-1]))
    if signal < least:
        raise DataError(
            f"{path}: its last time is pure noise (signal {signal:.1e}), where an epsilon network says nothing about "
            "the data; needed: prediction_type v_prediction or sample, or a schedule without rescale_betas_zero_snr"
        )


def one_step(schedule: Schedule, path: Path, *, along_path: bool) -> Step:
    """The step from pure noise to data, `along_path` or as its own sampler takes it (see the head of this file).

    Raises DataError where the schedule allows none (`path` is for the message).
    """
    if schedule.prediction == "flow":
        return Step(float(schedule.steps), "flow", 1.0, 1.0, -1.0)
    if schedule.prediction == FLOW_PREDICTION:
        scheduler = scheduler_for(schedule, 1)
        return Step(float(scheduler.timesteps[0]), "flow", 1.0, 1.0, -float(scheduler.sigmas[0]))
    if schedule.prediction == "consistency":
        return _consistency(schedule, path)
    if schedule.prediction == "continuous v":
        return Step(1.0, "continuous v", 1.0, 0.0, -1.0)
    if schedule.prediction == "trigflow":
        return _trigflow()
    if schedule.name in EDM:
        return _edm(schedule, path)
    require_signal(schedule, path, least=LEAST_SIGNAL)
    assert schedule.alphas_cumprod is not None
    alpha = float(schedule.alphas_cumprod.double()[-1])
    a, s = math.sqrt(max(alpha, 1e-20)), math.sqrt(1.0 - alpha)
    # Euler's samplers start from the noise at the last level alone, s z, unless their times are "leading".
    euler = schedule.name.startswith("Euler") and schedule.settings.get("timestep_spacing") != "leading"
    k = a + s if along_path else s if euler else 1.0
    time = math.log(s / a) / 4 if schedule.continuous else float(schedule.steps - 1)
    data = {"epsilon": (k / a, -s / a), "v_prediction": (a * k, -s), "sample": (0.0, 1.0)}[schedule.prediction]
    if schedule.limit is not None:
        return Step(time, schedule.prediction, k, *data, bound=_bound(schedule, path), rest_gain=-a / s * along_path)
    if along_path:
        data = {"epsilon": (1.0 + k / a, -k / a), "v_prediction": (2.0 * alpha, -k), "sample": (-a / s, k / s)}[
            schedule.prediction
        ]
    return Step(time, schedule.prediction, k, *data)


def _bound(schedule: Schedule, path: Path) -> float:
    assert schedule.limit is not None
    if schedule.limit.quantile is not None:
        raise DataError(
            f"{path}: thresholding: a file does not sort the pixels of its image; set thresholding to false and "
            "clip_sample to true"
        )
    return schedule.limit.bound


def _trigflow() -> Step:
    """Data and noise have the deviation sigma_data, by which its pipeline multiplies and divides again."""
    sine, cosine = math.sin(SCM_START), math.cos(SCM_START)
    s = sine / (cosine + sine)
    norm = math.hypot(s, 1 - s)
    net_gain = -sine * (1 - 2 * s + 2 * s * s) / norm
    return Step(s, "trigflow", norm, cosine - sine * (1 - 2 * s), net_gain)


def _edm(schedule: Schedule, path: Path) -> Step:
    _, sigma, data = positive_sigmas(schedule, path)
    total = sigma**2 + data**2
    start = math.sqrt(sigma**2 + 1.0)  # diffusers' init_noise_sigma
    sign = 1.0 if schedule.prediction == "epsilon" else -1.0
    skip, out = data**2 / total, sign * sigma * data / math.sqrt(total)
    return Step(0.25 * math.log(sigma), schedule.prediction, start / math.sqrt(total), start * skip, out)


def positive_sigmas(schedule: Schedule, path: Path | str) -> tuple[float, float, float]:
    """sigma_min, sigma_max and sigma_data of an EDM or consistency scheduler. Raises DataError."""
    sigmas = [schedule.settings.get(key, value) for key, value in SIGMAS.items()]
    if not all(isinstance(value, int | float) and 0 < value < math.inf for value in sigmas):
        raise DataError(f"{path}: sigma_min, sigma_max and sigma_data must be positive numbers")
    return sigmas[0], sigmas[1], sigmas[2]


def _consistency(schedule: Schedule, path: Path) -> Step:
    low, high, data = positive_sigmas(schedule, path)
    norm = math.hypot(high, data)
    skip = data**2 / ((high - low) ** 2 + data**2)
    time = 250.0 * math.log(high)
    return Step(time, "consistency", high / norm, skip * high, (high - low) * data / norm)


SIGMAS = {"sigma_min": 0.002, "sigma_max": 80.0, "sigma_data": 0.5}  # diffusers' own


def _alphas(settings: dict[str, Any], path: Path) -> Tensor:
    with quiet(DIFFUSERS):
        import diffusers

        noise_settings = {key: settings[key] for key in NOISE_SCHEDULE if settings.get(key) is not None}
        try:
            alphas: Tensor = diffusers.DDPMScheduler(**noise_settings).alphas_cumprod
        except (TypeError, ValueError, ArithmeticError, NotImplementedError, RuntimeError) as e:
            raise DataError(f"{path}: not a noise schedule that diffusers knows: {e}") from e
    if not ((alphas >= 0) & (alphas <= 1)).all():  # false for NaN, too
        raise DataError(f"{path}: not a noise schedule: alphas_cumprod from {alphas.min():g} to {alphas.max():g}")
    return alphas
