"""build: names, hashes and metadata of an artifact, nothing half written, and the manifest of a folder."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from edgegen import registry
from edgegen.artifacts import build as builder
from edgegen.errors import ExportError, UsageError
from edgegen.formats.manifest import write_manifest
from edgegen.pipeline.stages.verify import gather
from edgegen.program.one_step import OneStep
from edgegen.recipe import Export, Quantize
from edgegen.support.children import Children
from edgegen.types import Artifact, Parity, Signature

SIGNATURE = Signature.of(channels=1, size=8, num_classes=0)


def module() -> OneStep:
    torch.manual_seed(0)
    return OneStep(torch.nn.Conv2d(1, 1, 3, padding=1))


def build(folder: Path, *, scheme: str = "fp32", backend: str = "onnx", children: Children | None = None) -> Artifact:
    return builder.build(
        module(),
        SIGNATURE,
        name="tiny",
        target=builder.Target(backend, scheme),
        folder=folder,
        quantization=Quantize(samples=40),
        seed=3,
        metadata={"recipe_sha256": "abc"},
        children=children,
    ).artifact


@pytest.mark.long
def test_the_artifact_says_what_lies_in_the_folder(tmp_path: Path) -> None:
    artifact = build(tmp_path / "new" / "folder", scheme="w8a8")
    content = (tmp_path / "new" / "folder" / "tiny_onnx_w8a8.onnx").read_bytes()
    assert artifact.file == "tiny_onnx_w8a8.onnx"
    assert (artifact.nbytes, artifact.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert artifact.engine == "torchao PT2E, XNNPACKQuantizer"
    assert artifact.details.items() >= {"batch": None, "precision": "fp32", "calibration_samples": 40}.items()
    assert artifact.details["extra_files"] == {}
    stamped = {entry.key: entry.value for entry in onnx.load_from_string(content).metadata_props}
    expected = {"name": "tiny", "backend": "onnx", "scheme": "w8a8", "recipe_sha256": "abc"}
    assert stamped.items() >= {f"edgegen.{key}": value for key, value in expected.items()}.items()
    assert [path.name for path in (tmp_path / "new" / "folder").iterdir()] == [artifact.file]
    with Children() as children:
        build(tmp_path / "other", children=children)
        assert build(tmp_path / "again", scheme="w8a8", children=children) == artifact, "also after another file"
        (kept,) = children._idle
        assert kept[1].process.poll() is None


@pytest.mark.long
def test_a_failed_build_leaves_the_older_artifact(tmp_path: Path) -> None:
    older = build(tmp_path)
    with pytest.raises(ExportError, match=r"torch.export could not capture Conv2d: .*3 channels"):
        builder.build(
            torch.nn.Conv2d(3, 1, 3),
            SIGNATURE,
            name="tiny",
            target=builder.Target("onnx", "fp32"),
            folder=tmp_path,
            quantization=Quantize(samples=1),
            seed=0,
            metadata={},
        )
    with pytest.raises(ExportError, match=r"it held .* GB of memory, 0.01 GB are allowed"):
        builder.build(
            module(),
            SIGNATURE,
            name="tiny",
            target=builder.Target("onnx", "fp32"),
            folder=tmp_path,
            quantization=Quantize(samples=1),
            seed=0,
            metadata={},
            memory_limit=10_000_000,
        )
    assert [path.name for path in tmp_path.iterdir()] == [older.file]
    assert hashlib.sha256((tmp_path / older.file).read_bytes()).hexdigest() == older.sha256


def test_weights_beside_the_file_belong_to_it(
    tmp_path: Path, in_process: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Above 2 GB, which is made 100 bytes here."""
    from edgegen.exporters.onnx import backend

    monkeypatch.setattr(backend, "LARGEST", 100)
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Conv2d(1, 64, 3, padding=1), torch.nn.Conv2d(64, 1, 3, padding=1))
    fixed: dict[str, Any] = {"name": "tiny", "quantization": Quantize(samples=1), "seed": 0, "metadata": {}}
    target = builder.Target("onnx", "fp32")
    artifact = builder.build(net, SIGNATURE, target=target, folder=tmp_path / "made", **fixed).artifact
    weights = tmp_path / "made" / "tiny_onnx_fp32.onnx.data"
    file = tmp_path / "made" / artifact.file
    assert artifact.nbytes == file.stat().st_size + weights.stat().st_size
    sha256 = hashlib.sha256(weights.read_bytes()).hexdigest()
    assert artifact.details["extra_files"] == {weights.name: {"nbytes": weights.stat().st_size, "sha256": sha256}}
    assert str(tmp_path).encode() not in file.read_bytes()
    gather(tmp_path / "all", [(artifact, file)])
    noise = np.random.default_rng(0).standard_normal((3, 1, 8, 8), np.float32)
    expected = net(torch.from_numpy(noise)).detach().numpy()
    got = registry.load("backend", "onnx").open(tmp_path / "all" / artifact.file)({"sample": noise})
    np.testing.assert_allclose(got["out_sample"], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("text", "file"),
    [
        ("onnx", "net_onnx_fp32.onnx"),
        ("onnx-w8a8", "net_onnx_w8a8.onnx"),
        ("onnx:ort", "net_onnx_fp32_ort.ort"),
        ("executorch-fp32:bundled", "net_executorch_fp32_bundled.bpte"),
        ("coreml", "net_coreml_fp16.mlpackage"),
    ],
)
def test_a_target_is_backend_scheme_and_variant(text: str, file: str) -> None:
    target = builder.Target.parse(text)
    assert target.file("net") == file
    assert builder.Target.parse(str(target)) == target


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("onxn", r"no backend 'onxn'; there are: coreml, executorch, onnx. Did you mean 'onnx'\?"),
        ("onnx-w9", "no quantization scheme 'w9' for backend 'onnx'"),
        ("onnx:batch2", r"no onnx variant 'batch2'; there are: any_size, batch1, .* Did you mean 'batch1'\?"),
    ],
)
def test_a_target_that_is_not_there(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        builder.Target.parse(text)


def test_unknown_names_answer_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no backend 'onxn'; .* Did you mean 'onnx'\?"):
        build(tmp_path / "none", backend="onxn")
    with pytest.raises(UsageError, match="no quantization scheme 'w4' for backend 'onnx'"):
        build(tmp_path / "none", scheme="w4")
    assert not (tmp_path / "none").exists()


def test_the_manifest_holds_everything_and_repeats(tmp_path: Path) -> None:
    float32 = Artifact("tiny_onnx_fp32.onnx", "onnx", "fp32", 5, "aa", "none")
    int8 = Artifact("tiny_onnx_w8a8.onnx", "onnx", "w8a8", 2, "bb", "x")
    true = Parity("ok", "onnxruntime", 80.0, samples=4, psnr_db=130.0, max_abs_error=1e-6)
    parity = {**builder.unchecked([float32, int8]), float32.file: true}
    contents = []
    for folder in (tmp_path, tmp_path / "other"):
        folder.mkdir(exist_ok=True)
        path = write_manifest(folder, [float32, int8], SIGNATURE, lineage={"seed": 3}, parity=parity)
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


class Resampled(torch.nn.Module):
    """Halved and doubled by tensors of six axes, as the networks of SlimFlow's family do it."""

    def forward(self, sample: torch.Tensor) -> torch.Tensor:
        batch, channels, rows, columns = sample.shape
        half = sample.reshape(batch, channels, rows // 2, 2, columns // 2, 2).mean(dim=(3, 5))
        wide = half.reshape(batch, channels, rows // 2, 1, columns // 2, 1).repeat(1, 1, 1, 2, 1, 2)
        return sample - wide.reshape(batch, channels, rows, columns)


def test_core_ml_with_its_five_axes_takes_a_network_of_six(tmp_path: Path, in_process: None) -> None:
    pytest.importorskip("coremltools")
    fixed: dict[str, Any] = {
        "name": "net",
        "quantization": Quantize(samples=1),
        "seed": 0,
        "metadata": {},
        "folder": tmp_path,
    }
    target = builder.Target("coreml", "fp32")
    artifact = builder.build(Resampled(), SIGNATURE, target=target, **fixed).artifact
    noise = np.random.default_rng(0).standard_normal((2, 1, 8, 8), np.float32)
    half = noise.reshape(2, 1, 4, 2, 4, 2).mean(axis=(3, 5))
    expected = noise - half.repeat(2, axis=2).repeat(2, axis=3)
    got = registry.load("backend", "coreml").open(tmp_path / artifact.file)({"sample": noise})
    np.testing.assert_allclose(got["out_sample"], expected, atol=1e-6)


class Wide(torch.nn.Module):
    """A convolution that Winograd's form over the rows makes cheaper in XNNPACK, for a third more weights."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = torch.nn.Conv2d(64, 64, 3, padding=1)

    def forward(self, sample: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.conv(sample)
        return out


def test_without_winograd_or_room_for_it_a_pte_stays_small(tmp_path: Path, in_process: None) -> None:
    sizes, facts = {}, {}
    chosen = {"on": Export(), "off": Export(rewrites={"winograd_rows": False}), "no room": Export(added_weights_mb=0)}
    for name, options in chosen.items():
        artifact = builder.build(
            Wide().eval(),
            Signature.of(channels=64, size=16, num_classes=0),
            name=name.replace(" ", "_"),
            target=builder.Target("executorch", "fp32"),
            folder=tmp_path,
            seed=0,
            metadata={},
            options=options,
        ).artifact
        sizes[name], facts[name] = artifact.nbytes, artifact.details.get("plain_for_memory")
    weights = 64 * 64 * 9 * 4
    assert sizes["on"] - sizes["off"] == pytest.approx(weights / 3, rel=0.1)
    assert sizes["no room"] == pytest.approx(sizes["off"], abs=16)
    assert facts == {"on": None, "off": None, "no room": {"winograd_rows": ["conv"]}}
