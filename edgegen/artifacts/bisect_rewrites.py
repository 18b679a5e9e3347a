"""Which rewrite makes a file that its runtime refuses: each file runs once where it is made, and halves of them go."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from edgegen import registry
from edgegen.artifacts.target import Target
from edgegen.errors import ExportError, NoRuntimeError
from edgegen.exporters.base import Backend, Session
from edgegen.program.inputs import example_inputs
from edgegen.support.isolation import deadline
from edgegen.types import Signature
from edgegen.verification.session_process import OPEN_S, SAMPLE_S

NEEDED = ("quantized_cat", "quantized_views")  # without these more is refused, not less


def refusal_of(path: Path, target: Target, signature: Signature) -> str:
    """Why the runtime refuses the file: each method runs once, on one sample. "" where it runs, or none is here."""
    backend: Backend = registry.load("backend", target.backend)
    if not backend.runs_here():
        return ""
    try:
        with deadline(OPEN_S + SAMPLE_S, f"the first run of {path.name}"):
            session: Session = backend.open(path)
            for method in (session, getattr(session, "generate", None)):
                if method is not None:
                    method(example_inputs(signature, 1, 0))
    except NoRuntimeError:
        return ""
    except ExportError as e:
        return str(e).replace(str(path), path.name)
    return ""


def write_what_runs(write: Callable[[Sequence[str]], str], rewrites: Sequence[str]) -> dict[str, Any]:
    """Has `write` make a file that runs, with as many of the rewrites as go: which were left out, and why.

    `write` makes the file with the rewrites that it is given, and says why the runtime refuses it ("": it runs). Where
    it is refused without rewrites, too, the file stays as it is with all of them; empty in this case, and where all is
    well.
    """
    reason = write(rewrites)
    if not reason:
        return {}

    def runs(left_out: Sequence[str]) -> bool:
        try:
            return not write([name for name in rewrites if name not in left_out])
        except ExportError:  # the vendor's tool refuses already
            return False

    suspects = [name for name in rewrites if name not in NEEDED]
    if not suspects or not runs(last := suspects):
        write(rewrites)
        return {}
    while len(suspects) > 1:
        middle = len(suspects) // 2
        for half in (suspects[:middle], suspects[middle:]):
            if runs(last := half):
                suspects = half
                break
        else:  # one of each half
            break
    if last != suspects:
        runs(suspects)
    return {"rewrites": suspects, "reason": reason}
