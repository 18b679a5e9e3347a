"""What a run's name, a recipe or a folder stands for in `edgegen sample`, on a made-up run with real files."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from small_nets import SIGNATURE, net_files

from edgegen.artifacts.export import ExportSettings, export_source
from edgegen.artifacts.sample import sample_to_png
from edgegen.artifacts.sessions import open_source
from edgegen.artifacts.shipped import resolve
from edgegen.artifacts.target import Target
from edgegen.errors import DataError, UsageError
from edgegen.formats.manifest import MANIFEST
from edgegen.models.edge_unet import EdgeUNet, EdgeUNetConfig
from edgegen.models.generator import save
from edgegen.support.progress import Silent

CLASSES = ["top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot"]


def write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, in_process_of_module: None) -> Path:
    """net_onnx_fp32.onnx and net_executorch_fp32.pte, both with parity "ok", and the names of their classes."""
    place = net_files(tmp_path_factory.mktemp("shipped") / "artifacts")
    manifest = json.loads((place / MANIFEST).read_text())
    for row in manifest["artifacts"]:
        row["parity"]["status"] = "ok"
    write(place / MANIFEST, manifest)
    return place


@pytest.fixture
def runs(files: Path, tmp_path: Path) -> Path:
    """A folder with the finished run `mine`."""
    run = tmp_path / "runs" / "mine"
    write(run / "run.json", {"name": "mine"})
    write(run / "data" / "latest" / "data.json", {"classes": CLASSES})
    write(run / "choose" / "latest" / "stage.json", {"digest": "chosen"})
    write(run / "choose" / "latest" / "choice.json", {"student": "one"})
    (run / "distill" / "one" / "generator").mkdir(parents=True)
    (run / "distill" / "latest").symlink_to("one")
    write(run / "verify" / "latest" / "stage.json", {"made_from": {"choose": "chosen"}})
    shutil.copytree(files, run / "verify" / "latest" / "artifacts")
    return tmp_path / "runs"


def resolved(source: str, runs: Path, *, generator: bool = False) -> str:
    return str(resolve(source, runs=runs, generator=generator).relative_to(runs / "mine"))


def test_a_finished_run_is_its_first_file_that_passed(runs: Path, tmp_path: Path) -> None:
    folder = runs / "mine" / "verify" / "latest" / "artifacts"
    (tmp_path / "my.toml").write_text('name = "mine"\n[slim]\nkeep = 0.5\n')
    for source in ("mine", str(runs / "mine"), str(tmp_path / "my.toml"), str(folder)):
        assert resolved(source, runs) == "verify/latest/artifacts/net_onnx_fp32.onnx", source
    assert resolved("mine", runs, generator=True) == "choose/latest/generator"
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["artifacts"][0]["parity"]["status"] = "failed"
    write(folder / MANIFEST, manifest)
    assert resolved("mine", runs) == "verify/latest/artifacts/net_executorch_fp32.pte"


def test_a_file_that_a_simulator_runs_comes_behind_those_of_a_runtime(runs: Path) -> None:
    manifest_path = runs / "mine/verify/latest/artifacts" / MANIFEST
    manifest = json.loads(manifest_path.read_text())
    manifest["artifacts"][0]["variant"] = "qnn"
    write(manifest_path, manifest)
    assert resolved("mine", runs).endswith("/net_executorch_fp32.pte")


def test_a_run_whose_student_is_newer_than_its_files_is_its_student(runs: Path) -> None:
    write(runs / "mine" / "choose" / "latest" / "stage.json", {"digest": "chosen again"})
    assert resolved("mine", runs) == "choose/latest/generator"
    write(runs / "mine" / "choose" / "latest" / "choice.json", {"student": "an older one"})
    assert resolved("mine", runs) == "distill/latest/generator"
    write(runs / "mine" / "choose" / "latest" / "choice.json", {})
    assert resolved("mine", runs) == "distill/latest/generator"
    shutil.rmtree(runs / "mine" / "distill" / "one" / "generator")
    with pytest.raises(DataError, match=r"mine: no student at .* yet; make it by: edgegen run mine --to distill"):
        resolved("mine", runs)


def test_the_student_of_a_run_with_a_last_training_is_that_trainings(runs: Path) -> None:
    run = runs / "mine"
    write(run / "run.json", {"name": "mine", "recipe": {"finish": {"method": "adversarial"}}})
    (run / "finish" / "one" / "generator").mkdir(parents=True)
    (run / "finish" / "latest").symlink_to("one")
    assert resolved("mine", runs) == "verify/latest/artifacts/net_onnx_fp32.onnx"
    write(run / "choose" / "latest" / "choice.json", {"student": "an older one"})
    assert resolved("mine", runs) == "finish/latest/generator"


def test_a_name_that_stands_for_nothing_lists_the_runs(runs: Path) -> None:
    with pytest.raises(
        UsageError, match=r"min: no file, no folder, no run and no recipe; runs in .*: mine\. no recipe"
    ):
        resolved("min", runs)


def test_a_class_by_the_name_that_the_run_has(runs: Path, in_process: None) -> None:
    made = [
        sample_to_png("mine", runs / f"{label}.png", label=label, count=2, runs=runs)
        for label in ("trouser", "1", "bag")
    ]
    assert made[0]["source"].endswith("verify/latest/artifacts/net_onnx_fp32.onnx")
    pictures = [(runs / f"{label}.png").read_bytes() for label in ("trouser", "1", "bag")]
    assert pictures[0] == pictures[1] != pictures[2]
    with pytest.raises(UsageError, match=r"--class skirt: there are 0 top, 1 trouser, 2 pullover, .* 9 boot"):
        sample_to_png("mine", runs / "skirt.png", label="skirt", runs=runs)


def test_the_names_in_a_manifest_go_with_a_file_wherever_it_is_copied(
    files: Path, tmp_path: Path, in_process: None
) -> None:
    shutil.copytree(files, tmp_path / "phone")
    file = str(tmp_path / "phone" / "net_onnx_fp32.onnx")
    with pytest.raises(UsageError, match=r"there are 0 to 9, and .*net_onnx_fp32.onnx does not know their names"):
        sample_to_png(file, tmp_path / "a.png", label="trouser")
    manifest = json.loads((tmp_path / "phone" / MANIFEST).read_text())
    write(tmp_path / "phone" / MANIFEST, {**manifest, "class_names": CLASSES})
    assert open_source(file, steps=None, runs=tmp_path).class_names == tuple(CLASSES)
    assert sample_to_png(file, tmp_path / "a.png", label="trouser")["count"] == 16


@pytest.mark.parametrize("role", ["student", "finished"])
def test_the_student_of_a_run_knows_its_classes_and_makes_an_image_in_one_step(runs: Path, role: str) -> None:
    config = EdgeUNetConfig(in_channels=1, sample_size=8, num_classes=SIGNATURE.num_classes, channels=(8,))
    save(EdgeUNet(config), runs / "mine" / "choose" / "latest" / "generator", about={"role": role})
    write(runs / "mine" / "choose" / "latest" / "stage.json", {"digest": "chosen again", "files": {}})
    made = sample_to_png("mine", runs / "bag.png", label="bag", runs=runs)
    assert made["method"] == "PyTorch, 1 step"


def test_an_exported_generator_of_a_run_has_the_names_of_its_classes(runs: Path, in_process: None) -> None:
    """In the manifest and in the card; and `edgegen sample` of the file knows them, wherever it is."""
    config = EdgeUNetConfig(in_channels=1, sample_size=8, num_classes=SIGNATURE.num_classes, channels=(8,))
    folder = runs / "mine" / "choose" / "latest" / "generator"
    save(EdgeUNet(config), folder, about={"role": "student"})
    targets = (Target.parse("onnx-fp32"),)
    (result,) = export_source(
        str(folder), runs.parent / "out", ExportSettings(targets, measure=False), progress=Silent()
    )
    assert json.loads((result.folder / MANIFEST).read_text())["class_names"] == CLASSES
    assert "0 = top, 1 = trouser" in (result.folder / "README.md").read_text()
    file = str(result.folder / result.built[0].artifact.file)
    assert sample_to_png(file, runs / "bag.png", label="bag", count=1)["count"] == 1
    shutil.copytree(folder, runs.parent / "alone")
    (result,) = export_source(
        str(runs.parent / "alone"), runs.parent / "out2", ExportSettings(targets, measure=False), progress=Silent()
    )
    assert result.to_dict()["class_names"] == []
