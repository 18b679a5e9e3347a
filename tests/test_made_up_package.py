"""Another package, installed by pip, adds a backend, an objective, a device and an importer by entry points alone."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import inspected
import pytest
from families import TINY as SOURCES
from helpers import TINY, command, environment

pytestmark = pytest.mark.long

Call = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the package is installed into."""
    folder = tmp_path_factory.mktemp("made_up")
    shutil.copytree(Path(__file__).with_name("made_up_package"), folder / "source")  # pip builds where the source is
    options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--no-build-isolation", "--no-index"]
    install = [sys.executable, "-m", "pip", "install", *options, "--target", folder / "site", folder / "source"]
    done = subprocess.run(install, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder / "site"


@pytest.fixture
def edgegen(site: Path, tmp_path: Path) -> Call:
    """Runs the command line in `tmp_path`, with the package installed."""
    paths = [str(site), *filter(None, [os.environ.get("PYTHONPATH")])]

    def call(*arguments: object) -> "subprocess.CompletedProcess[str]":
        variables = {**environment(), "PYTHONPATH": os.pathsep.join(paths)}
        return subprocess.run(
            command(*arguments), cwd=tmp_path, capture_output=True, text=True, env=variables, check=False
        )

    return call


def printed(done: "subprocess.CompletedProcess[str]") -> Any:
    """The JSON on stdout of a command that succeeded."""
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_without_the_package_its_names_are_unknown(tmp_path: Path) -> None:
    inspected.write_onnx(tmp_path / "net.onnx")
    done = subprocess.run(
        command("profile", "net.onnx", "--device", "drawer"),
        cwd=tmp_path, capture_output=True, text=True, env=environment(), check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "no device 'drawer'; there are: adb, arm64, browser, host, macos, ssh" in done.stderr


def test_export_makes_a_file_and_verifies_it_by_the_backend_s_own_session(edgegen: Call, tmp_path: Path) -> None:
    SOURCES["edge_unet_class"](tmp_path / "net")
    done = edgegen("export", "net", "--to", "archive,archive-fp32,onnx", "-o", "out", "--json")
    (exported,) = printed(done)["exported"]
    archive, onnx = exported["artifacts"]
    assert (archive["file"], archive["backend"], archive["scheme"]) == ("net_archive_fp32.archive", "archive", "fp32")
    assert archive["parity"]["status"] == "ok"
    assert archive["parity"]["method"].endswith("its archive")
    assert archive["latency"]["reason"] == "not measured: no runner for .archive files"
    assert (onnx["backend"], onnx["parity"]["status"]) == ("onnx", "ok")
    assert onnx["latency"]["p50_ms"] > 0
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert [row["file"] for row in manifest["artifacts"]] == ["net_archive_fp32.archive", "net_onnx_fp32.onnx"]
    images = printed(edgegen("sample", "out/net_archive_fp32.archive", "--count", "2", "--json"))
    assert images["method"].endswith("its archive")


def test_a_scheme_that_the_backend_has_no_cell_for_is_refused_with_those_it_has(edgegen: Call, tmp_path: Path) -> None:
    SOURCES["edge_unet_class"](tmp_path / "net")
    done = edgegen("export", "net", "--to", "archive-w8", "-o", "out")
    assert done.returncode == 2
    assert "no quantization scheme 'w8' for backend 'archive'; there are: archive fp32" in done.stderr


def test_a_stage_trains_by_the_objective_with_its_own_key(edgegen: Call, tmp_path: Path) -> None:
    recipe = tmp_path / "tiny.toml"
    table = '[distill]\nmethod = "absolute_regression"\n'
    recipe.write_text(TINY.replace("[distill]\n", table))
    first = printed(edgegen("distill", "tiny.toml", "--json"))["stages"]
    assert [row["stage"] for row in first] == ["data", "teacher", "pairs", "slim", "distill"]
    recipe.write_text(TINY.replace("[distill]\n", f"{table}weight = 2.0\n"))
    second = printed(edgegen("distill", "tiny.toml", "--json"))["stages"]
    assert [row["stage"] for row in second if not row["reused"]] == ["distill"], "its key is part of the result"
    recipe.write_text(TINY.replace("[distill]\n", f"{table}wait = 2.0\n"))
    refused = edgegen("distill", "tiny.toml")
    assert refused.returncode == 2
    assert "distill.wait: no key 'wait'" in refused.stderr
    assert "Did you mean 'weight'?" in refused.stderr


def test_profile_measures_on_the_device(edgegen: Call, tmp_path: Path) -> None:
    inspected.write_onnx(tmp_path / "net.onnx")
    profile = printed(edgegen("profile", "net.onnx", "--device", "drawer:upper", "--json"))
    assert profile["device"] == "drawer upper"
    (measured,) = profile["results"]
    assert measured["numerics"]["passed"]
    assert measured["latency"]["p50_ms"] > 0


def test_report_reads_the_importer_s_format(edgegen: Call, tmp_path: Path) -> None:
    (tmp_path / "log.txt").write_text("stopwatch: net.bin on the kitchen table 12.5 ms\n")
    (measurement,) = printed(edgegen("report", "log.txt", "--json"))["measurements"]
    assert (measurement["source"], measurement["device"]) == ("stopwatch", "the kitchen table")
    assert measurement["times_ms"] == {"mean": 12.5}
    (tmp_path / "log.txt").write_text("stopwatch: it stopped\n")
    damaged = edgegen("report", "log.txt")
    assert damaged.returncode == 2
    assert "log.txt looks like the log of a stopwatch, but: it has no line with a time" in damaged.stderr
