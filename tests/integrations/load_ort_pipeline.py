"""Run by the Python of a venv that has optimum-onnx: load_ort_pipeline.py FOLDER INPUTS.npz OUTPUTS.npz.

INPUTS holds `latents`, and arguments of the pipeline that take the place of the prompts, if any.
"""

import sys

import numpy as np
import torch
from optimum.onnxruntime import ORTDiffusionPipeline

folder, inputs, outputs = sys.argv[1:]
pipeline = ORTDiffusionPipeline.from_pretrained(folder)
given = {name: torch.from_numpy(value) for name, value in np.load(inputs).items()}
if pipeline.tokenizer is not None:
    given["prompt"] = ["a cat", "cat"]


def run(**options):
    again = {name: value.clone() if isinstance(value, torch.Tensor) else value for name, value in given.items()}
    return np.asarray(pipeline(**again, guidance_scale=1.0, **options).images)


made = {kind: run(num_inference_steps=1, output_type=kind) for kind in ("latent", "np")}
try:
    run()
    refused = ""
except ValueError as e:
    refused = str(e)
np.savez(outputs, kind=type(pipeline).__name__, refused=refused, **made)
