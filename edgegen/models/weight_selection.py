"""Weight selection (arXiv:2311.18823): a smaller network starts from slices of the teacher's channels and blocks."""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from edgegen.errors import RecipeError
from edgegen.models.edge_unet import EdgeUNet
from edgegen.models.edge_unet_blocks import ResidualBlock, SelfAttention
from edgegen.recipe import cannot_slice, slices_fault


def select_weights(teacher: nn.Module, student: EdgeUNet) -> None:
    """Fills `student`, in place, with slices of `teacher`.

    Taken are the channels whose weights have the largest norm. Layers that read or write the same channels share one
    choice. Blocks are spread evenly over the teacher's. What the teacher does not have, such as attention at a
    resolution, stays as it is.

    Raises RecipeError where the teacher is no EdgeUNet, or smaller somewhere, or of other resolutions.
    """
    if not isinstance(teacher, EdgeUNet):
        raise RecipeError(cannot_slice("the teacher is no EdgeUNet"))
    if fault := slices_fault(student.config, teacher.config):
        raise RecipeError(cannot_slice(fault))
    with torch.no_grad():
        _Slices(teacher, student).copy()


class _Slices:
    """Which channels of the teacher the student takes over, by resolution and for the embedding."""

    def __init__(self, teacher: EdgeUNet, student: EdgeUNet) -> None:
        self.teacher, self.student = teacher, student
        self.widths = teacher.config.channels
        self.trunk = [_largest(_writers(teacher, level), width) for level, width in enumerate(student.config.channels)]
        conditioning = teacher.conditioning
        self.embedding = _largest([conditioning.time[2]], student.config.embedding, conditioning.classes)
        self.first_shift = _first_shifts(teacher)
        self.shifts: list[Tensor] = []  # by block of the student, its rows of the projected embedding

    def copy(self) -> None:
        teacher, student, trunk = self.teacher, self.student, self.trunk
        levels, ups = len(trunk), len(student.up)
        _take(student.stem, teacher.stem, trunk[0])
        for level in range(levels):
            self._blocks(student.down[level], teacher.down[level], level, skip=False)
            self._attention(student.attend_down[level], teacher.attend_down[level], level)
        for level in range(ups):
            _take(student.shrink[level], teacher.shrink[level], trunk[level + 1], trunk[level])
        for step in range(ups):
            level = ups - 1 - step
            _take(student.grow[step], teacher.grow[step], trunk[level], trunk[level + 1])
            self._blocks(student.up[step], teacher.up[step], level, skip=True)
            self._attention(student.attend_up[step], teacher.attend_up[step], level)
        _take(student.head_norm, teacher.head_norm, trunk[0])
        _take(student.head, teacher.head, None, trunk[0])
        self._conditioning()

    def _blocks(self, to: nn.Module, source: nn.Module, level: int, *, skip: bool) -> None:
        """The residual blocks of one resolution; the first one on the way up also reads the channels of the skip."""
        there, wanted = list(source.children()), list(to.children())
        trunk = self.trunk[level]
        for number, block in enumerate(wanted):
            origin = there[number * len(there) // len(wanted)]
            assert isinstance(block, ResidualBlock)
            assert isinstance(origin, ResidualBlock)
            reads = torch.cat([trunk, self.widths[level] + trunk]) if skip and number == 0 else trunk
            hidden = _largest([origin.conv1], block.width)
            _take(block.norm1, origin.norm1, reads)
            _take(block.conv1, origin.conv1, hidden, reads)
            _take(block.norm2, origin.norm2, hidden)
            _take(block.conv2, origin.conv2, trunk, hidden)
            if isinstance(block.skip, nn.Conv2d):
                _take(block.skip, origin.skip, trunk, reads)
            self.shifts.append(self.first_shift[origin] + hidden)

    def _attention(self, to: nn.Module, source: nn.Module, level: int) -> None:
        if not isinstance(to, SelfAttention) or not isinstance(source, SelfAttention):
            return
        trunk, width = self.trunk[level], self.widths[level]
        _take(to.norm, source.norm, trunk)
        _take(to.qkv, source.qkv, torch.cat([part * width + trunk for part in range(3)]), trunk)
        _take(to.out, source.out, trunk, trunk)

    def _conditioning(self) -> None:
        to, source, embedding = self.student.conditioning, self.teacher.conditioning, self.embedding
        for branch, origin in ((to.time, source.time), (to.interval, source.interval)):
            if branch is not None and origin is not None:
                hidden = _largest([origin[0]], len(embedding))
                _take(branch[0], origin[0], hidden)
                _take(branch[2], origin[2], embedding, hidden)
        if to.classes is not None and source.classes is not None:
            rows = min(len(to.classes.weight), len(source.classes.weight))  # one of them may know a label of no class
            to.classes.weight[:rows] = source.classes.weight[:rows, embedding]
        _take(to.project, source.project, torch.cat(self.shifts), embedding)


def _largest(layers: Sequence[nn.Module], count: int, classes: nn.Embedding | None = None) -> Tensor:
    """The outputs of these layers, and columns of a table of classes, whose weights have the largest norm: (count,)."""
    weights = [layer.get_parameter("weight").detach().flatten(1) for layer in layers]
    weights += [] if classes is None else [classes.weight.detach().T]
    indices: Tensor = torch.linalg.vector_norm(torch.cat(weights, dim=1), dim=1).topk(count).indices
    return indices.sort().values


def _writers(network: EdgeUNet, level: int) -> list[nn.Conv2d]:
    """The layers that write into the channels of a resolution."""
    first = network.stem if level == 0 else network.shrink[level - 1]
    assert isinstance(first, nn.Conv2d)
    ways = [network.down[level], *list(network.up)[::-1][level : level + 1]]
    return [first, *(block.conv2 for way in ways for block in way.children() if isinstance(block, ResidualBlock))]


def _first_shifts(network: EdgeUNet) -> dict[ResidualBlock, int]:
    """By residual block, the first of its rows of the projected embedding."""
    blocks = network.blocks()
    ends = itertools.accumulate(block.width for block in blocks)
    return {block: end - block.width for block, end in zip(blocks, ends, strict=True)}


def _take(to: nn.Module, source: nn.Module, writes: Tensor | None, reads: Tensor | None = None) -> None:
    """The rows `writes` (None: all) and, of a matrix, the columns `reads` of a layer's weight; and of its bias."""
    rows = slice(None) if writes is None else writes
    weight = source.weight[rows]  # type: ignore[index]
    to.weight.copy_(weight if reads is None else weight[:, reads])  # type: ignore[operator]
    to.bias.copy_(source.bias[rows])  # type: ignore[operator, index]
