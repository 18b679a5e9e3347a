"""A batch in parts, of several processes or one after another: each draws the random numbers of its rows.

So a loss that is a mean over samples comes out as that of the whole batch, however it is divided.
"""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from edgegen.support.rng import generator


@dataclass(frozen=True)
class Part:
    """Every `count`-th row of a batch of `whole`, from `index` on."""

    index: int
    count: int
    whole: int

    def of(self, rows: Tensor) -> Tensor:
        """This part of (whole, ...)."""
        return rows[self.index :: self.count]

    @property
    def size(self) -> int:
        return len(range(self.index, self.whole, self.count))

    @property
    def share(self) -> float:
        """Of the whole batch, in (0, 1]."""
        return self.size / self.whole


@contextlib.contextmanager
def draws(part: Part, seed: int, step: int, device: torch.device) -> Any:
    """Gives the generator of a step's random numbers; inside, they are those of the part."""
    rng = generator(seed, step, 0, device=device)
    if part.count == 1:
        yield rng
        return
    with _PartOfDraws(part, rng, generator(seed, step, 1 + part.index, device=device)):
        yield rng


class _PartOfDraws(TorchFunctionMode):
    """Random tensors from `rng` are made for the whole batch, and the part's rows are kept.

    They are those whose first dimension is the part's size or a multiple of it, as of a batch that is repeated by
    `cat`. A scalar is the same in all parts. What cannot be divided, such as a permutation of the part, comes from
    `own`: drawn from `rng`, it would be the same in all parts.
    """

    def __init__(self, part: Part, rng: torch.Generator, own: torch.Generator) -> None:
        super().__init__()
        self.part, self.rng, self.own = part, rng, own

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if kwargs.get("generator") is not self.rng:
            return func(*args, **kwargs)
        if func in FACTORIES:
            before, size = _size(func, args, kwargs)
            if not size:
                return func(*args, **kwargs)
            blocks, rest = divmod(size[0], self.part.size)
            if blocks and not rest:
                whole = func(*before, (blocks, self.part.whole, *size[1:]), **kwargs)
                return whole[:, self.part.index :: self.part.count].reshape(size)
            args = (*before, size)
        return func(*args, **{**kwargs, "generator": self.own})


FACTORIES = {torch.rand: 0, torch.randn: 0, torch.randint: 2}  # and how many numbers stand before the size, at most


def _size(func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> tuple[list[Any], tuple[int, ...]]:
    """The arguments before the size, and the size, which is taken out of `kwargs`."""
    if "size" in kwargs:
        return list(args), tuple(kwargs.pop("size"))
    if FACTORIES[func] or (args and isinstance(args[0], Sequence)):  # randint has its size in one argument
        return list(args[:-1]), tuple(args[-1])
    return [], tuple(args)
