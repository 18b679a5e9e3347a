"""`edgegen plan` on a made-up device: the files that it writes, refused requests, and resuming."""

import json
from pathlib import Path
from typing import Any

import pytest
from helpers import TINY
from jsonschema import Draft202012Validator
from made_up_device import MadeUp, install
from typer.testing import CliRunner

from edgegen.cli.main import app
from edgegen.errors import BudgetError, DataError, DeviceError, ParityError, UsageError
from edgegen.models.edge_unet import EdgeUNet, EdgeUNetConfig
from edgegen.models.generator import save as save_generator
from edgegen.recipe import Architecture, read
from edgegen.search.complexity import DataSpec
from edgegen.search.plan import Request, search_students
from edgegen.search.results import SearchResult
from edgegen.support.progress import Silent
from edgegen.support.storage import read_json

DIGITS = DataSpec(1, 8, 10)
TEACHER = "{ channels = [64, 128], blocks = 2, attention = [1] }"
BUDGETS = (2.0, 4.0, 8.0)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with the recipe my.toml."""
    (tmp_path / "my.toml").write_text(
        TINY.replace("{ channels = [8, 16], blocks = 1, embedding = 16 }", TEACHER).replace(
            "keep = 0.9", "keep = 0.9  # much"
        )
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> MadeUp:
    return install(monkeypatch, DIGITS)


def planned(*budgets: float, **changes: Any) -> SearchResult:
    return search_students(Request("my.toml", budgets, **changes), progress=Silent())


def call(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["plan", *map(str, arguments)])


def test_each_budget_gets_a_recipe_ready_to_train_whose_student_uses_it_up(place: Path, device: MadeUp) -> None:
    plan = planned(*BUDGETS)
    assert [answer.outcome for answer in plan.answers] == ["within"] * 3
    assert all(answer.settled for answer in plan.answers)
    before = read(place / "my.toml")
    for answer in plan.answers:
        path = place / f"my-{answer.budget_ms:g}ms.toml"
        assert answer.recipe == path.name
        chosen = plan.chosen(answer)
        assert chosen is not None
        assert chosen.p50_ms == pytest.approx(device.time_ms(chosen.label))
        assert 0.9 * answer.budget_ms <= chosen.p50_ms <= answer.budget_ms
        student = Architecture.model_validate(chosen.shape.model_dump())
        slim = before.slim.model_copy(update={"keep": None, "network": student})
        assert read(path) == before.model_copy(update={"slim": slim})
        old, new = ((place / name).read_text().splitlines() for name in ("my.toml", path.name))
        assert [a for a, b in zip(old, new, strict=True) if a != b] == ["keep = 0.9  # much"]


def test_plan_json_conforms_to_its_schema_and_the_page_shows_every_measurement(place: Path, device: MadeUp) -> None:
    plan = planned(*BUDGETS)
    folder = place / "runs" / "tiny" / "plan"
    content = read_json(folder / "plan.json")
    Draft202012Validator(SearchResult.json_schema()).validate(content)
    assert SearchResult.model_validate(content) == plan
    assert {shape.label for shape in plan.measured} == set(device.measured)
    assert plan.largest.channels == (64, 128)
    page = (folder / "plan.html").read_text()
    assert page.count("<svg") == 2
    assert "http" not in page.replace("http-equiv", "")
    for answer in plan.answers:
        assert f"{answer.budget_ms:g} ms: {answer.label}" in page
    for shape in plan.measured:
        assert f'<th scope="row">{shape.label}</th>' in page


def test_a_further_budget_and_a_further_device_reuse_files_and_measurements(place: Path, device: MadeUp) -> None:
    planned(4.0)
    exported, measured = len(device.exported), len(device.measured)
    assert planned(4.0).answers[0].outcome == "within"
    assert (len(device.exported), len(device.measured)) == (exported, measured), "nothing is exported or measured twice"
    planned(4.0, threads=2)
    assert len(device.exported) == exported
    assert len(device.measured) == 2 * measured
    plan = planned(4.0, 8.0)
    assert len(set(device.exported)) == len(device.exported)
    assert {answer.outcome for answer in plan.answers} == {"within"}


def test_students_of_a_recipe_that_slices_its_teacher_can_be_sliced(place: Path, device: MadeUp) -> None:
    text = (place / "my.toml").read_text()
    assert {len(shape.shape.channels) for shape in planned(0.5).measured} == {1, 2}
    (place / "my.toml").write_text(text.replace("[slim]", '[slim]\ninit = "teacher"'))
    assert {len(shape.shape.channels) for shape in planned(0.5).measured} == {2}
    planned(4.0)
    assert read(place / "my-4ms.toml").slim.init == "teacher"


def test_measurements_are_kept_when_the_device_is_lost(place: Path, device: MadeUp) -> None:
    def fail_later() -> None:
        if len(device.measured) == 4:
            raise DeviceError("the connection was lost")

    device.before = fail_later
    with pytest.raises(DeviceError, match="the connection was lost"):
        planned(*BUDGETS)
    assert not list(place.glob("my-*.toml"))
    device.before = lambda: None
    exported = len(device.exported)
    plan = planned(*BUDGETS)
    assert {answer.outcome for answer in plan.answers} == {"within"}
    assert len(set(device.measured)) == len(device.measured), "the first four were not measured again"
    assert len(set(device.exported)) == len(device.exported) > exported


@pytest.mark.parametrize("damaged", ["files/*/*.onnx", "files/*/manifest.json", "times/*/*.json"])
def test_damaged_files_and_measurements_are_made_again(place: Path, device: MadeUp, damaged: str) -> None:
    planned(4.0)
    exported, measured = sorted(device.exported), list(device.measured)
    for path in (place / "runs" / "tiny" / "plan").glob(damaged):
        path.write_text("{ cut")
    assert planned(4.0).answers[0].outcome == "within"
    assert sorted(device.exported[len(exported) :]) == ([] if damaged.startswith("times") else exported)
    assert device.measured[len(measured) :] == (measured if damaged.startswith("times") else [])


def test_a_budget_that_no_shape_fits_ends_with_its_exit_code_after_the_others(place: Path, device: MadeUp) -> None:
    result = call("my.toml", "--budget", "0.01ms,4ms", "--json")
    assert isinstance(result.exception, BudgetError)
    assert result.exception.exit_code == 5
    fastest = device.time_ms("8-b1")
    assert f"no measured shape fits 0.01 ms: the fastest, 8-b1, takes {fastest:.3g} ms" in str(result.exception)
    answers = json.loads(result.stdout)["answers"]
    assert [answer["outcome"] for answer in answers] == ["none", "within"]
    assert [path.name for path in place.glob("my-*.toml")] == ["my-4ms.toml"]


def test_a_budget_beyond_the_teacher_s_own_time_chooses_the_teacher_s_shape_and_says_so(
    place: Path, device: MadeUp
) -> None:
    result = call("my.toml", "--budget", "1s")
    assert result.exit_code == 0, result.exception
    assert "1000 ms: 64-128-b2-a1 (" in result.stdout
    assert "the largest shape that the teacher allows) -> my-1000ms.toml" in result.stdout
    assert len(device.measured) <= 6
    assert read(place / "my-1000ms.toml").slim.network == read(place / "my.toml").teacher.model


def test_noisy_measurements_are_repeated_once_and_stay_marked(place: Path, device: MadeUp) -> None:
    device.verdict = lambda label, times: {"status": "noisy", "reasons": ("other programs used 1.00 cores",)}
    result = call("my.toml", "--budget", "4ms")
    assert result.exit_code == 0, result.exception
    assert all(device.measured.count(label) == 2 for label in device.measured)
    assert "; noisy) -> my-4ms.toml" in result.stdout
    assert "(noisy) of 4 ms, onnx-fp32 on host" in (place / "my-4ms.toml").read_text()
    device.verdict = lambda label, times: {"status": "ok"}
    plan = planned(4.0)
    assert {shape.verdict for shape in plan.measured} == {"ok"}, "a later search does not reuse them"


def test_a_shape_that_fails_is_reported_and_never_chosen(place: Path, device: MadeUp) -> None:
    device.fails = lambda label: label.endswith("-b1")
    plan = planned(4.0)
    failed = [shape for shape in plan.measured if shape.verdict == "failed"]
    assert failed
    assert {shape.reasons for shape in failed} == {("the tool gave up",)}
    chosen = plan.chosen(plan.answers[0])
    assert chosen is not None
    assert chosen.label.endswith(("-b2", "-b2-a1"))
    device.fails = lambda label: True
    with pytest.raises(DeviceError, match=r"none of the first shapes could be measured:\n  8-b1: the tool gave up"):
        planned(4.0, threads=2, runs=place / "elsewhere")


def test_wrong_files_have_no_latency(place: Path, device: MadeUp) -> None:
    wrong = {"reference": "r", "snr_db": 3.0, "max_abs": 4.0, "passed": False, "reason": "3.0 dB"}
    device.verdict = lambda label, times: {"status": "failed", "reasons": ("wrong: 3.0 dB",), "numerics": wrong}
    with pytest.raises(ParityError, match=r"no latency for a wrong file:\n  8-b1: wrong: 3.0 dB"):
        planned(4.0)


def test_a_search_that_runs_out_of_time_says_so(place: Path, device: MadeUp) -> None:
    result = search_students(Request("my.toml", (8.0,), minutes=0.0), progress=Silent())
    assert len(device.measured) == 2
    assert [answer.settled for answer in result.answers] == [False]


def test_a_recipe_that_no_plan_wrote_is_not_replaced(place: Path, device: MadeUp) -> None:
    (place / "my-4ms.toml").write_text("# mine\n")
    with pytest.raises(UsageError, match=r"my-4ms.toml exists and is not as edgegen plan wrote it; --force"):
        planned(4.0)
    assert not device.exported
    planned(4.0, force=True)
    planned(4.0)
    (place / "my-4ms.toml").write_text((place / "my-4ms.toml").read_text() + "# changed\n")
    with pytest.raises(UsageError, match="is not as edgegen plan wrote it"):
        planned(4.0)


def test_where_the_recipe_goes(place: Path, device: MadeUp) -> None:
    planned(4.0, output=place / "phone.toml")
    assert read(place / "phone.toml").slim.network is not None
    with pytest.raises(UsageError, match="is one recipe, and there are 2 budgets"):
        planned(4.0, 8.0, output=place / "phone.toml")
    with pytest.raises(UsageError, match="no folder"):
        planned(4.0, output=place / "none" / "phone.toml")
    (place / "sub").mkdir()
    (place / "my.toml").write_text((place / "my.toml").read_text() + '[data]\nsource = "pictures.npz"\n')
    with pytest.raises(UsageError, match=r"'pictures.npz' is relative to \., where it has to stay"):
        planned(4.0, output=place / "sub" / "phone.toml")


def test_the_first_artifact_that_runs_there_is_measured_or_the_given_one(place: Path, device: MadeUp) -> None:
    artifacts = '["coreml-fp16", "executorch-fp32", "onnx:any_size", "onnx-w8", "onnx-fp32"]'
    text = (place / "my.toml").read_text().replace("[quantize]\nsamples = 8", "")
    (place / "my.toml").write_text(
        f"{text}[export]\nartifacts = {artifacts}\n".replace("onnx:any_size", "onnx-fp16:any_size")
    )
    assert planned(4.0).artifact == "onnx-w8"
    assert planned(4.0, artifact="onnx-fp32").artifact == "onnx-fp32"
    with pytest.raises(UsageError, match=r"--artifact onnx-w8a8: the recipe's export.artifacts are coreml-fp16, exec"):
        planned(4.0, artifact="onnx-w8a8")
    for artifact, reason in {
        "coreml-fp16": "there is no runner for .mlpackage files",
        "executorch-fp32": "no C\\+\\+ compiler",
        "onnx-fp16:any_size": "a file for any size has no size at which to measure it",
    }.items():
        with pytest.raises(DeviceError, match=f"nothing to measure on host:\n  {artifact}: {reason}"):
            planned(4.0, artifact=artifact)


def bring_teacher(place: Path, teacher: Path, size: str) -> None:
    text = (place / "my.toml").read_text()
    own = text[text.index("[teacher]") : text.index("[pairs]")]
    (place / "my.toml").write_text(text.replace(own, f'[teacher]\nfolder = "{teacher}"\n').replace("keep = 0.9", size))


def test_the_bound_is_a_teacher_from_a_folder(place: Path, device: MadeUp) -> None:
    network = EdgeUNet(EdgeUNetConfig(8, 1, (16, 24), 1, (1,), 10, 32))
    save_generator(network, place / "own", about={})
    bring_teacher(place, Path("own"), "keep = 0.9")
    plan = planned(1000.0)
    assert plan.largest.model_dump() == {"channels": (16, 24), "blocks": 1, "attention": (1,), "embedding": 32}
    save_generator(EdgeUNet(EdgeUNetConfig(8, 3, (16, 24))), place / "own", about={})
    with pytest.raises(DataError, match=r"teacher.folder: makes images of \[3, 8, 8\]"):
        planned(1000.0)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # diffusers' own imports
def test_for_a_teacher_from_diffusers_the_bound_is_what_comes_nearest(place: Path, device: MadeUp) -> None:
    diffusers = pytest.importorskip("diffusers")
    blocks = {"down_block_types": ("DownBlock2D",), "up_block_types": ("UpBlock2D",), "block_out_channels": (8,)}
    unet = diffusers.UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        norm_num_groups=4,
        layers_per_block=1,
        num_class_embeds=10,
        **blocks,
    )
    scheduler = diffusers.DDPMScheduler()
    diffusers.DDPMPipeline(unet, scheduler).save_pretrained(place / "theirs")
    bring_teacher(place, Path("theirs"), "keep = 0.9")
    assert planned(1000.0).largest.channels == (8,)


@pytest.mark.parametrize("text", ["", "x", "8m", "0ms", "-1", "8ms,", "1e3", "8 ms 9"])
def test_budgets_that_cannot_be_read(text: str) -> None:
    result = call("digits", f"--budget={text}")
    assert isinstance(result.exception, UsageError)
    assert f"--budget {text}: give a time such as 8ms or 0.5s" in str(result.exception)
