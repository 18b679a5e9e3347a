"""Figures of quality that need no download: features of a network trained here, and distances between sets of them."""

from edgegen.metrics.distances import Quality, frechet, kernel_distance, measure, precision_recall
from edgegen.metrics.extractor import (
    CLASSIFIER,
    ROTATIONS,
    FeatureExtractor,
    LocalExtractor,
    SmallCNN,
    accuracy,
    fd_name,
    local_extractor,
    pretext_labels,
)

__all__ = [
    "CLASSIFIER",
    "ROTATIONS",
    "FeatureExtractor",
    "LocalExtractor",
    "Quality",
    "SmallCNN",
    "accuracy",
    "fd_name",
    "frechet",
    "kernel_distance",
    "local_extractor",
    "measure",
    "precision_recall",
    "pretext_labels",
]
