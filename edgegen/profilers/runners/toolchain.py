"""Runners in C++: compiled once for a system, with the libraries that they need there, and kept.

For this machine by its compiler; for 64-bit ARM by a cross compiler, with the libraries of the ARM64 wheel of the
version that is installed here, which only `fetch_arm64` downloads. `pte.py` and `onnx.py` make one runner each.
"""

import hashlib
import importlib.util
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgegen.errors import DeviceError
from edgegen.support.extras import version_of
from edgegen.support.processes import finish
from edgegen.support.storage import atomic_path

PROTOCOL = Path(__file__).with_name("runner.h")  # what all runners share
FLAGS = ("-std=c++17", "-O2", "-w")
SHOWN = 600  # characters of a compiler's message
COMPILE_S, FETCH_S = 900.0, 7200.0  # until a compiler or a download counts as one that never ends

ARM64 = "Linux aarch64"  # as `uname -sm` says it
COMPILER, ARM64_COMPILER = "c++", "aarch64-linux-gnu-g++"
ARM64_FLAGS = ("-march=armv8.2-a+dotprod",)  # the runners hold dot products against plain arithmetic
LOADERS = {ARM64: "ld-linux-aarch64.so.1", "Linux x86_64": "ld-linux-x86-64.so.2"}  # which start a program by its path
# The C library that a runner was compiled for: a device's own may be older, or another, such as Android's.
GLIBC = (
    "libc.so.6",
    "libm.so.6",
    "libdl.so.2",
    "libpthread.so.0",
    "librt.so.1",
    "libgcc_s.so.1",
    "libstdc++.so.6",
)


@dataclass(frozen=True)
class Program:
    """A compiled runner, and the libraries of one folder that it needs; `words` come between NONCE and the model."""

    runner: Path
    libraries: Sequence[Path]
    words: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        return self.libraries[0].parent


class NoProgramError(DeviceError):
    """No runner in C++ can be had for a system; `why` says it in a few words."""

    def __init__(self, message: str, *, why: str) -> None:
        super().__init__(message)
        self.why = why


def this_system() -> str:
    """This machine's `uname -sm`."""
    about = os.uname()
    return f"{about.sysname} {about.machine}"


def home_of(package: str, system: str) -> Path:
    """The folder of a package's files for a system: the installed one, or its ARM64 wheel. Raises NoProgramError."""
    if system == this_system():
        spec = importlib.util.find_spec(package)
        assert spec is not None, "required before"
        assert spec.submodule_search_locations, "a package"
        return Path(next(iter(spec.submodule_search_locations)))
    if system != ARM64:
        named, known = system or "an unknown system", " and ".join(dict.fromkeys((this_system(), ARM64)))
        raise NoProgramError(f"no runner can be made for {named}, only for {known}", why=f"no C++ runner for {named}")
    home = arm64_home(package)
    if not home.is_dir():
        raise NoProgramError(
            f"{package}'s libraries for {system} are not here: `edgegen devices DEVICE --fetch` downloads them",
            why=f"no {package} for ARM64 here",
        )
    return home


def arm64_home(package: str) -> Path:
    """Where the ARM64 files of a package's installed version are, or would be."""
    return cache() / f"{package}-{version_of(package)}-aarch64" / package


def fetch_arm64(package: str) -> None:
    """Downloads the ARM64 wheel of a package's installed version. Raises DeviceError."""
    home = arm64_home(package)
    if not home.is_dir():
        python = f"{sys.version_info.major}.{sys.version_info.minor}"
        fetch_wheel(f"{package}=={version_of(package)}", home.parent, python=python)


def compiled(source: Path, system: str, *, flags: Sequence[str] = (), linked: Sequence[str] = (), of: str) -> Path:
    """The runner in `source` for a system; from the cache if there. `of` are the files that it runs.

    `flags` must tell apart what it is compiled against. Raises NoProgramError without a compiler, or where it fails.
    """
    compiler = compiler_for(system)
    program, failed = shutil.which(compiler), f"{compiler} could not compile the C++ runner"
    if program is None:
        package = "g++-aarch64-linux-gnu" if compiler == ARM64_COMPILER else "g++ (macOS: xcode-select --install)"
        raise NoProgramError(
            f"measuring a {of} needs a C++ compiler, and there is no '{compiler}': apt install {package}",
            why="no C++ compiler",
        )
    given = (*FLAGS, *(ARM64_FLAGS if compiler == ARM64_COMPILER else ()), *flags)
    texts = [path.read_text(encoding="utf-8") for path in (source, PROTOCOL)]
    key = hashlib.sha256("\0".join([*texts, program, *given, *linked]).encode()).hexdigest()[:16]
    target = cache() / f"{source.stem}-{key}"
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(target) as path:
        command = [program, *given, str(source), "-o", str(path), *linked]
        try:
            finished = finish(command, name=compiler, timeout_s=COMPILE_S)
        except DeviceError as e:  # it does not start, or does not end
            raise NoProgramError(str(e), why=failed) from e
        if finished.code:
            message = finished.stderr.strip()[-SHOWN:]
            raise NoProgramError(f"{compiler} could not compile the runner of {of} files: {message}", why=failed)
    return target


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


def c_library(system: str) -> Mapping[str, Path]:
    """By name, the C library that the compiler for a system came with, its loader first; nothing where it has none."""
    if system not in LOADERS:
        return {}
    compiler = compiler_for(system)
    names = (LOADERS[system], *GLIBC)
    files = {name: Path(called(compiler, f"-print-file-name={name}").strip()) for name in names}
    return files if all(path.is_absolute() for path in files.values()) else {}


def compiler_for(system: str) -> str:
    return COMPILER if system == this_system() else ARM64_COMPILER


def cache() -> Path:
    """The folder of compiled runners and downloads: $XDG_CACHE_HOME/edgegen, else ~/.cache/edgegen."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgegen"
