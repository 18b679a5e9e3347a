"""The runner of `.onnx` and `.ort` files, for the C library in onnxruntime's wheel, or for another build of it.

The wheel has no header. That of API version 21 is taken from Debian: a library serves the versions before its own, and
a version's functions never change (onnxruntime_c_api.h, "OrtApi").
"""

import hashlib
import os
import shutil
from pathlib import Path

from edgegen.errors import DeviceError
from edgegen.profilers.runners import debian
from edgegen.profilers.runners.toolchain import (
    NoProgramError,
    Program,
    cache,
    called,
    compiled,
    fetch_arm64,
    home_of,
    this_system,
)
from edgegen.support.extras import require, version_of

PACKAGE = "onnxruntime"
SOURCE = Path(__file__).with_name("onnx_runner.cpp")
HEADER = "onnxruntime_c_api.h"
SUITE, HEADER_PACKAGE = "trixie", "libonnxruntime-dev"  # ONNX Runtime 1.21
PLACE = "EDGEGEN_ONNXRUNTIME"  # a folder with another build of the library in lib/: of a phone, with other providers


def program(system: str, provider: str) -> Program:
    """The runner for a system by its `uname -sm`, with a provider. Raises MissingExtraError, NoProgramError."""
    require("onnx", purpose="measuring an .onnx")
    libraries = _libraries(system)
    header = header_folder()
    if not (header / HEADER).is_file():
        raise NoProgramError(
            f"the C header of onnxruntime is not here: `edgegen devices DEVICE --fetch` downloads it "
            f"(Debian or Ubuntu; elsewhere put {HEADER} of a release of ONNX Runtime into {header})",
            why="no C header of onnxruntime here",
        )
    digest = hashlib.sha256((header / HEADER).read_bytes()).hexdigest()
    flags = (f"-I{header}", f"-DHEADER={digest[:16]}")
    linked = ("-ldl",) if system.startswith("Linux") else ()
    return Program(
        compiled(SOURCE, system, flags=flags, linked=linked, of=".onnx"), libraries, (libraries[0].name, provider)
    )


def fetch(system: str) -> None:
    """Downloads what `program` needs for a system: the header (90 kB), and for ARM64 the library (20 MB).

    Nothing without onnxruntime here. Raises DeviceError.
    """
    if version_of(PACKAGE) is None:
        return
    if system != this_system() and PLACE not in os.environ:
        fetch_arm64(PACKAGE)
    target = header_folder() / HEADER
    if target.is_file():
        return
    debian.require_tools("the runner of .onnx files")
    state = target.parent.with_name(f"{target.parent.name}.partial")
    shutil.rmtree(state, ignore_errors=True)
    archive = debian.download_alone(HEADER_PACKAGE, state, suite=SUITE)
    called("dpkg-deb", "-x", archive, state / "root")
    target.parent.mkdir(parents=True, exist_ok=True)
    (state / "root/usr/include/onnxruntime" / HEADER).replace(target)
    shutil.rmtree(state)


def header_folder() -> Path:
    return cache() / "onnxruntime-header"


def _libraries(system: str) -> list[Path]:
    """ONNX Runtime's library, and behind it those of the same folder that it may need."""
    place = os.environ.get(PLACE)
    if place is None:
        folder = home_of(PACKAGE, system) / "capi"
    else:
        folder = Path(place).absolute() / "lib"
        if not folder.is_dir():
            raise DeviceError(f"{PLACE}={place}: there is no folder lib in it, as releases of ONNX Runtime have it")
    named = sorted([*folder.glob("libonnxruntime.so*"), *folder.glob("libonnxruntime.*dylib")])
    if not named:
        raise NoProgramError(f"there is no libonnxruntime in {folder}", why="no C library of onnxruntime here")
    others = sorted({*folder.glob("*.so*")} - {*named}) if place else []
    return [named[0], *others]
