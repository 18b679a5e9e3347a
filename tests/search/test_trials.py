"""A shape really exported with random weights and measured on this machine, and found again by the next search."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from edgegen.artifacts.target import Target
from edgegen.inspection.record import inspect
from edgegen.profilers.devices.host import DEVICE
from edgegen.recipe import Architecture, parse
from edgegen.search import trials
from edgegen.search.complexity import Facts, work
from edgegen.search.trials import Trials, label_of
from edgegen.support import isolation
from edgegen.support.progress import Silent

SHAPE, FACTS = Architecture(channels=(8, 16), blocks=1, attention=(1,), embedding=16), Facts(1, 8, 10)
RECIPE = parse({"name": "x", "slim": {"keep": 0.5}, "export": {"license": "MIT"}}, where="here")


def trials_in(folder: Path, **changes: object) -> Trials:
    given = {"recipe": RECIPE, "facts": FACTS, "target": Target.parse("onnx-fp32"), "device": "host"}
    given |= {"about_device": DEVICE.probe(), "threads": 1, "folder": folder, "progress": Silent()}
    return Trials(**{**given, **changes})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One shape was tried here."""
    place = tmp_path_factory.mktemp("plan")
    (tried,) = trials_in(place)([SHAPE])
    assert tried.result is not None, tried.reason
    assert tried.result.numerics.passed
    assert tried.result.latency is not None
    return place


def test_the_file_is_the_recipe_s_artifact_with_work_as_counted(folder: Path) -> None:
    (path,) = folder.glob("files/*/*.onnx")
    assert path.name == f"{label_of(SHAPE)}_onnx_fp32.onnx" == "8-16-b1-a1_onnx_fp32.onnx"
    found = inspect(path)
    counted = work(SHAPE, FACTS)
    assert found.main.macs.total == counted.macs
    assert found.main.macs.attention == counted.attention_macs
    assert [value.name for value in found.main.inputs] == ["sample", "class_labels"]


def test_its_picture_is_not_the_noise_and_differs_by_class(folder: Path) -> None:
    """A net whose last layers are zero would pass every comparison of numbers."""
    (path,) = folder.glob("files/*/*.onnx")
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    noise = np.random.default_rng(0).standard_normal((1, 1, 8, 8), np.float32)
    one, other = (session.run(None, {"sample": noise, "class_labels": np.array([label])})[0] for label in (0, 1))
    assert np.abs(one - noise).std() > 0.1
    assert np.abs(one - other).max() > 1e-3


def test_what_was_measured_is_known_for_this_device_and_what_was_exported_for_others(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = SHAPE.model_copy(update={"blocks": 2})
    known = {trial.shape for trial in trials_in(folder).known([SHAPE, other])}
    assert other not in known  # SHAPE is, unless this machine was busy
    (measurement,) = folder.glob("times/*/*.json")
    content = measurement.read_text()
    measurement.write_text(content.replace('"noisy"', '"ok"'))
    assert [trial.shape for trial in trials_in(folder).known([SHAPE, other])] == [SHAPE]
    for changes in ({"threads": 2}, {"device": "ssh:board"}, {"about_device": {"cpu": "another"}}):
        assert not trials_in(folder, **changes).known([SHAPE])
    monkeypatch.setattr(isolation, "call", None)  # exports nothing
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
    assert (trials_in(folder, recipe=recipe)._place(SHAPE) != trials_in(folder)._place(SHAPE)) == again


def test_a_shape_that_cannot_be_exported_says_why(tmp_path: Path) -> None:
    odd = Architecture(channels=(8, 8, 8, 8, 8, 8))  # 8 pixels cannot be halved five times
    (tried,) = trials_in(tmp_path)([odd])
    assert tried.result is None
    assert tried.reason
    assert not list(tmp_path.glob("times/*"))
