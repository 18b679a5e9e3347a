"""A page of several students in a browser: each picture by the file of its class, fetched when it is needed."""

import json
import shutil
from pathlib import Path
from typing import Any

import app_parts
import numpy as np
import pytest
import web_project
from app_bundles import answers_of_onnx, students_bundle
from web_project import downloaded, host, pictures, pixels_of, psnr_db, settled

from edgegen.apps.project import write_app
from edgegen.formats.bundle_folder import read_bundle
from edgegen.formats.picture import read_recipe
from edgegen.noise import normal
from edgegen.support.storage import sha256_of

REASON = app_parts.no_page()
pytestmark = [
    pytest.mark.apps,
    pytest.mark.skipif(REASON is not None, reason=f"{REASON}"),
    pytest.mark.usefixtures("in_process_of_module"),
]
WASM = "?backend=wasm"
FIRST, SECOND = "net-0_onnx_fp32.onnx", "net-1_onnx_fp32.onnx"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, in_process_of_module: None) -> Path:
    return students_bundle(tmp_path_factory.mktemp("students page") / "nets", targets=("onnx-fp32",))


@pytest.fixture(scope="module")
def dist(bundle: Path) -> Path:
    write_app("web", bundle, bundle.with_name("page"), name="Nets")
    return web_project.built(bundle.with_name("page"))


def expected_of(bundle: Path, label: int) -> list[Any]:
    """16 seeds by ONNX Runtime in Python."""
    (artifact,) = read_bundle(bundle).artifacts
    output, (noise, name) = artifact.methods[0].output, (spec.name for spec in artifact.inputs)
    size = [int(each) for each in artifact.inputs[0].shape[1:]]
    feeds = [{noise: normal(seed, 0, 1, size), name: np.array([label])} for seed in range(16)]
    made = answers_of_onnx(bundle / (FIRST if label < 4 else SECOND), feeds, output.name)
    return [pixels_of(values[0], output.low, output.high) for values in made]


def test_every_class_is_made_by_its_file_and_golden_images_are_equal(
    bundle: Path, dist: Path, page: Any, tmp_path: Path
) -> None:
    with host(dist) as address:
        page.goto(f"{address}{WASM}#self-test")
        page.wait_for_selector("#self-test.passed", timeout=web_project.PATIENCE_MS)
        assert page.inner_text("#self-test").startswith(f"Self-test passed: 16 pictures of {FIRST}")
        assert page.locator("#model-field").is_hidden()  # it is one model
        for label in range(10):
            page.click(f'.chip:has(input[value="{label}"])')
            settled(page)
            assert min(map(psnr_db, pictures(page), expected_of(bundle, label))) >= 40
        assert max(map(psnr_db, pictures(page), expected_of(bundle, 0))) < 30  # the other file would be seen
        saved = downloaded(page, "figure:nth-child(1) button", tmp_path)
        log = json.loads(downloaded(page, "#save-log", tmp_path).read_text())
    assert read_recipe(saved).artifact == sha256_of(bundle / SECOND)
    runs = {row["artifact"]["name"]: row["latency"]["runs"] for row in log["results"]}
    assert runs == {FIRST: 4 + 4 + 4 * 16 - 1, SECOND: 6 + 2 + 6 * 16 - 1}


def test_a_file_is_fetched_when_a_class_needs_it_and_its_damage_is_one_message(
    dist: Path, page: Any, tmp_path: Path
) -> None:
    shutil.copytree(dist, tmp_path / "dist")
    place = tmp_path / "dist/bundle" / SECOND
    place.write_bytes(place.read_bytes()[:-1] + b"?")
    with host(tmp_path / "dist") as address:
        page.goto(f"{address}{WASM}")
        settled(page)
        assert f"{SECOND} is damaged: its SHA-256" in page.inner_text("#error")  # after four pictures of the others
        page.click('.chip:has(input[value="2"])')
        settled(page)
        assert not page.locator("#error").is_visible()
        assert len(pictures(page)) == 16
        page.click('.chip:has(input[value="5"])')
        settled(page)
        assert f"{SECOND} is damaged" in page.inner_text("#error")


@pytest.mark.parametrize(("small", "opened"), [("64e6", 2), ("1", 4)])
def test_small_files_stay_open_and_large_ones_one_at_a_time(
    bundle: Path, page: Any, tmp_path: Path, small: str, opened: int
) -> None:
    """A grid of all classes in turn goes from file to file; of files that are large each change opens one."""
    project = tmp_path / "page"
    write_app("web", bundle, project, name="Nets")
    source = project / "src/sessions.ts"
    text = source.read_text()
    assert "const SMALL = 64e6;" in text
    made = "    const made = {"
    text = text.replace("const SMALL = 64e6;", f"const SMALL = {small};")
    source.write_text(text.replace(made, f'    console.log("opened", this.opened.length);\n{made}'))
    lines: list[str] = []
    page.on("console", lambda message: lines.append(message.text))
    with host(web_project.built(project)) as address:
        page.goto(f"{address}{WASM}")
        settled(page)
        assert len(pictures(page)) == 16
    others = [line for line in lines if line.startswith("opened")]
    assert len(others) == opened
    assert set(others) == ({"opened 0", "opened 1"} if opened == 2 else {"opened 0"})
