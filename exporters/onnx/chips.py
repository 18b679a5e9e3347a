"""Qualcomm's chips whose NPU (Hexagon Tensor Processor, HTP) a file can be compiled for."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Chip:
    """A system on chip: its market name, part number, number in Qualcomm's SDK, and the architecture of its HTP."""

    name: str
    part: str
    soc_model: int
    architecture: str


# Numbers and architectures: `QcomChipset` in executorch/backends/qualcomm/serialization/qc_schema.py of ExecuTorch
# 1.5.1, which a test compares. Older ones (HTP v68, such as Snapdragon 888) compute no float16: the compiler ends with
# QNN_COMMON_ERROR_MEM_ALLOC (1002).
CHIPS = {
    "8gen1": Chip("Snapdragon 8 Gen 1", "SM8450", 36, "v69"),
    "8gen1plus": Chip("Snapdragon 8+ Gen 1", "SM8475", 42, "v69"),
    "8gen2": Chip("Snapdragon 8 Gen 2", "SM8550", 43, "v73"),
    "8gen3": Chip("Snapdragon 8 Gen 3", "SM8650", 57, "v75"),
    "8elite": Chip("Snapdragon 8 Elite", "SM8750", 69, "v79"),
    "8gen5": Chip("Snapdragon 8 Gen 5", "SM8845", 97, "v81"),
    "8elitegen5": Chip("Snapdragon 8 Elite Gen 5", "SM8850", 87, "v81"),
}
