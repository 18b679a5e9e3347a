"""What works on this machine: each backend makes, opens and runs a tiny file, in a process of its own.

A trial takes a minute on a busy machine, so one that succeeded is kept in the user's cache with the versions of all
that it used, and counts as long as those are installed.
"""

import contextlib
import json
import platform
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, TypeAdapter, ValidationError

from edgegen import registry
from edgegen.errors import DataError, DeviceError, StorageError, UsageError
from edgegen.formats.manifest import tool_versions
from edgegen.profilers.runners.toolchain import cache
from edgegen.quantize.support_matrix import cells
from edgegen.recipe import Quantize
from edgegen.support.extras import EXTRAS, missing, version_of
from edgegen.support.isolation import environment
from edgegen.support.printable import printable
from edgegen.support.processes import finish
from edgegen.support.scratch import temporary_folder
from edgegen.support.storage import read_json, write_json

PATIENCE_S = 180  # a cold import of executorch alone takes up to 20 s on a busy machine
PROBE = "from edgegen.artifacts.doctor import try_backend; import sys; try_backend(sys.argv[1])"


Trials = Literal["new", "kept", "quick"]


class _Trial(BaseModel):
    """A backend that worked: with which versions, on which day, and what it said."""

    versions: dict[str, str]
    day: str
    detail: str


TRIALS = TypeAdapter(dict[str, _Trial])


def diagnose(trials: Trials = "kept") -> dict[str, Any]:
    """Rows {"name", "works", "detail"} for accelerators, backends and extras; `works` is None where nothing was tried.

    `trials` of the backends: "new" ones in any case; those "kept" of the installed versions, else new ones; or "quick",
    those kept and no new ones.
    """
    return {
        "edgegen": version("edgegen"),
        "accelerators": _accelerators(),
        "backends": [_backend(name, trials) for name in registry.names("backend")],
        "extras": [_extra(name) for name in EXTRAS],
    }


def _accelerators() -> list[dict[str, Any]]:
    import torch

    rows = [_row("cpu", True, f"{torch.get_num_threads()} threads, torch {torch.__version__}")]
    if torch.cuda.is_available():
        rows += [_row(f"cuda:{i}", True, torch.cuda.get_device_name(i)) for i in range(torch.cuda.device_count())]
    else:
        reason = (
            "this torch has no CUDA: pip install torch==2.13.0 on a CUDA machine"
            if not torch.version.cuda
            else "no device"
        )
        rows.append(_row("cuda", False, reason))
    mps = torch.backends.mps.is_available()
    rows.append(_row("mps", mps, "Apple GPU" if mps else "needs macOS on Apple silicon"))
    return rows


def _backend(name: str, trials: Trials = "new") -> dict[str, Any]:
    packages = missing(name) if name in EXTRAS else []
    if packages:
        return _row(name, False, f"{', '.join(packages)} not installed: pip install 'edgegen[{name}]'")
    try:
        cells(name)
    except UsageError as e:
        return _row(name, False, str(e))
    kept = None if trials == "new" else _kept_trials().get(name)
    versions = _versions(name)
    if kept is not None and kept.versions == versions:
        return _row(name, True, f"{kept.detail} (on {kept.day}; --again tries it now)")
    if trials == "quick":
        return _row(name, None, "not tried, because of --quick, and never before with these versions")
    row = _tried(name)
    if row["works"] and name in registry.BUILT_IN["backend"]:  # of other packages the version is not known
        _keep(name, _Trial(versions=versions, day=datetime.now(UTC).date().isoformat(), detail=row["detail"]))
    return row


def _versions(name: str) -> dict[str, str]:
    packages = {package: version_of(package) or "" for package in EXTRAS.get(name, ())}
    return {**packages, **tool_versions(), "system": platform.platform()}


def _kept_path() -> Path:
    return cache() / "doctor.json"


def _kept_trials() -> Mapping[str, _Trial]:
    """By backend; none where the file is missing or damaged."""
    try:
        return TRIALS.validate_python(read_json(_kept_path()), strict=True)
    except (DataError, ValidationError):
        return {}


def _keep(name: str, trial: _Trial) -> None:
    """Where the disk refuses, the next call tries again."""
    trials = {**_kept_trials(), name: trial}
    with contextlib.suppress(StorageError, OSError):
        _kept_path().parent.mkdir(parents=True, exist_ok=True)
        write_json(_kept_path(), TRIALS.dump_python(trials))


def _tried(name: str) -> dict[str, Any]:
    command = [sys.executable, "-P", "-c", PROBE, name]
    try:
        finished = finish(command, name=name, timeout_s=PATIENCE_S, env=environment())
    except DeviceError as e:
        return _row(name, False, str(e))
    if finished.code:
        lines = finished.stderr.strip().splitlines() or [f"exit code {finished.code}"]
        return _row(name, False, printable(lines[-1]))
    return _row(name, True, json.loads(finished.stdout.splitlines()[-1])["detail"])


def try_backend(name: str) -> None:
    """Makes a tiny generator's file, runs it, compares it with PyTorch and prints what ran it, as JSON."""
    from torch import nn

    from edgegen.artifacts.build import build
    from edgegen.artifacts.target import Target
    from edgegen.program.capture import reference
    from edgegen.program.inputs import example_inputs
    from edgegen.types import Signature
    from edgegen.verification.parity import check

    scheme, cell = next(iter(cells(name).items()))
    signature = Signature.of(channels=1, size=8, num_classes=0)
    # The smallest network: the vendor's tools are tested here, not what they support.
    module = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.SiLU(), nn.Conv2d(8, 1, 3, padding=1))
    with temporary_folder() as folder:
        artifact = build(
            module,
            signature,
            name="doctor",
            target=Target(name, scheme),
            folder=folder,
            quantization=Quantize(samples=1),
            seed=0,
            metadata={},
        ).artifact
        session = registry.load("backend", name).open(folder / artifact.file)
        inputs = example_inputs(signature, 2, 0)
        parity = check(session, inputs, reference(module, inputs), floor_db=cell.floor_db)
    if parity.status != "ok":
        raise SystemExit(f"runs, but wrongly: {parity.reason}")
    print(json.dumps({"detail": f"{parity.method}, {parity.psnr_db:.0f} dB against PyTorch"}))


def _extra(name: str) -> dict[str, Any]:
    packages = missing(name)
    if packages:
        return _row(name, False, f"{', '.join(packages)} not installed: pip install 'edgegen[{name}]'")
    return _row(name, True, ", ".join(f"{package} {version_of(package)}" for package in EXTRAS[name]))


def _row(name: str, works: bool | None, detail: str) -> dict[str, Any]:
    return {"name": name, "works": works, "detail": detail}
