"""ExecuTorch's ETDump: the trace that a program built with the event tracer writes, on any device."""

from dataclasses import dataclass
from pathlib import Path

from edgegen.errors import ExportError
from edgegen.profilers.importers.traced import traced_measurement
from edgegen.profilers.measurement import Measurement
from edgegen.support import isolation
from edgegen.support.extras import require

MAGIC = b"ED00"  # file_identifier of executorch/devtools/etdump/etdump_schema_flatcc.fbs
HEAD = slice(4, 12)  # it stands at 4, or behind the size of the whole at 8


@dataclass(frozen=True)
class EtDump:
    source: str = "ExecuTorch ETDump"
    form: str = "an ETDump of ExecuTorch"

    def fits(self, path: Path, content: bytes) -> bool:
        return MAGIC in content[HEAD] or path.suffix == ".etdump"

    def read(self, path: Path, content: bytes) -> tuple[Measurement, ...]:
        if MAGIC not in content[HEAD]:
            raise ValueError("it is none")
        require("executorch", purpose="reading an ETDump")
        try:
            dump = isolation.call("edgegen.profilers.trace.operators:etdump", {"path": str(path.resolve())}).value
        except ExportError as e:  # a stranger's bytes may end the process that reads them
            raise ValueError(f"executorch cannot read it: {' '.join(str(e).split())[-200:]}") from e
        if not dump["runs_ms"]:
            raise ValueError("the method was never run")
        measurement = traced_measurement(
            path,
            dump["runs_ms"],
            source=self.source,
            setting="executorch",
            load_ms=dump["load_ms"],
            kinds=dump["kinds"],
        )
        return (measurement,)


IMPORTER = EtDump()
