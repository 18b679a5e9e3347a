"""A shape is exported with random weights, measured on this machine, and reused by the next search."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from edgegen.artifacts.target import Target
from edgegen.inspection.record import inspect
from edgegen.profilers.devices.host import DEVICE
from edgegen.recipe import Architecture, parse
from edgegen.search import trials
from edgegen.search.complexity import DataSpec, complexity_of
from edgegen.search.trials import Trials, shape_label
from edgegen.support import isolation
from edgegen.support.children import Children
from edgegen.support.progress import Silent

pytestmark = pytest.mark.long

SHAPE, DATA = Architecture(channels=(8, 16), blocks=1, attention=(1,), embedding=16), DataSpec(1, 8, 10)
RECIPE = parse({"name": "x", "slim": {"keep": 0.5}, "export": {"license": "MIT"}}, where="here")


def trials_in(folder: Path, **changes: object) -> Trials:
    arguments = {"recipe": RECIPE, "data": DATA, "target": Target.parse("onnx-fp32"), "device": "host"}
    arguments |= {
        "about_device": DEVICE.probe(),
        "threads": 1,
        "folder": folder,
        "children": Children(),
        "progress": Silent(),
    }
    return Trials(**{**arguments, **changes})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One shape was tried here."""
    place = tmp_path_factory.mktemp("plan")
    (trial,) = trials_in(place).measure([SHAPE])
    assert trial.result is not None, trial.reason
    assert trial.result.numerics.passed
    assert trial.result.latency is not None
    return place


def test_the_file_is_the_recipe_s_artifact_with_macs_as_counted(folder: Path) -> None:
    (path,) = folder.glob("files/*/*.onnx")
    assert path.name == f"{shape_label(SHAPE)}_onnx_fp32.onnx" == "8-16-b1-a1_onnx_fp32.onnx"
    inspection = inspect(path)
    complexity = complexity_of(SHAPE, DATA)
    assert inspection.main.macs.total == complexity.macs
    assert inspection.main.macs.attention == complexity.attention_macs
    assert [value.name for value in inspection.main.inputs] == ["sample", "class_labels"]


def test_its_image_is_not_the_noise_and_differs_by_class(folder: Path) -> None:
    """A network whose last layers are zero would pass every comparison of numbers."""
    (path,) = folder.glob("files/*/*.onnx")
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    noise = np.random.default_rng(0).standard_normal((1, 1, 8, 8), np.float32)
    one, other = (session.run(None, {"sample": noise, "class_labels": np.array([label])})[0] for label in (0, 1))
    assert np.abs(one - noise).std() > 0.1
    assert np.abs(one - other).max() > 1e-3


def test_measurements_are_reused_on_this_device_and_files_on_every_device(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = SHAPE.model_copy(update={"blocks": 2})
    known = {trial.shape for trial in trials_in(folder).known([SHAPE, other])}
    assert other not in known  # SHAPE is, unless other programs were busy on this machine
    (measurement,) = folder.glob("times/*/*.json")
    content = measurement.read_text()
    measurement.write_text(content.replace('"noisy"', '"ok"'))
    assert [trial.shape for trial in trials_in(folder).known([SHAPE, other])] == [SHAPE]
    for changes in ({"threads": 2}, {"device": "ssh:board"}, {"about_device": {"cpu": "another"}}):
        assert not trials_in(folder, **changes).known([SHAPE])
    monkeypatch.setattr(isolation, "call", None)  # must not export
    monkeypatch.setattr(trials, "profile_files", None)
    assert isinstance(trials_in(folder, device="ssh:board")._file(SHAPE), Path)


@pytest.mark.parametrize(
    ("changes", "again"),
    [
        ({"export": {"opset": 19}}, True),
        ({"quantize": {"ranges": "mse"}}, True),
        ({"seed": 1}, True),
        ({"export": {"artifacts": ["onnx-fp32"], "license": "other"}}, False),
        ({"teacher": {"steps": 7}, "name": "y"}, False),
    ],
)
def test_a_file_is_made_again_where_the_recipe_makes_another(
    folder: Path, changes: dict[str, object], again: bool
) -> None:
    recipe = parse({"name": "x", "slim": {"keep": 0.5}, **changes}, where="here")
    assert (trials_in(folder, recipe=recipe)._folder(SHAPE) != trials_in(folder)._folder(SHAPE)) == again


def test_a_shape_that_cannot_be_exported_says_why(tmp_path: Path) -> None:
    odd = Architecture(channels=(8, 8, 8, 8, 8, 8))  # 8 pixels cannot be halved five times
    (trial,) = trials_in(tmp_path).measure([odd])
    assert trial.result is None
    assert trial.reason
    assert not list(tmp_path.glob("times/*"))
