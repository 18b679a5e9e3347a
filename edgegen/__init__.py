"""edgegen: from the GPU where a generator was trained to the phone where it must run.

The steps of the command line as a library; a name is imported when it is first used, so `import edgegen` is quick.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgegen.artifacts.build import build as build_artifact
    from edgegen.artifacts.library import export as export
    from edgegen.artifacts.library import read_recipe as read_recipe
    from edgegen.artifacts.library import verify as verify
    from edgegen.artifacts.sample import sample_to_png as sample
    from edgegen.errors import EdgegenError as EdgegenError
    from edgegen.flow.solvers import solve as solve
    from edgegen.models.edge_unet import EdgeUNet as EdgeUNet
    from edgegen.models.edge_unet import EdgeUNetConfig as EdgeUNetConfig
    from edgegen.models.load import load as load_generator
    from edgegen.noise import normal as normal
    from edgegen.pipeline.run import run_recipe as run_recipe
    from edgegen.program.capture import capture as capture_program
    from edgegen.program.fold import fold as fold
    from edgegen.recipe import Recipe as Recipe
    from edgegen.types import Artifact as Artifact
    from edgegen.types import Latency as Latency
    from edgegen.types import Parity as Parity
    from edgegen.types import Signature as Signature
    from edgegen.verification.parity import check as check_parity

_PLACES = {
    "Artifact": "edgegen.types:Artifact",
    "EdgeUNet": "edgegen.models.edge_unet:EdgeUNet",
    "EdgeUNetConfig": "edgegen.models.edge_unet:EdgeUNetConfig",
    "EdgegenError": "edgegen.errors:EdgegenError",
    "Latency": "edgegen.types:Latency",
    "Parity": "edgegen.types:Parity",
    "Recipe": "edgegen.recipe:Recipe",
    "Signature": "edgegen.types:Signature",
    "build_artifact": "edgegen.artifacts.build:build",
    "capture_program": "edgegen.program.capture:capture",
    "check_parity": "edgegen.verification.parity:check",
    "export": "edgegen.artifacts.library:export",
    "fold": "edgegen.program.fold:fold",
    "load_generator": "edgegen.models.load:load",
    "normal": "edgegen.noise:normal",
    "read_recipe": "edgegen.artifacts.library:read_recipe",
    "run_recipe": "edgegen.pipeline.run:run_recipe",
    "sample": "edgegen.artifacts.sample:sample_to_png",
    "solve": "edgegen.flow.solvers:solve",
    "verify": "edgegen.artifacts.library:verify",
}
__all__ = [
    "Artifact",
    "EdgeUNet",
    "EdgeUNetConfig",
    "EdgegenError",
    "Latency",
    "Parity",
    "Recipe",
    "Signature",
    "build_artifact",
    "capture_program",
    "check_parity",
    "export",
    "fold",
    "load_generator",
    "normal",
    "read_recipe",
    "run_recipe",
    "sample",
    "solve",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'edgegen' has no attribute '{name}'; there are: {', '.join(__all__)}")
    module, _, attribute = _PLACES[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


def __dir__() -> list[str]:
    return __all__
