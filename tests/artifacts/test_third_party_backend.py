"""A backend of another package, known by its entry point alone: exported, verified, run, and refused with its name."""

import io
import json
import sys
from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from families import TINY
from typer.testing import CliRunner

from edgegen import registry
from edgegen.artifacts import doctor
from edgegen.artifacts.target import Target, check_targets
from edgegen.cli.main import app
from edgegen.errors import ExportError, UsageError
from edgegen.exporters.base import DEFAULTS, Backend, Variant
from edgegen.quantize.support_matrix import matrix
from edgegen.recipe import Export
from edgegen.types import SchemeCell

Publish = Callable[[str, object], None]


class ProgramSession:
    """A captured program run by PyTorch."""

    method = "torch.export"

    def __init__(self, path: Path) -> None:
        self.module = torch.export.load(io.BytesIO(path.read_bytes())).module()

    def __call__(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        with torch.no_grad():
            return {"out_sample": self.module(*map(torch.from_numpy, inputs.values())).numpy()}


class MadeUpBackend:
    """Writes the captured program as it is."""

    variants: Mapping[str, Variant] = {"": Variant("any batch", ".program", None)}
    cells: Mapping[str, SchemeCell] = {"whole": SchemeCell("float", "fp32", "none", 80.0)}
    rewrites: tuple[str, ...] = ()
    snippet = 'import torch\nout = torch.export.load("{file}").module()(*{tensors})'

    def passes(self) -> tuple[str, ...]:
        return ()

    def runs_here(self, variant: str = "") -> bool:
        return True

    def check_options(self, scheme: str, options: Export) -> None:
        if options.opset > 18:
            raise ExportError("made-up files have no opset above 18")

    def lower(self, program: Any, path: Path, **_: object) -> None:
        with path.open("wb") as file:
            torch.export.save(program, file)

    def complete(self, path: Path, *, variant: str, options: Export = DEFAULTS) -> dict[str, Any]:
        return {}

    def open(self, path: Path) -> ProgramSession:
        return ProgramSession(path)


@pytest.fixture
def publish(monkeypatch: pytest.MonkeyPatch) -> Publish:
    """Publishes an object as the backend of an installed package; an exception is what importing it raises."""
    points: list[EntryPoint] = []
    monkeypatch.setattr(registry, "_third_party", registry._third_party.__wrapped__)  # no cache of what was published
    monkeypatch.setattr(registry, "entry_points", lambda **wanted: EntryPoints(points).select(**wanted))

    def call(name: str, backend: object) -> None:
        points.append(EntryPoint(name, f"package_of_{name}:BACKEND", "edgegen.backends"))
        if backend is not None:
            module = ModuleType(f"package_of_{name}")
            module.BACKEND = backend  # type: ignore[attr-defined]
            monkeypatch.setitem(sys.modules, module.__name__, module)

    return call


def test_a_made_up_backend_is_exported_verified_and_described(
    publish: Publish, tmp_path: Path, in_process: None
) -> None:
    backend: Backend = MadeUpBackend()
    publish("madeup", backend)
    net, out = TINY["edge_unet_class"](tmp_path / "tiny"), tmp_path / "out"
    arguments = ["export", str(net), "--to", "madeup", "-o", str(out), "--no-measure", "--json"]
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0
    (row,) = json.loads(done.stdout)["exported"][0]["artifacts"]
    assert (row["file"], row["scheme"], row["parity"]["status"]) == ("tiny_madeup_whole.program", "whole", "ok")
    assert row["parity"]["method"] == "torch.export"
    assert (out / row["file"]).exists()
    assert 'out = torch.export.load("tiny_madeup_whole.program")' in (out / "README.md").read_text()
    with pytest.raises(UsageError, match=r"tiny_madeup_whole\.program"):
        CliRunner().invoke(app, ["inspect", str(out / row["file"])], catch_exceptions=False)


def test_its_cells_are_in_the_matrix_and_it_checks_its_own_options(publish: Publish) -> None:
    publish("madeup", MadeUpBackend())
    target = Target.parse("madeup")
    assert target == Target("madeup", "whole")
    assert matrix()["whole", "madeup"] == MadeUpBackend.cells["whole"]
    check_targets([target], Export(opset=18))
    with pytest.raises(UsageError, match=r"madeup-whole: made-up files have no opset above 18"):
        check_targets([target], Export(opset=21))


class WithoutCells(MadeUpBackend):
    cells: Mapping[str, SchemeCell] = {}


@pytest.mark.parametrize(
    ("backend", "message"),
    [
        (WithoutCells(), r"the backend 'odd' \(package_of_odd:BACKEND\) has no cells, so there is no scheme to export"),
        (
            None,
            r"another package adds the backend 'odd' by the entry point package_of_odd:BACKEND, which cannot be",
        ),
    ],
)
def test_one_that_cannot_be_used_is_named_and_breaks_no_other(
    backend: object, message: str, publish: Publish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish("odd", backend)
    publish("madeup", MadeUpBackend())
    net = TINY["edge_unet_class"](tmp_path / "tiny")
    for targets in ("odd", "onnx,odd,madeup"):
        with pytest.raises(UsageError, match=message):
            CliRunner().invoke(app, ["export", str(net), "--to", targets, "--dry-run"], catch_exceptions=False)
    done = CliRunner().invoke(app, ["export", str(net), "--to", "onnx,madeup", "--dry-run"], catch_exceptions=False)
    assert "onnx-fp32, madeup-whole" in done.stdout
    assert {name for _, name in matrix()} == {"onnx", "executorch", "coreml", "madeup"}
    monkeypatch.setattr(doctor, "PROBE", """print('{"detail": "tried"}')""")
    rows = {row["name"]: row for row in doctor.diagnose()["backends"]}
    assert {name for name, row in rows.items() if row["works"]} == {"onnx", "executorch", "coreml", "madeup"}
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(rows["odd"]["detail"])
