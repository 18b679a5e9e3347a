"""Re-MeanFlow: MeanFlow on the teacher's pairs, whose straighter paths make the derivative less noisy."""

from typing import ClassVar

from edgegen.training.flow_maps import Constant, Power
from edgegen.training.objectives.flow_map import EqualShare, Examples, FlowMap, Mean, Sd, Times


class ReMeanFlow(FlowMap):
    """flow_map on stored pairs (e, x), with the settings of its code for ImageNet-64; 512: t_mean = -0.8."""

    paper: ClassVar[str] = "arXiv:2511.23342"

    examples: Examples = "pairs"
    power: Power = 0.5
    constant: Constant = 1e-2
    times: Times = "u_shaped"
    t_mean: Mean = -0.4
    t_sd: Sd = 1.0
    equal_share: EqualShare = 0.75
