"""Which rewrite or graph pass makes a file wrong: each file runs once where it is made, and halves of them go."""

import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from edgegen import registry
from edgegen.artifacts.target import Target
from edgegen.errors import ExportError, NoRuntimeError
from edgegen.exporters.base import Backend, Session, further
from edgegen.program.inputs import CALIBRATION_FIRST, InputSource
from edgegen.program.parameters import parameter_count
from edgegen.support.isolation import deadline
from edgegen.support.pixels import to_uint8
from edgegen.types import PIXELS, Signature
from edgegen.verification.parity import check, psnr_range
from edgegen.verification.session_process import OPEN_S, SAMPLE_S
from edgegen.verification.verify import PIXELS_FLOOR_DB

if TYPE_CHECKING:
    from torch import fx

TRIALS = 4  # samples: more would find more, and each is one more run of a large network for every file
LARGE = 200_000_000  # parameters: four images of such a network at once would fill a laptop
NEEDED = ("quantized_cat", "quantized_views")  # without these more is refused, not less


def trial_inputs(graph: "fx.GraphModule", source: InputSource) -> dict[str, NDArray[Any]]:
    """What a file made of `graph` is tried with: TRIALS samples; one of a large graph, or where it takes one alone."""
    first = next(node for node in graph.graph.nodes if node.op == "placeholder")
    batch = first.meta["val"].shape[0]
    is_large = parameter_count(graph) > LARGE
    count = batch if isinstance(batch, int) else 1 if is_large else TRIALS
    return source.samples(range(CALIBRATION_FIRST, CALIBRATION_FIRST + count))


def fault_of(
    path: Path,
    target: Target,
    signature: Signature,
    inputs: Mapping[str, NDArray[Any]],
    expected: NDArray[Any],
) -> str:
    """Why the file is not what it was made from, "" where it is: each of its methods runs on `inputs`.

    Its output is compared with `expected`, what PyTorch computes of the program before all rewrites. A reason is what
    the runtime refuses, or how far the output lies below the floor of the target's cell.
    """
    backend: Backend = registry.load("backend", target.backend)
    try:
        with deadline(OPEN_S + TRIALS * SAMPLE_S, f"the first run of {path.name}"):
            session: Session = backend.open(path)
            fault = _parity_fault(session, target, signature, inputs, expected)
            for part in further(session).values() if not fault else ():
                part(inputs)
    except NoRuntimeError:
        return ""
    except ExportError as e:
        fault = str(e)
    return fault.replace(str(path), path.name)


def _parity_fault(
    session: Session,
    target: Target,
    signature: Signature,
    inputs: Mapping[str, NDArray[Any]],
    expected: NDArray[Any],
) -> str:
    floor_db, output = target.cell().floor_db, signature.outputs[0]
    if target.variant != "generate":
        data_range = psnr_range(signature, expected)
        parity = check(session, inputs, expected, floor_db=floor_db, data_range=data_range, output=output.name)
        return parity.reason
    pixels = to_uint8(expected, output.image_range)
    floor_db = min(floor_db, PIXELS_FLOOR_DB)
    return check(session, inputs, pixels, floor_db=floor_db, data_range=255.0, output=PIXELS).reason


def write_what_is_true(write: Callable[[Sequence[str]], str], kinds: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Has `write` make a file without fault, with as many of the rewrites and passes as go: which are not in it, why.

    `kinds` are lists of names, such as {"rewrites": [...], "passes": [...]}. `write` makes the file with the names that
    it is given, and says what is wrong with it ("": nothing) or raises ExportError. Where there is a fault without
    them, too, the file stays as it is with all of them, or the first error is raised. The result is empty in this case,
    and where all is well.
    """
    names = [name for kind in kinds.values() for name in kind]
    error: ExportError | None = None
    try:
        reason = write(names)
    except ExportError as e:
        if e.__cause__ is None:  # our own refusal, and no vendor's tool that failed
            raise
        error, reason = _without_frames(e), str(e)
    if not reason:
        return {}

    def is_true(left_out: Sequence[str]) -> bool:
        try:
            return not write([name for name in names if name not in left_out])
        except ExportError:
            return False

    suspects = [name for name in names if name not in NEEDED]
    if not suspects or not is_true(last := suspects):
        if error is not None:
            raise error
        write(names)
        return {}
    while len(suspects) > 1:
        middle = len(suspects) // 2
        for half in (suspects[:middle], suspects[middle:]):
            if is_true(last := half):
                suspects = half
                break
        else:  # one of each half
            break
    if last != suspects:
        is_true(suspects)
    left_out = {kind: [name for name in suspects if name in kinds[kind]] for kind in kinds}
    return {**{kind: chosen for kind, chosen in left_out.items() if chosen}, "reason": reason}


def _without_frames(error: ExportError) -> ExportError:
    """The error with its causes, without the program that their frames hold: the next one needs the memory."""
    cause: BaseException | None = error
    while cause is not None:
        traceback.clear_frames(cause.__traceback__)
        cause = cause.__cause__ or cause.__context__
    return error
