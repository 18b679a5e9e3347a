"""One tiny run from images to the report, and what a user finds in its folder."""

import hashlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import TINY, command, environment
from PIL import Image
from typer.testing import CliRunner

from edgegen.cli.main import app
from edgegen.errors import DataError, EdgegenError
from edgegen.formats.bundle_folder import check_bundle
from edgegen.pipeline.run import dry_run
from edgegen.profilers.schema import read
from edgegen.support.storage import sha256_of

ARTIFACTS = {
    "tiny_onnx_fp32.onnx": "onnxruntime",
    "tiny_onnx_w8a8.onnx": "onnxruntime",
    "tiny_executorch_w8a8.pte": "executorch",
    "tiny_coreml_fp16.mlpackage": "edgegen MIL evaluator",
}


def edgegen(folder: Path, *arguments: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command(*arguments), cwd=folder, capture_output=True, text=True, env=environment(), check=False
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the finished run: `runs/tiny`."""
    folder = tmp_path_factory.mktemp("whole")
    files = '[export]\nartifacts = ["onnx-fp32", "onnx-w8a8", "executorch-w8a8", "coreml-fp16"]\n'
    (folder / "tiny.toml").write_text(TINY + files + '[bundle]\nartifacts = ["executorch-w8a8", "onnx-fp32"]\n')
    done = edgegen(folder, "run", "tiny.toml")
    assert done.returncode == 0, done.stderr
    assert "report: " in done.stdout
    return folder


@pytest.fixture(scope="module")
def report(place: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((place / "runs/tiny/report/latest/report.json").read_text())
    return content


def test_the_files_are_each_executed_and_compared(place: Path, report: dict[str, Any]) -> None:
    rows = {row["file"]: row for row in report["artifacts"]}
    assert set(rows) == set(ARTIFACTS)
    for file, runtime in ARTIFACTS.items():
        parity = rows[file]["parity"]
        assert parity["status"] == "ok"
        assert parity["method"].startswith(runtime), parity["method"]
        assert parity["psnr_db"] >= parity["floor_db"]
        assert parity["samples"] == 4
        path = place / "runs/tiny/verify/latest/artifacts" / file
        assert path.exists()
        if path.is_file():
            assert hashlib.sha256(path.read_bytes()).hexdigest() == rows[file]["sha256"]
            assert path.stat().st_size == rows[file]["nbytes"]
        assert (rows[file]["latency"]["p50_ms"] is None) == file.endswith(".mlpackage")
        assert (rows[file]["fd_local"] is None) == file.endswith(".mlpackage")
    manifest = json.loads((place / "runs/tiny/verify/latest/artifacts/manifest.json").read_text())
    assert [row["parity"]["status"] for row in manifest["artifacts"]] == ["ok"] * len(ARTIFACTS)


def test_the_run_ends_with_a_bundle(place: Path) -> None:
    folder = place / "runs/tiny/bundle/latest/bundle"
    bundle = check_bundle(folder)
    assert [artifact.file for artifact in bundle.artifacts] == ["tiny_onnx_fp32.onnx", "tiny_executorch_w8a8.pte"]
    assert [row.device for artifact in bundle.artifacts for row in artifact.latency] == ["host", "host"]
    assert bundle.class_names == tuple("0123456789")
    made = edgegen(
        place, "bundle", "tiny.toml", "--artifact", "onnx-fp32", "--artifact", "executorch-w8a8", "-o", "app"
    )
    assert made.returncode == 0, made.stderr
    assert sha256_of(place / "app") == sha256_of(folder)
    sampled = edgegen(place, "sample", "tiny.toml", "-o", "a.png")
    again = edgegen(place, "sample", "--like", "a.png", "-o", "b.png")
    assert "the same pixels" in again.stdout, sampled.stderr + again.stderr


def test_each_file_is_timed_by_the_runner_of_edgegen_profile(place: Path, report: dict[str, Any]) -> None:
    profile = report["profile"]
    assert (profile["schema"], profile["device"]) == ("edgegen.profile/1", "host")
    measured = {row["artifact"]["name"]: row for row in profile["results"]}
    assert set(measured) == {file for file in ARTIFACTS if not file.endswith(".mlpackage")}
    for row in report["artifacts"]:
        if row["file"] in measured:
            assert row["latency"]["runtime"] == measured[row["file"]]["config"]["runtime"]
            assert row["latency"]["p50_ms"] == measured[row["file"]]["latency"]["p50_ms"]
            assert row["latency"]["runtime"].startswith(ARTIFACTS[row["file"]])
    assert all(row["latency"]["runtime"].startswith("PyTorch ") for row in report["torch_latency"])
    assert read(place / "runs/tiny/profile/latest/profile.json").to_json() == profile


def test_quality_by_net_and_steps(report: dict[str, Any]) -> None:
    of_one_step = {"student", "baseline"}  # trained for no more
    for net in ("teacher", "slimmed", *of_one_step):
        assert set(report["quality"][net]) == ({"1"} if net in of_one_step else {"1", "2"})
        assert all(figure["fd_local"] > 0 and figure["sd"] >= 0 for figure in report["quality"][net].values())
    assert report["quality"]["floor"]["0"]["sd"] is None
    assert report["extractor"]["fd_name"].startswith("fd_local[cnn-v1,digits,sha256:")
    assert report["parameters"]["student"] <= 0.9 * report["parameters"]["teacher"]
    assert 0 <= report["fold"]["max_relative_error"] <= 1e-5
    assert report["fold"]["parameters_removed"] > 0


def test_the_report_is_valid_and_opens_offline(place: Path, report: dict[str, Any]) -> None:
    import jsonschema

    from edgegen.report.schema import Report

    jsonschema.validate(report, Report.json_schema())
    page = (place / "runs/tiny/report/latest/report.html").read_text()
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "<script src" not in page
    assert str(place) not in page
    assert str(place) not in json.dumps(report)


def test_an_unchanged_recipe_runs_nothing(place: Path) -> None:
    done = edgegen(place, "run", "tiny.toml", "--json")
    rows = json.loads(done.stdout)["stages"]
    assert all(row["reused"] for row in rows)
    assert "nothing to do: all 15 stages are up to date" in done.stderr


def test_a_damaged_result_is_made_again(place: Path) -> None:
    copy = place.parent / "damaged"
    shutil.copytree(place, copy, symlinks=True)
    (path,) = (copy / "runs/tiny/extractor").glob("[0-9a-f]*/*.safetensors")
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    rows = json.loads(edgegen(copy, "run", "tiny.toml", "--to", "extractor", "--json").stdout)["stages"]
    assert {row["stage"]: row["reused"] for row in rows}["extractor"] is False
    assert path.read_bytes() == whole, "the same input gives the same bytes"


@pytest.mark.parametrize("by_stage", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_flipped_bit_in_any_kind_of_file_is_refused_by_its_name(
    by_stage: bool, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the same size, so that only the content tells; what a new result would overwrite may be somebody's work.

    One file of each suffix; with `by_stage`, of each suffix in each stage.
    """
    copy = tmp_path / "flipped"
    shutil.copytree(place, copy, symlinks=True)
    monkeypatch.chdir(copy)
    kinds: dict[tuple[str, str], Path] = {}
    for record in sorted(Path("runs/tiny").glob("*/[0-9a-f]*/stage.json")):
        for name in json.loads(record.read_text())["files"]:
            kinds.setdefault((record.parts[2] if by_stage else "", Path(name).suffix), record.parent / name)
    assert {".safetensors", ".json", ".jsonl", ".onnx", ".pte", ".bin", ".html", ".md"} <= {
        suffix for _, suffix in kinds
    }
    for path in kinds.values():
        whole = path.read_bytes()
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        with pytest.raises(
            DataError, match=rf"^{re.escape(str(path))} does not hold what was written there: .* delete"
        ):
            dry_run("tiny.toml")
        if path.parent.name == "generator":
            with pytest.raises(DataError, match=rf"{path.name} does not hold what was written there"):
                sample(str(path.parent))
        path.write_bytes(whole)
    assert {item.state for item in dry_run("tiny.toml")[1]} == {"unchanged"}


@pytest.mark.long
def test_sensitivity_of_a_recipe_tells_pictures_and_distribution_apart(place: Path) -> None:
    done = edgegen(place, "sensitivity", "tiny.toml", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["sources"]["tiny.toml"]
    assert found["fd_local"] > 0
    assert len(found["layers"]) > 10
    assert len({row["fd_change"] for row in found["layers"]}) > 5
    assert min(row["psnr_db"] for row in found["layers"]) > 20


@pytest.mark.parametrize("file", ["student", *ARTIFACTS])
def test_samples_are_the_same_picture_everywhere(place: Path, file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    in_pytorch = ("tiny.toml", "--steps", "1")
    source = in_pytorch if file == "student" else (f"runs/tiny/verify/latest/artifacts/{file}",)
    made = sample(*source, "--output", f"{file}.png")
    assert made["count"] == 4
    picture = np.asarray(Image.open(place / f"{file}.png"), dtype=np.float64)
    assert picture.shape == (17, 17)
    sample("runs/tiny/choose/latest/generator", "--output", "reference.png")
    difference = np.abs(picture - np.asarray(Image.open(place / "reference.png"), dtype=np.float64))
    assert difference.max() <= (24 if "w8" in file else 1)


def test_a_run_by_its_name_or_recipe_is_a_file_that_knows_its_classes(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    for source in ("tiny", "tiny.toml"):
        made = sample(source, "--output", "run.png")
        assert made["source"] == "runs/tiny/verify/latest/artifacts/tiny_onnx_fp32.onnx"
    manifest = json.loads(Path("runs/tiny/verify/latest/artifacts/manifest.json").read_text())
    assert manifest["class_names"] == [str(digit) for digit in range(10)]
    assert sample("tiny", "--steps", "2", "--output", "student.png")["method"] == "PyTorch, 2 steps"


def test_the_folder_of_files_says_what_an_app_has_to_know(place: Path) -> None:
    """As the runtimes themselves describe the files."""
    import onnxruntime

    from edgegen import registry
    from edgegen.program.inputs import example_inputs
    from edgegen.types import Signature

    folder = place / "runs/tiny/verify/latest/artifacts"
    card = (folder / "README.md").read_text()
    assert "`sample` is standard normal noise" in card
    assert "`edgegen.noise`" in card
    assert "`class_labels` is the number of a class, 0 to 9, which is its name, too." in card
    assert "`out_sample` is an image: one gray channel, (batch, channels, height, width) (NCHW), -1 is black" in card
    assert "pixel = round(255 * (x + 1) / 2)" in card
    assert "p50" not in card, "they are measured later"
    manifest = json.loads((folder / "manifest.json").read_text())
    rows = {row["file"]: row["details"] for row in manifest["artifacts"]}
    assert {file: row["batch"] for file, row in rows.items()} == {
        file: None if file.endswith(".onnx") else 1 for file in ARTIFACTS
    }
    pte = "tiny_executorch_w8a8.pte"
    forward = registry.load("backend", "executorch").open(folder / pte)
    inputs = example_inputs(Signature.from_dict(manifest["signature"]), 1, 0)
    for output, session in zip(rows[pte]["outputs"], (forward, forward.further["generate"]), strict=True):
        (values,) = session(inputs).values()
        assert (list(values.shape), str(values.dtype)) == (output["shape"], output["dtype"])
        assert f"| `{pte}` | `{output['method']}` | `{output['name']}` | {output['dtype']} | " in card
    assert [(output["method"], output["dtype"], output["layout"]) for output in rows[pte]["outputs"]] == [
        ("forward", "float32", "NCHW"),
        ("generate", "uint8", "NHWC"),
    ]
    (described,) = rows["tiny_onnx_fp32.onnx"]["outputs"]
    (output,) = onnxruntime.InferenceSession(folder / "tiny_onnx_fp32.onnx").get_outputs()
    assert (described["name"], described["shape"][0]) == (output.name, output.shape[0]) == ("out_sample", "batch_size")


def sample(source: str, *arguments: str) -> dict[str, Any]:
    """`edgegen sample` in this process: four pictures of class 3."""
    common = ["--count", "4", "--class", "3", "--seed", "5", "--json"]
    result = CliRunner().invoke(app, ["sample", source, *common, *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    made: dict[str, Any] = json.loads(result.stdout)
    return made


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("tiny.toml", "--class", "10"), "--class 10: there are 0 to 9"),
        (("tiny.toml", "-o", "x.jpg"), r"give a name that ends in \.png"),
        (("tiny.toml", "-o", "folder.png"), r"folder\.png: is a folder"),
        (("nothing.onnx",), r"no file nothing\.onnx"),
        (
            ("runs/tiny/export/latest/tiny_onnx_fp32.onnx", "--steps", "3"),
            "an exported file makes its image in one step",
        ),
        (("nothing",), "no recipe 'nothing'"),
    ],
)
def test_samples_that_cannot_be_made(
    place: Path, arguments: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    (place / "folder.png").mkdir(exist_ok=True)
    with pytest.raises(EdgegenError, match=message) as caught:
        CliRunner().invoke(app, ["sample", *arguments], catch_exceptions=False)
    assert caught.value.exit_code == 2


@pytest.mark.long
def test_a_file_that_is_wrong_fails_the_run_with_its_own_exit_code(place: Path) -> None:
    """A floor that nothing reaches stands for a wrong file: the report is written, and the exit code is 4."""
    copy = place.parent / "strict"
    shutil.copytree(place, copy, symlinks=True)
    (copy / "tiny.toml").write_text(TINY + '[export]\nartifacts = ["onnx-fp32"]\n')
    code = (
        "import dataclasses, sys; from edgegen.exporters.onnx.backend import BACKEND;"
        "BACKEND.cells['fp32'] = dataclasses.replace(BACKEND.cells['fp32'], floor_db=500.0);"
        "sys.argv = ['edgegen', 'verify', 'tiny.toml', '--force'];"
        "from edgegen.cli.main import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=copy, capture_output=True, text=True, env=environment(), check=False
    )
    assert done.returncode == 4, done.stderr
    assert "tiny_onnx_fp32.onnx" in done.stderr
    assert "is below the floor of 500.0 dB" in done.stderr
    assert edgegen(copy, "report", "tiny.toml").returncode == 4
    rows = json.loads((copy / "runs/tiny/report/latest/report.json").read_text())["artifacts"]
    (wrong,) = rows
    assert wrong["file"] == "tiny_onnx_fp32.onnx"
    assert wrong["parity"]["status"] == "failed"
    assert wrong["latency"]["p50_ms"] is None
