"""Holds the compressed files of one generator to a budget, and names what breaks it."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from edgegen.artifacts.refine import worst_layers
from edgegen.artifacts.relative_latency import Race
from edgegen.artifacts.target import Target
from edgegen.quantize.budget import Budget
from edgegen.quantize.schemes import GRIDS, QuantizeOptions
from edgegen.quantize.sensitivity import FLOAT_BYTES
from edgegen.recipe import FLOAT_SCHEMES
from edgegen.support.progress import Progress
from edgegen.types import Artifact, Parity, Signature

if TYPE_CHECKING:
    from torch import nn


class Budgeted:
    """`ready` gives what a scheme's files are built from and with which options; `parameters`: the float generator's.

    The layers that cost most are looked for once for each scheme. `race` times the files of a budget of latency.
    """

    def __init__(
        self,
        budget: Budget,
        signature: Signature,
        ready: "Callable[[str], tuple[nn.Module, QuantizeOptions]]",
        *,
        parameters: int,
        race: Race,
        seed: int,
        progress: Progress,
    ) -> None:
        self.budget, self.signature, self.ready, self.parameters = budget, signature, ready, parameters
        self.race, self.seed, self.progress = race, seed, progress
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
            module, options = self.ready(scheme)
            found = worst_layers(
                module, self.signature, scheme, options=options, seed=self.seed, progress=self.progress
            )
            self.worst[scheme] = f"most by {found}"
        return self.worst[scheme]
