"""A signature as files carry it (manifest.json, the metadata of an exported file), checked against its record."""

import json
from typing import Any

from pydantic import TypeAdapter, ValidationError

from edgegen.errors import DataError
from edgegen.support.bounded_files import parse_json
from edgegen.types import Signature

SIGNATURE = TypeAdapter(Signature)


def check_signature(values: Any) -> Signature:
    """The signature in plain JSON values. Raises ValueError that says what is wrong, and where."""
    try:
        # By way of JSON, whose strict mode takes a list for a tuple, and no text for a number.
        signature = SIGNATURE.validate_json(json.dumps(values), strict=True)
    except ValidationError as e:
        first = e.errors()[0]
        raise ValueError(f"{'.'.join(map(str, first['loc'])) or 'signature'}: {first['msg']}") from e
    if not signature.inputs or len(signature.outputs) != 1:
        raise ValueError("a signature has at least one input, and one output")
    if not signature.outputs[0].shape:  # an input may be a scalar
        raise ValueError("the output has at least one axis, that of the batch")
    if not 0 <= signature.num_classes < 1 << 31:
        raise ValueError(f"num_classes is {signature.num_classes}")
    return signature


def signature_of(values: Any) -> dict[str, Any] | None:
    """The signature in a file's metadata; None where there is none, or a damaged one."""
    try:
        check_signature(values)
    except (DataError, ValueError):
        return None
    return dict(values)


def signature_in(text: str | None) -> dict[str, Any] | None:
    """The same of its JSON text."""
    try:
        return signature_of(parse_json(text or "null", where="signature"))
    except DataError:
        return None
