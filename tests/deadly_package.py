"""A backend of another package, found by its entry point, whose files kill the process that opens or runs them."""

from pathlib import Path

import numpy as np
import pytest

from edgegen.support.storage import sha256_of
from edgegen.types import Artifact, Signature

SIGNATURE = Signature.of(channels=1, size=4, num_classes=0)
MODULE = '''
import itertools, os, time
import numpy as np
from edgegen.errors import ExportError, NoRuntimeError
from edgegen.exporters.base import Variant
from edgegen.types import SchemeCell

class OddError(ExportError):
    """A class that edgegen does not have."""

class Session:
    method = "deadly 1.0"

    def __init__(self, deed):
        self.deed = deed

    def __call__(self, inputs):
        if self.deed == "abort in a run":
            os.abort()
        if self.deed == "hang in a run":
            sum(itertools.repeat(1))  # holds the interpreter, as a vendor's code does
        return {"out_sample": np.tanh(inputs["sample"])}

class Deadly:
    variants = {"": Variant("any batch", ".deadly", None)}
    cells = {name: SchemeCell("float", name, "none", 10.0) for name in ("fp32", "fp16", "w8")}
    rewrites = ()
    snippet = ""

    def passes(self):
        return ()

    def runs_here(self, variant=""):
        return True

    def check_options(self, scheme, options):
        pass

    def lower(self, program, path, *, precision, **_):
        from edgegen.artifacts import bisect_rewrites

        bisect_rewrites.OPEN_S, bisect_rewrites.SAMPLE_S = 1.0, 0.0
        if precision == "w8":
            os.abort()
        path.write_text({"fp32": "fine", "fp16": "hang in a run"}[precision])

    def complete(self, path, *, variant, options=None):
        return {}

    def open(self, path):
        deed = path.read_text()
        print("opening on stdout", flush=True)
        if deed == "abort":
            os.write(2, b"terminate called after throwing\\n")
            os.abort()
        if deed == "hoard":
            held = []
            while True:
                held.append(b"x" * 10_000_000); time.sleep(0.05)
        if deed == "no runtime":
            raise NoRuntimeError(f"{path}: no such delegate here")
        if deed == "odd":
            raise OddError("of a class of its own")
        return Session(deed)

BACKEND = Deadly()
'''


def install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts the package into `folder` and that on the import path, which child processes take over."""
    (folder / "deadly_package_of_a_test.py").write_text(MODULE)
    about = folder / "deadly-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: deadly\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[edgegen.backends]\ndeadly = deadly_package_of_a_test:BACKEND\n")
    monkeypatch.syspath_prepend(folder)


def write(folder: Path, deed: str) -> tuple[Artifact, Path]:
    """A file that does the deed when it is opened."""
    path = folder / f"{deed.replace(' ', '_')}.deadly"
    path.write_text(deed)
    return Artifact(path.name, "deadly", "fp32", path.stat().st_size, sha256_of(path), "none"), path


def inputs() -> dict[str, np.ndarray]:
    return {"sample": np.linspace(-1, 1, 32, dtype=np.float32).reshape(2, 1, 4, 4)}
