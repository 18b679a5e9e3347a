"""What an export of one source gave: its files, how true and how fast they are, and what failed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgegen.artifacts.build import BuildResult
from edgegen.artifacts.model_card import card_row
from edgegen.errors import BudgetError, EdgegenError, ExportError, ParityError
from edgegen.formats.signal_units import UNITS, SignalUnits
from edgegen.program.fold import FoldResult
from edgegen.types import Latency, Parity, Signature


@dataclass(frozen=True)
class ExportResult:
    """One source's folder: its files, what folding did, parity and latency of each file, and what failed."""

    name: str
    folder: Path
    signature: Signature
    about: Mapping[str, Any]
    fold: FoldResult
    built: Sequence[BuildResult]
    parity: Mapping[str, Parity]
    latency: Mapping[str, Latency]
    failures: Mapping[str, EdgegenError]
    over_budget: Mapping[str, Sequence[str]]
    class_names: Sequence[str] = ()
    units: SignalUnits | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain data for `--json`."""
        rows = []
        for build_result in self.built:
            artifact = build_result.artifact
            latency = self.latency.get(artifact.file)
            parity = self.parity[artifact.file]
            row = card_row(artifact, parity)
            row["latency"] = latency.to_dict() if latency else None
            row["over_budget"] = list(self.over_budget.get(artifact.file, ()))
            row["export"] = {"seconds": build_result.seconds, "peak_rss_bytes": build_result.peak_rss_bytes}
            rows.append(row)
        return {
            "name": self.name,
            "folder": str(self.folder),
            "about": dict(self.about),
            "signature": self.signature.to_dict(),
            "fold": {**self.fold.facts(), "sentence": self.fold.sentence()},
            "class_names": list(self.class_names),
            **({UNITS: self.units.to_dict()} if self.units else {}),
            "artifacts": rows,
            "failures": {target: str(error) for target, error in self.failures.items()},
        }


def onnx_files(results: Sequence[ExportResult]) -> dict[str, str]:
    """By component, the first of its plain ONNX files that did not fail parity."""
    files: dict[str, str] = {}
    for result in results:
        for artifact in (build_result.artifact for build_result in result.built):
            is_plain = artifact.backend == "onnx" and not artifact.variant
            if is_plain and result.parity[artifact.file].status != "failed":
                files.setdefault(result.name, artifact.file)
    return files


def raise_failures(results: Sequence[ExportResult]) -> None:
    """Raises ExportError for targets not made, ParityError for failed parity, BudgetError for files over budget."""
    errors = [(f"{result.name} {target}", error) for result in results for target, error in result.failures.items()]
    if errors:
        exception = BudgetError if all(isinstance(error, BudgetError) for _, error in errors) else ExportError
        raise exception("not exported:\n  " + "\n  ".join(f"{target}: {error}" for target, error in errors))
    failed = [
        f"{file}: {parity.reason}"
        for result in results
        for file, parity in result.parity.items()
        if parity.status == "failed"
    ]
    if failed:
        raise ParityError("not the same as PyTorch:\n  " + "\n  ".join(failed))
    broken = [
        f"{result.name}: {file}: {'; '.join(reasons)}"
        for result in results
        for file, reasons in result.over_budget.items()
        if reasons
    ]
    if broken:
        raise BudgetError("the budget is not kept:\n  " + "\n  ".join(broken))
