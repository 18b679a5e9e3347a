"""ExecuTorch's flatbuffers as plain dicts, by the `flatc` and the schemas in its package: importing that takes 30 s."""

import importlib.util
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgegen.errors import DeviceError, ExportError
from edgegen.support.extras import require
from edgegen.support.processes import Finished, finish
from edgegen.support.scratch import temporary_folder

PROGRAM = "exir/_serialize/program.fbs"
# What a delegate keeps of its own in a .pte: the backend's name and the schema of its payload.
PAYLOADS = {
    "XnnpackBackend": "backends/xnnpack/serialization/schema.fbs",
    "VulkanBackend": "backends/vulkan/serialization/schema.fbs",
}
PAYLOAD_HEADERS = (b"XH00", b"VH00")  # both lay out their header alike
SECONDS = 120
# flatc writes these words on a line of their own or after a field's name; JSON in Python spells them otherwise.
NOT_FINITE = re.compile(rb'^(\s*(?:"\w+": )?-?)(inf|nan)(,?)$', re.MULTILINE)
SPELLED = {b"inf": b"Infinity", b"nan": b"NaN"}


def decode(contents: Sequence[bytes], schema: str) -> list[dict[str, Any]]:
    """Each flatbuffer by the `schema` of executorch's package (PROGRAM or one of PAYLOADS).

    flatc does not check what it reads, so it runs in processes of its own. Raises ValueError where it fails or crashes
    on them, ExportError where it cannot be started, MissingExtraError without executorch.
    """
    require("executorch", purpose="reading an ExecuTorch file")
    spec = importlib.util.find_spec("executorch")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    package = Path(next(iter(spec.submodule_search_locations)))
    flatc = package / "data" / "bin" / "flatc"
    with temporary_folder() as folder:
        files = [folder / f"{index}.bin" for index in range(len(contents))]
        for file, content in zip(files, contents, strict=True):
            file.write_bytes(content)
        options = ["--json", "--defaults-json", "--strict-json", "--raw-binary", "-o", str(folder)]
        if not flatc.exists():
            raise ExportError(f"no {flatc}: reinstall executorch")
        try:
            finished = finish([flatc, *options, package / schema, "--", *files], name="flatc", timeout_s=SECONDS)
        except DeviceError as e:
            raise ValueError(f"its flatbuffer is not decoded: {e}") from e
        if finished.code:
            raise ValueError(_damage(finished))
        texts = [file.with_suffix(".json").read_bytes() for file in files]
    return [json.loads(NOT_FINITE.sub(lambda m: m[1] + SPELLED[m[2]] + m[3], text)) for text in texts]


def payload(content: bytes) -> bytes:
    """The flatbuffer in a delegate's payload. Raises ValueError where it is cut short."""
    if content[4:8] not in PAYLOAD_HEADERS:
        return content
    start, size = (int.from_bytes(content[at : at + 4], "little") for at in (10, 14))
    if not 0 < start + size <= len(content):
        raise ValueError("a delegate's payload is longer than its place")
    return content[start : start + size]


def _damage(finished: Finished) -> str:
    if finished.code < 0:
        return "its flatbuffer is damaged"
    match = re.search(r"Unable to generate text for \S+ \(([^)]*)\)", finished.stderr)
    return f"its flatbuffer is damaged ({match[1]})" if match else "its flatbuffer is damaged"
