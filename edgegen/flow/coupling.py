"""Which noise meets which image in a batch."""

from typing import TYPE_CHECKING, Literal

from edgegen.flow.condition import kinds

if TYPE_CHECKING:
    from torch import Tensor

Coupling = Literal["independent", "minibatch_ot"]


def minibatch_ot(x: "Tensor", e: "Tensor", condition: "Tensor | None") -> "Tensor":
    """The noises e, in the order in which the sum of ||x_i - e_i||^2 over the batch is least: like e.

    Noises change places within a class alone: else the noise that an image gets depends on the class, and a class of
    its own is no longer made from all of the noise. arXiv:2302.00482, section 3.2; arXiv:2304.14772.
    """
    import torch
    from scipy.optimize import linear_sum_assignment

    order = torch.arange(len(x))
    classes = kinds(condition, x).cpu()
    # ||x||^2 and ||e||^2 are the same in every order.
    likeness = (x.flatten(1).double() @ e.flatten(1).double().T).cpu()
    for label in set(classes.tolist()):
        rows = (classes == label).nonzero()[:, 0]
        images, noises = linear_sum_assignment(likeness[rows][:, rows].numpy(), maximize=True)
        order[rows[torch.from_numpy(images)]] = rows[torch.from_numpy(noises)]
    return e[order.to(e.device)]
