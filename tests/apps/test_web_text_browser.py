"""A page that takes a prompt, in a browser: against diffusers' own pipeline and transformers' tokenizer."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import app_parts
import numpy as np
import pytest
import web_project
from bundles import edit_manifest
from text_pipelines import TRICKY, images_of_diffusers, text_bundle, tokens_of_transformers
from web_project import downloaded, host, passes_on_gpu, pictures, psnr_db, settled

from edgegen.apps.project import write_app
from edgegen.artifacts.bundle_text import PROMPTS
from edgegen.artifacts.sample_like import sample_like
from edgegen.errors import UsageError
from edgegen.formats.bundle_folder import read_bundle
from edgegen.formats.picture import read_recipe
from edgegen.support.storage import sha256_of

REASON = app_parts.no_page()
pytestmark = [
    pytest.mark.apps,
    pytest.mark.skipif(REASON is not None, reason=f"{REASON}"),
    pytest.mark.usefixtures("in_process_of_module"),
]
SEEDS = 4
WASM = "?backend=wasm"
MODEL, ENCODER = "sdxs_onnx_fp32.onnx", "text_encoder_onnx_fp32.onnx"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, in_process_of_module: None) -> Path:
    """With prompts that tokenizers differ in among the golden ones, as transformers' tokenizer reads them."""
    place = text_bundle(tmp_path_factory.mktemp("text page") / "bundle")
    tokens = tokens_of_transformers(place.with_name("sdxs"), TRICKY)
    rows = [{"text": text, "tokens": numbers} for text, numbers in zip(TRICKY, tokens, strict=True)]
    edit_manifest(place, lambda manifest: manifest["golden"]["prompts"].extend(rows))
    return place


@pytest.fixture(scope="module")
def dist(bundle: Path) -> Path:
    write_app("web", bundle, bundle.with_name("page"), name="Words")
    return web_project.built(bundle.with_name("page"))


def make(page: Any, prompt: str) -> list[Any]:
    page.fill("#prompt", prompt)
    page.click("#make")
    settled(page)
    shown: list[Any] = pictures(page)
    return shown


def test_four_prompts_of_four_seeds_are_those_of_diffusers(bundle: Path, dist: Path, page: Any) -> None:
    prompts = ("a red cat", "", TRICKY[4], TRICKY[-1])
    seen = []
    with host(dist) as address:
        page.goto(f"{address}{WASM}&threads=2")
        settled(page)
        assert page.input_value("#prompt") == PROMPTS[0]
        assert page.evaluate("crossOriginIsolated")
        nbytes = sum((dist / "bundle" / name).stat().st_size for name in (MODEL, ENCODER, "tokenizer.json"))
        assert page.inner_text("#status").endswith(f" · {nbytes / 1e3:.0f} kB")  # of all that the page fetched for it
        for prompt in prompts:
            shown = make(page, prompt)
            assert not page.locator("#error").is_visible()
            expected = images_of_diffusers(bundle.with_name("sdxs"), [prompt] * SEEDS, range(SEEDS))
            assert len(shown) == SEEDS
            assert min(map(psnr_db, shown, expected)) >= 40
            seen.append(shown)
    assert max(psnr_db(seen[0][0], others[0]) for others in seen[1:]) < 30  # another prompt would be seen
    assert max(psnr_db(seen[0][0], other) for other in seen[0][1:]) < 30


def test_self_test_compares_token_numbers_and_pictures(dist: Path, page: Any, tmp_path: Path) -> None:
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    with host(dist) as address:
        page.goto(f"{address}{WASM}#self-test")
        page.wait_for_selector("#self-test.passed, #self-test.failed", timeout=web_project.PATIENCE_MS)
        assert page.inner_text("#self-test").startswith("Self-test passed: 16 pictures of sdxs_onnx_fp32.onnx")
        page.set_viewport_size({"width": 360, "height": 780})
        assert page.evaluate("document.documentElement.scrollWidth") == 360, "nothing sticks out on a phone"
    assert all(url.startswith((address, "blob:")) for url in requests)
    shutil.copytree(dist, tmp_path / "dist")
    edit_manifest(tmp_path / "dist/bundle", lambda manifest: manifest["golden"]["prompts"][0]["tokens"].reverse())
    with host(tmp_path / "dist") as address:
        page.goto(f"{address}{WASM}#self-test")
        page.wait_for_selector("#self-test.failed", timeout=web_project.PATIENCE_MS)
        expected = f"Self-test FAILED: other token numbers for {json.dumps(PROMPTS[0])}."
        assert page.inner_text("#self-test") == expected


def test_pictures_carry_the_prompt(bundle: Path, dist: Path, page: Any, tmp_path: Path) -> None:
    with host(dist) as address:
        page.goto(f"{address}{WASM}")
        settled(page)
        make(page, "naïve 猫")
        saved = downloaded(page, "figure:nth-child(3) button", tmp_path)
    recipe = read_recipe(saved)
    assert (recipe.artifact, recipe.seed, recipe.prompt) == (sha256_of(bundle / MODEL), 2, "naïve 猫")
    with pytest.raises(
        UsageError, match="was made from the prompt 'naïve 猫' by tokenizer, text encoder and generator"
    ):
        sample_like(saved, str(bundle), tmp_path / "again.png")


def test_works_offline(dist: Path, page: Any) -> None:
    with host(dist) as address:
        page.goto(f"{address}{WASM}")
        settled(page)
        before = make(page, "a dog")
    page.reload()  # the host is gone
    settled(page)
    assert np.array_equal(make(page, "a dog"), before)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("tokenizer.json", b"{}", "tokenizer.json is damaged: its SHA-256"),
        ("tokenizer.json", None, "tokenizer.json is not there: the host answers 404"),
        ("text_encoder_onnx_fp32.onnx", b"", "text_encoder_onnx_fp32.onnx is damaged"),
    ],
)
def test_damage_is_one_message(
    dist: Path, page: Any, tmp_path: Path, file: str, content: bytes | None, message: str
) -> None:
    shutil.copytree(dist, tmp_path / "dist")
    place = tmp_path / "dist/bundle" / file
    place.unlink() if content is None else place.write_bytes(content)
    with host(tmp_path / "dist") as address:
        page.goto(f"{address}{WASM}")
        settled(page)
        assert message in page.inner_text("#error")
        assert pictures(page) == []


def test_webgpu_on_a_gpu_in_software(dist: Path, start_browser: Callable[..., Any]) -> None:
    assert passes_on_gpu(dist, start_browser).startswith("Self-test passed: 16 pictures")


def test_the_page_itself_is_small(bundle: Path, dist: Path) -> None:
    assert 50_000 < web_project.page_bytes(dist) <= 200_000
    prompts = read_bundle(bundle).golden.prompts
    assert len(prompts) == len(PROMPTS) + len(TRICKY)
