"""The runner of .onnx files in C++, against Python's session of the same library, and what it refuses."""

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import device_parts
import numpy as np
import onnx
import onnxruntime
import pytest
from measured import needs_runners
from numpy.typing import NDArray
from onnx import TensorProto, helper
from small_nets import net_files, sigmoid

from edgegen.errors import DeviceError
from edgegen.profilers.devices.emulator import EmulatedDevice
from edgegen.profilers.devices.host import DEVICE
from edgegen.profilers.files.profile import profile_files
from edgegen.profilers.runners import programs
from edgegen.profilers.runners.toolchain import ARM64, this_system
from edgegen.profilers.timing.process import Worker
from edgegen.profilers.timing.protocol import ProfileOptions
from edgegen.profilers.trace.operators import onnx_leaves
from edgegen.support.progress import Silent

pytestmark = pytest.mark.devices  # the header is fetched for them
FEW = ProfileOptions(min_runs=3, max_seconds=0.05, timeout_seconds=60.0, warm_seconds=0.0)
Array = NDArray[Any]


@pytest.fixture(autouse=True)
def _runner() -> None:
    needs_runners()


def model(path: Path, kind: int, shape: Sequence[int | str], *, nodes: Sequence[Any] = (), outputs: int = 1) -> Path:
    """A file of "x", which gives it back as "y0", "y1" ..., or does what the nodes do."""
    names = [f"y{number}" for number in range(outputs)]
    graph = helper.make_graph(
        nodes or [helper.make_node("Identity", ["x"], [name]) for name in names],
        "g",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info(name, kind, None) for name in names],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), path)
    return path


def opened(path: Path) -> Worker:
    return Worker(DEVICE, DEVICE.runner("onnx", str(path)), timeout_s=60.0).ready()


def given(array: Array, path: Path) -> str:
    array.tofile(path)
    return f"{'x'.join(map(str, array.shape))}:{path}"


def answer_of(path: Path, array: Array, folder: Path) -> Array:
    """The first output in the runner, flat."""
    with opened(path) as worker:
        worker.ask("open", 1, given(array, folder / "x.bin"))
        worker.ask("run", folder / "y.bin")
    return np.fromfile(folder / "y.bin", array.dtype)


@pytest.mark.parametrize(
    "dtype", ["float32", "float16", "float64", "uint8", "int8", "int16", "uint16", "int32", "int64", "uint64", "bool"]
)
def test_numbers_of_every_kind_go_through(dtype: str, tmp_path: Path) -> None:
    array = (np.arange(6).reshape(2, 3) * 3 - 4).astype(dtype)
    path = model(tmp_path / "net.onnx", helper.np_dtype_to_tensor_dtype(array.dtype), ["batch", 3], outputs=2)
    assert np.array_equal(answer_of(path, array, tmp_path), array.reshape(-1))


def test_a_scalar_and_sizes_that_the_file_leaves_open(tmp_path: Path) -> None:
    nodes = [helper.make_node("Mul", ["x", "x"], ["y0"])]
    for shape, array in (([], np.array(1.5, np.float32)), (["a", "b"], np.ones((3, 5), np.float32))):
        path = model(tmp_path / "net.onnx", TensorProto.FLOAT, shape, nodes=nodes)
        assert np.array_equal(answer_of(path, array, tmp_path), (array * array).reshape(-1))


def test_a_file_of_the_ort_format_by_the_same_session(tmp_path: Path, in_process: None) -> None:
    path = net_files(tmp_path / "net") / "net_onnx_fp32.onnx"
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "net.ort")
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.add_session_config_entry("session.save_model_format", "ORT")
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (record,) = profile_files([tmp_path / "net.ort"], DEVICE, per_op=True, options=FEW, progress=Silent()).results
    assert record.config.runtime == f"onnxruntime {onnxruntime.__version__} in C++"
    assert record.numerics.passed
    assert record.latency is not None
    assert any("Conv" in row.kind for row in record.ops)


def test_its_profile_is_that_of_python_s_session(tmp_path: Path) -> None:
    path = net_files(tmp_path / "net") / "net_onnx_fp32.onnx"
    options = onnxruntime.SessionOptions()
    options.enable_profiling, options.profile_file_prefix = True, str(tmp_path / "python")
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    noise, label = np.ones((1, 1, 8, 8), np.float32), np.zeros(1, np.int64)
    session.run(None, {"sample": noise, "class_labels": label})
    wanted = onnx_leaves(json.loads(Path(session.end_profiling()).read_text()))
    with opened(path) as worker:
        worker.ask("open", 1, given(noise, tmp_path / "noise.bin"), given(label, tmp_path / "label.bin"))
        worker.ask("trace", 3, tmp_path / "trace")
    leaves = onnx_leaves(json.loads((tmp_path / "trace").read_text()))
    assert [(leaf.kind, leaf.place) for leaf in leaves] == [(leaf.kind, leaf.place) for leaf in wanted]


def test_other_inputs_replace_those_of_before(tmp_path: Path) -> None:
    path = sigmoid(tmp_path / "net.onnx")
    with opened(path) as worker:
        worker.ask("open", 1, given(np.zeros((1, 4), np.float32), tmp_path / "a.bin"))
        worker.ask("run", tmp_path / "y.bin", given(np.full((1, 4), 100, np.float32), tmp_path / "b.bin"))
        assert (np.fromfile(tmp_path / "y.bin", np.float32) == 1).all()
        worker.ask("run", tmp_path / "y.bin")
        assert (np.fromfile(tmp_path / "y.bin", np.float32) == 1).all()


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (["1x4:x.bin"], r"x.bin has 12 bytes, not 16"),
        ([], r"it takes 1 inputs"),
        (["1x3:x.bin"], r"Got invalid dimensions .* Got: 3 Expected: 4"),
        (["1x4:none.bin"], r"none.bin has 0 bytes, not 16"),
    ],
)
def test_inputs_that_do_not_fit(inputs: list[str], message: str, tmp_path: Path) -> None:
    np.zeros(3, np.float32).tofile(tmp_path / "x.bin")
    with pytest.raises(DeviceError, match=message), opened(sigmoid(tmp_path / "net.onnx")) as worker:
        worker.ask("open", 1, *(text.replace(":", f":{tmp_path}/") for text in inputs))


def test_files_that_are_none(tmp_path: Path) -> None:
    whole = sigmoid(tmp_path / "net.onnx").read_bytes()
    (tmp_path / "short.onnx").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "other.ort").write_bytes(b"ORTM" * 100)
    text = model(tmp_path / "text.onnx", TensorProto.STRING, [1])
    for path, message in (
        (tmp_path / "short.onnx", "Protobuf parsing failed|INVALID_PROTOBUF|ModelProto"),
        (tmp_path / "other.ort", "ORT"),
        (tmp_path / "none.onnx", "none.onnx"),
        (text, "the input x is not of plain numbers"),
    ):
        with pytest.raises(DeviceError, match=f"ended with exit code 1: runner: .*({message})"), opened(path) as worker:
            worker.ask("open", 1, *([given(np.zeros(1), tmp_path / "x.bin")] if path == text else []))


@pytest.mark.parametrize(
    ("library", "provider", "message"),
    [
        ("libnone.so", "cpu", "libnone.so: cannot open shared object file"),
        ("libm.so.6", "cpu", "libm.so.6 is no ONNX Runtime"),
        (
            "",
            "xnnpack",
            "was built without the provider xnnpack, with .*CPUExecutionProvider; EDGEGEN_ONNXRUNTIME names",
        ),
        ("", "qnn", "was built without the provider qnn"),
        ("", "nnapi", "was built without the provider nnapi"),
        ("", "cuda", "no such provider: cuda"),
    ],
)
def test_libraries_and_providers_that_are_not_there(library: str, provider: str, message: str, tmp_path: Path) -> None:
    program = programs.program("onnx", this_system())
    command = [program.runner, "nonce", library or program.words[0], provider, sigmoid(tmp_path / "net.onnx")]
    environment = {"LD_LIBRARY_PATH": str(program.folder)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("runner: ")
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(line)


def test_a_folder_of_another_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEGEN_ONNXRUNTIME", str(tmp_path))
    with pytest.raises(DeviceError, match=r"EDGEGEN_ONNXRUNTIME=.*: there is no folder lib in it"):
        programs.program("onnx", this_system())
    (tmp_path / "lib").mkdir()
    with pytest.raises(DeviceError, match=r"there is no libonnxruntime in .*lib"):
        programs.program("onnx", this_system())
    library = programs_library(monkeypatch)
    (tmp_path / "lib" / "libonnxruntime.so.1").symlink_to(library)
    (tmp_path / "lib" / "libother.so").write_text("")
    monkeypatch.setenv("EDGEGEN_ONNXRUNTIME", str(tmp_path))
    program = programs.program("onnx", this_system(), "qnn")
    assert [path.name for path in program.libraries] == ["libonnxruntime.so.1", "libother.so"]
    assert program.words == ("libonnxruntime.so.1", "qnn")


def programs_library(monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("EDGEGEN_ONNXRUNTIME")
    return programs.program("onnx", this_system()).libraries[0]


def test_xnnpack_on_an_emulated_arm64(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_process: None) -> None:
    """Debian's build has it: what it takes is counted, and a file of which it takes nothing is not measured as its."""
    needs_runners(ARM64)
    device = EmulatedDevice()
    if not device.userland.ready or not device_parts.xnnpack_folder().is_dir():
        pytest.skip("no emulated ARM64, or no ONNX Runtime with XNNPACK: python tests/device_parts.py")
    monkeypatch.setenv("EDGEGEN_ONNXRUNTIME", str(device_parts.xnnpack_folder()))
    files = [net_files(tmp_path / "net") / "net_onnx_fp32.onnx", sigmoid(tmp_path / "sigmoid.onnx")]
    net, other = profile_files(files, device, provider="xnnpack", options=FEW, progress=Silent()).results
    assert net.numerics.passed
    assert net.config.runtime == "onnxruntime 1.21.0 in C++, xnnpack"
    assert "2 of 10 operations run on xnnpack, the others on the CPU" in net.verdict.reasons
    assert other.verdict.reasons == ("xnnpack takes no operation of it: all 1 would run on the CPU",)
