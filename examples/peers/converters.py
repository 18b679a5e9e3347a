"""Makes a peer's file of a network: for bench_peers.py, in the peer's own interpreter.

    python converters.py PEER SCHEME FOLDER      SCHEME: fp32 or int8

FOLDER/net.pt2 is the network by torch.export, net.pt the same by torch.jit.trace, plain.onnx by torch.onnx.export;
FOLDER/calibration/NAME.npy are its inputs in order (samples, ...), listed in FOLDER/inputs.json. Each peer is called as
its documentation says, with its own defaults; int8 has 8-bit weights and activations, calibrated on these inputs. The
last line of stdout is JSON: {"file": NAME, "parts": [NAME, ...]}, all in FOLDER. Imports nothing of edgegen.
"""

import json
import logging
import os
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

QUANTIZED = ("Conv", "Gemm", "MatMul")
Made = tuple[str, ...]  # the file to open, then the others that belong to it


def names(folder: Path) -> list[str]:
    listed: list[str] = json.loads((folder / "inputs.json").read_text())
    return listed


def calibration(folder: Path) -> Iterator[dict[str, np.ndarray[Any, Any]]]:
    """The inputs of one sample after another, by name, (1, ...)."""
    arrays = {name: np.load(folder / "calibration" / f"{name}.npy", allow_pickle=False) for name in names(folder)}
    for index in range(len(next(iter(arrays.values())))):
        yield {name: array[index : index + 1] for name, array in arrays.items()}


def program(folder: Path) -> Any:
    import torch

    return torch.export.load(folder / "net.pt2")


def module(folder: Path) -> Any:
    """The program as a module with named inputs that can be put into evaluation mode: exported ones can do neither."""
    import torch

    exported = program(folder).module()
    exported.eval = exported.train = lambda mode=False: exported

    class Named(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = exported

        def forward(self, sample: Any, class_labels: Any = None, style: Any = None) -> Any:
            return self.net(sample, *(value for value in (class_labels, style) if value is not None))

    return Named().eval()


def sample(folder: Path) -> tuple[Any, ...]:
    import torch

    return tuple(torch.from_numpy(array.copy()) for array in next(calibration(folder)).values())


def torch_onnx(folder: Path, scheme: str) -> Made:
    """torch.onnx.export; onnxruntime's quantize_static after its pre-processing: QDQ, signed, per channel.

    Of convolutions and products alone: with all kinds of operations, its default, it refuses the demo's student
    ("Quantization parameter shared mode is not supported for weight yet").
    """
    if scheme == "fp32":
        return ("plain.onnx",)
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.samples = calibration(folder)

        def get_next(self) -> dict[str, np.ndarray[Any, Any]] | None:
            return next(self.samples, None)

    quant_pre_process(str(folder / "plain.onnx"), str(folder / "prepared.onnx"), skip_symbolic_shape=True)
    quantize_static(
        str(folder / "prepared.onnx"),
        str(folder / "ort_int8.onnx"),
        Reader(),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=list(QUANTIZED),
        per_channel=True,
    )
    return ("ort_int8.onnx",)


def executorch(folder: Path, scheme: str) -> Made:
    """to_edge_transform_and_lower with the XNNPACK partitioner; PT2E with XNNPACKQuantizer, per channel, for int8."""
    import torch
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    exported = program(folder)
    if scheme == "int8":
        from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
            XNNPACKQuantizer,
            get_symmetric_quantization_config,
        )
        from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

        quantizer = XNNPACKQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True))
        prepared = prepare_pt2e(exported.module(), quantizer)
        with torch.no_grad():
            for inputs in calibration(folder):
                prepared(*(torch.from_numpy(array) for array in inputs.values()))
        exported = torch.export.export(convert_pt2e(prepared), sample(folder))
    lowered = to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()])
    (folder / f"executorch_{scheme}.pte").write_bytes(lowered.to_executorch().buffer)
    return (f"executorch_{scheme}.pte",)


def olive(folder: Path, scheme: str) -> Made:
    """A workflow of Olive: OnnxConversion, OnnxPeepholeOptimizer and, for int8, OnnxStaticQuantization."""
    import shutil

    from olive import run

    inputs = next(calibration(folder))
    script = folder / "olive_script.py"
    script.write_text(OLIVE_SCRIPT.format(folder=str(folder)))
    passes: dict[str, Any] = {
        "conversion": {"type": "OnnxConversion", "use_dynamo_exporter": True},
        "peephole": {"type": "OnnxPeepholeOptimizer"},
    }
    if scheme == "int8":
        passes["quantization"] = {
            "type": "OnnxStaticQuantization",
            "data_config": "noises",
            "per_channel": True,
            "op_types_to_quantize": list(QUANTIZED),
        }
    noises = {"name": "noises", "type": "DummyDataContainer", "user_script": str(script)}
    noises |= {"load_dataset_config": {"type": "noises"}, "dataloader_config": {"batch_size": 1}}
    io_config = {
        "input_names": list(inputs),
        "input_shapes": [list(array.shape) for array in inputs.values()],
        "input_types": [str(array.dtype) for array in inputs.values()],
        "output_names": ["out_sample"],
    }
    loading = {"model_loader": "load_model", "dummy_inputs_func": "example", "model_script": str(script)}
    model = {"type": "PyTorchModel", **loading, "io_config": io_config}
    output = folder / f"olive_{scheme}"
    shutil.rmtree(output, ignore_errors=True)
    told = Told()
    logging.getLogger("olive").addHandler(told)
    result = run(
        {
            "input_model": model,
            "data_configs": [noises],
            "passes": passes,
            "output_dir": str(output),
            "cache_dir": str(folder / f"olive_{scheme}_cache"),
            "log_severity_level": 2,
        }
    )
    if not result.has_output_model():  # Olive goes on after errors
        raise RuntimeError(f"Olive made no file: {told.error}")
    path = Path(result.get_best_candidate().model_path)
    return (str(path.relative_to(folder)), *(str(p.relative_to(folder)) for p in path.parent.glob("*.data")))


class Told(logging.Handler):
    """Keeps the last exception that was logged."""

    error = "its log does not say why"

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and record.exc_info[1]:
            self.error = " ".join(str(record.exc_info[1]).split())


OLIVE_SCRIPT = """
import sys
from pathlib import Path

import torch
from olive.data.registry import Registry

FOLDER = Path({folder!r})
sys.path.insert(0, {here!r})
import converters


def load_model(_):
    return converters.module(FOLDER)


def example(_):  # of its own, Olive takes one input apart along the batch
    return converters.sample(FOLDER)


class Noises(torch.utils.data.Dataset):
    def __init__(self):
        self.samples = list(converters.calibration(FOLDER))

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        return {{name: torch.from_numpy(array) for name, array in self.samples[index].items()}}, 0


@Registry.register_dataset("noises")
def noises(**_):
    return Noises()
""".replace("{here!r}", repr(str(Path(__file__).parent)))


def optimum(folder: Path, scheme: str) -> Made:
    """optimum-onnx: its export with a configuration of one's own; ORTQuantizer, static, for the int8 file."""
    import torch
    from optimum.exporters.onnx import OnnxConfig, export
    from optimum.utils import DummyInputGenerator, NormalizedConfig
    from transformers import PretrainedConfig, PreTrainedModel

    first = next(calibration(folder))

    class Inputs(DummyInputGenerator):  # type: ignore[misc]
        SUPPORTED_INPUT_NAMES = tuple(first)

        def __init__(self, *_: Any, **__: Any) -> None: ...

        def generate(self, input_name: str, **_: Any) -> Any:
            return torch.from_numpy(first[input_name].copy())

    class Config(OnnxConfig):  # type: ignore[misc]
        DEFAULT_ONNX_OPSET = 18
        DUMMY_INPUT_GENERATOR_CLASSES = (Inputs,)
        NORMALIZED_CONFIG_CLASS = NormalizedConfig
        inputs = {name: {} for name in first}  # noqa: RUF012
        outputs = {"out_sample": {}}  # noqa: RUF012

        def generate_dummy_inputs(self, framework: str = "pt", **_: Any) -> dict[str, Any]:
            return {name: torch.from_numpy(array.copy()) for name, array in first.items()}

    class Model(PreTrainedModel):  # type: ignore[misc]
        config_class = PretrainedConfig

        def __init__(self, net: Any) -> None:
            super().__init__(PretrainedConfig())
            self.net = net

        def forward(self, sample: Any, class_labels: Any = None, style: Any = None) -> dict[str, Any]:
            return {"out_sample": self.net(sample, class_labels, style)}

    output = folder / "optimum_fp32" / "model.onnx"
    output.parent.mkdir(exist_ok=True)
    model = Model(module(folder))
    export(model, Config(model.config, task="feature-extraction"), output)
    if scheme == "fp32":
        return (str(output.relative_to(folder)),)
    from onnxruntime.quantization import CalibrationMethod
    from optimum.onnxruntime import ORTQuantizer
    from optimum.onnxruntime.configuration import AutoQuantizationConfig, CalibrationConfig

    model.config.save_pretrained(output.parent)
    quantizer = ORTQuantizer.from_pretrained(output.parent, file_name=output.name)
    settings = AutoQuantizationConfig.avx512_vnni(
        is_static=True, per_channel=True, operators_to_quantize=list(QUANTIZED)
    )
    rows = [{name: array[0] for name, array in row.items()} for row in calibration(folder)]
    ranges = quantizer.fit(
        dataset=rows,
        calibration_config=CalibrationConfig("noises", "", "", len(rows), CalibrationMethod.MinMax),
        operators_to_quantize=settings.operators_to_quantize,
    )
    quantizer.quantize(save_dir=folder / "optimum_int8", quantization_config=settings, calibration_tensors_range=ranges)
    (path,) = (folder / "optimum_int8").glob("*.onnx")
    return (str(path.relative_to(folder)),)


def ncnn(folder: Path, scheme: str) -> Made:
    """pnnx of the traced network, weights in float32."""
    import subprocess

    if scheme == "int8":
        raise RuntimeError("no quantizer: ncnn2table and ncnn2int8 are in neither pip package, ncnn nor pnnx")
    kinds = {"float32": "f32", "int64": "i64"}
    first = next(calibration(folder)).values()
    shapes = [f"{list(array.shape)}{kinds[str(array.dtype)]}".replace(" ", "") for array in first]
    command = [str(Path(sys.executable).parent / "pnnx"), "net.pt", f"inputshape={','.join(shapes)}", "fp16=0"]
    subprocess.run(command, cwd=folder, check=True, stdout=sys.stderr)
    return ("net.ncnn.param", "net.ncnn.bin")


def mnn(folder: Path, scheme: str) -> Made:
    """MNN's converter on plain.onnx; its offline quantization for int8.

    By EMA ranges: with KL, its default, it dies of signal 11 on the 15.7 M net. Called below its scripts mnnconvert and
    mnnquant, which install a package with pip wherever `pip` points to, and send a report to their makers.
    """
    import _tools

    target, fp32 = folder / f"mnn_{scheme}.mnn", folder / "mnn_fp32.mnn"
    options = ["--modelFile", str(folder / "plain.onnx"), "--MNNModel", str(fp32), "--bizCode", "bench"]
    _tools.mnnconvert(["mnnconvert", "-f", "ONNX", *options])
    if scheme == "int8":
        for index, inputs in enumerate(calibration(folder)):
            place = folder / "mnn_calibration" / str(index)
            place.mkdir(parents=True, exist_ok=True)
            for name, array in inputs.items():
                np.savetxt(place / f"{name}.txt", array.reshape(-1), fmt="%.8g")
            listed = [{"name": name, "shape": list(array.shape)} for name, array in inputs.items()]
            (place / "input.json").write_text(json.dumps({"inputs": listed, "outputs": ["out_sample"]}))
        settings = {"input_type": "sequence", "path": f"{folder / 'mnn_calibration'}/", "used_sample_num": index + 1}
        settings |= {"format": "RGB", "batch_size": 1, "quant_bits": 8}
        settings |= {"feature_quantize_method": "EMA", "weight_quantize_method": "MAX_ABS"}
        (folder / "mnn_quant.json").write_text(json.dumps(settings))
        _tools.mnnquant(["mnnquant", str(fp32), str(target), str(folder / "mnn_quant.json")])
    listing = folder / "mnn_listing.json"
    _tools.mnnconvert(["mnnconvert", "-f", "MNN", "--modelFile", str(target), "--JsonFile", str(listing)])
    kinds = Counter(operation["type"] for operation in json.loads(listing.read_text())["oplists"])
    facts = {"inputs": names(folder), "outputs": ["out_sample"], "operations": kinds}
    target.with_suffix(".facts.json").write_text(json.dumps(facts))
    return (target.name,)


def litert(folder: Path, scheme: str) -> Made:
    """litert_torch.convert; LiteRT's quantizer with its static recipe of 8-bit weights and activations for int8."""
    import litert_torch

    fp32 = folder / "litert_fp32.tflite"
    litert_torch.convert(module(folder), sample(folder)).export(str(fp32))
    if scheme == "fp32":
        return (fp32.name,)
    from ai_edge_quantizer import quantizer, recipe

    tool = quantizer.Quantizer(str(fp32), recipe.static_wi8_ai8())
    samples = [  # its files take whole numbers as int32
        {f"args_{i}": a.astype(np.int32) if a.dtype == np.int64 else a for i, a in enumerate(row.values())}
        for row in calibration(folder)
    ]
    statistics = tool.calibrate({"serving_default": samples})
    tool.quantize(statistics).export_model(str(folder / "litert_int8.tflite"), overwrite=True)
    return ("litert_int8.tflite",)


PEERS = {
    "torch.onnx": torch_onnx,
    "executorch": executorch,
    "olive": olive,
    "optimum-onnx": optimum,
    "ncnn": ncnn,
    "mnn": mnn,
    "litert": litert,
}


if __name__ == "__main__":
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the tools print is no answer
    file, *parts = PEERS[sys.argv[1]](Path(sys.argv[3]).resolve(), sys.argv[2])
    print(json.dumps({"file": file, "parts": parts}), file=answer)
    answer.close()
