"""Align Your Flow (its Eulerian loss): a flow map of a teacher, with normalised tangents."""

from typing import ClassVar

from edgegen.training.flow_maps import Constant, Normaliser
from edgegen.training.objectives.flow_map import (
    EqualShare,
    FlowMap,
    Mean,
    Sd,
    TangentRise,
    TangentShare,
    Times,
    Velocity,
)


class AlignYourFlow(FlowMap):
    """flow_map with the teacher's velocity: the target has no noise of the sample.

    Left out: its Lagrangian loss, autoguidance, and the adversarial finish, which is a method of its own. The paper's
    distribution of intervals is not known here: that of (t_mean, t_sd) is ours.
    """

    paper: ClassVar[str] = "arXiv:2506.14603, AYF-EMD, Algorithm 1"

    velocity: Velocity = "teacher"
    normaliser: Normaliser = "tangent"
    constant: Constant = 0.1
    times: Times = "interval"
    t_mean: Mean = -0.8
    t_sd: Sd = 1.0
    equal_share: EqualShare = 0.0
    tangent_share: TangentShare = 0.99
    tangent_rise: TangentRise = 0.05
