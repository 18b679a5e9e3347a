"""`edgegen bundle`: what an app gets, and that it is what the files give."""

import json
import shutil
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import onnxruntime
import pytest
import yaml
from bundles import CLASSES, bundled, edit_manifest, exported
from PIL import Image
from typer.testing import CliRunner

from edgegen import noise
from edgegen.artifacts.bundle import bundle_source
from edgegen.artifacts.golden import golden_samples
from edgegen.artifacts.sample import sample_to_png
from edgegen.cli.main import app
from edgegen.errors import DataError, ParityError, UsageError
from edgegen.formats.bundle import Bundle
from edgegen.formats.bundle_folder import check_bundle
from edgegen.formats.manifest import MANIFEST, checked_entry
from edgegen.support.progress import Silent
from edgegen.support.storage import sha256_of
from edgegen.types import Signature

pytestmark = pytest.mark.usefixtures("in_process_of_module")
ONNX, PTE, MLPACKAGE = "net_onnx_fp32.onnx", "net_executorch_fp32.pte", "net_coreml_fp32.mlpackage"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, in_process_of_module: None) -> Path:
    return exported(tmp_path_factory.mktemp("bundled") / "export")


@pytest.fixture(scope="module")
def bundle(files: Path) -> Path:
    return bundled(files, files.parent / "net")


@pytest.fixture(scope="module")
def manifest(bundle: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((bundle / MANIFEST).read_text())
    return content


def test_the_schema_is_published_and_the_manifest_follows_it(manifest: dict[str, Any]) -> None:
    how = 'run: python -c "from edgegen.formats.bundle import Bundle; Bundle.update_schema_file()"'
    assert json.loads(Bundle.schema_file.read_text()) == Bundle.json_schema(), how
    jsonschema.validate(manifest, Bundle.json_schema())


def test_an_app_needs_nothing_but_the_manifest(bundle: Path, manifest: dict[str, Any]) -> None:
    """As the core of an app does it: seed and class to pixels, by onnxruntime and the manifest alone."""
    (artifact,) = (row for row in manifest["artifacts"] if row["runtime"] == "onnx")
    session = onnxruntime.InferenceSession(bundle / artifact["file"])
    output = artifact["methods"][0]["output"]
    raw = (bundle / artifact["golden"]["file"]).read_bytes()
    golden = np.frombuffer(raw, np.uint8).reshape(manifest["golden"]["shape"])
    for sample, expected in zip(manifest["golden"]["samples"], golden, strict=True):
        feeds = {}
        for spec in artifact["inputs"]:
            shape = [1 if size == "batch_size" else size for size in spec["shape"]]
            if spec["role"] == "noise":
                values = noise.normal(sample["seed"] + spec["seed_offset"], sample["index"], 1, shape[1:])
            else:
                assert spec["role"] == "class"
                values = np.full(shape, sample["label"])
            feeds[spec["name"]] = values.astype(spec["dtype"])
        (values,) = session.run([output["name"]], feeds)
        low, high = output["low"], output["high"]
        pixels = np.clip(np.rint(255 * (values - low) / (high - low)), 0, 255).astype(np.uint8)
        assert output["layout"] == "NCHW"
        assert np.abs(pixels[0].transpose(1, 2, 0).astype(int) - expected).max() <= 1
    labels = [sample["label"] for sample in manifest["golden"]["samples"]]
    assert (len(labels), set(labels)) == (16, set(range(10)))
    assert golden.std() > 5  # no black image


def test_what_is_said_of_each_artifact(bundle: Path, manifest: dict[str, Any]) -> None:
    rows = {row["file"]: row for row in manifest["artifacts"]}
    assert set(rows) == {ONNX, PTE, MLPACKAGE}
    for file, row in rows.items():
        assert row["sha256"] == sha256_of(bundle / file)
        assert row["golden"]["made_by"].startswith(f"{file} by ")
        assert row["golden"]["floor_db"] == 40.0
        assert row["heights_widths"] == [[8, 8]]
    assert [method["name"] for method in rows[PTE]["methods"]] == ["forward", "generate"]
    generate = rows[PTE]["methods"][1]["output"]
    assert (generate["dtype"], generate["shape"], generate["layout"]) == ("uint8", [1, 8, 8, 1], "NHWC")
    assert [method["name"] for method in rows[ONNX]["methods"]] == [None]
    assert (rows[ONNX]["batch"], rows[PTE]["batch"]) == (None, 1)
    dtypes = {file: [spec["dtype"] for spec in row["inputs"]] for file, row in rows.items()}
    assert dtypes[PTE] == ["float32", "int64"]
    assert dtypes[MLPACKAGE] == ["float32", "int32"]  # Core ML has no other whole numbers
    assert manifest["class_names"] == CLASSES
    assert (manifest["license"], manifest["colors"], manifest["name"]) == ("cc0-1.0", "gray", "net")


def test_the_card_is_one_for_the_hub(bundle: Path) -> None:
    text = (bundle / "README.md").read_text()
    head = yaml.safe_load(text.split("---")[1])
    assert (head["license"], head["library_name"]) == ("cc0-1.0", "edgegen")
    assert {"onnx", "executorch", "coreml"} < set(head["tags"])
    assert "![16 images](samples.png)" in text
    assert np.asarray(Image.open(bundle / "samples.png")).shape == (35, 35)
    for row in (ONNX, PTE, MLPACKAGE):
        assert f"`{row}`" in text


def test_the_same_input_gives_the_same_bytes(files: Path, bundle: Path, tmp_path: Path) -> None:
    again = bundled(files, tmp_path / "net")
    first, second = ([*sorted(path.rglob("*"))] for path in (bundle, again))
    assert [path.relative_to(bundle) for path in first] == [path.relative_to(again) for path in second]
    assert sha256_of(bundle) == sha256_of(again)


def test_an_older_bundle_is_replaced_and_nothing_else(files: Path, tmp_path: Path) -> None:
    place = bundled(files, tmp_path / "net", artifacts=["onnx"])
    assert not (place / PTE).exists()
    bundled(files, place, artifacts=[PTE])
    assert (place / PTE).exists()
    assert not (place / ONNX).exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match="is a folder with other files, which stay as they are"):
        bundled(files, tmp_path / "mine")
    with pytest.raises(UsageError, match="is a bundle already; give the run or the export"):
        bundled(place, tmp_path / "again")
    with pytest.raises(UsageError, match="is no folder; give a new one"):
        bundled(files, tmp_path / "mine" / "thesis.txt")
    with pytest.raises(UsageError, match="--name: is empty; give the bundle a name"):
        bundled(files, tmp_path / "unnamed", name=" ")
    assert not (tmp_path / "unnamed").exists()
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "mine"


def test_only_files_that_agree_with_pytorch_are_chosen(files: Path, tmp_path: Path) -> None:
    copy = tmp_path / "export"
    shutil.copytree(files, copy)
    content = json.loads((copy / MANIFEST).read_text())
    for row, status in zip(content["artifacts"], ("ok", "failed", "not checked"), strict=True):
        row["parity"].update(status=status, reason="12.0 dB is below the floor")
    (copy / MANIFEST).write_text(json.dumps(content))
    made = bundled(copy, tmp_path / "default")
    assert [artifact.file for artifact in check_bundle(made).artifacts] == [ONNX]
    named = bundled(copy, tmp_path / "named", artifacts=["coreml-fp32", "onnx-fp32"])
    assert [artifact.file for artifact in check_bundle(named).artifacts] == [ONNX, MLPACKAGE]
    with pytest.raises(UsageError, match=r"executorch-fp32: it does not compute what PyTorch computes \(12.0 dB"):
        bundled(copy, tmp_path / "failed", artifacts=["executorch-fp32"])
    with pytest.raises(UsageError, match=r"no artifact 'onnx-fp16'; .* Did you mean 'onnx-fp32'"):
        bundled(copy, tmp_path / "unknown", artifacts=["onnx-fp16"])
    for row in content["artifacts"]:
        row["parity"]["status"] = "failed"
    (copy / MANIFEST).write_text(json.dumps(content))
    with pytest.raises(ParityError, match="none of its files passed the comparison with PyTorch"):
        bundled(copy, tmp_path / "none")


def test_a_file_that_nothing_here_runs_gets_the_images_of_one_that_runs(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgegen.errors import NoRuntimeError
    from edgegen.exporters.executorch.backend import ExecuTorchBackend

    def refuse(self: object, path: Path) -> None:
        raise NoRuntimeError(f"{path}: needs a phone")

    monkeypatch.setattr(ExecuTorchBackend, "open", refuse)
    place = bundled(files, tmp_path / "net", artifacts=["executorch-fp32", "onnx-fp32"])
    made_by = {row.file: row.golden.made_by for row in check_bundle(place).artifacts}
    assert made_by[PTE].startswith(f"{ONNX} by onnxruntime")
    done = CliRunner().invoke(app, ["verify", str(place)])
    assert done.exit_code == 0, done.output
    assert f"{PTE}: as written; golden images: not checked: {PTE}: needs a phone" in done.stdout
    with pytest.raises(DataError, match="none of the files can be run on this machine"):
        bundled(files, tmp_path / "alone", artifacts=["executorch-fp32"])


def test_a_bundle_is_a_source_of_pictures_like_any_export(bundle: Path, tmp_path: Path) -> None:
    entry = checked_entry(bundle / PTE)
    assert entry is not None
    assert (entry.row["scheme"], entry.class_names) == ("fp32", tuple(CLASSES))
    result = sample_to_png(bundle, tmp_path / "a.png", seed=0, count=1, label="class 0")
    assert result["source"] == str(bundle / ONNX)
    golden = np.fromfile(bundle / "golden" / f"{ONNX}.u8", np.uint8)[:64].reshape(8, 8)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "a.png")), golden)


@pytest.mark.parametrize(
    ("classes", "size", "count", "last"), [(0, 8, 16, None), (10, 8, 16, 5), (40, 8, 40, 39), (1000, 64, 16, 930)]
)
def test_golden_samples_cover_the_classes(classes: int, size: int, count: int, last: int | None) -> None:
    samples = golden_samples(Signature.of(channels=3, size=size, num_classes=classes))
    assert (len(samples), samples[-1].label) == (count, last)
    assert len({sample.seed for sample in samples}) == count


def test_large_images_are_few(tmp_path: Path) -> None:
    assert len(golden_samples(Signature.of(channels=3, size=1024, num_classes=0))) == 1


def test_the_command_names_the_folder_and_the_zip(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["bundle", str(files), "--artifact", "onnx", "--zip", "--json", "--name", "my net"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    content = json.loads(done.stdout)
    assert (content["bundle"], content["zip"]) == ("bundles/export", "bundles/export.zip")
    assert content["manifest"]["name"] == "my net"
    assert CliRunner().invoke(app, ["verify", "bundles/export.zip"]).exit_code == 0
    for refused in (["verify", "bundles/export", "--force"], ["bundle", "bundles"]):
        assert isinstance(CliRunner().invoke(app, refused).exception, UsageError)


def test_an_image_to_image_network_gets_its_inputs_as_an_app_has_them(tmp_path: Path) -> None:
    from torch import Tensor, nn
    from torch.nn import functional

    from edgegen.artifacts.build import build, unchecked
    from edgegen.artifacts.target import Target
    from edgegen.formats.manifest import write_manifest
    from edgegen.types import TensorSpec

    class Double(nn.Module):
        def forward(self, photo: Tensor, strength: Tensor) -> Tensor:
            return functional.interpolate(photo, scale_factor=2) * strength[:, :, None, None]

    signature = Signature(
        (
            TensorSpec("photo", ("batch_size", 3, 6, 6), "float32", "image", 0.0, 1.0),
            TensorSpec("strength", ("batch_size", 1), "float32", "features", 0.25, 0.75),
        ),
        (TensorSpec("out", ("batch_size", 3, 12, 12), "float32", "image", 0.0, 1.0),),
    )
    files = tmp_path / "export"
    files.mkdir()
    target = Target.parse("onnx:any_size")
    made = build(Double(), signature, name="x2", target=target, folder=files, seed=0, metadata={}).artifact
    write_manifest(files, [made], signature, lineage={}, parity=unchecked([made]))
    place = bundled(files, tmp_path / "x2", artifacts=["onnx-fp32:any_size"])
    bundle = check_bundle(place)
    assert bundle.artifacts[0].heights_widths is None
    photo, strength = (np.fromfile(place / item.file, item.dtype).reshape(item.shape) for item in bundle.golden.inputs)
    assert (photo.dtype, photo.shape) == (np.uint8, (16, 6, 6, 3))
    golden = np.fromfile(place / bundle.artifacts[0].golden.file, np.uint8).reshape(bundle.golden.shape)
    expected = photo.repeat(2, axis=1).repeat(2, axis=2) * strength[:, :, None, None]
    assert np.abs(golden - expected).max() <= 0.51


def test_latencies_of_these_very_files_come_along(files: Path, tmp_path: Path) -> None:
    from measured import profile, result

    content = profile(result(np.ones((2, 3))), result(np.full((2, 3), 2.0))).to_json()
    row = content["results"][0]
    row["artifact"]["sha256"] = sha256_of(files / ONNX)
    (tmp_path / "profile.json").write_text(json.dumps(content))
    made, _, _ = bundle_source(
        str(files), tmp_path / "net", measurements=[tmp_path / "profile.json"], progress=Silent(), artifacts=["onnx"]
    )
    (latency,) = made.artifacts[0].latency
    assert latency.p50_ms == row["latency"]["p50_ms"]
    assert "## Latency" in (tmp_path / "net" / "README.md").read_text()


def test_a_generator_without_images_has_no_bundle(files: Path, tmp_path: Path) -> None:
    copy = tmp_path / "export"
    shutil.copytree(files, copy)
    content = json.loads((copy / MANIFEST).read_text())
    content["signature"]["outputs"][0]["role"] = "latent"
    (copy / MANIFEST).write_text(json.dumps(content))
    with pytest.raises(UsageError, match="its output 'out_sample' is latent, and a bundle is for images"):
        bundled(copy, tmp_path / "net")


def test_an_unknown_runtime_is_not_checked(bundle: Path, tmp_path: Path) -> None:
    copy = tmp_path / "net"
    shutil.copytree(bundle, copy)
    edit_manifest(copy, lambda content: content["artifacts"][1].update(runtime="tflite"))
    done = CliRunner().invoke(app, ["verify", str(copy)])
    assert done.exit_code == 0, done.output
    assert "not checked: nothing here knows the runtime 'tflite'" in done.stdout
