"""Fold the time: evaluate once what a one-step generator computes from its fixed time, and from its class.

The captured program is evaluated in part (`partial_eval`), and a new one is made of the rest (`rebuild`), which works
for any architecture. Weights that only the time needed are removed; each use of the class becomes columns of a table.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import fx, nn
from torch.export import ExportedProgram

from edgegen.errors import ExportError
from edgegen.program.batch_norm import fold_batch_norms
from edgegen.program.capture import capture, reference
from edgegen.program.inputs import example_inputs
from edgegen.program.parameters import parameter_count
from edgegen.program.partial_eval import PartialEvaluation
from edgegen.program.rebuild import NOTHING_TO_DO, GraphRebuilder
from edgegen.support.vendor_logs import EXPORT, quiet
from edgegen.types import Signature

FOLD_TOLERANCE = 1e-5  # of the largest output: float32 sums in another order differ by some 1e-6
PROOF_SAMPLES = 4
ATEN = torch.ops.aten


@dataclass(frozen=True)
class FoldResult:
    """A one-step generator without its time branch, and its `max_relative_error` against the unfolded network.

    `program` is the unfolded one, of which `fold_program` makes the same module in another process. `operations` count
    the calls in the captured program; `class_table` is the shape (classes, numbers) of the table that replaces the
    class branch, None where there is none.
    """

    module: fx.GraphModule
    program: ExportedProgram
    parameters_before: int
    parameters_after: int
    operations_before: int
    operations_after: int
    max_relative_error: float
    class_table: tuple[int, int] | None = None

    def facts(self) -> dict[str, Any]:
        """The numbers, as plain data for a file."""
        return {key: value for key, value in vars(self).items() if key not in ("module", "program")}

    def sentence(self) -> str:
        """What folding did, in words."""
        numbers = (self.parameters_before, self.operations_before), (self.parameters_after, self.operations_after)
        if numbers[0] == numbers[1] and self.class_table is None:
            return "Nothing to fold: no part of it depends on a fixed time alone."
        table = self.class_table
        table_of = f" A table of {table[0]} classes x {table[1]} numbers stands for the class branch." if table else ""
        return (
            f"Folded: {self.parameters_before:,} -> {self.parameters_after:,} parameters, {self.operations_before} -> "
            f"{self.operations_after} operations, largest relative error {self.max_relative_error:.1e}.{table_of}"
        )


def _not_finite(module: nn.Module) -> str:
    """Which weight is not finite, where one is: the end of a message."""
    bad = [name for name, values in module.state_dict().items() if not torch.isfinite(values).all()]
    return f": so are numbers of its weight {bad[0]} ({len(bad)} such weights)" if bad else ", though its weights are"


def fold(module: nn.Module, signature: Signature, *, any_size: bool = False) -> FoldResult:
    """Fold what `module` computes from constants and classes; the result takes the same inputs and any batch.

    `module` stays as it is. Where torch.export cannot give it a dynamic batch, the result has batch 1 and its class
    branch stays.

    Args:
        module: a one-step generator.
        signature: of its inputs and output.
        any_size: whether the result takes any height and width that `module` takes; what depends on them, such as an
            embedding of positions, is then not folded.

    Returns:
        The folded module, with what was removed and the largest relative error.

    Raises:
        ExportError: it cannot be captured, or the folded generator differs by more than FOLD_TOLERANCE (max abs
            difference / max abs reference).
    """
    try:
        program, batch = capture(module, signature, batch=None, any_size=any_size), None
    except ExportError:
        program, batch = capture(module, signature, batch=1, any_size=any_size), 1
    rebuilder = _rebuilder(program, signature)
    folded = _folded(rebuilder)
    inputs = example_inputs(signature, batch or PROOF_SAMPLES, 0)
    expected = reference(module, inputs)
    if not np.isfinite(expected).all():
        raise ExportError(f"{type(module).__name__} gives numbers that are not finite{_not_finite(module)}")
    actual = reference(folded, inputs)
    scale = max(float(abs(expected).max()), torch.finfo(torch.float32).tiny)
    error = float(abs(actual - expected).max()) / scale
    if not error <= FOLD_TOLERANCE and not np.array_equal(expected, reference(module, inputs)):
        raise ExportError(
            f"{type(module).__name__} gives something else at every run: take the random numbers out of forward, or "
            "make them an input"
        )
    if not error <= FOLD_TOLERANCE:  # so that NaN fails
        raise ExportError(
            f"folding the time of {type(module).__name__} changed it: the largest relative error is {error:.2e} on "
            f"{len(expected)} samples, {FOLD_TOLERANCE:.0e} is allowed"
        )
    return FoldResult(
        folded,
        program,
        parameters_before=parameter_count(module),
        parameters_after=parameter_count(folded),
        operations_before=_calls(rebuilder.evaluation.module.graph),
        operations_after=_calls(folded.graph),
        max_relative_error=error,
        class_table=rebuilder.table,
    )


def fold_program(program: ExportedProgram, signature: Signature) -> fx.GraphModule:
    """The graph that `fold` makes of a captured generator, without its proof. `program` stays as it is."""
    return _folded(_rebuilder(program, signature))


def _folded(rebuilder: GraphRebuilder) -> fx.GraphModule:
    module = rebuilder.module()
    fold_batch_norms(module)
    return module


def _rebuilder(program: ExportedProgram, signature: Signature) -> GraphRebuilder:
    if any(map(_writes, program.graph.nodes)):  # as slow as a capture, and most programs do not need it
        with quiet(EXPORT):
            program = program.run_decompositions({})
    graph_module = program.module(check_guards=False)
    for node in graph_module.graph.nodes:
        # A tensor that was expanded to the batch may not have the layout that a view needs.
        if node.target in (ATEN.view.default, ATEN._unsafe_view.default):
            node.target = ATEN.reshape.default
    noise = next(node for node in graph_module.graph.nodes if node.op == "placeholder")
    dynamic = isinstance(noise.meta["val"].shape[0], torch.SymInt)
    return GraphRebuilder(PartialEvaluation(graph_module, signature, dynamic=dynamic))


def _writes(node: fx.Node) -> bool:
    """Whether a call changes one of its arguments in place."""
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable


def _calls(graph: fx.Graph) -> int:
    checks = (*NOTHING_TO_DO, ATEN.sym_size.int)
    return sum(node.op == "call_function" and node.target not in checks for node in graph.nodes)
