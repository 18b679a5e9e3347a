"""Improved MeanFlow: the derivative goes along the student's own velocity, which has no noise of the sample."""

from typing import ClassVar

from edgegen.training.flow_maps import Constant, Power
from edgegen.training.objectives.flow_map import EqualShare, FlowMap, Mean, Sd, Times, Velocity


class ImprovedMeanFlow(FlowMap):
    """flow_map with the direction u(x_t, t, t), which the half of the samples with r = t trains.

    This is the paper's form without a second head; its guidance as an input of the network is left out.
    """

    paper: ClassVar[str] = "arXiv:2512.02012, section 4 (boundary form of the velocity)"

    velocity: Velocity = "own"
    power: Power = 1.0
    constant: Constant = 1e-3
    times: Times = "sorted"
    t_mean: Mean = -0.4
    t_sd: Sd = 1.0
    equal_share: EqualShare = 0.5
