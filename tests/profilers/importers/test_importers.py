"""Measurements of other programs: the source's own figures and words, and one clear line for what cannot be read."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from measured import needs_compiler, profile, result
from typer.testing import CliRunner

from edgegen import registry
from edgegen.cli.main import app
from edgegen.errors import DataError, UsageError
from edgegen.profilers.importers import perf_yaml, read
from edgegen.profilers.trace.operators import FIRST_RUNS
from edgegen.support.storage import write_json

HERE = Path(__file__).with_name("measured_elsewhere")  # written after the formats, recorded on no phone


def test_edgegen_s_own_keep_their_verdict_and_their_spread(tmp_path: Path) -> None:
    blocks = np.random.default_rng(0).lognormal(0, 0.1, (12, 5))
    noisy = result(blocks, verdict={"status": "noisy", "reasons": ["other programs used 0.97 cores"]})
    failed = result(blocks, latency=None, verdict={"status": "failed", "reasons": ["wrong: 2.0 dB"]})
    write_json(tmp_path / "a.json", profile(noisy, failed).to_json())
    first, second = read(tmp_path / "a.json")
    assert first.times_ms["p50"] == pytest.approx(np.median(blocks))
    assert first.times_ms["mean"] == pytest.approx(blocks.mean())
    assert first.percentiles_ms is not None
    assert np.interp(90, range(101), first.percentiles_ms) == pytest.approx(first.times_ms["p90"])
    assert (first.verdict, first.notes) == ("noisy", ("other programs used 0.97 cores",))
    assert (second.verdict, second.times_ms, second.percentiles_ms) == ("failed", {}, None)
    escaped = (tmp_path / "a.json").read_text().replace("/", r"\/")
    (tmp_path / "a.json").write_text(escaped)
    assert read(tmp_path / "a.json") == (first, second)


def test_the_older_perf_yaml_written_after_the_format_is_in_microseconds_and_bytes() -> None:
    (one,) = read(HERE / "perf_old.yaml")  # the job that failed has no row
    assert (one.what, one.device, one.setting) == (
        "Small-UNet",
        "Samsung Galaxy S24",
        "torchscript_onnx_tflite, fp16, NPU",
    )
    assert (one.times_ms, one.peak_bytes, one.runs) == ({"estimate": 0.857}, 65_350_952, None)
    assert one.source == "Qualcomm AI Hub perf.yaml"


def test_the_newer_perf_yaml_written_after_the_format_names_a_job_that_stands_twice() -> None:
    rows = {(one.device, one.setting): one for one in read(HERE / "perf_new.yaml")}
    assert set(rows) == {
        ("QCS8275 (Proxy)", "tflite, float, NPU"),
        ("SA7255P ADP", "tflite, float, NPU"),
        ("Samsung Galaxy S24", "onnx, w8a16, NPU"),
    }
    proxy, phone = rows["QCS8275 (Proxy)", "tflite, float, NPU"], rows["Samsung Galaxy S24", "onnx, w8a16, NPU"]
    assert (proxy.times_ms, proxy.peak_bytes) == ({"estimate": 2.731}, 35 << 20)
    assert proxy.notes == ("one job, listed for SA7255P ADP, too",)
    assert (phone.times_ms, phone.peak_bytes, phone.notes) == ({"estimate": 0.43}, None, ())


def test_the_output_of_perf_test_written_after_the_format_keeps_its_mean_and_its_percentiles() -> None:
    (one,) = read(HERE / "perf_test.txt")
    assert one.times_ms == pytest.approx(
        {
            **{"min": 1.83404, "max": 1.90312, "p50": 1.85674, "p90": 1.87215, "p95": 1.87393, "p99": 1.90312},
            **{"p999": 1.90312, "mean": 1.85739},
        }
    )
    assert (one.runs, one.first_ms, one.peak_bytes, one.device) == (100, 2.0, 36_696_064, None)
    assert one.load_ms == pytest.approx(10.2016)
    assert one.percentiles_ms is None


def test_perf_test_without_s_and_its_older_words_are_read(tmp_path: Path) -> None:
    text = "Session creation time cost:0.5 s\nAverage inference time cost:4 ms\nTotal inference requests:7\n"
    (tmp_path / "a.txt").write_text(text + text.replace("4 ms", "5 ms") + "P50 Latency is 0.0045sec\n")
    first, second = read(tmp_path / "a.txt")
    assert (first.times_ms, first.runs, first.load_ms) == ({"mean": 4.0}, 7, 500.0)
    assert second.times_ms == {"mean": 5.0, "p50": 4.5}


def test_a_result_file_of_perf_test_written_after_the_format_has_each_program_s_runs() -> None:
    first, second = read(HERE / "perf_test.csv")
    assert first.times_ms == pytest.approx({"p50": 2.5, "p90": 2.9, "p99": 2.99, "mean": 2.5, "min": 2.0})
    assert (first.runs, second.runs, second.times_ms["p50"]) == (3, 2, pytest.approx(4.5))
    assert first.percentiles_ms is not None
    assert (first.percentiles_ms[0], first.percentiles_ms[100]) == (pytest.approx(2.0), pytest.approx(3.0))


def test_a_profile_of_onnxruntime_is_its_session_s_runs(tmp_path: Path) -> None:
    import onnxruntime
    from onnx import TensorProto, helper, save

    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Relu", ["a"], ["b"], name="r"), helper.make_node("Exp", ["b"], ["c"], name="e")],
        "g",
        [value("a", TensorProto.FLOAT, [64, 64])],
        [value("c", TensorProto.FLOAT, [64, 64])],
    )
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), tmp_path / "net.onnx")
    options = onnxruntime.SessionOptions()
    options.enable_profiling, options.profile_file_prefix = True, str(tmp_path / "trace")
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx", options, providers=["CPUExecutionProvider"])
    for _ in range(FIRST_RUNS + 5):
        session.run(None, {"a": np.zeros((64, 64), np.float32)})
    path = Path(session.end_profiling())
    (one,) = read(path)
    runs = [event["dur"] / 1e3 for event in json.loads(path.read_text()) if event["name"] == "model_run"]
    assert one.runs == 5
    assert one.times_ms["p50"] == pytest.approx(np.median(runs[FIRST_RUNS:]))
    assert one.times_ms["mean"] == pytest.approx(np.mean(runs[FIRST_RUNS:]))
    assert (one.first_ms, one.setting, one.notes) == (pytest.approx(runs[0]), "CPUExecutionProvider", ("traced",))
    assert set(one.kinds) == {"Relu", "Exp"}
    assert sum(one.kinds.values()) == pytest.approx(1.0)


@needs_compiler
def test_an_etdump_of_a_pte_that_runs_here(tmp_path: Path, in_process: None) -> None:
    import torch
    from torch import nn

    from edgegen.artifacts.build import build
    from edgegen.artifacts.target import Target
    from edgegen.profilers.devices.host import DEVICE
    from edgegen.profilers.files.subject import place, read_subject
    from edgegen.profilers.timing.process import Worker
    from edgegen.program.one_step import OneStep
    from edgegen.types import Signature

    torch.manual_seed(0)
    net = OneStep(nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.SiLU(), nn.Conv2d(16, 1, 3, padding=1))).eval()
    signature, target = Signature.of(channels=1, size=16, num_classes=0), Target.parse("executorch-fp32")
    build(net, signature, name="t", target=target, folder=tmp_path, seed=3, metadata={})
    placement = place(read_subject(tmp_path / target.file("t")), DEVICE, tmp_path)
    worker = Worker(DEVICE, placement.command, timeout_s=60.0).ready()
    try:
        worker.ask("open", 1, *placement.inputs)
        worker.ask("trace", FIRST_RUNS + 4, tmp_path / "t.etdump")
    finally:
        worker.stop()
    (one,) = read(tmp_path / "t.etdump")
    assert (one.source, one.runs, one.device, one.notes) == ("ExecuTorch ETDump", 4, None, ("traced",))
    assert 0 < one.times_ms["min"] <= one.times_ms["p50"] < 1000
    assert sum(one.kinds.values()) == pytest.approx(1.0)
    assert any("Convolution" in kind for kind in one.kinds)


@pytest.mark.slow
def test_a_damaged_etdump_ends_the_process_that_reads_it_and_not_ours(tmp_path: Path) -> None:
    (tmp_path / "cut.etdump").write_bytes(b"\xff\xff\0\0\x08\0\0\0ED00" + 400 * b"\x7f")
    with pytest.raises(DataError, match=r"cut\.etdump looks like an ETDump of ExecuTorch, but: executorch cannot read"):
        read(tmp_path / "cut.etdump")


BOMB = "a: &a [x, x, x, x]\nb: &b [*a, *a, *a, *a]\nc: &c [*b, *b, *b, *b]\nmodels: *c\n"
ENTRY = (
    "models: [{name: n, performance_metrics: [{tflite: {inference_time: VALUE}, reference_device_info: {name: d}}]}]"
)
EVENTS = '[{"cat": "Session", "name": "model_run", "dur": VALUE, "args": {}}]'


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", "", "a.json is empty"),
        (
            "a.json",
            '{"schema": "edgegen.report/1"}',
            "no measurement that edgegen reads: a JSON file of edgegen profile",
        ),
        ("a.json", '{"schema": "edgegen.profile/1", "results": [', "not JSON, or cut short"),
        ("a.json", '{"schema": "edgegen.profile/1"}', "no measurement of edgegen's: "),
        ("a.json", '[{"cat": "Node"}]', "the session was never run"),
        ("a.json", '[{"cat": "Session", "name": "model_', "a.json: not JSON, or cut short .Unterminated string"),
        ("a.json", EVENTS.replace("VALUE", "null"), "the event model_run has no duration"),
        ("a.json", EVENTS.replace("VALUE", "-3"), "the event model_run has no duration"),
        ("a.json", EVENTS.replace("VALUE", "NaN"), "NaN is no number of JSON"),
        ("a.json", EVENTS.replace("VALUE", "1e300"), "the event model_run has no duration"),
        ("a.json", EVENTS.replace("VALUE", "9" * 5000), "[.]{3} .5000 characters. is beyond what a number can hold"),
        ("a.json", '[{"cat": ' + 200_000 * "[", "lists or tables in each other, deeper than 100"),
        ("a.yaml", "models: [", "it is not YAML, or cut short"),
        ("a.yaml", "just text", "Input should be a valid dictionary"),
        ("a.yaml", "jobs:\n  build: {}\n", "it has no inference time of any device"),
        ("a.yaml", BOMB, "it has YAML aliases"),
        ("a.yaml", 100_000 * "[", "nested too deeply|maximum nesting depth"),
        ("a.yaml", "x: !!python/object/apply:os.system [echo]", "could not determine a constructor"),
        ("a.yaml", ENTRY.replace("VALUE", "-5"), "estimate of n is -0.005 ms"),
        ("a.yaml", ENTRY.replace("VALUE", ".nan"), "inference_time.*: Input should be a finite number"),
        ("a.yaml", ENTRY.replace("VALUE", "9" * 400), "looks like a perf.yaml .*, but "),
        ("a.yaml", ENTRY.replace("VALUE", "true"), "inference_time.*: Input should be a valid number"),
        ("a.yaml", ENTRY.replace("VALUE", "1").replace("name: d", "os: d"), "name: Field required"),
        ("a.yaml", "# " + "x" * perf_yaml.LARGEST, "at most 1048576 are read"),
        ("a.txt", "Average inference time cost: nan ms\n", "mean of a is nan ms"),
        ("a.txt", "Session creation time cost: 1 s\nAverage inference time co", "no measurement that edgegen reads"),
        ("a.txt", "P50 Latency: 0.1 s\nSession creation time cost: 1 s\n", "it has no latency: it may have been cut"),
        ("a.csv", "net,0.1,5,5,0\nnet,0.1,5,5,2\n", "run 1 of 'net' is missing"),
        ("a.csv", "net,-0.1,5,5,0\n", "no measurement that edgegen reads"),
        ("a.csv", "net,nan,5,5,0\n", "a run of 'net' took no time, or none that is a number"),
        ("a.csv", "net,0,5,5,0\n", "a run of 'net' took no time, or none that is a number"),
        ("a.etdump", "12345678ED01 and so on", "an ETDump of ExecuTorch, but: it is none"),
    ],
)
def test_what_cannot_be_read_is_one_line(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message) as e:
        read(tmp_path / name)
    assert e.value.exit_code == 2
    assert "\n" not in str(e.value)
    assert len(str(e.value)) < 600


def test_every_importer_says_what_it_is_and_refuses_noise(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).bytes(4096)
    for name in registry.names("importer"):
        importer = registry.load("importer", name)
        assert importer.source
        assert importer.form
        assert not importer.fits(tmp_path / "noise.bin", noise)


def call(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["report", *map(str, arguments)])


def test_the_command_shows_all_in_one_table_and_on_one_page(tmp_path: Path) -> None:
    write_json(tmp_path / "board.json", profile(result(np.full((12, 5), 2.0))).to_json())
    files = [tmp_path / "board.json", HERE / "perf_new.yaml", HERE / "perf_test.txt"]
    done = call(*files, "-o", tmp_path / "page.html")
    assert done.exit_code == 0, done.exception
    lines = done.stdout.splitlines()
    assert len(lines) == 2 + 1 + 3 + 1
    assert len({line.count("|") for line in lines}) == 1
    assert "| 0.430 | estimate |" in done.stdout
    assert "onnxruntime_perf_test (perf_test.txt)" in done.stdout
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "Samsung Galaxy S24" in page
    assert "2.00 ms (2.00 to 2.00)" in page
    rows = json.loads(call(*files, "--json").stdout)["measurements"]
    assert [row["source"] for row in rows[:2]] == ["edgegen.profile/1", "Qualcomm AI Hub perf.yaml"]
    assert rows[1]["runs"] is None
    assert str(tmp_path) not in json.dumps(rows)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (["none.json"], DataError, "no file none.json"),
        (["FILE", "-o", "no/such/folder/x.html"], UsageError, "no folder no/such/folder"),
        (["FILE", "--force"], UsageError, "--force and --dry-run are for recipes"),
        (["digits", "FILE"], UsageError, "does not go with the recipe digits"),
        (["digits", "-o", "x.html"], UsageError, "-o does not go with the recipe digits"),
        (["."], DataError, "is a folder; needed: a file"),
        (["FILE", "-o", "FILE"], UsageError, "give a name that ends in .html"),
    ],
)
def test_wrong_use_of_the_command(arguments: list[str], error: type[Exception], message: str) -> None:
    done = call(*[one.replace("FILE", str(HERE / "perf_test.txt")) for one in arguments])
    assert isinstance(done.exception, error), done.exception
    assert message in str(done.exception)
