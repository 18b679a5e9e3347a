"""Shapes tried on a device: exported with random weights, measured in turn, and both kept for the next search.

    <folder>/files/<key>/                     a shape's file and its manifest; the key is of all that makes it
    <folder>/times/<device>/<file>.json       its measurement ("edgegen.profile/1"), by device and content of the file

So a search that was interrupted measures nothing twice, and one for another device exports nothing twice.
"""

import contextlib
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgegen.artifacts.target import Target
from edgegen.errors import DataError, ExportError, UsageError
from edgegen.formats.manifest import MANIFEST, tool_versions
from edgegen.pipeline.graph import stage_seed
from edgegen.pipeline.run_folder import key_of
from edgegen.profilers import schema as measurements
from edgegen.profilers.files.profile import connect, profile_files
from edgegen.profilers.schema import MeasuredFile
from edgegen.recipe import Architecture, Recipe
from edgegen.search.complexity import Facts
from edgegen.support import isolation
from edgegen.support.progress import Progress
from edgegen.support.storage import read_json, sha256_of, write_json

VERSION = 1  # of what makes a file: a new number where edgegen exports otherwise than before
AT_ONCE = min(4, os.cpu_count() or 1)  # exports: each holds a core and a gigabyte
IDENTITY = ("cpu", "arch", "threads", "memory_bytes")  # of what a device says of itself: what does not change


@dataclass(frozen=True)
class Trial:
    """A shape that was tried: its measurement, or why there is none."""

    shape: Architecture
    result: MeasuredFile | None
    reason: str = ""


def label_of(shape: Architecture) -> str:
    """A name for files and tables: 24-64-128-b2, and -a1-2 with attention at the resolutions 1 and 2."""
    attention = f"-a{'-'.join(map(str, shape.attention))}" if shape.attention else ""
    return f"{'-'.join(map(str, shape.channels))}-b{shape.blocks}{attention}"


@dataclass
class Trials:
    """Tries shapes of one recipe, as one artifact, on one device; `about_device` is what that says of itself."""

    recipe: Recipe
    facts: Facts
    target: Target
    device: str
    about_device: Mapping[str, Any]
    threads: int
    folder: Path
    progress: Progress
    tools: Mapping[str, str] = field(default_factory=tool_versions)

    def known(self, shapes: Sequence[Architecture]) -> list[Trial]:
        """Those among `shapes` that an earlier search measured on this device without noise."""
        there = {path.name for path in (self.folder / "files").glob("*")}
        found = []
        for shape in shapes:
            place = self._place(shape)
            path = _whole_file(place) if place.name in there else None
            measured = None if path is None else self._known(path)
            if measured is not None:
                found.append(Trial(shape, measured))
        return found

    def __call__(self, shapes: Sequence[Architecture]) -> list[Trial]:
        """Exports and measures. Raises DeviceError where the device is lost; a shape that fails says why."""
        made = self._export(shapes)
        files = {shape: one for shape, one in made.items() if isinstance(one, Path)}
        measured = self._measure(list(files.values()))
        trials = []
        for shape in shapes:
            if shape not in files:
                trials.append(Trial(shape, None, str(made[shape])))
                continue
            result = measured[files[shape].name]
            failed = result.verdict.status == "failed"
            trials.append(Trial(shape, result, "; ".join(result.verdict.reasons) if failed else ""))
        return trials

    def _export(self, shapes: Sequence[Architecture]) -> dict[Architecture, Path | ExportError | UsageError]:
        made: dict[Architecture, Path | ExportError | UsageError] = {}
        with self.progress.task("exporting", len(shapes)) as task, ThreadPoolExecutor(AT_ONCE) as pool:
            for shape, one in zip(shapes, pool.map(self._file, shapes), strict=True):
                made[shape] = one
                task.update(len(made), label_of(shape))
        return made

    def _file(self, shape: Architecture) -> Path | ExportError | UsageError:
        place = self._place(shape)
        found = _whole_file(place)
        if found is not None:
            return found
        try:
            arguments = {**self._arguments(shape), "name": label_of(shape), "folder": str(place)}
            return place / str(isolation.call("edgegen.search.untrained:make_file", arguments).value)
        except (ExportError, UsageError) as e:  # of this shape; a full disk, say, ends the search
            return e

    def _arguments(self, shape: Architecture) -> dict[str, Any]:
        """All that decides what a file holds, but its tools."""
        config = {
            "sample_size": self.facts.size,
            "in_channels": self.facts.channels,
            "channels": list(shape.channels),
            "blocks": shape.blocks,
            "attention": list(shape.attention),
            "num_classes": self.facts.num_classes,
            "embedding": shape.embedding,
        }
        return {
            "config": config,
            "target": str(self.target),
            "export": self.recipe.export.model_dump(mode="json", exclude={"artifacts", "license"}),
            "quantize": self.recipe.quantize.model_dump(mode="json", exclude={"budget", "methods"}),
            "seed": stage_seed(self.recipe.seed, "plan"),
        }

    def _place(self, shape: Architecture) -> Path:
        key = key_of({**self._arguments(shape), "tools": dict(self.tools), "version": VERSION})
        return self.folder / "files" / key

    def _measure(self, files: Sequence[Path]) -> dict[str, MeasuredFile]:
        """By the name of the file; what is known is not measured, and what came out noisy is measured once more."""
        known = {path.name: result for path in files if (result := self._known(path)) is not None}
        found = known | self._profiled([path for path in files if path.name not in known])
        noisy = [path for path in files if found[path.name].verdict.status == "noisy"]
        if noisy:
            self.progress.message(f"noisy, once more: {', '.join(path.name for path in noisy)}")
        return found | self._profiled(noisy)

    def _profiled(self, files: Sequence[Path]) -> dict[str, MeasuredFile]:
        if not files:
            return {}
        profile = profile_files(files, connect(self.device), threads=(self.threads,), progress=self.progress)
        for path, one in zip(files, profile.results, strict=True):
            if one.verdict.status != "failed":
                kept = profile.model_copy(update={"results": (one,)})
                write_json(self._times(path), kept.to_json())
        return {path.name: one for path, one in zip(files, profile.results, strict=True)}

    def _times(self, path: Path) -> Path:
        device = {"device": self.device, **{key: self.about_device.get(key) for key in IDENTITY}}
        content = {"sha256": sha256_of(path), "threads": self.threads, "tools": dict(self.tools)}
        return self.folder / "times" / key_of(device) / f"{key_of(content)}.json"

    def _known(self, path: Path) -> MeasuredFile | None:
        """An earlier measurement without noise; one that is damaged counts as absent."""
        with contextlib.suppress(DataError):
            (result,) = measurements.read(self._times(path)).results
            return result if result.verdict.status == "ok" else None
        return None


def _whole_file(place: Path) -> Path | None:
    """The file that a manifest in `place` describes, if it still holds that; the manifest is written last."""
    with contextlib.suppress(DataError, KeyError, TypeError, ValueError):
        (row,) = read_json(place / MANIFEST)["artifacts"]
        path = place / str(row["file"])
        if path.is_file() and sha256_of(path) == row["sha256"]:
            return path
    return None
