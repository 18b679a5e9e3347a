"""SoFlow: a flow map from data alone without a forward derivative, by a step that shrinks."""

from typing import ClassVar

from edgegen.training.objectives.flow_map import Derivative, EqualShare, FlowMap, Mean


class SoFlow(FlowMap):
    """flow_map with the quotient of two jumps, from t and from a nearer time, in place of the derivative.

    At the start the nearer time is r itself, and u(x_t, t, r) learns the velocity for every r; then it comes to t.
    CIFAR-10, one step: FID 2.86 after 819 million images.
    """

    paper: ClassVar[str] = "arXiv:2512.15657, solution consistency loss"

    derivative: Derivative = "finite_step"
    t_mean: Mean = -0.9
    equal_share: EqualShare = 0.0
