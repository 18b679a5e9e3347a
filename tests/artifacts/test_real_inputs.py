"""Real inputs of a user: how they are read and split, and a verdict that holds for them."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.numpy import save_file
from typer.testing import CliRunner

from edgegen.artifacts.export import ExportSettings, export_source
from edgegen.artifacts.real_inputs import InputFiles, read_real_inputs
from edgegen.artifacts.target import Target
from edgegen.cli.main import app
from edgegen.errors import DataError, EdgegenError, UsageError
from edgegen.program.image_noise import natural_images
from edgegen.support.progress import Silent
from edgegen.types import Signature, TensorSpec

PHOTO = TensorSpec("photo", ("batch_size", 3, 16, 24), "float32", "image", 0.0, 1.0)
STYLE = TensorSpec("style", ("batch_size", 5), "float32", "features", -2.0, 2.0)
NOISE = TensorSpec("sample", ("batch_size", 1, 8, 8), "float32", "noise")
OUT = TensorSpec("out_sample", ("batch_size", 3, 16, 24), "float32", "image", 0.0, 1.0)
SIGNATURE = Signature((PHOTO, STYLE), (OUT,))


def bytes_of(count: int, height: int = 16, width: int = 24) -> NDArray[np.uint8]:
    images = natural_images(3, 0, count, (3, height, width), (0.0, 255.0))
    return images.transpose(0, 2, 3, 1).round().astype(np.uint8)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Twelve photographs of several sizes in two folders, one of them twice."""
    for number, (height, width) in enumerate([(40, 40), (16, 24), (100, 30)] * 4):
        path = tmp_path / "photos" / f"trip{number % 2}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(bytes_of(number + 1, height, width)[number]).save(path)
    Image.open(tmp_path / "photos/trip0/0.png").save(tmp_path / "photos/trip0/again.png")
    return tmp_path / "photos"


def read(signature: Signature, *texts: str) -> tuple[Any, dict[str, Any]]:
    return read_real_inputs(InputFiles.parse(texts), signature)


def test_images_of_all_sizes_are_fitted_and_no_image_is_in_both_parts(photos: Path) -> None:
    real, facts = read(Signature((PHOTO,), (OUT,)), str(photos))
    assert facts == {
        "files": {"photo": "photos"},
        "sha256": facts["sha256"],
        "calibration": 9,
        "verification": 3,
        "repeated": 1,
    }
    parts = (real.calibration["photo"], real.verification["photo"])
    assert [part.shape for part in parts] == [(9, 3, 16, 24), (3, 3, 16, 24)]
    assert all(part.dtype == np.float32 and part.min() >= 0 and part.max() <= 1 for part in parts)
    rows = {row.tobytes() for part in parts for row in part}
    assert len(rows) == 12
    # One that has the input's size already is taken as it is.
    as_it_is = np.asarray(Image.open(photos / "trip1/1.png"), np.float32).transpose(2, 0, 1) / 255
    assert any(np.allclose(row, as_it_is, atol=1e-6) for part in parts for row in part)


def test_so_many_verify_as_are_compared_and_all_others_calibrate(tmp_path: Path) -> None:
    _, facts = read(SIGNATURE, arrays(tmp_path, style=np.linspace(-2, 2, 1000, dtype=np.float32).reshape(200, 5)))
    assert (facts["calibration"], facts["verification"]) == (176, 24)


def test_names_and_order_of_the_files_change_nothing(photos: Path, tmp_path: Path) -> None:
    signature = Signature((PHOTO,), (OUT,))
    before = read(signature, str(photos))
    for number, path in enumerate(sorted(photos.rglob("*.png"), reverse=True)):
        path.rename(photos / f"new{number}.png")
    after = read(signature, str(photos))
    np.testing.assert_array_equal(before[0].verification["photo"], after[0].verification["photo"])
    assert before[1]["sha256"] == after[1]["sha256"]


def test_samples_of_several_inputs_belong_together(tmp_path: Path) -> None:
    images, styles = bytes_of(8), np.linspace(-2, 2, 40, dtype=np.float32).reshape(8, 5)
    np.savez(tmp_path / "both.npz", photo=images, style=styles, unused=np.zeros(3))
    real, _ = read(SIGNATURE, str(tmp_path / "both.npz"))
    for part in (real.calibration, real.verification):
        for photo, style in zip(part["photo"], part["style"], strict=True):
            (number,) = np.flatnonzero((styles == style).all(axis=1))
            np.testing.assert_allclose(photo, images[number].transpose(2, 0, 1) / 255, atol=1e-6)
    save_file({"style": styles}, tmp_path / "style.safetensors")
    np.save(tmp_path / "x.npy", images)
    separate, _ = read(SIGNATURE, f"photo={tmp_path / 'both.npz'}", str(tmp_path / "style.safetensors"))
    np.testing.assert_array_equal(separate.verification["style"], real.verification["style"])


def arrays(tmp_path: Path, **values: NDArray[Any]) -> str:
    np.savez(tmp_path / "given.npz", **values)  # type: ignore[arg-type]
    return str(tmp_path / "given.npz")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"style": np.zeros((4, 6), np.float32)}, "style: float32 \\(4, 6\\); needed are numbers \\(n, 5\\)"),
        ({"style": np.full((4, 5), np.nan, np.float32)}, "20 values are not finite"),
        ({"style": np.full((4, 5), 3.0, np.float32)}, "values from 3 to 3; the signature says -2 to 2"),
        ({"style": np.zeros((4, 5), np.float32)}, "1 different sample"),
        ({"style": np.eye(5, dtype=np.float32), "photo": bytes_of(3)}, "same number of samples; found 3 of photo, 5"),
        ({"other": np.zeros(3), "more": np.zeros(3)}, "no array for photo or style; found other, more"),
    ],
)
def test_wrong_arrays_are_named(tmp_path: Path, values: dict[str, NDArray[Any]], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(SIGNATURE, arrays(tmp_path, **values))


def test_wrong_places_are_named(photos: Path, tmp_path: Path) -> None:
    two_images = Signature((PHOTO, TensorSpec("mask", PHOTO.shape, "float32", "image", 0.0, 1.0)), (OUT,))
    rangeless = TensorSpec("photo", PHOTO.shape, "float32", "image")
    cases: list[tuple[Signature, str, type[EdgegenError], str]] = [
        (SIGNATURE, "nowhere", DataError, "no inputs at nowhere"),
        (SIGNATURE, f"picture={photos}", UsageError, "'picture'"),
        (SIGNATURE, f"style={photos}", UsageError, "style is features: give an .npz"),
        (two_images, str(photos), UsageError, "for which input"),
        (Signature((NOISE,), (OUT,)), str(photos), UsageError, "all inputs are noise or a class"),
        (Signature((rangeless,), (OUT,)), str(photos), UsageError, "write low and high"),
    ]
    for signature, text, error, message in cases:
        with pytest.raises(error, match=message):
            read(signature, text)


NET = """
import torch
from torch import nn

class Edges(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 16, 3, padding=1)
        self.last = nn.Conv2d(16, 3, 3, padding=1)

    def forward(self, photo):
        return photo + 0.1 * self.last(torch.relu(self.first(photo)))

def make(): return Edges().eval()
"""
TOML = """
[[inputs]]
name = "photo"
shape = ["batch_size", 3, 16, 24]
role = "image"
RANGE
[[outputs]]
shape = ["batch_size", 3, 16, 24]
role = "image"
RANGE
"""
RANGE = "low = 0.0\nhigh = 1.0"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "net.py").write_text(NET)
    (tmp_path / "net.toml").write_text(TOML.replace("RANGE", RANGE))
    (tmp_path / "rangeless.toml").write_text(TOML.replace("RANGE", "", 1).replace("RANGE", RANGE))
    (tmp_path / "sampled.toml").write_text(
        TOML.replace("RANGE", RANGE + '\nsamples = "real.npz"', 1).replace("RANGE", RANGE)
    )
    np.savez(tmp_path / "real.npz", photo=bytes_of(40))
    return tmp_path


def test_the_verdict_is_that_of_the_held_out_real_inputs(source: Path, in_process: None) -> None:
    settings = ExportSettings((Target.parse("onnx-w8a8"),), measure=False)
    (done,) = export_source(
        f"{source / 'net.py'}:make", source / "out", settings, signature=source / "sampled.toml", progress=Silent()
    )
    (parity,) = done.parity.values()
    assert (parity.status, parity.origin, parity.samples) == ("ok", "real", 10)
    lineage = json.loads((source / "out/manifest.json").read_text())["lineage"]["inputs"]
    assert (lineage["files"], lineage["calibration"], lineage["verification"]) == ({"photo": "real.npz"}, 30, 10)
    # The figures, made again from the file and the same images by nothing of ours but the split.
    real, _ = read(done.signature, str(source / "real.npz"))
    photos = real.verification["photo"]
    session = onnxruntime.InferenceSession(str(source / "out" / done.built[0].artifact.file))
    outputs = np.concatenate([session.run(None, {"photo": photos[i : i + 2]})[0] for i in range(0, 10, 2)])
    namespace: dict[str, Any] = {}
    exec(NET, namespace)
    with torch.no_grad():
        expected = namespace["make"]()(torch.from_numpy(photos)).numpy()
    errors = ((outputs.astype(np.float64) - expected) ** 2).mean(axis=(1, 2, 3))
    assert parity.psnr_db == pytest.approx(10 * np.log10(1 / errors.mean()), abs=0.05)
    assert parity.worst_db == pytest.approx(10 * np.log10(1 / errors.max()), abs=0.05)
    assert parity.ssim is not None
    assert 0.9 < parity.ssim <= 1
    card = (source / "out/README.md").read_text()
    assert "Checked on real inputs: `photo` from real.npz, 10 samples" in card
    assert "caution" not in done.built[0].artifact.details


def test_without_them_everything_says_synthetic(source: Path, in_process: None) -> None:
    arguments = ["export", f"{source / 'net.py'}:make", "--signature", str(source / "net.toml"), "--no-measure"]
    result = CliRunner().invoke(app, [*arguments, "--to", "onnx-w8a8", "-o", str(source / "out")])
    assert result.exit_code == 0, result.output
    assert "checked on synthetic inputs only" in result.stdout
    assert "calibrated on synthetic values of photo; give real ones by --inputs" in result.stdout
    assert "**Checked on synthetic inputs only**" in (source / "out/README.md").read_text()
    (row,) = json.loads((source / "out/manifest.json").read_text())["artifacts"]
    assert row["parity"]["origin"] == "synthetic"


def test_an_image_without_a_range_is_not_calibrated(source: Path, in_process: None) -> None:
    arguments = ["export", f"{source / 'net.py'}:make", "--signature", str(source / "rangeless.toml"), "--no-measure"]
    refused = CliRunner().invoke(app, [*arguments, "--to", "onnx,onnx-w8a8", "-o", str(source / "out")])
    assert isinstance(refused.exception, UsageError)
    assert "no low and high for the image photo" in str(refused.exception)
    assert not (source / "out").exists()


def test_a_program_without_a_signature_may_take_images(source: Path, tmp_path: Path) -> None:
    namespace: dict[str, Any] = {}
    exec(NET, namespace)
    torch.export.save(torch.export.export(namespace["make"](), (torch.zeros(1, 3, 16, 24),)), tmp_path / "net.pt2")
    refused = CliRunner().invoke(
        app, ["export", str(tmp_path / "net.pt2"), "--to", "onnx-w8a8", "-o", str(tmp_path / "o")]
    )
    assert isinstance(refused.exception, UsageError)
    assert "nothing says whether sample is noise, an image or something else" in str(refused.exception)


LACKING = """
from torch import nn

def make():
    return nn.Sequential(nn.ConvTranspose2d(3, 8, 4, 2, 3), nn.PReLU(8), nn.Conv2d(8, 3, 5), nn.Conv2d(3, 3, 3))
"""


def test_an_output_that_lacks_a_margin_is_right_at_every_size(tmp_path: Path, in_process: None) -> None:
    """2 n - 10 pixels of n: without padding, as waifu2x's networks are."""
    (tmp_path / "net.py").write_text(LACKING)
    small = 'shape = ["batch_size", 3, 16, 24]\nrole = "image"\nlow = 0.0\nhigh = 1.0\n'
    large = 'shape = ["batch_size", 3, 22, 38]\nrole = "image"\nmargin = 10\n'
    (tmp_path / "net.toml").write_text(f'[[inputs]]\nname = "photo"\n{small}[[outputs]]\n{large}')
    settings = ExportSettings((Target.parse("onnx:any_size"),), measure=False, samples=2)
    (done,) = export_source(
        f"{tmp_path / 'net.py'}:make", tmp_path / "out", settings, signature=tmp_path / "net.toml", progress=Silent()
    )
    assert [parity.status for parity in done.parity.values()] == ["ok"], done.failures
    assert done.signature.resized(40, 24).outputs[0].shape == ("batch_size", 3, 70, 38)


def test_a_long_refinement_says_its_time_first_and_needs_yes(
    source: Path, monkeypatch: pytest.MonkeyPatch, in_process: None
) -> None:
    (source / "files.toml").write_text('[quantize]\nmethods = ["rounding"]\n')
    arguments = ["export", f"{source / 'net.py'}:make", "--signature", str(source / "sampled.toml"), "--no-measure"]
    arguments += ["--to", "onnx-w8a8", "--recipe", str(source / "files.toml"), "-o", str(source / "out")]
    monkeypatch.setattr("edgegen.quantize.adaround.ITERATIONS", 10)
    monkeypatch.setattr("edgegen.artifacts.refine.ITERATIONS", 10)
    monkeypatch.setattr("edgegen.artifacts.refinement_time.STEP_S", 3600.0)
    refused = CliRunner().invoke(app, arguments)
    assert isinstance(refused.exception, UsageError)
    assert re.search(
        r"rounding and recovery take about \d+ minutes on this machine; --yes starts", str(refused.exception)
    )
    assert not (source / "out").exists()
    assert CliRunner().invoke(app, [*arguments, "--yes"]).exit_code == 0
