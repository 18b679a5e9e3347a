"""What a training step sees: a batch, made from (seed, step) alone so that a resumed run sees the same ones."""

import functools
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from edgegen.flow.condition import condition_spec, unpacked
from edgegen.program.inputs import InputSource
from edgegen.support.pixels import floats
from edgegen.support.rng import generator

FIRST_INDEX = 1 << 33  # of fresh inputs: parity runs on 0, 1, 2, ... and calibration on those from 2^32


@dataclass(frozen=True)
class Batch:
    """images (batch, channels, height, width), or signals (batch, channels, length), in [-1, 1]; noise like images.

    `condition` is that of each sample, or None (edgegen.flow.condition).

    The batch is that of `step`, counted from 0, of the stage's `steps`. `due` names the trained networks that are
    updated in this step. `inputs` are a generator's, where it trains on noise alone; `images` are then the noise.

    Of pairs, `knots` (batch, knots, channels, height, width) are states on the teacher's way from the noise, which is
    the first, to the image; they are those at the falling `knot_times` (knots,), from 1. `real` are real images, for a
    method that trains on pairs and on them.
    """

    step: int
    steps: int
    images: Tensor
    condition: Tensor | None = None
    noise: Tensor | None = None
    knots: Tensor | None = None
    knot_times: Tensor | None = None
    real: "Batch | None" = None
    inputs: tuple[Tensor, ...] = ()
    due: frozenset[str] = frozenset({"student"})


class Examples(Protocol):
    """What the loop trains on; rows are indices below its length."""

    def __len__(self) -> int: ...
    def to(self, device: torch.device) -> "Examples": ...
    def batch(self, rows: Tensor, device: torch.device, *, step: int, steps: int) -> Batch: ...


@dataclass(frozen=True)
class TrainingSet:
    """Images in memory, with conditions and, for pairs, the noise that each came from; `to` puts it on a device.

    Images, also of conditions, may be uint8.

    `knots` (count, knots, channels, height, width) of pairs, at `knot_times`, as in Batch.
    """

    images: Tensor
    condition: Tensor | None = None
    noise: Tensor | None = None
    knots: Tensor | None = None
    knot_times: Tensor | None = None

    def __len__(self) -> int:
        return len(self.images)

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for part in (self.images, self.condition, self.noise, self.knots) if part is not None)

    def to(self, device: torch.device) -> "TrainingSet":
        """On the device where it fits in half of the free memory; else as it is, and batches are copied over."""
        if device.type == "cuda" and self.nbytes > torch.cuda.mem_get_info(device)[0] // 2:
            return self
        parts = (self.images, self.condition, self.noise, self.knots, self.knot_times)
        return TrainingSet(*(None if part is None else part.to(device) for part in parts))  # type: ignore[arg-type]

    def batch(self, rows: Tensor, device: torch.device, *, step: int, steps: int) -> Batch:
        """The given rows as a float32 batch on `device`; uint8 images become [-1, 1], fp16 pairs float32."""

        def take(part: Tensor | None) -> Tensor | None:
            return None if part is None else part[rows.to(part.device)].to(device, non_blocking=True)

        def numbers(part: Tensor | None) -> Tensor | None:
            return None if part is None else floats(part)

        images = numbers(take(self.images))
        assert images is not None
        return Batch(
            step,
            steps,
            images,
            unpacked(take(self.condition)),
            numbers(take(self.noise)),
            numbers(take(self.knots)),
            None if self.knot_times is None else self.knot_times.to(device),
        )


REAL_STRIDE = 7919  # a prime: a pair meets other real images in every step


@dataclass(frozen=True)
class PairsAndImages:
    """Pairs, and real images in each batch's `real`, of any count: a row of pairs has no fixed image beside it."""

    pairs: TrainingSet
    real: TrainingSet

    def __len__(self) -> int:
        return len(self.pairs)

    def to(self, device: torch.device) -> "PairsAndImages":
        return PairsAndImages(self.pairs.to(device), self.real.to(device))

    def batch(self, rows: Tensor, device: torch.device, *, step: int, steps: int) -> Batch:
        real_rows = (rows + step * REAL_STRIDE) % len(self.real)
        real = self.real.batch(real_rows, device, step=step, steps=steps)
        return replace(self.pairs.batch(rows, device, step=step, steps=steps), real=real)


@dataclass(frozen=True)
class FreshInputs:
    """`count` inputs of a generator, each made when it is read: noise, conditions and its other inputs."""

    source: InputSource
    count: int

    def __len__(self) -> int:
        return self.count

    def to(self, device: torch.device) -> "FreshInputs":
        return self

    def batch(self, rows: Tensor, device: torch.device, *, step: int, steps: int) -> Batch:
        """The inputs of these rows, in the signature's order; `images` and `noise` are the first of them."""
        indices = (FIRST_INDEX + row for row in rows.tolist())
        samples = [self.source.samples(range(index, index + 1)) for index in indices]
        specs = self.source.signature.inputs
        inputs = tuple(torch.cat([torch.from_numpy(row[spec.name]) for row in samples]).to(device) for spec in specs)
        of_condition = condition_spec(self.source.signature)
        condition = next((values for spec, values in zip(specs, inputs, strict=True) if spec == of_condition), None)
        return Batch(step, steps, inputs[0], condition, noise=inputs[0], inputs=inputs)


def epoch_rows(count: int, step: int, batch: int, seed: int) -> Tensor:
    """The rows of a step: shuffled epochs laid end to end, each from (seed, epoch) alone: (batch,) int64."""
    first = step * batch
    parts: list[Tensor] = []
    while batch:
        epoch, offset = divmod(first, count)
        order = _order(count, seed, epoch)
        parts.append(order[offset : offset + batch])
        first, batch = first + len(parts[-1]), batch - len(parts[-1])
    return torch.cat(parts)


@functools.lru_cache(maxsize=2)  # the epoch under way and the next: a million pairs take 15 ms to shuffle
def _order(count: int, seed: int, epoch: int) -> Tensor:
    return torch.randperm(count, generator=generator(seed, epoch))
