"""One artifact from one generator: capture, quantize, rewrite, lower in a process of its own, and a manifest."""

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgegen import registry
from edgegen.artifacts.target import Target
from edgegen.errors import ExportError
from edgegen.exporters.base import DEFAULTS, Backend, LowerOptions, Variant
from edgegen.quantize.calibration import calibration_batches, enough_samples, fitting_batch
from edgegen.quantize.schemes import AS_USUAL, QuantizeOptions
from edgegen.quantize.support_matrix import cell
from edgegen.support import isolation
from edgegen.support.storage import atomic_path, nbytes_of, sha256_of
from edgegen.support.vendor_logs import EXPORT, quiet
from edgegen.types import Artifact, Parity, Signature

if TYPE_CHECKING:
    from torch import nn
    from torch.export import ExportedProgram

CANONICAL = ("resampling", "pointwise", "conv_bias")  # the rewrites that come before a quantization of the program


@dataclass(frozen=True)
class Built:
    """An artifact, and what making it took: not part of the manifest, which repeats byte by byte."""

    artifact: Artifact
    seconds: float
    peak_rss_bytes: int | None


def build(
    module: "nn.Module",
    signature: Signature,
    *,
    name: str,
    target: Target,
    folder: Path,
    seed: int,
    metadata: Mapping[str, str],
    quantization: QuantizeOptions = AS_USUAL,
    options: LowerOptions = DEFAULTS,
    rewrites: Sequence[str] | None = None,
    memory_limit: int | None = None,
) -> Built:
    """Write the file of a folded one-step `module` into `folder`, replacing an older one.

    All that a vendor's tool does happens in a child process.

    Args:
        module: the folded generator; a variant of any size needs one folded so.
        signature: of its inputs and output.
        name: first part of the file's name.
        target: runtime, scheme and variant.
        folder: where the file goes.
        seed: draws the calibration's noise.
        metadata: goes into the file under edgegen's namespace, with name, backend and scheme added.
        quantization: how the numbers of a compressed file are chosen.
        options: of the file itself: opset, oldest system, sizes.
        rewrites: names of edgegen.exporters.rewrites; None takes the backend's own.
        memory_limit: bytes that the child process may hold; None: no limit.

    Returns:
        The artifact's record, and the seconds and memory that it took.

    Raises:
        UsageError: an unknown backend, an empty cell or an unknown layer.
        ExportError: a vendor's tool failed or died.
        StorageError: the disk refused.
    """
    kind, chosen = target.kind(), cell(target.scheme, target.backend)
    samples = (quantization.samples or enough_samples(signature)) if chosen.calibrated else 0
    backend: Backend = registry.load("backend", target.backend)
    file = target.file(name)
    if kind.lists_sizes:
        _try_sizes(module, signature, options.heights_widths)
    with tempfile.TemporaryDirectory(prefix="edgegen-") as temporary:
        program = Path(temporary) / "program.pt2"
        # What is calibrated runs whole batches, whatever its file takes.
        _save(module, signature, kind, None if chosen.stage == "program" else kind.batch, program)
        made = Path(temporary) / "made"
        made.mkdir()
        outcome = isolation.call(
            "edgegen.artifacts.build:lower",
            {
                "program": str(program),
                "signature": signature.to_dict(),
                "target": asdict(target),
                "path": str(made / file),
                "metadata": {
                    **metadata,
                    "name": name,
                    "backend": target.backend,
                    "scheme": target.scheme,
                    "precision": chosen.precision if chosen.stage == "float" else target.scheme,
                },
                "options": asdict(options),
                "rewrites": list(backend.rewrites if rewrites is None else rewrites),
                "quantization": {**asdict(quantization), "samples": samples},
                "seed": seed,
            },
            memory_limit=memory_limit,
        )
        extra: dict[str, dict[str, Any]] = {
            path.name: {"nbytes": nbytes_of(path), "sha256": sha256_of(path)}
            for path in sorted(made.iterdir())
            if path.name != file
        }
        for one in (*extra, file):  # the file itself last: where it is, all is there
            with atomic_path(folder / one) as path:
                shutil.move(made / one, path)
    artifact = Artifact(
        file=file,
        backend=target.backend,
        scheme=target.scheme,
        nbytes=nbytes_of(folder / file) + extra.get(f"{file}.data", {}).get("nbytes", 0),
        sha256=sha256_of(folder / file),
        engine=chosen.engine,
        variant=target.variant,
        details={
            "batch": kind.batch,
            "precision": chosen.precision,
            "calibration_samples": samples,
            "extra_files": extra,
            **({"caution": chosen.caution} if chosen.caution else {}),
            **({"heights_widths": list(options.heights_widths)} if kind.lists_sizes else {}),
        },
    )
    return Built(artifact, outcome.seconds, outcome.peak_rss_bytes)


def _try_sizes(module: "nn.Module", signature: Signature, sizes: Sequence[tuple[int, int]]) -> None:
    """Raises ExportError for a size that the network does not take, before minutes go into a file of it."""
    from edgegen.program.capture import reference
    from edgegen.program.inputs import example_inputs

    for height, width in sizes:
        try:
            resized = signature.resized(height, width)
            reference(module, example_inputs(resized, 1, 0))
        except (RuntimeError, ValueError) as e:
            reason = str(e).strip().splitlines()[0]
            raise ExportError(f"the network does not take {height}x{width}: {reason}") from e


def _save(module: "nn.Module", signature: Signature, kind: Variant, batch: int | None, path: Path) -> None:
    import torch

    from edgegen.program.capture import capture  # here, so that a mistyped cell answers before torch is imported

    program = capture(module, signature, batch=batch, any_size=kind.any_size)
    with quiet(EXPORT):
        torch.export.save(program, path)


def lower(
    *,
    program: str,
    signature: Mapping[str, Any],
    target: Mapping[str, str],
    path: str,
    metadata: Mapping[str, str],
    options: Mapping[str, Any],
    rewrites: Sequence[str],
    quantization: Mapping[str, Any],
    seed: int,
) -> None:
    """The child's part of `build`: from a saved program to the file `path`, and what belongs beside it."""
    from edgegen.exporters.rewrites import apply
    from edgegen.program.capture import capture

    wanted, about = Target(**target), Signature.from_dict(signature)
    kind, chosen = wanted.kind(), cell(wanted.scheme, wanted.backend)
    backend: Backend = registry.load("backend", wanted.backend)
    captured = _load(Path(program))
    if chosen.stage == "program":
        # What turns into convolutions is to be one before it is quantized, and alike for every runtime.
        first = apply(captured, CANONICAL, signature=about, batch=None, any_size=kind.any_size)
        asked = QuantizeOptions(**{**quantization, "float_layers": tuple(quantization["float_layers"])})
        # What is not calibrated has to run once, too: PT2E sees weights as they are used.
        calibration = calibration_batches(about, samples=asked.samples or 1, seed=seed, batch=fitting_batch(about))
        quantized = chosen.load()(first, wanted.scheme, calibration, asked)
        captured = capture(quantized, about, batch=kind.batch, any_size=kind.any_size)
        rewrites = [name for name in rewrites if name not in CANONICAL]
    captured = apply(captured, rewrites, signature=about, batch=kind.batch, any_size=kind.any_size)
    sizes = tuple((int(height), int(width)) for height, width in options["heights_widths"])
    given = LowerOptions(**{**options, "heights_widths": sizes})
    if chosen.stage != "float":  # what quantizes or converts the file wants plain convolutions
        given = replace(given, winograd=False)

    def write(to: Path) -> None:
        backend.lower(
            captured,
            to,
            signature=about,
            precision=chosen.precision,
            metadata=metadata,
            options=given,
            variant=wanted.variant,
        )

    if chosen.stage != "file":
        write(Path(path))
        return
    with tempfile.TemporaryDirectory(prefix="edgegen-") as temporary:
        floating = Path(temporary) / Path(path).name
        write(floating)
        chosen.load()(floating, Path(path))


def _load(path: Path) -> "ExportedProgram":
    """What `_save` wrote a moment ago; the file of a stranger goes through edgegen.models.sources.load."""
    import torch

    with quiet(EXPORT):
        program = torch.export.load(path)
    path.unlink()  # a big one need not lie on the disk beside its own file
    return program


def unchecked(artifacts: Sequence[Artifact]) -> dict[str, Parity]:
    """By file, what a manifest says of files that nothing has run yet."""
    floors = {one.file: cell(one.scheme, one.backend).floor_db for one in artifacts}
    return {file: Parity.not_checked("nothing ran this file", floor_db) for file, floor_db in floors.items()}
