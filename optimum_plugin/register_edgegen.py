"""`optimum-cli export edgegen`: installed as optimum/commands/register/register_edgegen.py, where optimum looks for it.

Optimum loads this file at each start of `optimum-cli`, so it imports nothing of edgegen before `run`. The folder must
have no `__init__.py`: several packages share `optimum.commands.register` (PEP 420).
"""

import sys
from argparse import ArgumentParser, BooleanOptionalAction, Namespace
from collections.abc import Mapping
from typing import Any

from optimum.commands.base import BaseOptimumCLICommand, CommandInfo
from optimum.commands.export.base import ExportCommand

# The arguments of `edgegen export`, which reads and checks the values; a test compares the names of both.
OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "--to": {"metavar": "LIST", "help": "RUNTIME[-SCHEME][:VARIANT], separated by commas."},
    "--output -o": {"metavar": "DIR", "help": "Default: exports/NAME."},
    "--name": {"metavar": "NAME", "help": "Of the folder in exports and of the files. Default: the source's."},
    "--recipe": {"metavar": "FILE", "help": "TOML with [export], [quantize], [recover]; or a recipe."},
    "--signature": {"metavar": "FILE", "help": "TOML: inputs and outputs of a factory or .pt2."},
    "--inputs": {"action": "append", "metavar": "[NAME=]PATH", "help": "Real inputs of a network that takes images."},
    "--random-weights": {"metavar": "SEED", "help": "Draw the weights: latency before training."},
    "--fuse-decoder": {"action": "store_true", "help": "A pipeline's denoiser and decoder in one file."},
    "--etrecord": {"action": "store_true", "help": "Write ExecuTorch's profiling record."},
    "--chip": {"metavar": "LIST", "help": "Snapdragon chips of onnx-...:qnn files. Default: 8gen3,8elite."},
    "--memory-limit": {"metavar": "SIZE", "help": "Of each exporting process, such as 8GB."},
    "--measure": {"action": BooleanOptionalAction, "help": "Host latency of each file."},
    "--yes": {"action": "store_true", "help": "Start refinements that take more than ten minutes."},
    "--runs": {"metavar": "DIR", "help": "Where runs of recipes are kept."},
    "--force": {"action": "store_true", "help": "Do the work again although its result is there."},
    "--dry-run": {"action": "store_true", "help": "Print what would be done, and stop."},
    "--json": {"action": "store_true", "help": "Print JSON on stdout."},
}


class EdgegenExport(BaseOptimumCLICommand):  # type: ignore[misc]  # optimum ships no types
    """The subcommand that optimum-cli shows under `export`."""

    COMMAND = CommandInfo(
        name="edgegen", help="Export a one-step generator to ONNX, ExecuTorch and Core ML files that are proven equal."
    )

    @staticmethod
    def parse_args(parser: ArgumentParser) -> None:
        """Called by optimum when it makes the subcommand's parser."""
        parser.description = "What `edgegen export` does; `edgegen export --help` has examples."
        parser.add_argument(
            "source", metavar="SOURCE", help="A recipe, a model or pipeline folder, package.module:factory or a .pt2."
        )
        for flags, settings in OPTIONS.items():
            parser.add_argument(*flags.split(), **{"default": None, **settings})

    def run(self) -> None:
        """Hand over to edgegen's command line, with its messages. Ends the process with its exit code."""
        from edgegen.cli.main import main

        sys.argv = ["edgegen", "export", *arguments_of(self.args)]
        main()


def arguments_of(arguments: Namespace) -> list[str]:
    """The words of `edgegen export` for the arguments that argparse read; edgegen's defaults hold for the rest."""
    words = []
    for flags in OPTIONS:
        flag = flags.split()[0]
        value = getattr(arguments, flag.removeprefix("--").replace("-", "_"))
        if value is None:
            continue
        if isinstance(value, bool):
            words.append(flag if value else f"--no-{flag.removeprefix('--')}")
        else:  # joined: a value may begin with a dash
            words += [f"{flag}={item}" for item in (value if isinstance(value, list) else [value])]
    return [*words, "--", str(arguments.source)]


REGISTER_COMMANDS = [(EdgegenExport, ExportCommand)]
