"""The one Jinja environment, which reads the templates beside this file."""

from pathlib import Path
from typing import Any

from edgegen.report import formats


def make(*, html: bool) -> Any:
    """Jinja's environment; in HTML every value is escaped, and a name that is not there is an error."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=html,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["md"] = formats.markdown
    return environment
