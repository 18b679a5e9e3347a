"""Snapdragon's NPU: contexts compiled by onnxruntime-qnn for chosen chips, and run by its HTP simulator.

The provider is a plug-in of onnxruntime, with Qualcomm's compiler and a simulator of the NPU for x86-64 Linux, whose
time says nothing about a phone's.
Source: onnxruntime.ai/docs/execution-providers/QNN-ExecutionProvider.html, .../EP-Context-Design.html.
"""

import json
import platform
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from edgegen.errors import ExportError
from edgegen.exporters.base import Arrays, one_by_one
from edgegen.exporters.onnx.chips import CHIPS
from edgegen.exporters.onnx.graph_facts import sizes_of
from edgegen.exporters.onnx.htp_forms import MOST_AXES
from edgegen.support.extras import require
from edgegen.support.vendor_logs import native_messages

PROVIDER = "QNNExecutionProvider"
FIELD = "npu"  # of the file's metadata: JSON of an Assignment
WARNING, FATAL = 2, 4  # onnxruntime's log severities
REFUSED = re.compile(r"failed for node `(?P<node>[^`]+)` of type `(?P<kind>\w+)` with error code (?P<code>\d+)")


@dataclass(frozen=True)
class Assignment:
    """Which nodes of a file the NPU takes: how many of how many, and why others stay on the CPU, by operator."""

    nodes: int
    on_npu: int
    chips: tuple[str, ...]
    left: Mapping[str, str] = field(default_factory=dict)

    def sentence(self) -> str:
        if self.on_npu == self.nodes:
            return f"all {self.nodes} nodes on the NPU"
        reasons = "; ".join(f"{operator}: {reason}" for operator, reason in self.left.items())
        return f"{self.nodes - self.on_npu} of {self.nodes} nodes stay on the CPU ({reasons})"


@dataclass(frozen=True)
class HtpSession:
    """One chip's context, open in the simulator; `further` holds those of the other chips."""

    runtime: Any
    method: str
    further: Mapping[str, "HtpSession"] = field(default_factory=dict)

    def __call__(self, inputs: Mapping[str, NDArray[Any]]) -> Arrays:
        return one_by_one(inputs, self._run)

    def _run(self, inputs: Arrays) -> Arrays:
        names = [output.name for output in self.runtime.get_outputs()]
        try:
            return dict(zip(names, self.runtime.run(names, inputs), strict=True))
        except Exception as e:
            raise ExportError(f"the HTP simulator failed: {e}") from e


def context_of(path: Path, chip: str) -> Path:
    """What onnxruntime loads on the phone; its weights and program lie beside it, in `<name>_qnn.bin`."""
    return path.with_name(f"{path.stem}_{chip}.onnx")


def assignment_of(metadata: Mapping[str, str], prefix: str = "") -> Assignment | None:
    """What `compile_contexts` noted in a file; None where it has no contexts."""
    text = metadata.get(prefix + FIELD)
    if text is None:
        return None
    try:
        fields = json.loads(text)
        chips = tuple(fields["chips"])
        if not chips or not CHIPS.keys() >= set(chips):  # names of files come from them
            raise ValueError("no chips, or others than those of CHIPS")
        return Assignment(int(fields["nodes"]), int(fields["on_npu"]), chips, dict(fields["left"]))
    except (ValueError, KeyError, TypeError) as e:
        raise ExportError(f"its field {prefix}{FIELD} is not what edgegen writes; export the file again") from e


def compile_contexts(path: Path, chips: Sequence[str]) -> Assignment:
    """Write the context of each chip beside the file; returns what the NPU takes of it on the chip that takes least.

    Raises ExportError where Qualcomm's compiler refuses it.
    """
    require("qnn", purpose="compiling for Snapdragon's NPU")
    return min((_compile(path, chip, chips) for chip in chips), key=lambda assignment: assignment.on_npu)


def open_contexts(path: Path, assignment: Assignment) -> HtpSession:
    """The contexts beside the file, in the simulator. Raises MissingExtraError, ExportError where one is damaged."""
    require("qnn", purpose="running a file of Snapdragon's NPU in the HTP simulator")
    sessions = {chip: _open(context_of(path, chip), chip, assignment) for chip in assignment.chips}
    first, *others = sessions
    return HtpSession(sessions[first].runtime, sessions[first].method, {chip: sessions[chip] for chip in others})


def compiler() -> str:
    """What compiles, and simulates, with its version."""
    return f"onnxruntime-qnn {version('onnxruntime-qnn')}"


@cache
def _devices() -> Sequence[Any]:
    """The plug-in is registered once in a process. Raises ExportError where it cannot be loaded."""
    import onnxruntime
    import onnxruntime_qnn

    try:
        onnxruntime.register_execution_provider_library(PROVIDER, onnxruntime_qnn.get_library_path())
    except Exception as e:
        libc = " ".join(platform.libc_ver())
        raise ExportError(
            f"onnxruntime-qnn {version('onnxruntime-qnn')} does not load into onnxruntime {onnxruntime.__version__} "
            f"here ({libc}; it needs glibc 2.35): {e}"
        ) from e
    return [device for device in onnxruntime.get_ep_devices() if device.ep_name == PROVIDER]


def _options(chip: str, *, severity: int) -> Any:
    import onnxruntime
    import onnxruntime_qnn

    options = onnxruntime.SessionOptions()
    options.log_severity_level = severity
    provider = {
        "backend_path": onnxruntime_qnn.get_qnn_htp_path(),
        "soc_model": str(CHIPS[chip].soc_model),
        # By default the roundings at inputs and outputs stay on the CPU; a graph with a class beside the noise then
        # fails when it runs, with QNN_GRAPH_ERROR_INVALID_TENSOR (6004).
        "offload_graph_io_quantization": "0",
    }
    options.add_provider_for_devices(_devices()[:1], provider)
    return options


def _compile(path: Path, chip: str, chips: Sequence[str]) -> Assignment:
    import onnxruntime

    context = context_of(path, chip)
    options = _options(chip, severity=WARNING)
    options.add_session_config_entry("ep.context_enable", "1")
    options.add_session_config_entry("ep.context_file_path", str(context))
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    with native_messages() as read:
        try:
            session = onnxruntime.InferenceSession(str(path), options)
        except Exception as e:
            raise ExportError(f"Qualcomm's compiler refuses it for {CHIPS[chip].name}: {_first_line(e)}") from e
        messages = read()
    groups = session.get_provider_graph_assignment_info()
    del session
    if not context.is_file():
        raise ExportError(f"Qualcomm's compiler takes no node of it for {CHIPS[chip].name}")
    left = [node for group in groups if group.ep_name != PROVIDER for node in group.get_nodes()]
    return Assignment(
        nodes=sum(len(group.get_nodes()) for group in groups),
        on_npu=sum(len(group.get_nodes()) for group in groups if group.ep_name == PROVIDER),
        chips=tuple(chips),
        left=reasons(left, path, messages) if left else {},
    )


def _open(context: Path, chip: str, assignment: Assignment) -> HtpSession:
    import onnxruntime

    options = _options(chip, severity=FATAL)
    if assignment.on_npu == assignment.nodes:  # else onnxruntime takes the CPU for what the provider refuses, silently
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    try:
        with native_messages():  # its libraries greet
            runtime = onnxruntime.InferenceSession(str(context), options)
    except Exception as e:
        raise ExportError(f"the HTP simulator cannot open {context.name}: {_first_line(e)}") from e
    runtime.disable_fallback()
    return HtpSession(runtime, f"HTP simulator of onnxruntime-qnn {version('onnxruntime-qnn')}, {CHIPS[chip].name}")


def reasons(left: Sequence[Any], path: Path, messages: str) -> dict[str, str]:
    """By operator of the nodes `left` on the CPU, how many and why, with what would help where that is known.

    `messages` are the provider's. Of several nodes of an operator the first says why.
    """
    from onnx import load

    model = load(path, load_external_data=False)
    sizes, nodes = sizes_of(model), {node.name: node for node in model.graph.node}
    refused = {match["node"]: match["code"] for match in REFUSED.finditer(messages)}
    by_operator: dict[str, str] = {}
    for operator, count in sorted(Counter(node.op_type for node in left).items()):
        name = next(node.name for node in left if node.op_type == operator)
        tensors = (*nodes[name].input, *nodes[name].output) if name in nodes else ()
        most = max((len(sizes.get(tensor, ())) for tensor in tensors), default=0)
        if most > MOST_AXES:
            reason = f"a tensor of {most} axes, and the HTP has {MOST_AXES}: reshape it with fewer"
        elif name in refused:
            reason = f"Qualcomm's validation refuses it, code {refused[name]}"
        else:
            reason = "no form of it for the NPU"
        by_operator[operator] = f"{count}, {reason}"
    return by_operator


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
