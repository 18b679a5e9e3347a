"""Export of what a user brings: folder, manifest and card; failures and false files; the command line over it."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from families import CARD, TINY
from typer.testing import CliRunner

from edgegen.artifacts.export import ExportSettings, export_source
from edgegen.artifacts.export_result import raise_failures
from edgegen.artifacts.target import Target, check_quantization
from edgegen.cli.main import app
from edgegen.errors import BudgetError, DataError, ExportError, ParityError, UsageError
from edgegen.quantize.budget import Budget
from edgegen.recipe import Export, Quantize
from edgegen.support.progress import Silent
from edgegen.types import Parity
from edgegen.verification import verify
from edgegen.verification.parity import psnr_db


def settings(*targets: str, **more: Any) -> ExportSettings:
    return ExportSettings(tuple(Target.parse(text) for text in targets), measure=False, samples=2, **more)


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = TINY["edge_unet_class"](tmp_path_factory.mktemp("net") / "tiny")
    (folder / "README.md").write_text(CARD)
    return folder


@pytest.mark.long
def test_a_folder_of_files_a_manifest_and_a_card(net: Path, tmp_path: Path, in_process: None) -> None:
    targets = ("onnx", "onnx-fp16", "onnx:generate", "onnx:any_size", "coreml-fp32")
    (done,) = export_source(str(net), tmp_path / "out", settings(*targets), progress=Silent())
    raise_failures([done])
    assert {parity.status for parity in done.parity.values()} == {"ok"}
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert [row["file"] for row in manifest["artifacts"]] == [one.artifact.file for one in done.built]
    assert all((tmp_path / "out" / row["file"]).exists() for row in manifest["artifacts"])
    assert manifest["lineage"]["license"] == "apache-2.0"
    assert done.fold.class_table is not None
    card = (tmp_path / "out" / "README.md").read_text()
    head = ["---", "library_name: edgegen", "pipeline_tag: unconditional-image-generation", "license: apache-2.0"]
    assert card.splitlines()[:4] == head
    assert all(f"`{row['file']}`" in card for row in manifest["artifacts"])
    by_file = {row["file"]: row["details"] for row in manifest["artifacts"]}
    (pixels,) = by_file["tiny_onnx_fp32_generate.onnx"]["outputs"]
    (output,) = onnx.load(tmp_path / "out" / "tiny_onnx_fp32_generate.onnx").graph.output
    dims = [size.dim_param or size.dim_value for size in output.type.tensor_type.shape.dim]
    assert (pixels["name"], pixels["dtype"], pixels["layout"], pixels["shape"]) == (output.name, "uint8", "NHWC", dims)
    assert by_file["tiny_coreml_fp32.mlpackage"]["outputs"][0]["shape"][0] == 1
    assert "| `tiny_onnx_fp32_generate.onnx` | - | `out_image` | uint8 |" in card
    stamped = {p.key: p.value for p in onnx.load(tmp_path / "out" / "tiny_onnx_fp32.onnx").metadata_props}
    assert stamped["edgegen.license"] == "apache-2.0"
    assert str(tmp_path) not in json.dumps(stamped) + json.dumps(manifest) + card
    graph = onnx.load(tmp_path / "out" / "tiny_onnx_fp32_any_size.onnx").graph
    shapes = [value.type.tensor_type.shape.dim for value in (*graph.input, *graph.output)]
    picture = ["batch_size", 1, "height", "width"]
    assert [[size.dim_param or size.dim_value for size in shape] for shape in shapes] == [
        picture,
        ["batch_size"],
        picture,
    ]


def test_one_target_that_fails_does_not_stop_the_others(net: Path, tmp_path: Path, in_process: None) -> None:
    (done,) = export_source(str(net), tmp_path, settings("executorch:qnn", "onnx"), progress=Silent())
    assert [one.artifact.file for one in done.built] == ["tiny_onnx_fp32.onnx"]
    with pytest.raises(ExportError, match=r"not exported:\n  tiny executorch-fp32:qnn: Qualcomm's delegate needs its"):
        raise_failures([done])


@pytest.mark.long
def test_a_budget_that_is_not_kept_names_the_layers(net: Path, tmp_path: Path, in_process: None) -> None:
    quantize = Quantize(samples=16, budget="psnr>=90,size<=0.9")
    wanted = settings("onnx", "onnx-w8", "onnx-w8a8", quantize=quantize)
    (done,) = export_source(str(net), tmp_path, wanted, progress=Silent())
    assert not done.over_budget["tiny_onnx_fp32.onnx"], "a budget is for compressed files"
    with pytest.raises(
        BudgetError, match=r"tiny_onnx_w8a8.onnx: psnr \d\d.\d dB, asked >= 90 dB; .*most by net\."
    ) as e:
        raise_failures([done])
    assert e.value.exit_code == 5


def test_a_pattern_that_matches_no_layer_fails_its_file(net: Path, tmp_path: Path, in_process: None) -> None:
    quantize = Quantize(samples=16, float_layers=("net.haed",))
    (done,) = export_source(str(net), tmp_path, settings("onnx-w8a8", quantize=quantize), progress=Silent())
    with pytest.raises(ExportError, match=r"no layer that matches 'net.haed'; .*Did you mean 'net.head'"):
        raise_failures([done])


def test_a_false_file_is_a_parity_error(
    net: Path, tmp_path: Path, in_process: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    false = Parity("failed", "planted", 80.0, psnr_db=12.0, reason="12.0 dB is below the floor of 80.0 dB")
    monkeypatch.setattr(verify, "check", lambda *_, **__: false)
    (done,) = export_source(str(net), tmp_path, settings("onnx"), progress=Silent())
    with pytest.raises(ParityError, match=r"tiny_onnx_fp32.onnx: 12.0 dB is below the floor"):
        raise_failures([done])


def test_a_pipeline_is_a_folder_for_each_component(tmp_path: Path, in_process: None) -> None:
    folder = TINY["pipeline_dit"](tmp_path / "pipe")
    done = export_source(str(folder), tmp_path / "out", settings("onnx"), progress=Silent())
    assert {one.name: one.folder.name for one in done} == {"transformer": "transformer", "vae_decoder": "vae_decoder"}
    assert all((tmp_path / "out" / one.name / "manifest.json").exists() for one in done)


def test_a_network_of_one_size_has_no_file_for_any(tmp_path: Path, in_process: None) -> None:
    folder = TINY["dit"](tmp_path / "dit")
    (done,) = export_source(str(folder), tmp_path / "out", settings("onnx:any_size", "onnx"), progress=Silent())
    assert [one.artifact.file for one in done.built] == ["dit_onnx_fp32.onnx"]
    assert "for any size (perhaps it takes only its own)" in str(done.failures["onnx-fp32:any_size"])


@pytest.mark.long
def test_a_size_that_the_network_does_not_take_is_told_before_a_file_is_made(tmp_path: Path) -> None:
    folder = TINY["unet2d"](tmp_path / "net")
    files = Export(heights_widths=((9, 9),))
    (done,) = export_source(str(folder), tmp_path / "out", settings("coreml:sizes", export=files), progress=Silent())
    assert str(done.failures["coreml-fp16:sizes"]).startswith("the network does not take 9x9: ")


@pytest.mark.long
def test_an_input_may_be_called_image(tmp_path: Path, in_process: None) -> None:
    folder = TINY["unet2d_image_conditional"](tmp_path / "net")
    (done,) = export_source(str(folder), tmp_path / "out", settings("onnx:generate"), progress=Silent())
    raise_failures([done])
    assert [spec.name for spec in done.signature.inputs] == ["sample", "image"]


@pytest.mark.long
def test_the_uint8_image_is_the_float_image(net: Path, tmp_path: Path, in_process: None) -> None:
    from edgegen.exporters.executorch.backend import BACKEND
    from edgegen.program.capture import reference
    from edgegen.program.inputs import example_inputs
    from edgegen.support.pixels import to_uint8

    (done,) = export_source(str(net), tmp_path, settings("executorch"), progress=Silent())
    inputs = example_inputs(done.signature, 2, 5)
    generate = BACKEND.open(tmp_path / "tiny_executorch_fp32.pte").further["generate"]
    pixels = generate(inputs)["out_image"]
    assert (pixels.dtype, pixels.shape) == (np.dtype(np.uint8), (2, 8, 8, 1))
    assert psnr_db(to_uint8(reference(done.fold.module, inputs)), pixels, data_range=255.0) > 50.0


def test_a_latency_that_this_machine_cannot_measure_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    budget, numbers = Budget.parse("latency<=0.5"), Quantize()
    targets = [Target.parse("onnx-w8a8"), Target.parse("coreml-w8a8")]
    monkeypatch.setattr("platform.system", lambda: "Linux")
    with pytest.raises(UsageError, match="coreml-w8a8: a budget's latency is measured on this machine, where it does"):
        check_quantization(targets, numbers, budget=budget, trains=False)
    monkeypatch.setattr("platform.system", lambda: "Darwin")
    check_quantization(targets, numbers, budget=budget, trains=False)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["no-such-folder", "--to", "onnx"], 2, "no source 'no-such-folder'"),
        (["NET", "--to", "tflite"], 2, "no backend 'tflite'; there are: coreml, executorch, onnx"),
        (["NET", "--to", "onnx:batch7"], 2, "no onnx variant 'batch7'"),
        (["NET", "--to", ","], 2, "--to ',' names nothing"),
        (["NET", "--to", "coreml:sizes"], 2, "coreml-fp16:sizes needs the sizes that it shall take, such as export."),
        (["NET", "--to", "onnx", "--memory-limit", "much"], 2, "--memory-limit much: give a size such as 8GB"),
        (["digits", "--to", "onnx"], 2, "--to does not go with the recipe digits"),
        (["digits", "--recipe", "files.toml"], 2, "--recipe does not go with the recipe digits"),
        (["NET", "--to", "onnx-mixed"], 2, "a mixed file needs a budget"),
        (["NET", "--recipe", "no-such.toml"], 2, "no file no-such.toml"),
    ],
)
def test_what_is_wrong_on_the_command_line(net: Path, arguments: list[str], code: int, message: str) -> None:
    done = CliRunner().invoke(app, ["export", *(str(net) if one == "NET" else one for one in arguments)])
    assert isinstance(done.exception, (UsageError, DataError))
    assert done.exception.exit_code == code
    assert message in str(done.exception)


@pytest.mark.parametrize(
    ("to", "text", "message"),
    [
        ("onnx", "export.heights_widths = [[16, 16]]", "the sizes 16x16 go with a target coreml:sizes"),
        ("onnx", "export.heights_widths = [[64]]", "export.heights_widths.0.1: missing"),
        ("onnx", "export.coreml_target = 'iOS12'", "export.coreml_target: Input should be 'iOS17', 'iOS18' or 'iOS26'"),
        ("onnx", "export.opsett = 19", "export.opsett: no key 'opsett'; there are: .* Did you mean 'opset'"),
        ("onnx-w8a8", "quantize.budget = 'psnr=30'", "budget 'psnr=30' cannot be read"),
        ("onnx-w8a8", "quantize.budget = 'fd_local<=+5%'", "fd_local needs images to compare with"),
        ("onnx-w8a8", "quantize.ranges = 'mean'", "quantize.ranges: Input should be 'minmax', 'percentile'"),
        ("onnx", "recover.steps = 9", "none of them is among onnx-fp32"),
        ("coreml-w6", "quantize.float_layers = ['net.head']", "compresses every large weight"),
        ("onnx", "quantize.float_layers = ['net.head']", "none of them is among onnx-fp32"),
        ("onnx-w8a8", "quantize.methods = ['smoothin']", "quantize.methods.0: Input should be 'equalization'"),
        ("onnx", "quantize.methods = ['smoothing']", "none of them is among onnx-fp32"),
        ("onnx-w8", "quantize.ranges = 'mse'", "ranges are for w8a8, w8a16 and mixed files"),
        ("onnx,coreml", "quantize.budget = 'psnr>=30'", "a budget is for compressed files"),
        ("onnx", "exprot.opset = 19", "exprot: no key 'exprot'"),
    ],
)
def test_what_is_wrong_in_the_file_of_options(net: Path, tmp_path: Path, to: str, text: str, message: str) -> None:
    path = tmp_path / "files.toml"
    path.write_text(text)
    done = CliRunner().invoke(app, ["export", str(net), "--to", to, "--recipe", str(path)])
    assert isinstance(done.exception, UsageError)
    assert done.exception.exit_code == 2
    assert re.search(message, str(done.exception))


def test_the_file_of_options_may_be_a_whole_recipe(net: Path, tmp_path: Path) -> None:
    path = tmp_path / "files.toml"
    path.write_text('name = "other"\nslim.keep = 0.5\n[export]\nartifacts = ["onnx-fp32", "coreml-fp16:generate"]\n')
    done = CliRunner().invoke(app, ["export", str(net), "--recipe", str(path), "--dry-run", "--json"])
    assert json.loads(done.stdout)["targets"] == ["onnx-fp32", "coreml-fp16:generate"]


@pytest.mark.long
def test_the_options_of_a_file_reach_the_files(net: Path, tmp_path: Path) -> None:
    path, out = tmp_path / "files.toml", tmp_path / "out"
    path.write_text("[export]\nopset = 20\nlicense = 'mit'\n")
    command = ["export", str(net), "--to", "onnx", "-o", str(out), "--recipe", str(path), "--no-measure"]
    assert CliRunner().invoke(app, command).exception is None
    model = onnx.load(out / "tiny_onnx_fp32.onnx")
    assert [opset.version for opset in model.opset_import if opset.domain == ""] == [20]
    assert {entry.key: entry.value for entry in model.metadata_props}["edgegen.license"] == "mit"


def test_a_dry_run_writes_nothing(net: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(
        app, ["export", str(net), "--to", "onnx,coreml:generate", "-o", str(tmp_path / "out"), "--dry-run", "--json"]
    )
    assert json.loads(done.stdout)["targets"] == ["onnx-fp32", "coreml-fp16:generate"]
    assert not (tmp_path / "out").exists()
