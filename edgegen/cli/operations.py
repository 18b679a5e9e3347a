"""The tables of `edgegen profile --per-op`: by kind of operation, by block of the network, and where each ran."""

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgegen.profilers.schema import MeasuredFile
    from edgegen.profilers.trace.operators import Leaf

SHOWN_OPS = 8
LEAST_US = 5.0  # mean of an operation, below which a clock of whole microseconds gives no useful shares


def operations_table(record: "MeasuredFile") -> list[str]:
    """The lines for one file."""
    from edgegen.profilers.trace.module_paths import by_block
    from edgegen.profilers.trace.operators import Leaf

    rows = [Leaf(**{**leaf.model_dump(exclude={"share"}), "ms": leaf.share}) for leaf in record.leaves]
    total = sum(row.ms for row in rows) or 1.0
    source = "estimated by Core ML" if record.artifact.format == "mlpackage" else "traced"
    lines = ["", f"| {record.label}: operations, {source} | count | share |", "|---|---|---|"]
    lines += [f"| {op.kind} | {op.count} | {op.share:.0%} |" for op in record.ops[:SHOWN_OPS]]
    lines += ["", f"| {record.label}: block of the network | operations | share |", "|---|---|---|"]
    lines += [f"| {row.block or 'not known'} | {row.count} | {row.ms / total:.0%} |" for row in by_block(rows)]
    lines += [_places(rows, total)]
    if record.artifact.format == "pte" and 1e3 * sum(op.ms or 0.0 for op in record.ops) / len(rows) < LEAST_US:
        lines.append("(ExecuTorch's clock counts whole microseconds, and most of these take less: not reliable)")
    return lines


def _places(rows: "list[Leaf]", total: float) -> str:
    """The operations in and outside of the delegates of a `.pte`; or the providers that ran the nodes."""
    from edgegen.profilers.trace.operators import OUTSIDE

    places = dict.fromkeys(row.place for row in rows if row.place != OUTSIDE)
    outside = Counter(row.kind for row in rows if row.place == OUTSIDE).most_common()
    share = sum(row.ms for row in rows if row.place != OUTSIDE) / total
    if any(place.startswith("delegate ") for place in places) or outside:
        inside = sum(row.place != OUTSIDE for row in rows)
        outside_text = ", ".join(f"{count} {kind}" for kind, count in outside) or "nothing"
        delegates = f"{len(places)} delegate{'s' * (len(places) != 1)}"
        return f"{inside} of {len(rows)} operations in {delegates}, {share:.0%} of the time; outside: {outside_text}"
    return "; ".join(f"{sum(row.place == place for row in rows)} operations by {place}" for place in places)
