"""The one maker of artifacts: every file of a generator, for a recipe and for `edgegen export`."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import psutil

from edgegen.artifacts.build import BuildInput, BuildResult, build, lowering
from edgegen.artifacts.target import Target
from edgegen.errors import EdgegenError, StorageError
from edgegen.program.generator import Generator
from edgegen.quantize.schemes import with_float
from edgegen.recipe import Export, Quantize
from edgegen.support.children import CHILD_BYTES, Children
from edgegen.support.progress import Progress, heartbeat

CHILD_WEIGHTS = 5  # copies of the weights that a child holds at most (examples/bench_export.md: 860 M parameters)


# By scheme, the input that `refine` made for it; None where the generator is used unchanged.
RefinedInputs = Callable[[str], BuildInput | None]


class Maker:
    """Makes the files of one `generator`, captured once for all of them, in processes of `children`.

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
        children: Children,
        seed: int,
        memory_limit: int | None = None,
        progress: Progress,
    ) -> None:
        self.generator, self.name, self.metadata = generator, name, metadata
        self.options, self.quantization, self.refined = options, quantization, refined
        self.children = children
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
        """Writes the files into `folder`; yields each target, in order, with its result or its error.

        Several are made at once where cores and memory allow; the bytes do not depend on it. The first child processes
        import their vendor's tools while the generator is captured; `meanwhile` runs while the first files are made.
        Raises ExportError where it cannot be captured or folded, StorageError where the disk refuses.
        """
        count = parallel_children(self.generator)
        with ExitStack() as stack:
            for target in targets[:count]:  # started now, used below
                stack.enter_context(lowering(self.children, target))
        waiting = list(map(str, targets))

        def state() -> str:
            return f"{self.name}: making {', '.join(waiting[:count])}" if waiting else ""

        with heartbeat(self.progress, state):
            for target, result in self._results(targets, folder, count, meanwhile):
                waiting.remove(str(target))
                yield target, result

    def build(
        self, target: Target, folder: Path, *, options: Export | None = None, float_layers: Sequence[str] = ()
    ) -> BuildResult:
        """Writes one file, with `options` in place of its own, and `float_layers` more than its own.

        Safe in a thread once `input` was called. Raises what `build` raises.
        """
        build_input = self.input(target.scheme, any_size=target.kind().any_size)
        if float_layers:
            build_input = replace(build_input, quantization=with_float(build_input.quantization, float_layers))
        return self._build(build_input, target, folder, options=options)

    def _results(
        self,
        targets: Sequence[Target],
        folder: Path,
        count: int,
        meanwhile: Callable[[], object],
    ) -> Iterator[tuple[Target, BuildResult | EdgegenError]]:
        with self.progress.task(f"{self.name}: fold", 1) as task:
            task.update(1, self.generator.folded().sentence())
        if count > 1:
            yield from self._make_in_parallel(targets, folder, count, meanwhile)
            return
        for target in targets:
            yield target, self._build_or_error(target, folder)

    def _build_or_error(self, target: Target, folder: Path) -> BuildResult | EdgegenError:
        try:
            build_input = self.input(target.scheme, any_size=target.kind().any_size)
            return self._build(build_input, target, folder)
        except EdgegenError as e:
            return _of_target(e)

    def _make_in_parallel(
        self,
        targets: Sequence[Target],
        folder: Path,
        count: int,
        meanwhile: Callable[[], object],
    ) -> Iterator[tuple[Target, BuildResult | EdgegenError]]:
        """As `make`, in threads that wait for child processes; capture and training stay in this thread."""
        pool = ThreadPoolExecutor(count)
        try:
            futures = [self._submit(pool, target, folder) for target in targets]
            meanwhile()
            for target, future in zip(targets, futures, strict=True):
                yield target, _result_or_error(future)
        except BaseException:  # Ctrl-C, or nobody wants the other files
            pool.shutdown(wait=False, cancel_futures=True)
            self.children.close()
            raise
        finally:
            pool.shutdown()

    def _submit(self, pool: ThreadPoolExecutor, target: Target, folder: Path) -> "Future[BuildResult] | EdgegenError":
        try:
            build_input = self.input(target.scheme, any_size=target.kind().any_size)
        except EdgegenError as e:
            return _of_target(e)
        return pool.submit(self._build, build_input, target, folder)

    def _build(
        self,
        build_input: BuildInput,
        target: Target,
        folder: Path,
        *,
        options: Export | None = None,
    ) -> BuildResult:
        return build(
            build_input.program,
            self.generator.signature,
            name=self.name,
            target=target,
            folder=folder,
            seed=self.seed,
            real=self.generator.real,
            metadata=self.metadata,
            quantization=build_input.quantization,
            options=options or self.options,
            memory_limit=self.memory_limit,
            children=self.children,
        )


def _result_or_error(future: "Future[BuildResult] | EdgegenError") -> BuildResult | EdgegenError:
    if isinstance(future, EdgegenError):
        return future
    try:
        return future.result()
    except EdgegenError as e:
        return _of_target(e)


def _of_target(error: EdgegenError) -> EdgegenError:
    """An error that says nothing of the other targets; a full disk is raised, as it fails them all."""
    if isinstance(error, StorageError):
        raise error
    return error


def parallel_children(generator: Generator) -> int:
    """How many child processes run at once: one for each core, as far as the free memory allows."""
    weights = sum(parameter.nbytes for parameter in generator.module.parameters())
    fitting = int(psutil.virtual_memory().available // (CHILD_BYTES + CHILD_WEIGHTS * weights))
    return max(1, min(os.cpu_count() or 1, fitting))
