"""The latency of a compressed file relative to the float file of its runtime, timed in turn as by `edgegen profile`."""

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
from edgegen.support.children import Children
from edgegen.support.progress import Progress

if TYPE_CHECKING:
    from torch.export import ExportedProgram

# p50 of the file made of a program with these options, over the float file's
MixedLatency = Callable[["ExportedProgram", Quantize], float]
TIMING = ProfileOptions(max_seconds=5.0)


class RelativeLatency:
    """Of files of one `generator`; the float file of each runtime is built once, into `folder`."""

    def __init__(
        self,
        generator: Generator,
        *,
        folder: Path,
        options: Export = DEFAULTS,
        children: Children,
        seed: int,
        memory_limit: int | None = None,
        progress: Progress,
    ) -> None:
        self.generator, self.folder, self.options, self.progress = generator, folder, options, progress
        self.children, self.seed, self.memory_limit = children, seed, memory_limit
        self.float_files: dict[Target, Path] = {}

    def of_mixed(self, backend: str) -> MixedLatency:
        """A function that makes a mixed file of `backend` from a program, and times it."""
        target = Target(backend, "mixed")

        def timed(program: "ExportedProgram", options: Quantize) -> float:
            saved = save_program(program, self.folder / "tried.pt2")
            return self.share(self._build("tried", saved, target, options), target)

        return timed

    def share(self, path: Path, target: Target) -> float:
        """p50 of the file over that of the fp32 file. Raises DeviceError where one of them does not run here."""
        if not runs_here(target.backend, target.variant):
            raise DeviceError(f"{path.name}: {target.backend} does not run on this machine, so nothing can be timed")
        float_target = replace(target, scheme="fp32")
        if float_target not in self.float_files:
            saved = self.generator.saved(any_size=target.kind().any_size)
            self.float_files[float_target] = self._build("float", saved, float_target, Quantize())
        files = [self.float_files[float_target], path]
        records = profile_files(files, DEVICE, options=TIMING, progress=self.progress).results
        float_latency, latency = map(latency_of, records)
        if float_latency.p50_ms is None or latency.p50_ms is None:
            reason = float_latency.reason or latency.reason
            raise DeviceError(f"{path.name} could not be timed beside its float file: {reason}")
        return latency.p50_ms / float_latency.p50_ms

    def _build(self, name: str, program: SavedProgram, target: Target, quantization: Quantize) -> Path:
        artifact = build(
            program,
            self.generator.signature,
            name=name,
            target=target,
            folder=self.folder,
            seed=self.seed,
            real=self.generator.real,
            metadata={},
            quantization=quantization,
            options=self.options,
            memory_limit=self.memory_limit,
            children=self.children,
        ).artifact
        write_manifest(self.folder, [artifact], self.generator.signature, lineage={}, parity=unchecked([artifact]))
        return self.folder / artifact.file
