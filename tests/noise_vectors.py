"""The vectors of docs/noise.md, by which any implementation of the noise is checked."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

PAGE = Path(__file__).parents[1] / "docs/noise.md"
LENGTH = 5  # values of each vector of normal numbers


def _rows(head: str) -> list[list[str]]:
    """The cells of the table under this head."""
    table = PAGE.read_text().partition(f"{head}\n")[2].partition("\n\n")[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[1:]]


def known_words() -> list[tuple[list[int], list[int], list[int]]]:
    """Counter, key and result of Philox4x32-10."""
    rows = _rows("| counter | key | result |")
    return [tuple([int(word, 16) for word in cell.split()] for cell in row) for row in rows]


def steps() -> dict[str, list[str]]:
    """The numbers of each step of the example, by its name: words, u, r, a, values."""
    block = PAGE.read_text().partition("step by step")[2].split("```")[1]
    return {name: numbers for name, *numbers in map(str.split, block.strip().splitlines())}


def known_normals() -> list[tuple[int, int, NDArray[np.float32]]]:
    """Seed, index and the first values of the sample."""
    rows = _rows("| seed | index | values |")
    return [(int(seed), int(index), np.float32(values.split(", "))) for seed, index, values in rows]
