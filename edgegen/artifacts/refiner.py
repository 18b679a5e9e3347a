"""What files of a quantization scheme are made from where their numbers are trained: `refine`, once for each scheme."""

from collections.abc import Sequence
from pathlib import Path

from edgegen.artifacts.build import BuildInput
from edgegen.artifacts.relative_latency import RelativeLatency
from edgegen.artifacts.target import Target, backends_of
from edgegen.errors import EdgegenError
from edgegen.program.generator import Generator, save_program
from edgegen.quantize.schemes import GRIDS
from edgegen.recipe import Quantize, Recover
from edgegen.support.progress import Progress


class Refiner:
    """Calls `refine` once for each scheme of the `targets`, and keeps its result or the error that it ended with."""

    def __init__(
        self,
        generator: Generator,
        targets: Sequence[Target],
        *,
        quantize: Quantize,
        recover: Recover | None,
        seed: int,
        relative_latency: RelativeLatency,
        folder: Path,
        progress: Progress,
    ) -> None:
        self.generator, self.targets, self.quantize, self.recover = generator, targets, quantize, recover
        self.seed, self.relative_latency, self.folder, self.progress = seed, relative_latency, folder, progress
        self.results: dict[str, BuildInput | EdgegenError] = {}

    def __call__(self, scheme: str) -> BuildInput | None:
        if scheme not in GRIDS or not (self.recover or self.quantize.methods or scheme == "mixed"):
            return None
        if scheme not in self.results:
            try:
                self.results[scheme] = self._refine(scheme)
            except EdgegenError as e:  # raised for every file of the scheme
                self.results[scheme] = e
        result = self.results[scheme]
        if isinstance(result, EdgegenError):
            raise result
        return result

    def _refine(self, scheme: str) -> BuildInput:
        from edgegen.artifacts.refine import refine  # imported here: it imports what training needs

        folder = self.folder / scheme
        folder.mkdir()
        refined = refine(
            self.generator,
            scheme,
            options=self.quantize,
            recover=self.recover,
            relative_latency=self.relative_latency,
            backends=backends_of(scheme, self.targets),
            seed=self.seed,
            folder=folder,
            progress=self.progress,
        )
        saved = save_program(refined.program, folder / "refined.pt2")
        return BuildInput(saved, refined.program.module(check_guards=False), refined.options)
