"""The stage `profile`: latencies of the files, of the student in PyTorch and of the teacher at many steps."""

from edgegen.artifacts.target import runs_here
from edgegen.formats.manifest import MANIFEST
from edgegen.formats.stage_folder import GENERATOR
from edgegen.pipeline.files import artifacts_of
from edgegen.pipeline.graph import Context
from edgegen.profilers.devices.host import DEVICE
from edgegen.profilers.timing.jobs import Job
from edgegen.profilers.timing.protocol import ProfileOptions, timed
from edgegen.support.storage import read_json, write_json
from edgegen.types import Latency


def profile(context: Context) -> None:
    """latency.json: each file that runs here and is true, the student in PyTorch, and the teacher at many steps.

    samples.json has every warm run of each, in blocks, in the order in which they ran.
    """
    recipe = context.recipe
    statuses = {
        row["file"]: row["parity"]["status"] for row in read_json(context.inputs["verify"] / "parity.json")["artifacts"]
    }
    jobs: list[Job] = []
    latencies: dict[str, Latency] = {}
    for artifact, path in artifacts_of(context.inputs):
        if not runs_here(artifact.backend):
            latencies[artifact.file] = Latency(None, reason="Core ML runs on Apple devices only: not measured here")
        elif statuses[artifact.file] != "ok":
            latencies[artifact.file] = Latency(
                None, reason=f"parity {statuses[artifact.file]}: no latency for a wrong file"
            )
        else:
            arguments = {"backend": artifact.backend, "path": str(path), "manifest": str(path.parent / MANIFEST)}
            jobs.append(Job(artifact.file, "edgegen.artifacts.sessions:artifact", arguments))
    torch_jobs = _torch_jobs(context)
    options = ProfileOptions(
        min_runs=recipe.profile.min_runs,
        max_seconds=recipe.profile.max_seconds,
        cold_starts=recipe.profile.cold_starts,
    )
    machine = DEVICE.probe()
    timings, _ = timed([*jobs, *(job for job, _, _ in torch_jobs)], options=options, progress=context.progress)
    measured = {timing.job.label: timing.latency() for timing in timings}
    latencies |= {job.label: measured[job.label] for job in jobs}
    rows = [
        {"label": job.label, "network": network, "steps": steps, "latency": measured[job.label].to_dict()}
        for job, network, steps in torch_jobs
    ]
    content = {
        "artifacts": {file: latency.to_dict() for file, latency in latencies.items()},
        "torch": rows,
        "machine": machine,
    }
    write_json(context.folder / "latency.json", content)
    samples = {timing.job.label: [block.tolist() for block in timing.blocks] for timing in timings}
    write_json(context.folder / "samples.json", {"blocks_ms": samples})


def _torch_jobs(context: Context) -> list[tuple[Job, str, int]]:
    jobs = []
    for network, stage, steps in (
        ("teacher", "teacher", max(context.recipe.evaluate.steps)),
        ("student", "distill", 1),
    ):
        arguments = {"folder": str(context.inputs[stage] / GENERATOR), "steps": steps}
        label = f"{network} in PyTorch, {steps} step{'s' * (steps > 1)}, 1 thread"
        jobs.append((Job(label, "edgegen.artifacts.sessions:network", arguments, threads=1), network, steps))
    return jobs
