"""ExecuTorch's ETDump: the trace that a program built with the event tracer writes, on any device."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgegen.errors import ExportError
from edgegen.profilers.trace.operators import FIRST_RUNS
from edgegen.support import isolation
from edgegen.support.extras import require
from edgegen.types import Measurement

MAGIC = b"ED00"  # file_identifier of executorch/devtools/etdump/etdump_schema_flatcc.fbs
HEAD = slice(4, 12)  # it stands at 4, or behind the size of the whole at 8
NOTE = "traced"  # which slows down


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
            told = isolation.call("edgegen.profilers.trace.operators:etdump", {"path": str(path.resolve())}).value
        except ExportError as e:  # a stranger's bytes may end the process that reads them
            raise ValueError(f"executorch cannot read it: {' '.join(str(e).split())[-200:]}") from e
        runs: list[float] = told["runs_ms"]
        if not runs:
            raise ValueError("the method was never run")
        kept = runs[FIRST_RUNS:] or runs
        return (
            Measurement(
                source=self.source,
                file=path.name,
                what=path.stem,
                device=None,
                setting="executorch",
                times_ms={"p50": float(np.median(kept)), "mean": float(np.mean(kept)), "min": min(kept)},
                runs=len(kept),
                load_ms=told["load_ms"],
                first_ms=runs[0] if len(runs) > 1 else None,
                kinds=told["kinds"],
                notes=(NOTE,) if len(runs) > FIRST_RUNS else (NOTE, "the first runs are among them"),
            ),
        )


IMPORTER = EtDump()
