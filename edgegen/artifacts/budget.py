"""The check of compressed files against a budget, which names the layers that cost most where one is broken."""

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
    """Checks the files that `maker` made; `relative_latency` times them where the budget has a latency.

    The layers that cost most are determined once for each scheme.
    """

    def __init__(self, budget: Budget, maker: Maker, *, relative_latency: RelativeLatency, progress: Progress) -> None:
        self.budget, self.maker, self.progress = budget, maker, progress
        self.relative_latency = relative_latency
        self.parameters = maker.generator.folded().parameters_after
        self.worst_layers: dict[str, str] = {}

    def broken(self, artifact: Artifact, path: Path, parity: Parity, *, fd_change: float | None = None) -> list[str]:
        """The limits that the file breaks and, where its images are too far off, the layers that change them most.

        A file that failed parity is not timed. Raises DeviceError where another cannot be timed.
        """
        if artifact.scheme in FLOAT_SCHEMES:
            return []
        size = artifact.nbytes / (FLOAT_BYTES * self.parameters)
        latency = None
        if self.budget.latency is not None and parity.status == "ok":
            latency = self.relative_latency.share(path, Target(artifact.backend, artifact.scheme, artifact.variant))
        reasons = self.budget.broken(psnr_db=parity.psnr_db, fd_change=fd_change, size=size, latency=latency)
        if self.budget.too_far(psnr_db=parity.psnr_db, fd_change=fd_change):
            reasons.append(self._worst_layers(artifact.scheme))
        return reasons

    def _worst_layers(self, scheme: str) -> str:
        if scheme not in GRIDS:
            return f"the layers' shares are not known for {scheme}"
        if scheme not in self.worst_layers:
            source = self.maker.generator.inputs(self.maker.seed)
            layers = worst_layers(self.maker.input(scheme), source, scheme, progress=self.progress)
            self.worst_layers[scheme] = f"most by {layers}"
        return self.worst_layers[scheme]
