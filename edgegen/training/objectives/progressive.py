"""Progressive distillation: in every round the student learns to do two of its teacher's steps in one."""

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from edgegen.flow.path import interpolate, time_dtype, velocity_between
from edgegen.support.tables import Table
from edgegen.training.objective import Losses, Need, Networks, TrainedNetworks
from edgegen.training.pairs import real_images

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from edgegen.training.batch import Batch

LAST_ROUNDS = 2  # those of 2 steps and of 1 are twice as long as the others, as in the paper's section 5


class Progressive(Table):
    """E max((1 - t)^2, t^2) || u(x_t, t, t - 2 d) - (x_t - x'') / (2 d) ||^2, t on the student's grid of steps 2 d.

    x'' is x_t after two Euler steps d of the round's teacher, which on the straight path are DDIM's. The first teacher
    is the pipeline's, each further one the averaged student of the round before. The weight is the paper's truncated
    signal-to-noise ratio max(SNR, 1) on the data estimate, whose error is t times the velocity's.
    """

    paper: ClassVar[str] = "arXiv:2202.00512, Alg. 2 and Eq. 9 (truncated SNR)"
    needs: ClassVar[frozenset[Need]] = frozenset({"real_images", "teacher"})
    one_step: ClassVar[bool] = True

    teacher_steps: Literal[2, 4, 8, 16, 32, 64] = Field(
        8, description="Euler steps that the pipeline's teacher is taken to need; every round halves them, to 1"
    )

    def networks(self, student: "nn.Module", teacher: "nn.Module | None") -> TrainedNetworks:
        from edgegen.training.networks import NEVER, TrainedNetwork

        # Beside the student so that checkpoints keep it.
        return {"halved": TrainedNetwork(copy.deepcopy(student), every=NEVER)}

    def rounds(self, steps: int) -> Sequence[int]:
        """The first step of every round, of a training of `steps`."""
        count = self.teacher_steps.bit_length() - 1
        lengths = [2 if count - number <= LAST_ROUNDS else 1 for number in range(count)]
        return [sum(lengths[:number]) * steps // sum(lengths) for number in range(count)]

    def losses(self, networks: Networks, averages: Networks, batch: "Batch", rng: "torch.Generator") -> Losses:
        import torch

        rounds = self.rounds(batch.steps)
        number = max(index for index, first in enumerate(rounds) if first <= batch.step)
        if number and batch.step == rounds[number]:
            _copy(averages["student"], networks["halved"])
        teacher = networks["halved" if number else "teacher"]
        steps = self.teacher_steps >> (number + 1)
        real = real_images(batch)
        x, condition = real.images, real.condition
        e = torch.randn(x.shape, generator=rng, device=x.device)
        t = torch.randint(1, steps + 1, (len(x),), generator=rng, device=x.device) / steps
        x_t, d = interpolate(x, e, t), 0.5 / steps
        with torch.no_grad():
            dtype = time_dtype(teacher, x.dtype)
            middle = x_t - d * velocity_between(teacher, x_t, t.to(dtype), t - d, condition)
            end = middle - d * velocity_between(teacher, middle, (t - d).to(dtype), t - 2 * d, condition)
            target = (x_t - end) / (2 * d)
        step = velocity_between(networks["student"], x_t, t, t - 2 * d, condition)
        error = (step - target).square().flatten(1).mean(dim=1)
        weight = torch.maximum((1 - t).square(), t.square())
        figures = {"student_steps": torch.full_like(t[0], steps), f"error of {steps} steps": error.mean()}
        return {"student": (weight * error).mean(), **figures}


def _copy(source: "nn.Module", target: "nn.Module") -> None:
    """Weights and buffers, in place; `target` may be compiled, or distributed over processes."""
    import torch

    def parts(network: "nn.Module") -> "list[Tensor]":
        return [*network.parameters(), *network.buffers()]

    with torch.no_grad():
        for kept, new in zip(parts(target), parts(source), strict=True):
            kept.copy_(new)
