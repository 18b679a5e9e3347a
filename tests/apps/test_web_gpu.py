"""WebGPU in a page, on a GPU in software, and what happens when the GPU goes away."""

import contextlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import app_parts
import pytest
import web_project
from web_project import downloaded, host, on_gpu, passes_on_gpu, pictures, pictures_of_class, psnr_db, settled

REASON = app_parts.no_page()
pytestmark = [pytest.mark.apps, pytest.mark.skipif(REASON is not None, reason=f"{REASON}")]

# Put before a page's worker: its GPU is `device`, and is destroyed after `leave` pictures.
LOSE_GPU = """
const requestDevice = GPUAdapter.prototype.requestDevice, postMessage = self.postMessage.bind(self);
GPUAdapter.prototype.requestDevice = async function (...given) {
  return (self.device = await requestDevice.apply(this, given));
};
self.postMessage = (answer, ...rest) => {
  postMessage(answer, ...rest);
  if ("picture" in (answer.value ?? {}) && --self.leave === 0) self.device.destroy();
};
"""


def test_webgpu_on_a_gpu_in_software(dist: Path, start_browser: Callable[..., Any]) -> None:
    assert passes_on_gpu(dist, start_browser).startswith("Self-test passed: 16 pictures")


@pytest.mark.parametrize("way", ["the device is destroyed in the middle of a grid", "the process of the GPU ends"])
def test_a_lost_gpu_costs_no_picture(
    dist: Path, page: Any, start_browser: Callable[..., Any], tmp_path: Path, way: str
) -> None:
    shutil.copytree(dist, tmp_path / "dist")
    (script,) = (tmp_path / "dist/assets").glob("worker-*.js")
    script.write_text(LOSE_GPU + script.read_text())
    with host(dist) as address:
        expected = pictures_of_class(page, f"{address}?backend=wasm", 3)
    with host(tmp_path / "dist") as address, contextlib.closing(start_browser(*web_project.SOFTWARE_GPU)) as started:
        gpu_page = started.new_page()
        on_gpu(gpu_page, f"{address}?backend=webgpu&threads=2")
        settled(gpu_page)
        assert gpu_page.inner_text("#status").startswith("WebGPU ")
        worker = next(each for each in gpu_page.workers if "/worker-" in each.url)  # others are its threads
        if way == "the process of the GPU ends":
            started.new_browser_cdp_session().send("Browser.crashGpuProcess")
        else:
            worker.evaluate("self.leave = 5")
        gpu_page.click('.chip:has(input[value="3"])')
        settled(gpu_page)
        assert gpu_page.inner_text("#notes") == (
            "WebGPU stopped (the browser has lost the GPU): pictures come from WebAssembly."
        )
        assert gpu_page.inner_text("#status").startswith("WebAssembly, 2 threads ")
        assert not gpu_page.locator("#error").is_visible()
        assert gpu_page.locator("figure.waiting").count() == 0
        shown = pictures(gpu_page)
        log = json.loads(downloaded(gpu_page, "#save-log", tmp_path).read_text())
        gpu_page.click("#run-self-test")
        gpu_page.wait_for_selector("#self-test.passed", timeout=web_project.PATIENCE_MS)
    assert len(shown) == len(expected)
    assert min(map(psnr_db, shown, expected)) >= 40
    (result,) = log["results"]
    assert result["config"]["runtime"].endswith(" on wasm")
    by_wasm = 16 if way == "the process of the GPU ends" else 11
    assert result["latency"]["runs"] == by_wasm - 1
