"""Device, precision and processes for training, by Hugging Face Accelerate: one CPU, one GPU or `accelerate launch`."""

import functools
import os
from collections.abc import Sequence
from datetime import timedelta
from typing import Literal

import torch
from accelerate import Accelerator, PartialState
from torch import Tensor

TIMEOUT = timedelta(hours=24)  # the other processes wait while the first one evaluates or exports


def use_threads(threads: int | None) -> None:
    """PyTorch's CPU threads for this process; None leaves its default. The last bits of a result depend on it."""
    if threads is not None:
        torch.set_num_threads(threads)


@functools.cache
def state() -> PartialState:
    """Device and place of this process among those of `accelerate launch`; knows nothing of precision."""
    if _several_on_cpu():
        return PartialState(cpu=True, timeout=TIMEOUT)
    return PartialState(timeout=TIMEOUT)


def _several_on_cpu() -> bool:
    """Several processes without an accelerator: Accelerate connects them only where `cpu` is given."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and not torch.accelerator.is_available()


@functools.cache
def accelerator(precision: Literal["auto", "fp32", "bf16"]) -> Accelerator:
    """The Accelerator of this process, which allows only one precision; "auto" is bf16 on CUDA, float32 elsewhere."""
    state()
    bf16 = precision == "bf16" or (precision == "auto" and torch.cuda.is_available())
    return Accelerator(mixed_precision="bf16" if bf16 else "no", cpu=_several_on_cpu())


def add_up(tensors: Sequence[Tensor]) -> None:
    """Each tensor becomes its sum over all processes; nothing, where there is one. All are of one device and type."""
    if state().num_processes == 1 or not tensors:
        return
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    torch.distributed.all_reduce(flat)
    for tensor, part in zip(tensors, torch.split(flat, [tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(part.view(tensor.shape))
