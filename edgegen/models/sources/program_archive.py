"""A `.pt2` of torch.export.save, read without running anything of it: no pickle, no text that is evaluated.

torch.export.load unpickles what an archive says is pickled and its sample inputs, gives symbolic sizes to sympy (which
evaluates them), turns guards and the names of inputs into Python code, and looks operators up by attribute from `torch`
on, where `torch.os.system` is found too. So the archive is checked before torch sees it: weights are raw bytes, sizes
are arithmetic, names are names, operators are ATen's; guards, stack traces and sample inputs are dropped.
"""

import json
import re
import zipfile
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from torch._ops import HigherOrderOperator, OpOverload
from torch.export import ExportedProgram

from edgegen.errors import DataError
from edgegen.support.bounded_files import ZIP_ERRORS, check_regular, parse_json

LARGEST_PROGRAM = 1 << 28  # bytes of JSON; a network of some thousand operations has ten million
MODEL = "model"  # the name that torch.export.save gives its one program
SAFE_WAY = (
    "save the program again by torch.export.save of this torch, with plain tensors as weights; or give the network as "
    "package.module:factory, its weights in a safetensors file"
)
NAME = re.compile(r"(?:[A-Za-z_]\w*)?")
PATH = re.compile(r"[\w.:/+-]*")  # of a weight in its module; torch.fx writes it into Python code too
# The text of a size: sympy's srepr, such as Mul(Integer(2), Symbol('s17', positive=True, integer=True)).
SIZE = re.compile(
    r"(?:\b(?:Symbol|Integer|Rational|Float|Add|Mul|Pow|Max|Min|Mod|PythonMod|ModularIndexing|FloorDiv|CeilDiv|CleanDiv|"
    r"IntTrueDiv|FloatTrueDiv|PowByNatural|CeilToInt|FloorToInt|RoundToInt|TruncToInt|ToFloat|Identity|Where|floor|"
    r"ceiling|Equality|Unequality|Eq|Ne|StrictLessThan|LessThan|StrictGreaterThan|GreaterThan|And|Or|Not|true|false|"
    r"True|False|positive|integer|nonnegative|precision)\b|'[a-z]+\d*'|\b[su]\d+\b|\d+(?:\.\d+)?|[-+*/(),=<>&|~ ])*"
)
OPERATORS = re.compile(r"torch\.ops\.(?:aten|prims|higher_order)\.\w+(?:\.\w+)?")
ON_SIZES = re.compile(
    r"torch\._?sym_(?:not|int|float|ite|max|min|sqrt|sum)|math\.(?:trunc|ceil|floor)|_operator\.(?:add|sub|mul|truediv|"
    r"floordiv|mod|pow|neg|pos|getitem|eq|ne|lt|le|gt|ge|and_|or_|lshift|rshift)"
)
HIGHER_ORDER = ("cond", "wrap_with_set_grad_enabled", "wrap_with_autocast")
READS_FILES = "torch.ops.aten.from_file"
IMPORTS = ("__enum__", "default_factory_module")  # descriptions of arguments whose reading imports a module by name


def load_program(path: Path) -> ExportedProgram:
    """The program in a `.pt2`, without its sample inputs. Raises DataError if it is unsafe, cut short or no archive."""
    content = _read_checked(path)
    from torch._export.serde import schema
    from torch._export.serde.serialize import ExportedProgramDeserializer, _bytes_to_dataclass
    from torch.export.pt2_archive import _package

    try:
        with _package.PT2ArchiveReader(str(path)) as reader:
            weights, constants = _package._load_state_dict(reader, MODEL), _package._load_constants(reader, MODEL)
        program = _bytes_to_dataclass(schema.ExportedProgram, content)
        return ExportedProgramDeserializer(None).deserialize(program, weights, constants)
    except Exception as e:
        reason = " ".join(str(e).split())[:300] or type(e).__name__
        raise DataError(f"{path}: torch {torch.__version__} cannot read this program: {reason}; {SAFE_WAY}") from e


def _read_checked(path: Path) -> bytes:
    """The serialized program after every check; see the head of this file."""
    check_regular(path)
    try:
        with zipfile.ZipFile(path) as archive:
            # Every record lies in one folder, which torch names after the file.
            records = {"/".join(PurePosixPath(name).parts[1:]): name for name in archive.namelist()}
            _check_records(path, set(records))
            for kind in ("weights", "constants"):
                config = _read_json(archive, records[f"data/{kind}/{MODEL}_{kind}_config.json"], path)
                for name, payload in config["config"].items():
                    _check_payload(path, name, payload)
            program = _read_json(archive, records[f"models/{MODEL}.json"], path)
    except (*ZIP_ERRORS, TypeError, AttributeError) as e:
        raise DataError(f"{path}: not an archive of torch.export.save, or cut short ({e}); {SAFE_WAY}") from e
    program["guards_code"] = []
    _check_tree(path, program)
    return json.dumps(program).encode()


def _read_json(archive: zipfile.ZipFile, record: str, path: Path) -> Any:
    size = archive.getinfo(record).file_size
    if size > LARGEST_PROGRAM:
        raise DataError(f"{path}: '{record}' unpacks to {size} bytes; at most {LARGEST_PROGRAM} are read")
    return parse_json(archive.read(record), where=f"{path}: {record}")


def _check_records(path: Path, records: set[str]) -> None:
    if "archive_format" not in records:
        raise DataError(f"{path}: not an archive of this torch's torch.export.save; {SAFE_WAY}")
    compiled = sorted(name for name in records if name.startswith("data/aotinductor/"))
    if compiled:
        raise DataError(f"{path}: holds compiled machine code ({compiled[0]}), which is not run; {SAFE_WAY}")
    pickles = records & {f"data/weights/{MODEL}.pt", f"data/constants/{MODEL}.pt"}
    if pickles:
        raise _refusal(path, min(pickles), "a pickle, as older versions of torch wrote them")


def _check_payload(path: Path, name: str, payload: dict[str, Any]) -> None:
    if payload["use_pickle"] or not str(payload["path_name"]).startswith(("weight_", "tensor_")):
        raise _refusal(path, name, "a pickle")


def _check_tree(path: Path, value: Any, key: str = "") -> None:
    """Checks each text that torch would turn into code or look up; node metadata (stack traces, paths) is dropped."""
    if isinstance(value, dict):
        if "target" in value:
            value["metadata"] = {}
        for inner, part in value.items():
            _check_tree(path, part, inner)
    elif isinstance(value, list):
        for part in value:
            _check_tree(path, part, key)
    elif isinstance(value, str):
        if key in ("target", "as_operator") and not _is_operator(value):
            raise _refusal(path, value, "not an operator of ATen")
        if "expr" in key and not SIZE.fullmatch(value):
            raise _refusal(path, value, "not the arithmetic of a size")
        if key in ("name", "forward_arg_names") and not NAME.fullmatch(value):
            raise _refusal(path, value, "not a name")
        if key.endswith(("_name", "fqn")) and not PATH.fullmatch(value):
            raise _refusal(path, value, "not the name of a weight")
        if key in ("in_spec", "out_spec") and any(word in value for word in IMPORTS):
            raise _refusal(path, value, "arguments that are no plain tensors")


def _is_operator(text: str) -> bool:
    if ON_SIZES.fullmatch(text):
        return True
    if not OPERATORS.fullmatch(text) or text.startswith(READS_FILES):
        return False
    operator: Any = torch.ops
    for part in text.split(".")[2:]:
        operator = getattr(operator, part, None)
    if isinstance(operator, HigherOrderOperator):
        return text.split(".")[3] in HIGHER_ORDER
    return isinstance(operator, OpOverload)


def _refusal(path: Path, text: str, reason: str) -> DataError:
    shown = text if len(text) <= 80 else text[:77] + "..."
    return DataError(f"{path}: '{shown}' is {reason}, and is not read: it could run any code; {SAFE_WAY}")
