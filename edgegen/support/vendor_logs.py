"""Suppresses known log messages and warnings of vendors around single calls: by logger and by text, not all of them."""

import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Chatter:
    """The known messages of one vendor: its loggers, and the beginnings (regular expressions) of its warnings."""

    loggers: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


# torch.export copies its pytree specs by a call that torch deprecates.
TREESPEC = r"`isinstance\(treespec, LeafSpec\)` is deprecated"

# torch.onnx logs four times that torchvision is not installed.
TORCH_ONNX = Chatter(("torch.onnx._internal.exporter._registration",), (TREESPEC,))

# torch.export, its save and load, and run_decompositions.
EXPORT = Chatter(("torch.fx.experimental.symbolic_shapes",), (TREESPEC,))

# torch's own table of derivatives is compiled by a call that torch deprecates, when the first one is taken.
FORWARD_DERIVATIVES = Chatter((), (r"`torch.jit.script` is deprecated",))

EXECUTORCH = Chatter(
    # torchao reports the GPU libraries that a CPU machine lacks, and registers an enum by a deprecated call.
    ("torchao", "torch.utils._pytree"),
    (
        TREESPEC,
        r"(open_text|read_text|read_binary) is deprecated. Use files\(\) instead",  # how executorch reads its tables
        r"`torch.jit.script_method` is deprecated",  # at the import of torch modules that only executorch needs
        r"This API is experimental and subject to change without notice",  # its Python runtime
        r"Output Buffer not found",  # its Inspector, of a trace without the tensors' values
    ),
)

# diffusers imports torchao (see above), reports that parts of it are missing, and that several distributions share the
# namespace `optimum`: optimum itself and packages with a plug-in for it, such as this one.
DIFFUSERS = Chatter(
    ("torchao", "torch.utils._pytree", "diffusers.quantizers.torchao.torchao_quantizer", "diffusers.utils.import_utils")
)


@contextmanager
def quiet(chatter: Chatter) -> Iterator[None]:
    """Within the block the loggers of `chatter` pass errors only, and its warnings are ignored."""
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


@contextmanager
def native_messages() -> Iterator[Callable[[], str]]:
    """Within the block, what native code of this process prints goes to a file; the function reads it.

    For the whole process: in a child process of its own, or where no other thread prints.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    kept = {number: os.dup(number) for number in (1, 2)}
    with tempfile.TemporaryFile() as file:

        def read() -> str:
            file.seek(0)
            return file.read().decode(errors="replace")

        try:
            for number in kept:
                os.dup2(file.fileno(), number)
            yield read
        finally:
            for number, copy in kept.items():
                os.dup2(copy, number)
                os.close(copy)
