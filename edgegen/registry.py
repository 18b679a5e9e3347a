"""Names -> "module:attribute", imported only when asked for; third parties add names through entry points."""

import importlib
from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Any, Literal

from edgegen.errors import EdgegenError, UsageError, unknown_name

Kind = Literal["backend", "objective", "device", "importer"]

BUILT_IN: Mapping[Kind, Mapping[str, str]] = {
    "backend": {
        "onnx": "edgegen.exporters.onnx.backend:BACKEND",
        "executorch": "edgegen.exporters.executorch.backend:BACKEND",
        "coreml": "edgegen.exporters.coreml.backend:BACKEND",
    },
    "objective": {
        "flow_matching": "edgegen.training.objectives.flow_matching:FlowMatching",
        "annealing_reflow": "edgegen.training.objectives.annealing_reflow:AnnealingReflow",
        "flow_guided_distillation": "edgegen.training.objectives.flow_guided_distillation:FlowGuidedDistillation",
        "classification": "edgegen.training.objectives.classification:Classification",
        "pair_regression": "edgegen.training.objectives.pair_regression:PairRegression",
        "self_distillation": "edgegen.training.objectives.self_distillation:SelfDistillation",
    },
    # "NAME:PLACE" is what attribute(PLACE) gives
    "device": {
        "host": "edgegen.profilers.devices.host:connect",
        "ssh": "edgegen.profilers.devices.ssh:connect",
        "adb": "edgegen.profilers.devices.adb:connect",
        "arm64": "edgegen.profilers.devices.emulator:connect",
        "macos": "edgegen.profilers.devices.macos:connect",
        "browser": "edgegen.profilers.devices.browser:connect",
    },
    "importer": {
        "profile": "edgegen.profilers.importers.profile:IMPORTER",
        "etdump": "edgegen.profilers.importers.etdump:IMPORTER",
        "ort_profile": "edgegen.profilers.importers.ort_profile:IMPORTER",
        "perf_test": "edgegen.profilers.importers.perf_test:IMPORTER",
        "perf_yaml": "edgegen.profilers.importers.perf_yaml:IMPORTER",
    },
}


def names(kind: Kind) -> dict[str, str]:
    """Every known name of a kind and where it lives; an entry point cannot take the name of a built-in."""
    found = {point.name: point.value for point in entry_points(group=f"edgegen.{kind}s")}
    return {**found, **BUILT_IN[kind]}


def load(kind: Kind, name: str) -> Any:
    """The object behind a name.

    Raises UsageError that lists the known names, or names the third party's place that cannot be loaded.
    """
    table = names(kind)
    if name not in table:
        raise UsageError(unknown_name(kind, name, table))
    module, _, attribute = table[name].partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except Exception as e:
        if name in BUILT_IN[kind] or isinstance(e, EdgegenError):
            raise
        raise UsageError(f"the {kind} '{name}' of another package ({table[name]}) cannot be loaded: {e}") from e
