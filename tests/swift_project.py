"""Swift of a generated iOS project on Linux: its package is built and tested, what needs Apple's systems is read."""

import shutil
import subprocess
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
    """Builds the package and runs its tests, with those that replay `project/session`."""
    shutil.copy(HERE / "ReplayTests.swift", project / "EdgegenKit/Tests/EdgegenCoreTests")
    return run(project, "swift", "test", "--package-path", KIT)


def check_core_ml(project: Path) -> None:
    """Types of the Core ML side against a stub, where `run_tests` has built the core."""
    shutil.copytree(HERE / "stubs", project / "stubs", dirs_exist_ok=True)
    stub = ("-emit-module", "-module-name", "CoreML", "-o", PLACE / "stubs/CoreML.swiftmodule")
    run(project, "swiftc", *stub, "-swift-version", 6, PLACE / "stubs/CoreML.swift")
    modules = ("-I", PLACE / "stubs", "-I", KIT / ".build/debug/Modules")
    sources = sorted((project / "EdgegenKit/Sources/EdgegenCoreML").iterdir())
    places = [PLACE / path.relative_to(project) for path in sources]
    run(project, "swiftc", "-typecheck", "-warnings-as-errors", "-swift-version", 6, *modules, *places)


def parse(project: Path, *folders: str) -> None:
    """Grammar alone, of all sources in the folders."""
    paths = [
        PLACE / path.relative_to(project) for folder in folders for path in sorted((project / folder).glob("*.swift"))
    ]
    assert paths
    run(project, "swiftc", "-frontend", "-parse", "-swift-version", 6, *paths)
