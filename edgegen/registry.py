"""Plug-in names -> "module:attribute", imported when one is used; other packages add names through entry points."""

import functools
import importlib
import sys
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
        "cmt": "edgegen.training.objectives.cmt:CMT",
        "consistency_tuning": "edgegen.training.objectives.consistency_tuning:ConsistencyTuning",
        "progressive": "edgegen.training.objectives.progressive:Progressive",
        "density_ratio": "edgegen.training.objectives.density_ratio:DensityRatio",
        "distribution_matching": "edgegen.training.objectives.distribution_matching:DistributionMatching",
        "flow_guided_distillation": "edgegen.training.objectives.flow_guided_distillation:FlowGuidedDistillation",
        "classification": "edgegen.training.objectives.classification:Classification",
        "pair_regression": "edgegen.training.objectives.pair_regression:PairRegression",
        "adversarial": "edgegen.training.objectives.adversarial:Adversarial",
        "imle": "edgegen.training.objectives.imle:Imle",
        "idempotent": "edgegen.training.objectives.idempotent:Idempotent",
        "inductive_moment_matching": ("edgegen.training.objectives.inductive_moment_matching:InductiveMomentMatching"),
        "drifting": "edgegen.training.objectives.drifting:Drifting",
        "flow_map": "edgegen.training.objectives.flow_map:FlowMap",
        "mean_flow": "edgegen.training.objectives.mean_flow:MeanFlow",
        "improved_mean_flow": "edgegen.training.objectives.improved_mean_flow:ImprovedMeanFlow",
        "align_your_flow": "edgegen.training.objectives.align_your_flow:AlignYourFlow",
        "so_flow": "edgegen.training.objectives.so_flow:SoFlow",
        "re_mean_flow": "edgegen.training.objectives.re_mean_flow:ReMeanFlow",
        "s_cm": "edgegen.training.objectives.s_cm:SCM",
        "shortcut": "edgegen.training.objectives.shortcut:Shortcut",
        "split_mean_flow": "edgegen.training.objectives.split_mean_flow:SplitMeanFlow",
        "free_flow": "edgegen.training.objectives.free_flow:FreeFlow",
        "self_distillation": "edgegen.training.objectives.self_distillation:SelfDistillation",
    },
    # `--device NAME:PLACE` is attribute(PLACE)
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
    """Every name of a kind and its "module:attribute"; the name of a built-in cannot be taken by another package."""
    return {**_third_party(kind, tuple(sys.path)), **BUILT_IN[kind]}


@functools.cache  # a look at all packages takes 10 ms, and checking a recipe asks for dozens of names
def _third_party(kind: Kind, path: tuple[str, ...]) -> dict[str, str]:
    return {point.name: point.value for point in entry_points(group=f"edgegen.{kind}s")}


def load(kind: Kind, name: str) -> Any:
    """The object of a name.

    Raises UsageError for an unknown name, with the known ones, and for another package's that cannot be loaded.
    """
    table = names(kind)
    if name not in table:
        raise UsageError(unknown_name(kind, name, table))
    if name not in BUILT_IN[kind]:
        return _load_third_party(kind, name)
    module, _, attribute = table[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


def _load_third_party(kind: Kind, name: str) -> Any:
    points = list(entry_points(group=f"edgegen.{kind}s", name=name))
    packages = sorted(str(point.dist.name) for point in points if point.dist is not None)
    if len(points) > 1:
        raise UsageError(f"the {kind} '{name}' is added by {' and by '.join(packages)}: uninstall all but one")
    try:
        return points[0].load()
    except EdgegenError:
        raise
    except Exception as e:
        package = f"the package {packages[0]}" if packages else "another package"
        raise UsageError(
            f"{package} adds the {kind} '{name}' by the entry point {points[0].value}, which cannot be "
            f"loaded: {type(e).__name__}: {e}. Mend or uninstall that package"
        ) from e
