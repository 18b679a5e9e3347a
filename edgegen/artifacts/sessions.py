"""What the profiler's workers open, named as "edgegen.artifacts.sessions:artifact": one inference at batch 1.

Exported files run with their runtime's default threads. PyTorch runs with `threads`, which is 1: at batch 1 of a small
net a second thread mostly waits for the first (8 ms in place of 1 ms, measured on 2 cores).
"""

import importlib
from collections.abc import Callable
from pathlib import Path

from edgegen import registry
from edgegen.exporters.base import Backend


def preload(*, backend: str | None = None, **_: object) -> None:
    """torch, and the runtime of a file: imported before the clock starts."""
    importlib.import_module("torch")
    if backend is not None:
        loaded: Backend = registry.load("backend", backend)
        importlib.import_module(loaded.runtime_module)


def artifact(*, threads: int, backend: str, path: str, manifest: str) -> Callable[[], object]:
    """An exported file in its runtime, on one noise."""
    from edgegen.program.inputs import example_inputs
    from edgegen.registry import load
    from edgegen.support.storage import read_json
    from edgegen.types import Signature

    inputs = example_inputs(Signature.from_dict(read_json(Path(manifest))["signature"]), 1, 0)
    session = load("backend", backend).open(Path(path))
    return lambda: session(inputs)


def network(*, threads: int, folder: str, steps: int) -> Callable[[], object]:
    """A generator folder in PyTorch, by Euler steps."""
    import torch

    from edgegen.flow.solvers import solve
    from edgegen.models.load import load
    from edgegen.program.inputs import example_inputs

    torch.set_num_threads(threads)
    loaded = load(Path(folder))
    inputs = {name: torch.from_numpy(values) for name, values in example_inputs(loaded.signature, 1, 0).items()}
    return lambda: solve(loaded.net, inputs["sample"], inputs.get("class_labels"), solver="euler", steps=steps)
