"""Plain regression on the teacher's pairs: the baseline that flow-guided distillation has to beat."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgegen.training.batch import Batch
from edgegen.training.distances import DISTANCES
from edgegen.training.objectives.annealing_reflow import flipped, pair


@dataclass(frozen=True)
class PairRegression:
    """D(e - v(e, 1), x) over stored pairs (e, x)."""

    distance: str = "pseudo_huber"
    flip: bool = False
    paper = "arXiv:2101.02388 (knowledge distillation of the sampler in one step)"

    def losses(self, nets: Mapping[str, nn.Module], batch: Batch, rng: torch.Generator) -> dict[str, Tensor]:
        e, x = flipped(batch, rng) if self.flip else pair(batch)
        v = nets["student"](e, e.new_ones(len(e)), batch.labels)
        return {"student": DISTANCES[self.distance](e - v, x).mean()}
