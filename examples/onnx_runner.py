"""Runs an ONNX file on raw inputs, picture by picture, with onnxruntime and numpy alone: see bench_arm.py.

python onnx_runner.py MODEL.onnx OUTPUT.bin [NAME '["float32", [1, 3, 32, 32]]' INPUT.bin]...
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime

model, output, *rest = sys.argv[1:]
inputs = {}
for name, about, path in zip(rest[::3], rest[1::3], rest[2::3], strict=True):
    dtype, shape = json.loads(about)
    inputs[name] = np.fromfile(path, dtype).reshape(-1, *shape)
session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
pictures = len(next(iter(inputs.values())))
with Path(output).open("wb") as file:
    for picture in range(pictures):
        made = session.run(None, {name: array[picture] for name, array in inputs.items()})
        made[0].tofile(file)
