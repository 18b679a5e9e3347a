"""The README.md of an export folder: a model card for the Hugging Face hub, with what was checked and measured."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgegen import registry
from edgegen.exporters.base import Backend
from edgegen.support.storage import write_bytes
from edgegen.types import TensorSpec

UNKNOWN = "-"


def write_card(folder: Path, exported: Mapping[str, Any]) -> None:
    """Write `folder/README.md` from what `ExportResult.to_dict` gives. Raises StorageError."""
    write_bytes(folder / "README.md", card(exported).encode())


def card(exported: Mapping[str, Any]) -> str:
    """The model card as Markdown with a YAML head."""
    source, rows = exported["about"], exported["artifacts"]
    family = source["family"] + (" with random weights, for latency only" if _is_random(source) else "")
    folded_in = "" if source["time"] is None else ", the time folded in"
    parts = [
        _head(exported),
        f"# {exported['name']}",
        f"{family}, exported by edgegen from {source['from']}: one step{folded_in}.",
        exported["fold"]["sentence"],
        "## Inputs and output",
        _table(("name", "role", "type", "shape", "range"), [_tensor(spec) for spec in _tensors(exported["signature"])]),
        "## Files",
        _table(
            ("file", "size", "against PyTorch", "p50 at batch 1", "load"),
            [_file(row) for row in rows],
        ),
        "\n".join(_description(row) for row in rows),
        _inputs(exported),
        "PSNR on the same inputs as PyTorch in float32, relative to the range of the values; latencies of the machine "
        "that exported, not of a phone. `manifest.json` has sha256, signature and tool versions.",
        *(_python_snippet(row, exported["signature"]) for row in _one_of_each_backend(rows)),
        *(["## Notes", *(f"- {note}" for note in source.get("notes", []))] if source.get("notes") else []),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _is_random(source: Mapping[str, Any]) -> bool:
    return source.get("random_weights") is not None


def _head(exported: Mapping[str, Any]) -> str:
    images = exported["signature"]["outputs"][0]["role"] == "image"
    roles = {spec["role"] for spec in exported["signature"]["inputs"]}
    task = "text-to-image" if "text" in roles else "unconditional-image-generation"
    licence = exported["about"]["license"]
    lines = ["---", "library_name: edgegen"]
    lines += [f"pipeline_tag: {task}"] if images and "noise" in roles else []
    lines += [f"license: {licence}"] if licence != "not stated" else []
    backends = sorted({row["backend"] for row in exported["artifacts"]})
    return "\n".join([*lines, f"tags: [edgegen, on-device{''.join(f', {name}' for name in backends)}]", "---"])


def _tensors(signature: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [*signature["inputs"], *signature["outputs"]]


def _tensor(spec: Mapping[str, Any]) -> tuple[str, ...]:
    bounded = spec["low"] is not None and spec["high"] is not None
    shape = " x ".join(str(size) for size in spec["shape"])
    return (
        f"`{spec['name']}`",
        spec["role"],
        spec["dtype"],
        shape,
        f"{spec['low']:g} to {spec['high']:g}" if bounded else UNKNOWN,
    )


def _file(row: Mapping[str, Any]) -> tuple[str, ...]:
    parity, latency = row["parity"], row["latency"] or {}
    return (
        f"`{row['file']}`",
        f"{row['nbytes'] / 1e6:.2f} MB",
        f"{row['verdict']} ({parity['method']})",
        _ms(latency.get("p50_ms")),
        _ms(latency.get("load_ms")),
    )


def _description(row: Mapping[str, Any]) -> str:
    sizes = ", ".join(f"{height}x{width}" for height, width in row["details"].get("heights_widths", ()))
    caution = row["details"].get("caution")
    sizes_note = f" (its own and {sizes})" if sizes else ""
    return f"- `{row['file']}`: {row['about']}{sizes_note}" + (f"; **{caution}**" if caution else "")


def _inputs(exported: Mapping[str, Any]) -> str:
    """What the files were compared on, in a sentence."""
    facts = exported["about"].get("inputs")
    if facts:
        files = ", ".join(f"`{name}` from {source}" for name, source in facts["files"].items())
        return (
            f"Checked on real inputs: {files}, {facts['verification']} samples that took no part in the calibration, "
            f"which had {facts['calibration']} others."
        )
    if any(row["parity"]["origin"] == "synthetic" for row in exported["artifacts"]):
        return (
            "**Checked on synthetic inputs only**: the figures say that the files compute what PyTorch does, not how "
            "good they are on your images. `edgegen export --inputs` checks on real ones."
        )
    return ""


def _ms(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.2f} ms"


def _table(columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [columns, tuple("---" for _ in columns), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _one_of_each_backend(rows: list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    plain = [row for row in rows if not row["variant"]]
    return list({row["backend"]: row for row in reversed(plain)}.values())[::-1]


def _python_snippet(row: Mapping[str, Any], signature: Mapping[str, Any]) -> str:
    """A few lines of Python that run the file on random inputs."""
    values = {spec["name"]: _numpy(spec) for spec in signature["inputs"]}
    arrays = ", ".join(f'"{name}": {value}' for name, value in values.items())
    tensors = ", ".join(_torch(spec) for spec in signature["inputs"])
    output = signature["outputs"][0]["name"]
    backend: Backend = registry.load("backend", row["backend"])
    text = backend.snippet.format(
        file=row["file"], output=output, inputs="{" + arrays + "}", tensors="[" + tensors + "]"
    )
    return f"```python\n{text}\n```"


def _sizes(spec: Mapping[str, Any]) -> str:
    return ", ".join(str(1 if size == "batch_size" else size) for size in spec["shape"])


def _numpy(spec: Mapping[str, Any]) -> str:
    if spec["role"] == "class":
        return "np.zeros(1, np.int64)"
    values = _scaled(spec, f"np.random.rand({_sizes(spec)})", f"np.random.randn({_sizes(spec)})")
    return f'{values}.astype("{spec["dtype"]}")'


def _torch(spec: Mapping[str, Any]) -> str:
    if spec["role"] == "class":
        return "torch.zeros(1, dtype=torch.int64)"
    return _scaled(spec, f"torch.rand({_sizes(spec)})", f"torch.randn({_sizes(spec)})")


def _scaled(spec: Mapping[str, Any], uniform: str, normal: str) -> str:
    """`uniform` numbers from 0 to 1 in the range of an image; `normal` ones for everything else."""
    if spec["role"] != "image":
        return normal
    low, high = TensorSpec(**{**spec, "shape": tuple(spec["shape"])}).image_range
    factor = "" if high - low == 1 else f" * {high - low:g}"
    offset = "" if low == 0 else f" {'-' if low < 0 else '+'} {abs(low):g}"
    return f"({uniform}{factor}{offset})" if factor or offset else uniform
