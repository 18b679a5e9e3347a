"""build: names, hashes and metadata of an artifact, nothing half written, and the manifest of a folder."""

import hashlib
import json
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch

from edgegen import build as builder
from edgegen.capture import OneStep
from edgegen.errors import ExportError, UsageError
from edgegen.quantize.matrix import MATRIX, Cell
from edgegen.types import Artifact, Parity, Signature

SIGNATURE = Signature.of(channels=1, size=8, num_classes=0)


def module() -> OneStep:
    torch.manual_seed(0)
    return OneStep(torch.nn.Conv2d(1, 1, 3, padding=1))


def build(folder: Path, *, scheme: str = "fp32", backend: str = "onnx") -> Artifact:
    return builder.build(
        module(),
        SIGNATURE,
        name="tiny",
        backend=backend,
        scheme=scheme,
        folder=folder,
        calibration_samples=40,
        seed=3,
        metadata={"recipe_sha256": "abc"},
    )


def test_the_artifact_says_what_lies_in_the_folder(tmp_path: Path) -> None:
    artifact = build(tmp_path / "new" / "folder", scheme="w8a8")
    content = (tmp_path / "new" / "folder" / "tiny_onnx_w8a8.onnx").read_bytes()
    assert artifact.file == "tiny_onnx_w8a8.onnx"
    assert (artifact.nbytes, artifact.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert artifact.engine == "onnxruntime.quantization static QDQ"
    assert artifact.details == {"batch": None, "precision": "fp32", "calibration_samples": 40}
    stamped = {entry.key: entry.value for entry in onnx.load_from_string(content).metadata_props}
    expected = {"name": "tiny", "backend": "onnx", "scheme": "w8a8", "recipe_sha256": "abc"}
    assert stamped.items() >= {f"edgegen.{key}": value for key, value in expected.items()}.items()
    assert [path.name for path in (tmp_path / "new" / "folder").iterdir()] == [artifact.file]
    assert build(tmp_path / "again", scheme="w8a8") == artifact


def test_a_failed_build_leaves_the_older_artifact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    older = build(tmp_path)

    def fail(source: Path, target: Path, calibration: Any) -> None:
        target.write_bytes(source.read_bytes()[:10])
        raise ExportError("planted")

    monkeypatch.setattr(builder, "cell", lambda scheme, backend: Cell("file", "fp32", "planted", 20.0, "x:y"))
    monkeypatch.setattr(Cell, "load", lambda self: fail)
    with pytest.raises(ExportError, match="planted"):
        build(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [older.file]
    assert hashlib.sha256((tmp_path / older.file).read_bytes()).hexdigest() == older.sha256


def test_a_module_cell_runs_before_the_capture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def halve(net: torch.nn.Module, calibration: Any) -> torch.nn.Module:
        seen.append(len(calibration))
        return torch.nn.Sequential(net, torch.nn.AvgPool2d(1))

    monkeypatch.setitem(MATRIX, ("half", "onnx"), Cell("module", "fp32", "planted", 20.0, "x:y"))
    monkeypatch.setattr(Cell, "load", lambda self: halve)
    build(tmp_path, scheme="half")
    assert seen == [2]
    operators = [node.op_type for node in onnx.load(tmp_path / "tiny_onnx_half.onnx").graph.node]
    assert "AveragePool" in operators


def test_unknown_names_answer_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no backend 'onxn'; .* Did you mean 'onnx'\?"):
        build(tmp_path / "none", backend="onxn")
    with pytest.raises(UsageError, match="no quantization scheme 'w4' for backend 'onnx'"):
        build(tmp_path / "none", scheme="w4")
    assert not (tmp_path / "none").exists()


def test_the_manifest_holds_everything_and_repeats(tmp_path: Path) -> None:
    float32 = Artifact("tiny_onnx_fp32.onnx", "onnx", "fp32", 5, "aa", "none")
    int8 = Artifact("tiny_onnx_w8a8.onnx", "onnx", "w8a8", 2, "bb", "x")
    parity = {float32.file: Parity("ok", "onnxruntime", 80.0, samples=4, psnr_db=130.0, max_abs_error=1e-6)}
    contents = []
    for folder in (tmp_path, tmp_path / "other"):
        folder.mkdir(exist_ok=True)
        path = builder.write_manifest(folder, [float32, int8], SIGNATURE, lineage={"seed": 3}, parity=parity)
        contents.append(path.read_bytes())
    assert contents[0] == contents[1]
    manifest = json.loads(contents[0])
    assert manifest["schema"] == "edgegen.manifest/1"
    assert manifest["signature"] == json.loads(json.dumps(SIGNATURE.to_dict()))
    assert manifest["lineage"] == {"seed": 3}
    assert {"python", "edgegen", "torch", "onnx", "onnxruntime"} <= set(manifest["tools"])
    assert [entry["sha256"] for entry in manifest["artifacts"]] == ["aa", "bb"]
    status = [(entry["parity"]["status"], entry["parity"]["floor_db"]) for entry in manifest["artifacts"]]
    assert status == [("ok", 80.0), ("not checked", 25.0)]
