"""A picture of any size by a network of one size: overlapping tiles, whose results are joined by a soft transition.

    tile i      |---------------|
    tile i + 1              |---------------|
    weight of i  11111111111 \\
    of i + 1                  \\ 11111111111      1/4 of the overlap is left out, half is the ramp, 1/4 is left out

What lies nearest to a tile's border, where the network saw its padding in place of the picture, is left out. So a
network whose pixels depend on no more of their surroundings than a quarter of the overlap gives the same in tiles as in
one piece, and others change over smoothly. The weights of a pixel sum to 1.
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgegen.errors import ExportError
from edgegen.support.pixels import to_uint8
from edgegen.support.progress import Progress, Silent
from edgegen.types import Signature, TensorSpec

# Least overlap, in pixels of the input; large tiles overlap by a quarter, small ones by half. On a network of 18
# convolutions of 3x3 with random weights, tiles of 64 were off by 23 of 255 with an overlap of 16, with one of 32 by 3.
OVERLAP = 32
ALIGNMENT = 8  # tiles begin at multiples of it where they can: networks halve the picture up to three times
BYTES = (0.0, 255.0)

Run = Callable[[Mapping[str, NDArray[Any]]], NDArray[Any]]


@dataclass(frozen=True, eq=False)
class Assembled:
    """uint8 images (n, height, width, channels), of how many tiles, and by how much those differ where they overlap.

    `difference` is the root mean square where tiles go over into each other, in steps of 255; 0 of one tile.
    """

    images: NDArray[np.uint8]
    tiles: int
    difference: float


@dataclass(frozen=True)
class Cuts:
    """One axis of a picture: where tiles begin, in pixels of the input; each pixel makes `scale` of the output.

    `margin` pixels are missing in the output of a tile, half of them on either side, as they are in that of the whole.
    """

    starts: tuple[int, ...]
    size: int
    scale: Fraction
    margin: int = 0

    @staticmethod
    def of(length: int, size: int, *, unit: int, output: Fraction, margin: int = 0) -> "Cuts":
        """Tiles of `size` over `length`, which is `size` at least; both are multiples of `unit`, as are the starts."""
        cuts = Cuts((), size, output, margin)
        useful = size - cuts.overlap()
        aligned = ALIGNMENT if ALIGNMENT % unit == 0 and useful > ALIGNMENT else unit
        step = max(unit, useful // aligned * aligned)
        last = length - size
        return Cuts((*range(0, last, step), last), size, output, margin)

    def overlap(self) -> int:
        """The least one, in pixels of the input: what is missing in the output is not there to overlap."""
        missing = math.ceil(self.margin / self.scale)
        return missing + _overlap(self.size - missing)

    def outputs(self) -> list[slice]:
        """Of each tile, its place in the output."""
        length = int(self.size * self.scale) - self.margin
        return [slice(int(start * self.scale), int(start * self.scale) + length) for start in self.starts]

    def seams(self) -> list[tuple[float, float]]:
        """Between a tile and the next: where the output begins to change over, and where that ends."""
        centres = [(before.stop + after.start) / 2 for before, after in itertools.pairwise(self.outputs())]
        half = (float(self.overlap() * self.scale) - self.margin) / 4
        # Two in the same place would mix three tiles: the last one can begin close behind the one before.
        half = max(min([half, *((after - before) / 2 for before, after in itertools.pairwise(centres))]), 1e-6)
        return [(centre - half, centre + half) for centre in centres]

    def weights(self) -> list[NDArray[np.float32]]:
        """Of each tile, its share in each row (or column) of its output."""
        seams = self.seams()
        shares = []
        for number, place in enumerate(self.outputs()):
            pixels = np.arange(place.start, place.stop) + 0.5
            share = np.ones(len(pixels))
            if number:
                share *= _rise(pixels, *seams[number - 1])
            if number < len(seams):
                share *= 1 - _rise(pixels, *seams[number])
            shares.append(share.astype(np.float32))
        return shares

    def squares(
        self, number: int, before: NDArray[np.float32], after: NDArray[np.float32], *, axis: int
    ) -> NDArray[np.float64]:
        """Squared differences of tile `number` and the one before it where they go over into each other."""
        begin, end = self.seams()[number - 1]
        places = self.outputs()[number - 1 : number + 1]
        if begin < places[1].start:  # tiles that lie side by side
            return np.zeros(0)
        strips = [
            values.take(range(math.floor(begin) - place.start, math.ceil(end) - place.start), axis=axis)
            for values, place in zip((before, after), places, strict=True)
        ]
        squares: NDArray[np.float64] = ((strips[0].astype(np.float64) - strips[1]) ** 2).mean(axis=axis).ravel()
        return squares


def _overlap(size: int) -> int:
    return min(size // 2, max(size // 4, OVERLAP))


def _rise(pixels: NDArray[np.float64], begin: float, end: float) -> NDArray[np.float64]:
    rise: NDArray[np.float64] = np.clip((pixels - begin) / (end - begin), 0, 1)
    return rise


def assemble(
    run: Run,
    inputs: Mapping[str, NDArray[Any]],
    whole: Signature,
    *,
    tile: Signature,
    reference: str,
    steps: tuple[int, int],
    progress: Progress,
) -> Assembled:
    """Runs the tiles of `inputs` one by one and joins their images.

    Args:
        run: a file of the signature `tile`: inputs by name to images.
        inputs: arrays (n, ...) of the signature `whole`.
        whole: of the whole picture.
        tile: of one tile; of the same size as `whole` for a single one.
        reference: the input whose pixels the tiles are counted in.
        steps: sizes of which every multiple gives each tensor a whole size; see `whole_steps`.
        progress: of the tiles, where there are several.

    Returns:
        The images at the size of the output of `whole`.

    Raises:
        ExportError: the file refuses a tile, or gives an image of another size than its signature says.
        DataError: an image is not finite.
    """
    rows, columns = (_cuts(whole, tile, reference, axis, steps[axis - 2]) for axis in (2, 3))
    total = len(rows.starts) * len(columns.starts)
    channels, height, width = whole.image_shape
    count = len(next(iter(inputs.values())))
    images = np.empty((count, height, width, channels), np.uint8)
    carried = np.zeros((count, channels, 0, width), np.float32)
    above: list[NDArray[np.float32]] = []
    squares: list[NDArray[np.float64]] = []
    image_range = BYTES
    with (progress if total > 1 else Silent()).task("tiles", total) as task:
        for row, (top, band, shares) in enumerate(zip(rows.starts, rows.outputs(), rows.weights(), strict=True)):
            line: list[NDArray[np.float32]] = []
            for column, left in enumerate(columns.starts):
                values, image_range = _values(run(_part(inputs, whole, tile, reference, top, left)), tile)
                line.append(values)
                if column:
                    squares.append(columns.squares(column, line[column - 1], values, axis=3))
                if row:
                    squares.append(rows.squares(row, above[column], values, axis=2))
                task.update(row * len(columns.starts) + len(line))
            joined = _side_by_side(line, columns, width) * shares[:, None]
            joined[:, :, : carried.shape[2]] += carried
            end = band.stop if row + 1 == len(rows.starts) else rows.outputs()[row + 1].start
            images[:, band.start : end] = to_uint8(joined[:, :, : end - band.start], image_range)
            carried, above = joined[:, :, end - band.start :], line
    mean = float(np.mean(np.concatenate(squares))) if squares else 0.0
    return Assembled(images, total, mean**0.5 * 255 / (image_range[1] - image_range[0]))


def _cuts(whole: Signature, tile: Signature, reference: str, axis: int, unit: int) -> Cuts:
    length, size = (int(_spec(signature, reference).shape[axis]) for signature in (whole, tile))
    output = tile.outputs[0]
    scale = Fraction(int(output.shape[axis]) + output.margin, size)
    return Cuts.of(length, size, unit=unit, output=scale, margin=output.margin)


def _spec(signature: Signature, name: str) -> TensorSpec:
    return next(spec for spec in signature.inputs if spec.name == name)


def _part(
    inputs: Mapping[str, NDArray[Any]], whole: Signature, tile: Signature, reference: str, top: int, left: int
) -> dict[str, NDArray[Any]]:
    """The inputs of one tile, which begins at `top` and `left` of the reference."""
    own = _spec(tile, reference)
    part = dict(inputs)
    for spec in tile.inputs:
        if spec.is_spatial:
            places = []
            for axis, start in ((2, top), (3, left)):
                size = int(spec.shape[axis])
                first = start * size // int(own.shape[axis])
                places.append(slice(first, first + size))
            part[spec.name] = np.ascontiguousarray(inputs[spec.name][:, :, places[0], places[1]])
    return part


def _values(images: NDArray[Any], tile: Signature) -> tuple[NDArray[np.float32], tuple[float, float]]:
    """float32 (n, channels, height, width), and what is black and white in it. Raises ExportError for another size."""
    image_range = tile.outputs[0].image_range
    if images.dtype == np.uint8:
        images, image_range = images.transpose(0, 3, 1, 2), BYTES
    if images.shape[1:] != tile.image_shape:
        raise ExportError(
            f"it gives {'x'.join(map(str, images.shape[1:]))}, and its signature says "
            f"{'x'.join(map(str, tile.image_shape))} (channels x height x width)"
        )
    return images.astype(np.float32), image_range


def _side_by_side(line: Sequence[NDArray[np.float32]], columns: Cuts, width: int) -> NDArray[np.float32]:
    """The tiles of one row, joined: (n, channels, height of a tile, width)."""
    joined = np.zeros((*line[0].shape[:3], width), np.float32)
    for values, place, share in zip(line, columns.outputs(), columns.weights(), strict=True):
        joined[..., place] += share * values
    return joined
