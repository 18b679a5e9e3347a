"""One program that holds many ops, written op by op with coremltools' builder, saved and evaluated."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgegen.exporters.coreml.evaluator.program import MilEvaluator
from edgegen.formats import mlpackage


@dataclass(frozen=True)
class Results:
    """What the cases gave, by name, and the types of the ops in the saved program."""

    values: Mapping[str, list[NDArray[Any]]]
    kinds: frozenset[str]


@pytest.fixture(scope="session")
def evaluate(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Results]:
    def run(cases: Mapping[str, Any], *, target: str = "iOS17") -> Results:
        path = tmp_path_factory.mktemp("ops") / "ops.mlpackage"
        arrays = {
            f"in_{name}_{i}".replace(".", "_"): a for name, case in cases.items() for i, a in enumerate(case.inputs)
        }
        counts = _write(cases, arrays, path, target)
        evaluator = MilEvaluator(path)
        values = iter(evaluator.run(arrays).values())
        by_case = {name: [next(values) for _ in range(count)] for name, count in counts.items()}
        return Results(by_case, frozenset(step.kind for step in evaluator.program.steps))

    return run


def _write(cases: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]], path: Path, target: str) -> dict[str, int]:
    """Write the program and give the number of outputs of each case."""
    ct = mlpackage.coremltools("these tests")
    from coremltools.converters.mil import Builder as mb
    from coremltools.converters.mil.mil import Function, Placeholder, Program, types

    kinds = {"f": types.fp32, "i": types.int32}
    placeholders = {name: Placeholder(a.shape, dtype=kinds[a.dtype.kind], name=name) for name, a in arrays.items()}
    outputs: dict[str, list[Any]] = {}
    with mlpackage.silent():
        with Function(placeholders, opset_version=ct.target[target]) as function:
            variables = iter(function.inputs.values())
            for name, case in cases.items():
                made = case.body(*(next(variables) for _ in case.inputs))
                outputs[name] = list(made) if isinstance(made, (list, tuple)) else [made]
            # Core ML has no outputs of type bool, and none that is an input.
            function.set_outputs(
                [
                    mb.cast(x=var, dtype="fp32") if types.is_bool(var.dtype) else mb.identity(x=var)
                    for results in outputs.values()
                    for var in results
                ]
            )
        program = Program()
        program.add_function("main", function)
        model = ct.convert(
            program,
            minimum_deployment_target=ct.target[target],
            compute_precision=ct.precision.FLOAT32,
            pass_pipeline=ct.PassPipeline.EMPTY,  # or it would simplify the ops away
            skip_model_load=True,
        )
    mlpackage.write(model.get_spec(), Path(model.weights_dir), path)
    return {name: len(results) for name, results in outputs.items()}


@pytest.fixture(scope="session")
def compare() -> Callable[..., None]:
    def check(got: list[NDArray[Any]], case: Any) -> None:
        expected = case.reference(*(a.astype(np.float64 if a.dtype.kind == "f" else np.int64) for a in case.inputs))
        wanted = expected if len(got) > 1 else [expected]
        for have, want in zip(got, wanted, strict=True):
            assert have.shape == np.shape(want)
            np.testing.assert_allclose(have, np.asarray(want), atol=3e-6, rtol=1e-5)

    return check
