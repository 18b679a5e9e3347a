"""The README.md of an export folder: a model card for the Hugging Face hub, with what was checked and measured."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgegen import registry
from edgegen.exporters.base import Backend
from edgegen.formats.signal_units import UNITS
from edgegen.formats.tuned import sentence
from edgegen.support.storage import write_bytes
from edgegen.types import Artifact, Parity, Signature, TensorSpec

UNKNOWN = "-"
LATENCIES = ("p50 at batch 1", "load")
PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9.+-]*")
MOST_CLASSES = 100  # whose names are in the card


def write_card(folder: Path, exported: Mapping[str, Any]) -> None:
    """Write `folder/README.md`. Raises StorageError.

    `exported` has name; about (family, from, time, license; notes, inputs); signature; fold (sentence); artifacts, each
    as `card_row` makes it, with latency where that was measured; class_names where they are known.
    """
    write_bytes(folder / "README.md", card(exported).encode())


def card_row(artifact: Artifact, parity: Parity) -> dict[str, Any]:
    """What a card says of one file."""
    about = registry.load("backend", artifact.backend).variants[artifact.variant].about
    return {**artifact.to_dict(), "parity": parity.to_dict(), "verdict": str(parity), "about": about}


def card(exported: Mapping[str, Any], *, before: Sequence[str] = (), after: Sequence[str] = ()) -> str:
    """The model card as Markdown with a YAML head; paragraphs `before` and `after` what it says of the files."""
    source, rows = exported["about"], exported["artifacts"]
    is_timed = any(row.get("latency") for row in rows)
    family = source["family"] + (" with random weights, for latency only" if _is_random(source) else "")
    folded_in = "" if source["time"] is None else ", the time folded in"
    parts = [
        _head(exported),
        f"# {exported['name']}",
        f"{family}, exported by edgegen from {source['from']}: one step{folded_in}.",
        exported.get("fold", {}).get("sentence", ""),
        *before,
        "## Inputs and output",
        table(("name", "role", "type", "shape", "range"), [_tensor(spec) for spec in _tensors(exported["signature"])]),
        "\n".join(f"- {sentence}" for sentence in _meaning(exported)),
        "## Files",
        table(("file", "size", "batch", "against PyTorch", *(LATENCIES if is_timed else ())), list(map(_file, rows))),
        "\n".join(_description(row) for row in rows),
        table(
            ("file", "method", "output", "type", "shape", "layout"), [line for row in rows for line in _outputs(row)]
        ),
        _inputs(exported),
        "PSNR on the same inputs as PyTorch in float32, relative to the range of the values"
        + ("; latencies of the machine that exported, not of a phone" if is_timed else "")
        + ". `manifest.json` has sha256, signature and tool versions.",
        *(_python_snippet(row, exported["signature"]) for row in _one_of_each_backend(rows)),
        *after,
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
    lines += [f"license: {_yaml(licence)}"] if licence != "not stated" else []
    backends = sorted({row["backend"] for row in exported["artifacts"]})
    return "\n".join([*lines, f"tags: [edgegen, on-device{''.join(f', {name}' for name in backends)}]", "---"])


def _yaml(text: str) -> str:
    """A text as YAML takes it: one that is no plain word in the quotes of JSON, which YAML reads as well."""
    return text if PLAIN.fullmatch(text) else json.dumps(text, ensure_ascii=False)


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
    parity, latency = row["parity"], row.get("latency")
    batch = row["details"].get("batch")
    return (
        f"`{row['file']}`",
        f"{row['nbytes'] / 1e6:.2f} MB",
        "any" if batch is None else str(batch),
        f"{row['verdict']} ({parity['method']})",
        *((_ms(latency.get("p50_ms")), _ms(latency.get("load_ms"))) if latency else ()),
    )


def _outputs(row: Mapping[str, Any]) -> list[tuple[str, ...]]:
    return [
        (
            f"`{row['file']}`",
            f"`{output['method']}`" if output["method"] else UNKNOWN,
            f"`{output['name']}`",
            output["dtype"],
            " x ".join(map(str, output["shape"])),
            ", ".join(part for part in (output["layout"], output.get("colors", "")) if part) or UNKNOWN,
        )
        for output in row["details"].get("outputs", ())
    ]


def _meaning(exported: Mapping[str, Any]) -> list[str]:
    """What the roles of the inputs and outputs ask of an app, in sentences."""
    signature = Signature.from_dict(exported["signature"])
    sentences = []
    for spec in signature.inputs:
        if spec.role == "noise":
            sentences.append(
                f"`{spec.name}` is standard normal noise: independent numbers of mean 0 and standard deviation 1, new "
                "ones for every sample. `edgegen.noise` draws them from a seed, the same in every language "
                "(Philox4x32-10)."
            )
        if spec.role == "class":
            sentences.append(f"`{spec.name}` is the number of a class{_classes(exported.get('class_names', ()))}.")
    if any(row["backend"] == "coreml" for row in exported["artifacts"]) and _has_whole_numbers(signature):
        sentences.append("Core ML takes whole numbers as int32.")
    if signature.makes_images:
        low, high = signature.outputs[0].image_range
        colors = "red, green, blue (RGB), " if signature.image_shape[0] == 3 else "one gray channel, "
        sentences.append(
            f"`{signature.outputs[0].name}` is an image: {colors}(batch, channels, height, width) (NCHW), {low:g} is "
            f"black and {high:g} white: pixel = round(255 * (x - {low:g}) / {high - low:g}), cut to 0 .. 255.".replace(
                "x - -", "x + "
            )
        )
    if signature.outputs[0].role == "signal" and exported.get(UNITS):
        sentences.append(_of_units(signature.outputs[0], exported[UNITS]))
    if any(output["method"] for row in exported["artifacts"] for output in row["details"].get("outputs", ())):
        sentences.append(
            "A `.pte` takes and gives tensors by their place, in the order of these tables; its method `get_metadata` "
            "has the names. `generate` takes what `forward` takes, and gives the pixels that an app shows."
        )
    return sentences


def _of_units(spec: TensorSpec, units: Mapping[str, Any]) -> str:
    channels = [f"{offset:.6g} + {scale:.6g} y" for offset, scale in zip(units["offset"], units["scale"], strict=True)]
    rate = units["sample_rate_hz"]
    others = f" and {len(channels) - MOST_CLASSES} more (`units` in `manifest.json`)" * (len(channels) > MOST_CLASSES)
    return (
        f"`{spec.name}` is a signal: y (batch, channels, length), each channel about -1 to 1; in the units of the data "
        f"its channels are {', '.join(channels[:MOST_CLASSES])}{others}."
        + (f" There are {rate:g} values a second." if rate else "")
    )


def _has_whole_numbers(signature: Signature) -> bool:
    return any(spec.dtype == "int64" for spec in signature.inputs)


def _classes(names: Sequence[str]) -> str:
    if not names:
        return ""
    if list(names) == [str(number) for number in range(len(names))]:
        return f", 0 to {len(names) - 1}, which is its name, too"
    named = ", ".join(f"{number} = {name}" for number, name in enumerate(names[:MOST_CLASSES]))
    rest = len(names) - MOST_CLASSES
    return f": {named}" + (f", and {rest} more (`class_names` in `manifest.json`)" if rest > 0 else "")


def _description(row: Mapping[str, Any]) -> str:
    sizes = ", ".join(f"{height}x{width}" for height, width in row["details"].get("heights_widths", ()))
    caution, tuned = row["details"].get("caution"), sentence(row["details"])
    sizes_note = f" (its own and {sizes})" if sizes else ""
    return (
        f"- `{row['file']}`: {row['about']}{sizes_note}"
        + (f"; **{caution}**" if caution else "")
        + (f"; {tuned}" if tuned else "")
    )


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


def table(columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """A table in Markdown."""
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
