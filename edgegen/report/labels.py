"""Where the labels of a scatter plot go: beside their marks, off the others' marks and labels. Plain geometry."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

AIR = 3.0  # points kept free around a label
PASSES = 4  # each label is placed again, once the others are
PREFER = 0.05  # of an earlier place to a later one, where nothing else decides
CROSSED = 60.0  # for a line through another label
LINE_POINTS = 12  # at which a line is looked at
FAR = 11.0  # points from mark to label beyond which a line should join them
SLIDES = (0.5, 0.1, 0.9, 0.3, 0.7, 0.0, 1.0)  # which part of a label above or below is over its mark
DISTANCES = (5.0, 9.0, 16.0, 26.0, 40.0)


@dataclass(frozen=True)
class Disc:
    """A disc at (x, y) with its label's size, all in points; y grows upwards."""

    x: float
    y: float
    radius: float
    width: float
    height: float


@dataclass(frozen=True)
class Box:
    x0: float
    y0: float
    x1: float
    y1: float

    @property
    def middle(self) -> tuple[float, float]:
        return (self.x0 + self.x1) / 2, (self.y0 + self.y1) / 2

    def overlap(self, other: "Box") -> float:
        """The area that both cover."""
        width = min(self.x1, other.x1) - max(self.x0, other.x0)
        height = min(self.y1, other.y1) - max(self.y0, other.y0)
        return max(0.0, width) * max(0.0, height)

    def outside(self, frame: "Box") -> float:
        """How far this reaches beyond a frame."""
        return max(0.0, frame.x0 - self.x0, self.x1 - frame.x1) + max(0.0, frame.y0 - self.y0, self.y1 - frame.y1)

    def gap(self, mark: Disc) -> float:
        """From this to the edge of a mark."""
        dx = max(self.x0 - mark.x, 0.0, mark.x - self.x1)
        dy = max(self.y0 - mark.y, 0.0, mark.y - self.y1)
        return math.hypot(dx, dy) - mark.radius

    def nearest(self, mark: Disc) -> tuple[float, float]:
        """The point of this that is nearest to a mark."""
        return min(max(mark.x, self.x0), self.x1), min(max(mark.y, self.y0), self.y1)

    def on_the_way(self, mark: Disc, end: tuple[float, float]) -> bool:
        """Whether a line from the mark to `end` crosses this."""
        steps = [i / LINE_POINTS for i in range(LINE_POINTS + 1)]
        points = [(mark.x + s * (end[0] - mark.x), mark.y + s * (end[1] - mark.y)) for s in steps]
        return any(self.x0 < x < self.x1 and self.y0 < y < self.y1 for x, y in points)


def place(marks: Sequence[Disc], frame: Box) -> list[tuple[Box, bool]]:
    """A box for each label, by coordinate descent over a few places around each mark.

    With it, whether a line should join the two: they are far apart, or another mark is nearer.
    """
    candidates = [_candidates(mark) for mark in marks]
    boxes = [options[0] for options in candidates]
    for _ in range(PASSES):
        for i, options in enumerate(candidates):
            costs = [_cost(box, i, marks, boxes, frame) + PREFER * n for n, box in enumerate(options)]
            boxes[i] = options[costs.index(min(costs))]
    return [(box, _doubtful(box, i, marks)) for i, box in enumerate(boxes)]


def _doubtful(box: Box, own: int, marks: Sequence[Disc]) -> bool:
    gap = box.gap(marks[own])
    return gap > FAR or any(box.gap(mark) < gap for i, mark in enumerate(marks) if i != own)


def _candidates(mark: Disc) -> list[Box]:
    boxes = []
    for distance in DISTANCES:
        reach = mark.radius + distance
        beside = [(mark.x + reach, mark.y - mark.height / 2), (mark.x - reach - mark.width, mark.y - mark.height / 2)]
        over = [(mark.x - part * mark.width, mark.y + reach) for part in SLIDES]
        under = [(x, mark.y - reach - mark.height) for x, _ in over]
        boxes += [Box(x, y, x + mark.width, y + mark.height) for x, y in (*beside, *over, *under)]
    return boxes


def _cost(box: Box, own: int, marks: Sequence[Disc], boxes: Sequence[Box], frame: Box) -> float:
    """Far labels are bad; covered ones, and those that seem to belong to another mark, are worse."""
    aired = Box(box.x0 - AIR, box.y0 - AIR / 2, box.x1 + AIR, box.y1 + AIR / 2)
    gap = box.gap(marks[own])
    cost = gap + 100.0 * box.outside(frame)
    for i, mark in enumerate(marks):
        body = Box(mark.x - mark.radius, mark.y - mark.radius, mark.x + mark.radius, mark.y + mark.radius)
        cost += 2.0 * aired.overlap(body)
        if i != own:
            cost += 2.0 * aired.overlap(boxes[i]) + 4.0 * max(0.0, gap + AIR - box.gap(mark))
            cost += CROSSED * boxes[i].on_the_way(marks[own], box.nearest(marks[own]))
    return cost
