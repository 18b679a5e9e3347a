"""The schema "edgegen.report/1": current on disk, kept by what is written, strict about what it is given."""

import json
import math
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from measured import profile, result
from pydantic import ValidationError

from edgegen.report import Report
from edgegen.report.schema import ArtifactRow, QualityFigure
from edgegen.types import Latency, Parity


def test_the_committed_schema_is_current() -> None:
    how = 'run: python -c "from edgegen.report.schema import Report; Report.update_schema_file()"'
    assert json.loads(Report.schema_file.read_text()) == Report.json_schema(), how


def test_the_written_report_keeps_the_schema(written: Path) -> None:
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is in the extra 'test'")
    jsonschema.Draft202012Validator.check_schema(Report.json_schema())
    jsonschema.validate(json.loads((written / "report.json").read_text()), Report.json_schema())


def test_reading_it_back_gives_the_same(written: Path, made_up: ModuleType) -> None:
    content = json.loads((written / "report.json").read_text())
    assert content["schema"] == "edgegen.report/1"
    read = Report.model_validate(content)
    assert read.verdict is not None  # it is made from the other figures when the report is written
    assert read.model_copy(update={"verdict": None}) == made_up.report()


def test_the_documented_keys(written: Path) -> None:
    content = json.loads((written / "report.json").read_text())
    assert set(content["artifacts"][0]) == {
        *("file", "backend", "scheme", "nbytes", "sha256", "engine", "fd_local", "parity", "latency"),
        "variant",
    }
    parity, latency = content["artifacts"][-1]["parity"], content["artifacts"][-1]["latency"]
    assert set(parity) == {
        *("status", "method", "psnr_db", "floor_db", "max_abs_error", "samples", "reason", "data_range"),
        *("arithmetic", "worst_db", "ssim", "origin", "range_of"),
    }
    assert set(latency) == {
        *("p50_ms", "p50_ci95_ms", "p90_ms", "load_ms", "first_ms", "runs", "peak_rss_bytes", "converged", "reason"),
        *("percentiles_ms", "runtime"),
    }
    assert (parity["status"], parity["psnr_db"], latency["p50_ms"]) == ("not checked", None, None)
    assert set(content["quality"]) == {
        *("teacher", "scheduler", "slimmed", "student", "finished", "best_of_4", "baseline", "floor", "autoencoder"),
        "bicubic",
    }
    assert content["quality"]["floor"]["0"]["sd"] is None


def test_what_is_not_a_number_becomes_null(made_up: ModuleType) -> None:
    row = made_up.artifacts()[0]
    parity = replace(row.parity, psnr_db=math.inf)
    report = made_up.report(artifacts=(row.model_copy(update={"parity": parity, "fd_local": math.nan}),))
    content = report.to_json()
    assert content["artifacts"][0]["parity"]["psnr_db"] is None
    assert content["artifacts"][0]["fd_local"] is None
    json.dumps(content, allow_nan=False)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("sha256", "abc", "String should match pattern"),
        ("file", "/home/somebody/net.onnx", "String should match pattern"),
        ("nbytes", -1, "greater than or equal to 0"),
        ("extra", 1, "Extra inputs are not permitted"),
    ],
)
def test_an_artifact_refuses(key: str, value: object, message: str) -> None:
    good = {
        "file": "net.onnx",
        "backend": "onnx",
        "scheme": "fp32",
        "nbytes": 1,
        "sha256": "0" * 64,
        "engine": "onnxruntime",
        "fd_local": None,
        "parity": Parity("not checked", "", 30.0),
        "latency": Latency(None),
    }
    ArtifactRow(**good)
    with pytest.raises(ValidationError, match=message):
        ArtifactRow(**{**good, key: value})


def test_two_files_of_one_scheme_have_two_names(made_up: ModuleType) -> None:
    plain = made_up.artifacts()[0]
    assert plain.label == "onnx fp32"
    assert plain.model_copy(update={"variant": "qnn"}).label == "onnx fp32:qnn"


def test_a_latency_is_that_of_the_profile(made_up: ModuleType) -> None:
    """`report.json` holds the measurement "edgegen.profile/1" of its files, and the summaries agree with it."""
    record = result(np.full((10, 4), 2.0))
    row = made_up.artifacts()[0].model_copy(
        update={"sha256": record.artifact.sha256, "latency": Latency(2.0, runtime="executorch 1.5.1 in C++")}
    )
    report = made_up.report(artifacts=(row,), profile=profile(record))
    assert report.to_json()["profile"]["schema"] == "edgegen.profile/1"
    assert Report.model_validate(report.to_json()) == report
    for changes in ({"latency": Latency(2.1)}, {"sha256": "1" * 64}):
        with pytest.raises(ValidationError, match="its p50 is not that of its result in the profile"):
            made_up.report(artifacts=(row.model_copy(update=changes),), profile=profile(record))


def test_records_are_frozen() -> None:
    figure = QualityFigure(fd_local=1.0, sd=None, kd_local=None, precision=None, recall=None)
    with pytest.raises(ValidationError, match="frozen"):
        figure.fd_local = 2.0  # type: ignore[misc]


@pytest.mark.parametrize("time", ["2026-11-23", "2026-11-23T06:15:00+01:00", "now"])
def test_the_time_is_utc(time: str, made_up: ModuleType) -> None:
    with pytest.raises(ValidationError, match="created_utc"):
        made_up.report(created_utc=time)
