"""The files of targets, each in the form that is the fastest on a device; or of all of them the fastest one."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from edgegen.artifacts.build import BuildResult
from edgegen.artifacts.maker import Maker
from edgegen.artifacts.target import Target
from edgegen.artifacts.tuning import Choice, Trial, search
from edgegen.artifacts.tuning_bench import TuningBench, about
from edgegen.artifacts.tuning_switches import rewrites_of
from edgegen.errors import DeviceError, EdgegenError, UsageError
from edgegen.formats.tuned import TUNED
from edgegen.profilers.files.subject import untimed_reason
from edgegen.profilers.timing.stats import summarize
from edgegen.support.storage import atomic_path
from edgegen.types import Artifact


@dataclass(frozen=True)
class Tuning:
    """Where and how long: `device` as `edgegen profile` names it, `seconds` in which new candidates are begun.

    With `one_of_all` one file is kept of all targets, the fastest; else one of each target. `folder` keeps what was
    built and measured, for the next time; None: beside the files.
    """

    device: str
    threads: tuple[int, ...] = (1,)
    seconds: float = 1200.0
    one_of_all: bool = False
    folder: Path | None = None


def timed_targets(targets: Sequence[Target]) -> list[Target]:
    """Those whose files some runner can time."""
    return [
        target for target in targets if not untimed_reason(f"x{target.kind().suffix}") and not target.kind().simulator
    ]


def check_tuning(targets: Sequence[Target], device: str) -> None:
    """Raises UsageError where nothing could be tuned, before any work."""
    from edgegen.profilers.files.profile import connect

    if not timed_targets(targets):
        listed = ", ".join(map(str, targets))
        raise UsageError(f"nothing to tune on {device}: no runner times {listed}; give onnx or executorch")
    connect(device)  # by its name: nothing is reached yet


def tuned_files(
    maker: Maker, targets: Sequence[Target], folder: Path, tuning: Tuning, *, samples: int, context: Mapping[str, Any]
) -> Iterator[tuple[Target, BuildResult | EdgegenError]]:
    """As `Maker.make`, tuned; targets that no runner of the device takes are made as they are, or left out of one.

    `context` is what else decides the files' bytes. Raises DeviceError where the device is lost.
    """
    facts = about(tuning.device)
    takes = {suffix: not text.startswith("no:") for suffix, text in facts["runs"].items()}
    tried = [target for target in timed_targets(targets) if takes.get(_form(target), False)]
    others = [target for target in targets if target not in tried]
    for target in others:
        reason = facts["runs"].get(_form(target), "no: no runner takes such files").removeprefix("no: ")
        maker.progress.message(f"{target}: not tuned on {facts['name']}: {reason}")
    if not tuning.one_of_all:
        yield from maker.make(others, folder)
    elif not tried:
        raise DeviceError(f"{facts['name']}: no runner for any of {', '.join(map(str, targets))}")
    place = tuning.folder or folder / "candidates"
    with TuningBench(maker, device=tuning.device, about=facts, samples=samples, context=context, folder=place) as bench:
        for group in [tried] if tuning.one_of_all else [[target] for target in tried]:
            try:
                choice = search(
                    bench,
                    group,
                    bench.switches.of,
                    threads=tuning.threads,
                    seconds=tuning.seconds / (1 if tuning.one_of_all else len(tried)),
                )
            except EdgegenError as e:
                if tuning.one_of_all or isinstance(e, DeviceError):
                    raise
                yield group[0], e
                continue
            maker.progress.message(f"kept: {choice.kept.candidate}: {choice.why}")
            yield choice.kept.candidate.target, BuildResult(_keep(bench, choice, facts, folder), 0.0, None)


def _form(target: Target) -> str:
    """The runner's suffix for the target's file."""
    suffix = target.kind().suffix
    return ".onnx" if suffix == ".ort" else suffix


def _keep(bench: TuningBench, choice: Choice, about_device: Mapping[str, Any], folder: Path) -> Artifact:
    """Copies the chosen file, and what lies beside it, into `folder`; its record has the evidence."""
    made = bench.made_of(choice.kept.candidate)
    assert made.path is not None, "only proven files are chosen"
    artifact = made.artifact
    for name in (*artifact.details["extra_files"], artifact.file):
        source = made.path.parent / name
        with atomic_path(folder / name) as target:
            (shutil.copytree if source.is_dir() else shutil.copyfile)(source, target)
    float_layers = bench.switches.float_layers(choice.kept.candidate.target, choice.kept.candidate.changes)
    facts = evidence(choice, about_device, float_layers)
    return replace(artifact, details={**artifact.details, TUNED: facts})


def evidence(choice: Choice, about_device: Mapping[str, Any], float_layers: Sequence[str] = ()) -> dict[str, Any]:
    """What goes into the manifest: the device, what was kept and why, and every measurement.

    `float_layers` are those that a change of the kept file leaves float.
    """
    kept = choice.kept.candidate
    return {
        "device": about_device["name"],
        "about_device": {name: about_device[name] for name in ("cpu", "model", "arch", "threads")},
        "protocol": "edgegen-bench/1",
        "kept": str(kept),
        "default": str(choice.default),
        "why": choice.why,
        "threads": kept.threads,
        "rewrites": rewrites_of(kept.changes),
        "float_layers": list(float_layers),
        "all_tried": choice.is_complete,
        "candidates": [_row(trial) for trial in choice.trials],
    }


def _row(trial: Trial) -> dict[str, Any]:
    facts = {name: trial.facts.get(name) for name in ("sha256", "nbytes")}
    parity = trial.facts.get("parity", {})
    row = {
        "candidate": str(trial.candidate),
        "verdict": trial.verdict(),
        **facts,
        "parity": {name: parity.get(name) for name in ("status", "psnr_db")},
    }
    if not trial.is_timed:
        return row
    summary = asdict(summarize(trial.blocks))
    return {
        **row,
        "beside": str(trial.reference),
        "p50_ms": summary["p50_ms"],
        "p50_ci95_ms": summary["p50_ci95_ms"],
        "time_over_that": trial.ratio(),
        "time_over_that_ci95": trial.change(),
        **({"doubt": trial.doubt} if trial.doubt else {}),
    }
