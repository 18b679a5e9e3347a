"""A run on signals, from a .npz to files, samples and a report; and what a recipe on signals may not ask for."""

import csv
import json
import re
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import TINY
from typer.testing import CliRunner

from edgegen.artifacts.bundle import write_bundle
from edgegen.artifacts.library import export
from edgegen.artifacts.sample import sample_to_png
from edgegen.artifacts.sample_like import sample_like
from edgegen.artifacts.signal_files import write_signals
from edgegen.cli.main import app
from edgegen.errors import DataError, RecipeError, UsageError
from edgegen.formats.picture import PictureRecipe
from edgegen.formats.signal_units import SignalUnits
from edgegen.pipeline.run import run_recipe
from edgegen.pipeline.signals import check_signals
from edgegen.recipe import Recipe, parse
from edgegen.search.plan import Request, search_students
from edgegen.support.progress import Silent
from edgegen.support.storage import read_json, sha256_of
from edgegen.support.tables import read_toml

pytestmark = pytest.mark.long

SET = 'name = "tiny"\n[data]\nsource = "waves.npz"\n'


def waves(count: int = 64, length: int = 32) -> dict[str, Any]:
    """Sines of 1 to 2 waves, or of 4 to 6: in volts around 5, and a thousand times as much."""
    draw = np.random.default_rng(0)
    labels = np.arange(count) % 2
    waves = np.where(labels, draw.uniform(4, 6, count), draw.uniform(1, 2, count))
    angle = 2 * np.pi * (waves[:, None] * np.arange(length) / length + draw.uniform(size=(count, 1)))
    signals = np.stack([5 + 0.01 * np.sin(angle), 1000 * np.cos(angle)], axis=1)
    return {"signals": signals, "labels": labels, "class_names": ["low", "high"], "sample_rate": 8000}


def recipe(folder: Path, text: str = "", *, of: dict[str, Any] | None = None, data: str = "") -> Path:
    np.savez(folder / "waves.npz", **(of or waves()))
    path = folder / "tiny.toml"
    path.write_text(TINY.replace('name = "tiny"\n', SET + data) + text)
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder."""
    folder = tmp_path_factory.mktemp("signals")
    path = recipe(folder, '[export]\nartifacts = ["onnx-fp32"]\n')
    run_recipe(path, runs=folder / "runs", progress=Silent())
    return folder / "runs" / "tiny"


def test_data_are_in_range_and_their_units_are_known_everywhere(run: Path) -> None:
    about = read_json(run / "data" / "latest" / "data.json")
    assert (about["image_shape"], about["classes"]) == ([2, 32], ["low", "high"])
    units = SignalUnits.of_record(about, channels=2, where="data.json")
    assert units is not None
    assert units.offset == pytest.approx((5, 0), abs=5)
    assert units.scale == pytest.approx((0.01, 1000), rel=0.02)
    assert units.sample_rate_hz == 8000
    files = run / "verify" / "latest" / "artifacts"
    for record in (
        *(run / stage / "latest" / "generator" / "edgegen.json" for stage in ("teacher", "slim", "distill", "choose")),
        files / "manifest.json",
    ):
        assert SignalUnits.of_record(read_json(record), channels=2, where="") == units, record
    assert "There are 8000 values a second" in (files / "README.md").read_text()


def test_files_are_proven_and_judged(run: Path) -> None:
    rows = read_json(run / "verify" / "latest" / "parity.json")["artifacts"]
    assert [(row["parity"]["status"], row["parity"]["ssim"]) for row in rows] == [("ok", None)]
    quality = read_json(run / "evaluate" / "latest" / "quality.json")["quality"]
    student, floor = quality["student"]["1"], quality["floor"]["0"]
    assert student["spectrum_db"] > floor["spectrum_db"], "trained for a second"
    for key in ("nearest_ratio", "spread", "saturated"):
        assert np.isfinite(student[key])


def test_the_report_draws_lines_and_speaks_of_signals(run: Path) -> None:
    folder = run / "report" / "latest"
    page, text = (folder / "report.html").read_text(), (folder / "report.md").read_text()
    assert page.count("data:image/svg+xml;base64,") >= 6 * 4  # rows of six: real, teacher, student, the file
    assert "data:image/png" not in page
    assert "training signals of 32 values" in page
    assert "Signals held out" in text
    assert "real image" not in page.replace("real images in", "")
    assert read_json(folder / "report.json")["data"]["image_shape"] == [2, 32]


def test_samples_are_in_the_units_of_the_data(run: Path, tmp_path: Path) -> None:
    files = run / "verify" / "latest" / "artifacts"
    made = sample_to_png(files / "tiny_onnx_fp32.onnx", tmp_path / "a.npz", count=6, seed=3)
    assert (made["count"], made["size"]) == (6, [2, 32])
    with np.load(tmp_path / "a.npz") as arrays:
        signals = arrays["signals"]
        assert arrays["labels"].tolist() == [0, 1, 0, 1, 0, 1]
        assert arrays["sample_rate"] == 8000
    assert np.abs(signals[:, 0] - 5).max() < 0.2
    assert 50 < np.abs(signals[:, 1]).max() < 2e4
    # The same network in PyTorch, and the same numbers in other files.
    sample_to_png(run / "choose" / "latest" / "generator", tmp_path / "b.npz", count=6, seed=3, steps=1)
    with np.load(tmp_path / "b.npz") as arrays:
        np.testing.assert_allclose(arrays["signals"], signals, rtol=1e-4, atol=1e-2)
    sample_to_png(files / "tiny_onnx_fp32.onnx", tmp_path / "a.csv", count=6, seed=3)
    with (tmp_path / "a.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    assert len(rows) == 6 * 32
    assert list(rows[33]) == ["signal", "label", "seconds", "channel_0", "channel_1"]
    assert [float(value) for value in rows[33].values()] == pytest.approx(
        [1, 1, 1 / 8000, signals[1, 0, 1], signals[1, 1, 1]], rel=1e-5
    )
    sample_to_png(files / "tiny_onnx_fp32.onnx", tmp_path / "a.wav", count=1, seed=3)
    with wave.open(str(tmp_path / "a.wav")) as audio:
        assert (audio.getframerate(), audio.getnchannels(), audio.getnframes()) == (8000, 2, 32)
        values = np.frombuffer(audio.readframes(32), "<i2").reshape(32, 2) / 32767
    units = SignalUnits.of_record(read_json(files / "manifest.json"), channels=2, where="")
    assert units is not None
    np.testing.assert_allclose(values.T, units.normalised(signals[:1])[0].clip(-1, 1), atol=1e-3)
    sample_to_png(files / "tiny_onnx_fp32.onnx", tmp_path / "a.svg", count=3)
    assert (tmp_path / "a.svg").read_text().count("<polyline") == 6


def test_signals_are_made_again_by_the_recipe_that_they_carry(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, first = run / "verify" / "latest" / "artifacts" / "tiny_onnx_fp32.onnx", tmp_path / "a.npz"
    sample_to_png(file, first, count=3, seed=5, label="high")
    shown = CliRunner().invoke(app, ["inspect", str(first)])
    assert shown.exit_code == 0, shown.output
    assert all(part in shown.stdout for part in ("3 signals of edgegen", sha256_of(file), "seed      5", "again.npz"))
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["sample", "--like", "a.npz", "--runs", str(run.parent)])
    assert done.exit_code == 0, done.output
    assert "sample.npz: 3 signals, 2 x 32" in done.output
    assert " CPU), the same signals" in done.output
    assert Path("sample.npz").read_bytes() == first.read_bytes()

    with np.load(first) as content:
        arrays = dict(content)
    arrays["signals"][0, 1, 4] += 0.25
    np.savez(first, **arrays)
    result = sample_like(first, str(file), Path("b.npz"))
    assert not result["equal"]
    assert "not the same signals as in" in result["notes"][-1]
    assert "1 of 192 values differ, by at most 0.25:" in result["notes"][-1]
    np.savez(first, **{**arrays, "signals": arrays["signals"][:1]})
    assert "has another size" in sample_like(first, str(file), Path("b.npz"))["notes"][-1]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({}, "carries no recipe: it has no array 'edgegen'"),
        ({"edgegen": np.array("{")}, "its recipe"),
        ({"edgegen": np.array(["{}", "{}"])}, r"its recipe cannot be read: it is <U2 \(2,\); needed: one text"),
        ({"edgegen": np.zeros(3)}, r"it is float64 \(3,\); needed: one text"),
        ({"edgegen": np.array("{}" + " " * (1 << 17))}, "its recipe has 524,424 bytes; at most 262,144 are read"),
        ({"edgegen": np.array('{"schema": "edgegen.picture/1", "seed": -1}')}, "its recipe cannot be read: edgegen"),
    ],
)
def test_a_file_of_signals_without_a_sound_recipe_is_refused(
    tmp_path: Path, arrays: dict[str, np.ndarray], message: str
) -> None:
    np.savez(tmp_path / "a.npz", signals=np.zeros((2, 1, 16)), **arrays)
    with pytest.raises(DataError, match=message):
        sample_like(tmp_path / "a.npz", "net", tmp_path / "b.npz")


def test_only_a_npz_of_signals_carries_its_recipe(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("signal,index,channel_0")
    with pytest.raises(DataError, match=r"a.csv: carries no recipe; of signals, .npz files do"):
        sample_like(tmp_path / "a.csv", "net")
    recipe = PictureRecipe(edgegen="0.1.0", artifact="ab" * 32, seed=1)
    write_signals(tmp_path / "a.npz", np.zeros((1, 1, 16), np.float32), None, labels=None, recipe=recipe.text())
    with pytest.raises(UsageError, match=r"b.csv: give a name that ends in .npz"):
        sample_like(tmp_path / "a.npz", "net", tmp_path / "b.csv")
    with pytest.raises(UsageError, match="is the file that is to be made again"):
        sample_like(tmp_path / "a.npz", "net", tmp_path / "a.npz")


def test_samples_of_signals_are_no_pictures(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = run / "verify" / "latest" / "artifacts" / "tiny_onnx_fp32.onnx"
    with pytest.raises(UsageError, match=r"a\.png: give a name that ends in \.npz, \.csv, \.wav, \.svg$"):
        sample_to_png(file, tmp_path / "a.png")
    with pytest.raises(UsageError, match=r"a \.wav holds one signal \(--count 1\).* these are 2 of 2 channels"):
        sample_to_png(file, tmp_path / "a.wav", count=2)
    with pytest.raises(UsageError, match=r"a\.txt: give a name that ends in \.png, \.npz"):
        sample_to_png("of nothing", tmp_path / "a.txt")
    for rate, message in ((None, "no sample rate is known"), (0.1, "this rate is 0.1 Hz")):
        units = SignalUnits((0.0,), (1.0,), rate)
        with pytest.raises(UsageError, match=message):
            write_signals(tmp_path / "a.wav", np.zeros((1, 1, 16), np.float32), units, labels=None)
    with pytest.raises(DataError, match="not finite"):
        write_signals(tmp_path / "a.csv", np.full((1, 1, 16), np.nan, np.float32), None, labels=None)
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["sample", str(file), "--class", "high", "--count", "2"])
    assert done.exit_code == 0, done.output
    assert "sample.npz: 2 signals, 2 x 32 (channels x length), by" in done.output


def test_an_export_of_the_generator_and_a_bundle(run: Path, tmp_path: Path) -> None:
    generator = run / "choose" / "latest" / "generator"
    (exported,) = export(generator, tmp_path / "files", to=["onnx-w8a8"])
    assert exported.parity["generator_onnx_w8a8.onnx"].status == "ok"
    manifest = read_json(tmp_path / "files" / "manifest.json")
    assert manifest["units"] == read_json(generator / "edgegen.json")["units"]
    assert manifest["class_names"] == ["low", "high"]
    with pytest.raises(UsageError, match="its output 'out_sample' is signal, and a bundle is for images"):
        write_bundle(tmp_path / "files", tmp_path / "bundle", progress=Silent())
    manifest["units"]["scale"] = [1.0]
    (tmp_path / "files" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError, match=r"manifest\.json: units are of .* channels, and the signals have 2"):
        sample_to_png(tmp_path / "files" / "generator_onnx_w8a8.onnx", tmp_path / "a.npz")


REFUSED = {
    "data.upscale": {"data": {"upscale": 2}},
    "data.autoencoder": {"data": {"autoencoder": "vae"}},
    "evaluate.inception": {"evaluate": {"inception": "weights.pth"}},
    "evaluate.dinov2": {"evaluate": {"dinov2": "dinov2"}},
    "slim.network": {"slim": {"network": "diffusers:config.json", "keep": None}},
    "bundle": {"bundle": {}},
    "slim.flip": {"slim": {"flip": True}},
    "distill.flip": {"distill": {"flip": True}},
    "export.artifacts: onnx-fp32:any_size": {"export": {"artifacts": ["onnx-fp32", "onnx-fp32:any_size"]}},
    "export.artifacts: coreml-fp16:generate": {"export": {"artifacts": ["coreml-fp16:generate"]}},
}


@pytest.mark.parametrize("key", REFUSED)
def test_what_is_for_images_is_refused_by_its_name(key: str, tmp_path: Path) -> None:
    values = read_toml(recipe(tmp_path), RecipeError)
    for table, settings in REFUSED[key].items():
        merged = {**values.get(table, {}), **settings}
        values[table] = {name: value for name, value in merged.items() if value is not None}
    refused: Recipe = parse(values, where="tiny.toml")
    with pytest.raises(RecipeError, match=f"^{re.escape(key)} .* data.source = 'waves.npz' has signals: leave it out"):
        check_signals(refused)


def test_a_run_refuses_before_it_trains(tmp_path: Path) -> None:
    path = recipe(tmp_path, "[bundle]\n")
    with pytest.raises(RecipeError, match=r"bundle is a folder for apps that show images, and data.source"):
        run_recipe(path, runs=tmp_path / "runs", progress=Silent())


def test_lengths_that_do_not_halve_are_refused_before_a_training(tmp_path: Path) -> None:
    path = recipe(tmp_path, of=waves(length=33))
    with pytest.raises(
        RecipeError, match=r"halve the signal 1 times, but 33 values cannot be halved that often: .* of 32 or 34 values"
    ):
        run_recipe(path, runs=tmp_path / "runs", progress=Silent())


def test_a_channel_that_hardly_uses_its_range_is_told(tmp_path: Path) -> None:
    lines: list[str] = []

    class Messages(Silent):
        def message(self, text: str) -> None:
            lines.append(text)

    of = waves(length=128)
    of["signals"][:3, 1, 5] = 1e6
    run_recipe(recipe(tmp_path, of=of), runs=tmp_path / "runs", only="data", progress=Messages())
    assert any("data: channel 1 has a standard deviation of" in line for line in lines)
    assert not any("channel 0" in line for line in lines)


def test_edgegen_plan_says_that_it_knows_images(tmp_path: Path) -> None:
    request = Request(str(recipe(tmp_path)), budgets_ms=(1.0,), runs=tmp_path / "runs")
    with pytest.raises(RecipeError, match=r"'waves[.]npz' has signals: edgegen plan knows students of images"):
        search_students(request, progress=Silent())
