"""Fold the time: evaluate once what a one-step generator computes from its fixed time, and from its class.

The captured program is evaluated in part (`partial`), and a new one is made of what is left (`rebuilding`); so it knows
no architecture. Weights that only the time needed go, and each use of the class becomes some columns of a table.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import fx, nn
from torch.export import ExportedProgram

from edgegen.errors import ExportError
from edgegen.program.capture import capture, reference
from edgegen.program.inputs import example_inputs
from edgegen.program.parameters import parameter_count
from edgegen.program.partial_eval import Partial
from edgegen.program.rebuild import NOTHING_TO_DO, Rebuilt
from edgegen.support.vendor_logs import EXPORT, quiet
from edgegen.types import Signature

FOLD_TOLERANCE = 1e-5  # of the largest output: float32 sums in another order differ by some 1e-6
PROOF_SAMPLES = 4
ATEN = torch.ops.aten


@dataclass(frozen=True)
class Folded:
    """A one-step generator without its time branch, and the proof: `max_relative_error` against the unfolded network.

    `program` is the unfolded one, from which `fold_program` makes the same again in another process. `operations` count
    the calls in the captured program; `class_table` is the shape (classes, numbers) of the table that took the place
    of the class branch, None where there is none.
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
    """Which weight is to blame, where one is."""
    bad = [name for name, values in module.state_dict().items() if not torch.isfinite(values).all()]
    return f": so are numbers of its weight {bad[0]} ({len(bad)} such weights)" if bad else ", though its weights are"


def fold(module: nn.Module, signature: Signature, *, any_size: bool = False) -> Folded:
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
    rebuilt = _rebuilt(program, signature)
    folded = rebuilt.module()
    inputs = example_inputs(signature, batch or PROOF_SAMPLES, 0)
    expected = reference(module, inputs)
    if not np.isfinite(expected).all():
        raise ExportError(f"{type(module).__name__} gives numbers that are not finite{_not_finite(module)}")
    got = reference(folded, inputs)
    scale = max(float(abs(expected).max()), torch.finfo(torch.float32).tiny)
    error = float(abs(got - expected).max()) / scale
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
    return Folded(
        folded,
        program,
        parameters_before=parameter_count(module),
        parameters_after=parameter_count(folded),
        operations_before=_calls(rebuilt.partial.module.graph),
        operations_after=_calls(folded.graph),
        max_relative_error=error,
        class_table=rebuilt.table,
    )


def fold_program(program: ExportedProgram, signature: Signature) -> fx.GraphModule:
    """The graph that `fold` makes of a captured generator, without its proof. `program` stays as it is."""
    return _rebuilt(program, signature).module()


def _rebuilt(program: ExportedProgram, signature: Signature) -> Rebuilt:
    if any(map(_writes, program.graph.nodes)):  # takes as long as the capture, which most programs can do without
        with quiet(EXPORT):
            program = program.run_decompositions({})
    graph_module = program.module(check_guards=False)
    for node in graph_module.graph.nodes:
        # What is expanded to the batch need not have the layout of a view.
        if node.target in (ATEN.view.default, ATEN._unsafe_view.default):
            node.target = ATEN.reshape.default
    first = next(node for node in graph_module.graph.nodes if node.op == "placeholder")
    return Rebuilt(Partial(graph_module, signature, dynamic=isinstance(first.meta["val"].shape[0], torch.SymInt)))


def _writes(node: fx.Node) -> bool:
    """Whether a call changes one of its arguments in place."""
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable


def _calls(graph: fx.Graph) -> int:
    checks = (*NOTHING_TO_DO, ATEN.sym_size.int)
    return sum(node.op == "call_function" and node.target not in checks for node in graph.nodes)
