"""The one maker of artifacts: every file of a generator, whether a recipe or `edgegen export` asks for it."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from edgegen.artifacts.build import BuildResult, build
from edgegen.artifacts.target import Target
from edgegen.errors import EdgegenError
from edgegen.program.generator import Generator, SavedProgram
from edgegen.recipe import Export, Quantize
from edgegen.support.isolation import Child
from edgegen.support.progress import Progress

if TYPE_CHECKING:
    from torch import nn

CHILD_BYTES = 1_200_000_000  # of a child process with its vendor's tools, before it holds a network
CHILD_WEIGHTS = 5  # copies of the weights that a child holds at most (examples/bench_export.md: 860 M parameters)


@dataclass(frozen=True)
class BuildInput:
    """What the files of one scheme are made from, and how their numbers are chosen; `module` computes the same."""

    program: SavedProgram
    module: "nn.Module"
    quantization: Quantize


# By scheme, what `refine` made ready for it; None where the generator is taken as it is.
RefinedInputs = Callable[[str], BuildInput | None]


class Maker:
    """Makes the files of one `generator`, captured once for all of them.

    `metadata` goes into every file, `seed` draws the calibration. `memory_limit` in bytes is for each child process.
    """

    def __init__(
        self,
        generator: Generator,
        *,
        name: str,
        metadata: Mapping[str, str],
        options: Export,
        quantization: Quantize,
        refined: RefinedInputs,
        seed: int,
        memory_limit: int | None = None,
        progress: Progress,
    ) -> None:
        self.generator, self.name, self.metadata = generator, name, metadata
        self.options, self.quantization, self.refined = options, quantization, refined
        self.seed, self.memory_limit, self.progress = seed, memory_limit, progress

    def input(self, scheme: str, *, any_size: bool = False) -> BuildInput:
        """What a file of `scheme` is made from. Raises what `refine` and `fold` raise."""
        refined = self.refined(scheme)
        if refined is not None:
            return refined
        saved, module = self.generator.saved(any_size=any_size), self.generator.folded(any_size=any_size).module
        return BuildInput(saved, module, self.quantization)

    def make(
        self, targets: Sequence[Target], folder: Path, *, meanwhile: Callable[[], object] = lambda: None
    ) -> Iterator[tuple[Target, BuildResult | EdgegenError]]:
        """Writes the files into `folder`; each with its target, in order, or the error that it ended with.

        Several are made at once where cores and memory allow; the bytes do not depend on it. The first children import
        their vendor's tools while the generator is captured here; `meanwhile` is called while the first files are made.
        Raises ExportError where it cannot be captured or folded.
        """
        count = at_once(self.generator)
        children = {target: _child(target) for target in targets[:count]}
        try:
            with self.progress.task(f"{self.name}: fold", 1) as task:
                task.update(1, self.generator.folded().sentence())
            if count == 1:
                for target in targets:
                    yield target, self._one(target, folder, children)
                return
            yield from self._several(targets, folder, children, count, meanwhile)
        finally:
            for child in list(children.values()):  # after Ctrl-C some still run
                child.close()

    def _one(self, target: Target, folder: Path, children: dict[Target, Child]) -> BuildResult | EdgegenError:
        try:
            given = self.input(target.scheme, any_size=target.kind().any_size)
            return self._build(given, target, folder, children)
        except EdgegenError as e:
            return e

    def _several(
        self,
        targets: Sequence[Target],
        folder: Path,
        children: dict[Target, Child],
        count: int,
        meanwhile: Callable[[], object],
    ) -> Iterator[tuple[Target, BuildResult | EdgegenError]]:
        """As `make`, in threads that wait for child processes; what is captured or trained here is so in this one."""
        pool = ThreadPoolExecutor(count)
        try:
            futures = [self._start(pool, target, folder, children) for target in targets]
            meanwhile()
            for target, future in zip(targets, futures, strict=True):
                yield target, _outcome(future)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            for child in list(children.values()):
                child.close()
            pool.shutdown()

    def _start(
        self, pool: ThreadPoolExecutor, target: Target, folder: Path, children: dict[Target, Child]
    ) -> "Future[BuildResult] | EdgegenError":
        try:
            given = self.input(target.scheme, any_size=target.kind().any_size)
        except EdgegenError as e:
            return e
        return pool.submit(self._build, given, target, folder, children)

    def _build(self, given: BuildInput, target: Target, folder: Path, children: dict[Target, Child]) -> BuildResult:
        if target not in children:
            children[target] = _child(target)
        return build(
            given.program,
            self.generator.signature,
            name=self.name,
            target=target,
            folder=folder,
            seed=self.seed,
            metadata=self.metadata,
            quantization=given.quantization,
            options=self.options,
            memory_limit=self.memory_limit,
            child=children[target],
        )


def _child(target: Target) -> Child:
    return Child("edgegen.artifacts.build:preload", {"backend": target.backend})


def _outcome(future: "Future[BuildResult] | EdgegenError") -> BuildResult | EdgegenError:
    if isinstance(future, EdgegenError):
        return future
    try:
        return future.result()
    except EdgegenError as e:
        return e


def at_once(generator: Generator) -> int:
    """How many child processes this machine bears: one a core, as far as memory that is free goes."""
    weights = sum(parameter.nbytes for parameter in generator.module.parameters())
    room = int(psutil.virtual_memory().available // (CHILD_BYTES + CHILD_WEIGHTS * weights))
    return max(1, min(os.cpu_count() or 1, room))
