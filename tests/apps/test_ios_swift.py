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
from app_bundles import answers_of, artifact_of, classes_bundle, golden_feeds, photo_bundle
from PIL import Image

from edgegen.apps.project import write_app
from edgegen.formats.bundle_folder import read_bundle
from edgegen.formats.picture import read_recipe
from edgegen.profilers.importers import read

pytestmark = [pytest.mark.apps, pytest.mark.usefixtures("in_process_of_module")]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, in_process_of_module: None) -> Path:
    if (reason := app_parts.no_swift()) is not None:
        pytest.skip(reason)
    return tmp_path_factory.mktemp("swift")


@pytest.mark.parametrize("name", ["classes", "photo"])
def test_recorded_sessions_give_the_golden_images_in_swift(place: Path, name: str) -> None:
    """Inputs are made in Swift and must be those that the evaluator got here, bit by bit; pixels are compared."""
    make = {"classes": classes_bundle, "photo": photo_bundle}[name]
    folder, project = make(place / name, targets=("coreml-fp32",)), place / f"{name}-project"
    write_app("ios", folder, project, name="Net")
    bundle = read_bundle(folder)
    artifact = artifact_of(bundle, "coreml")
    output = artifact.methods[0].output
    feeds = golden_feeds(bundle, folder, artifact)
    answers = answers_of("coreml", folder / artifact.file, feeds, output.name)
    kotlin_project.record(project / "session", list(zip(feeds, answers, strict=True)))

    said = swift_project.run_tests(project)

    assert "Executed 15 tests, with 0 failures" in said
    scale = 255 / (output.high - output.low)
    for position, (sample, values) in enumerate(zip(bundle.golden.samples, answers, strict=True)):
        pixels = np.rint((values - output.low) * np.float32(scale)).clip(0, 255).astype(np.uint8)[0].transpose(1, 2, 0)
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


def _check_what_needs_apple(project: Path) -> None:
    """Types of the Core ML side against our stub; of SwiftUI and XCTest in the app, the grammar."""
    swift_project.check_core_ml(project)
    swift_project.parse(project, "App", "AppTests")
    source = project / "EdgegenKit/Sources/EdgegenCoreML/CoreMLRuntime.swift"
    source.write_text(source.read_text().replace("shaped.scalars", "shaped.numbers"))
    with pytest.raises(AssertionError, match="has no member 'numbers'"):  # the check can fail
        swift_project.check_core_ml(project)
    view = project / "App/ContentView.swift"
    view.write_text(view.read_text().replace("struct ContentView", "struct struct"))
    with pytest.raises(AssertionError, match="error: "):
        swift_project.parse(project, "App")
