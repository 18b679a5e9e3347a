"""The Kotlin of an Android project on the JVM: the core against recorded sessions, the rest against stubs.

Gradle, Android and the runtimes' own libraries are not to be had here: no test says that the app itself works. DJL,
which splits prompts, neither: token numbers are recorded, and what calls it is checked against a stub.
"""

import io
import json
from pathlib import Path
from typing import Any

import app_parts
import kotlin_project
import numpy as np
import pytest
from app_bundles import (
    answers_of_executorch,
    answers_of_onnx,
    artifact_of,
    classes_bundle,
    golden_feeds,
    photo_bundle,
    students_bundle,
)
from numpy.typing import NDArray
from PIL import Image
from text_pipelines import text_bundle

from edgegen.apps.project import write_app
from edgegen.formats.bundle_folder import read_bundle
from edgegen.formats.picture import read_recipe
from edgegen.noise import normal
from edgegen.profilers.importers import read

pytestmark = [pytest.mark.apps, pytest.mark.usefixtures("in_process_of_module")]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, in_process_of_module: None) -> Path:
    if (reason := app_parts.no_kotlin_tests()) is not None:
        pytest.skip(reason)
    return tmp_path_factory.mktemp("kotlin")


@pytest.fixture(scope="module")
def bundles(place: Path) -> dict[str, Path]:
    return {"classes": classes_bundle(place / "classes"), "photo": photo_bundle(place / "photo")}


@pytest.fixture(scope="module")
def core(place: Path) -> Path:
    return kotlin_project.core_with_tests(place / "classes-of-core")


@pytest.fixture(scope="module")
def stubs(place: Path) -> Path:
    return kotlin_project.stubs(place / "classes-of-stubs")


@pytest.fixture(scope="module")
def words(place: Path) -> Path:
    """A bundle that takes a prompt; its project lies beside it."""
    bundle = text_bundle(place / "words")
    write_app("android", bundle, bundle.with_name("words-project"), name="Words")
    return bundle


@pytest.mark.parametrize(("name", "runtime"), [("classes", "executorch"), ("classes", "onnx"), ("photo", "onnx")])
def test_recorded_sessions_give_the_golden_images(
    core: Path, bundles: dict[str, Path], tmp_path: Path, name: str, runtime: str
) -> None:
    """Inputs are made in Kotlin and must be those that the runtime got here, bit by bit; pixels are compared."""
    folder, project = bundles[name], tmp_path / "project"
    write_app("android", folder, project, name="Net", runtime=runtime)
    bundle = read_bundle(folder)
    artifact = artifact_of(bundle, runtime)
    feeds, outputs = golden_feeds(bundle, folder, artifact), [method.output for method in artifact.methods]
    if runtime == "executorch":
        assert [method.name for method in artifact.methods] == ["forward", "generate"]
        answers = answers_of_executorch(folder / artifact.file, feeds, "generate")
        expected = answers
    else:
        answers = answers_of_onnx(folder / artifact.file, feeds, outputs[0].name)
        expected = [_pixels(values, outputs[0].low, outputs[0].high) for values in answers]
    session = kotlin_project.record(tmp_path / "session", list(zip(feeds, answers, strict=True)))

    said = kotlin_project.run_tests(core, project, session)

    assert " 0 tests failed" in said
    assert " 24 tests successful" in said
    for position, (sample, pixels) in enumerate(zip(bundle.golden.samples, expected, strict=True)):
        with Image.open(io.BytesIO((session / f"{position}.png").read_bytes())) as picture:
            assert np.array_equal(np.asarray(picture).reshape(pixels.shape[1:]), pixels[0])
        recipe = read_recipe(session / f"{position}.png")
        assert (recipe.artifact, recipe.seed, recipe.label) == (artifact.sha256, sample.seed, sample.label)
        assert (recipe.count, recipe.edgegen) == (1, bundle.tools["edgegen"])
        assert set(recipe.inputs) == ({"photo"} if name == "photo" else set())
    (measurement,) = read(session / "latency.json")
    assert measurement.verdict == "noisy"
    assert measurement.what.startswith(artifact.file)
    assert measurement.runs == len(feeds) - 1
    assert measurement.device == "android: a processor, JVM"


def test_each_class_is_made_by_the_session_of_its_student(core: Path, place: Path, tmp_path: Path) -> None:
    """Each file has a recording of its own, which knows the classes of that file alone."""
    folder = students_bundle(place / "students", targets=("onnx-fp32",))
    write_app("android", folder, tmp_path / "project", name="Nets")
    bundle = read_bundle(folder)
    (artifact,) = bundle.artifacts
    output = artifact.methods[0].output
    feeds = golden_feeds(bundle, folder, artifact)
    owner = {label: student for student in artifact.students for label in student.classes}
    of_samples = [owner[sample.label or 0] for sample in bundle.golden.samples]
    answers = [
        answers_of_onnx(folder / student.file, [feed], output.name)[0]
        for student, feed in zip(of_samples, feeds, strict=True)
    ]
    session = tmp_path / "session"
    for student in artifact.students:
        calls = [call for own, *call in zip(of_samples, feeds, answers, strict=True) if own is student]
        kotlin_project.record(session / student.file, [(feed, answer) for feed, answer in calls])

    said = kotlin_project.run_tests(core, tmp_path / "project", session)

    assert " 0 tests failed" in said
    golden = np.fromfile(folder / artifact.golden.file, np.uint8).reshape(bundle.golden.shape)
    for position, (student, expected) in enumerate(zip(of_samples, golden, strict=True)):
        with Image.open(io.BytesIO((session / f"{position}.png").read_bytes())) as picture:
            assert np.abs(np.asarray(picture).reshape(expected.shape).astype(int) - expected).max() <= 1
        assert read_recipe(session / f"{position}.png").artifact == student.sha256
    measured = {row.what.split()[0].rstrip(","): row.runs for row in read(session / "latency.json")}
    assert measured == {"net-0_onnx_fp32.onnx": 7, "net-1_onnx_fp32.onnx": 7}


@pytest.mark.parametrize("runtime", ["executorch", "onnx"])
def test_the_android_side_is_typed(
    core: Path, stubs: Path, bundles: dict[str, Path], tmp_path: Path, runtime: str
) -> None:
    """Against stubs of ours, whose signatures are those of the libraries' documentation."""
    project = tmp_path / "project"
    write_app("android", bundles["classes"], project, name="Net", runtime=runtime)
    kotlin_project.glue(project, tmp_path, core=core, stubs=stubs)
    if runtime == "executorch":  # the check can fail
        source = project / "app/src/main/kotlin/Model.kt"
        source.write_text(source.read_text().replace("Build.VERSION.RELEASE", "Build.VERSION.NAME"))
        (tmp_path / "again").mkdir()
        with pytest.raises(AssertionError, match=r"Model.kt:\d+:\d+: error: unresolved reference 'NAME'"):
            kotlin_project.glue(project, tmp_path / "again", core=core, stubs=stubs)


def test_recorded_prompts_give_the_golden_images(core: Path, words: Path, tmp_path: Path) -> None:
    """From recorded token numbers to pixels: what the encoder and the generator get must be what they got in Python."""
    bundle, project = words, words.with_name("words-project")
    inside = read_bundle(bundle)
    assert inside.text is not None
    (encoder,), (artifact,), golden = inside.text.encoders, inside.artifacts, inside.golden
    tokens = [{encoder.tokens.name: np.array([prompt.tokens], np.int64)} for prompt in golden.prompts]
    states = answers_of_onnx(bundle / encoder.file, tokens, encoder.hidden_states.name)
    feeds = []
    for sample in golden.samples:
        feed = {inside.text.input: states[sample.prompt or 0]}
        for spec in artifact.inputs:
            if spec.role == "noise":
                size = [int(each) for each in spec.shape[1:]]
                feed[spec.name] = normal(sample.seed + spec.seed_offset, sample.index, 1, size).astype(np.float32)
        feeds.append(feed)
    answers = answers_of_onnx(bundle / artifact.file, feeds, artifact.methods[0].output.name)
    session = kotlin_project.record(tmp_path / "session", list(zip(feeds, answers, strict=True)))
    kotlin_project.record(session / "encoder", list(zip(tokens, states, strict=True)))

    said = kotlin_project.run_tests(core, project, session)

    assert " 0 tests failed" in said
    assert " 24 tests successful" in said
    images = np.fromfile(bundle / artifact.golden.file, np.uint8).reshape(golden.shape)
    for position, (sample, expected) in enumerate(zip(golden.samples, images, strict=True)):
        path = session / f"{position}.png"
        with Image.open(io.BytesIO(path.read_bytes())) as picture:
            assert np.array_equal(np.asarray(picture), expected)
        assert read_recipe(path).prompt == golden.prompts[sample.prompt or 0].text
    assert json.loads((session / "session.json").read_text())["calls"]


def test_the_android_side_of_prompts_is_typed(core: Path, stubs: Path, words: Path, tmp_path: Path) -> None:
    kotlin_project.glue(words.with_name("words-project"), tmp_path, core=core, stubs=stubs)


def _pixels(values: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    scaled = (values.astype(np.float32) - np.float32(low)) * np.float32(255 / (high - low))
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8).transpose(0, 2, 3, 1)
