"""Kotlin of a generated Android project on the JVM: compiled by npm's compiler, tested by JUnit; no Gradle."""

import json
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import app_parts
import numpy as np
from numpy.typing import NDArray

from edgegen.apps.project import TEMPLATES

HERE = Path(__file__).parent / "apps/android"
CORE = TEMPLATES / "android/core/src"
# Of Kotlin in the project's version catalogue: this compiler reads the language as that one does.
LANGUAGE = ("-language-version", "2.3", "-api-version", "2.3", "-jvm-target", "17")


def compiled(sources: Sequence[Path], classpath: Sequence[Path], output: Path) -> Path:
    """The classes of the sources, every warning being an error."""
    package = app_parts.npm_package("kotlin-compiler")
    libraries = [package / "lib/kotlin-stdlib.jar", *classpath]
    options = ["-kotlin-home", str(package), "-no-stdlib", "-no-reflect", "-Werror", *LANGUAGE]
    command = [*app_parts.kotlin_compiler(), *options, "-classpath", ":".join(map(str, libraries))]
    _run([*command, *map(str, sources), "-d", str(output)])
    return output


def core_with_tests(output: Path) -> Path:
    """The core, which is the same in all projects, its own tests and the one that replays a session."""
    return compiled([*kotlin(CORE), HERE / "ReplayTest.kt"], [*app_parts.jvm_jars(), *_kotlin_test()], output)


def stubs(output: Path) -> Path:
    """Of the libraries that the Android side calls."""
    return compiled(kotlin(HERE / "stubs"), _of_stubs(), output)


def run_tests(classes: Path, project: Path, session: Path) -> str:
    """What JUnit says of all tests; a failed one is an AssertionError."""
    _check_core(project)
    stdlib = app_parts.npm_package("kotlin-compiler") / "lib/kotlin-stdlib.jar"
    places = [classes, stdlib, *_kotlin_test(), *app_parts.jvm_jars()]
    properties = [f"-Dedgegen.bundle={project / 'app/src/main/assets/bundle'}", f"-Dedgegen.session={session}"]
    launcher = ["org.junit.platform.console.ConsoleLauncher", "--scan-classpath", str(classes)]
    options = ["--disable-banner", "--disable-ansi-colors", "--details", "tree"]
    return _run(["java", *properties, "-cp", ":".join(map(str, places)), *launcher, *options])


def glue(project: Path, folder: Path, *, core: Path, stubs: Path) -> Path:
    """The Android side against the core and stubs of the APIs that it uses: types and names, nothing more."""
    _check_core(project)
    package = re.search(r'namespace = "(.+)"', (project / "app/build.gradle.kts").read_text())
    assert package
    generated = folder / "Generated.kt"
    generated.write_text(_generated(project, package[1]))
    sources = [*kotlin(project / "app/src"), *kotlin(project / "macrobenchmark/src")]
    return compiled([*sources, generated], [core, stubs, *_of_stubs()], folder / "app")


def _check_core(project: Path) -> None:
    def texts(folder: Path) -> dict[str, str]:
        return {path.relative_to(folder).as_posix(): path.read_text() for path in kotlin(folder)}

    assert texts(project / "core/src") == texts(CORE)


def _of_stubs() -> list[Path]:
    coroutines = app_parts.npm_package("kotlin-compiler") / "lib/kotlinx-coroutines-core-jvm.jar"
    return [coroutines, *app_parts.jvm_jars()]


def kotlin(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.kt"))


def record(session: Path, calls: Sequence[tuple[dict[str, NDArray[Any]], NDArray[Any]]], **facts: object) -> Path:
    """Inputs and output of each call of a runtime, as ReplayTest.kt reads them, and what else a replay has to know."""
    session.mkdir(parents=True)
    rows = []
    for position, (inputs, output) in enumerate(calls):
        names = {name: f"{position}-{name}.bin" for name in inputs}
        for name, values in inputs.items():
            (session / names[name]).write_bytes(np.ascontiguousarray(values).tobytes())
        (session / f"{position}-out.bin").write_bytes(np.ascontiguousarray(output).tobytes())
        rows.append({"inputs": names, "output": f"{position}-out.bin"})
    (session / "session.json").write_text(json.dumps({"calls": rows, **facts}))
    return session


def _generated(project: Path, package: str) -> str:
    """R and BuildConfig, as Android's tools write them from the resources."""
    strings = ElementTree.parse(project / "app/src/main/res/values/strings.xml").getroot()
    names = "".join(f"        val {row.get('name')}: Int = TODO()\n" for row in strings)
    return (
        f"package {package}\n\nobject R {{\n    object string {{\n{names}    }}\n}}\n\n"
        "object BuildConfig {\n    val DEBUG: Boolean = TODO()\n}\n"
    )


def _kotlin_test() -> list[Path]:
    library = app_parts.npm_package("kotlin-compiler") / "lib"
    return [library / "kotlin-test.jar", library / "kotlin-test-junit5.jar"]


def _run(command: Sequence[str]) -> str:
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, f"{command[:1]}...\n{finished.stdout[-6000:]}\n{finished.stderr[-3000:]}"
    return finished.stdout
