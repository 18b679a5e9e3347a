"""Holds the compressed files of one generator to a budget, and names what breaks it."""

from pathlib import Path

from edgegen.artifacts.maker import Maker
from edgegen.artifacts.relative_latency import RelativeLatency
from edgegen.artifacts.sensitivity import worst_layers
from edgegen.artifacts.target import Target
from edgegen.quantize.budget import Budget
from edgegen.quantize.schemes import GRIDS
from edgegen.quantize.sensitivity import FLOAT_BYTES
from edgegen.recipe import FLOAT_SCHEMES
from edgegen.support.progress import Progress
from edgegen.types import Artifact, Parity


class BudgetCheck:
    """Judges the files that `maker` made; `race` times them where the budget has a latency.

    The layers that cost most are looked for once for each scheme.
    """

    def __init__(self, budget: Budget, maker: Maker, *, race: RelativeLatency, progress: Progress) -> None:
        self.budget, self.maker, self.race, self.progress = budget, maker, race, progress
        self.parameters = maker.generator.folded().parameters_after
        self.worst: dict[str, str] = {}

    def broken(self, artifact: Artifact, path: Path, parity: Parity, *, fd_change: float | None = None) -> list[str]:
        """What the file does not keep and, where its pictures are too far off, the layers that move them most.

        A file that is not true is not timed. Raises DeviceError where one that is cannot be.
        """
        if artifact.scheme in FLOAT_SCHEMES:
            return []
        size = artifact.nbytes / (FLOAT_BYTES * self.parameters)
        latency = None
        if self.budget.latency is not None and parity.status == "ok":
            latency = self.race.share(path, Target(artifact.backend, artifact.scheme, artifact.variant))
        found = self.budget.broken(psnr_db=parity.psnr_db, fd_change=fd_change, size=size, latency=latency)
        if self.budget.too_far(psnr_db=parity.psnr_db, fd_change=fd_change):
            found.append(self._worst(artifact.scheme))
        return found

    def _worst(self, scheme: str) -> str:
        if scheme not in GRIDS:
            return f"the layers' shares are not known for {scheme}"
        if scheme not in self.worst:
            given = self.maker.input(scheme)
            layers = worst_layers(
                given.module,
                self.maker.generator.signature,
                scheme,
                options=given.quantization,
                seed=self.maker.seed,
                progress=self.progress,
            )
            self.worst[scheme] = f"most by {layers}"
        return self.worst[scheme]
