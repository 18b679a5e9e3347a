"""A bundle of several students: the file of each class, for an app, for `edgegen verify` and for `edgegen sample`."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import onnxruntime
import pytest
from bundles import bundled, edit_manifest, exported_students
from PIL import Image

from edgegen import noise
from edgegen.artifacts.bundle import bundle_source
from edgegen.artifacts.bundle_check import verify_bundle
from edgegen.artifacts.sample import sample_to_png
from edgegen.artifacts.sample_like import sample_like
from edgegen.errors import DataError, ParityError, UsageError
from edgegen.formats.bundle import Bundle
from edgegen.formats.bundle_folder import check_bundle
from edgegen.formats.manifest import MANIFEST
from edgegen.support.progress import Silent
from edgegen.support.storage import sha256_of

pytestmark = pytest.mark.usefixtures("in_process_of_module")
SERVED = {"net-0_onnx_fp32.onnx": [0, 1, 2, 3], "net-1_onnx_fp32.onnx": [4, 5, 6, 7, 8, 9]}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, in_process_of_module: None) -> Path:
    return exported_students(tmp_path_factory.mktemp("students") / "export", targets=("onnx-fp32", "coreml-fp32"))


@pytest.fixture(scope="module")
def bundle(files: Path) -> Path:
    return bundled(files, files.parent / "nets")


def image_of(path: Path, seed: int, label: int) -> Any:
    """By ONNX Runtime alone: (height, width, channels)."""
    session = onnxruntime.InferenceSession(path)
    names = [spec.name for spec in session.get_inputs()]
    shape = [int(size) for size in session.get_inputs()[0].shape[1:]]
    values = session.run(None, dict(zip(names, (noise.normal(seed, 0, 1, shape), np.array([label])), strict=True)))[0]
    return np.clip(np.rint(127.5 * (values[0] + 1)), 0, 255).astype(np.uint8).transpose(1, 2, 0)


def test_an_app_finds_the_file_of_each_class(bundle: Path) -> None:
    manifest = json.loads((bundle / MANIFEST).read_text())
    jsonschema.validate(manifest, Bundle.json_schema())
    onnx, coreml = manifest["artifacts"]
    assert {student["file"]: student["classes"] for student in onnx["students"]} == SERVED
    assert [len(student["classes"]) for student in coreml["students"]] == [4, 6]
    for student in onnx["students"]:
        assert student["sha256"] == sha256_of(bundle / student["file"])
        assert student["nbytes"] == (bundle / student["file"]).stat().st_size
    assert onnx["nbytes"] == sum(student["nbytes"] for student in onnx["students"])
    assert onnx["file"] == onnx["students"][0]["file"]
    golden = np.fromfile(bundle / onnx["golden"]["file"], np.uint8).reshape(manifest["golden"]["shape"])
    owner = {label: file for file, labels in SERVED.items() for label in labels}
    for sample, expected in zip(manifest["golden"]["samples"], golden, strict=True):
        own, other = owner[sample["label"]], next(file for file in SERVED if file != owner[sample["label"]])
        assert np.abs(image_of(bundle / own, sample["seed"], sample["label"]).astype(int) - expected).max() <= 1
        assert np.abs(image_of(bundle / other, sample["seed"], sample["label"]).astype(int) - expected).max() > 10
    card = (bundle / "README.md").read_text()
    assert "| `net-1_onnx_fp32.onnx` |" in card
    assert "| 4, 5, 6, 7, 8, 9 |" in card


def test_all_of_it_is_verified(bundle: Path, tmp_path: Path) -> None:
    assert [check.status for check in verify_bundle(bundle, progress=Silent())] == ["ok", "ok"]
    copy = tmp_path / "copy"
    shutil.copytree(bundle, copy)

    def exchange(manifest: dict[str, Any]) -> None:
        first, second = manifest["artifacts"][0]["students"]
        first["classes"], second["classes"] = [9, *first["classes"][1:]], [0, *second["classes"][:-1]]

    edit_manifest(copy, exchange)
    checks = verify_bundle(copy, progress=Silent())
    assert [check.status for check in checks] == ["failed", "ok"]


def _students(change: Callable[[list[dict[str, Any]]], object]) -> Callable[[dict[str, Any]], object]:
    return lambda manifest: change(manifest["artifacts"][0]["students"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_students(lambda rows: rows[1]["classes"].pop()), r"its students are for the classes \[0, .*8\]; there are"),
        (_students(lambda rows: rows[1]["classes"].append(0)), r"its students are for the classes \[0, 0, 1"),
        (_students(lambda rows: rows.pop()), "has .* bytes, and its files"),
        (_students(lambda rows: rows[0].update(sha256="0" * 64)), "its first student is another file"),
        (_students(lambda rows: rows[1].update(file="net-0_onnx_fp32.onnx")), "is there twice"),
        (_students(lambda rows: rows[1].update(nbytes=7)), r"net-1_onnx_fp32\.onnx: has 7 bytes"),
        (_students(lambda rows: rows[1].update(sha256="0" * 64)), r"net-1_onnx_fp32\.onnx: its sha256"),
        (_students(lambda rows: rows[1].update(file="../net")), "students.1.file"),
    ],
)  # fmt: skip
def test_a_manifest_that_contradicts_itself_is_refused(
    bundle: Path, tmp_path: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    shutil.copytree(bundle, tmp_path / "copy")
    edit_manifest(tmp_path / "copy", lambda manifest: change(manifest) and None)
    with pytest.raises(DataError, match=message):
        check_bundle(tmp_path / "copy")


def test_a_target_counts_where_all_students_have_it_and_passed(files: Path, tmp_path: Path) -> None:
    shutil.copytree(files, tmp_path / "files")
    manifest = tmp_path / "files/net-1" / MANIFEST
    content = json.loads(manifest.read_text())
    content["artifacts"][0]["parity"].update(status="failed", reason="far off")
    del content["artifacts"][1]
    manifest.write_text(json.dumps(content))
    with pytest.raises(ParityError, match="none of its files passed"):
        bundled(tmp_path / "files", tmp_path / "bundle")
    with pytest.raises(UsageError, match="does not compute what PyTorch computes"):
        bundled(tmp_path / "files", tmp_path / "bundle", artifacts=["onnx-fp32"])
    with pytest.raises(UsageError, match="no artifact 'coreml-fp32'"):
        bundled(tmp_path / "files", tmp_path / "bundle", artifacts=["coreml-fp32"])


def test_it_is_sampled_by_class_and_pictures_are_made_again(files: Path, bundle: Path, tmp_path: Path) -> None:
    made, _, _ = bundle_source(str(files), tmp_path / "again", progress=Silent())
    assert made == check_bundle(bundle)
    for source in (bundle, files):
        sample_to_png(str(source), tmp_path / "seven.png", count=1, seed=3, label=7)
        with Image.open(tmp_path / "seven.png") as picture:
            shown = np.asarray(picture)
        expected = image_of(bundle / "net-1_onnx_fp32.onnx", 3, 7)[..., 0]
        assert np.abs(shown.astype(int) - expected).max() <= 1
        assert sample_like(tmp_path / "seven.png", str(source), tmp_path / "like.png")["equal"]
