"""The checkpoint of a training stage: all networks, optimisers and moving averages, in one safetensors file."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from edgegen.errors import DataError, TrainingError
from edgegen.support.storage import load_metadata, load_tensors, save_tensors
from edgegen.training.networks import NetworkState


def save(path: Path, states: Mapping[str, NetworkState], done: int) -> None:
    """Writes the state after `done` steps."""
    tensors: dict[str, Tensor] = {}
    for name, state in states.items():
        tensors |= {f"net.{name}.{key}": value for key, value in state.network.state_dict().items()}
        for average in state.averages:
            prefix = _average_prefix(name, average.name)
            tensors |= {f"{prefix}{key}": value for key, value in average.network.state_dict().items()}
        for index, moments in state.optimizer.state_dict()["state"].items():
            tensors |= {f"adam.{name}.{index}.{key}": torch.as_tensor(value) for key, value in moments.items()}
    updates = {f"updates.{name}": str(int(state.updates)) for name, state in states.items()}
    plain = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    save_tensors(path, plain, metadata={"step": str(done), **updates})


def restore(path: Path, states: Mapping[str, NetworkState], label: str) -> int:
    """Loads the checkpoint if there is one; returns the number of steps done. Raises TrainingError."""
    if not path.exists():
        return 0
    try:
        tensors, metadata = load_tensors(path), load_metadata(path)
        for name, state in states.items():
            state.network.load_state_dict(_below(tensors, f"net.{name}."))
            for average in state.averages:
                average.network.load_state_dict(_below(tensors, _average_prefix(name, average.name)))
            moments: dict[int, dict[str, Tensor]] = {}
            for key, value in _below(tensors, f"adam.{name}.").items():
                index, _, field = key.partition(".")
                moments.setdefault(int(index), {})[field] = value
            groups = state.optimizer.state_dict()["param_groups"]
            state.optimizer.load_state_dict({"state": moments, "param_groups": groups})
            # Checkpoints from before a loop could train several networks have one count.
            state.updates.fill_(int(metadata.get(f"updates.{name}") or metadata["updates"]))
        return int(metadata["step"])
    except (DataError, KeyError, ValueError, RuntimeError) as e:
        raise TrainingError(f"{path}: not a checkpoint of {label}; delete it and run the same command again") from e


def done_steps(path: Path) -> int | None:
    """The steps that the checkpoint holds, None where there is none."""
    return int(load_metadata(path)["step"]) if path.exists() else None


def _average_prefix(name: str, average: str) -> str:
    return f"ema-{average}.{name}." if average else f"ema.{name}."


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
