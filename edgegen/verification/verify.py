"""A file against PyTorch on the same inputs: its float output, its uint8 image, and every size of picture it takes."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from edgegen import registry
from edgegen.errors import ExportError, NoRuntimeError
from edgegen.exporters.base import Session, Variant, further, in_parts
from edgegen.program.capture import reference
from edgegen.program.float16_range import overflow
from edgegen.program.generator import Generator
from edgegen.quantize.support_matrix import cell
from edgegen.recipe import FLOAT_SCHEMES
from edgegen.support.pixels import to_float, to_uint8
from edgegen.types import PIXELS, Artifact, Parity
from edgegen.verification.parity import UNTRAINED, check, is_stated, psnr_range, share_beyond
from edgegen.verification.session_process import SessionProcess

PIXELS_FLOOR_DB = 40.0  # of uint8 images: a value on the edge between two bytes may fall to either side
REAL_SAMPLES = 24  # of the inputs that a user gave: so many are compared
SIMULATED = 4  # samples, where a simulator runs: half a minute each of a network of 15.7 M parameters on 32x32 images
SIZED = 2  # samples of every further size of picture
TOLD = (".onnx", ".pte")  # files that say what they multiply
TOGETHER = 2  # samples in one run: shows the batch axis; eight of a large net's attention maps would fill a laptop
Size = tuple[int, int]  # height and width of the generator's first input


class Verifier:
    """One generator's answers to `samples` inputs, which every file of it must give, too.

    They are those that the user gave, at most REAL_SAMPLES of them, and else drawn from `seed`.

    The files are opened and run in one child process, which ends with the `with` statement.
    """

    def __init__(
        self,
        generator: Generator,
        *,
        samples: int,
        seed: int,
        sizes: Sequence[Size] = (),
        memory_limit: int | None = None,
    ) -> None:
        """`sizes` are those of `Export.heights_widths`; `memory_limit` in bytes is the child's, see SessionProcess."""
        self.generator, self.signature = generator, generator.signature
        self.source = generator.inputs(seed)
        self.samples = max(samples, REAL_SAMPLES) if self.source.origin == "real" else samples
        self.sizes = sizes
        self.output = self.signature.outputs[0].name
        # As many threads as here: the evaluator computes with torch, whose sums depend on them.
        self.process = SessionProcess(threads=torch.get_num_threads(), memory_limit=memory_limit)
        self._expected = cache(self._compute)

    def __enter__(self) -> "Verifier":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.process.close()

    def __call__(self, artifact: Artifact, path: Path) -> tuple[Parity, Session | None]:
        """How true the file is (the worst of all that it can do), and a session of it that gives the float output.

        "not checked" where nothing on this machine runs such files; "failed" where a runtime refused this one or died
        of it. None in place of a session in both cases; a session is good until the next call.
        """
        cell_of_file = cell(artifact.scheme, artifact.backend, artifact.variant)
        kind: Variant = registry.load("backend", artifact.backend).variants[artifact.variant]
        method = f"{artifact.backend}, before it gave a number"
        try:
            session: Session = _InPairs(self.process.open(artifact.backend, path))
            method = session.method
            if artifact.variant == "generate":
                session = _AsFloat(session, self.output)
            checks = self._compare(artifact, session, kind, cell_of_file.floor_db)
            is_told = kind.cells or artifact.scheme not in FLOAT_SCHEMES
            arithmetic = self.process.arithmetic(artifact.backend, path) if is_told and path.suffix in TOLD else ""
        except NoRuntimeError as e:
            return Parity.not_checked(_without_path(e, path), cell_of_file.floor_db), None
        except ExportError as e:
            return Parity("failed", method, cell_of_file.floor_db, reason=_without_path(e, path)), None
        failed = [check for check in checks if check.status != "ok"]
        worst = failed[0] if failed else min(checks, key=lambda check: check.psnr_db or 0.0)
        if failed and "fp16" in (artifact.scheme, cell_of_file.precision):
            worst = replace(worst, reason=worst.reason + self._overflow(artifact))
        return replace(worst, arithmetic=arithmetic), session

    def prepare(self) -> None:
        """Starts the child and computes PyTorch's answers now, and not when the first file is there."""
        self.process.start()
        self._expected(None)

    def _overflow(self, artifact: Artifact) -> str:
        """Which layer float16 is too small for, to be added to the reason of a failure; "" where it is not that."""
        reason = overflow(self.generator.folded().module, [self._expected(None)[0]])
        if not reason:
            return ""
        kept = artifact.details.get("float32_layers")
        remedy = 'set [export] fp16 = "safe", which leaves such layers in float32' if kept is None else "take fp32"
        return f": {reason}; {remedy}"

    def _compare(self, artifact: Artifact, session: Session, kind: Variant, floor_db: float) -> list[Parity]:
        if isinstance(session, _AsFloat):
            return [self._compare_pixels(session, floor_db)]
        inputs, expected = self._expected(None)
        if kind.simulator:
            inputs = {name: values[:SIMULATED] if values.ndim else values for name, values in inputs.items()}
            expected = expected[:SIMULATED]
        checks = [self._check(session, inputs, expected, floor_db)]
        for name, part in further(session).items() if checks[0].status == "ok" else ():
            if name != "generate":
                checks.append(self._check(part, inputs, expected, floor_db))
                continue
            # Listed only where it fails: a few rounded pixels would hide how true the float output is.
            pixels = self._compare_pixels(_AsFloat(part, self.output), floor_db)
            if pixels.status != "ok":
                checks.append(replace(pixels, reason=f"the uint8 images of generate: {pixels.reason}"))
        checks += [self._check(session, *self._expected(size), floor_db) for size in self._further_sizes(kind)]
        return checks

    def _compare_pixels(self, session: "_AsFloat", floor_db: float) -> Parity:
        inputs, expected = self._expected(None)
        low, high = self.signature.outputs[0].image_range
        images = to_float(to_uint8(expected, (low, high))).numpy()
        floor_db = min(floor_db, PIXELS_FLOOR_DB)
        origin = self.source.origin
        parity = check(session, inputs, images, floor_db=floor_db, output=self.output, origin=origin, images=True)
        beyond = share_beyond(self.signature, expected)
        if parity.status != "failed" or beyond <= UNTRAINED:
            return parity
        # What is left of the range is a small part of it, and every error that part's size.
        lost = f"{beyond:.0%} of PyTorch's own numbers lie beyond {low:g} to {high:g} and are cut off"
        return replace(parity, reason=f"{parity.reason}; {lost}: is the network trained?")

    def _check(
        self, session: Session, inputs: Mapping[str, NDArray[Any]], expected: NDArray[np.float32], floor_db: float
    ) -> Parity:
        data_range = psnr_range(self.signature, expected)
        parity = check(
            session,
            inputs,
            expected,
            floor_db=floor_db,
            data_range=data_range,
            output=self.output,
            origin=self.source.origin,
            images=self.signature.makes_images,
        )
        return replace(parity, range_of="signature" if is_stated(self.signature, expected) else "outputs")

    def _further_sizes(self, kind: Variant) -> Sequence[Size]:
        """Those that the file lists; of a file for any size two: oblong, and twice as large."""
        if not kind.any_size:
            return ()
        if kind.lists_sizes:
            return self.sizes
        height, width = (int(size) for size in self.signature.inputs[0].shape[2:])
        return [(height, 2 * width), (2 * height, 2 * width)]

    def _compute(self, size: Size | None) -> tuple[dict[str, NDArray[Any]], NDArray[np.float32]]:
        """Inputs, and what PyTorch computes of them: at the signature's size (None), or another one."""
        if size is None:
            inputs = self.source.examples(self.samples)
            return inputs, reference(self.generator.folded().module, inputs)
        inputs = self.source.resized(*size).examples(min(SIZED, self.samples))
        return inputs, reference(self.generator.folded(any_size=True).module, inputs)


def _without_path(error: Exception, path: Path) -> str:
    """The reason goes into manifest.json, which holds no path of this machine."""
    return str(error).replace(str(path), path.name)


class _InPairs:
    """A session that runs TOGETHER samples at a time, and what is further in it as well."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.method = session.method
        self.further = {name: _InPairs(part) for name, part in further(session).items()}

    def __call__(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        return in_parts(inputs, self.session, largest=TOGETHER)


class _AsFloat:
    """A session whose uint8 image is an image in [-1, 1] again, to be compared."""

    def __init__(self, session: Session, output: str) -> None:
        self.session, self.output = session, output
        self.method = f"{session.method}, method generate"

    def __call__(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        return {self.output: to_float(np.asarray(self.session(inputs)[PIXELS])).numpy()}
