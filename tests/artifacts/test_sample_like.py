"""A picture's recipe makes the picture again: by the artifact that made it, and by another one only where asked to."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from bundles import bundled, exported
from PIL import Image
from typer.testing import CliRunner

from edgegen.artifacts.sample import sample_to_png
from edgegen.artifacts.sample_like import sample_like
from edgegen.cli.main import app
from edgegen.errors import DataError, UsageError
from edgegen.formats.picture import read_recipe
from edgegen.models.edge_unet import EdgeUNet, EdgeUNetConfig
from edgegen.models.generator import save
from edgegen.support.storage import sha256_of

pytestmark = pytest.mark.usefixtures("in_process_of_module")
ONNX, PTE = "net_onnx_fp32.onnx", "net_executorch_fp32.pte"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, in_process_of_module: None) -> Path:
    return exported(tmp_path_factory.mktemp("like") / "export", targets=("onnx-fp32", "executorch-fp32"))


@pytest.fixture
def picture(files: Path, tmp_path: Path) -> Path:
    """Nine images of the second file, all of one class."""
    sample_to_png(files / PTE, tmp_path / "a.png", count=9, seed=1 << 40, label="class 3")
    return tmp_path / "a.png"


def test_the_recipe_says_what_made_the_picture(files: Path, picture: Path) -> None:
    recipe = read_recipe(picture)
    assert recipe.artifact == sha256_of(files / PTE)
    assert (recipe.seed, recipe.label, recipe.count, recipe.steps, recipe.inputs) == (1 << 40, 3, 9, None, {})
    shown = CliRunner().invoke(app, ["inspect", str(picture)]).stdout
    assert all(part in shown for part in ("9 images", recipe.artifact, str(1 << 40), "class     3"))
    content = json.loads(CliRunner().invoke(app, ["inspect", str(picture), "--json"]).stdout)
    assert content["recipe"]["schema"] == "edgegen.picture/1"


def test_the_same_artifact_makes_the_same_pixels_wherever_it_lies(files: Path, picture: Path, tmp_path: Path) -> None:
    bundle = bundled(files, tmp_path / "bundle")
    for number, source in enumerate((files / PTE, files, bundle)):
        result = sample_like(picture, str(source), tmp_path / f"{number}.png")
        assert result["equal"]
        assert result["source"].endswith(PTE)  # not the first file of the folder
        assert (tmp_path / f"{number}.png").read_bytes() == picture.read_bytes()


def test_without_a_source_it_is_looked_for(
    files: Path, picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="which is neither in runs, exports nor bundles; name its file"):
        sample_like(picture, None, tmp_path / "b.png")
    (tmp_path / "exports" / "damaged").mkdir(parents=True)
    (tmp_path / "exports" / "damaged" / "manifest.json").write_text("{")
    shutil.copytree(files, tmp_path / "exports" / "net")
    done = CliRunner().invoke(app, ["sample", "--like", "a.png", "-o", "b.png"])
    assert done.exit_code == 0, done.output
    assert f"exports/net/{PTE}" in done.stdout
    assert "the same pixels" in done.stdout


def test_another_artifact_is_refused_by_name(files: Path, picture: Path, tmp_path: Path) -> None:
    output = tmp_path / "b.png"
    with pytest.raises(DataError, match=rf"made by the artifact with SHA-256 .* and .*{ONNX} has .*--other-artifact"):
        sample_like(picture, str(files / ONNX), output)
    assert not output.exists()
    result = sample_like(picture, str(files / ONNX), output, other_artifact=True)
    difference = np.asarray(Image.open(output)).astype(int) - np.asarray(Image.open(picture))
    assert np.abs(difference).max() <= 1  # the same network in another runtime
    assert read_recipe(output).artifact == sha256_of(files / ONNX)
    assert result["equal"] == (not difference.any())


def test_a_changed_picture_is_told_from_one_that_is_made_again(files: Path, picture: Path, tmp_path: Path) -> None:
    from PIL.PngImagePlugin import PngInfo

    chunks, pixels = PngInfo(), np.asarray(Image.open(picture)).copy()
    chunks.add_text("edgegen", read_recipe(picture).text())
    pixels[0, 0] ^= 64
    Image.fromarray(pixels).save(picture, pnginfo=chunks)
    result = sample_like(picture, str(files), tmp_path / "b.png")
    assert not result["equal"]
    assert "1 of 676 values differ, by at most 64 of 255" in result["notes"][-1]
    Image.fromarray(pixels[:5]).save(picture, pnginfo=chunks)
    assert "has another size" in sample_like(picture, str(files), tmp_path / "b.png")["notes"][-1]


def test_a_generator_folder_is_known_by_its_hash_and_steps(tmp_path: Path) -> None:
    config = EdgeUNetConfig(sample_size=8, in_channels=1, channels=(8,), blocks=1, embedding=8, num_classes=2)
    save(EdgeUNet(config), tmp_path / "net", about={"role": "student"})
    sample_to_png(tmp_path / "net", tmp_path / "a.png", count=4, steps=3)
    assert read_recipe(tmp_path / "a.png").steps == 3
    assert sample_like(tmp_path / "a.png", str(tmp_path / "net"), tmp_path / "b.png")["equal"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--like", "a.png", "--seed", "0"], "--seed does not go with --like"),
        (["--like", "a.png", "--count", "3"], "--count does not go with --like"),
        (["--like", "a.png", "-o", "./a.png"], "is the file that is to be made again"),
        (["net", "--other-artifact"], "--other-artifact goes with --like"),
        ([], "give a SOURCE"),
    ],
)
def test_what_does_not_go_together(
    picture: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(picture.parent)
    error = CliRunner().invoke(app, ["sample", *arguments]).exception
    assert isinstance(error, UsageError)
    assert message in str(error)


def test_a_label_of_the_picture_is_a_number_whatever_the_classes_are_called(files: Path, tmp_path: Path) -> None:
    copy = tmp_path / "export"
    shutil.copytree(files, copy)
    content = json.loads((copy / "manifest.json").read_text())
    content["class_names"] = [str(9 - number) for number in range(10)]
    (copy / "manifest.json").write_text(json.dumps(content))
    sample_to_png(copy / ONNX, tmp_path / "a.png", count=1, label="7")
    assert read_recipe(tmp_path / "a.png").label == 2
    assert sample_like(tmp_path / "a.png", str(copy), tmp_path / "b.png")["equal"]
