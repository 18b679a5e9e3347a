"""ExecuTorch: one static batch-1 `.pte` for XNNPACK (ARM and x86 CPUs), run by ExecuTorch's own Python runtime."""

import json
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from edgegen.errors import ExportError
from edgegen.exporters.base import DEFAULTS, Precision, Variant, pixels, refusal
from edgegen.exporters.executorch.cells import CELLS
from edgegen.exporters.executorch.memory_layout import contiguous_layout
from edgegen.exporters.executorch.needless_work import without_needless_work
from edgegen.exporters.executorch.session import METADATA, ExecuTorchSession, open_program
from edgegen.exporters.executorch.xnnpack_layout import channels_last_views
from edgegen.recipe import Export
from edgegen.support.extras import require
from edgegen.support.vendor_logs import EXECUTORCH, quiet
from edgegen.types import SchemeCell, Signature

if TYPE_CHECKING:
    from torch.export import ExportedProgram

METHODS = ("forward", "generate")
GOLDEN = 2  # samples in a BundledProgram

SNIPPET = """import torch
from executorch.runtime import Runtime
program = Runtime.get().load_program("{file}")
out = program.load_method("forward").execute({tensors})[0]"""


@dataclass(frozen=True)
class ExecuTorchBackend:
    """`.pte` files of static batch 1: methods `forward` and, for images, `generate`; constant method `get_metadata`."""

    variants: Mapping[str, Variant] = field(
        default_factory=lambda: {
            "": Variant("XNNPACK: the CPU of any phone", ".pte", 1, methods=METHODS),
            "bundled": Variant(
                "XNNPACK, with golden inputs and outputs for a test on the device", ".bpte", 1, methods=METHODS
            ),
            "coreml": Variant("Core ML delegate: iPhone, iPad, Mac", ".pte", 1, methods=METHODS),
            "vulkan": Variant("Vulkan delegate: the GPU of Android phones", ".pte", 1, methods=METHODS),
            "qnn": Variant("Qualcomm's delegate; needs its SDK", ".pte", 1, methods=METHODS),
        },
        init=False,
    )
    cells: Mapping[str, SchemeCell] = field(default_factory=lambda: dict(CELLS), init=False)
    snippet: str = field(default=SNIPPET, init=False)
    rewrites: tuple[str, ...] = field(
        default=(
            "modulated_conv",
            "resampling",
            "pointwise",
            "conv_bias",
            "scalar_operands",
            "group_norm_spatial",
            "attention_bmm",
            "split_slices",
            "upsample_conv",
            "upsample_cat",
            "reflection_pad",
            "few_outputs",
            "winograd_rows",
            "quantized_cat",
        ),
        init=False,
    )

    def passes(self) -> tuple[str, ...]:
        return ()

    def runs_here(self, variant: str = "") -> bool:
        return True

    def check_options(self, scheme: str, options: Export) -> None:
        """Every option goes with every scheme."""

    def lower(
        self,
        program: "ExportedProgram",
        path: Path,
        *,
        signature: Signature,
        precision: Precision,
        metadata: Mapping[str, str],
        options: Export = DEFAULTS,
        variant: str = "",
        left_out: Collection[str] = (),
    ) -> None:
        """Write `path`; what the delegate does not take runs on ExecuTorch's portable kernels.

        With `options.generate` and an image as output, the method `generate` (noise -> uint8 image) shares the
        weights of `forward`. With `options.etrecord`, `<name>.etrecord` is written beside it.
        """
        if precision != "fp32":
            raise ExportError(f"the executorch backend writes fp32, not {precision}")
        require("executorch", purpose="writing an ExecuTorch file")
        with quiet(EXECUTORCH), without_needless_work():
            partitioner = _partitioner(variant)
            try:
                from executorch.exir import to_edge_transform_and_lower

                from edgegen.exporters.executorch.module_paths import with_handles

                with channels_last_views():
                    edge = to_edge_transform_and_lower(
                        program,
                        transform_passes=[contiguous_layout()],
                        partitioner=[partitioner()],
                        constant_methods={METADATA: _describe(signature, metadata)},
                        generate_etrecord=options.etrecord,
                    )
                # The manager has no public way to change a constant method; the numbers are known only now.
                edge._config_methods[METADATA] = with_handles(edge._config_methods[METADATA], edge)
                if options.generate and signature.makes_images:
                    _add_generate(edge, signature)
                manager = edge.to_executorch()
                content = _bundled(manager, program, signature) if variant == "bundled" else manager.buffer
                if options.etrecord:
                    manager.get_etrecord().save(path.with_suffix(".etrecord"))
            except Exception as e:
                raise ExportError(refusal("ExecuTorch", e)) from e
        path.write_bytes(content)

    def complete(self, path: Path, *, variant: str, options: Export = DEFAULTS) -> dict[str, Any]:
        """The file is all there is."""
        return {}

    def open(self, path: Path) -> ExecuTorchSession:
        require("executorch", purpose="running an ExecuTorch file")
        return open_program(path, bundled=path.suffix == self.variants["bundled"].suffix)


BACKEND = ExecuTorchBackend()


PartitionerFactory = Callable[[], Any]


def _partitioner(variant: str) -> PartitionerFactory:
    """What decides which operators go to the delegate. Raises MissingExtraError and ExportError where it is absent."""
    if variant in ("", "bundled"):
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner

        return cast(PartitionerFactory, XnnpackPartitioner)
    if variant == "vulkan":
        from executorch.backends.vulkan.partitioner.vulkan_partitioner import VulkanPartitioner

        return cast(PartitionerFactory, VulkanPartitioner)
    if variant == "coreml":
        require("coreml", purpose="lowering to ExecuTorch's Core ML delegate")
        from executorch.backends.apple.coreml.partition import CoreMLPartitioner

        return cast(PartitionerFactory, CoreMLPartitioner)
    return _qualcomm(os.environ.get("QNN_SDK_ROOT"))


def _qualcomm(sdk: str | None) -> PartitionerFactory:
    """Qualcomm's partitioner for its newest supported phone chip. Not tested: that needs the SDK."""
    if not sdk:
        raise ExportError(
            "Qualcomm's delegate needs its AI Engine Direct SDK, and QNN_SDK_ROOT does not say where it is: install it "
            "and set QNN_SDK_ROOT, or take the variant '' (CPU) or 'vulkan' (GPU)"
        )
    try:
        from executorch.backends.qualcomm.partition.qnn_partitioner import QnnPartitioner
        from executorch.backends.qualcomm.serialization.qc_schema import QcomChipset
        from executorch.backends.qualcomm.utils.utils import (
            generate_htp_compiler_spec,
            generate_qnn_executorch_compiler_spec,
        )

        specs = generate_qnn_executorch_compiler_spec(
            soc_model=QcomChipset.SM8750, backend_options=generate_htp_compiler_spec(use_fp16=True)
        )
    except Exception as e:
        raise ExportError(f"Qualcomm's delegate cannot be used with the SDK in {sdk}: {e}") from e
    return lambda: QnnPartitioner(specs)


def _add_generate(edge: Any, signature: Signature) -> None:
    """Add the method `generate` to the lowered program: the delegates of `forward`, then its image made uint8.

    Lowering the whole network a second time takes as long again, and gives a second copy of its graph in the file.
    """
    from executorch.exir import to_edge

    generate = pixels(edge.exported_program("forward"), signature, 1)[1]
    # The manager has no public way to take one more method; it already has the data of the delegates.
    edge._edge_programs["generate"] = to_edge(generate).exported_program()


def _bundled(manager: Any, program: "ExportedProgram", signature: Signature) -> bytes:
    """The program with golden inputs and what PyTorch computes of them: ExecuTorch's BundledProgram."""
    import torch
    from executorch.devtools.bundled_program.config import MethodTestCase, MethodTestSuite
    from executorch.devtools.bundled_program.core import BundledProgram
    from executorch.devtools.bundled_program.serialize import serialize_from_bundled_program_to_flatbuffer

    from edgegen.program.inputs import example_inputs

    module = program.module()
    cases = []
    for seed in range(GOLDEN):
        inputs = [torch.from_numpy(values) for values in example_inputs(signature, 1, seed).values()]
        with torch.no_grad():
            cases.append(MethodTestCase(inputs=inputs, expected_outputs=[module(*inputs)]))
    bundled = BundledProgram(manager, [MethodTestSuite("forward", cases)])
    return bytes(serialize_from_bundled_program_to_flatbuffer(bundled))


def _describe(signature: Signature, metadata: Mapping[str, str]) -> str:
    names = {"inputs": [spec.name for spec in signature.inputs], "outputs": [spec.name for spec in signature.outputs]}
    origin = {"producer": f"edgegen {version('edgegen')}", "signature": signature.to_dict()}
    return json.dumps({**metadata, **names, **origin}, sort_keys=True)
