"""A generated page in a browser without a window: built by npm's Vite, served below the top of a host."""

import contextlib
import functools
import http.server
import io
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import app_parts
import numpy as np
import pytest
from numpy.typing import NDArray

from edgegen.profilers.devices.chromium import find_browser

PLACE = "some/place"  # of the page on its host
ISOLATED = {"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp"}
SOFTWARE_GPU = ("--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader")
PATIENCE_MS = 60_000
CANVASES = """[...document.querySelectorAll("#pictures canvas")].map((canvas) =>
  [canvas.width, canvas.height, [...canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data]])"""


def built(project: Path) -> Path:
    """The project's dist/, by what `npm run build` calls."""
    (project / "node_modules").symlink_to(app_parts.web_modules())
    for command in (["typescript/bin/tsc"], ["vite/bin/vite.js", "build"]):
        program = [str(project / "node_modules" / command[0]), *command[1:]]
        done = subprocess.run(["node", *program], cwd=project, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    return project / "dist"


@contextlib.contextmanager
def host(folder: Path, headers: Mapping[str, str] | None = None) -> Iterator[str]:
    """A plain file host; the address of `folder` on it, which is not its top."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def translate_path(self, path: str) -> str:
            below = path.partition("?")[0].removeprefix(f"/{PLACE}/")
            return str(folder / "no such file") if below.startswith("/") else super().translate_path(f"/{below}")

        def end_headers(self) -> None:
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            super().end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/{PLACE}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextlib.contextmanager
def browsers() -> Iterator[Callable[..., Any]]:
    """Starts browsers with flags; a process can have one Playwright at a time, and so one of this."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:

        def start(*flags: str) -> Any:
            return playwright.chromium.launch(executable_path=find_browser(), args=list(flags or ["--disable-gpu"]))

        yield start


def on_gpu(page: Any, address: str) -> None:
    """Opens a page on a GPU in software; the test is skipped where the browser has none."""
    page.goto(address)
    if not page.evaluate("navigator.gpu?.requestAdapter().then(Boolean)"):
        pytest.skip("this browser has no WebGPU in software")


def passes_on_gpu(dist: Path, start_browser: Callable[..., Any]) -> str:
    """What the self-test of a page says on a GPU in software, once it has ended."""
    with host(dist) as address, contextlib.closing(start_browser(*SOFTWARE_GPU)) as started:
        page = started.new_page()
        on_gpu(page, f"{address}?backend=webgpu#self-test")
        page.wait_for_selector("#self-test.passed, #self-test.failed", timeout=3 * PATIENCE_MS)
        assert page.inner_text("#status").startswith("WebGPU ")
        text: str = page.inner_text("#self-test")
        return text


def pictures_of_class(page: Any, address: str, label: int) -> list[NDArray[np.uint8]]:
    """Opens a page, chooses a class, and waits for its grid."""
    page.goto(address)
    settled(page)
    page.click(f'.chip:has(input[value="{label}"])')
    settled(page)
    return pictures(page)


def settled(page: Any) -> None:
    """Waits until all pictures are there, or an error is."""
    page.wait_for_function("document.querySelector('#pictures').ariaBusy === 'false'", timeout=PATIENCE_MS)


def without_cache(page: Any, name: str) -> None:
    """Waits until a new service worker has taken over and the cache of the old one is gone."""
    end = time.monotonic() + PATIENCE_MS / 1000
    while name in page.evaluate("caches.keys()"):  # wait_for_function does not wait for promises
        assert time.monotonic() < end, f"the browser still has {name}"
        page.wait_for_timeout(200)


def pictures(page: Any) -> list[NDArray[np.uint8]]:
    """What the grid shows, (height, width, 3) each; all of it must be opaque."""
    shown = []
    for width, height, values in page.evaluate(CANVASES):
        image = np.array(values, np.uint8).reshape(height, width, 4)
        assert (image[..., 3] == 255).all()
        shown.append(image[..., :3])
    return shown


def pixels_of(values: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    """(channels, height, width) in [low, high] as the page shows it: (height, width, 3)."""
    bytes_ = np.rint((values - low) * (255 / (high - low))).clip(0, 255).astype(np.uint8).transpose(1, 2, 0)
    return bytes_.repeat(3, axis=2) if bytes_.shape[2] == 1 else bytes_


def psnr_db(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    assert one.shape == other.shape
    error = np.mean((one.astype(float) - other) ** 2)
    return float(10 * np.log10(255**2 / error)) if error else float("inf")


def downloaded(page: Any, selector: str, place: Path) -> Path:
    with page.expect_download() as download:
        page.click(selector)
    path = place / str(download.value.suggested_filename)
    download.value.save_as(path)
    return path


def png_bytes(pixels: NDArray[np.uint8]) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def page_bytes(dist: Path) -> int:
    """Of the page itself: without the bundle and onnxruntime-web."""
    files = {path.relative_to(dist).as_posix(): path for path in dist.rglob("*") if path.is_file()}
    own = [path for name, path in files.items() if not name.startswith(("bundle/", "assets/ort"))]
    return sum(path.stat().st_size for path in own)
