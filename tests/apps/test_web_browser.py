"""The page of `edgegen app web`, built by npm's Vite, in a browser: against golden images and against Python."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import app_parts
import numpy as np
import pytest
import web_project
from app_bundles import answers_of_onnx, photo_bundle
from bundles import edit_manifest, hash_again
from web_project import downloaded, host, pictures, pictures_of_class, pixels_of, psnr_db, settled, without_cache

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
SEEDS, CLASSES = 16, 10
WASM = "?backend=wasm"


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("file", ["net_onnx_fp32.onnx", "net_onnx_w8a8.onnx"])
def test_all_classes_of_16_seeds_are_those_of_python(
    bundle: Path, dist: Path, page: Any, file: str, threads: int
) -> None:
    inside = read_bundle(bundle)
    (artifact,) = (row for row in inside.artifacts if row.file == file)
    output = artifact.methods[0].output
    noise, name = (spec.name for spec in artifact.inputs)
    size = [int(each) for each in artifact.inputs[0].shape[1:]]
    golden = np.fromfile(bundle / artifact.golden.file, np.uint8).reshape(inside.golden.shape)
    with host(dist) as address:
        page.goto(f"{address}{WASM}&threads={threads}")
        settled(page)
        page.select_option("#model", file) if file != "net_onnx_fp32.onnx" else None
        settled(page)
        assert page.inner_text("#status").startswith(f"WebAssembly, {threads} thread{'s' if threads > 1 else ''} ")
        assert page.evaluate("crossOriginIsolated")
        mixed = pictures(page)
        for label in range(CLASSES):
            page.click(f'.chip:has(input[value="{label}"])')
            settled(page)
            shown = pictures(page)
            assert len(shown) == SEEDS
            feeds = [{noise: normal(seed, 0, 1, size), name: np.array([label])} for seed in range(SEEDS)]
            expected = [pixels_of(values[0], output.low, output.high) for values in
                        answers_of_onnx(bundle / file, feeds, output.name)]  # fmt: skip
            assert min(map(psnr_db, shown, expected)) >= artifact.golden.floor_db
    assert [sample.seed for sample in inside.golden.samples] == list(range(SEEDS))
    assert [sample.label for sample in inside.golden.samples] == [seed % CLASSES for seed in range(SEEDS)]
    assert min(psnr_db(one, np.repeat(other, 3, 2)) for one, other in zip(mixed, golden, strict=True)) >= (
        artifact.golden.floor_db
    )
    others = [psnr_db(mixed[0], other) for other in mixed[1:]]
    assert max(others) < artifact.golden.floor_db  # a wrong seed or class would be seen


def test_self_test_pictures_and_latencies(bundle: Path, dist: Path, page: Any, tmp_path: Path) -> None:
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    with host(dist) as address:
        page.goto(f"{address}{WASM}#self-test")
        page.wait_for_selector("#self-test.passed", timeout=web_project.PATIENCE_MS)
        assert re.search(r"passed: 16 pictures of net_onnx_fp32.onnx, .*, floor 40 dB", page.inner_text("#self-test"))
        assert page.title() == page.inner_text("h1") == 'Net & "Co"'
        saved = downloaded(page, "figure:nth-child(4) button", tmp_path)
        log = downloaded(page, "#save-log", tmp_path)
        shown = pictures(page)[3]
    assert all(url.startswith((address, "blob:")) for url in requests)
    from PIL import Image

    with Image.open(saved) as picture:
        assert picture.mode == "L"  # as edgegen writes it
        assert np.array_equal(np.asarray(picture.convert("RGB")), shown)
    recipe = read_recipe(saved)
    assert (recipe.artifact, recipe.seed, recipe.label) == (sha256_of(bundle / "net_onnx_fp32.onnx"), 3, 3)
    assert saved.name == "net-3-3.png"
    from edgegen.profilers.schema import read

    profile = read(log)
    (result,) = profile.results
    assert result.latency is not None
    assert result.latency.runs == SEEDS - 1
    assert result.numerics.passed
    assert profile.device == "browser"


def test_works_offline_and_after_a_reload(dist: Path, page: Any) -> None:
    with host(dist) as address:
        page.goto(f"{address}{WASM}")
        settled(page)
        before = pictures(page)
    page.reload()  # the host is gone
    settled(page)
    assert page.evaluate("crossOriginIsolated")
    assert [one.tolist() for one in pictures(page)] == [one.tolist() for one in before]
    page.click("#run-self-test")
    page.wait_for_selector("#self-test.passed")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-1] + b"?"), r"net_onnx_fp32\.onnx is damaged: its SHA-256"),
        (lambda path: path.unlink(), r"net_onnx_fp32\.onnx is not there: the host answers 404"),
        (lambda path: path.with_name("manifest.json").write_text("{}"), r"manifest\.json is damaged"),
        (lambda path: _another_schema(path.parent), r"schema edgegen\.bundle/9, and this app reads edgegen\.bundle/1"),
    ],
)  # fmt: skip
def test_damage_is_one_message_in_the_page(dist: Path, page: Any, tmp_path: Path, damage: Any, message: str) -> None:
    shutil.copytree(dist, tmp_path / "dist")
    damage(tmp_path / "dist/bundle/net_onnx_fp32.onnx")
    with host(tmp_path / "dist") as address:
        page.goto(f"{address}{WASM}")
        settled(page)
        assert re.search(message, page.inner_text("#error"))
        assert page.locator("#error").is_visible()
        assert pictures(page) == []
        if "damaged" in message:  # the right file heals the page, whatever its cache holds
            shutil.copytree(dist / "bundle", tmp_path / "dist/bundle", dirs_exist_ok=True)
            page.reload()
            settled(page)
            assert not page.locator("#error").is_visible()
            assert len(pictures(page)) == SEEDS


def test_a_wrong_answer_for_the_runtime_does_not_stay(dist: Path, page: Any, tmp_path: Path) -> None:
    shutil.copytree(dist, tmp_path / "dist")
    runtimes = list((tmp_path / "dist").glob("assets/*.wasm"))
    for runtime in runtimes:
        runtime.write_text("<!doctype html><title>Not found</title>")
    with host(tmp_path / "dist") as address:
        page.goto(f"{address}{WASM}")
        settled(page)
        assert "is no WebAssembly: the host answers 200" in page.inner_text("#error")
        for runtime in runtimes:
            shutil.copyfile(dist / "assets" / runtime.name, runtime)
        page.reload()
        settled(page)
        assert not page.locator("#error").is_visible()
        assert len(pictures(page)) == SEEDS


def test_a_new_version_is_there_on_the_second_load(bundle: Path, dist: Path, page: Any, tmp_path: Path) -> None:
    write_app("web", bundle, tmp_path / "next", name="Next")
    following = web_project.built(tmp_path / "next")
    shutil.copytree(dist, tmp_path / "dist")
    with host(tmp_path / "dist") as address:
        page.goto(f"{address}{WASM}")
        settled(page)
        before = page.evaluate("caches.keys()")
        shutil.rmtree(tmp_path / "dist")
        shutil.copytree(following, tmp_path / "dist")
        page.reload()
        settled(page)
        # The browser looks for a new worker some time after the page is there, and that fetches its files first.
        without_cache(page, before[0])
        page.reload()
        settled(page)
        assert page.title() == "Next"
        assert len(pictures(page)) == SEEDS


def test_another_model_in_the_middle_of_a_grid_is_no_error(dist: Path, page: Any) -> None:
    with host(dist) as address:
        page.goto(f"{address}{WASM}")
        settled(page)
        page.evaluate("""() => {
          const error = document.querySelector("#error"), model = document.querySelector("#model");
          window.shown = 0;
          new MutationObserver(() => { window.shown += !error.hidden; }).observe(error, { attributes: true });
          document.querySelector("#make").click();
          model.selectedIndex = 1;
          model.dispatchEvent(new Event("change"));
        }""")
        page.wait_for_function("document.querySelector('#status').textContent.includes('a picture')")
        settled(page)
        assert page.evaluate("window.shown") == 0
        assert len(pictures(page)) == SEEDS


def _another_schema(folder: Path) -> None:
    content = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(content | {"schema": "edgegen.bundle/9"}))
    hash_again(folder)


def test_without_a_service_worker_there_is_one_thread_and_a_reason(dist: Path, chromium: Any) -> None:
    context = chromium.new_context(service_workers="block")
    plain, isolated = context.new_page(), context.new_page()
    with host(dist) as address:
        plain.goto(f"{address}?threads=2")
        settled(plain)
        assert plain.inner_text("#status").startswith("WebAssembly, 1 thread ")
        assert "One thread only: the host sends no COOP and COEP headers" in plain.inner_text("#notes")
        assert "This browser has no GPU for WebGPU." in plain.inner_text("#notes")
        assert len(pictures(plain)) == SEEDS
    with host(dist, web_project.ISOLATED) as address:
        isolated.goto(f"{address}{WASM}&threads=2")
        settled(isolated)
        assert isolated.inner_text("#status").startswith("WebAssembly, 2 threads ")
        assert isolated.inner_text("#notes") == ""
    context.close()


def test_calls_that_a_model_does_not_take_are_told(dist: Path, page: Any) -> None:
    with host(dist) as address:
        page.goto(f"{address}{WASM}")
        settled(page)
        page.fill("#seed", "9007199254740992")
        page.click("#make")
        page.wait_for_selector("#error:not([hidden])")
        assert "The seed 9007199254740992 is too large" in page.inner_text("#error")
        page.fill("#seed", "9007199254740000")
        page.click("#make")
        settled(page)
        assert not page.locator("#error").is_visible()
        page.fill("#seed", "-1")
        page.click("#make")
        assert page.locator("#seed:invalid").count() == 1


def test_many_classes_are_a_list(dist: Path, page: Any, tmp_path: Path) -> None:
    """The manifest says 30 classes of a net that knows the first ten."""
    with host(dist) as address:
        expected = pictures_of_class(page, f"{address}{WASM}", 3)
        assert not page.locator("#prompt").is_visible()
    shutil.copytree(dist, tmp_path / "dist")
    edit_manifest(
        tmp_path / "dist/bundle", lambda manifest: [row["inputs"][1].update(high=29.0) for row in manifest["artifacts"]]
    )
    with host(tmp_path / "dist") as address:
        page.goto(f"{address}{WASM}")
        settled(page)
        assert page.locator(".chip").count() == 0
        assert page.locator("#classes option").count() == 1 + 30
        page.select_option("#classes select", "3")
        page.wait_for_selector("#error", state="hidden")
        settled(page)
        assert np.array_equal(pictures(page), expected)


def test_a_picture_becomes_another_one(tmp_path: Path, page: Any) -> None:
    bundle = photo_bundle(tmp_path / "photo")
    write_app("web", bundle, tmp_path / "app", name="Enlarge")
    photo = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
    (artifact,) = read_bundle(bundle).artifacts
    feed = {"photo": (photo.transpose(2, 0, 1)[None] / 127.5 - 1).astype(np.float32)}
    expected = pixels_of(answers_of_onnx(bundle / artifact.file, [feed], "out")[0][0], 0, 1)
    with host(web_project.built(tmp_path / "app")) as address:
        page.goto(f"{address}{WASM}#self-test")
        page.wait_for_selector("#self-test.passed", timeout=web_project.PATIENCE_MS)
        assert not page.locator("#seed").is_visible()
        page.set_viewport_size({"width": 360, "height": 780})
        assert page.evaluate("document.documentElement.scrollWidth") == 360, "nothing sticks out on a phone"
        file = {"name": "photo.png", "mimeType": "image/png", "buffer": web_project.png_bytes(photo)}
        page.set_input_files("#image", [file])
        page.wait_for_timeout(100)
        settled(page)
        (shown,) = pictures(page)
        recipe = read_recipe(downloaded(page, "figure button", tmp_path))
        page.set_input_files("#image", [file | {"buffer": b"no picture"}])
        page.wait_for_selector("#error:not([hidden])")
        assert "photo.png is no picture that this browser reads" in page.inner_text("#error")
    assert psnr_db(shown, expected) >= artifact.golden.floor_db
    assert set(recipe.inputs) == {"photo"}


def test_the_first_picture_is_there_within_two_seconds(dist: Path, page: Any) -> None:
    first_ms = []
    with host(dist) as address:
        for _ in range(5):  # other programs share the machine
            page.goto(f"{address}{WASM}")
            settled(page)
            first_ms.append(page.evaluate("performance.getEntriesByName('picture')[0].startTime"))
            if first_ms[-1] < 2000:
                return
    pytest.fail(f"the first picture is there after {first_ms} ms")


def test_the_page_itself_is_small(dist: Path) -> None:
    assert 10_000 < web_project.page_bytes(dist) <= 200_000
