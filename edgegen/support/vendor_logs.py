"""Silence for vendors' chatter at the seam where it arises: named loggers and worded warnings, nothing wholesale."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Chatter:
    """What one vendor says on every call: its loggers, and the beginnings (regex) of its warnings."""

    loggers: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


# torch.export copies its own pytree specs and deprecates the way it does so.
TREESPEC = r"`isinstance\(treespec, LeafSpec\)` is deprecated"

# torch.onnx says four times that torchvision is not installed.
TORCH_ONNX = Chatter(("torch.onnx._internal.exporter._registration",), (TREESPEC,))

# torch.export, its save and load, and run_decompositions.
EXPORT = Chatter(("torch.fx.experimental.symbolic_shapes",), (TREESPEC,))

EXECUTORCH = Chatter(
    # torchao reports GPU libraries that a CPU machine lacks, and registers an enum in a way torch deprecates.
    ("torchao", "torch.utils._pytree"),
    (
        TREESPEC,
        r"(open_text|read_text|read_binary) is deprecated. Use files\(\) instead",  # how executorch reads its tables
        r"`torch.jit.script_method` is deprecated",  # at the import of torch modules that only executorch needs
        r"This API is experimental and subject to change without notice",  # its Python runtime
        r"Output Buffer not found",  # its Inspector, of a trace without the tensors' values
    ),
)

# diffusers imports torchao, which reports as above, says that it found less of it than it knows, and that several
# distributions share the namespace `optimum`: optimum itself and those with a plug-in for it, as this one.
DIFFUSERS = Chatter(
    ("torchao", "torch.utils._pytree", "diffusers.quantizers.torchao.torchao_quantizer", "diffusers.utils.import_utils")
)


@contextmanager
def quiet(chatter: Chatter) -> Iterator[None]:
    """Within the block the loggers of `chatter` pass errors only, and its warnings are mute."""
    levels = {name: logging.getLogger(name).level for name in chatter.loggers}
    for name in levels:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            for message in chatter.warnings:
                warnings.filterwarnings("ignore", message=message)
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
