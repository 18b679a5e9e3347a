"""Of a network with a second time: its mean velocity u(x, t, r), how that changes along the flow, and losses.

A flow map is learned from an equation between u and its own derivative or its own steps; what enters the loss is the
residual of that equation, without gradient, and u, with gradient.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from pydantic import Field

from edgegen.errors import TrainingError
from edgegen.flow.condition import repeated
from edgegen.flow.path import per_sample, time_dtype
from edgegen.support.vendor_logs import FORWARD_DERIVATIVES, quiet

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

# u(x (batch, channels, height, width), t (batch,), r (batch,)) -> like x
MeanVelocity: TypeAlias = "Callable[[Tensor, Tensor, Tensor], Tensor]"
Point: TypeAlias = "tuple[Tensor, Tensor, Tensor]"  # (x, t, r), or a direction there

Normaliser = Annotated[
    Literal["adaptive", "tangent"],
    Field(
        description="adaptive: each sample's squared error m counts m / (m + constant)^power (MeanFlow); "
        "tangent: the residual is divided by its root mean square + constant (sCM)"
    ),
]
Power = Annotated[float, Field(ge=0.0, description="of the normaliser adaptive; 0: plain squared error")]
Constant = Annotated[
    float, Field(gt=0.0, description="of the normaliser: beside a mean square over the pixels, or beside its root")
]


def mean_velocity(network: "nn.Module", condition: "Tensor | None") -> MeanVelocity:
    """u(x, t, r) of a network for these conditions; in the type of x, whatever precision it is trained in."""
    return lambda x, t, r: network(x, t, condition, r=r).to(x.dtype)


def bare_mean_velocity(network: "nn.Module", condition: "Tensor | None") -> MeanVelocity:
    """u(x, t, r) past what compiles the network, spreads it over processes or rounds it: for use inside of `exact`.

    Neither a compiled network nor one in DistributedDataParallel has a forward derivative. Raises TrainingError for one
    that FSDP has split: no process has its weights.
    """
    from torch.distributed.fsdp import FSDPModule, FullyShardedDataParallel
    from torch.nn.parallel import DistributedDataParallel

    inner: Any = network
    while isinstance(inner, DistributedDataParallel) or hasattr(inner, "_orig_mod"):
        inner = inner.module if isinstance(inner, DistributedDataParallel) else inner._orig_mod
    if isinstance(inner, FSDPModule | FullyShardedDataParallel):
        raise TrainingError(
            "a flow map is differentiated in time, and FSDP leaves each process a part of the network only: "
            "use DistributedDataParallel (no fsdp in Accelerate's configuration)"
        )
    forward = type(inner).forward  # Accelerate puts mixed precision into the object's own attribute `forward`

    def u(x: "Tensor", t: "Tensor", r: "Tensor") -> "Tensor":
        # Several points of each sample may be evaluated at once, one after the other.
        conditions = None if condition is None else repeated(condition, len(x) // len(condition))
        velocity: Tensor = forward(inner, x, t, conditions, r=r)
        return velocity

    return u


@contextlib.contextmanager
def exact(device: "torch.device") -> "Iterator[None]":
    """Float32 without rounding to bf16 or TF32, and no gradient: for derivatives and small differences."""
    import torch

    tf32 = torch.backends.cudnn.allow_tf32
    try:
        torch.backends.cudnn.allow_tf32 = False
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.backends.cudnn.allow_tf32 = tf32


def is_exact(device: "torch.device") -> bool:
    """Whether what is computed outside of `exact` has the same precision."""
    import torch

    return device.type == "cpu" and not torch.is_autocast_enabled("cpu")


def jvp(u: MeanVelocity, point: Point, direction: Point) -> "Tensor":
    """The derivative of u at a point (x, t, r) along a direction, in forward mode.

    Raises TrainingError where an operation of the network has no forward derivative.
    """
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    with quiet(FORWARD_DERIVATIVES):
        import torch._decomp.decompositions_for_jvp
    try:
        with sdpa_kernel(SDPBackend.MATH):  # of the kernels of attention, the only one with a forward derivative
            change: Tensor = torch.func.jvp(u, point, direction)[1]
    except (NotImplementedError, RuntimeError) as e:
        if not any(text in str(e) for text in ("forward AD", "forward-mode", "jvp", "batching rule")):
            raise
        raise TrainingError(
            f"derivative = 'jvp': the student has an operation without a forward derivative "
            f"({str(e).splitlines()[0]}); derivative = 'central' needs none"
        ) from e
    return change


def central_difference(u: MeanVelocity, point: Point, direction: Point, step: "Tensor") -> "Tensor":
    """The derivative of u along a direction from two evaluations, `step` (batch,) ahead and behind; 0 at step 0."""
    import torch

    x, t, r = point
    dx, dt, dr = direction
    ahead, behind = (u(x + per_sample(h, x) * dx, t + h * dt, r + h * dr) for h in (step, -step))
    return (ahead - behind) / per_sample((2 * step).clamp_min(torch.finfo(step.dtype).tiny), x)


def velocity_of(teacher: "nn.Module", x: "Tensor", t: "Tensor", condition: "Tensor | None") -> "Tensor":
    """A frozen teacher's velocity at times t (batch,), which it may want in more digits than the images have."""
    import torch

    with torch.no_grad():
        v: Tensor = teacher(x, t.to(time_dtype(teacher, x.dtype)), condition)
    return v.to(x.dtype)


def mean_square(x: "Tensor") -> "Tensor":
    """Over the pixels: (batch, ...) -> (batch,)."""
    return x.square().flatten(1).mean(dim=1)


def normalised(u: "Tensor", residual: "Tensor", normaliser: str, *, power: float, constant: float) -> "Tensor":
    """(batch,) whose gradient moves u against the residual (no gradient), which is normalised for each sample."""
    square = mean_square(residual)
    if normaliser == "adaptive":
        return mean_square(u - (u - residual).detach()) / (square + constant) ** power
    step = residual / per_sample(square.sqrt() + constant, u)
    return mean_square(u - (u - step).detach())


def every_nth(count: int, every: int, device: "torch.device") -> "tuple[Tensor, Tensor]":
    """The rows 0, `every`, 2 `every`, ... below `count`, and the others: known without looking at the device."""
    import torch

    rows = torch.arange(count)
    chosen = rows % every == 0
    return rows[chosen].to(device), rows[~chosen].to(device)
