"""The search of `edgegen tune`: one change at a time, what helped together, and a last comparison.

    the plain files of all targets and threads ──> of each target, every change for itself ──> what helped, together
                                                                                                        │
    the kept one: the fastest that is surely faster than the first plain file <── a longer run of the best, in turn

A time is compared only with that of a reference which ran in turn with it: the machine's slow hours fall on both. What
the interval of a comparison leaves open changes nothing: the file stays as it was.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from edgegen.artifacts.target import Target
from edgegen.errors import DeviceError, ParityError
from edgegen.profilers.timing.protocol import PRECISION
from edgegen.profilers.timing.stats import Samples, ratio_interval, summarize

Changes = tuple[tuple[str, bool], ...]
FLOAT = "float "  # before the name of a group of layers
AT_ONCE = 4  # candidates beside their reference: each is a process that holds the network
FINALISTS = 3  # that are compared with the default once more: chance made some of the best


@dataclass(frozen=True)
class Candidate:
    """A file, by its target and what differs from the runtime's own choice, and how it is run.

    A change is a rewrite, on or off, or `FLOAT` and the name of a group of layers, which are not rounded then.
    """

    target: Target
    changes: Changes = ()
    threads: int = 1

    def changed(self, *changes: tuple[str, bool]) -> "Candidate":
        return replace(self, changes=tuple(sorted({**dict(self.changes), **dict(changes)}.items())))

    def __str__(self) -> str:
        words = [f"{'with' if is_on else 'without'} {name}" for name, is_on in self.changes]
        return ", ".join([str(self.target), *words, f"{self.threads} thread{'s' * (self.threads > 1)}"])


@dataclass(frozen=True)
class Trial:
    """What is known of a candidate: its warm runs beside those of a `reference`, or the `reason` why it has none.

    `is_same`: its file is that of the reference byte by byte, with as many threads, and needs no time of its own.
    `facts` are for the manifest: hash, size, parity. `doubt` says what disturbed the measurement.
    """

    candidate: Candidate
    reference: Candidate
    blocks: tuple[Samples, ...] = ()
    reference_blocks: tuple[Samples, ...] = ()
    reason: str = ""
    is_same: bool = False
    doubt: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_timed(self) -> bool:
        return bool(self.blocks)

    def change(self) -> tuple[float, float]:
        """The 95 % interval of its median over the reference's."""
        return ratio_interval(self.reference_blocks, self.blocks) if self.candidate != self.reference else (1.0, 1.0)

    def ratio(self) -> float:
        return summarize(self.blocks).p50_ms / summarize(self.reference_blocks).p50_ms

    @property
    def is_faster(self) -> bool:
        """Whether the whole interval lies below the reference's time, by more than a median is known to."""
        return self.is_timed and self.change()[1] < 1 - PRECISION

    def verdict(self) -> str:
        """In words."""
        if self.reason:
            return f"refused: {self.reason}"
        if self.is_same:
            return "the same file"
        low, high = self.change()
        surely = "faster" if high < 1 - PRECISION else "slower" if low > 1 + PRECISION else "no difference"
        return surely if self.candidate != self.reference else "reference"


class Bench(Protocol):
    """What builds, proves and measures candidates."""

    def compare(self, reference: Candidate, candidates: Sequence[Candidate], *, final: bool = False) -> list[Trial]:
        """A trial of each, timed in turn with the reference, which has one itself where it is among them.

        A file that is not proven true has a reason, and no time. Raises DeviceError where the device is lost, or gives
        no time of the reference.
        """


@dataclass(frozen=True)
class Choice:
    """`kept`, `why`, and everything that was tried; `is_complete` is False where the time did not suffice for all."""

    kept: Trial
    default: Candidate
    why: str
    trials: Sequence[Trial]
    is_complete: bool


def search(
    bench: Bench,
    targets: Sequence[Target],
    switches: Callable[[Target], Iterable[tuple[str, bool]]],
    *,
    threads: Sequence[int] = (1,),
    seconds: float,
    clock: Callable[[], float] = time.monotonic,
) -> Choice:
    """The fastest candidate. `switches` are, of a target, the changes that are tried.

    The default is the first target with the first number of threads. Once `seconds` are over nothing new is built.
    Raises ParityError where no plain file is true, DeviceError where none runs on the device.
    """
    end = clock() + seconds
    plain = [Candidate(target, threads=count) for target in targets for count in threads]
    trials = _plain(bench, plain)
    default = trials[0].reference
    relative = {trial.candidate: trial.ratio() for trial in trials if trial.is_timed}  # of the default's time
    is_complete = True
    for base in _bases(trials, targets):
        changes, tried = list(switches(base.target)), list[Trial]()
        for first in range(0, len(changes), AT_ONCE):
            if clock() >= end:
                is_complete = False
                break
            tried += bench.compare(base, [base.changed(change) for change in changes[first : first + AT_ONCE]])
        helpful = [trial for trial in tried if trial.is_faster]
        together = base.changed(*(change for trial in helpful for change in trial.candidate.changes))
        if len(helpful) > 1:
            tried += bench.compare(base, [together])
        trials += tried
        relative |= {trial.candidate: relative[base] * trial.ratio() for trial in tried if trial.is_faster}
    return _last_comparison(bench, default, relative, trials, is_complete=is_complete)


def _plain(bench: Bench, plain: Sequence[Candidate]) -> list[Trial]:
    """Trials of the plain files, beside the first of them that can be timed; the ones before it are refused."""
    refused: list[Trial] = []
    for number, default in enumerate(plain):
        trials = bench.compare(default, plain[number:])
        first = next(trial for trial in trials if trial.candidate == default)
        if first.is_timed:
            return [*trials, *refused]
        refused.append(first)
    listed = "\n  ".join(f"{trial.candidate}: {trial.reason}" for trial in refused)
    are_wrong = any(trial.facts.get("parity", {}).get("status") == "failed" for trial in refused)
    raise (ParityError if are_wrong else DeviceError)(f"nothing to tune:\n  {listed}")


def _bases(trials: Sequence[Trial], targets: Sequence[Target]) -> list[Candidate]:
    """Of each target the plain file that is changed, with its best number of threads; the fastest first."""
    bases = []
    for target in targets:
        timed = [trial for trial in trials if trial.candidate.target == target and trial.is_timed]
        if timed:
            bases.append(_best(timed))
    return [trial.candidate for trial in sorted(bases, key=lambda trial: trial.ratio())]


def _best(timed: Sequence[Trial]) -> Trial:
    """The first, unless another is surely faster than it: then the fastest."""
    first, *others = timed
    faster = [trial for trial in others if ratio_interval(first.blocks, trial.blocks)[1] < 1 - PRECISION]
    return min(faster, key=lambda trial: summarize(trial.blocks).p50_ms, default=first)


def _last_comparison(
    bench: Bench,
    default: Candidate,
    relative: Mapping[Candidate, float],
    trials: list[Trial],
    *,
    is_complete: bool,
) -> Choice:
    """The best once more in turn with the default, longer: the fastest of those that are surely faster is kept."""
    best = sorted((one for one in relative if one != default), key=lambda one: relative[one])[:FINALISTS]
    best = [one for one in best if relative[one] < 1]
    if not best:
        first = next(trial for trial in trials if trial.candidate == default)
        return Choice(first, default, "no candidate was faster than the default", trials, is_complete)
    finals = bench.compare(default, [default, *best], final=True)
    of_default = next(trial for trial in finals if trial.candidate == default)
    faster = [trial for trial in finals if trial.is_faster]
    if not faster:
        why = "in the last comparison no candidate was surely faster than the default"
        return Choice(of_default, default, why, [*trials, *finals], is_complete)
    # Of those that cannot be told from the fastest, the one with the fewest changes.
    faster.sort(key=lambda trial: (len(trial.candidate.changes), list(relative).index(trial.candidate)))
    kept = _best(faster)
    low, high = kept.change()
    why = f"surely faster than the default, {default}: {kept.ratio():.2f} ({low:.2f} to {high:.2f}) of its time"
    return Choice(kept, default, why, [*trials, *finals], is_complete)
