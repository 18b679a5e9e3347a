"""Graph rewrites that are mathematically equal and faster on a runtime: one file each, measured by bench_export.py.

A file has one or both of

    OPS       an ATen operator -> a function of the same arguments and result, made of other operators
    rewrite   a function that edits a captured graph in place, for patterns of several operators

and states the equation in its first lines. `apply` runs the `rewrite` functions in the order given, then replaces the
operators, and captures the result once more.
"""

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgegen.errors import ExportError, UsageError, unknown_name
from edgegen.exporters.growth import META, Growth
from edgegen.types import Signature

if TYPE_CHECKING:
    from torch import fx
    from torch.export import ExportedProgram


def names() -> list[str]:
    """All rewrites there are."""
    return sorted(path.stem for path in Path(__file__).parent.glob("[!_]*.py"))


def apply(
    graph_module: "fx.GraphModule",
    rewrites: Sequence[str],
    *,
    signature: Signature,
    batch: int | None,
    any_size: bool = False,
    growth: Growth | None = None,
) -> "ExportedProgram":
    """The program of a graph after `rewrites`, which change it; `batch` and `any_size` as in `capture`.

    `growth` bounds the weights that they add, and notes what stayed as it was; None is that of `Export`.
    Raises UsageError for an unknown name, ExportError where a rewrite fails on this program.
    """
    from edgegen.program.capture import capture, note_shapes
    from edgegen.program.module_paths import RetracedModule

    for constant in (*graph_module.parameters(), *graph_module.buffers()):
        constant.data = constant.data.contiguous()  # a network may be channels-last for a GPU
    modules = [_load(name) for name in rewrites]
    if modules and batch is not None:  # rewrites read shapes, and a symbolic batch is unknown to them
        if any_size:
            program = capture(graph_module, signature, batch=batch, any_size=True)
            graph_module = program.module(check_guards=False)
        else:
            note_shapes(graph_module, signature, batch)
    if growth is not None:
        graph_module.meta[META] = growth
    operators: dict[Any, Callable[..., Any]] = {}
    for name, module in zip(rewrites, modules, strict=True):
        if hasattr(module, "rewrite"):
            try:
                module.rewrite(graph_module)
            except Exception as e:
                raise ExportError(f"the rewrite {name} fails on this program: {e}") from e
        operators |= getattr(module, "OPS", {})
    graph_module.meta.pop(META, None)
    graph_module.graph.eliminate_dead_code()
    graph_module.recompile()
    return capture(RetracedModule(graph_module, operators).eval(), signature, batch=batch, any_size=any_size)


def _load(name: str) -> Any:
    if name not in names():
        raise UsageError(unknown_name("rewrite", name, names()))
    return importlib.import_module(f"{__name__}.{name}")
