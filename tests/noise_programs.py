"""The noise of the apps' templates as programs that answer requests, one a language; what they draw is compared here.

A request is a line: `philox C0 C1 C2 C3 K0 K1`, `normal SEED FIRST COUNT SIZE`, or `time SEED FIRST COUNT SIZE`, which
is answered by the milliseconds of the fastest of many draws. Answers are 32-bit words, least byte first.
"""

import base64
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import app_parts
import numpy as np
from numpy.typing import NDArray

from edgegen.profilers.devices.chromium import find_browser

ROOT = Path(__file__).parents[1]
TEMPLATES = ROOT / "edgegen/apps/templates"
CHECKS = ROOT / "tests/apps"
Answer = Callable[[str], bytes]
STRICT = ("--strict", "--noUnusedLocals", "--noUnusedParameters", "--noImplicitReturns", "--verbatimModuleSyntax")
# Seed, first sample, count, size: 1.1 million numbers; samples across 2^32, seeds beyond a double's 53 bits, odd sizes.
CASES = (
    (0, 0, 16, 3 * 64 * 64),
    (1, 2**32 - 2, 4, 50_000),
    (2**32 - 1, 0, 4, 50_000),
    (2**32, 5, 4, 50_000),
    (2**53 + 1, 2**33 + 7, 4, 40_000),
    (2**63 - 1, 2**53 - 10, 4, 40_001),
    (2**64 - 1, 1, 3, 5),
    (7, 0, 0, 4),
    (7, 3, 2, 0),
)
ORIGIN = "http://localhost"  # of a page whose files are answered here


@dataclass(frozen=True)
class Language:
    """`compiled(folder)` gives the program, in a new folder; `missing` says why it cannot be made on this machine."""

    missing: Callable[[], str | None]
    compiled: Callable[[Path], Answer]


def typescript(folder: Path) -> Path:
    """The compiled module, by tsc in strict mode."""
    compiler = app_parts.npm_package("typescript") / "bin/tsc"
    target = ("--target", "es2022", "--module", "esnext", "--moduleResolution", "bundler", "--lib", "es2022,dom")
    source = CHECKS / "noise_check.ts"
    _run([str(compiler), *STRICT, *target, "--rootDir", str(ROOT), "--outDir", str(folder), str(source)])
    (folder / "package.json").write_text('{"type": "module"}')
    return folder / "tests/apps/noise_check.js"


def node(folder: Path) -> Answer:
    module = typescript(folder)
    program = (
        f"import {{ answers }} from {str(module)!r}; import {{ readFileSync, writeFileSync }} from 'node:fs';"
        "writeFileSync(1, answers(readFileSync(0, 'utf8')));"
    )
    return _program(["node", "--input-type=module", "--eval", program])


def chromium(folder: Path) -> Answer:
    """The same module in a page of a browser without a window."""
    module = typescript(folder).relative_to(folder)

    def answer(requests: str) -> bytes:
        from playwright.sync_api import Route, sync_playwright

        def file(route: Route) -> None:
            path = folder / route.request.url.removeprefix(f"{ORIGIN}/")
            if path.is_file():
                route.fulfill(body=path.read_bytes(), content_type="text/javascript")
            else:
                route.fulfill(body="<!doctype html>", content_type="text/html")

        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=find_browser(), args=["--disable-gpu"])
            page = browser.new_page()
            page.route("**/*", file)
            page.goto(f"{ORIGIN}/")
            encoded = page.evaluate(
                """async ([module, requests]) => {
                  const { answers } = await import(module);
                  const reader = new FileReader();
                  reader.readAsDataURL(new Blob([answers(requests)]));
                  await new Promise((done) => { reader.onload = done; });
                  return reader.result;
                }""",
                [f"/{module}", requests],
            )
            browser.close()
        return base64.b64decode(encoded.partition(",")[2])

    return answer


def kotlin(folder: Path) -> Answer:
    package = app_parts.npm_package("kotlin-compiler")
    library = package / "lib/kotlin-stdlib.jar"
    options = ["-kotlin-home", str(package), "-no-stdlib", "-no-reflect", "-Werror", "-classpath", str(library)]
    sources = [TEMPLATES / "android/core/src/main/kotlin/edgegen/Noise.kt", CHECKS / "NoiseCheck.kt"]
    _run([*app_parts.kotlin_compiler(), *options, *map(str, sources), "-d", str(folder / "noise.jar")])
    return _program(["java", "-cp", f"{folder / 'noise.jar'}:{library}", "NoiseCheckKt"])


def swift(folder: Path) -> Answer:
    for source in (TEMPLATES / "ios/EdgegenKit/Sources/EdgegenCore/Noise.swift", CHECKS / "NoiseCheck.swift"):
        shutil.copy(source, folder)
    place = app_parts.SWIFT_PLACE
    sources = [f"{place}/Noise.swift", f"{place}/NoiseCheck.swift"]
    options = ["-O", "-swift-version", "6", "-warnings-as-errors", "-parse-as-library"]
    _run(app_parts.swift(folder, "swiftc", *options, *sources, "-o", f"{place}/noise"))
    return _program(app_parts.swift(folder, f"{place}/noise"))


LANGUAGES: Mapping[str, Language] = {
    "node": Language(app_parts.no_typescript, node),
    "chromium": Language(app_parts.no_chromium, chromium),
    "kotlin": Language(app_parts.no_kotlin, kotlin),
    "swift": Language(app_parts.no_swift, swift),
}


def ulps(drawn: NDArray[np.float32], expected: NDArray[np.float32]) -> NDArray[np.int64]:
    """How many float32 numbers lie between each pair."""
    return np.abs(_ordered(drawn) - _ordered(expected))


def _ordered(values: NDArray[np.float32]) -> NDArray[np.int64]:
    """Whole numbers in the order of the floats, neighbours one apart; 0 and -0 are both 0."""
    bits = values.view(np.int32).astype(np.int64)
    return np.where(bits < 0, -(bits & 0x7FFFFFFF), bits)


def _program(command: list[str]) -> Answer:
    return lambda requests: _run(command, requests)


def _run(command: list[str], given: str = "") -> bytes:
    finished = subprocess.run(command, input=given.encode(), capture_output=True, check=False)
    output = (finished.stderr or finished.stdout).decode(errors="replace")
    assert finished.returncode == 0, f"{' '.join(command)}: {output[-2000:]}"
    return finished.stdout
