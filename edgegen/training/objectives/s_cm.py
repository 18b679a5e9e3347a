"""sCM: the continuous-time consistency model, which is a flow map with r = 0 always."""

from typing import ClassVar

from edgegen.training.flow_maps import Constant, Normaliser
from edgegen.training.objectives.flow_map import EqualShare, FlowMap, Mean, Sd, TangentRise, Times


class SCM(FlowMap):
    """flow_map at r = 0, with normalised tangents; velocity = "teacher" is sCD, its distillation.

    At full tangent each sample's u moves in the direction of TrigFlow's F: its paths are ours, scaled, and tan of its
    time is t / ((1 - t) sigma_d). Not TrigFlow's: inputs and outputs of the network (sigma_d), its learned weight of
    each time, its weight 1 / sigma, and the part of the tangent that rises.
    """

    paper: ClassVar[str] = "arXiv:2410.11081, section 4 (tangent normalisation and warm-up)"

    normaliser: Normaliser = "tangent"
    constant: Constant = 0.1
    times: Times = "zero"
    t_mean: Mean = -1.0
    t_sd: Sd = 1.8
    equal_share: EqualShare = 0.0
    tangent_rise: TangentRise = 0.05
