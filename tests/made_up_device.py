"""A made-up device for searches: exports and measurements take no time, and every latency follows a formula."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import NoChild
from measured import profile, result

from edgegen.errors import ExportError
from edgegen.profilers.schema import Profile
from edgegen.recipe import Architecture
from edgegen.search import plan, trials
from edgegen.search.complexity import Complexity, DataSpec, complexity_of
from edgegen.support import isolation
from edgegen.support.storage import sha256_of, write_json

RUNNERS = {".onnx": "onnxruntime, in Python", ".pte": "no: no C++ compiler"}


def latency_ms(complexity: Complexity) -> float:
    """Milliseconds of one inference."""
    return 0.02 + 0.002 * complexity.layers + complexity.macs / 1e6 + complexity.attention_macs / 2e5


@dataclass
class MadeUp:
    """`exported` and `measured` list the labels of shapes, once for each time."""

    data: DataSpec
    exported: list[str] = field(default_factory=list)
    measured: list[str] = field(default_factory=list)
    fails: Callable[[str], bool] = lambda label: False
    verdict: Callable[[str, int], Mapping[str, Any]] = lambda label, times: {"status": "ok"}
    before: Callable[[], None] = lambda: None

    def time_ms(self, label: str) -> float:
        return latency_ms(complexity_of(shape_of(label), self.data))

    def export(self, function: str, arguments: Mapping[str, Any], **options: Any) -> isolation.Outcome:
        assert function == "edgegen.search.untrained:make_file"
        label, folder = arguments["name"], Path(arguments["folder"])
        self.exported.append(label)
        if self.fails(label):
            raise ExportError("the tool gave up")
        backend, _, scheme = arguments["target"].partition("-")
        path = folder / f"{label}_{backend}_{scheme}.onnx"
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(label)
        write_json(folder / "manifest.json", {"artifacts": [{"file": path.name, "sha256": sha256_of(path)}]})
        return isolation.Outcome(path.name, 0.0, None)

    def profile_files(self, files: Sequence[Path], device: Any, **options: Any) -> Profile:
        self.before()
        results = []
        for path in files:
            label = path.name.partition("_")[0]
            self.measured.append(label)
            given = self.verdict(label, self.measured.count(label))
            changes: dict[str, Any] = {"latency": None, "numerics": given["numerics"]} if "numerics" in given else {}
            verdict = {"status": given["status"], "reasons": given.get("reasons", ())}
            measured = result(np.full((10, 3), self.time_ms(label)), verdict=verdict, **changes)
            artifact = measured.artifact.model_copy(update={"name": path.name, "sha256": sha256_of(path)})
            results.append(measured.model_copy(update={"artifact": artifact}))
        return profile(*results)


def shape_of(label: str) -> Architecture:
    """The inverse of trials.shape_label."""
    widths, _, rest = label.partition("-b")
    blocks, _, attention = rest.partition("-a")
    levels = tuple(int(level) for level in attention.split("-")) if attention else ()
    return Architecture(channels=tuple(map(int, widths.split("-"))), blocks=int(blocks), attention=levels)


def install(monkeypatch: pytest.MonkeyPatch, data: DataSpec) -> MadeUp:
    """Replaces exports, measurements and the search for runners by the made-up device."""
    device = MadeUp(data)
    monkeypatch.setattr(isolation, "call", device.export)
    monkeypatch.setattr("edgegen.support.children.Child", NoChild)
    monkeypatch.setattr(trials, "profile_files", device.profile_files)
    monkeypatch.setattr(trials, "AT_ONCE", 2)
    monkeypatch.setattr(plan, "AT_ONCE", 2)
    monkeypatch.setattr(plan, "runners_of", lambda device: RUNNERS)
    return device
