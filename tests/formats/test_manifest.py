"""The manifest against the files beside it: a flipped byte in any kind of file is one error that names the file."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import deadly_package
import inspected
import pytest
from typer.testing import CliRunner

from edgegen.artifacts.build import unchecked
from edgegen.artifacts.sessions import open_artifact
from edgegen.cli.main import app
from edgegen.errors import DataError, ExportError, UsageError
from edgegen.formats.manifest import check_folder, checked_entry, write_manifest
from edgegen.profilers.files.subject import read_subject
from edgegen.support.storage import nbytes_of, sha256_of
from edgegen.types import Artifact, Signature

SIGNATURE = Signature.of(channels=1, size=8, num_classes=0)
BACKENDS = {".onnx": "onnx", ".pte": "executorch", ".mlpackage": "coreml"}


def flip(path: Path) -> None:
    """One bit in the middle; size and name stay."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def facts(path: Path) -> dict[str, Any]:
    return {"nbytes": nbytes_of(path), "sha256": sha256_of(path)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A file of each runtime, as bytes: nothing here opens them; the .onnx has weights and the .pte a record beside."""
    (tmp_path / "net.onnx").write_bytes(b"program" * 9)
    (tmp_path / "net.onnx.data").write_bytes(b"weights" * 9)
    (tmp_path / "net.pte").write_bytes(b"delegate" * 9)
    (tmp_path / "net.etrecord").write_bytes(b"record" * 9)
    (tmp_path / "net.mlpackage" / "Data").mkdir(parents=True)
    (tmp_path / "net.mlpackage" / "Data" / "weight.bin").write_bytes(b"palette" * 9)
    (tmp_path / "net.mlpackage" / "Manifest.json").write_bytes(b"{}" * 9)
    extra = {"net.onnx": "net.onnx.data", "net.pte": "net.etrecord"}
    artifacts = []
    for suffix, backend in BACKENDS.items():
        path = tmp_path / f"net{suffix}"
        beside = {name: facts(tmp_path / name) for name in [extra[path.name]]} if path.name in extra else {}
        details = {"extra_files": beside}
        artifacts.append(Artifact(path.name, backend, "fp32", **facts(path), engine="none", details=details))
    write_manifest(tmp_path, artifacts, SIGNATURE, lineage={}, parity=unchecked(artifacts))
    return tmp_path


KINDS = {
    "net.onnx": "net.onnx",
    "net.onnx.data": "net.onnx",
    "net.pte": "net.pte",
    "net.etrecord": "net.pte",
    "net.mlpackage/Data/weight.bin": "net.mlpackage",
    "net.mlpackage/Manifest.json": "net.mlpackage",
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_flipped_bit_in_each_kind_of_file(folder: Path, kind: str) -> None:
    assert len(check_folder(folder)) == len(BACKENDS)
    flip(folder / kind)
    for name in {f"net{suffix}" for suffix in BACKENDS}:
        entry = None
        if name == KINDS[kind]:
            with pytest.raises(DataError, match=rf"{Path(kind).parts[0]} does not hold what was written there"):
                checked_entry(folder / name)
        else:
            entry = checked_entry(folder / name)
            assert entry is not None
            assert (entry.row["file"], Signature.from_dict(entry.signature)) == (name, SIGNATURE)
    with pytest.raises(DataError, match=rf"{Path(kind).parts[0]} does not hold what was written there"):
        check_folder(folder)


READERS: dict[str, tuple[tuple[str, ...], Callable[[Path], object]]] = {
    "sample": ((".onnx", ".pte", ".mlpackage"), lambda path: open_artifact(path, BACKENDS[path.suffix])),
    "profile": ((".onnx", ".pte", ".mlpackage"), read_subject),
    "inspect": (
        (".onnx", ".pte", ".mlpackage"),
        lambda path: CliRunner().invoke(app, ["inspect", str(path)], catch_exceptions=False),
    ),
}


@pytest.mark.parametrize("reader", READERS)
def test_every_reader_refuses_a_changed_file_before_it_opens_it(folder: Path, reader: str) -> None:
    suffixes, read = READERS[reader]
    for kind in ("net.onnx", "net.pte", "net.mlpackage/Data/weight.bin"):
        flip(folder / kind)
    for suffix in suffixes:
        with pytest.raises(DataError, match=rf"net{suffix} does not hold what was written there: .* export it again"):
            read(folder / f"net{suffix}")


def test_all_faults_of_a_folder_are_listed_together(folder: Path) -> None:
    flip(folder / "net.pte")
    (folder / "net.onnx.data").unlink()
    with pytest.raises(DataError, match=r"(?s)^not as exported:\n  no file .*net\.onnx\.data\n  .*net\.pte does not"):
        check_folder(folder)
    assert checked_entry(folder / "net.mlpackage") is not None


def test_verify_of_a_folder_says_what_each_file_was(folder: Path) -> None:
    done = CliRunner().invoke(app, ["verify", str(folder)], catch_exceptions=False)
    assert done.exit_code == 0
    assert done.stdout.splitlines() == [
        f"net{suffix}: as written; against PyTorch then: not checked" for suffix in BACKENDS
    ]
    shown = json.loads(CliRunner().invoke(app, ["verify", str(folder), "--json"], catch_exceptions=False).stdout)
    assert [row["file"] for row in shown["files"]] == [f"net{suffix}" for suffix in BACKENDS]
    assert {row["parity"] for row in shown["files"]} == {"not checked"}
    with pytest.raises(UsageError, match=r"--force is for recipes, and .* is a folder of files"):
        CliRunner().invoke(app, ["verify", str(folder), "--force"], catch_exceptions=False)
    flip(folder / "net.pte")
    with pytest.raises(DataError, match=r"net\.pte does not hold"):
        CliRunner().invoke(app, ["verify", str(folder)], catch_exceptions=False)


def test_a_file_that_no_manifest_lists_is_measured_and_inspected_but_not_sampled(folder: Path) -> None:
    stranger = folder / "stranger.onnx"
    inspected.write_onnx(stranger)
    assert checked_entry(stranger) is None
    assert read_subject(stranger).parity is None
    with pytest.raises(DataError, match=r"stranger\.onnx: manifest\.json beside it does not list it"):
        open_artifact(stranger, "onnx")
    (folder / "manifest.json").write_text('{"name": "a web page"}')
    assert checked_entry(stranger) is None
    (folder / "manifest.json").unlink()
    assert checked_entry(stranger) is None
    with pytest.raises(DataError, match=r"stranger\.onnx: no manifest\.json beside it"):
        open_artifact(stranger, "onnx")


@pytest.mark.parametrize(
    "content",
    [
        '{"artifacts": 1}',
        '{"artifacts": [1]}',
        '{"artifacts": [{"file": 1}]}',
        '{"artifacts": [{"file": "net.onnx"}]}',
        '{"artifacts": [{"file": "net.onnx", "sha256": "", "details": {"extra_files": {"../x": {"sha256": ""}}}}]}',
        '{"artifacts": [{"file": "net.onnx", "sha256": "", "details": []}]}',
    ],
)
def test_a_manifest_of_the_wrong_shape(folder: Path, content: str) -> None:
    (folder / "manifest.json").write_text(content)
    for check in (lambda: checked_entry(folder / "net.onnx"), lambda: check_folder(folder)):
        with pytest.raises(DataError, match=r"manifest\.json: not a manifest of edgegen's"):
            check()


def test_sample_of_a_file_that_kills_its_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command ends with one message; the file is as written, so that its runtime is started."""
    deadly_package.install(tmp_path, monkeypatch)
    artifact, path = deadly_package.write(tmp_path, "abort in a run")
    write_manifest(tmp_path, [artifact], deadly_package.SIGNATURE, lineage={}, parity=unchecked([artifact]))
    options = ["sample", str(path), "-o", str(tmp_path / "out.png")]
    with pytest.raises(ExportError, match=r"^the process that ran abort_in_a_run\.deadly ended by SIGABRT"):
        CliRunner().invoke(app, options, catch_exceptions=False)
    assert not (tmp_path / "out.png").exists()
    path.write_text("whole")
    with pytest.raises(DataError, match=r"abort_in_a_run\.deadly does not hold what was written"):
        CliRunner().invoke(app, options, catch_exceptions=False)
    artifact, path = deadly_package.write(tmp_path, "whole")
    write_manifest(tmp_path, [artifact], deadly_package.SIGNATURE, lineage={}, parity=unchecked([artifact]))
    done = CliRunner().invoke(app, ["sample", str(path), *options[2:], "--count", "70"], catch_exceptions=False)
    assert "70 images, 4x4, by" in done.stdout
    assert done.stdout.endswith("whole.deadly (deadly 1.0)\n")


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("artifacts",), None, "artifacts: "),
        (("artifacts", 0), "text", "artifacts.0: "),
        (("artifacts", 0, "file"), "../net.onnx", "artifacts.0.file: "),
        (("artifacts", 0, "file"), "..", "artifacts.0.file: "),
        (("artifacts", 0, "sha256"), 7, "artifacts.0.sha256: "),
        (("artifacts", 0, "nbytes"), -1, "artifacts.0.nbytes: "),
        (("artifacts", 0, "parity"), None, "artifacts.0.parity: "),
        (("artifacts", 0, "details"), {"extra_files": []}, "artifacts.0.details.extra_files: "),
        (("signature",), {}, "signature: inputs: Field required"),
        (("signature", "inputs"), [], "signature: a signature has at least one input"),
        (("signature", "inputs", 0, "shape"), "text", "signature: inputs.0.shape: "),
        (("signature", "inputs", 0, "shape", 1), "1", "signature: inputs.0.shape.1"),
        (("signature", "inputs", 0, "dtype"), "object", "signature: inputs.0.dtype: "),
        (("signature", "num_classes"), 10**12, "signature: num_classes is 1000000000000"),
    ],
)
def test_a_manifest_of_another_shape_is_refused_by_its_key(
    folder: Path, place: tuple[Any, ...], value: Any, message: str
) -> None:
    content = json.loads((folder / "manifest.json").read_text())
    part = content
    for key in place[:-1]:
        part = part[key]
    part[place[-1]] = value
    (folder / "manifest.json").write_text(json.dumps(content))
    for read in (lambda: check_folder(folder), lambda: checked_entry(folder / "net.onnx")):
        with pytest.raises(DataError, match=rf"manifest.json: not a manifest of edgegen's \({message}"):
            read()


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (["batch_size", 1, 10**6, 10**6], r"sample has the shape .* at most 268,435,456 elements"),
        ([], r"sample has the role noise and no axes"),
    ],
)
def test_a_tensor_that_cannot_be_is_refused_before_it_is_made(folder: Path, shape: list[Any], message: str) -> None:
    content = json.loads((folder / "manifest.json").read_text())
    content["signature"]["inputs"][0]["shape"] = shape
    (folder / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=message):
        check_folder(folder)
