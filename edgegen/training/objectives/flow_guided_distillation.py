"""Flow-guided distillation (SlimFlow): one step that lands on the pairs and on the student's own two-step target."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgegen.flow.path import per_sample
from edgegen.training.batch import Batch
from edgegen.training.distances import DISTANCES
from edgegen.training.objectives.annealing_reflow import flipped, pair

TIME_RANGE = (0.2, 0.8)  # of the two-step term's middle point, as in SlimFlow's code


@dataclass(frozen=True)
class FlowGuidedDistillation:
    """D(e - v(e, 1), x) + w D(z - v(z, 1), x'), z ~ N(0, I).

    x' = x_t - t v_r(x_t, t) with x_t = z - (1 - t) v(z, 1): the student's own first step, without gradient, then one
    step of the frozen reflowed net v_r ("reflowed"); t ~ U(0.2, 0.8). Labels of the fresh noise are the batch's.
    """

    distance: str = "pseudo_huber"
    two_step_weight: float = 1.0
    flip: bool = False
    paper = "arXiv:2407.12718, Eq. 8, 11-13 (first step by the student, section 4.1)"

    def losses(self, nets: Mapping[str, nn.Module], batch: Batch, rng: torch.Generator) -> dict[str, Tensor]:
        student, reflowed, labels = nets["student"], nets["reflowed"], batch.labels
        e, x = flipped(batch, rng) if self.flip else pair(batch)
        distance = DISTANCES[self.distance]
        if not self.two_step_weight:
            ones = e.new_ones(len(e))
            return {"student": distance(e - student(e, ones, labels), x).mean()}
        z = torch.randn(e.shape, generator=rng, device=e.device)
        low, high = TIME_RANGE
        t = low + (high - low) * torch.rand(len(z), generator=rng, device=z.device)
        # One forward for both terms: the net runs at t = 1 on (e, z).
        both = torch.cat([e, z])
        v = student(both, both.new_ones(len(both)), None if labels is None else labels.repeat(2))
        v_e, v_z = v.chunk(2)
        with torch.no_grad():
            x_t = z - per_sample(1 - t) * v_z
            target = x_t - per_sample(t) * reflowed(x_t, t, labels)
        loss = distance(e - v_e, x).mean() + self.two_step_weight * distance(z - v_z, target).mean()
        return {"student": loss}
