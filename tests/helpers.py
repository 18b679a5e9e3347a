"""What tests import: a recipe that runs in seconds, and the command line in a process of its own."""

import os
import sys
import types

TINY = """
name = "tiny"
[teacher]
steps = 40
batch = 16
checkpoint_every = 10
warmup = 5
model = { channels = [8, 16], blocks = 1, embedding = 16 }
[pairs]
count = 96
shard = 32
steps = 2
[slim]
keep = 0.9
steps = 24
batch = 16
checkpoint_every = 8
[distill]
steps = 24
batch = 16
checkpoint_every = 8
[evaluate]
steps = [1, 2]
seeds = 2
extractor_steps = 30
[quantize]
samples = 8
[verify]
samples = 4
[profile]
min_runs = 3
max_seconds = 0.2
"""


class NoChild:
    """Stands for a process that waits: nothing is started, and it has ended before it is given back."""

    process = types.SimpleNamespace(poll=lambda: 0)

    def __init__(self, *arguments: object) -> None:
        pass

    def close(self) -> None:
        pass


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "edgegen.cli.main", *(str(argument) for argument in arguments)]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}
