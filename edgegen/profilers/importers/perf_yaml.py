"""Qualcomm AI Hub Models' perf.yaml: measured on hosted phones; its two layouts over the years.

    until 2025   models: [{name, performance_metrics: [{RUNTIME: {inference_time}, reference_device_info: {name}}]}]
    after        precisions: {PRECISION: {components: {NAME: {performance_metrics: {DEVICE: {RUNTIME: {...}}}}}}}

with `inference_time` in microseconds (later `inference_time_milliseconds`) and `estimated_peak_memory_range` in bytes
(`..._mb`). It is the Hub's estimate, and the file does not say of which kind. Written after
github.com/quic/ai-hub-models, qai_hub_models/configs/perf_yaml.py, and perf.yaml files of its models.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from edgegen.profilers.measurement import Measurement

LARGEST = 1 << 22  # bytes; the longest of the Hub's has some 200,000, and reading YAML is slow
DEEPEST = 32  # tables in tables; a perf.yaml has some ten
MIB = 1 << 20  # what the Hub's "_mb" counts


class Part(BaseModel):
    """A part of a file that is not ours: keys that are not known here are ignored."""

    model_config = ConfigDict(frozen=True, strict=True, allow_inf_nan=False)


class MemoryRange(Part):
    min: float = Field(ge=0)
    max: float = Field(ge=0)


class Details(Part):
    """Of one runtime on one device; in older files what failed has "null" where others have numbers."""

    job_id: str | None = None
    inference_time: float | str | None = None
    inference_time_milliseconds: float | None = None
    estimated_peak_memory_range: MemoryRange | None = None
    estimated_peak_memory_range_mb: MemoryRange | None = None
    primary_compute_unit: str | None = None
    precision: str | None = None

    def milliseconds(self) -> float | None:
        if isinstance(self.inference_time, float):
            return self.inference_time / 1000
        return self.inference_time_milliseconds

    def peak_bytes(self) -> int | None:
        if self.estimated_peak_memory_range is not None:
            return int(self.estimated_peak_memory_range.max)
        return (
            None if self.estimated_peak_memory_range_mb is None else int(self.estimated_peak_memory_range_mb.max) * MIB
        )


class HubDevice(Part):
    name: str


class Component(Part):
    performance_metrics: dict[str, dict[str, Details]] = {}


class Precision(Part):
    components: dict[str, Component] = {}


class Model(Part):
    name: str
    performance_metrics: list[dict[str, Any]] = []


class Perf(Part):
    models: list[Model] = []
    precisions: dict[str, Precision] = {}

    def rows(self) -> Iterator[tuple[str, str, str, Details]]:
        """(name, device, runtime, details), with the precision among the details."""
        for model in self.models:
            for entry in model.performance_metrics:
                device = HubDevice.model_validate(entry.get("reference_device_info")).name
                for runtime, details in entry.items():
                    if isinstance(details, Mapping) and runtime != "reference_device_info":
                        yield model.name, device, runtime, Details.model_validate(details)
        for precision, parts in self.precisions.items():
            for name, component in parts.components.items():
                for device, runtimes in component.performance_metrics.items():
                    for runtime, details in runtimes.items():
                        yield name, device, runtime, details.model_copy(update={"precision": precision})


@dataclass(frozen=True)
class PerfYaml:
    source: str = "Qualcomm AI Hub perf.yaml"
    form: str = "a perf.yaml of Qualcomm AI Hub Models"

    def fits(self, path: Path, content: bytes) -> bool:
        return path.suffix in (".yaml", ".yml")

    def read(self, path: Path, content: bytes) -> tuple[Measurement, ...]:
        if len(content) > LARGEST:
            raise ValueError(f"it has {len(content)} bytes; at most {LARGEST} are read")
        rows = list(Perf.model_validate(_load(content)).rows())
        devices: dict[str | None, dict[str, None]] = {}
        for _, device, _, details in rows:
            devices.setdefault(details.job_id, {})[device] = None
        measurements = []
        for name, device, runtime, details in rows:
            ms = details.milliseconds()
            if ms is None:  # a job that failed, or a language model's rates
                continue
            others = [other for other in devices[details.job_id] if other != device] if details.job_id else []
            shared = (f"one job, listed for {', '.join(others)}, too",) if others else ()
            setting = [runtime, details.precision, details.primary_compute_unit]
            measurements.append(
                Measurement(
                    source=self.source,
                    file=path.name,
                    what=name,
                    device=device,
                    setting=", ".join(part for part in setting if part),
                    times_ms={"estimate": ms},
                    peak_bytes=details.peak_bytes(),
                    notes=shared,
                )
            )
        if not measurements:
            raise ValueError("it has no inference time of any device")
        return tuple(measurements)


IMPORTER = PerfYaml()


def _load(content: bytes) -> Any:
    """YAML without aliases, of which a few lines can stand for billions of rows, and not deep."""
    import yaml

    depth = 0
    try:
        for event in yaml.parse(content, yaml.SafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > DEEPEST:
                raise RecursionError
            if isinstance(event, yaml.AliasEvent):
                raise ValueError("it has YAML aliases, which no perf.yaml has")
        return yaml.safe_load(content)
    except yaml.YAMLError as e:
        raise ValueError(f"it is not YAML, or cut short: {' '.join(str(e).split())[:200]}") from e
