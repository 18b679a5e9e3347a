"""Which quantization scheme exists for which backend: the cells that the registered backends bring."""

import difflib
from collections.abc import Mapping

from edgegen import registry
from edgegen.errors import UsageError, unknown_name
from edgegen.types import SchemeCell


def cells(backend: str) -> Mapping[str, SchemeCell]:
    """The cells of a backend by scheme, the default scheme first.

    Raises UsageError for a backend that is unknown, cannot be loaded or has no cells.
    """
    schemes: Mapping[str, SchemeCell] | None = getattr(registry.load("backend", backend), "cells", None)
    if not schemes:
        module = registry.names("backend")[backend]
        raise UsageError(f"the backend '{backend}' ({module}) has no cells, so there is no scheme to export")
    return schemes


def matrix() -> dict[tuple[str, str], SchemeCell]:
    """(scheme, backend) -> cell of every backend; without those that `cells` refuses, which `edgegen doctor` names."""
    table: dict[tuple[str, str], SchemeCell] = {}
    for backend in registry.names("backend"):
        try:
            schemes = cells(backend)
        except UsageError:
            continue
        table |= {(scheme, backend): schemes[scheme] for scheme in schemes}
    return table


def cell(scheme: str, backend: str, variant: str = "") -> SchemeCell:
    """The cell of a scheme, for a variant that may have schemes of its own.

    Raises UsageError that lists all cells, or those of the variant, and names the nearest where there is none.
    """
    backends = registry.names("backend")
    if backend not in backends:
        raise UsageError(unknown_name("backend", backend, backends))
    if own := _own_cells(backend, variant):
        if scheme not in own:
            raise UsageError(unknown_name(f"{backend}:{variant} scheme", scheme, own))
        return own[scheme]
    schemes = cells(backend)
    if scheme in schemes:
        return schemes[scheme]
    full = [f"{other_backend} {other}" for other, other_backend in sorted(matrix(), key=lambda key: key[::-1])]
    # The backend is what the user meant: the scheme is guessed among its own.
    same_backend = [name for name in full if name.startswith(f"{backend} ")]
    near = difflib.get_close_matches(f"{backend} {scheme}", same_backend, n=1, cutoff=0.0)
    raise UsageError(
        f"no quantization scheme '{scheme}' for backend '{backend}'; there are: {', '.join(full)}. "
        f"Did you mean '{near[0]}'?"
    )


def _own_cells(backend: str, variant: str) -> Mapping[str, SchemeCell]:
    kind = getattr(registry.load("backend", backend), "variants", {}).get(variant)
    return {} if kind is None else kind.cells
