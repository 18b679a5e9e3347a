"""SplitMeanFlow: shortcut models with jumps of any length, split anywhere."""

from typing import ClassVar

from edgegen.training.objectives.shortcut import Every, Shortcut, Split, Target


class SplitMeanFlow(Shortcut):
    """shortcut with (t - r) u(x_t, t, r) = (t - m) u(x_t, t, m) + (m - r) u(x_m, m, r) at any r < m < t."""

    paper: ClassVar[str] = "arXiv:2507.16884, interval splitting consistency"

    split: Split = "any"
    bootstrap_every: Every = 2  # ours: the paper's share is not known here
    target: Target = "own"
