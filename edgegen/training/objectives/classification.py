"""Classification, for the local feature extractor: cross entropy on images with a little noise and shift."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgegen.training.batch import Batch


@dataclass(frozen=True)
class Classification:
    """Cross entropy of nets["student"](images). Gaussian noise of deviation `noise` keeps the features from learning
    single pixels by heart, so that held-out images look more like training images to them.
    """

    noise: float = 0.2
    label_smoothing: float = 0.1
    paper = "arXiv:1512.00567, section 7 (label smoothing)"

    def losses(self, nets: Mapping[str, nn.Module], batch: Batch, rng: torch.Generator) -> dict[str, Tensor]:
        assert batch.labels is not None
        x = batch.images
        noisy = x + self.noise * torch.randn(x.shape, generator=rng, device=x.device)
        loss = F.cross_entropy(nets["student"](noisy), batch.labels, label_smoothing=self.label_smoothing)
        return {"student": loss}
