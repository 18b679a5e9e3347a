"""Tables of a TOML file that a user writes: frozen records, and what is wrong in them in the user's words."""

import json
import typing
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from pydantic import (
    BaseModel,
    ConfigDict,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)

from edgegen import registry
from edgegen.errors import DataError, EdgegenError, UsageError, unknown_name
from edgegen.support import bounded_files


class Table(BaseModel):
    """A table: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class MethodTable(Table):
    """A table with the name of a training method, whose keys stand beside the table's own.

    `objective` is an edgegen.training.objective.Objective: the record of the method's keys, and the method itself. The
    default and the documentation of `method` are a subclass's own.
    """

    method: str = ""
    objective: Any = None

    @model_validator(mode="before")
    @classmethod
    def with_objective(cls, values: Any) -> Any:
        """Takes apart the table's own keys and those of the method."""
        if not isinstance(values, dict):
            return values
        own = cls.model_fields.keys() - {"objective"}
        of_method = {key: value for key, value in values.items() if key not in own}
        return {**{key: _tuples(value) for key, value in values.items() if key in own}, "objective": of_method}

    @field_validator("method")
    @classmethod
    def known_method(cls, name: str) -> str:
        known = registry.names("objective")
        if name not in known:
            raise ValueError(unknown_name("method", name, known))
        return name

    @field_validator("objective", mode="plain")
    @classmethod
    def record_of_the_method(cls, values: dict[str, Any], info: ValidationInfo) -> Any:
        if "method" not in info.data:
            return None  # it is wrong itself, and which keys it would have is not known
        record = _record(info.data["method"])
        both = sorted(record.model_fields.keys() & cls.model_fields.keys())
        if both:
            raise ValueError(f"method '{info.data['method']}' has keys of the table's own names: {', '.join(both)}")
        if info.mode == "json":
            return record.model_validate_json(json.dumps(values), strict=True)
        return record.model_validate(values)

    @model_serializer(mode="wrap")
    def flat(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """The table as it is written. A default method is left out: to name it changes no key of a result."""
        values: dict[str, Any] = serialize(self)
        of_method: dict[str, Any] = values.pop("objective", {})
        if self.method == _default_method(type(self)):
            values.pop("method", None)
        return values | of_method


def read_toml(path: Path, error: type[EdgegenError]) -> dict[str, Any]:
    """The values of a TOML file. Raises `error` where it cannot be read."""
    try:
        return bounded_files.read_toml(path)
    except DataError as e:
        raise error(str(e)) from e


def explain(error: Any, root: type[BaseModel], values: dict[str, Any]) -> str:
    """One of a ValidationError's errors: at which key, what was found, what would do.

    `root` is the record of the whole file, `values` are the file's. A fault of several keys may name them itself.
    """
    keys = [str(part) for part in error["loc"] if str(part).strip()]  # of a table or a text, pydantic adds its own tag
    of_method = keys[1:2] == ["objective"]
    if of_method:
        del keys[1]  # the user's table is flat
    key = ".".join(keys)
    if error["type"] == "extra_forbidden" and of_method:
        return f"{key}: {_no_key_of_method(keys[1:], _table_at(root, keys[:1]), values[keys[0]])}"
    return fault(error, key, lambda: _table_at(root, keys[:-1]).model_fields)


def fault(error: Any, key: str, known: Callable[[], Iterable[str]]) -> str:
    """One of a ValidationError's errors at `key`; `known` gives the keys of the table around it."""
    if error["type"] == "extra_forbidden":
        return f"{key}: {unknown_name('key', str(error['loc'][-1]), known())}"
    if error["type"] == "missing":
        return f"{key}: missing; this key must be given"
    if error["type"] == "value_error":
        text = str(error["ctx"]["error"])
        return text if not key or text.startswith(f"{key}.") else f"{key}: {text}"
    return f"{key}: {error['msg']} (found {error['input']!r})"


def _tuples(value: Any) -> Any:
    """Arrays as tuples: strict validation takes arrays of JSON alone, and what a validator gives back is Python."""
    if isinstance(value, dict):
        return {key: _tuples(inner) for key, inner in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _record(method: str) -> type[BaseModel]:
    where = registry.names("objective")[method]
    try:
        record: Any = registry.load("objective", method)
    except UsageError as e:  # another package's, which cannot be loaded
        raise ValueError(str(e)) from e
    is_record = isinstance(record, type) and issubclass(record, BaseModel)
    if is_record and record.model_config.get("extra") == "forbid":
        return record  # type: ignore[no-any-return]
    raise ValueError(f"{where} is no record that forbids unknown keys, such as edgegen.support.tables.Table")


def _default_method(table: type[BaseModel]) -> str:
    return str(table.model_fields["method"].default)


def _no_key_of_method(keys: list[str], table: type[BaseModel], values: dict[str, Any]) -> str:
    """The message for the last of `keys` in a table of `values`; more than one where the method has tables itself."""
    method = values.get("method", _default_method(table))
    if len(keys) > 1:
        return unknown_name("key", keys[-1], _table_at(_record(method), keys[:-1]).model_fields)
    own = list(_record(method).model_fields)
    text = f"The keys of method {method} are: {', '.join(own)}." if own else f"Method {method} has no keys of its own."
    return f"{unknown_name('key', keys[0], [*(table.model_fields.keys() - {'objective'}), *own])} {text}"


def _table_at(root: type[BaseModel], keys: list[str]) -> type[BaseModel]:
    """The record at a path such as ["teacher", "model"]."""
    table = root
    for key in keys:
        inner = table_of(table.model_fields[key].annotation)
        assert inner is not None, f"{key} is a table"
        table = inner
    return table


def table_of(annotation: Any) -> type[BaseModel] | None:
    """The table in a key's type, also in one such as `Architecture | str | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((table for part in typing.get_args(annotation) if (table := table_of(part)) is not None), None)
