"""`edgegen doctor` tries every backend for real and says how to get what is missing."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from edgegen.artifacts import doctor
from edgegen.cli.main import app
from edgegen.errors import UsageError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's cache is a folder of this test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "edgegen/doctor.json"


SAID = 'print(\'{"detail": "it ran"}\')'


@pytest.mark.slow
def test_what_works_here_was_run_here() -> None:
    result = CliRunner().invoke(app, ["doctor", "--again", "--json"], catch_exceptions=False)
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


def test_a_trial_that_succeeded_is_kept_for_these_versions(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor._backend("onnx", "quick")["works"] is None, "nothing is kept yet"
    monkeypatch.setattr(doctor, "PROBE", SAID)
    assert doctor._backend("onnx", "kept") == {"name": "onnx", "works": True, "detail": "it ran"}
    monkeypatch.setattr(doctor, "PROBE", "raise SystemExit('broken')")
    for trials in ("kept", "quick"):
        row = doctor._backend("onnx", trials)
        assert row["works"]
        assert row["detail"].startswith("it ran (on 20")
    assert doctor._backend("onnx", "new") == {"name": "onnx", "works": False, "detail": "broken"}
    kept = json.loads(cache.read_text())
    kept["onnx"]["versions"]["torch"] = "1.0"
    cache.write_text(json.dumps(kept))
    assert doctor._backend("onnx", "kept")["detail"] == "broken", "another version is tried"
    assert doctor._backend("onnx", "quick")["works"] is None


@pytest.mark.parametrize("content", ["", "[]", '{"onnx": 3}', '{"onnx": {"versions": {}, "day": 1, "detail": "x"}}'])
def test_a_broken_cache_is_ignored_and_written_anew(cache: Path, content: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.parent.mkdir()
    cache.write_text(content)
    monkeypatch.setattr(doctor, "PROBE", SAID)
    assert doctor._backend("onnx", "kept")["detail"] == "it ran"
    assert json.loads(cache.read_text())["onnx"]["detail"] == "it ran"


def test_a_cache_that_cannot_be_written_is_no_error(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.parent.write_text("a file in the folder's place")
    monkeypatch.setattr(doctor, "PROBE", SAID)
    assert doctor._backend("onnx", "kept")["works"]


def test_quick_says_that_nothing_was_tried() -> None:
    result = CliRunner().invoke(app, ["doctor", "--quick"], catch_exceptions=False)
    assert result.stdout.count("not tried, because of --quick") == 3
    assert "  ?   onnx" in result.stdout
    with pytest.raises(UsageError, match="give one of them"):
        CliRunner().invoke(app, ["doctor", "--quick", "--again"], catch_exceptions=False)
