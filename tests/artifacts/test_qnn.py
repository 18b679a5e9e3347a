"""Files for Snapdragon's NPU, compiled by onnxruntime-qnn and run by its HTP simulator."""

import json
import re
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args

import onnx
import pytest
import torch
from families import TINY
from torch import nn
from torch.nn import functional
from typer.testing import CliRunner

from edgegen.artifacts.export import ExportSettings, export_source
from edgegen.artifacts.export_result import ExportResult
from edgegen.artifacts.target import Target, check_quantization, why_untimed
from edgegen.cli.main import app
from edgegen.errors import DataError, ExportError, MissingExtraError, RecipeError, UsageError
from edgegen.exporters.onnx import htp
from edgegen.exporters.onnx.backend import BACKEND
from edgegen.exporters.onnx.chips import CHIPS
from edgegen.exporters.onnx.metadata import NAMESPACE
from edgegen.formats.manifest import check_folder
from edgegen.quantize.budget import Budget
from edgegen.recipe import Export, Quantize, read
from edgegen.recipe.files import Chip
from edgegen.support.extras import missing
from edgegen.support.progress import Silent
from edgegen.verification.verify import SIMULATED

pytestmark = pytest.mark.long

needs_qnn = pytest.mark.skipif(
    bool(missing("qnn")), reason="onnxruntime-qnn is not installed: pip install 'edgegen[qnn]' (Linux on x86-64)"
)
QUICK = Quantize(samples=64)
SIMULATOR = "HTP simulator of onnxruntime-qnn"


def export(source: str, output: Path, *targets: str, **options: Any) -> ExportResult:
    chosen = tuple(map(Target.parse, targets))
    settings = ExportSettings(chosen, export=Export(generate=False, **options), quantize=QUICK, measure=True, samples=5)
    (done,) = export_source(source, output, settings, progress=Silent())
    return done


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> ExportResult:
    """A class-conditional U-Net in all three schemes, each for two chips."""
    folder = tmp_path_factory.mktemp("qnn")
    targets = ("onnx-w8a8:qnn", "onnx-w8a16:qnn", "onnx-fp16:qnn")
    return export(str(TINY["edge_unet_class"](folder / "net")), folder / "files", *targets)


@needs_qnn
def test_a_network_with_classes_is_the_npus_and_true(made: ExportResult) -> None:
    assert not made.failures
    psnr = {}
    for result in made.built:
        artifact, parity = result.artifact, made.parity[result.artifact.file]
        assert parity.status == "ok", parity
        assert parity.samples == SIMULATED
        assert parity.method.startswith(f"{SIMULATOR} {version('onnxruntime-qnn')}, Snapdragon 8")
        assert re.fullmatch(r"all \d+ nodes on the NPU", parity.arithmetic)
        facts = artifact.details["npu"]
        assert facts["nodes"] == facts["on_npu"]
        assert tuple(facts["chips"]) == ("8gen3", "8elite")
        psnr[artifact.scheme] = parity.psnr_db
    assert psnr["w8a8"] + 6 < psnr["w8a16"] < psnr["fp16"]  # type: ignore[operator]  # the more bits, the truer


@needs_qnn
def test_what_a_phone_loads_lies_beside_each_file(made: ExportResult) -> None:
    for result in made.built:
        stem = result.artifact.file.removesuffix(".onnx")
        extra = result.artifact.details["extra_files"]
        assert set(extra) == {f"{stem}_{chip}{end}" for chip in ("8gen3", "8elite") for end in (".onnx", "_qnn.bin")}
        for chip in ("8gen3", "8elite"):
            context = onnx.load(made.folder / f"{stem}_{chip}.onnx")
            (node,) = context.graph.node
            fields = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
            assert (node.op_type, fields["embed_mode"]) == ("EPContext", 0)
            assert fields["ep_cache_context"].decode() == f"{stem}_{chip}_qnn.bin"
            assert [entry.name for entry in context.graph.input] == ["sample", "class_labels"]
    assert len(check_folder(made.folder)) == 3


@needs_qnn
def test_the_simulator_gives_no_latency(made: ExportResult) -> None:
    assert len(made.latency) == 3
    for result in made.built:
        latency = made.latency[result.artifact.file]
        assert (latency.p50_ms, latency.reason) == (None, "not measured: the HTP simulator gives no latency")
        assert why_untimed(result.artifact, "ok") == latency.reason
    result = CliRunner().invoke(app, ["profile", str(made.folder / made.built[0].artifact.file)])
    assert isinstance(result.exception, UsageError)
    assert "it is for Snapdragon's NPU, which no runner drives" in str(result.exception)
    with pytest.raises(UsageError, match="onnx-w8a8:qnn: a budget's latency is measured on this machine"):
        check_quantization([Target.parse("onnx-w8a8:qnn")], QUICK, budget=Budget.parse("latency<=0.5"), trains=False)


@needs_qnn
@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:1000]), "does not hold what was"),
        (Path.unlink, "no file"),
        (
            lambda path: path.write_bytes(path.with_name(path.name.replace("8gen3", "8elite")).read_bytes()),
            "does not hold what was",
        ),
    ],
    ids=["cut", "gone", "another chip's"],
)
def test_a_damaged_context_is_refused_by_name(
    made: ExportResult, tmp_path: Path, damage: Callable[[Path], object], reason: str
) -> None:
    for path in made.folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (context,) = tmp_path.glob("*_w8a8_qnn_8gen3_qnn.bin")
    damage(context)
    with pytest.raises(DataError) as e:
        check_folder(tmp_path)
    assert context.name in str(e.value)
    assert reason in str(e.value)


@needs_qnn
def test_a_context_that_the_simulator_cannot_open_is_one_error(made: ExportResult, tmp_path: Path) -> None:
    for path in made.folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (context,) = tmp_path.glob("*_w8a8_qnn_8elite_qnn.bin")
    context.write_bytes(context.read_bytes()[:1000])
    (file,) = tmp_path.glob("*_w8a8_qnn.onnx")
    with pytest.raises(ExportError, match=r"the HTP simulator cannot open \w+_8elite.onnx: .*context binary"):
        BACKEND.open(file)


class WithErf(nn.Module):
    """The error function, which the NPU has no operator for, between convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 1, 3, padding=1)

    def forward(self, sample: torch.Tensor) -> torch.Tensor:
        hidden = functional.silu(self.first(sample))
        return self.last(hidden + torch.erf(hidden))  # type: ignore[no-any-return]


@needs_qnn
def test_a_node_that_stays_on_the_cpu_is_in_the_verdict(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        "import sys\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "import torch\nfrom test_qnn import WithErf\n\n"
        "def make():\n    torch.manual_seed(0)\n    return WithErf()\n"
    )
    (tmp_path / "net.toml").write_text(
        '[[inputs]]\nname = "sample"\nrole = "noise"\nshape = ["batch_size", 1, 8, 8]\n'
        '[[outputs]]\nname = "out_sample"\nrole = "image"\nshape = ["batch_size", 1, 8, 8]\nlow = -1.0\nhigh = 1.0\n'
    )
    settings = ExportSettings((Target.parse("onnx-fp16:qnn"),), measure=False, samples=2)
    (done,) = export_source(
        f"{tmp_path}/net.py:make", tmp_path / "out", settings, signature=tmp_path / "net.toml", progress=Silent()
    )
    (parity,) = done.parity.values()
    assert parity.status == "ok"
    assert re.search(r"1 of \d+ nodes stay on the CPU \(Erf: 1, ", parity.arithmetic)


def test_a_chip_that_nobody_knows(tmp_path: Path) -> None:
    arguments = ["export", str(tmp_path), "--to", "onnx-w8a8:qnn", "--chip", "8gen9"]
    result = CliRunner().invoke(app, arguments)
    assert isinstance(result.exception, UsageError)
    assert "no Snapdragon chip '8gen9'; there are: 8elite, " in str(result.exception)
    (tmp_path / "recipe.toml").write_text('[data]\nsource = "digits"\n[export]\nchips = ["8gen9"]\n')
    with pytest.raises(RecipeError, match=r"export\.chips.*8gen9"):
        read(tmp_path / "recipe.toml")


def test_schemes_of_the_npu_alone() -> None:
    with pytest.raises(UsageError, match="no onnx:qnn scheme 'fp32'; there are: fp16, w8a16, w8a8"):
        Target.parse("onnx-fp32:qnn")
    with pytest.raises(UsageError, match="no quantization scheme 'w8a16' for backend 'onnx'"):
        Target.parse("onnx-w8a16")
    assert Target.parse("onnx:qnn").scheme == "w8a8"


def test_a_missing_wheel_is_named_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgegen.support.extras._is_absent", lambda package: package == "onnxruntime_qnn")
    arguments = [
        "export",
        str(TINY["edge_unet"](tmp_path / "net")),
        "--to",
        "onnx-w8a8:qnn",
        "-o",
        str(tmp_path / "out"),
    ]
    result = CliRunner().invoke(app, arguments)
    assert isinstance(result.exception, MissingExtraError)
    assert str(result.exception) == (
        "the artifact onnx-w8a8:qnn needs 'onnxruntime_qnn', which is not installed: pip install 'edgegen[qnn]' "
        "(it is there for Linux on x86-64 alone)"
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--to", "onnx-w8a8", "--chip", "8gen2"], "the chips 8gen2 go with a target onnx-...:qnn; there is none"),
        (["--to", "onnx-w8a8:qnn", "--chip", ""], "no Snapdragon chip ''; there are: 8elite, "),
    ],
)
def test_chips_without_effect_or_without_a_name(tmp_path: Path, arguments: list[str], reason: str) -> None:
    result = CliRunner().invoke(app, ["export", str(tmp_path), *arguments])
    assert isinstance(result.exception, UsageError)
    assert reason in str(result.exception)


@needs_qnn
def test_an_old_glibc_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("version `GLIBC_2.35' not found")

    monkeypatch.setattr("onnxruntime.register_execution_provider_library", refuse)
    htp._devices.cache_clear()
    with pytest.raises(ExportError, match=r"it needs glibc 2\.35\): version `GLIBC_2\.35' not found"):
        htp.compile_contexts(tmp_path / "net.onnx", ["8gen3"])


@pytest.mark.parametrize(
    "note", [{"nodes": "many"}, {"nodes": 1, "on_npu": 1, "left": {}, "chips": ["../8gen3"]}, {"chips": []}]
)
def test_a_note_that_edgegen_did_not_write(note: dict[str, object]) -> None:
    with pytest.raises(ExportError, match=r"its field edgegen\.npu is not what edgegen writes"):
        htp.assignment_of({f"{NAMESPACE}npu": json.dumps(note)}, NAMESPACE)


def test_numbers_of_chips_are_those_of_executorch() -> None:
    schema = pytest.importorskip("executorch.backends.qualcomm.serialization.qc_schema")
    for chip in CHIPS.values():
        assert schema.QcomChipset[chip.part].value == chip.soc_model
        architecture = schema._soc_info_table[schema.QcomChipset[chip.part]].htp_info.htp_arch
        assert f"v{architecture.value}" == chip.architecture
    assert get_args(Chip) == tuple(CHIPS)
