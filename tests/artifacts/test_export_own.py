"""Export of networks that users write: any output name, nets that write into their input, nets that cannot be."""

import json
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from families import TINY
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from edgegen.artifacts.export import ExportSettings, export_source
from edgegen.artifacts.export_result import ExportResult, raise_failures
from edgegen.artifacts.target import Target
from edgegen.cli.export import name_of
from edgegen.cli.main import app
from edgegen.errors import DataError, EdgegenError, ExportError, UsageError
from edgegen.support.progress import Silent

NETS = """
import sys
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, run):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.run = run

    def forward(self, x):
        return self.run(self.conv, x)

def plain(): return Net(lambda conv, x: torch.tanh(conv(x)))
def in_place(): return Net(lambda conv, x: x.mul_(2.0))
def random(): return Net(lambda conv, x: conv(x) + torch.randn_like(x))
def nan(): return Net(lambda conv, x: conv(x) / 0.0 * 0.0)
def svd(): return Net(lambda conv, x: torch.linalg.svd(conv(x))[0])
def choice(): return Net(lambda conv, x: conv(x) if x.sum() > 0 else x)
def exits(): sys.exit(7)
def nan_weight():
    net = plain()
    net.conv.weight.data[0, 0, 0, 0] = float("nan")
    return net
"""
WEIGHTS = {"conv.weight": (3, 3, 3, 3), "conv.bias": (3,)}
SIGNATURE = """
[[inputs]]
name = "x"
shape = ["batch_size", 3, 8, 8]
role = "noise"
[[outputs]]
name = "picture"
shape = ["batch_size", 3, 8, 8]
role = "image"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "nets.py").write_text(NETS)
    (tmp_path / "net.toml").write_text(SIGNATURE)
    return tmp_path


def export(folder: Path, factory: str, *targets: str) -> ExportResult:
    settings = ExportSettings(tuple(map(Target.parse, targets)), measure=False, samples=3)
    source, signature = f"{folder / 'nets.py'}:{factory}", folder / "net.toml"
    (done,) = export_source(source, folder / "out", settings, signature=signature, progress=Silent())
    return done


def test_the_output_has_the_name_that_the_signature_gives_it(folder: Path, in_process: None) -> None:
    done = export(folder, "plain", "onnx", "onnx:generate", "executorch", "coreml-fp32")
    raise_failures([done])
    assert {parity.status for parity in done.parity.values()} == {"ok"}
    assert [value.name for value in onnx.load(folder / "out" / "plain_onnx_fp32.onnx").graph.output] == ["picture"]
    assert "Nothing to fold" in (folder / "out" / "README.md").read_text()
    assert "the time folded in" not in (folder / "out" / "README.md").read_text()


@pytest.mark.parametrize("word", ["self", "class"])
def test_an_input_may_have_a_name_that_python_does_not_take(folder: Path, in_process: None, word: str) -> None:
    (folder / "net.toml").write_text(SIGNATURE.replace('"x"', f'"{word}"'))
    done = export(folder, "plain", "onnx", "executorch", "coreml-fp32")
    raise_failures([done])
    assert {parity.status for parity in done.parity.values()} == {"ok"}
    assert [value.name for value in onnx.load(folder / "out" / "plain_onnx_fp32.onnx").graph.input] == [word]


def test_a_network_may_write_into_its_input(folder: Path, in_process: None) -> None:
    raise_failures([export(folder, "in_place", "onnx")])


@pytest.mark.parametrize(
    ("factory", "error", "message"),
    [
        ("random", DataError, "gives something else at every run"),
        ("nan", ExportError, "gives numbers that are not finite, though its weights are"),
        ("nan_weight", ExportError, "not finite: so are numbers of its weight net.conv.weight"),
        ("choice", ExportError, "its control flow depends on the values of a tensor"),
        ("exits", DataError, "the factory failed: SystemExit: 7"),
    ],
)
def test_what_cannot_be_exported_is_told_in_a_line(
    folder: Path, factory: str, error: type[EdgegenError], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(error, match=message) as e:
        export(folder, factory, "onnx")
    assert "\n" not in str(e.value)
    assert capfd.readouterr() == ("", "")


def test_an_operator_that_no_runtime_has(folder: Path, in_process: None) -> None:
    done = export(folder, "svd", "executorch", "coreml")
    assert "ExecuTorch has no form of aten._linalg_svd.default" in str(done.failures["executorch-fp32"])
    assert not any("\n" in str(error) for error in done.failures.values())
    assert not (folder / "out").exists(), "no manifest and no card of nothing"


def test_targets_once_and_a_folder_to_write_to(folder: Path) -> None:
    source = TINY["edge_unet"](folder / "a net; $(x)")
    (folder / "file").write_text("kept")
    for arguments, message in (
        (["-o", str(folder / "file")], "file is a file; give a folder"),
        (["--to", "onnx,onnx", "--dry-run", "--json"], ""),
    ):
        done = CliRunner().invoke(app, ["export", str(source), "--to", "onnx", *arguments])
        if message:
            assert isinstance(done.exception, UsageError)
            assert message in str(done.exception)
        else:
            assert done.stdout.count("onnx-fp32") == 1
    assert (folder / "file").read_text() == "kept"
    done = CliRunner().invoke(app, ["export", str(folder / "nothing"), "--dry-run"])
    assert isinstance(done.exception, DataError)


def test_files_of_weights_that_are_none(folder: Path) -> None:
    from edgegen.models.sources.load import load_sources

    source = TINY["unet2d"](folder / "a net; $(x)")
    assert load_sources(str(source))[0].name == "a-net-x"
    weights = source / "diffusion_pytorch_model.safetensors"
    tensors: dict[str, Any] = load_file(weights)
    whole_numbers = {**tensors, "conv_in.weight": tensors["conv_in.weight"].int()}
    save_file(whole_numbers, source / "diffusion_pytorch_model.int8.safetensors", metadata={"format": "pt"})
    load_sources(str(source))  # what lies beside the weights is not read
    save_file(whole_numbers, weights, metadata={"format": "pt"})
    with pytest.raises(DataError, match=r"1 weights are whole numbers, such as conv_in.weight"):
        load_sources(str(source))
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(DataError, match=r"cut short, or no safetensors file \(1,000 bytes\)"):
        load_sources(str(source))


def test_one_wrong_value_is_one_line(folder: Path) -> None:
    (folder / "net.toml").write_text(SIGNATURE.replace("8, 8", "8, -8", 1))
    with pytest.raises(DataError) as e:
        export(folder, "plain", "onnx")
    assert str(e.value).count("\n") == 0
    assert "inputs[1].shape[4]: Input should be greater than or equal to 1" in str(e.value)


@pytest.mark.parametrize(
    ("source", "signature", "expected"),
    [
        ("net.py:make", "net.toml", "net-make"),
        ("net.py:make", "signature.toml", "net-make"),
        ("net.py:make", "large.toml", "net-make-large"),
        ("first/net.py:make", "first/net.toml", "first-net-make"),
        ("second/net.py:make", "second/net.toml", "second-net-make"),
        ("../net.py:make", None, "net-make"),
        ("/home/me/second/net.py:make", None, "second-net-make"),
        ("package.nets.small:make", "small.toml", "nets-small-make"),
        ("folder/my-unet", None, "my-unet"),
        ("folder/program.pt2", None, "program"),
    ],
)
def test_each_factory_has_a_folder_of_its_own(source: str, signature: str | None, expected: str) -> None:
    assert name_of(source, None if signature is None else Path(signature)) == expected


def test_a_name_is_the_folders_and_the_files(folder: Path, in_process: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    command = ["export", "nets.py:plain", "--signature", "net.toml", "--to", "onnx", "--no-measure", "--json"]
    for arguments, path, file in (
        ([], "exports/nets-plain-net", "plain_onnx_fp32.onnx"),
        (["--name", "phone-2.1"], "exports/phone-2.1", "phone-2.1_onnx_fp32.onnx"),
    ):
        done = CliRunner().invoke(app, [*command, *arguments])
        (row,) = json.loads(done.stdout)["exported"]
        assert row["folder"] == path
        assert (folder / path / file).is_file()
        assert json.loads((folder / path / "manifest.json").read_text())["artifacts"][0]["file"] == file
    for unsafe in ("../up", "a b", "-o", "", ".hidden"):
        done = CliRunner().invoke(app, [*command, f"--name={unsafe}"])
        assert isinstance(done.exception, UsageError), unsafe
        assert "give letters, digits" in str(done.exception)


def test_what_is_told_of_a_source_is_printed(folder: Path, in_process: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    tensors = {f"_orig_mod.{key}": torch.full(shape, 0.1) for key, shape in WEIGHTS.items()}
    save_file(tensors, folder / "net.safetensors")
    (folder / "net.toml").write_text('weights = "net.safetensors"\n' + SIGNATURE)
    done = CliRunner().invoke(
        app, ["export", "nets.py:plain", "--signature", "net.toml", "--to", "onnx", "--no-measure"]
    )
    assert "  weights: '_orig_mod.' is taken off the names in the file\n" in done.stdout
    card = (folder / "exports/nets-plain-net/README.md").read_text()
    assert "'_orig_mod.' is taken off" in card
