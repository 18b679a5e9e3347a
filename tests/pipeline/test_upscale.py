"""data.upscale: networks that make a large image of a small one, from the data to the report and a photo."""

import json
import textwrap
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import TINY
from PIL import Image

from edgegen.artifacts.sample import sample_to_png
from edgegen.errors import DataError, RecipeError
from edgegen.models.bicubic import Bicubic
from edgegen.models.edge_unet import EdgeUNet, EdgeUNetConfig
from edgegen.models.generator import load_ours, save
from edgegen.models.load import load
from edgegen.models.load import save as save_any
from edgegen.pipeline.graph import check, select
from edgegen.pipeline.planning import plan
from edgegen.pipeline.run import dry_run, run_recipe
from edgegen.pipeline.run_folder import RunFolder
from edgegen.pipeline.stages.data import read_training_images
from edgegen.pipeline.stages.pairs import read_pairs
from edgegen.pipeline.student import new_student
from edgegen.program.image_noise import natural_images
from edgegen.recipe import Recipe, parse
from edgegen.support.pixels import to_float, to_uint8
from edgegen.support.storage import load_tensors
from edgegen.types import Signature

UPSCALE = TINY.replace("[teacher]", '[data]\nsource = "photos"\nupscale = 2\n[teacher]', 1)


def photos(folder: Path, *, count: int = 48, side: int = 16) -> None:
    """Two sub-folders, so that there are classes, which only the features of the metrics know."""
    images = to_uint8(natural_images(0, 0, count, (3, side, side), (-1.0, 1.0)))
    for number, image in enumerate(images):
        place = folder / "photos" / "ab"[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"{number:03}.png")


def recipe(text: str = "", **data: Any) -> Recipe:
    values = tomllib.loads(UPSCALE + textwrap.dedent(text))
    values["data"] |= data
    return parse(values, where="test")


def keys(values: Recipe, base: Path) -> dict[str, str]:
    planned = plan(values, select(values), base=base, folder=RunFolder(base / "run"))
    return {item.stage.name: item.key for item in planned}


def test_the_recipe_takes_an_image_or_a_class() -> None:
    assert recipe().data.conditional is False
    with pytest.raises(
        RecipeError, match="upscale and conditional = true: the generator takes a small image or a class"
    ):
        recipe(conditional=True)
    with pytest.raises(RecipeError, match="upscale and autoencoder"):
        recipe(autoencoder="vae")
    with pytest.raises(RecipeError, match=r"data.upscale: .*greater than or equal to 2"):
        recipe(upscale=1)
    assert "upscale" not in parse({"name": "a", "slim": {"keep": 0.5}}, where="test").model_dump()["data"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('coupling = "minibatch_ot"', "teacher.method = 'flow_matching' compares or .* give coupling = 'independent'"),
        ('[finish]\nmethod = "drifting"', "finish.method = 'drifting' compares .* give another method"),
        ('[finish]\nmethod = "inductive_moment_matching"', "moment_matching' compares .* give group = 1"),
    ],
)
def test_a_method_within_a_condition_is_refused_by_name(text: str, message: str) -> None:
    made = UPSCALE.replace("[teacher]", f"[teacher]\n{text}") if text.startswith("coupling") else f"{UPSCALE}{text}\n"
    values = parse(tomllib.loads(made), where="test")
    with pytest.raises(RecipeError, match=message):
        check(values, select(values))
    without = parse({**tomllib.loads(made), "data": {"source": "digits"}}, where="test")
    check(without, select(without))


def test_images_of_another_size_are_refused(tmp_path: Path) -> None:
    photos(tmp_path, side=18)
    (tmp_path / "r.toml").write_text(UPSCALE.replace("upscale = 2", "upscale = 4"))
    with pytest.raises(DataError, match=r"data.upscale = 4: photos has images of 18x18 pixels, which are no multiple"):
        run_recipe(tmp_path / "r.toml", runs=tmp_path / "runs", to="data")


def test_a_teacher_without_an_image_is_refused(tmp_path: Path) -> None:
    photos(tmp_path)
    network = EdgeUNet(EdgeUNetConfig(sample_size=16, in_channels=3, channels=(8, 8), blocks=1, embedding=8))
    save(network, tmp_path / "teacher", about={})
    text = (
        UPSCALE[: UPSCALE.index("[teacher]")] + '[teacher]\nfolder = "teacher"\n' + UPSCALE[UPSCALE.index("[pairs]") :]
    )
    (tmp_path / "r.toml").write_text(text)
    with pytest.raises(DataError, match=r"teacher.folder: takes no image beside the noise, and data.upscale is 2"):
        run_recipe(tmp_path / "r.toml", runs=tmp_path / "runs", to="teacher")


def test_a_network_that_takes_an_image_is_read_again_and_starts_from_it(tmp_path: Path) -> None:
    config = EdgeUNetConfig(sample_size=(8, 12), in_channels=3, channels=(8, 8), blocks=1, embedding=8, upscale=4)
    network = EdgeUNet(config)
    save(network, tmp_path / "saved", about={})
    again = load(tmp_path / "saved")
    assert again.net.config == config
    assert [list(spec.shape[1:]) for spec in again.signature.inputs] == [[3, 8, 12], [3, 2, 3]]
    x, small = torch.randn(2, 3, 8, 12), torch.rand(2, 3, 2, 3)
    # The last layer of a new network is zero: its one step ends at the small image, each pixel a block.
    blocks = small.repeat_interleave(4, dim=2).repeat_interleave(4, dim=3)
    torch.testing.assert_close(x - network(x, torch.ones(2), small), blocks)
    with pytest.raises(ValueError, match="makes its image from a smaller one"):
        network(x, torch.ones(2))
    with pytest.raises(DataError, match="not the settings of an EdgeUNet: upscale is 5"):
        load_ours(tmp_path / "saved", {**config.to_dict(), "upscale": 5})


def test_bicubic_is_pillows_up_to_its_kernel() -> None:
    small = natural_images(3, 0, 1, (3, 8, 8), (-1.0, 1.0))
    (ours,) = to_uint8(-Bicubic(2)(torch.zeros(1, 3, 16, 16), torch.ones(1), torch.from_numpy(small)))
    theirs = Image.fromarray(to_uint8(small)[0]).resize((16, 16), Image.Resampling.BICUBIC)  # a = -0.5
    assert np.abs(ours.astype(int) - np.asarray(theirs, dtype=int)).mean() < 4


FACTORY = """
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 3, 3, padding=1)

    def forward(self, x, t, condition):
        small = nn.functional.interpolate(condition, scale_factor=2.0)
        return self.last((self.first(x) + t[:, None, None, None]).relu()) - small
"""


def test_students_of_other_kinds(tmp_path: Path) -> None:
    (tmp_path / "nets.py").write_text(FACTORY)
    signature = Signature.of(channels=3, size=8, num_classes=0, upscale=2)
    table = {"name": "a", "data": {"upscale": 2}, "distill": {"method": "flow_matching"}}
    own = parse({**table, "slim": {"method": "flow_matching", "network": "nets.py:Net"}}, where="test")
    student = new_student(own, None, signature, base=tmp_path)
    save_any(student.net, tmp_path / "saved", about={})
    again = load(tmp_path / "saved")
    assert again.signature == signature
    given = torch.randn(3, 3, 8, 8), torch.ones(3), torch.rand(3, 3, 4, 4)
    torch.testing.assert_close(again.net(*given), student.net(*given))
    of_diffusers = parse({**table, "slim": {"method": "flow_matching", "network": "diffusers:a.json"}}, where="test")
    with pytest.raises(RecipeError, match="takes an image beside the noise, which a UNet2DModel does not"):
        new_student(of_diffusers, None, signature, base=tmp_path)


def test_the_shipped_recipe_can_be_planned() -> None:
    path = Path(__file__).parents[2] / "examples" / "upscale_flow.toml"
    shipped, planned = dry_run(path)
    assert shipped.data.upscale == 2
    assert [item.stage.name for item in planned][:5] == ["data", "teacher", "pairs", "slim", "distill"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Path]]:
    base = tmp_path_factory.mktemp("upscale")
    photos(base)
    (base / "r.toml").write_text(UPSCALE)
    results = run_recipe(base / "r.toml", runs=base / "runs", to="evaluate")
    return base, {result.stage: result.folder for result in results}


def test_pairs_hold_small_copies_of_training_images(trained: tuple[Path, dict[str, Path]]) -> None:
    _, folders = trained
    training = read_training_images(folders["data"])
    large, small = training.images.float(), training.condition
    means = large.reshape(len(large), 3, 8, 2, 8, 2).mean(dim=(3, 5))
    assert (means - small.float()).abs().max() <= 0.5
    stored = read_pairs(folders["pairs"]).condition
    assert stored.dtype == torch.uint8
    known = {image.numpy().tobytes(): number for number, image in enumerate(small)}
    counts = np.bincount([known[image.numpy().tobytes()] for image in stored], minlength=len(small))
    assert counts.max() - counts.min() <= 1, "each as often as the others"


def test_the_figures_compare_with_the_true_image(trained: tuple[Path, dict[str, Path]]) -> None:
    _, folders = trained
    judged = json.loads((folders["evaluate"] / "quality.json").read_text())["quality"]
    assert judged.keys() >= {"bicubic", "teacher", "student"}
    assert judged["floor"]["0"]["psnr_db"] is None
    tensors = load_tensors(folders["data"] / "images.safetensors")
    truths = to_float(tensors["heldout_images"].numpy())
    small = to_float(tensors["heldout_small"].numpy())
    images = to_float(to_uint8(-Bicubic(2)(torch.zeros_like(truths), torch.ones(len(truths)), small)))
    psnr_db = (10 * torch.log10(4 / (images - truths).square().mean(dim=(1, 2, 3)))).mean()
    assert judged["bicubic"]["1"]["psnr_db"] == pytest.approx(float(psnr_db), abs=0.05)
    assert 0.3 < judged["bicubic"]["1"]["ssim"] < 1
    pictures = load_tensors(folders["evaluate"] / "pictures.safetensors")
    shown = pictures["real"].float().reshape(-1, 8, 2, 8, 2, 3).mean(dim=(2, 4))
    assert (pictures["low"][:, ::2, ::2].float() - shown).abs().max() <= 1, "the truths stand below their small copies"


def test_only_what_reads_small_images_depends_on_the_data_as_well(tmp_path: Path) -> None:
    of_images = recipe()
    needs = {stage.name: stage.needs for stage in select(of_images)}
    assert all("data" in needs[name] for name in ("pairs", "slim", "distill", "export", "quantize"))
    photos(tmp_path)
    assert keys(of_images, tmp_path)["data"] != keys(recipe(upscale=4), tmp_path)["data"]


@pytest.mark.slow
def test_all_stages_end_in_files_of_three_runtimes_that_enlarge_a_photo(tmp_path: Path) -> None:
    photos(tmp_path)
    files = '[export]\nartifacts = ["onnx-fp32", "onnx-w8a8", "executorch-fp32", "executorch-w8a8", "coreml-fp32"]\n'
    (tmp_path / "r.toml").write_text(UPSCALE + files)
    results = {result.stage: result.folder for result in run_recipe(tmp_path / "r.toml", runs=tmp_path / "runs")}
    rows = json.loads((results["verify"] / "parity.json").read_text())["artifacts"]
    assert len(rows) == 5
    for row in rows:
        assert (row["parity"]["status"], row["parity"]["origin"]) == ("ok", "real"), row
    report = (results["report"] / "report.html").read_text()
    assert all(words in report for words in ("small images", "bicubic", "true images", "PSNR dB"))
    photo = to_uint8(natural_images(9, 0, 1, (3, 20, 28), (-1.0, 1.0)))[0]
    Image.fromarray(photo).save(tmp_path / "photo.png")
    for backend, suffix in (("onnx", "onnx"), ("executorch", "pte")):
        source = results["verify"] / "artifacts" / f"tiny_{backend}_fp32.{suffix}"
        made = sample_to_png(source, tmp_path / "large.png", inputs=[str(tmp_path / "photo.png")])
        assert (made["size"], made["count"]) == ([40, 56], 1)
        assert made["tiles"] > 1
    with Image.open(tmp_path / "large.png") as image:
        blocks = np.asarray(image, dtype=float)[:40, :56].reshape(20, 2, 28, 2, 3).mean(axis=(1, 3))
    # Hardly trained, yet the network starts from the small image.
    assert np.corrcoef(blocks.ravel(), photo.ravel())[0, 1] > 0.5
