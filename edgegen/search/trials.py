"""Exports shapes with random weights and measures them on a device; files and measurements are kept on disk.

    <folder>/files/<key>/                     a shape's file and manifest; the key hashes everything that decides them
    <folder>/times/<device>/<file>.json       its measurement ("edgegen.profile/1"), by device and content of the file

So an interrupted search measures nothing twice, and a search for another device exports nothing twice.
"""

import contextlib
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgegen.artifacts.build import lowering
from edgegen.artifacts.target import Target
from edgegen.errors import DataError, ExportError, UsageError
from edgegen.formats.manifest import MANIFEST, tool_versions
from edgegen.pipeline.graph import stage_seed
from edgegen.pipeline.run_folder import key_of
from edgegen.profilers import schema as measurements
from edgegen.profilers.files.profile import connect, profile_files
from edgegen.profilers.schema import MeasuredFile
from edgegen.recipe import Architecture, Recipe
from edgegen.search.complexity import DataSpec
from edgegen.support import isolation
from edgegen.support.children import Children
from edgegen.support.progress import Progress
from edgegen.support.storage import read_json, sha256_of, write_json

VERSION = 3  # raised whenever edgegen exports other files than before from the same arguments
AT_ONCE = min(4, os.cpu_count() or 1)  # parallel exports: each takes a core and a gigabyte
IDENTITY = ("cpu", "arch", "threads", "memory_bytes")  # the properties of a device that do not change


@dataclass(frozen=True)
class Trial:
    """One shape: its measurement, or the reason why there is none."""

    shape: Architecture
    result: MeasuredFile | None
    reason: str = ""


def shape_label(shape: Architecture) -> str:
    """A name for files and tables: 24-64-128-b2, or with attention at resolutions 1 and 2: 24-64-128-b2-a1-2."""
    attention = f"-a{'-'.join(map(str, shape.attention))}" if shape.attention else ""
    return f"{'-'.join(map(str, shape.channels))}-b{shape.blocks}{attention}"


@dataclass
class Trials:
    """Trials of one recipe's shapes as one artifact on one device; `about_device` is what that reports about itself.

    Files are made in processes of `children`.
    """

    recipe: Recipe
    data: DataSpec
    target: Target
    device: str
    about_device: Mapping[str, Any]
    threads: int
    folder: Path
    children: Children
    progress: Progress
    tools: Mapping[str, str] = field(default_factory=tool_versions)

    def known(self, shapes: Sequence[Architecture]) -> list[Trial]:
        """Those of `shapes` that an earlier search measured on this device without interference."""
        stored = {path.name for path in (self.folder / "files").glob("*")}
        trials = []
        for shape in shapes:
            folder = self._folder(shape)
            path = _complete_file(folder) if folder.name in stored else None
            measurement = None if path is None else self._stored_measurement(path)
            if measurement is not None:
                trials.append(Trial(shape, measurement))
        return trials

    def measure(self, shapes: Sequence[Architecture]) -> list[Trial]:
        """Exports and measures. A shape that fails has a reason; raises DeviceError where the device is lost."""
        exported = self._export(shapes)
        files = {shape: path for shape, path in exported.items() if isinstance(path, Path)}
        measured = self._measure(list(files.values()))
        trials = []
        for shape in shapes:
            if shape not in files:
                trials.append(Trial(shape, None, str(exported[shape])))
                continue
            result = measured[files[shape].name]
            failed = result.verdict.status == "failed"
            trials.append(Trial(shape, result, "; ".join(result.verdict.reasons) if failed else ""))
        return trials

    def _export(self, shapes: Sequence[Architecture]) -> dict[Architecture, Path | ExportError | UsageError]:
        exported: dict[Architecture, Path | ExportError | UsageError] = {}
        with self.progress.task("exporting", len(shapes)) as task, ThreadPoolExecutor(AT_ONCE) as pool:
            for shape, path_or_error in zip(shapes, pool.map(self._file, shapes), strict=True):
                exported[shape] = path_or_error
                task.update(len(exported), shape_label(shape))
        return exported

    def _file(self, shape: Architecture) -> Path | ExportError | UsageError:
        folder = self._folder(shape)
        complete = _complete_file(folder)
        if complete is not None:
            return complete
        try:
            label, function = shape_label(shape), "edgegen.search.untrained:make_file"
            arguments = {**self._arguments(shape), "name": label, "folder": str(folder)}
            with lowering(self.children, self.target) as child:
                name = isolation.call(function, arguments, child=child, doing=f"made the file of {label}").value
            return folder / str(name)
        except (ExportError, UsageError) as e:  # of this shape; any other, such as a full disk, ends the search
            return e

    def _arguments(self, shape: Architecture) -> dict[str, Any]:
        """Everything that decides the content of a file, except the versions of the tools."""
        config = {
            "sample_size": self.data.size,
            "in_channels": self.data.channels,
            "channels": list(shape.channels),
            "blocks": shape.blocks,
            "attention": list(shape.attention),
            "num_classes": self.data.num_classes,
            "embedding": shape.embedding,
        }
        return {
            "config": config,
            "target": str(self.target),
            "export": self.recipe.export.model_dump(mode="json", exclude={"artifacts", "license", "tune_on"}),
            "quantize": self.recipe.quantize.model_dump(mode="json", exclude={"budget", "methods"}),
            "seed": stage_seed(self.recipe.seed, "plan"),
        }

    def _folder(self, shape: Architecture) -> Path:
        key = key_of({**self._arguments(shape), "tools": dict(self.tools), "version": VERSION})
        return self.folder / "files" / key

    def _measure(self, files: Sequence[Path]) -> dict[str, MeasuredFile]:
        """By file name. Stored measurements are used; those with the verdict "noisy" are repeated once."""
        stored = {path.name: result for path in files if (result := self._stored_measurement(path)) is not None}
        results = stored | self._profile([path for path in files if path.name not in stored])
        noisy = [path for path in files if results[path.name].verdict.status == "noisy"]
        if noisy:
            self.progress.message(f"noisy, measured once more: {', '.join(path.name for path in noisy)}")
        return results | self._profile(noisy)

    def _profile(self, files: Sequence[Path]) -> dict[str, MeasuredFile]:
        if not files:
            return {}
        profile = profile_files(files, connect(self.device), threads=(self.threads,), progress=self.progress)
        results = dict(zip(files, profile.results, strict=True))
        for path, result in results.items():
            if result.verdict.status != "failed":
                single = profile.model_copy(update={"results": (result,)})
                write_json(self._measurement_file(path), single.to_json())
        return {path.name: result for path, result in results.items()}

    def _measurement_file(self, path: Path) -> Path:
        device = {"device": self.device, **{key: self.about_device.get(key) for key in IDENTITY}}
        content = {"sha256": sha256_of(path), "threads": self.threads, "tools": dict(self.tools)}
        return self.folder / "times" / key_of(device) / f"{key_of(content)}.json"

    def _stored_measurement(self, path: Path) -> MeasuredFile | None:
        """An earlier measurement with the verdict "ok"; a damaged one counts as absent."""
        with contextlib.suppress(DataError):
            (result,) = measurements.read(self._measurement_file(path)).results
            return result if result.verdict.status == "ok" else None
        return None


def _complete_file(folder: Path) -> Path | None:
    """The file that a manifest in `folder` describes, if its hash is right; the manifest is written last."""
    with contextlib.suppress(DataError, KeyError, TypeError, ValueError):
        (row,) = read_json(folder / MANIFEST)["artifacts"]
        path = folder / str(row["file"])
        if path.is_file() and sha256_of(path) == row["sha256"]:
            return path
    return None
