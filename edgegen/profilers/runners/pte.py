"""The runner of `.pte` files, for the libraries of executorch's wheel."""

from pathlib import Path

from edgegen.profilers.runners.toolchain import Program, compiled, fetch_arm64, home_of, this_system
from edgegen.support.extras import require, version_of

PACKAGE = "executorch"
SOURCE = Path(__file__).with_name("pte_runner.cpp")
# The last three register themselves when they are loaded; nothing refers to them.
LIBRARIES = ("", "_etdump", "_threadpool", "_kernels_optimized", "_kernels_quantized", "_backend_xnnpack")
FLAGS = ("-DC10_USING_CUSTOM_GENERATED_MACROS", "-DET_EVENT_TRACER_ENABLED")


def program(system: str) -> Program:
    """The runner for a system by its `uname -sm`. Raises MissingExtraError, NoProgramError."""
    require("executorch", purpose="measuring a .pte")
    home = home_of(PACKAGE, system)
    includes = (home / "include", home / "include/executorch/runtime/core/portable_type/c10")
    runner = compiled(
        SOURCE,
        system,
        flags=(f'-DRUNTIME="executorch {version_of(PACKAGE)}"', *FLAGS, *(f"-I{folder}" for folder in includes)),
        linked=(
            f"-L{home / 'lib'}",
            "-Wl,--no-as-needed",
            *(f"-lexecutorch{name}" for name in LIBRARIES),
            "-Wl,--allow-shlib-undefined",
        ),
        of=".pte",
    )
    return Program(runner, [home / "lib" / f"libexecutorch{name}.so" for name in LIBRARIES])


def fetch(system: str) -> None:
    """Downloads what `program` needs for a system, where executorch is installed (18 MB). Raises DeviceError."""
    if version_of(PACKAGE) is not None and system != this_system():
        fetch_arm64(PACKAGE)
