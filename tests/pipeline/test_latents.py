"""Training on latents: the scale of what is encoded, what is decoded for whoever looks, and what does not fit."""

import json
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import TINY
from safetensors.torch import load_file
from small_autoencoders import new_autoencoder, trained_autoencoder
from small_nets import Gives
from torch import Tensor
from typer.testing import CliRunner

from edgegen.cli.main import app
from edgegen.errors import DataError, RecipeError
from edgegen.formats.stage_folder import AUTOENCODER
from edgegen.models.diffusers.autoencoder import check_autoencoder, latent_shape, load_autoencoder
from edgegen.models.edge_unet import EdgeUNet, EdgeUNetConfig
from edgegen.models.generator import LATENTS, SPACE, save
from edgegen.models.load import load
from edgegen.models.observed import decoder_in, one_step_generator
from edgegen.models.sources.load import load_sources
from edgegen.models.zero_layers import randomize_zero_layers
from edgegen.pipeline import falling_recall
from edgegen.pipeline.graph import Context, check, select
from edgegen.pipeline.run import dry_run, run_recipe
from edgegen.pipeline.sample_space import SampleSpace
from edgegen.pipeline.stages.data import read_training_images
from edgegen.recipe import parse
from edgegen.support.children import Children
from edgegen.support.progress import Silent
from edgegen.support.storage import read_json

STATISTICS: dict[str, Any] = {"latents_mean": [0.5, -1.0, 2.0], "latents_std": [2.0, 0.5, 1.0]}
FOUR_LEVELS: dict[str, Any] = {
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (4, 4, 8, 8),
}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "kl": ("AutoencoderKL", {}),
    "kl, shifted, half precision in mind": (
        "AutoencoderKL",
        {"shift_factor": 0.3, "scaling_factor": 1.5, "force_upcast": True, "use_quant_conv": False},
    ),
    "kl, statistics of channels": ("AutoencoderKL", STATISTICS),
    "kl, 8x": ("AutoencoderKL", FOUR_LEVELS),
    "tiny": ("AutoencoderTiny", {}),
    "tiny, 4x, scaled": (
        "AutoencoderTiny",
        {
            "encoder_block_out_channels": (8, 8, 8),
            "decoder_block_out_channels": (8, 8, 8),
            "num_encoder_blocks": (1, 1, 1),
            "num_decoder_blocks": (1, 1, 1),
            "scaling_factor": 0.2,
            "shift_factor": -0.4,
        },
    ),
}


def images(count: int, size: int = 16) -> Tensor:
    return torch.rand(count, 1, size, size, generator=torch.Generator().manual_seed(3)) * 2 - 1


def as_diffusers(network: Any, pictures: Tensor) -> Tensor:
    """The posterior's mode."""
    encoded = network.encode(pictures)
    return encoded.latents if hasattr(encoded, "latents") else encoded.latent_dist.mode()


def make_set(folder: Path, *, count: int = 48, size: int = 8) -> None:
    """images.npz: grey images of a bright half that turns by class."""
    labels = np.arange(count) % 4
    pictures = np.zeros((count, size, size), np.uint8)
    for row, label in enumerate(labels):
        half = np.zeros((size, size), np.uint8)
        half[: size // 2] = 200 + row % 50
        pictures[row] = np.rot90(half, label)
    np.savez(folder / "images.npz", images=pictures, labels=labels)


def recipe_text(**data: str) -> str:
    table = "\n".join(f'{key} = "{value}"' for key, value in data.items())
    return TINY.replace('name = "tiny"', f'name = "tiny"\n[data]\n{table}')


@pytest.mark.parametrize("name", KINDS)
def test_latents_are_scaled_as_diffusers_pipelines_do_and_by_their_deviation(name: str, tmp_path: Path) -> None:
    kind, settings = KINDS[name]
    network = new_autoencoder(kind, **settings)
    network.save_pretrained(tmp_path / "vae")
    autoencoder, pictures = load_autoencoder(tmp_path / "vae"), images(6)
    with torch.no_grad():
        mode, latents = as_diffusers(network, pictures), autoencoder.encode(pictures)
        config = network.config
        if settings is STATISTICS:
            mean, deviation = (torch.tensor(values)[:, None, None] for values in STATISTICS.values())
            expected = (mode - mean) / deviation * config.scaling_factor
        else:
            expected = (mode - (config.shift_factor or 0.0)) * config.scaling_factor
        torch.testing.assert_close(latents, expected)
        reconstructed = network.decode(mode).sample
        torch.testing.assert_close(autoencoder.decoder(latents), reconstructed, rtol=1e-4, atol=1e-5)
        own_mean = 0.0 if settings is STATISTICS else float(latents.mean())
        autoencoder.save(tmp_path / "scaled", deviation=float(latents.std()), mean=own_mean)
        scaled = load_autoencoder(tmp_path / "scaled")
        again = scaled.encode(pictures)
        assert float(again.std()) == pytest.approx(1.0, rel=1e-4)
        assert settings is STATISTICS or float(again.mean()) == pytest.approx(0.0, abs=1e-4)
        torch.testing.assert_close(scaled.decoder(again), reconstructed, rtol=1e-3, atol=1e-4)
    assert latent_shape(autoencoder, [1, 16, 16]) == list(latents.shape[1:])
    assert "_name_or_path" not in read_json(tmp_path / "scaled" / "config.json")  # a path of this machine


@pytest.fixture(scope="module")
def finished_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stage data of a run on the latents of a trained autoencoder."""
    place = tmp_path_factory.mktemp("latents")
    make_set(place)
    pictures = torch.from_numpy(np.load(place / "images.npz")["images"])[:, None].float() / 127.5 - 1
    trained_autoencoder(pictures, place / "vae", steps=60)
    (place / "tiny.toml").write_text(recipe_text(source="images.npz", autoencoder="vae"))
    return run_recipe(place / "tiny.toml", runs=place / "runs", only="data", progress=Silent())[-1].folder


def test_training_sees_latents_of_deviation_one_and_the_decoder_gives_the_images_back(finished_data: Path) -> None:
    about, training = read_json(finished_data / "data.json"), read_training_images(finished_data)
    assert about["sample_shape"] == [4, 4, 4]
    assert about["image_shape"] == [1, 8, 8]
    assert (training.images.dtype, tuple(training.images.shape)) == (torch.float16, (about["train"], 4, 4, 4))
    assert training.condition is not None
    batch = training.batch(torch.arange(8), torch.device("cpu"), step=0, steps=1)
    assert batch.images.dtype == torch.float32
    assert float(training.images.float().std()) == pytest.approx(1.0, abs=1e-3)
    assert about["autoencoder"]["deviation"] == pytest.approx(1.0, abs=1e-3)
    space = SampleSpace.of(finished_data)

    pixels = load_file(finished_data / "images.safetensors")["train_images"].permute(0, 3, 1, 2).float() / 127.5 - 1
    decoded = space.images(training.images)
    assert decoded.shape == pixels.shape
    assert float((decoded - pixels).square().mean()) < 0.1 * float(pixels.var())  # it was trained for seconds


def test_recall_of_latents_is_of_the_images_that_are_decoded(finished_data: Path) -> None:
    """Of the latents of the held-out images themselves, and of one of them alone."""
    recipe = parse(tomllib.loads(TINY + '[finish]\nmethod = "pair_regression"\n'), where="test")
    assert recipe.finish is not None
    context = Context(recipe, "finish", finished_data, {"data": finished_data}, finished_data, Silent(), {}, Children())
    stopping = falling_recall.stopping(context, recipe.finish)
    assert stopping is not None
    pixels = load_file(finished_data / "images.safetensors")["heldout_images"].permute(0, 3, 1, 2).float() / 127.5 - 1
    latents = load_autoencoder(finished_data / "autoencoder").encode(pixels)
    assert stopping.figure(Gives(latents)) > 0.5
    assert stopping.figure(Gives(latents[:1])) < 0.3


def test_decoding_in_batches_is_decoding(finished_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    space = SampleSpace.of(finished_data)
    samples = space.noise(1, 0, 7)
    assert tuple(samples.shape) == (7, 4, 4, 4)
    whole = space.images(samples)
    monkeypatch.setattr("edgegen.pipeline.sample_space.LARGEST_BATCH", 2 * 64)
    torch.testing.assert_close(space.images(samples), whole)


def test_a_teacher_that_is_brought_along_keeps_the_scale_that_it_was_trained_on(tmp_path: Path) -> None:
    make_set(tmp_path)
    network = new_autoencoder("AutoencoderKL", scaling_factor=0.25)
    network.save_pretrained(tmp_path / "vae")
    teacher = new_latent_network(channels=3, classes=4)
    save(teacher, tmp_path / "teacher", about={"role": "teacher"})
    text = recipe_text(source="images.npz", autoencoder="vae")
    start, end = text.index("[teacher]"), text.index("[pairs]")
    (tmp_path / "tiny.toml").write_text(text[:start] + '[teacher]\nfolder = "teacher"\n' + text[end:])
    results = run_recipe(tmp_path / "tiny.toml", runs=tmp_path / "runs", to="teacher", progress=Silent())
    folder = next(result.folder for result in results if result.stage == "data")
    assert read_json(folder / AUTOENCODER / "config.json")["scaling_factor"] == 0.25
    assert read_json(folder / "data.json")["autoencoder"]["divided_by"] == 1.0


def new_latent_network(*, channels: int, classes: int) -> EdgeUNet:
    torch.manual_seed(1)
    config = EdgeUNetConfig(4, channels, (8, 16), 1, (), classes, 16)
    network = EdgeUNet(config)
    randomize_zero_layers(network, 1)
    return network


def test_a_generator_folder_with_its_autoencoder_is_a_generator_of_images(tmp_path: Path) -> None:
    folder = tmp_path / "generator"
    save(new_latent_network(channels=3, classes=4), folder, about={"role": "student", SPACE: LATENTS})
    assert "Latents are float32 NCHW of an autoencoder" in (folder / "README.md").read_text()
    autoencoder = new_autoencoder("AutoencoderKL")
    autoencoder.save_pretrained(folder / AUTOENCODER)
    loaded = load(folder)
    assert not loaded.signature.makes_images
    generator = one_step_generator(loaded, decoder_in(folder))
    noise, labels = torch.randn(2, 3, 4, 4), torch.tensor([0, 3])
    with torch.no_grad():
        latents = noise - loaded.net(noise, torch.ones(2), labels)
        expected = autoencoder.decode(latents / autoencoder.config.scaling_factor).sample
        torch.testing.assert_close(generator.module(noise, labels), expected, rtol=1e-4, atol=1e-5)
    assert generator.signature.sample_shape == (3, 4, 4)
    assert generator.signature.image_shape == (1, 8, 8)
    assert generator.signature.outputs[0].role == "image"
    denoiser, decoder = load_sources(str(folder))
    assert (denoiser.signature.outputs[0].role, decoder.signature.outputs[0].role) == ("latent", "image")
    (fused,) = load_sources(str(folder), fuse_decoder=True)
    with torch.no_grad():
        torch.testing.assert_close(fused.module(noise, labels), expected, rtol=1e-4, atol=1e-5)
    assert fused.signature.image_shape == (1, 8, 8)


def refused(place: Path, match: str, *, images_are_read: bool = False, source: str = "images.npz") -> None:
    """By the plan alone, or where it takes the images, by the first stage before it encodes anything."""
    (place / "tiny.toml").write_text(recipe_text(source=source, autoencoder="vae"))
    start = run_recipe if images_are_read else dry_run
    with pytest.raises(DataError, match=match):
        start(place / "tiny.toml", runs=place / "runs", only="data")
    assert not list(place.glob("runs/*/data/*/*.safetensors"))


def test_an_autoencoder_that_does_not_fit_is_one_error_before_any_work(tmp_path: Path) -> None:
    make_set(tmp_path)
    refused(tmp_path, r"data\.autoencoder: no folder .*vae")
    new_autoencoder("AutoencoderTiny", channels=3).save_pretrained(tmp_path / "vae")
    refused(tmp_path, r"data\.autoencoder: it is for images of 3 channels, the data have 1", images_are_read=True)
    new_autoencoder("AutoencoderTiny").save_pretrained(tmp_path / "vae")
    pictures = np.zeros((24, 9, 8), np.uint8)
    pictures[:, ::2] = np.arange(24)[:, None, None] * 10
    np.savez(tmp_path / "odd.npz", images=pictures)
    refused(tmp_path, r"2 times smaller, and 9x8 pixels cannot be divided by 2", images_are_read=True, source="odd.npz")
    config = json.loads((tmp_path / "vae" / "config.json").read_text())
    (tmp_path / "vae" / "config.json").write_text(json.dumps({**config, "_class_name": "UNet2DModel"}))
    refused(tmp_path, r"holds 'UNet2DModel'; there are: AutoencoderKL, AutoencoderTiny")
    (tmp_path / "vae" / "model_index.json").write_text("{}")
    refused(tmp_path, r"is a whole pipeline; give its part, such as .*vae/vae")


def test_weights_that_are_missing_are_named(tmp_path: Path) -> None:
    new_autoencoder("AutoencoderTiny").save_pretrained(tmp_path / "vae")
    (tmp_path / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(DataError, match="no weights"):
        check_autoencoder(tmp_path / "vae")


def test_a_method_that_sees_images_only_is_refused_in_one_message() -> None:
    recipe = parse(
        {
            "name": "latent",
            "data": {"autoencoder": "vae"},
            "slim": {"keep": 0.5},
            "distill": {"method": "flow_guided_distillation", "distance": "perceptual"},
        },
        where="test",
    )
    with pytest.raises(RecipeError, match=r"distill.* compares images by layers .* trains on latents"):
        check(recipe, select(recipe))


def test_students_are_not_planned_without_the_decoder_of_their_files(tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text(recipe_text(autoencoder="vae"))
    result = CliRunner().invoke(app, ["plan", str(tmp_path / "tiny.toml"), "--budget", "8ms"])
    assert isinstance(result.exception, RecipeError)
    assert "data.autoencoder: edgegen plan times students alone" in str(result.exception)


@pytest.mark.slow
def test_a_whole_run_on_latents_ends_in_files_of_images_for_three_runtimes(tmp_path: Path) -> None:
    make_set(tmp_path, count=96)
    pictures = torch.from_numpy(np.load(tmp_path / "images.npz")["images"])[:, None].float() / 127.5 - 1
    trained_autoencoder(pictures, tmp_path / "vae", steps=200)
    (tmp_path / "tiny.toml").write_text(recipe_text(source="images.npz", autoencoder="vae"))
    folders = {
        result.stage: result.folder
        for result in run_recipe(tmp_path / "tiny.toml", runs=tmp_path / "runs", progress=Silent())
    }
    rows = read_json(folders["verify"] / "parity.json")["artifacts"]
    assert {row["backend"] for row in rows} == {"onnx", "executorch", "coreml"}
    assert {row["parity"]["status"] for row in rows} == {"ok"}
    manifest = read_json(folders["verify"] / "artifacts" / "manifest.json")["signature"]
    assert [spec["shape"] for spec in (manifest["inputs"][0], manifest["outputs"][0])] == [
        ["batch_size", 4, 4, 4],
        ["batch_size", 1, 8, 8],
    ]
    report = read_json(folders["report"] / "report.json")
    reconstructed = report["quality"]["autoencoder"]["0"]
    assert reconstructed["fd_local"] < report["quality"]["student"]["1"]["fd_local"]
    assert any("decoder of the AutoencoderTiny" in note for note in report["notes"])
    assert "after the autoencoder alone" in (folders["report"] / "report.html").read_text()
    torch_rows = read_json(folders["profile"] / "latency.json")["torch"]
    assert all(row["latency"]["p50_ms"] is not None for row in torch_rows)
