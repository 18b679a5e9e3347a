"""How fast a file still is after minutes without a pause: a phone that grows warm slows itself down."""

import numpy as np

from edgegen.profilers.devices.device import Device
from edgegen.profilers.schema import Sustained
from edgegen.profilers.timing.jobs import Job
from edgegen.profilers.timing.process import Worker
from edgegen.profilers.timing.stats import Samples
from edgegen.support.progress import Progress

SECONDS, WINDOW = 300.0, 0.1  # of a loop; the share of it at its start and its end that is compared
BLOCK_MS = 250.0


def sustained(job: Job, device: Device, *, seconds: float = SECONDS, timeout_s: float, progress: Progress) -> Sustained:
    """Inferences back to back for `seconds` in a process of its own. Raises DeviceError where that ends before."""
    blocks: list[Samples] = []
    spent_ms = 0.0
    with Worker(device, job.command, timeout_s=timeout_s) as worker:
        worker.ready().ask("open", *job.opening)
        with progress.task(f"{seconds:g} s of {job.label}", round(seconds)) as task:
            while spent_ms < 1000 * seconds:
                blocks.append(np.asarray(worker.ask("block", 1, BLOCK_MS, 1000 * seconds)["samples_ms"]))
                spent_ms += float(blocks[-1].sum())
                task.update(min(round(spent_ms / 1000), round(seconds)))
    samples = np.concatenate(blocks)
    ends = np.cumsum(samples)
    first = samples[: 1 + int(np.searchsorted(ends, WINDOW * ends[-1]))]
    last = samples[int(np.searchsorted(ends, (1 - WINDOW) * ends[-1])) :]
    return Sustained(
        seconds=float(ends[-1]) / 1000,
        runs=len(samples),
        first_p50_ms=float(np.median(first)),
        last_p50_ms=float(np.median(last)),
    )
