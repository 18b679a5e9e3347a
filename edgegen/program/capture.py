"""From a trained velocity field to the one program that every backend lowers: one step, time folded, torch.export."""

import contextlib
import copy
import inspect
import io
from collections.abc import Mapping
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
        out: Tensor = _ready(module)(*tensors)
    return out.numpy()


def _ready(module: nn.Module) -> nn.Module:
    """`module` in evaluation mode on the CPU; itself where it is already: a big one would not fit twice."""
    # A captured graph has its types in its operators: what it reads in half precision stays so.
    is_graph = isinstance(module, fx.GraphModule | module_paths.Retraced)
    kinds = (torch.float32, torch.int64)
    kept = all(p.device.type == "cpu" and (is_graph or p.dtype in kinds) for p in module.parameters())
    if kept and not _trains(module):
        return module
    return copy.deepcopy(module).cpu().float().eval()


def _trains(module: nn.Module) -> bool:
    """Whether a part is in training mode. A captured graph has its mode in its operators; its flags say nothing."""
    if isinstance(module, fx.GraphModule):
        return False
    return module.training or any(_trains(part) for part in module.children())


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
    module = _ready(module)
    if isinstance(module, fx.GraphModule):
        module = module_paths.Retraced(module, {})
    known = isinstance(module, module_paths.Retraced)  # it ran when it was captured for the first time
    # Two samples, because torch.export takes an axis of size 1 for a constant.
    count = batch or 2
    if any_size:
        signature = _oblong(signature)
    arrays = example_inputs(signature, count, 0)
    inputs = tuple(torch.from_numpy(arrays[spec.name]) for spec in signature.inputs)
    # Not Dim(min=1): diffusers' nets ask whether the batch is 64 or more, and choose a memory layout by it.
    dynamic = [(() if batch else (0,)) + ((2, 3) if any_size and s.is_spatial else ()) for s in signature.inputs]
    shapes: Any = tuple(dict.fromkeys(axes, Dim.DYNAMIC) for axes in dynamic) if any(dynamic) else None
    if shapes and any(p.kind is p.VAR_POSITIONAL for p in inspect.signature(module.forward).parameters.values()):
        shapes = (shapes,)  # torch.export counts *inputs as one argument
    try:
        with torch.no_grad():
            out = None if known else module(*inputs)
        # What depends on data it prints as a whole graph, more than once; the exception says it in words.
        with torch.no_grad(), quiet(EXPORT), contextlib.redirect_stderr(io.StringIO()):
            program = module_paths.export(module, inputs, shapes)
    except Exception as e:
        size = " for any size (perhaps it takes only its own)" if any_size else ""
        raise ExportError(f"torch.export could not capture {type(module).__name__}{size}: {_reason(e)}") from e
    _refuse_bfloat16(program, type(module).__name__)
    in_numbers(program.graph)
    program.graph_module.recompile()
    if known:
        return program
    wanted = (count, *signature.outputs[0].shape[1:])
    if not isinstance(out, Tensor) or tuple(out.shape) != wanted:
        found = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
        raise ExportError(
            f"{type(module).__name__} gives {found} for noise {tuple(inputs[0].shape)}; its signature says {wanted}"
        )
    return program


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
    """Notes in `meta["val"]` of every node what it gives for a batch of that many, in place of a symbolic batch."""
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    arrays = example_inputs(signature, batch, 0)
    inputs = [mode.from_tensor(torch.from_numpy(arrays[spec.name])) for spec in signature.inputs]
    with torch.no_grad():
        FakeTensorProp(graph_module, mode).propagate_dont_convert_inputs(*inputs)


def _oblong(signature: Signature) -> Signature:
    """At another size than its own: a network that takes only that shows it, and height and width differ."""
    first = signature.inputs[0]
    try:
        return signature.resized(int(first.shape[2]), 2 * int(first.shape[3]))
    except (IndexError, ValueError) as e:
        raise ExportError(f"no file for any size: {first.name} {list(first.shape)} is no picture") from e


def _reason(error: Exception) -> str:
    """Why torch.export gave up, in a line; its own text can fill a page."""
    text = str(error).strip() or type(error).__name__
    if "data-dependent" in text or "GuardOnDataDependent" in type(error).__name__:
        return (
            "its control flow depends on the values of a tensor (an `if` or a loop over data), and an exported "
            "program has one path only; choose by torch.where instead, or take the choice out of forward. "
            f"{text.splitlines()[0]}"
        )
    return text.splitlines()[0]
