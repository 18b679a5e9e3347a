"""What works on this machine: each backend makes, opens and runs a tiny file, in a process of its own."""

import json
import sys
from importlib.metadata import version
from typing import Any

from edgegen import registry
from edgegen.errors import DeviceError, UsageError
from edgegen.quantize.support_matrix import cells
from edgegen.recipe import Quantize
from edgegen.support.extras import EXTRAS, missing, version_of
from edgegen.support.isolation import environment
from edgegen.support.printable import printable
from edgegen.support.processes import finish
from edgegen.support.scratch import temporary_folder

PATIENCE_S = 180  # a cold import of executorch alone takes up to 20 s on a busy machine
PROBE = "from edgegen.artifacts.doctor import try_backend; import sys; try_backend(sys.argv[1])"


def diagnose() -> dict[str, Any]:
    """Rows {"name", "works", "detail"} for accelerators, backends and extras."""
    return {
        "edgegen": version("edgegen"),
        "accelerators": _accelerators(),
        "backends": [_backend(name) for name in registry.names("backend")],
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


def _backend(name: str) -> dict[str, Any]:
    packages = missing(name) if name in EXTRAS else []
    if packages:
        return _row(name, False, f"{', '.join(packages)} not installed: pip install 'edgegen[{name}]'")
    try:
        cells(name)
    except UsageError as e:
        return _row(name, False, str(e))
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


def _row(name: str, works: bool, detail: str) -> dict[str, Any]:
    return {"name": name, "works": works, "detail": detail}
