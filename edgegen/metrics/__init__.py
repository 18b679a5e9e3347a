"""Figures of quality: features of networks that are on this machine, and distances between sets of them."""

from edgegen.metrics.class_histogram import class_distance, class_shares
from edgegen.metrics.distances import (
    Moments,
    density_coverage,
    frechet,
    frechet_of,
    kernel_distance,
    moments,
    precision_recall,
)
from edgegen.metrics.extractor import (
    CLASSIFIER,
    ROTATIONS,
    SIGNAL_CLASSIFIER,
    TRANSFORMATIONS,
    FeatureExtractor,
    LocalExtractor,
    SmallCNN,
    accuracy,
    fd_name,
    local_extractor,
    pretext_labels,
)
from edgegen.metrics.feature_space import FeatureSpace
from edgegen.metrics.memorisation import nearest_distances
from edgegen.metrics.observation import Observation, observe
from edgegen.metrics.quality import Quality, Reference, measure
from edgegen.metrics.random_convolutions import RandomConvolutions, random_convolutions
from edgegen.metrics.spectrum import ring_power, spectrum_distance_db

__all__ = [
    "CLASSIFIER",
    "ROTATIONS",
    "SIGNAL_CLASSIFIER",
    "TRANSFORMATIONS",
    "FeatureExtractor",
    "FeatureSpace",
    "LocalExtractor",
    "Moments",
    "Observation",
    "Quality",
    "RandomConvolutions",
    "Reference",
    "SmallCNN",
    "accuracy",
    "class_distance",
    "class_shares",
    "density_coverage",
    "fd_name",
    "frechet",
    "frechet_of",
    "kernel_distance",
    "local_extractor",
    "measure",
    "moments",
    "nearest_distances",
    "observe",
    "precision_recall",
    "pretext_labels",
    "random_convolutions",
    "ring_power",
    "spectrum_distance_db",
]
