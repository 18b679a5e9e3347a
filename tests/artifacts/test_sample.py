"""`edgegen sample` with inputs of the user's: every runtime against PyTorch's picture, and what does not fit."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from typer.testing import CliRunner

from edgegen.artifacts import sample as sampling
from edgegen.artifacts.build import build, unchecked
from edgegen.artifacts.sample import sample_to_png
from edgegen.artifacts.sessions import ImageSource
from edgegen.artifacts.target import Target
from edgegen.cli.main import app
from edgegen.errors import DataError, EdgegenError, ExportError, UsageError
from edgegen.formats.manifest import write_manifest
from edgegen.support.storage import save_tensors
from edgegen.types import Signature, TensorSpec

pytestmark = pytest.mark.long

TILE = 32
TARGETS = ("onnx", "onnx:any_size", "onnx:generate", "executorch", "coreml-fp32", "coreml-fp32:generate")
# Names that are Python's words, and those of a loop over outputs.
SIGNATURE = Signature(
    (TensorSpec("class", ("batch_size", 3, TILE, TILE), "float32", "image", 0.0, 255.0),),
    (TensorSpec("outputs", ("batch_size", 3, 2 * TILE, 2 * TILE), "float32", "image", 0.0, 255.0),),
)


class Bicubic(nn.Module):
    """x2: an answer that is known for every pixel."""

    def forward(self, photo: Tensor) -> Tensor:
        return functional.interpolate(photo, scale_factor=2, mode="bicubic", align_corners=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, in_process_of_module: None) -> Path:
    """The files of Bicubic, and photo.png."""
    from sklearn.datasets import load_sample_image

    place = tmp_path_factory.mktemp("sampled")
    files = [
        build(Bicubic(), SIGNATURE, name="x2", target=Target.parse(target), folder=place, seed=0, metadata={}).artifact
        for target in TARGETS
    ]
    write_manifest(place, files, SIGNATURE, lineage={}, parity=unchecked(files))
    Image.fromarray(load_sample_image("china.jpg")[100:150, 210:287]).save(place / "photo.png")
    return place


def pixels(path: Path) -> NDArray[np.int64]:
    return np.asarray(Image.open(path)).astype(np.int64)


@pytest.mark.parametrize("file", [Target.parse(target).file("x2") for target in TARGETS])
def test_a_photo_by_every_runtime_is_what_pytorch_makes_of_it(file: str, folder: Path, tmp_path: Path) -> None:
    made = sample_to_png(str(folder / file), tmp_path / "out.png", inputs=[str(folder / "photo.png")])
    photo = torch.from_numpy(pixels(folder / "photo.png").transpose(2, 0, 1)[None]).float()
    expected = Bicubic()(photo).clamp(0, 255).round()[0].permute(1, 2, 0).numpy()
    assert pixels(tmp_path / "out.png").shape == (100, 154, 3)
    assert np.abs(pixels(tmp_path / "out.png") - expected).max() <= 1
    assert made["tiles"] == (1 if "any_size" in file else 12)
    assert (made["count"], made["size"], made["notes"]) == (1, [100, 154], [])
    assert made["source"] == str(folder / file)


def test_the_command_says_what_it_ran(folder: Path, tmp_path: Path) -> None:
    arguments = ["sample", str(folder), "--input", str(folder / "photo.png"), "-o", str(tmp_path / "a.png")]
    with pytest.raises(DataError, match=r"none of its files passed the comparison with PyTorch; name the one to run"):
        CliRunner().invoke(app, arguments, catch_exceptions=False)
    arguments[1] = str(folder / "x2_onnx_fp32.onnx")
    said = CliRunner().invoke(app, arguments, catch_exceptions=False).stdout
    assert said.startswith(f"{tmp_path / 'a.png'}: 1 image, 154x100 in 12 tiles, by {arguments[1]} (onnxruntime")
    assert pixels(tmp_path / "a.png").shape == (100, 154, 3)


FEATURES = TensorSpec("features", ("batch_size", 4), "float32", "features", -1.0, 1.0)


def source_of(run: Any, *inputs: TensorSpec, sizes: Any = ((TILE, TILE),), channels: int = 3) -> ImageSource:
    """A file that is a function."""
    output = TensorSpec("made", ("batch_size", channels, TILE, TILE), "float32", "image", 0.0, 1.0)
    classes = next((int(spec.high or 0) + 1 for spec in inputs if spec.role == "class"), 0)
    signature = Signature(inputs, (output,), classes)
    return ImageSource(run, signature, "a function", Path("net.onnx"), sizes, ("coat", "trouser")[:classes])


def photo_spec(name: str = "photo", channels: int = 3, **options: Any) -> TensorSpec:
    return TensorSpec(
        name, ("batch_size", channels, TILE, TILE), "float32", "image", **{"low": 0.0, "high": 1.0, **options}
    )


def sampled(monkeypatch: pytest.MonkeyPatch, source: ImageSource, **options: Any) -> dict[str, Any]:
    monkeypatch.setattr(sampling, "open_source", lambda *arguments, **keywords: source)
    source.place.write_bytes(b"a function")
    return sample_to_png("net.onnx", Path("out.png"), **options)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with images of 48x40 (width x height) and arrays."""
    monkeypatch.chdir(tmp_path)
    ramp = np.arange(40 * 48 * 3, dtype=np.int64).reshape(40, 48, 3) % 251
    Image.fromarray(ramp.astype(np.uint8)).save("rgb.png")
    Image.fromarray(ramp[..., 0].astype(np.uint8)).save("grey.png")
    Image.fromarray(np.repeat(ramp[..., :1], 3, 2).astype(np.uint8)).save("grey_as_rgb.png")
    Image.fromarray(ramp[:20, :24].astype(np.uint8)).save("small.png")
    np.savez("features.npz", features=np.linspace(-1, 1, 8, dtype=np.float32).reshape(2, 4))
    np.savez("other.npz", a=np.zeros(4), b=np.zeros(4))
    np.savez("bytes.npz", features=np.full(4, 200.0))
    np.savez("nan.npz", features=np.full(4, np.nan))
    save_tensors(Path("one.safetensors"), {"anything": torch.full((4,), 0.5)})
    return tmp_path


def test_several_inputs_by_name_are_tiled_together(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mask of half the photo's size, noise of the whole picture, and features that go with every tile."""
    mask = TensorSpec("mask", ("batch_size", 1, TILE // 2, TILE // 2), "float32", "image", 0.0, 1.0)
    noise = TensorSpec("sample", ("batch_size", 1, TILE, TILE), "float32", "noise")

    def run(inputs: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        large = inputs["mask"].repeat(2, 2).repeat(2, 3)
        assert inputs["features"].shape == (2, 4)
        return np.concatenate([inputs["photo"][:, :1], large, 0.5 + inputs["sample"] / 10], 1)

    source = source_of(run, photo_spec(), mask, noise, FEATURES)
    given = ["photo=rgb.png", "mask=small_grey.png", "features=features.npz"]
    Image.open("grey.png").resize((24, 20), Image.Resampling.NEAREST).save("small_grey.png")
    made = sampled(monkeypatch, source, inputs=given)
    assert (made["count"], made["tiles"], made["notes"]) == (2, 4, [])
    first = pixels(Path("out.png"))[:40, :48]  # of two, side by side
    assert np.array_equal(first[..., 0], pixels(Path("rgb.png"))[..., 0])
    assert np.array_equal(first[..., 1], pixels(Path("small_grey.png")).repeat(2, 0).repeat(2, 1))
    field = first[..., 2].astype(float)
    assert 20 < field.std() < 31, "noise of one field: an average of two tiles' noises would be smoother"


def test_what_is_not_given_is_drawn_and_said(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(inputs: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        return np.broadcast_to(inputs["features"].mean(1)[:, None, None, None], (len(inputs["photo"]), 3, TILE, TILE))

    source = source_of(run, photo_spec(low=None, high=None), FEATURES)
    made = sampled(monkeypatch, source, inputs=["rgb.png"])
    assert made["notes"] == [
        "features: random numbers; give your own by --input features=FILE.npz",
        "photo: its signature has no range; black is -1 and white 1",
    ]
    sampled(monkeypatch, source, inputs=["rgb.png", "features=one.safetensors"])
    assert set(pixels(Path("out.png")).ravel()) == {128}


def test_grey_and_colour(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    colour = source_of(lambda inputs: inputs["photo"], photo_spec())
    sampled(monkeypatch, colour, inputs=["grey.png"])
    assert np.array_equal(pixels(Path("out.png")), pixels(Path("grey_as_rgb.png")))
    grey = source_of(lambda inputs: inputs["photo"], photo_spec(channels=1), channels=1)
    sampled(monkeypatch, grey, inputs=["grey_as_rgb.png"])
    assert np.array_equal(pixels(Path("out.png")), pixels(Path("grey.png")))


def test_a_file_for_any_size_gets_a_size_that_it_takes(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks that halve the picture four times refuse 40x48, or give another size."""
    shapes = []

    def run(inputs: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        shapes.append(inputs["photo"].shape[2:])
        height, width = shapes[-1]
        return inputs["photo"][:, :, : height // 16 * 16, : width // 16 * 16]

    made = sampled(monkeypatch, source_of(run, photo_spec(), sizes=None), inputs=["rgb.png"])
    assert shapes[0] == (40, 48)
    assert shapes[-1] == (48, 48)
    assert (made["size"], made["tiles"]) == ([40, 48], 1)
    assert np.array_equal(pixels(Path("out.png")), pixels(Path("rgb.png")))

    def refuse(inputs: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        raise ExportError("Concat: sizes differ")

    with pytest.raises(ExportError, match=r"net.onnx: 40x48 \(height x width\) is refused: Concat: sizes differ"):
        sampled(monkeypatch, source_of(refuse, photo_spec(), sizes=None), inputs=["rgb.png"])


def test_a_file_of_several_sizes_takes_its_own_in_one_piece(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = source_of(lambda inputs: inputs["photo"], photo_spec(), sizes=((TILE, TILE), (40, 48)))
    assert sampled(monkeypatch, source, inputs=["rgb.png"])["tiles"] == 1
    assert sampled(monkeypatch, source, inputs=["small.png"])["size"] == [20, 24]


CLASS = TensorSpec("kind", ("batch_size",), "int64", "class", 0, 1)


def test_a_class_by_its_name_or_number(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(inputs: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        return np.ones((1, 3, TILE, TILE)) * inputs["kind"][:, None, None, None]

    source = source_of(run, TensorSpec("z", ("batch_size", 1, TILE, TILE), "float32", "noise"), CLASS)
    for label in ("trouser", "1"):
        assert sampled(monkeypatch, source, label=label)["count"] == 16
        assert set(pixels(Path("out.png"))[:TILE, :TILE].ravel()) == {255}
    with pytest.raises(UsageError, match=r"--class dress: there are 0 coat, 1 trouser"):
        sampled(monkeypatch, source, label="dress")


@pytest.mark.parametrize(
    ("inputs", "error", "message"),
    [
        ([], UsageError, r"net.onnx makes its image from another one, 'photo': give that by --input photo.png"),
        (["phot=rgb.png"], UsageError, r"--input phot=rgb.png: no input 'phot'.*Did you mean 'photo'"),
        (["rgb.png", "photo=grey.png"], UsageError, r"--input photo=grey.png: 'photo' is given twice"),
        (["lost.png"], DataError, r"no file lost.png"),
        (["lost.npz"], DataError, r"no file lost.npz"),
        (["rgb.png", "features=rgb.png"], DataError, r"'features' is no picture but features batch_sizex4"),
        (["rgb.png", "features=other.npz"], DataError, r"other.npz: no array 'features'; there are: a, b"),
        (["rgb.png", "features=bytes.npz"], DataError, r"values from 200 to 200; the signature says -1 to 1"),
        (["rgb.png", "features=nan.npz"], DataError, r"values that are not finite"),
        (["features.npz", "features=features.npz"], DataError, r"'photo' has shape 2x4; needed: n x 3xheightxwidth"),
        (["photo=text.png"], DataError, r"text.png: not a whole image file"),
    ],
)
def test_inputs_that_do_not_fit(
    inputs: list[str], error: type[EdgegenError], message: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("text.png").write_text("no picture")
    source = source_of(lambda inputs: inputs["photo"], photo_spec(), FEATURES)
    with pytest.raises(error, match=message):
        sampled(monkeypatch, source, inputs=inputs)
    assert not Path("out.png").exists()


def test_images_that_do_not_fit_each_other_or_the_network(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    two = source_of(lambda inputs: inputs["photo"], photo_spec(), photo_spec("mask", 1))
    with pytest.raises(UsageError, match=r"it takes 2 images; say which: --input photo=rgb.png"):
        sampled(monkeypatch, two, inputs=["rgb.png"])
    with pytest.raises(
        DataError, match=r"rgb.png: is RGB, and 'mask' takes 1 channel .* red, green, blue\); make it grey"
    ):
        sampled(monkeypatch, two, inputs=["photo=rgb.png", "mask=rgb.png"])
    Image.open("grey.png").resize((24, 20)).save("half.png")
    with pytest.raises(
        DataError, match=r"half.png: 20x24 \(height x width\); beside rgb.png of 40x48, 'mask' must have"
    ):
        sampled(monkeypatch, two, inputs=["photo=rgb.png", "mask=half.png"])
    with pytest.raises(UsageError, match=r"its output 'made' is image batch_sizex4x32x32, no image to show"):
        sampled(monkeypatch, source_of(None, photo_spec(), channels=4), inputs=["rgb.png"])
    noise = TensorSpec("z", ("batch_size", 1, TILE, TILE), "float32", "noise")
    with pytest.raises(UsageError, match=r"it takes no image; its inputs are z \(noise\)"):
        sampled(monkeypatch, source_of(None, noise), inputs=["rgb.png"])
