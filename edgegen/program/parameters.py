"""How many numbers a network holds."""

from torch import nn
from torch.export import ExportedProgram


def parameter_count(module: nn.Module | ExportedProgram) -> int:
    """The elements of all parameters."""
    return sum(parameter.numel() for parameter in module.parameters())
