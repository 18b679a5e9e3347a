"""Sets of images that are observed block by block, in any process: the blocks of observations are files of a stage.

A block depends on its place in its set alone, and the figures come from the files in their order. So any number of
processes gives the same figures, and a killed run goes on with the next block.
"""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from edgegen.metrics.observation import Observation
from edgegen.support.storage import is_whole, load_tensors, save_tensors
from edgegen.training.distributed import state

BLOCK = 512  # images sampled and observed at once


@dataclass(frozen=True)
class Block:
    """The images from `start` on of a set, `count` of them."""

    number: int
    start: int
    count: int


@dataclass(frozen=True)
class StoredBlocks:
    """The observations of one set, read from their files by each loop: one is in memory at a time."""

    paths: tuple[Path, ...]

    def __iter__(self) -> Iterator[Observation]:
        for path in self.paths:
            yield Observation.of_tensors(load_tensors(path))


@dataclass(frozen=True)
class ObservedSets:
    """`sets` sets of `count` images each; their blocks are files in `folder`."""

    folder: Path
    sets: int
    count: int

    def blocks(self) -> list[Block]:
        """All blocks of all sets, in order."""
        starts = range(0, self.count, BLOCK)
        return [Block(number, start, min(BLOCK, self.count - start)) for number in range(self.sets) for start in starts]

    def complete(self, make: Callable[[Block], Observation], *, passed: Callable[[Block], None]) -> None:
        """Makes this process's share of the blocks that are not there; `passed` hears of every block.

        Returns when all processes have made theirs.
        """
        machine = state()
        for index, block in enumerate(self.blocks()):
            if index % machine.num_processes == machine.process_index and not is_whole(path := self._path(block)):
                save_tensors(path, make(block).tensors())
            passed(block)
        machine.wait_for_everyone()

    def read(self) -> list[StoredBlocks]:
        """One for each set, when all blocks are there."""
        paths = {
            number: tuple(self._path(b) for b in self.blocks() if b.number == number) for number in range(self.sets)
        }
        return [StoredBlocks(paths[number]) for number in range(self.sets)]

    def remove(self) -> None:
        """Deletes the files, when their figures are known."""
        shutil.rmtree(self.folder)

    def _path(self, block: Block) -> Path:
        return self.folder / f"{block.number}-{block.start // BLOCK:05}.safetensors"
