"""Device, precision and processes for training, by Hugging Face Accelerate: one CPU, one GPU or `accelerate launch`."""

import functools
from datetime import timedelta
from typing import Literal

import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs

PATIENCE = timedelta(hours=24)  # the other processes wait while the first one evaluates or exports


def use_threads(threads: int | None) -> None:
    """PyTorch's CPU threads for this process; None leaves its default. The last bits of a result depend on it."""
    if threads is not None:
        torch.set_num_threads(threads)


@functools.cache
def accelerator(precision: Literal["no", "bf16"]) -> Accelerator:
    """The Accelerator of this process; precision "no" is float32."""
    return Accelerator(mixed_precision=precision, kwargs_handlers=[InitProcessGroupKwargs(timeout=PATIENCE)])


def mixed_precision(wanted: Literal["auto", "fp32", "bf16"]) -> Literal["no", "bf16"]:
    """The recipe's word in Accelerate's: "auto" is bf16 on CUDA, float32 elsewhere."""
    if wanted == "auto":
        return "bf16" if torch.cuda.is_available() else "no"
    return "bf16" if wanted == "bf16" else "no"
