"""The runner of `.pte` files, compiled once against the libraries of executorch's wheel and kept.

For this machine against the installed wheel; for 64-bit ARM by a cross compiler against the ARM64 wheel of the same
version, which `fetch_executorch` downloads.
"""

import hashlib
import importlib.util
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgegen.errors import DeviceError
from edgegen.support.extras import require, version_of
from edgegen.support.processes import finish
from edgegen.support.storage import atomic_path

SOURCE = Path(__file__).with_name("pte_runner.cpp")
# The last three register themselves when they are loaded; nothing refers to them.
LIBRARIES = ("", "_etdump", "_threadpool", "_kernels_optimized", "_kernels_quantized", "_backend_xnnpack")
FLAGS = ("-std=c++17", "-O2", "-w", "-DC10_USING_CUSTOM_GENERATED_MACROS", "-DET_EVENT_TRACER_ENABLED")
SHOWN = 600  # characters of a compiler's message
COMPILE_S, FETCH_S = 900.0, 7200.0  # until a compiler or a download counts as one that never ends

COMPILER = "c++"
ARM64, ARM64_COMPILER = "Linux aarch64", "aarch64-linux-gnu-g++"  # as `uname -sm` says it
ARM64_FLAGS = ("-march=armv8.2-a+dotprod",)  # the runner holds dot products against plain arithmetic
# What a system without glibc, such as Android, needs beside the runner, the loader first.
GLIBC = (
    "ld-linux-aarch64.so.1",
    "libc.so.6",
    "libm.so.6",
    "libdl.so.2",
    "libpthread.so.0",
    "libgcc_s.so.1",
    "libstdc++.so.6",
)


@dataclass(frozen=True)
class Program:
    """A compiled runner, and the folder of executorch's libraries that it needs at run time."""

    runner: Path
    folder: Path

    @property
    def libraries(self) -> list[Path]:
        return [self.folder / f"libexecutorch{library}.so" for library in LIBRARIES]


def pte_program(system: str) -> Program:
    """The runner for a system by its `uname -sm`.

    Raises MissingExtraError without executorch, DeviceError without a compiler, where it fails, where the ARM64 wheel
    is not here, and for a system that no runner can be made for.
    """
    require("executorch", purpose="measuring a .pte")
    if system == this_system():
        home = executorch_home()
        return Program(_compiled(COMPILER, home), home / "lib")
    if system == ARM64:
        home = arm64_executorch()
        if not home.is_dir():
            raise DeviceError(
                f"executorch's libraries for {system} are not here: `edgegen devices DEVICE --fetch` downloads 18 MB"
            )
        return Program(_compiled(ARM64_COMPILER, home, flags=ARM64_FLAGS), home / "lib")
    raise DeviceError(
        f"a .pte runs there by a program for {system or 'an unknown system'}, and there are only those for "
        f"{this_system()} and {ARM64}"
    )


def why_not_compiled() -> str:
    """In a few words, why `pte_program` has no runner for this machine."""
    return "no C++ compiler" if shutil.which(COMPILER) is None else f"{COMPILER} could not compile the C++ runner"


def this_system() -> str:
    """This machine's `uname -sm`."""
    about = os.uname()
    return f"{about.sysname} {about.machine}"


def executorch_home() -> Path:
    """Where the installed executorch is."""
    spec = importlib.util.find_spec("executorch")
    assert spec is not None, "required before"
    assert spec.submodule_search_locations, "a package"
    return Path(next(iter(spec.submodule_search_locations)))


def arm64_executorch() -> Path:
    """Where the ARM64 libraries of the installed executorch's version are, or would be."""
    return cache() / f"executorch-{version_of('executorch')}-aarch64" / "executorch"


def fetch_executorch() -> None:
    """Downloads the ARM64 wheel (18 MB) of the installed version. Raises MissingExtraError, DeviceError."""
    require("executorch", purpose="measuring a .pte")
    home = arm64_executorch()
    if not home.is_dir():
        python = f"{sys.version_info.major}.{sys.version_info.minor}"
        fetch_wheel(f"executorch=={version_of('executorch')}", home.parent, python=python)


def fetch_wheel(requirement: str, target: Path, *, python: str) -> None:
    """An ARM64 Linux wheel by pip, unpacked in a new folder `target`, which is there whole or not at all."""
    platforms = [part for tag in ("2_28", "2_27") for part in ("--platform", f"manylinux_{tag}_aarch64")]
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".fetch-") as folder:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", *platforms, "--only-binary=:all:", "--no-deps"]
        called(*pip, "--python-version", python, "--dest", folder, requirement)
        (wheel,) = Path(folder).glob("*.whl")
        shutil.unpack_archive(wheel, Path(folder) / "unpacked", "zip")
        (Path(folder) / "unpacked").replace(target)


def called(*command: object) -> str:
    """What a program of this machine prints. Raises DeviceError with the end of its output where it fails."""
    name = Path(str(command[0])).name
    finished = finish([str(part) for part in command], name=name, timeout_s=FETCH_S)
    if finished.code:
        output = finished.stderr or finished.stdout
        raise DeviceError(f"{name} ended with {finished.code}: {output.strip()[-SHOWN:]}")
    return finished.stdout


def glibc() -> Mapping[str, Path]:
    """By name, the files of GLIBC that the cross compiler came with."""
    files = {name: Path(called(ARM64_COMPILER, f"-print-file-name={name}").strip()) for name in GLIBC}
    missing = [name for name, path in files.items() if not path.is_absolute()]
    if missing:
        raise DeviceError(f"{ARM64_COMPILER} has no {missing[0]}: apt install g++-aarch64-linux-gnu")
    return files


def _compiled(compiler: str, home: Path, *, flags: tuple[str, ...] = ()) -> Path:
    """The runner by `compiler`, with the headers and libraries of the executorch in `home`; from the cache if there."""
    program = shutil.which(compiler)
    if program is None:
        package = "g++-aarch64-linux-gnu" if compiler == ARM64_COMPILER else "g++ (macOS: xcode-select --install)"
        raise DeviceError(f"measuring a .pte needs a C++ compiler, and there is no '{compiler}': apt install {package}")
    given = (*FLAGS, f'-DRUNTIME="executorch {version_of("executorch")}"', *flags)
    ingredients = (SOURCE.read_text(encoding="utf-8"), program, *given)
    key = hashlib.sha256("\0".join(ingredients).encode()).hexdigest()[:16]
    target = cache() / f"pte_runner-{key}"
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    includes = (home / "include", home / "include/executorch/runtime/core/portable_type/c10")
    with atomic_path(target) as path:
        command = [program, *given, *(f"-I{folder}" for folder in includes), str(SOURCE), "-o", str(path)]
        linked = [f"-L{home / 'lib'}", "-Wl,--no-as-needed", *(f"-lexecutorch{name}" for name in LIBRARIES)]
        finished = finish([*command, *linked, "-Wl,--allow-shlib-undefined"], name=compiler, timeout_s=COMPILE_S)
        if finished.code:
            message = finished.stderr.strip()[-SHOWN:]
            raise DeviceError(f"{compiler} could not compile the runner of .pte files: {message}")
    return target


def cache() -> Path:
    """The folder of compiled runners and downloads: $XDG_CACHE_HOME/edgegen, else ~/.cache/edgegen."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgegen"
