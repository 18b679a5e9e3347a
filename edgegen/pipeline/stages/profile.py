"""The stage `profile`: latencies of the files, of the student in PyTorch and of the teacher at many steps."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from edgegen.artifacts.target import why_untimed
from edgegen.formats.stage_folder import GENERATOR
from edgegen.pipeline.files import artifacts_of
from edgegen.pipeline.graph import Context
from edgegen.pipeline.guided_teacher import guidance_of
from edgegen.pipeline.methods import teacher_steps
from edgegen.profilers.devices.host import DEVICE
from edgegen.profilers.files.profile import profile_beside
from edgegen.profilers.files.record import latency_of
from edgegen.profilers.timing.interference import Interference
from edgegen.profilers.timing.jobs import PythonJob
from edgegen.profilers.timing.protocol import ProfileOptions, Timing
from edgegen.support.storage import read_json, write_json
from edgegen.types import Latency


def profile(context: Context) -> None:
    """profile.json ("edgegen.profile/1"): each file that runs here and passed parity. latency.json: its summary.

    That also has the student in PyTorch and the teacher at many steps, and why a file was not measured; samples.json
    every warm run of PyTorch, in blocks. Networks and files are timed in turn, so that a slow period of the
    machine affects all of them alike.
    """
    context.children.close()  # the last files are made: nothing waits beside those that are timed
    settings = context.recipe.profile
    statuses = {
        row["file"]: row["parity"]["status"] for row in read_json(context.inputs["verify"] / "parity.json")["artifacts"]
    }
    files: list[Path] = []
    latencies: dict[str, Latency] = {}
    for artifact, path in artifacts_of(context.inputs):
        if reason := why_untimed(artifact, statuses[artifact.file]):
            latencies[artifact.file] = Latency(None, reason=reason)
        else:
            files.append(path)
    jobs = _torch_jobs(context)
    options = ProfileOptions(
        min_runs=settings.min_runs, max_seconds=settings.max_seconds, cold_starts=settings.cold_starts
    )
    measured, timings, interference = profile_beside(files, jobs, DEVICE, options=options, progress=context.progress)
    latencies |= {record.artifact.name: latency_of(record) for record in measured.results}
    content = {
        "artifacts": {file: latency.to_dict() for file, latency in latencies.items()},
        "torch": _torch_rows(context, timings, interference),
        "machine": measured.target,
    }
    write_json(context.folder / "profile.json", measured.to_json())
    write_json(context.folder / "latency.json", content)
    samples = {timing.job.label: [block.tolist() for block in timing.blocks] for timing in timings}
    write_json(context.folder / "samples.json", {"blocks_ms": samples})


def _networks(context: Context) -> list[tuple[str, str, int]]:
    """(network, the stage that made it, steps) of those that are timed in PyTorch."""
    rows = [("teacher", "teacher", teacher_steps(context.recipe)), ("student", "choose", 1)]
    return [row for row in rows if row[1] in context.inputs]


def _torch_jobs(context: Context) -> list[PythonJob]:
    jobs = []
    for network, stage, steps in _networks(context):
        folders = {"folder": context.inputs[stage] / GENERATOR, "decoder_of": context.inputs["choose"] / GENERATOR}
        arguments: dict[str, Any] = {**{key: str(folder) for key, folder in folders.items()}, "steps": steps}
        guidance = guidance_of(context.recipe, base=context.base)
        if stage == "teacher" and guidance.is_on:
            arguments["guidance"] = asdict(guidance)
        label = f"{network} in PyTorch, {steps} step{'s' * (steps > 1)}, 1 thread"
        jobs.append(PythonJob(label, "edgegen.artifacts.sessions:network", arguments, threads=1))
    return jobs


def _torch_rows(context: Context, timings: Sequence[Timing], interference: Interference) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for (network, _, steps), timing in zip(_networks(context), timings, strict=True):
        latency = replace(timing.latency(), runtime=f"PyTorch {torch.__version__}")
        if latency.p50_ms is not None:
            latency = replace(latency, reason="; ".join([*interference.reasons(), *timing.reasons()]))
        rows.append({"label": timing.job.label, "network": network, "steps": steps, "latency": latency.to_dict()})
    return rows
