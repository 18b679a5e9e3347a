"""A diffusers net and scheduler as a velocity: against a closed form, and through a real folder."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from trained_teachers import small_unet2d

from edgegen.errors import DataError
from edgegen.flow.solvers import solve
from edgegen.models.diffusers.schedule import Schedule
from edgegen.models.diffusers.velocity import VariancePreservingVelocity
from edgegen.models.load import load

diffusers = pytest.importorskip("diffusers")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # diffusers' own imports

DEVIATION, MEAN = 0.5, 0.3  # of the Gaussian data whose best net is known


class Oracle(nn.Module):
    """The best possible UNet for data ~ N(MEAN, DEVIATION^2): E[epsilon | x~] and its kin, in closed form."""

    def __init__(self, alphas_cumprod: Tensor, prediction: str) -> None:
        super().__init__()
        self.alphas, self.prediction = alphas_cumprod.double(), prediction

    def forward(self, x: Tensor, index: Tensor, class_labels: Tensor | None, return_dict: bool) -> tuple[Tensor]:
        # Between two indices the scheduler has no value; the wrapper interpolates log(s / a), and so does this.
        log_ratio = 0.5 * torch.log((1 - self.alphas) / self.alphas)
        ratio = np.exp(np.interp(index.double().numpy(), np.arange(len(log_ratio)), log_ratio.numpy()))
        a = torch.from_numpy(1 / np.sqrt(1 + ratio**2))[:, None, None, None]
        s = (1 - a**2).sqrt()
        data = MEAN + DEVIATION**2 * a * (x.double() - a * MEAN) / (a**2 * DEVIATION**2 + s**2)
        noise = (x.double() - a * data) / s
        out = {"epsilon": noise, "sample": data, "v_prediction": a * noise - s * data}[self.prediction]
        return (out.float(),)


def schedule_of(alphas: Tensor, prediction: str, **settings: object) -> Schedule:
    return Schedule("DDIMScheduler", 1000, prediction, {"clip_sample": False, **settings}, alphas)


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
def test_velocity_of_gaussian_data_is_the_known_one(prediction: str) -> None:
    alphas = diffusers.DDPMScheduler().alphas_cumprod
    velocity = VariancePreservingVelocity(Oracle(alphas, prediction), schedule_of(alphas, prediction))
    x, t = torch.randn(6, 1, 2, 2), torch.tensor([0.05, 0.2, 0.5, 0.7, 0.9, 0.95])
    s = t.double()[:, None, None, None]
    # E[e - x | x_t] for x ~ N(m, d^2), e ~ N(0, 1), x_t = (1 - t) x + t e
    centred = (x.double() - (1 - s) * MEAN) / ((1 - s) ** 2 * DEVIATION**2 + s**2)
    expected = s * centred - (MEAN + (1 - s) * DEVIATION**2 * centred)
    torch.testing.assert_close(velocity(x, t, None).double(), expected, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("prediction", ["sample", "v_prediction"])
def test_a_schedule_that_ends_in_pure_noise(prediction: str) -> None:
    """At t = 1 nothing is known of the data: E[e - x | x_1 = e] = e - MEAN."""
    alphas = diffusers.DDIMScheduler(rescale_betas_zero_snr=True).alphas_cumprod
    assert alphas[-1] == 0.0
    velocity = VariancePreservingVelocity(
        Oracle(alphas.clamp(min=1e-12), prediction), schedule_of(alphas, prediction, rescale_betas_zero_snr=True)
    )
    noise = torch.randn(5, 1, 2, 2)
    torch.testing.assert_close(velocity(noise, torch.ones(5), None), noise - MEAN, rtol=1e-4, atol=1e-4)


def test_the_ode_carries_noise_to_the_data() -> None:
    alphas = diffusers.DDPMScheduler().alphas_cumprod
    velocity = VariancePreservingVelocity(Oracle(alphas, "epsilon"), schedule_of(alphas, "epsilon"))
    made = solve(velocity, torch.randn(4096, 1, 1, 1), None, solver="heun", steps=40).x
    assert made.mean().item() == pytest.approx(MEAN, abs=0.03)
    assert made.std().item() == pytest.approx(DEVIATION, abs=0.03)


@pytest.fixture
def pipeline_folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    unet = small_unet2d(num_class_embeds=3)
    unet.save_pretrained(tmp_path / "unet", safe_serialization=True)
    diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2").save_pretrained(tmp_path / "scheduler")
    (tmp_path / "model_index.json").write_text('{"_class_name": "DDPMPipeline"}')
    return tmp_path


def test_a_pipeline_folder_is_read(pipeline_folder: Path) -> None:
    loaded = load(pipeline_folder)
    assert loaded.signature.image_shape == (1, 8, 8)
    assert loaded.signature.num_classes == 3
    x, t = torch.randn(2, 1, 8, 8), torch.tensor([0.3, 1.0])
    assert torch.isfinite(loaded.net(x, t, torch.tensor([0, 2]))).all()


def test_flow_matching_schedulers_count_time_in_steps(pipeline_folder: Path) -> None:
    diffusers.FlowMatchEulerDiscreteScheduler().save_pretrained(pipeline_folder / "scheduler")
    loaded = load(pipeline_folder)
    unet = diffusers.UNet2DModel.from_pretrained(pipeline_folder / "unet")
    x, labels = torch.randn(1, 1, 8, 8), torch.tensor([1])
    got = loaded.net(x, torch.tensor([0.25]), labels)
    torch.testing.assert_close(got, unet(x, torch.tensor([250.0]), class_labels=labels).sample)


def test_what_does_not_fit_is_named(pipeline_folder: Path) -> None:
    schedule = pipeline_folder / "scheduler" / "scheduler_config.json"
    content = json.loads(schedule.read_text())
    schedule.write_text(json.dumps({**content, "_class_name": "KarrasVeScheduler"}))
    with pytest.raises(DataError, match="scheduler 'KarrasVeScheduler'; there are: DDPMScheduler"):
        load(pipeline_folder)
    schedule.write_text(json.dumps({**content, "prediction_type": "score"}))
    with pytest.raises(DataError, match="prediction_type 'score'; there are: epsilon"):
        load(pipeline_folder)
    schedule.write_text(json.dumps({**content, "rescale_betas_zero_snr": True}))
    with pytest.raises(DataError, match=r"pure noise \(signal 0.0e\+00\), where an epsilon net"):
        load(pipeline_folder)
    schedule.write_text(json.dumps({**content, "beta_schedule": "nope"}))
    with pytest.raises(DataError, match="not a noise schedule that diffusers knows"):
        load(pipeline_folder)
    schedule.write_text(json.dumps({**content, "num_train_timesteps": 1}))
    with pytest.raises(DataError, match="num_train_timesteps is 1; needed"):
        load(pipeline_folder)
    schedule.write_text("[]")
    with pytest.raises(DataError, match="holds list, not the settings of a scheduler"):
        load(pipeline_folder)
    schedule.unlink()
    with pytest.raises(DataError, match=r"no scheduler_config\.json; it defines"):
        load(pipeline_folder)


@pytest.mark.parametrize(("betas", "named"), [((1e-4, 0.02), False), ((0.00085, 0.012), True)])
def test_a_teacher_that_never_saw_pure_noise_is_named(betas: tuple[float, float], named: bool, tmp_path: Path) -> None:
    """DDPM's schedule ends at 0.6 % of the image, Stable Diffusion's at 6.8 %."""
    schedule = {"beta_start": betas[0], "beta_end": betas[1]}
    schedule["beta_schedule"] = "scaled_linear" if named else "linear"  # type: ignore[assignment]
    small_unet2d().save_pretrained(tmp_path)
    diffusers.DDPMScheduler(**schedule).save_pretrained(tmp_path)
    notes = [note for note in load(tmp_path).notes if "of the image" in note]
    assert [note.partition(" % ")[0][-3:] for note in notes] == (["6.8"] if named else [])
