"""The record of one measured file, and whether to believe it; and its summary for tables and plots."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from edgegen.profilers.files.check import Check
from edgegen.profilers.schema import Cold, Config, Latencies, LeafRow, MeasuredFile, OpRow, Verdict, WarmUp
from edgegen.profilers.timing.interference import Interference
from edgegen.profilers.timing.protocol import Timing
from edgegen.profilers.timing.stats import percentiles, summarize
from edgegen.profilers.trace.operators import Leaf, by_kind
from edgegen.types import Latency

COARSE = 0.02  # a clock's step, relative to a median that should be known as well as that


def measured_file(
    check: Check, threads: int, timing: Timing | None, interference: Interference, *, target: Mapping[str, Any]
) -> MeasuredFile:
    """The record of a file with so many threads; `timing` is None where it was not timed, `target` what was probed."""
    config = Config(
        runtime=check.runtime,
        threads_requested=threads,
        threads_actual=None if timing is None or not timing.cold else timing.cold[-1]["threads"],
    )
    untimed = MeasuredFile(
        artifact=check.placement.subject.facts,
        config=config,
        numerics=check.numerics,
        verdict=Verdict(status="failed", reasons=(check.failure or f"wrong: {check.numerics.reason}",)),
    )
    if timing is None and check.may_be_timed and target["emulated"]:
        return untimed.model_copy(update={"verdict": _numbers_only(target["emulated"], check.notes)})
    if timing is None:
        return untimed
    if failure := timing.reason or _too_short(timing, target):
        return untimed.model_copy(update={"verdict": Verdict(status="failed", reasons=(failure,))})
    latency = _latencies(timing)
    reasons = (*interference.reasons(), *timing.reasons(), *_coarse(latency.p50_ms, target))
    fewer = _fewer_threads(config, target)
    return MeasuredFile(
        artifact=untimed.artifact,
        config=config,
        numerics=check.numerics,
        cold=tuple(Cold(load_ms=start["load_ms"], first_ms=start["first_ms"]) for start in timing.cold),
        warm_up=WarmUp(runs=sum(map(len, timing.warm_up)), stable=timing.stable),
        latency=latency,
        peak_rss_bytes=timing.latency().peak_rss_bytes,
        verdict=Verdict(status="noisy" if reasons else "ok", reasons=(*reasons, *fewer, *check.notes)),
    )


def latency_of(measured: MeasuredFile) -> Latency:
    """The summary of a record; `reason` says why there is no latency, or why it should not be believed."""
    verdict, cold = measured.verdict, measured.cold
    summary = Latency(
        p50_ms=None,
        load_ms=statistics.median(start.load_ms for start in cold) if cold else None,
        first_ms=statistics.median(start.first_ms for start in cold) if cold else None,
        peak_rss_bytes=measured.peak_rss_bytes,
        reason="" if verdict.status == "ok" else "; ".join(verdict.reasons),
        runtime=measured.config.runtime or "",
    )
    if measured.latency is None:
        return summary
    return replace(
        summary,
        p50_ms=measured.latency.p50_ms,
        p50_ci95_ms=measured.latency.p50_ci95_ms,
        p90_ms=measured.latency.p90_ms,
        runs=measured.latency.runs,
        converged=measured.latency.converged,
        percentiles_ms=percentiles([np.array(block) for block in measured.latency.blocks_ms]),
    )


def _latencies(timing: Timing) -> Latencies:
    summary, samples = summarize(timing.blocks), np.concatenate(timing.blocks)
    return Latencies(
        blocks_ms=tuple(tuple(map(float, block)) for block in timing.blocks),
        runs=summary.runs,
        p50_ms=summary.p50_ms,
        p50_ci95_ms=summary.p50_ci95_ms,
        p90_ms=summary.p90_ms,
        min_ms=float(samples.min()),
        mean_ms=float(samples.mean()),
        converged=timing.converged,
    )


def _too_short(timing: Timing, target: Mapping[str, Any]) -> str:
    """Why it cannot be timed with the device's clock, "" where it can."""
    times = [start[name] for start in timing.cold for name in ("load_ms", "first_ms")]
    if min(*times, *(block.min() for block in timing.blocks)) > 0:
        return ""
    return f"takes less time than the device's clock can tell ({target.get('clock_step_ms') or 0.0:g} ms): not timed"


def _coarse(p50_ms: float, target: Mapping[str, Any]) -> list[str]:
    step_ms = target.get("clock_step_ms") or 0.0
    reason = f"the device's clock goes in steps of {step_ms:.3g} ms, {step_ms / p50_ms:.0%} of the median"
    return [reason] if step_ms > COARSE * p50_ms else []


def _fewer_threads(config: Config, target: Mapping[str, Any]) -> list[str]:
    if config.threads_actual is None or config.threads_actual >= config.threads_requested:
        return []
    return [
        f"{config.threads_requested} threads were asked, {config.threads_actual} ran: "
        f"{target.get('limits') or 'its runtime has no more'}"
    ]


def _numbers_only(emulated: str, notes: Sequence[str]) -> Verdict:
    reason = f"numbers only: {emulated} says nothing about a real device's time"
    return Verdict(status="ok", performance_valid=False, reasons=(reason, *notes))


def with_operations(measured: MeasuredFile, leaves: Sequence[Leaf]) -> MeasuredFile:
    """The record with the operations of a traced pass."""
    total = sum(leaf.ms for leaf in leaves) or 1.0
    is_estimate = measured.artifact.format == "mlpackage"
    ops = [
        OpRow(kind=row.kind, count=row.count, ms=None if is_estimate else row.ms, share=row.ms / total)
        for row in by_kind(leaves)
    ]
    rows = [
        LeafRow(**{**asdict(leaf), "ms": None if is_estimate else leaf.ms}, share=leaf.ms / total) for leaf in leaves
    ]
    return measured.model_copy(update={"ops": tuple(ops), "leaves": tuple(rows)})
