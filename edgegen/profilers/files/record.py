"""The record of one measured file: what was found, and whether to believe it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from edgegen.profilers.files.subject import Candidate
from edgegen.profilers.schema import Cold, Config, Latencies, LeafRow, OpRow, Result, Verdict, WarmUp
from edgegen.profilers.timing.protocol import Noise, Timing
from edgegen.profilers.timing.stats import summarize
from edgegen.profilers.trace.operators import Leaf, by_kind

COARSE = 0.02  # a clock's step, relative to a median that should be known as well as that


def result_of(
    candidate: Candidate, threads: int, timing: Timing | None, noise_found: Noise, *, target: Mapping[str, Any]
) -> Result:
    """The record of a file with so many threads; `timing` is None where it was not run, `target` what was probed."""
    config = Config(
        runtime=candidate.runtime,
        threads_requested=threads,
        threads_actual=None if timing is None or not timing.cold else timing.cold[-1]["threads"],
    )
    known = Result(
        artifact=candidate.facts,
        config=config,
        numerics=candidate.numerics,
        verdict=Verdict(status="failed", reasons=(candidate.failed or f"wrong: {candidate.numerics.reason}",)),
    )
    if timing is None and candidate.may_be_timed and target["emulated"]:
        return known.model_copy(update={"verdict": _numbers_only(target["emulated"])})
    if timing is None:
        return known
    if failed := timing.reason or _too_short(timing, target):
        return known.model_copy(update={"verdict": Verdict(status="failed", reasons=(failed,))})
    summary = summarize(timing.blocks)
    samples = np.concatenate(timing.blocks)
    reasons = (*noise_found.reasons(), *timing.reasons(), *_coarse(summary.p50_ms, target))
    fewer = _fewer_threads(config, target)
    return Result(
        artifact=candidate.facts,
        config=config,
        numerics=candidate.numerics,
        cold=tuple(Cold(load_ms=one["load_ms"], first_ms=one["first_ms"]) for one in timing.cold),
        warm_up=WarmUp(runs=sum(map(len, timing.warm_up)), stable=timing.stable),
        latency=Latencies(
            blocks_ms=tuple(tuple(map(float, block)) for block in timing.blocks),
            runs=summary.runs,
            p50_ms=summary.p50_ms,
            p50_ci95_ms=summary.p50_ci95_ms,
            p90_ms=summary.p90_ms,
            min_ms=float(samples.min()),
            mean_ms=float(samples.mean()),
            converged=timing.converged,
        ),
        peak_rss_bytes=timing.latency().peak_rss_bytes,
        verdict=Verdict(status="noisy" if reasons else "ok", reasons=(*reasons, *fewer)),
    )


def _too_short(timing: Timing, target: Mapping[str, Any]) -> str:
    """Why it cannot be timed with the device's clock, "" where it can."""
    times = [one[name] for one in timing.cold for name in ("load_ms", "first_ms")]
    if min(*times, *(block.min() for block in timing.blocks)) > 0:
        return ""
    return f"takes less time than the device's clock can tell ({target.get('clock_step_ms') or 0.0:g} ms): not timed"


def _coarse(p50_ms: float, target: Mapping[str, Any]) -> list[str]:
    step_ms = target.get("clock_step_ms") or 0.0
    found = f"the device's clock goes in steps of {step_ms:.3g} ms, {step_ms / p50_ms:.0%} of the median"
    return [found] if step_ms > COARSE * p50_ms else []


def _fewer_threads(config: Config, target: Mapping[str, Any]) -> list[str]:
    if config.threads_actual is None or config.threads_actual >= config.threads_requested:
        return []
    return [
        f"{config.threads_requested} threads were asked, {config.threads_actual} ran: "
        f"{target.get('limits') or 'its runtime has no more'}"
    ]


def _numbers_only(emulated: str) -> Verdict:
    reason = f"numbers only: {emulated} says nothing about a real device's time"
    return Verdict(status="ok", performance_valid=False, reasons=(reason,))


def with_operations(result: Result, found: Sequence[Leaf]) -> Result:
    """The result with what a traced pass told."""
    total = sum(row.ms for row in found) or 1.0
    is_estimate = result.artifact.format == "mlpackage"
    ops = [
        OpRow(kind=row.kind, count=row.count, ms=None if is_estimate else row.ms, share=row.ms / total)
        for row in by_kind(found)
    ]
    leaves = [LeafRow(**{**asdict(row), "ms": None if is_estimate else row.ms}, share=row.ms / total) for row in found]
    return result.model_copy(update={"ops": tuple(ops), "leaves": tuple(leaves)})
