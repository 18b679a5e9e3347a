"""Files measured here: the two runners against the runtimes' Python bindings, wrong files, and the command."""

import json
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from measured import needs_compiler
from measured import profile as profile_of
from onnx import TensorProto, helper
from small_nets import net_files
from typer.testing import CliRunner

from edgegen.artifacts.build import unchecked
from edgegen.cli.main import app
from edgegen.cli.profile import _table
from edgegen.errors import BudgetError, DataError, DeviceError, ParityError, UsageError
from edgegen.formats.manifest import write_manifest
from edgegen.profilers.devices.host import DEVICE
from edgegen.profilers.files import check, profile
from edgegen.profilers.files.check import compare_outputs
from edgegen.profilers.files.profile import profile_files
from edgegen.profilers.files.record import latency_of
from edgegen.profilers.files.subject import read_subject
from edgegen.profilers.runners import pte, toolchain
from edgegen.profilers.schema import MeasuredFile, read
from edgegen.profilers.timing.protocol import ProfileOptions
from edgegen.support.progress import Silent
from edgegen.support.storage import nbytes_of, read_json, sha256_of, write_json
from edgegen.types import Artifact, Signature, TensorSpec

pytestmark = pytest.mark.long

FEW = ProfileOptions(min_runs=3, max_seconds=0.05, timeout_seconds=60.0, warm_seconds=0.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A net's .onnx and .pte with their manifest; a space and an umlaut in the folder's name."""
    return net_files(tmp_path_factory.mktemp("files") / "für ein Gerät")


@needs_compiler
def test_both_runners_compute_what_python_does_and_are_timed(folder: Path, in_process: None) -> None:
    files = [folder / "net_onnx_fp32.onnx", folder / "net_executorch_fp32.pte"]
    measured = profile_files(files, DEVICE, threads=(1, 2), per_op=True, options=FEW, progress=Silent())
    assert [(record.artifact.format, record.config.threads_actual) for record in measured.results] == [
        ("onnx", 1),
        ("onnx", 2),
        ("pte", 1),
        ("pte", 2),
    ]
    for record in measured.results:
        assert record.numerics.passed
        assert record.latency is not None
        assert record.artifact.scheme == "fp32"
        assert [tensor.name for tensor in record.artifact.inputs] == ["sample", "class_labels"]
        assert record.peak_rss_bytes is not None
        assert sum(row.share for row in record.ops) == pytest.approx(1.0)
        assert sum(row.share for row in record.leaves) == pytest.approx(1.0)
        assert {"net.first", "net.last"} <= {row.block for row in record.leaves}
        assert {row.place for row in record.leaves} <= {"CPUExecutionProvider", "delegate 1", "outside"}
        assert any("Conv" in row.kind for row in record.ops)
    assert str(folder) not in json.dumps(measured.to_json())


@needs_compiler
def test_a_wrong_file_has_no_latency(folder: Path, monkeypatch: pytest.MonkeyPatch, in_process: None) -> None:
    def other(*, path: str, form: str, inputs: str, expected: str) -> str:
        np.save(expected, np.ones((1, 1, 8, 8), np.float32))
        return "somebody else"

    monkeypatch.setattr(check, "reference_output", other)
    measured = profile_files([folder / "net_executorch_fp32.pte"], DEVICE, options=FEW, progress=Silent())
    (record,) = measured.results
    assert record.latency is None
    assert record.verdict.status == "failed"
    assert record.numerics.passed is False
    assert "at least 40 dB are asked" in record.verdict.reasons[0]


def test_a_file_that_its_manifest_calls_false_is_not_run(folder: Path, tmp_path: Path, in_process: None) -> None:
    path = tmp_path / "net_onnx_fp32.onnx"
    path.write_bytes((folder / path.name).read_bytes())
    manifest = read_json(folder / "manifest.json")
    for row in manifest["artifacts"]:
        row["parity"] = {"status": "failed"}
    write_json(tmp_path / "manifest.json", manifest)
    (record,) = profile_files([path], DEVICE, options=FEW, progress=Silent()).results
    assert record.verdict.reasons == ("wrong: manifest: parity failed",)


def test_a_file_that_crashes_its_runner_is_told(folder: Path, tmp_path: Path, in_process: None) -> None:
    graph = helper.make_graph(
        [helper.make_node("Reshape", ["sample", "size"], ["out"])],
        "g",
        [helper.make_tensor_value_info("sample", TensorProto.FLOAT, [1, 4])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
        [helper.make_tensor("size", TensorProto.INT64, [1], [3])],
    )
    path = tmp_path / "reshape.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), path)
    (record,) = profile_files([path], DEVICE, options=FEW, progress=Silent()).results
    assert record.latency is None
    assert record.numerics.passed is None
    assert "ended with exit code 1" in record.verdict.reasons[0]
    assert str(tmp_path) not in record.verdict.reasons[0]


def test_outputs_are_compared_by_signal_to_noise() -> None:
    wanted = np.array([1.0, -1.0, 2.0], np.float32)
    assert compare_outputs(wanted, wanted, reference="r").passed
    near = compare_outputs(wanted, wanted + np.float32(1e-3), reference="r")
    assert near.snr_db == pytest.approx(10 * np.log10(6 / 3e-6), abs=0.01)
    assert near.passed
    assert compare_outputs(wanted, wanted[:2], reference="r").reason == "2 numbers, not 3"
    assert compare_outputs(wanted, wanted * np.float32("nan"), reference="r").reason == "numbers not finite"
    assert not compare_outputs(wanted, -wanted, reference="r").passed


@needs_compiler
def test_without_a_compiler_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(DeviceError, match=r"c\+\+ could not compile the runner of .pte files: .*executorch"):
        toolchain.compiled(pte.SOURCE, toolchain.this_system(), of=".pte")
    assert not list((tmp_path / "edgegen").iterdir())
    monkeypatch.setattr(toolchain, "COMPILER", "no-such-c++")
    with pytest.raises(DeviceError, match=r"there is no 'no-such-c\+\+': apt install g\+\+"):
        toolchain.compiled(pte.SOURCE, toolchain.this_system(), of=".pte")


def test_without_a_compiler_python_runs_a_pte_and_the_table_says_so(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_process: None
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert shutil.which("c++") is None
    file = folder / "net_executorch_fp32.pte"
    (record,) = profile_files([file], DEVICE, per_op=True, threads=(2,), options=FEW, progress=Silent()).results
    assert record.config.runtime == f"executorch {version('executorch')} in Python (no C++ compiler)"
    assert record.config.threads_actual == 2
    assert record.numerics.passed
    assert record.latency is not None
    assert record.cold[0].load_ms > 0
    assert {"net.first", "net.last"} <= {row.block for row in record.leaves}
    assert "in Python (no C++ compiler) | " in "\n".join(_table(profile_of(record)))
    assert latency_of(record).runtime == record.config.runtime


@needs_compiler
def test_a_compiler_that_fails_leaves_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as one that does not know the linker's options."""
    (tmp_path / "c++").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "c++").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert DEVICE.runner("pte", "net.pte").argv[-1] == "c++ could not compile the C++ runner"


def test_open_sizes_are_those_of_the_manifest(tmp_path: Path) -> None:
    """A file whose height and width are open is measured at the size of its generator."""
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch_size", 1, "height", "width"])
        for name in ("sample", "out")
    ]
    graph = helper.make_graph([helper.make_node("Sigmoid", ["sample"], ["out"])], "g", values[:1], values[1:])
    path = tmp_path / "net.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), path)
    with pytest.raises(UsageError, match=r"the input sample has open sizes \(height, width\)"):
        read_subject(path)
    specs = [TensorSpec(name, ("batch_size", 1, 8, 12), "float32", "noise") for name in ("sample", "out")]
    artifact = Artifact(path.name, "onnx", "fp32", nbytes_of(path), sha256_of(path), engine="none")
    signature = Signature((specs[0],), (specs[1],))
    write_manifest(tmp_path, [artifact], signature, lineage={}, parity=unchecked([artifact]))
    subject = read_subject(path)
    assert subject.facts.inputs[0].shape == (1, 1, 8, 12)
    assert subject.arrays[0].shape == (1, 1, 8, 12)


def call(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(record) for record in arguments])


def test_the_command_keeps_all_samples_and_compares_them(folder: Path, tmp_path: Path, in_process: None) -> None:
    file = folder / "net_onnx_fp32.onnx"
    done = call("profile", file, "-o", tmp_path / "a.json")
    assert done.exit_code == 0, done.exception
    assert "| net_onnx_fp32.onnx, 1 thread | " in done.stdout
    assert read(tmp_path / "a.json").results[0].latency is not None
    same = call("compare", tmp_path / "a.json", tmp_path / "a.json", "--json")
    (row,) = json.loads(same.stdout)["differences"]
    assert row["changes"]["p50"] == 0.0
    assert row["surely"] == "no difference"

    content = read_json(tmp_path / "a.json")
    content["results"][0]["verdict"] = {"status": "ok", "reasons": []}  # this machine may be busy
    write_json(tmp_path / "a.json", content)
    latency = content["results"][0]["latency"]
    for name in ("p50_ms", "p90_ms", "min_ms", "mean_ms"):
        latency[name] *= 1.5
    latency["blocks_ms"] = [[1.5 * sample for sample in block] for block in latency["blocks_ms"]]
    latency["p50_ci95_ms"] = [1.5 * sample for sample in latency["p50_ci95_ms"]]
    write_json(tmp_path / "b.json", content)
    slower = call("compare", tmp_path / "a.json", tmp_path / "b.json", "--fail-on", "p50>+5%")
    assert isinstance(slower.exception, BudgetError)
    assert "net_onnx_fp32.onnx, 1 thread: p50 +50.0%, allowed +5%" in str(slower.exception)
    content["results"][0]["verdict"] = {"status": "noisy", "reasons": ["other programs used 0.97 cores"]}
    write_json(tmp_path / "b.json", content)
    noisy = call("compare", tmp_path / "a.json", tmp_path / "b.json", "--fail-on", "p50>+5%")
    assert isinstance(noisy.exception, DeviceError)
    assert "not judged, because a measurement was noisy" in str(noisy.exception)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (["none.onnx"], DataError, "no file none.onnx"),
        (["FILE", "--threads", "0"], UsageError, "--threads 0: give whole numbers from 1"),
        (["FILE", "--threads", "1,x"], UsageError, "--threads 1,x: give whole numbers from 1"),
        (["FILE", "--profile", "long"], UsageError, "--profile long: there are quick and full"),
        (
            ["FILE", "--device", "phone"],
            UsageError,
            "no device 'phone'; there are: adb, arm64, browser, host, macos, ssh",
        ),
        (["FILE", "--provider", "cuda"], UsageError, "--provider cuda: there are cpu, xnnpack, nnapi, qnn"),
        (
            ["FILE", "--provider", "qnn", "--device", "browser"],
            UsageError,
            "--provider qnn: browser has no providers; leave it out",
        ),
        (["FILE", "--device", "ssh:"], UsageError, "give ssh:USER@HOST"),
        (["FILE", "--device", "host:1"], UsageError, "the host has no other name"),
        (["FILE", "-o", "no/such/folder/x.json"], UsageError, "no folder no/such/folder"),
        (["FILE", "FILE"], UsageError, "two files have one name"),
        (["FILE", "--force"], UsageError, "--force and --dry-run are for recipes"),
        (["FOLDER/manifest.json"], UsageError, "there are runners for .onnx, .ort, .pte, .mlpackage"),
        (["digits", "--threads", "2"], UsageError, "--threads does not go with the recipe digits"),
        (["digits", "FILE"], UsageError, "does not go with the recipe digits"),
    ],
)
def test_wrong_input(folder: Path, arguments: list[str], error: type[Exception], message: str) -> None:
    named = [record.replace("FILE", str(folder / "net_onnx_fp32.onnx")) for record in arguments]
    done = call("profile", *[record.replace("FOLDER", str(folder)) for record in named])
    assert isinstance(done.exception, error), done.exception
    assert message in str(done.exception)


def test_a_result_that_failed_ends_with_its_code(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    failed = {"status": "failed", "reasons": ["no answer within 60 s"]}

    def made(files: list[Path], *arguments: Any, **options: Any) -> Any:
        measured = profile_files([folder / "net_onnx_fp32.onnx"], DEVICE, options=FEW, progress=Silent())
        (record,) = measured.results
        wrong = {**record.model_dump(), "latency": None, "verdict": failed}
        return measured.model_copy(update={"results": (MeasuredFile.model_validate(wrong),)})

    monkeypatch.setattr(profile, "profile_files", made)
    done = call("profile", folder / "net_onnx_fp32.onnx", "--json")
    assert isinstance(done.exception, DeviceError)
    assert json.loads(done.stdout)["results"][0]["latency"] is None
    assert done.exception.exit_code == 6
    assert ParityError.exit_code == 4


@needs_compiler
def test_devices_tells_what_runs_here_and_what_is_not_reached() -> None:
    done = call("devices", "host", "--json")
    (row,) = json.loads(done.stdout)["devices"]
    assert row["runs"][".onnx"].startswith("onnxruntime ")
    assert row["runs"][".pte"].startswith("executorch ")
    lost = call("devices", "host", "ssh:nobody@edgegen.invalid", "--json")
    assert isinstance(lost.exception, DeviceError)
    rows = json.loads(lost.stdout)["devices"]
    assert rows[0]["error"] is None
    assert "which must work without a password" in rows[1]["error"]
    assert (
        "others by name: host, ssh:USER@HOST, adb:SERIAL, arm64, browser, browser:webgpu, macos"
        in call("devices").stdout
    )
