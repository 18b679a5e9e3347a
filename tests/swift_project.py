"""Swift of a generated iOS project on Linux: its packages are built and tested, what needs Apple's systems is read."""

import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import app_parts

HERE = Path(__file__).parent / "apps/ios"
PLACE = Path(app_parts.SWIFT_PLACE)
KIT = PLACE / "EdgegenKit"


def run(project: Path, *command: object) -> str:
    """What a program of Swift says; a failure is an AssertionError."""
    done = subprocess.run(
        app_parts.swift(project, *map(str, command)), capture_output=True, text=True, check=False, timeout=550
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    return said


def run_tests(project: Path) -> str:
    """Builds the core and runs its tests, with those that replay `project/session`."""
    shutil.copy(HERE / "ReplayTests.swift", project / "EdgegenKit/Tests/EdgegenCoreTests")
    return run(project, "swift", "test", "--package-path", KIT)


def run_runtime_tests(project: Path) -> str:
    """Builds the ExecuTorch side over a stub of ExecuTorch that answers as `project/session` says, and runs it."""
    for name in ("executorch", "runtime"):
        shutil.copytree(HERE / name, project / name, dirs_exist_ok=True)
    manifest = project / "EdgegenRuntime/Package.swift"
    remote = re.compile(r'\.package\(url: "https://github\.com/pytorch/executorch\.git", branch: "swiftpm-[\d.]+"\)')
    text, count = remote.subn('.package(path: "../executorch")', manifest.read_text())
    assert count == 1
    manifest.write_text(text)
    return run(project, "swift", "test", "--package-path", PLACE / "runtime", "-Xswiftc", "-warnings-as-errors")


def check_core_ml(project: Path) -> None:
    """Types of the Core ML side against stubs, where `run_tests` has built the core."""
    sources = sorted((project / "EdgegenRuntime/Sources/EdgegenRuntime").iterdir())
    _check_types(project, sources, stubs=("CoreVideo", "CoreML"), built=KIT)


def check_screen_model(project: Path) -> None:
    """Types of what the screen calls, against a stub of UIKit, where `run_runtime_tests` has built the rest."""
    _check_types(project, [project / "App/GeneratorModel.swift"], stubs=("UIKit",), built=PLACE / "runtime")


def _check_types(project: Path, sources: Sequence[Path], *, stubs: Sequence[str], built: Path) -> None:
    """`stubs` in an order in which each may import those before it; `built` is a package that was built."""
    shutil.copytree(HERE / "stubs", project / "stubs", dirs_exist_ok=True)
    modules: Sequence[object] = ("-I", PLACE / "stubs", "-I", built / ".build/debug/Modules", "-swift-version", 6)
    for name in stubs:
        stub = ("-emit-module", "-parse-as-library", "-module-name", name, "-o", PLACE / f"stubs/{name}.swiftmodule")
        run(project, "swiftc", *stub, *modules, PLACE / f"stubs/{name}.swift")
    places = [PLACE / path.relative_to(project) for path in sources]
    run(project, "swiftc", "-typecheck", "-warnings-as-errors", "-D", "DEBUG", *modules, *places)


def parse(project: Path, *folders: str) -> None:
    """Grammar alone, of all sources in the folders."""
    paths = [
        PLACE / path.relative_to(project) for folder in folders for path in sorted((project / folder).glob("*.swift"))
    ]
    assert paths
    run(project, "swiftc", "-frontend", "-parse", "-swift-version", 6, *paths)
