"""Capture: torch.export of a one-step generator, the program that every backend lowers; and PyTorch's own output."""

import contextlib
import copy
import inspect
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.export import Dim, ExportedProgram
from torch.fx.passes.fake_tensor_prop import FakeTensorProp

from edgegen.errors import ExportError
from edgegen.program import module_paths
from edgegen.program.inputs import example_inputs
from edgegen.program.padding import in_numbers
from edgegen.support.vendor_logs import EXPORT, quiet
from edgegen.types import Signature


def reference(module: nn.Module, inputs: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
    """What PyTorch computes in float32 on the CPU: its output (batch, ...), of inputs in the signature's order."""
    tensors = [torch.tensor(values) for values in inputs.values()]  # copies: a network may write into its inputs
    with torch.no_grad():
        out: Tensor = _eval_on_cpu(module)(*tensors)
    return out.numpy()


def _eval_on_cpu(module: nn.Module) -> nn.Module:
    """`module` in evaluation mode on the CPU; a copy only where it must be, since a large one would not fit twice."""
    # A captured graph has its types in its operators: what it reads in half precision stays so.
    is_graph = isinstance(module, fx.GraphModule | module_paths.RetracedModule)
    dtypes = (torch.float32, torch.int64)
    on_cpu = all(p.device.type == "cpu" and (is_graph or p.dtype in dtypes) for p in module.parameters())
    if on_cpu and not _in_training(module):
        return module
    return copy.deepcopy(module).cpu().float().eval()


def _in_training(module: nn.Module) -> bool:
    """Whether a part is in training mode. A captured graph has its mode in its operators; its flags say nothing."""
    if isinstance(module, fx.GraphModule):
        return False
    return module.training or any(_in_training(part) for part in module.children())


def capture(module: nn.Module, signature: Signature, *, batch: int | None, any_size: bool = False) -> ExportedProgram:
    """torch.export of `module` on the CPU in evaluation mode; `batch` None gives a dynamic batch axis.

    The inputs keep the signature's order.

    Args:
        module: a one-step generator: forward takes the signature's inputs and gives its output.
        signature: names, shapes and roles of the inputs and the output.
        batch: a fixed batch size, or None.
        any_size: whether height and width are dynamic as well.

    Returns:
        The program that every backend lowers.

    Raises:
        ExportError: the module does not run on the signature's inputs, gives another shape, or cannot be exported.
    """
    module = _eval_on_cpu(module)
    if isinstance(module, fx.GraphModule):
        module = module_paths.RetracedModule(module, {})
    is_retraced = isinstance(module, module_paths.RetracedModule)  # it ran when it was captured for the first time
    # Two samples, because torch.export takes an axis of size 1 for a constant.
    count = batch or 2
    if any_size:
        signature = _oblong(signature)
    arrays = example_inputs(signature, count, 0)
    inputs = tuple(torch.from_numpy(arrays[spec.name]) for spec in signature.inputs)
    # Not Dim(min=1): diffusers' networks ask whether the batch is 64 or more, and choose a memory layout by it.
    dynamic = [(() if batch else (0,)) + ((2, 3) if any_size and s.is_spatial else ()) for s in signature.inputs]
    shapes: Any = tuple(dict.fromkeys(axes, Dim.DYNAMIC) for axes in dynamic) if any(dynamic) else None
    if shapes and any(p.kind is p.VAR_POSITIONAL for p in inspect.signature(module.forward).parameters.values()):
        shapes = (shapes,)  # torch.export counts *inputs as one argument
    try:
        with torch.no_grad():
            out = None if is_retraced else module(*inputs)
        # Where control flow depends on data it prints the whole graph, more than once; the exception is enough.
        with torch.no_grad(), quiet(EXPORT), contextlib.redirect_stderr(io.StringIO()):
            program = module_paths.export(module, inputs, shapes)
    except Exception as e:
        size = " for any size (perhaps it takes only its own)" if any_size else ""
        raise ExportError(f"torch.export could not capture {type(module).__name__}{size}: {_reason(e)}") from e
    _refuse_bfloat16(program, type(module).__name__)
    in_numbers(program.graph)
    program.graph_module.recompile()
    if is_retraced:
        return program
    expected = (count, *signature.outputs[0].shape[1:])
    if not isinstance(out, Tensor) or tuple(out.shape) != expected:
        actual = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
        raise ExportError(
            f"{type(module).__name__} gives {actual} for noise {tuple(inputs[0].shape)}; its signature says {expected}"
        )
    return program


def try_sizes(module: nn.Module, signature: Signature, sizes: Sequence[tuple[int, int]]) -> None:
    """Raises ExportError for a (height, width) that the network does not take, before minutes of work on a file."""
    for height, width in sizes:
        try:
            reference(module, example_inputs(signature.resized(height, width), 1, 0))
        except (RuntimeError, ValueError) as e:
            raise ExportError(f"the network does not take {height}x{width}: {_reason(e)}") from e


def _refuse_bfloat16(program: ExportedProgram, name: str) -> None:
    """Raises ExportError where a program computes in bfloat16, or under autocast: hardly a runtime has either."""
    for node in program.graph.nodes:
        value = node.meta.get("val")
        if "wrap_with_autocast" in str(node.target):
            kind = "under torch.autocast"
        elif isinstance(value, Tensor) and value.dtype == torch.bfloat16:
            kind = f"in bfloat16 ({node.name})"
        else:
            continue
        raise ExportError(
            f"{name} computes {kind}: take that out of its forward; a file in fp16 is a scheme of its own"
        )


def note_shapes(graph_module: fx.GraphModule, signature: Signature, batch: int) -> None:
    """Writes each node's output for a fixed batch size into its `meta["val"]`, in place of that of a symbolic batch."""
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    arrays = example_inputs(signature, batch, 0)
    inputs = [mode.from_tensor(torch.from_numpy(arrays[spec.name])) for spec in signature.inputs]
    with torch.no_grad():
        FakeTensorProp(graph_module, mode).propagate_dont_convert_inputs(*inputs)


def _oblong(signature: Signature) -> Signature:
    """At another size, of unequal height and width: a network that takes only its own size fails there."""
    noise = signature.inputs[0]
    try:
        return signature.resized(int(noise.shape[2]), 2 * int(noise.shape[3]))
    except (IndexError, ValueError) as e:
        raise ExportError(f"no file for any size: {noise.name} {list(noise.shape)} is no image") from e


def _reason(error: Exception) -> str:
    """Why torch.export failed, in one line; its own text can fill a page."""
    text = str(error).strip() or type(error).__name__
    if "data-dependent" in text or "GuardOnDataDependent" in type(error).__name__:
        return (
            "its control flow depends on the values of a tensor (an `if` or a loop over data), and an exported "
            "program has one path only; choose by torch.where instead, or take the choice out of forward. "
            f"{text.splitlines()[0]}"
        )
    return text.splitlines()[0]
