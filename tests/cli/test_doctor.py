"""`edgegen doctor` tries every backend for real and says how to get what is missing."""

import json

import pytest
from typer.testing import CliRunner

from edgegen.artifacts import doctor
from edgegen.cli.main import app


@pytest.mark.slow
def test_what_works_here_was_run_here() -> None:
    result = CliRunner().invoke(app, ["doctor", "--json"], catch_exceptions=False)
    diagnosis = json.loads(result.stdout)
    rows = {row["name"]: row for row in diagnosis["backends"]}
    assert set(rows) == {"onnx", "executorch", "coreml"}
    for row in rows.values():
        assert row["works"], row["detail"]
        assert "dB against PyTorch" in row["detail"]
    assert diagnosis["accelerators"][0]["name"] == "cpu"


def test_a_backend_that_is_not_installed_names_its_pip_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "missing", lambda extra: ["it"])
    rows = [doctor._backend("onnx"), doctor._extra("datasets")]
    assert [row["works"] for row in rows] == [False, False]
    assert rows[0]["detail"] == "it not installed: pip install 'edgegen[onnx]'"


def test_a_backend_that_breaks_shows_its_last_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "PROBE", "raise SystemExit('libfoo.so: cannot open')")
    row = doctor._backend("onnx")
    assert row == {"name": "onnx", "works": False, "detail": "libfoo.so: cannot open"}
