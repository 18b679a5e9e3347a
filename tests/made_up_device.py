"""A device for searches that is known to the last digit: exports and measurements that take no time."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from measured import profile, result

from edgegen.errors import ExportError
from edgegen.profilers.schema import Profile
from edgegen.recipe import Architecture
from edgegen.search import plan, trials
from edgegen.search.complexity import Facts, Work, work
from edgegen.support import isolation
from edgegen.support.storage import sha256_of, write_json

RUNNERS = {".onnx": "onnxruntime, in Python", ".pte": "no: no C++ compiler"}


def law(counted: Work) -> float:
    """Milliseconds of one inference."""
    return 0.02 + 0.002 * counted.layers + counted.macs / 1e6 + counted.attention_macs / 2e5


@dataclass
class MadeUp:
    """`exported` and `measured` are the labels of shapes, as often as it happened."""

    facts: Facts
    exported: list[str] = field(default_factory=list)
    measured: list[str] = field(default_factory=list)
    fails: Callable[[str], bool] = lambda label: False
    verdict: Callable[[str, int], Mapping[str, Any]] = lambda label, times: {"status": "ok"}
    before: Callable[[], None] = lambda: None

    def time_ms(self, label: str) -> float:
        return law(work(shape_of(label), self.facts))

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
        records = []
        for path in files:
            label = path.name.partition("_")[0]
            self.measured.append(label)
            judged = self.verdict(label, self.measured.count(label))
            changes: dict[str, Any] = {"latency": None, "numerics": judged["numerics"]} if "numerics" in judged else {}
            verdict = {"status": judged["status"], "reasons": judged.get("reasons", ())}
            one = result(np.full((10, 3), self.time_ms(label)), verdict=verdict, **changes)
            facts = one.artifact.model_copy(update={"name": path.name, "sha256": sha256_of(path)})
            records.append(one.model_copy(update={"artifact": facts}))
        return profile(*records)


def shape_of(label: str) -> Architecture:
    """The inverse of trials.label_of."""
    widths, _, rest = label.partition("-b")
    blocks, _, attention = rest.partition("-a")
    levels = tuple(int(level) for level in attention.split("-")) if attention else ()
    return Architecture(channels=tuple(map(int, widths.split("-"))), blocks=int(blocks), attention=levels)


def install(monkeypatch: pytest.MonkeyPatch, facts: Facts) -> MadeUp:
    """In the place of exports, of measurements, and of the question what runs."""
    made = MadeUp(facts)
    monkeypatch.setattr(isolation, "call", made.export)
    monkeypatch.setattr(trials, "profile_files", made.profile_files)
    monkeypatch.setattr(trials, "AT_ONCE", 2)
    monkeypatch.setattr(plan, "AT_ONCE", 2)
    monkeypatch.setattr(plan, "runners_of", lambda device: RUNNERS)
    return made
