"""What holds for every kind of file: bytes add up, the wrong file gets one plain message."""

import importlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import inspected
import pytest

from edgegen.errors import DataError, ExportError, MissingExtraError, UsageError
from edgegen.inspection.record import READERS, Inspection, Macs, Method, Tally, Value, Weight, bytes_by_kind, inspect


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return inspected.package(tmp_path_factory.mktemp("coreml") / "net.mlpackage")


def record() -> Inspection:
    method = Method("forward", (Value("x", "float32", ("batch_size", 3)),), (), {"Conv": 2}, Macs(5, 7))
    return Inspection(
        "a.onnx", "ONNX", 30, (method,), (Weight("w", "int8", (2, 5), 10),), {"weights int8": 10, "p": 20}
    )


def test_the_record_becomes_json() -> None:
    found = json.loads(json.dumps(record().to_dict()))
    assert found["methods"][0]["macs"] == {"weights": 5, "attention": 7, "uncounted": [], "total": 12}
    assert (found["parameters"], found["bytes_by_kind"]["p"], found["methods"][0]["nodes_outside"]) == (10, 20, 0)


def test_forward_is_the_main_method() -> None:
    first = record().main
    other = replace(first, name="generate")
    assert replace(record(), methods=(other, first)).main == first
    assert replace(record(), methods=(other,)).main == other


def test_bytes_add_up_and_what_is_left_is_named() -> None:
    weights = (Weight("a", "int8", (4,), 4), Weight("b", "float32", (2,), 8), Weight("c", "int8", (1,), 1))
    assert bytes_by_kind(20, weights, program=5) == {"weights float32": 8, "weights int8": 5, "program": 5, "other": 2}


def test_what_cannot_be_counted_is_named() -> None:
    tally = Tally()
    for macs, computed in ((3, False), (4, True), (None, False), (None, True)):
        tally.add("Conv", macs, computed=computed)
    assert tally.macs() == Macs(3, 4, ("2 Conv",))


def test_a_missing_file_and_an_unknown_suffix(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot inspect .*none.pte: nothing is there"):
        inspect(tmp_path / "none.pte")
    (tmp_path / "a.onx").touch()
    with pytest.raises(
        UsageError, match=r"cannot inspect a.onx: no suffix '.onx'; there are: .*Did you mean '.onnx'\?"
    ):
        inspect(tmp_path / "a.onx")


@pytest.mark.parametrize(
    ("suffix", "extra"), [(".onnx", "onnx"), (".pte", "executorch"), (".mlpackage", "coreml")], ids=str
)
def test_without_its_package_the_pip_line_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, suffix: str, extra: str
) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"    ET12" + bytes(100))
    monkeypatch.setattr("edgegen.support.extras.missing", lambda extra: [f"the package of {extra}"])
    with pytest.raises(MissingExtraError, match=rf"needs 'the package of {extra}'.*edgegen\[{extra}\]"):
        inspect(path)


def test_every_reader_imports_no_torch() -> None:
    for name in set(READERS.values()):
        source = Path(importlib.import_module(name).__file__ or "").read_text()
        assert "import torch" not in source


def test_an_onnx_file_cut_short(tmp_path: Path) -> None:
    content = inspected.write_onnx(tmp_path / "a.onnx").read_bytes()
    for size in (0, 3, 100, len(content) // 2, len(content) - 1):
        (tmp_path / "cut.onnx").write_bytes(content[:size])
        with pytest.raises(ExportError, match=rf"cannot read cut.onnx \({size} bytes\): .*; is it cut short\?"):
            inspect(tmp_path / "cut.onnx")


def test_a_pte_cut_short_or_of_another_kind(tmp_path: Path) -> None:
    content = inspected.content(inspected.lower(delegate=True))
    path = tmp_path / "cut.pte"
    for size in (20, 1000, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:size])
        with pytest.raises(ExportError, match=rf"cannot read cut.pte \({size} bytes\): "):
            inspect(path)
    path.write_bytes(b"PK" + content[2:4] + b"zip!" + content[8:])
    with pytest.raises(ExportError, match=r"it begins with b'zip!', not with an ExecuTorch program's b'ET12'"):
        inspect(path)
    path.write_bytes(content[:100] + bytes(4000) + content[4100:])
    with pytest.raises(ExportError, match=r"cannot read cut.pte .*: (its flatbuffer is damaged|it has no methods)"):
        inspect(path)


def test_a_package_cut_short(tmp_path: Path, package: Path) -> None:
    weights = "Data/com.apple.CoreML/weights/weight.bin"
    model = "Data/com.apple.CoreML/model.mlmodel"
    for part, size, cause in (
        (weights, 70, "weight.bin is cut short"),
        (weights, -8, "weight.bin is cut short"),
        (model, 500, "Error parsing message"),
        (model, 0, "model.mlmodel holds nothing, not an ML Program"),
        ("Manifest.json", 20, "Unterminated string|Expecting"),
    ):
        path = tmp_path / "cut.mlpackage"
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(package, path)
        (path / part).write_bytes((package / part).read_bytes()[:size])
        with pytest.raises(
            ExportError, match=rf"cannot read the Core ML package cut.mlpackage \(.* bytes.*\): .*({cause})"
        ):
            inspect(path)
    (tmp_path / "file.mlpackage").write_bytes(b"not a folder")
    with pytest.raises(ExportError, match="a file of 12 bytes, not a folder"):
        inspect(tmp_path / "file.mlpackage")
