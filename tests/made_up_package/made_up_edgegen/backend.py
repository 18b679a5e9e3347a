"""A backend: the captured program in torch's own archive, run by PyTorch."""

import io
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from edgegen.errors import ExportError
from edgegen.exporters.base import DEFAULTS, Precision, Variant
from edgegen.recipe import Export
from edgegen.types import SchemeCell, Signature

if TYPE_CHECKING:
    from torch.export import ExportedProgram


@dataclass(frozen=True)
class ArchiveSession:
    """The program of an archive; its outputs have the names of the signature."""

    module: Any
    signature: Signature
    method: str

    def __call__(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        import torch

        output = self.module(*(torch.from_numpy(inputs[spec.name]) for spec in self.signature.inputs))
        return {self.signature.outputs[0].name: output.detach().numpy()}


class ArchiveBackend:
    """`.archive` files of any batch size."""

    variants: Mapping[str, Variant] = {"": Variant("any batch", ".archive", None)}
    rewrites: tuple[str, ...] = ()
    cells: Mapping[str, SchemeCell] = {"fp32": SchemeCell("float", "fp32", "none", 80.0)}
    snippet = 'import torch\nprint(torch.export.load("{file}"))'

    def passes(self) -> tuple[str, ...]:
        return ()

    def runs_here(self, variant: str = "") -> bool:
        return True

    def check_options(self, scheme: str, options: Export) -> None:
        pass

    def lower(
        self,
        program: "ExportedProgram",
        path: Path,
        *,
        signature: Signature,
        precision: Precision,
        metadata: Mapping[str, str],
        options: Export = DEFAULTS,
        variant: str = "",
        left_out: Collection[str] = (),
    ) -> None:
        import torch

        content = io.BytesIO()
        about = {"signature": json.dumps(signature.to_dict()), "metadata": json.dumps(dict(metadata))}
        torch.export.save(program, content, extra_files=about)
        path.write_bytes(content.getvalue())

    def complete(self, path: Path, *, variant: str, options: Export = DEFAULTS) -> dict[str, Any]:
        return {}

    def open(self, path: Path) -> ArchiveSession:
        import torch

        about = {"signature": ""}
        try:
            program = torch.export.load(io.BytesIO(path.read_bytes()), extra_files=about)
        except RuntimeError as e:
            raise ExportError(f"torch cannot load {path.name}: {e}") from e
        signature = Signature.from_dict(json.loads(about["signature"]))
        return ArchiveSession(program.module(), signature, f"PyTorch {torch.__version__}, its archive")


BACKEND = ArchiveBackend()
