"""How fast a compressed file is beside the float file of its runtime: timed in turn, as `edgegen profile` does."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgegen.artifacts.build import build, unchecked
from edgegen.artifacts.target import Target, runs_here
from edgegen.errors import DeviceError
from edgegen.exporters.base import DEFAULTS
from edgegen.formats.manifest import write_manifest
from edgegen.profilers.devices.host import DEVICE
from edgegen.profilers.files.profile import profile_files
from edgegen.profilers.files.record import latency_of
from edgegen.profilers.timing.protocol import ProfileOptions
from edgegen.program.generator import Generator, SavedProgram, save_program
from edgegen.recipe import Export, Quantize
from edgegen.support.progress import Progress

if TYPE_CHECKING:
    from torch.export import ExportedProgram

Timed = Callable[["ExportedProgram", Quantize], float]  # p50 of the file made of these, over the float file's
TIMING = ProfileOptions(max_seconds=5.0)


class RelativeLatency:
    """Files of one `generator`; what is built for it goes to `folder`, the float file of each runtime once."""

    def __init__(
        self,
        generator: Generator,
        *,
        folder: Path,
        options: Export = DEFAULTS,
        seed: int,
        memory_limit: int | None = None,
        progress: Progress,
    ) -> None:
        self.generator, self.folder, self.options, self.progress = generator, folder, options, progress
        self.seed, self.memory_limit = seed, memory_limit
        self.floats: dict[Target, Path] = {}

    def of_mixed(self, backend: str) -> Timed:
        """Makes a mixed file of `backend` from a program, and times it."""
        target = Target(backend, "mixed")

        def timed(program: "ExportedProgram", numbers: Quantize) -> float:
            saved = save_program(program, self.folder / "tried.pt2")
            return self.share(self._made("tried", saved, target, numbers), target)

        return timed

    def share(self, path: Path, target: Target) -> float:
        """p50 of the file over that of the fp32 file. Raises DeviceError where one of them does not run here."""
        if not runs_here(target.backend):
            raise DeviceError(f"{path.name}: {target.backend} does not run on this machine, so nothing can be timed")
        floating = replace(target, scheme="fp32")
        if floating not in self.floats:
            saved = self.generator.saved(any_size=target.kind().any_size)
            self.floats[floating] = self._made("float", saved, floating, Quantize())
        files = [self.floats[floating], path]
        measured = profile_files(files, DEVICE, options=TIMING, progress=self.progress).results
        base, other = map(latency_of, measured)
        if base.p50_ms is None or other.p50_ms is None:
            raise DeviceError(f"{path.name} could not be timed beside its float file: {base.reason or other.reason}")
        return other.p50_ms / base.p50_ms

    def _made(self, name: str, program: SavedProgram, target: Target, quantization: Quantize) -> Path:
        built = build(
            program,
            self.generator.signature,
            name=name,
            target=target,
            folder=self.folder,
            seed=self.seed,
            metadata={},
            quantization=quantization,
            options=self.options,
            memory_limit=self.memory_limit,
        )
        write_manifest(
            self.folder, [built.artifact], self.generator.signature, lineage={}, parity=unchecked([built.artifact])
        )
        return self.folder / built.artifact.file
