"""`edgegen inspect` prints tables or JSON; errors are one line and the documented exit code."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import inspected
import pytest
from families import TINY
from typer.testing import CliRunner

from edgegen.cli.main import app
from edgegen.inspection.record import inspect
from edgegen.types import Signature, TensorSpec

Edgegen = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def pte(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pte") / "net.pte"
    path.write_bytes(inspected.content(inspected.lower(delegate=True)))
    return path


def test_json_is_the_record(pte: Path) -> None:
    result = CliRunner().invoke(app, ["inspect", str(pte), "--json"], catch_exceptions=False)
    assert json.loads(result.stdout) == json.loads(json.dumps(inspect(pte).to_dict()))


def test_the_tables_list_the_operations_outside_the_delegates_with_reasons(pte: Path) -> None:
    shown = CliRunner().invoke(app, ["inspect", str(pte), "--weights"], catch_exceptions=False, env={"COLUMNS": "160"})
    inspection = inspect(pte)
    text = shown.stdout
    assert text.startswith(f"net.pte: ExecuTorch, {inspection.nbytes:,} bytes")
    for piece in (
        "takes input_0  float32  [1, 3, 8, 8]",
        f"{inspection.main.macs.total:,} MACs",
        f"outside the delegates: {inspection.main.nodes_outside}",
        "XNNPACK has no GroupNorm",
        "XnnpackBackend",
        "weights float32",
        "16 x 3 x 3 x 3",
        "hints",
    ):
        assert piece in text


def test_an_onnx_file_with_edgegens_signature(tmp_path: Path) -> None:
    import onnx

    path = inspected.write_onnx(tmp_path / "net.onnx")
    model = onnx.load(path)
    shape = ("batch_size", 3, 8, 8)
    sample = TensorSpec("sample", shape, "float32", "noise", -1.0, 1.0)
    signature = Signature((sample,), (TensorSpec("out", shape, "float32", "image"),))
    model.metadata_props.add(key="edgegen.signature", value=json.dumps(signature.to_dict()))
    model.metadata_props.add(key="edgegen.license", value="[x]" * 50)
    onnx.save(model, path)
    shown = CliRunner().invoke(app, ["inspect", str(path)], catch_exceptions=False, env={"COLUMNS": "160"})
    assert "noise, -1 to 1" in shown.stdout
    assert "[x][x]" in shown.stdout
    assert "ai.onnx 18" in shown.stdout


def test_errors_are_one_line_without_a_traceback(edgegen: Edgegen, tmp_path: Path) -> None:
    (tmp_path / "a.pte").write_bytes(b"nothing")
    for name, code, text in (
        ("a.pte", 2, "cannot read a.pte (7 bytes): it begins with"),
        ("b.pte", 2, "cannot inspect b.pte: nothing is there"),
        ("b.bin", 2, "no suffix '.bin'; there are: .bpte, .mlpackage, .onnx"),
    ):
        done = edgegen("inspect", name)
        assert (done.returncode, done.stdout) == (code, "")
        assert done.stderr.startswith("error: ")
        assert text in done.stderr
        assert "Traceback" not in done.stderr


def test_sensitivity_lists_every_layer_and_a_pareto_set(tmp_path: Path) -> None:
    folder = TINY["edge_unet_class"](tmp_path / "net")
    done = CliRunner().invoke(app, ["sensitivity", str(folder), "--scheme", "w8", "--json"], catch_exceptions=False)
    (figures,) = json.loads(done.stdout)["sources"].values()
    assert {"net.stem", "net.head"} < {layer["name"] for layer in figures["layers"]}
    assert figures["pareto"][0]["float_layers"] == []
    refused = CliRunner().invoke(app, ["sensitivity", str(folder), "--scheme", "w5"])
    assert "no scheme 'w5'; there are: mixed, w4-block, w8, w8a16, w8a8" in str(refused.exception)


def test_a_source_shows_its_inputs(tmp_path: Path) -> None:
    folder = TINY["edge_unet_class"](tmp_path / "net")
    shown = CliRunner().invoke(app, ["inspect", str(folder)], catch_exceptions=False).stdout
    assert shown.startswith("net: EdgeUNet, ")
    assert "takes class_labels  int64  [batch_size]  class, 0 to 2" in shown
    record = json.loads(CliRunner().invoke(app, ["inspect", str(folder), "--json"], catch_exceptions=False).stdout)
    assert [spec["role"] for spec in record["sources"][0]["signature"]["inputs"]] == ["noise", "class"]
