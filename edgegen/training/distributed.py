"""Device, precision and processes for training, by Hugging Face Accelerate: one CPU, one GPU or `accelerate launch`."""

import atexit
import contextlib
import functools
import os
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Literal

import torch
from accelerate import Accelerator, PartialState
from torch import Tensor

from edgegen.errors import TrainingError, UsageError

SHARDED = ("FSDP", "DEEPSPEED", "MEGATRON_LM")  # ways of `accelerate launch` to divide a network
TIMEOUT = timedelta(hours=24)  # the other processes wait while the first one evaluates or exports


def use_threads(threads: int | None) -> None:
    """PyTorch's CPU threads for this process; None leaves its default. The last bits of a result depend on it."""
    if threads is not None:
        torch.set_num_threads(threads)


@functools.cache
def state() -> PartialState:
    """Device and place of this process among those of `accelerate launch`; knows nothing of precision."""
    this_process = PartialState(cpu=True, timeout=TIMEOUT) if _several_on_cpu() else PartialState(timeout=TIMEOUT)
    atexit.register(_disconnect)
    return this_process


def _disconnect() -> None:
    """A process that ends with its threads for the others still running may be aborted, although all is done."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _several_on_cpu() -> bool:
    """Several processes without an accelerator: Accelerate connects them only where `cpu` is given."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and not torch.accelerator.is_available()


@functools.cache
def accelerator(precision: Literal["auto", "fp32", "bf16"]) -> Accelerator:
    """The Accelerator of this process, which allows only one precision; "auto" is bf16 on CUDA, float32 elsewhere."""
    sharded = [name for name in SHARDED if os.environ.get(f"ACCELERATE_USE_{name}", "false").lower() == "true"]
    if sharded:
        raise UsageError(
            f"{sharded[0]} is not supported: every process holds the whole networks, which are small; leave it out of "
            "the configuration of `accelerate`"
        )
    state()
    bf16 = precision == "bf16" or (precision == "auto" and torch.cuda.is_available())
    return Accelerator(mixed_precision="bf16" if bf16 else "no", cpu=_several_on_cpu())


def add_up(tensors: Sequence[Tensor]) -> None:
    """Each tensor becomes its sum over all processes; nothing, where there is one. All are of one device and type.

    Raises TrainingError where another process has ended.
    """
    if state().num_processes == 1 or not tensors:
        return
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    with _all_there():
        torch.distributed.all_reduce(flat)
    for tensor, part in zip(tensors, torch.split(flat, [tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(part.view(tensor.shape))


def take_from_first(tensors: Sequence[Tensor]) -> None:
    """Each tensor becomes that of the first process. Raises as `add_up` does."""
    with torch.no_grad():
        for tensor in tensors if state().process_index else ():
            tensor.zero_()
        add_up(tensors)


def wait_for_all() -> None:
    """Until all processes are here. Raises TrainingError where another one has ended."""
    with _all_there():
        state().wait_for_everyone()


@contextlib.contextmanager
def _all_there() -> Iterator[None]:
    try:
        yield
    except RuntimeError as e:  # torch.distributed has no class of its own for it
        raise TrainingError(
            f"one of the {state().num_processes} processes has ended or cannot be reached; finished stages and the "
            "last checkpoint are kept: the same command goes on from there"
        ) from e


def is_first_to_say(text: str) -> bool:
    """Whether no other process has said this: an error that all of them meet is printed once."""
    if not torch.distributed.is_initialized():
        return True
    try:
        said: int = torch.distributed.distributed_c10d._get_default_store().add(f"edgegen said {text}", 1)
    except RuntimeError:  # it went with the process that kept it
        return True
    return said == 1
