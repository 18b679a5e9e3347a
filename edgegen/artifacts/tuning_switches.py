"""What `edgegen tune` tries with a target: the rewrites that are a matter of speed, and layers that stay float."""

import copy
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from edgegen import registry
from edgegen.artifacts.bisect_rewrites import NEEDED
from edgegen.artifacts.lower import CANONICAL, of_stage, quantized
from edgegen.artifacts.maker import Maker
from edgegen.artifacts.sensitivity import canonical
from edgegen.artifacts.target import Target
from edgegen.artifacts.tuning import FLOAT, Changes
from edgegen.errors import ExportError
from edgegen.exporters.base import Backend, speed_passes
from edgegen.exporters.rewrites import apply, names
from edgegen.program.fingerprint import fingerprint
from edgegen.program.generator import load_graph
from edgegen.program.inputs import InputSource
from edgegen.quantize.layers import layer_groups, layers_of
from edgegen.quantize.schemes import matching
from edgegen.recipe import Export
from edgegen.support.vendor_logs import EXPORT, quiet

if TYPE_CHECKING:
    from torch import fx

ProgramOf = Callable[[Export], str | tuple[str, str] | None]


def speed_switches(target: Target, options: Export) -> list[tuple[str, bool]]:
    """The changes to the rewrites of a target that are tried one at a time: what is on off, and what is off on.

    Left as they are: those that `options` set, and those without which the runtime refuses a file.
    """
    backend: Backend = registry.load("backend", target.backend)
    stage = target.cell().stage
    used = [*backend.rewrites, *(name for name in CANONICAL if stage == "program" and name not in backend.rewrites)]
    passes = speed_passes(backend, target.variant) if stage == "float" else {}
    switches = dict.fromkeys(used, False) | {name: not is_on for name, is_on in passes.items()}
    switches |= {name: True for name in names() if name not in switches}
    return [(name, to) for name, to in switches.items() if name not in (*NEEDED, *options.rewrites)]


def rewrites_of(changes: Changes) -> dict[str, bool]:
    """Those of the changes that are rewrites."""
    return {name: is_on for name, is_on in changes if not name.startswith(FLOAT)}


class Switches:
    """Of one generator, by its `maker`."""

    def __init__(self, maker: Maker) -> None:
        self.maker = maker
        self.groups: dict[str, dict[str, tuple[str, ...]]] = {}  # of layers, by scheme
        self.rounded: dict[str, set[str]] = {}  # the layers of a plain file that are, by scheme

    def of(self, target: Target) -> list[tuple[str, bool]]:
        """The changes to the target's plain file that are tried one at a time."""
        return [*self._effective(target), *self._layers(target)]

    def float_layers(self, target: Target, changes: Changes) -> tuple[str, ...]:
        """The layers of the groups among `changes`."""
        groups = [name.removeprefix(FLOAT) for name, _ in changes if name.startswith(FLOAT)]
        return tuple(sorted({layer for group in groups for layer in self.groups[target.scheme][group]}))

    def checked_float_layers(self, target: Target, changes: Changes) -> tuple[str, ...]:
        """As `float_layers`. Raises ExportError where nothing would stay rounded: such a file is none of its scheme."""
        layers = self.float_layers(target, changes)
        if layers and self.rounded[target.scheme] <= set(layers):
            raise ExportError(f"no layer would be left in {target.scheme}")
        return layers

    def _effective(self, target: Target) -> list[tuple[str, bool]]:
        """The rewrites that change this network's program, as far as that is known before a file is made."""
        switches, mine = speed_switches(target, self.maker.options), self.maker.options
        kept: list[tuple[str, bool]] = []
        with self.maker.progress.task(f"{target}: what changes it", len(switches)) as task:
            programs = self._rounded if target.cell().stage == "program" else self._float
            program_of = programs(target)
            plain = program_of(mine)
            for number, (name, is_on) in enumerate(switches, start=1):
                options = mine.model_copy(update={"rewrites": {**mine.rewrites, name: is_on}})
                is_pass = name not in names()
                if is_pass or program_of(options) not in (plain, None):
                    kept.append((name, is_on))
                task.update(number)
        count = f"{len(kept)} of {len(switches)}"
        self.maker.progress.message(f"{target}: {count} rewrites change this network's file, or may")
        return kept

    def _float(self, target: Target) -> ProgramOf:
        """The fingerprint of the program that a float file is made from; None where a rewrite fails on it."""
        backend: Backend = registry.load("backend", target.backend)
        return lambda options: self._rewritten(target, self._graph(target), options.chosen(backend.rewrites, names()))

    def _rounded(self, target: Target) -> ProgramOf:
        """As `_float`, of a file whose program is quantized between two groups of rewrites.

        One sample gives the ranges, since the operations do not depend on them.
        """
        maker, backend = self.maker, registry.load("backend", target.backend)
        source = InputSource(maker.generator.signature, maker.seed, maker.generator.real)
        quantization = maker.input(target.scheme).quantization.model_copy(update={"samples": 1})
        rounded = quantized(self._graph(target), maker.options.chosen(CANONICAL, ()), source, target, quantization)

        def program_of(options: Export) -> tuple[str, str] | None:
            first = self._rewritten(target, self._graph(target), options.chosen(CANONICAL, ()), any_batch=True)
            rewrites, _ = of_stage("program", options, backend.rewrites, ())
            with quiet(EXPORT):
                graph = copy.deepcopy(rounded)
            second = self._rewritten(target, graph, rewrites)
            return None if first is None or second is None else (first, second)

        return program_of

    def _graph(self, target: Target) -> "fx.GraphModule":
        saved = self.maker.input(target.scheme, any_size=target.kind().any_size).program
        return load_graph(saved, self.maker.generator.signature)

    def _rewritten(
        self, target: Target, graph: "fx.GraphModule", rewrites: Sequence[str], *, any_batch: bool = False
    ) -> str | None:
        """The fingerprint of the program after `rewrites`; None where one of them fails on it."""
        variant, signature = target.kind(), self.maker.generator.signature
        try:
            batch = None if any_batch else variant.batch
            program = apply(graph, rewrites, signature=signature, batch=batch, any_size=variant.any_size)
        except ExportError:
            return None
        return fingerprint(program, signature, None)

    def _layers(self, target: Target) -> list[tuple[str, bool]]:
        """The groups of layers that may be left float, of a scheme that rounds layers of the program."""
        if target.cell().stage != "program":
            return []
        if target.scheme not in self.groups:
            made_from = self.maker.input(target.scheme)
            module = canonical(made_from.program, self.maker.generator.signature).module(check_guards=False)
            known = {layer.name for layer in layers_of(module)}
            floating = matching(made_from.quantization.float_layers, known)
            rounded = self.rounded[target.scheme] = known - floating
            groups = {group: rounded.intersection(names) for group, names in layer_groups(module).items()}
            self.groups[target.scheme] = {
                group: tuple(sorted(names)) for group, names in groups.items() if names and names != rounded
            }
        return [(f"{FLOAT}{group}", True) for group in self.groups[target.scheme]]
