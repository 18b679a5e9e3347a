"""Counts how often a network is evaluated while a solver runs: what the progress of sampling is measured in."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from torch import nn


@contextlib.contextmanager
def evaluations(network: nn.Module, count: Callable[[int], None]) -> Iterator[None]:
    """Calls `count` with the number of images of every evaluation of the network, inside of the block."""
    # A scheduler of diffusers calls the network inside; everything else calls the whole.
    inner = getattr(network, "unet", network)

    def after(module: nn.Module, arguments: tuple[Any, ...], output: object) -> None:
        count(len(arguments[0]))

    hook = inner.register_forward_hook(after)
    try:
        yield
    finally:
        hook.remove()
