"""The runner of `.pte` files, compiled once against the libraries of the installed executorch and kept."""

import hashlib
import importlib.util
import os
import shutil
import subprocess
from pathlib import Path

from edgegen.errors import DeviceError
from edgegen.extras import require, version_of
from edgegen.storage import atomic_path

SOURCE = Path(__file__).with_name("runners") / "pte_runner.cpp"
# The last three register themselves when they are loaded; nothing refers to them.
LIBRARIES = ("", "_etdump", "_threadpool", "_kernels_optimized", "_kernels_quantized", "_backend_xnnpack")
FLAGS = ("-std=c++17", "-O2", "-w", "-DC10_USING_CUSTOM_GENERATED_MACROS", "-DET_EVENT_TRACER_ENABLED")
SHOWN = 600  # characters of a compiler's complaint


def pte_runner() -> tuple[Path, Path]:
    """The runner for this machine, and the folder of the libraries that it needs at run time.

    Raises MissingExtraError without executorch, DeviceError without a compiler or where it fails.
    """
    require("executorch", purpose="measuring a .pte")
    home = executorch_home()
    return compiled("c++", home), home / "lib"


def executorch_home() -> Path:
    """Where the installed executorch is."""
    spec = importlib.util.find_spec("executorch")
    assert spec is not None, "required before"
    assert spec.submodule_search_locations, "a package"
    return Path(next(iter(spec.submodule_search_locations)))


def compiled(compiler: str, home: Path, *, flags: tuple[str, ...] = ()) -> Path:
    """The runner by `compiler`, with the headers and libraries of the executorch in `home`; from the cache if there."""
    found = shutil.which(compiler)
    if found is None:
        raise DeviceError(
            f"measuring a .pte needs a C++ compiler, and there is no '{compiler}': apt install g++ "
            "(macOS: xcode-select --install)"
        )
    runtime = f"executorch {version_of('executorch')}"
    given = (*FLAGS, f'-DRUNTIME="{runtime}"', *flags)
    made_from = (SOURCE.read_text(encoding="utf-8"), found, *given)
    key = hashlib.sha256("\0".join(made_from).encode()).hexdigest()[:16]
    target = cache() / f"pte_runner-{key}"
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    includes = (home / "include", home / "include/executorch/runtime/core/portable_type/c10")
    with atomic_path(target) as path:
        command = [found, *given, *(f"-I{folder}" for folder in includes), str(SOURCE), "-o", str(path)]
        linked = [f"-L{home / 'lib'}", "-Wl,--no-as-needed", *(f"-lexecutorch{name}" for name in LIBRARIES)]
        done = subprocess.run([*command, *linked, "-Wl,--allow-shlib-undefined"], capture_output=True, text=True)
        if done.returncode:
            raise DeviceError(f"{compiler} could not compile the runner of .pte files: {done.stderr.strip()[-SHOWN:]}")
    return target


def cache() -> Path:
    """Where compiled runners are kept: $XDG_CACHE_HOME/edgegen, else ~/.cache/edgegen."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgegen"
