"""Leaves out work of ExecuTorch's lowering that no file depends on: two fifths of its time, with the same bytes.

A lowering runs some sixty passes over a graph. After each, torch.fx writes and compiles Python source of the graph,
which hardly anything runs; the passes over the method `generate` run the whole delegated network for the shape of its
output; and every copy of a node copies the record of all passes before it.
"""

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any


@contextmanager
def without_needless_work() -> Iterator[None]:
    """Within, a lowering does less. It changes torch's functions for the whole process: not for threads at once."""
    with ExitStack() as stack:
        for change in (_shared_history, _source_on_demand, _remembered_outputs):
            stack.enter_context(change())
        yield


@contextmanager
def _shared_history() -> Iterator[None]:
    """Lets copies of a node share its record of origin, which nothing changes once it is written.

    torch copies it whole for every node in each pass, longer every time: a fifth of the lowering of a network of
    15.7 M parameters.
    """
    from torch.fx.traceback import NodeSource

    NodeSource.__deepcopy__ = lambda self, memo: self  # type: ignore[attr-defined]
    try:
        yield
    finally:
        del NodeSource.__deepcopy__  # type: ignore[attr-defined]


@contextmanager
def _source_on_demand() -> Iterator[None]:
    """Lets a graph write its source when something runs or prints it: 5 of 309 times with the demo's student.

    A graph has a class of its own, and that gets a `forward` and a `_code` which write the source and then are gone,
    so that a graph made here is complete after the block, too.
    """
    from torch.fx import GraphModule

    recompile = GraphModule.recompile

    def write_source(self: GraphModule) -> None:
        if isinstance(vars(type(self)).get("_code"), property):
            delattr(type(self), "_code")
            recompile(self)  # replaces `forward`

    def forward(self: GraphModule, *args: Any, **kwargs: Any) -> Any:
        write_source(self)
        return self.forward(*args, **kwargs)

    def code(self: GraphModule) -> str:
        write_source(self)
        return str(self._code)

    def recompile_later(self: GraphModule) -> None:
        info = getattr(self.graph._codegen, "pytree_info", None)
        if info is not None:
            self._in_spec, self._out_spec = info.in_spec, info.out_spec
        own = type(self)
        own.forward, own._code = forward, property(code)

    GraphModule.recompile = recompile_later  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        GraphModule.recompile = recompile  # type: ignore[method-assign]


@contextmanager
def _remembered_outputs() -> Iterator[None]:
    """Lets a delegate remember what its outputs look like, in place of running its network without numbers again.

    A file has static shapes, so they are the same at each of some fifteen times.
    """
    import torch
    from torch._higher_order_ops import executorch_call_delegate
    from torch._subclasses.fake_tensor import FakeTensor

    module = sys.modules[type(executorch_call_delegate).__module__]  # the package has the operator under its name
    run = module.call_delegate_cpu
    known: dict[Any, list[tuple[Any, ...]]] = {}

    def remembered(delegate: Any, *args: Any) -> Any:
        if not args or not all(isinstance(value, FakeTensor) for value in args):
            return run(delegate, *args)
        if delegate not in known:
            outputs = run(delegate, *args)
            known[delegate] = [(value.shape, value.stride(), value.dtype) for value in outputs]
            return outputs
        with args[0].fake_mode:
            return tuple(torch.empty_strided(size, stride, dtype=dtype) for size, stride, dtype in known[delegate])

    module.call_delegate_cpu = remembered  # type: ignore[attr-defined]
    try:
        yield
    finally:
        module.call_delegate_cpu = run  # type: ignore[attr-defined]
