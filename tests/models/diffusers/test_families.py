"""Every family's source against diffusers itself: its network, and its own scheduler's one step."""

import copy
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from families import KL, NETWORKS, UNET2D, diffusers_net, save, save_scheduler
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.export import Dim

from edgegen.errors import DataError
from edgegen.models.diffusers.families import FAMILIES
from edgegen.models.diffusers.schedule import read_schedule
from edgegen.models.diffusers.velocity import VariancePreservingVelocity
from edgegen.models.load import load as load_generator
from edgegen.models.sources.load import load_sources
from edgegen.models.sources.source import Source
from edgegen.program.inputs import example_inputs
from edgegen.program.one_step import OneStep

diffusers = pytest.importorskip("diffusers")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # diffusers' own imports

Raw = Callable[[Tensor, Tensor], Tensor]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Each family's folder, written once."""
    made: dict[str, Path] = {}

    def get(name: str) -> Path:
        if name not in made:
            made[name] = NETWORKS[name](tmp_path_factory.mktemp("families") / name)
        return made[name]

    return get


def tensors(source: Source, count: int = 2) -> dict[str, Tensor]:
    return {name: torch.from_numpy(x) for name, x in example_inputs(source.signature, count, 0).items()}


def raw(folder: Path, inputs: Mapping[str, Tensor]) -> Raw:
    """The network called as diffusers' pipelines call it: (noisy sample, time) -> its output."""
    kind = json.loads((folder / "config.json").read_text())["_class_name"]
    net = getattr(diffusers, kind).from_pretrained(str(folder))
    rest = {name: x for name, x in inputs.items() if name not in ("sample", "image")}
    added = {name: rest.pop(name) for name in ("text_embeds", "time_ids") if name in rest}

    def call(sample: Tensor, time: Tensor) -> Tensor:
        options: dict[str, Any] = {"added_cond_kwargs": added} if added else {}
        if "image" in inputs:
            sample = torch.cat([sample, inputs["image"]], dim=1)
        if kind == "PixArtTransformer2DModel":
            size = net.config.use_additional_conditions
            count = len(sample)
            options["added_cond_kwargs"] = {
                "resolution": torch.tensor([64.0, 64.0]).repeat(count, 1) if size else None,
                "aspect_ratio": torch.tensor([1.0]).repeat(count, 1) if size else None,
            }
        out: Tensor = net(sample, timestep=time.expand(len(sample)), **rest, **options).sample
        return out[:, : sample.shape[1]] if "Transformer" in kind else out

    return call


def scheduled(folder: Path, call: Raw, noise: Tensor) -> Tensor:
    """One step of the folder's own scheduler from its own starting noise."""
    kind = json.loads((folder / "scheduler_config.json").read_text())["_class_name"]
    scheduler = getattr(diffusers, kind).from_pretrained(str(folder))
    scheduler.set_timesteps(1000 if kind in ("DDIMScheduler", "DDPMScheduler") else 1)
    time = scheduler.timesteps[0]
    assert time == (1000 if kind.startswith("Flow") else 999)
    sample = noise * getattr(scheduler, "init_noise_sigma", 1.0)
    scaled = scheduler.scale_model_input(sample, time) if hasattr(scheduler, "scale_model_input") else sample
    result = scheduler.step(call(scaled, time), time, sample)
    out: Tensor = result.get("pred_original_sample", result.prev_sample)
    return out


def close(got: Tensor, expected: Tensor) -> None:
    """Within 1e-5 of the largest number: at pure noise the net's output is multiplied by 10 to 160."""
    assert expected.abs().max() > 0.1
    assert (got - expected).abs().max() <= 1e-5 * expected.abs().max()


SCHEDULED = [
    "unet2d_condition",
    "unet2d_condition_sdxl",
    "unet2d_condition_image",
    "dit",
    "pixart",
    "pixart_sized",
    "sd3",
    "unet1d_trajectory",
]


@pytest.mark.parametrize("name", SCHEDULED)
def test_one_step_is_the_schedulers_own(name: str, folders: Callable[[str], Path]) -> None:
    folder = folders(name)
    (source,) = load_sources(str(folder))
    inputs = tensors(source)
    close(source.module(**inputs), scheduled(folder, raw(folder, inputs), inputs["sample"]))


@pytest.mark.parametrize("name", ["unet2d_condition", "unet2d"])
def test_a_step_is_limited_where_the_scheduler_limits(
    name: str, tmp_path: Path, folders: Callable[[str], Path]
) -> None:
    shutil.copytree(folders(name), tmp_path / "net")
    schedule = tmp_path / "net" / "scheduler_config.json"
    settings = json.loads(schedule.read_text())
    schedule.write_text(json.dumps({**settings, "clip_sample": True, "clip_sample_range": 20.0}))
    (source,) = load_sources(str(tmp_path / "net"))
    inputs = tensors(source)
    if name == "unet2d":  # along our path
        expected = OneStep(load_generator(tmp_path / "net").net, time=1.0)(**inputs)
    else:
        expected = scheduled(tmp_path / "net", raw(tmp_path / "net", inputs), inputs["sample"])
    assert 0.02 < ((expected.abs() - 20.0).abs() < 0.5).double().mean() < 0.98, "some are limited, not all"
    close(source.module(**inputs), expected)
    schedule.write_text(json.dumps({**settings, "thresholding": True}))
    with pytest.raises(DataError, match="thresholding: a file does not sort the pixels"):
        load_sources(str(tmp_path / "net"))


@pytest.mark.parametrize("name", ["unet2d", "unet2d_class"])
def test_a_unet2d_is_one_step_of_the_velocity_that_a_teacher_has(name: str, folders: Callable[[str], Path]) -> None:
    (source,) = load_sources(str(folders(name)))
    inputs = tensors(source)
    close(source.module(**inputs), OneStep(load_generator(folders(name)).net, time=1.0)(**inputs))


class Joined(nn.Module):
    """A UNet2DModel that gets its image from elsewhere."""

    def __init__(self, call: Raw) -> None:
        super().__init__()
        self.call = call

    def forward(self, x: Tensor, index: Tensor, class_labels: None, return_dict: bool) -> tuple[Tensor]:
        return (self.call(x, index),)


def test_the_image_stands_behind_the_noise(folders: Callable[[str], Path]) -> None:
    folder = folders("unet2d_image_conditional")
    (source,) = load_sources(str(folder))
    inputs = tensors(source)
    assert [(spec.name, spec.role, spec.low) for spec in source.signature.inputs][1] == ("image", "image", -1.0)
    schedule = read_schedule(folder / "scheduler_config.json")
    velocity = VariancePreservingVelocity(Joined(raw(folder, inputs)), schedule)
    close(source.module(**inputs), OneStep(velocity, time=1.0)(inputs["sample"]))


def test_audio_is_minus_v_at_time_one(folders: Callable[[str], Path]) -> None:
    (source,) = load_sources(str(folders("unet1d")))
    inputs = tensors(source)
    assert source.signature.outputs[0].role == "signal"
    close(source.module(**inputs), -raw(folders("unet1d"), inputs)(inputs["sample"], torch.tensor([1.0])))


def test_without_a_scheduler_it_is_the_nets_own_output(folders: Callable[[str], Path], tmp_path: Path) -> None:
    for name, time in (("unet2d_class", 999.0), ("sd3", 1000.0)):
        folder = tmp_path / name
        NETWORKS[name](folder)
        (folder / "scheduler_config.json").unlink()
        (source,) = load_sources(str(folder))
        inputs = tensors(source)
        close(source.module(**inputs), raw(folder, inputs)(inputs["sample"], torch.tensor([time])))
        assert source.about["prediction"] == "none: the network's own output"
        assert f"no scheduler_config.json: out_sample is the net's own output at time {time:g}" in source.about["notes"]


def test_decoders_undo_the_scaling_of_the_latents(folders: Callable[[str], Path], tmp_path: Path) -> None:
    for name in ("autoencoder_kl", "autoencoder_tiny"):
        (source,) = load_sources(str(folders(name)))
        inputs = tensors(source)
        kind = "AutoencoderKL" if name == "autoencoder_kl" else "AutoencoderTiny"
        vae = getattr(diffusers, kind).from_pretrained(str(folders(name)))
        close(source.module(**inputs), vae.decode(inputs["latent_sample"] / vae.config.scaling_factor).sample)
        assert not any("encoder" in key.replace("decoder", "") for key in source.module.state_dict())
    mean, deviation = [0.1, 0.2, 0.3, 0.4], [1.0, 2.0, 3.0, 4.0]
    folder = save("AutoencoderKL", {**KL, "latents_mean": mean, "latents_std": deviation}, tmp_path / "kl")
    (source,) = load_sources(str(folder))
    z = tensors(source)["latent_sample"]
    vae = diffusers.AutoencoderKL.from_pretrained(str(folder))
    # StableDiffusionXLPipeline.__call__
    scaled = z * torch.tensor(deviation).view(1, 4, 1, 1) / 0.18215 + torch.tensor(mean).view(1, 4, 1, 1)
    close(source.module(z), vae.decode(scaled).sample)


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_every_family_is_captured_with_any_batch(name: str, folders: Callable[[str], Path]) -> None:
    (source,) = load_sources(str(folders(name)))
    inputs = tuple(tensors(source).values())
    shapes = tuple({0: Dim.DYNAMIC} for _ in inputs)
    with torch.no_grad():
        program = torch.export.export(source.module, inputs, dynamic_shapes=shapes)
        three = tuple(torch.cat([x, x[:1]]) for x in inputs)
        torch.testing.assert_close(program.module()(*three), source.module(*three))
    assert program.graph_signature.user_inputs == tuple(spec.name for spec in source.signature.inputs)


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_a_source_is_ready(name: str, folders: Callable[[str], Path]) -> None:
    (source,) = load_sources(str(folders(name)))
    assert source.name == name
    assert not any(part.training for part in source.module.modules())
    copied = copy.deepcopy(source.module)
    assert copied is not source.module
    assert not any(parameter.requires_grad for parameter in source.module.parameters())
    out = source.module(*tensors(source).values())
    assert out.shape == (2, *source.signature.outputs[0].shape[1:])
    assert out.dtype == torch.float32
    close(copied(*tensors(source).values()), out)  # not to the bit: sums depend on where the memory lies
    assert json.loads(json.dumps(source.about)) == source.about
    assert source.about["parameters"] == sum(p.numel() for p in source.module.parameters())
    assert source.about["license"] == (None if name.startswith("edge") else "apache-2.0")
    assert source.about["random_weights"] is None
    numbers = [spec for spec in source.signature.inputs if spec.role == "class"]
    assert source.signature.num_classes == (int(numbers[0].high or 0) + 1 if numbers else 0)


def test_every_family_has_a_tiny_folder(folders: Callable[[str], Path]) -> None:
    kinds = {json.loads((folders(name) / "config.json").read_text())["_class_name"] for name in NETWORKS}
    assert kinds == {*FAMILIES, "EdgeUNet"}


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (
            "unet2d",
            {"_class_name": "UNet3DModel"},
            r"config.json: _class_name is no family 'UNet3DModel'; there are: Aura",
        ),
        (
            "unet2d",
            {"_class_name": None},
            "config.json: _class_name is missing; there are: AuraFlowTransformer2DModel, Auto",
        ),
        ("unet2d", {"sample_size": None}, "config.json: sample_size is None; give the height and width"),
        ("unet2d", {"sample_size": "big"}, "config.json: sample_size is 'big'; give the height and width"),
        ("unet2d", {"class_embed_type": "identity"}, "class_embed_type is 'identity'; supported: null"),
        ("unet2d", {"quantization_config": {}}, "its weights are quantized already; give float weights"),
        (
            "unet2d",
            {"block_out_channels": [8]},
            "the network cannot be made from config.json and weights: Must provide",
        ),
        ("unet2d", {"block_out_channels": [8, 24]}, "the network cannot be made from config.json and weights"),
        ("unet2d", {"num_class_embeds": 3}, "1 of its 145 tensors are missing, such as class_embedding"),
        (
            "unet2d_condition",
            {"addition_embed_type": "image", "encoder_hid_dim": 16},
            "addition_embed_type is 'image'; supported: null, 'text'",
        ),
        ("unet2d_condition_sdxl", {"addition_time_embed_dim": 16}, "addition_time_embed_dim is 16 and projection_cl"),
        (
            "unet2d_condition",
            {"cross_attention_dim": [16, 24]},
            r"cross_attention_dim is \[16, 24\]; one width of text",
        ),
        ("dit", {"out_channels": 6}, "4 in_channels and 6 out_channels; a one-step generator gives as many"),
        ("unet1d", {"out_channels": 3}, "2 in_channels and 3 out_channels; a UNet1DModel that generates"),
        ("unet1d", {"sample_size": None}, "sample_size is None; give the length of the signal"),
        ("autoencoder_kl", {"sample_size": 1}, "sample_size is 1; give the height and width of the images"),
    ],
)
def test_a_config_that_does_not_fit_is_named(
    name: str, change: dict[str, Any], message: str, tmp_path: Path, folders: Callable[[str], Path]
) -> None:
    config = json.loads((folders(name) / "config.json").read_text()) | change
    (tmp_path / "config.json").write_text(json.dumps(config))
    weights = "diffusion_pytorch_model.safetensors"
    (tmp_path / weights).symlink_to(folders(name) / weights)
    seed = None if name == "unet2d" else 0  # the weights are not what is at fault
    with pytest.raises(DataError, match=message) as caught:
        load_sources(str(tmp_path), random_weights=seed)
    assert str(tmp_path) in str(caught.value)


def test_two_sizes_and_a_learned_variance_are_read(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(
        json.dumps({"_class_name": "UNet2DModel", **UNET2D, "sample_size": [8, 16], "out_channels": 6})
    )
    (source,) = load_sources(str(tmp_path), random_weights=0)
    assert source.signature.outputs[0].shape == ("batch_size", 3, 8, 16)
    assert source.module(*tensors(source).values()).shape == (2, 3, 8, 16)


def test_a_consistency_model_is_the_samplers_one_step(tmp_path: Path) -> None:
    folder = save("UNet2DModel", UNET2D, tmp_path / "cm")
    save_scheduler("CMStochasticIterativeScheduler", folder)
    (source,) = load_sources(str(folder))
    inputs = tensors(source)
    scheduler = diffusers.CMStochasticIterativeScheduler.from_pretrained(str(folder))
    scheduler.set_timesteps(1)
    time, sample = scheduler.timesteps[0], inputs["sample"] * scheduler.init_noise_sigma
    out = diffusers_net("UNet2DModel", UNET2D)(scheduler.scale_model_input(sample, time), time).sample
    close(source.module(**inputs), scheduler.step(out, time, sample).prev_sample)


def test_weights_that_the_network_has_no_place_for_are_told(tmp_path: Path, folders: Callable[[str], Path]) -> None:
    shutil.copytree(folders("unet2d"), tmp_path / "net")
    file = tmp_path / "net" / "diffusion_pytorch_model.safetensors"
    save_file({**load_file(file), "extra.weight": torch.zeros(2)}, file)
    source = load_sources(str(tmp_path / "net"))[0]
    assert "1 tensors of the weights are not used, such as extra.weight" in source.about["notes"]
