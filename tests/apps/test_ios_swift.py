"""The Swift of an iOS project on Linux: the core against recorded sessions, the rest by types or grammar.

Xcode, SwiftUI and Core ML are not to be had here: no test says that the app itself works.
"""

import io
from pathlib import Path

import app_parts
import kotlin_project
import numpy as np
import pytest
import swift_project
from app_bundles import (
    answers_of,
    answers_of_executorch,
    artifact_of,
    classes_bundle,
    golden_feeds,
    photo_bundle,
    students_bundle,
)
from numpy.typing import NDArray
from PIL import Image

from edgegen.apps.project import write_app
from edgegen.formats.bundle import Output
from edgegen.formats.bundle_folder import read_bundle
from edgegen.formats.picture import read_recipe
from edgegen.profilers.importers import read

pytestmark = [pytest.mark.apps, pytest.mark.usefixtures("in_process_of_module")]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, in_process_of_module: None) -> Path:
    if (reason := app_parts.no_swift()) is not None:
        pytest.skip(reason)
    return tmp_path_factory.mktemp("swift")


@pytest.mark.parametrize(("name", "target"), [("classes", "coreml-fp32"), ("photo", "coreml-fp32:generate")])
def test_recorded_sessions_give_the_golden_images_in_swift(place: Path, name: str, target: str) -> None:
    """Inputs are made in Swift and must be those that the evaluator got here, bit by bit; pixels are compared."""
    make = {"classes": classes_bundle, "photo": photo_bundle}[name]
    folder, project = make(place / name, targets=(target,)), place / f"{name}-project"
    write_app("ios", folder, project, name="Net")
    bundle = read_bundle(folder)
    artifact = artifact_of(bundle, "coreml")
    output = artifact.methods[0].output
    feeds = golden_feeds(bundle, folder, artifact)
    answers = answers_of("coreml", folder / artifact.file, feeds, output.name)
    kotlin_project.record(project / "session", list(zip(feeds, answers, strict=True)))

    said = swift_project.run_tests(project)

    assert "Executed 26 tests, with 0 failures" in said
    assert output.layout == ("NCHW" if name == "classes" else "CVPixelBuffer")
    for position, (sample, values) in enumerate(zip(bundle.golden.samples, answers, strict=True)):
        pixels = values[0] if values.dtype == np.uint8 else _pixels(values, output)
        with Image.open(io.BytesIO((project / f"session/{position}.png").read_bytes())) as picture:
            assert np.array_equal(np.asarray(picture).reshape(pixels.shape), pixels)
        recipe = read_recipe(project / f"session/{position}.png")
        assert (recipe.artifact, recipe.seed, recipe.label) == (artifact.sha256, sample.seed, sample.label)
        assert (recipe.count, recipe.edgegen) == (1, bundle.tools["edgegen"])
        assert set(recipe.inputs) == ({"photo"} if name == "photo" else set())
    (measurement,) = read(project / "session/latency.json")
    assert measurement.verdict == "noisy"
    assert measurement.runs == len(feeds) - 1
    assert measurement.device == "ios: a processor, Linux"
    if name == "classes":
        _check_what_needs_apple(project)


@pytest.fixture(scope="module")
def students(place: Path, in_process_of_module: None) -> Path:
    return students_bundle(place / "students", targets=("coreml-fp32", "executorch-fp32"))


@pytest.mark.parametrize("runtime", ["coreml", "executorch"])
def test_each_class_is_made_by_the_session_of_its_student(students: Path, place: Path, runtime: str) -> None:
    """Each file has a recording of its own, which knows the classes of that file alone."""
    project = place / f"students-{runtime}"
    write_app("ios", students, project, name="Nets", runtime=runtime)
    bundle = read_bundle(students)
    artifact = artifact_of(bundle, runtime)
    feeds = golden_feeds(bundle, students, artifact)
    owner = {label: student for student in artifact.students for label in student.classes}
    of_samples = [owner[sample.label or 0] for sample in bundle.golden.samples]
    for student in artifact.students:
        own = [feed for feed, of_sample in zip(feeds, of_samples, strict=True) if of_sample is student]
        facts: dict[str, object] = {}
        if runtime == "coreml":
            answers = answers_of("coreml", students / student.file, own, artifact.methods[0].output.name)
        else:
            answers = answers_of_executorch(students / student.file, own, "generate")
            facts = {"method": "generate", "order": list(own[0]), "shape": list(answers[0].shape)}
        kotlin_project.record(project / "session" / student.file, list(zip(own, answers, strict=True)), **facts)

    if runtime == "executorch":
        assert "Executed 5 tests, with 0 failures" in swift_project.run_runtime_tests(project)
        return
    assert "Executed 26 tests, with 0 failures" in swift_project.run_tests(project)
    for position, student in enumerate(of_samples):
        assert read_recipe(project / f"session/{position}.png").artifact == student.sha256
    measured = {row.what.split()[0].rstrip(","): row.runs for row in read(project / "session/latency.json")}
    assert measured == {"net-0_coreml_fp32.mlpackage": 7, "net-1_coreml_fp32.mlpackage": 7}


def _pixels(values: NDArray[np.float32], output: Output) -> NDArray[np.uint8]:
    scale = np.float32(255 / (output.high - output.low))
    return np.rint((values - output.low) * scale).clip(0, 255).astype(np.uint8)[0].transpose(1, 2, 0)


def test_the_executorch_side_runs_what_was_recorded(place: Path) -> None:
    """Method, names and order of the inputs, their types, the output's: what ExecuTorch was given here, and gave."""
    folder, project = classes_bundle(place / "executorch", targets=("executorch-fp32",)), place / "executorch-project"
    write_app("ios", folder, project, name="Net")
    bundle = read_bundle(folder)
    artifact = artifact_of(bundle, "executorch")
    (method,) = (method for method in artifact.methods if method.output.dtype == "uint8")
    assert method.name is not None
    feeds = golden_feeds(bundle, folder, artifact)
    answers = answers_of_executorch(folder / artifact.file, feeds, method.name)
    facts = {"method": method.name, "order": list(feeds[0]), "shape": list(answers[0].shape)}
    kotlin_project.record(project / "session", list(zip(feeds, answers, strict=True)), **facts)

    assert "Executed 5 tests, with 0 failures" in swift_project.run_runtime_tests(project)
    swift_project.check_screen_model(project)


def _check_what_needs_apple(project: Path) -> None:
    """Types of the Core ML side against our stub; of SwiftUI and XCTest in the app, the grammar."""
    swift_project.check_core_ml(project)
    swift_project.parse(project, "App", "AppTests")
    source = project / "EdgegenRuntime/Sources/EdgegenRuntime/DeviceRuntime.swift"
    source.write_text(source.read_text().replace("shaped.scalars", "shaped.numbers"))
    with pytest.raises(AssertionError, match="has no member 'numbers'"):  # the check can fail
        swift_project.check_core_ml(project)
    view = project / "App/ContentView.swift"
    view.write_text(view.read_text().replace("struct ContentView", "struct struct"))
    with pytest.raises(AssertionError, match="error: "):
        swift_project.parse(project, "App")
