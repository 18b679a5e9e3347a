"""Teachers that are really trained: our solvers on their scheduler's times against diffusers' own samplers."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from trained_teachers import digits, small_unet2d, train

from edgegen.errors import DataError
from edgegen.flow.solvers import solve
from edgegen.metrics.distances import frechet
from edgegen.models.diffusers.own_sampler import even_steps, first_order, sample
from edgegen.models.diffusers.schedule import Schedule
from edgegen.models.diffusers.velocity import velocity_of
from edgegen.models.generator import Loaded
from edgegen.models.load import load

diffusers = pytest.importorskip("diffusers")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # diffusers' own imports

COUNT = 8
SIZES = {"epsilon": (8, 8), "v_prediction": (8, 16), "sample": (12, 8), "flow": (8, 8), "edm": (8, 8)}
CONDITIONAL = ("v_prediction", "sample")
ZERO_SNR = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}


@pytest.fixture(scope="module")
def nets() -> dict[str, Any]:
    """Trained networks by what they predict, each when it is first asked for."""
    return {}


def teacher(nets: dict[str, Any], prediction: str, folder: Path, scheduler: str, settings: dict[str, Any]) -> Loaded:
    if prediction not in nets:
        noise = {"rescale_betas_zero_snr": True} if prediction == "v_prediction" else {}
        torch.set_num_threads(1)
        nets[prediction] = train(prediction, SIZES[prediction], conditional=prediction in CONDITIONAL, **noise)
    nets[prediction].save_pretrained(folder)
    if prediction in ("sample", "v_prediction"):
        settings = {"prediction_type": prediction, **settings}
    getattr(diffusers, scheduler)(**settings).save_pretrained(folder)
    return load(folder)


def noise_and_labels(loaded: Loaded, count: int = COUNT) -> tuple[Tensor, Tensor | None]:
    noise = torch.randn(count, *loaded.signature.image_shape, generator=torch.Generator().manual_seed(1))
    return noise, torch.arange(count) % 10 if loaded.signature.num_classes else None


@pytest.mark.parametrize(
    ("prediction", "scheduler", "settings"),
    [
        ("epsilon", "DDPMScheduler", {}),
        ("epsilon", "DDIMScheduler", {"timestep_spacing": "trailing"}),
        ("epsilon", "DDIMScheduler", {"clip_sample_range": 0.7, "set_alpha_to_one": False}),
        ("epsilon", "DDIMScheduler", {"thresholding": True, "sample_max_value": 1.5}),
        ("epsilon", "DDIMScheduler", {"clip_sample": False}),
        ("epsilon", "DDPMScheduler", {"timestep_spacing": "linspace"}),
        ("epsilon", "DDIMScheduler", {"num_train_timesteps": 1000, "steps_offset": 1, "set_alpha_to_one": False}),
        ("epsilon", "PNDMScheduler", {}),
        ("epsilon", "EulerDiscreteScheduler", {}),
        ("epsilon", "EulerDiscreteScheduler", {"timestep_spacing": "leading"}),
        ("epsilon", "EulerDiscreteScheduler", {"use_karras_sigmas": True}),
        ("epsilon", "EulerDiscreteScheduler", {"use_exponential_sigmas": True, "final_sigmas_type": "sigma_min"}),
        ("epsilon", "DPMSolverMultistepScheduler", {"thresholding": True}),
        ("epsilon", "DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
        ("v_prediction", "DDIMScheduler", ZERO_SNR),
        ("sample", "DDIMScheduler", {}),
        ("flow", "FlowMatchEulerDiscreteScheduler", {}),
        ("flow", "FlowMatchEulerDiscreteScheduler", {"shift": 3.0}),
        ("edm", "EDMEulerScheduler", {}),
        ("edm", "EDMEulerScheduler", {"sigma_schedule": "exponential"}),
    ],
)
def test_euler_on_its_times_is_the_schedulers_first_order_sampler(
    prediction: str, scheduler: str, settings: dict[str, Any], nets: dict[str, Any], tmp_path: Path
) -> None:
    loaded = teacher(nets, prediction, tmp_path, scheduler, settings)
    noise, labels = noise_and_labels(loaded)
    reference = first_order(loaded.net.schedule)
    assert reference is not None
    theirs = sample(nets[prediction], reference[0], noise, labels, steps=10, arguments=reference[1])
    ours = solve(velocity_of(nets[prediction], reference[0], tmp_path), noise, labels, solver="euler", steps=10).x
    assert theirs.std() > 0.1
    assert (ours - theirs).abs().max() <= 1e-5 * max(1.0, float(theirs.abs().max()))


def test_a_last_time_of_pure_noise_in_sigmas(nets: dict[str, Any], tmp_path: Path) -> None:
    """Euler's sampler calls the last sigma 4096, where float32 keeps 2e-4 of an image."""
    loaded = teacher(nets, "v_prediction", tmp_path, "EulerDiscreteScheduler", ZERO_SNR)
    noise, labels = noise_and_labels(loaded)
    theirs = sample(nets["v_prediction"], loaded.net.schedule, noise, labels, steps=10)
    ours = solve(loaded.net, noise, labels, solver="euler", steps=10).x
    assert (ours - theirs).abs().max() <= 1e-3


@pytest.mark.parametrize(
    ("prediction", "scheduler", "settings"),
    [
        ("epsilon", "DPMSolverMultistepScheduler", {"thresholding": True}),
        ("epsilon", "DPMSolverMultistepScheduler", {}),
        ("edm", "EDMDPMSolverMultistepScheduler", {}),
    ],
)
@pytest.mark.parametrize("steps", [5, 20])
def test_dpm_solver_pp_is_diffusers_own(
    prediction: str, scheduler: str, settings: dict[str, Any], steps: int, nets: dict[str, Any], tmp_path: Path
) -> None:
    loaded = teacher(nets, prediction, tmp_path, scheduler, settings)
    noise, labels = noise_and_labels(loaded)
    theirs = sample(nets[prediction], loaded.net.schedule, noise, labels, steps=steps)
    ours = solve(loaded.net, noise, labels, solver="dpm_solver_pp", steps=steps).x
    assert (ours - theirs).abs().max() <= 1e-5 * max(1.0, float(theirs.abs().max()))


@pytest.mark.parametrize(
    ("prediction", "scheduler"),
    [("epsilon", "DDPMScheduler"), ("flow", "FlowMatchEulerDiscreteScheduler")],
)
def test_many_steps_of_any_solver_agree_in_distribution(
    prediction: str, scheduler: str, nets: dict[str, Any], tmp_path: Path
) -> None:
    """Distances to the digits, in pixels: of our solvers, of the scheduler's own sampler, and of saturated noise."""
    loaded = teacher(nets, prediction, tmp_path, scheduler, {})
    noise, labels = noise_and_labels(loaded, 192)
    real = digits(SIZES[prediction])[0].flatten(1).double().numpy()

    def distance(images: Tensor) -> float:
        return frechet(real, images.clamp(-1, 1).flatten(1).double().numpy())

    own = distance(sample(nets[prediction], loaded.net.schedule, noise, labels, steps=40))
    assert own < 0.35 * distance(torch.sign(noise)), "it learned something"
    for solver, steps in (("euler", 40), ("heun", 15), ("dpm_solver_pp", 20)):
        ours = distance(solve(loaded.net, noise, labels, solver=solver, steps=steps).x)
        assert ours < 1.5 * own, solver


def test_one_step_does_not_start_at_the_data(nets: dict[str, Any], tmp_path: Path) -> None:
    loaded = teacher(nets, "epsilon", tmp_path, "DDIMScheduler", {})
    grid = loaded.net.time_grid(1)
    assert grid.times[0] > 0.99
    assert grid.times[1] == 0.0


@pytest.mark.parametrize("variance", ["learned_range", "fixed_small"])
def test_a_learned_variance_goes_to_the_scheduler_that_takes_it(variance: str, tmp_path: Path) -> None:
    small_unet2d(out_channels=2).save_pretrained(tmp_path)
    diffusers.DDPMScheduler(variance_type=variance).save_pretrained(tmp_path)
    loaded = load(tmp_path)
    noise, labels = noise_and_labels(loaded, 2)
    assert loaded.net(noise, torch.tensor([0.3, 0.9])).shape == noise.shape
    assert sample(loaded.net.unet, loaded.net.schedule, noise, labels, steps=4).shape == noise.shape
    reference = first_order(loaded.net.schedule)
    assert reference is not None
    theirs = sample(loaded.net.unet, reference[0], noise, labels, steps=4, arguments=reference[1])
    torch.testing.assert_close(solve(loaded.net, noise, labels, solver="euler", steps=4).x, theirs)


def test_settings_of_another_scheduler_in_its_file_are_not_its_own(tmp_path: Path) -> None:
    """Euler's sampler, made from DDPM's settings, keeps clip_sample in its file and does not clip."""
    small_unet2d().save_pretrained(tmp_path)
    diffusers.EulerDiscreteScheduler().save_pretrained(tmp_path)
    path = tmp_path / "scheduler_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "clip_sample": True, "clip_sample_range": 1.0}))
    assert load(tmp_path).net.schedule.limit is None


def test_steps_that_divide_the_times_of_training() -> None:
    def steps(times: int) -> int:
        return even_steps(Schedule("DDIMScheduler", times, "epsilon", {}), 10)

    assert [steps(times) for times in (1000, 64, 49, 37, 4)] == [10, 8, 7, 1, 4]


def test_times_that_run_the_other_way_are_refused(nets: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="invert_sigmas: a time that runs from data to noise"):
        teacher(nets, "flow", tmp_path, "FlowMatchEulerDiscreteScheduler", {"invert_sigmas": True})


def test_steps_that_a_scheduler_refuses_are_an_error(nets: dict[str, Any], tmp_path: Path) -> None:
    loaded = teacher(nets, "epsilon", tmp_path, "DDIMScheduler", {})
    with pytest.raises(DataError, match="DDIMScheduler does not sample in 2000 steps"):
        loaded.net.time_grid(2000)


def test_dynamic_thresholding_against_the_formula() -> None:
    from edgegen.models.diffusers.schedule import DataLimit

    data = 3 * torch.randn(4, 3, 5, 7, generator=torch.Generator().manual_seed(0))
    got = DataLimit(quantile=0.9, largest=2.5)(data).double().numpy()
    for image, limited in zip(data.double().numpy(), got, strict=True):
        edge = np.clip(np.quantile(np.abs(image), 0.9), 1.0, 2.5)
        np.testing.assert_allclose(limited, np.clip(image, -edge, edge) / edge, atol=1e-6)
