"""What tells one captured network from another: its operations, all its numbers, and what goes in."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch.export import ExportedProgram

from edgegen.program.inputs import RealInputs
from edgegen.types import Signature


def fingerprint(program: ExportedProgram, signature: Signature, real: RealInputs | None) -> str:
    """A SHA-256, the same in every process."""
    digest = hashlib.sha256(str(program.graph).encode())
    digest.update(json.dumps(signature.to_dict(), sort_keys=True).encode())
    tensors: Mapping[str, Any] = {**program.state_dict, **program.constants}
    for name in sorted(tensors):
        if isinstance(tensors[name], torch.Tensor):
            digest.update(name.encode())
            digest.update(tensors[name].detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    for part in (real.calibration, real.verification) if real else ():
        for name in sorted(part):
            digest.update(name.encode() + part[name].tobytes())
    return digest.hexdigest()
