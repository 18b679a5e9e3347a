"""Names and words of others on the terminal: nothing that they hold commands it, or looks like a line of ours."""

import ast
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper
from typer.testing import CliRunner

from edgegen.cli import main
from edgegen.cli.terminal import show

EVIL = "\x1b]0;owned\x07x\nok  99 dB \x9b2J\u202e"


def test_lines_stay_lines(capsys: pytest.CaptureFixture[str]) -> None:
    show("ours", f"name {EVIL}")
    assert capsys.readouterr().out == "ours\nname \\x1b]0;owned\\x07x\\nok  99 dB \\x9b2J\\u202e\n"


def test_the_names_in_a_file(tmp_path: Path) -> None:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in (f"in{EVIL}", f"out{EVIL}")]
    node = helper.make_node("Sigmoid", [values[0].name], [values[1].name])
    model = helper.make_model(
        helper.make_graph([node], "g", values[:1], values[1:]),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=8,
    )
    helper.set_model_props(model, {f"key{EVIL}": f"[red]{EVIL}"})
    onnx.save(model, tmp_path / "net.onnx")
    printed = CliRunner().invoke(main.app, ["inspect", str(tmp_path / "net.onnx")], catch_exceptions=False).stdout
    assert "takes in\\x1b]0;owned\\x07x\\nok  99 dB" in printed
    assert "[red]" in printed
    assert all(line.isprintable() for line in printed.split("\n"))
    assert not [line for line in printed.split("\n") if line.startswith("ok")]


def test_commands_print_text_by_one_function() -> None:
    """What else they print is JSON, which escapes by itself, or was made printable there."""
    stray = []
    for path in Path(main.__file__).parent.glob("*.py"):
        source = path.read_text()
        for call in (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)):
            text = ast.get_source_segment(source, call) or ""
            if ast.unparse(call.func) == "print" and not any(
                word in text for word in ("json.dumps", "printable", "versions")
            ):
                stray.append(f"{path.name}: {text}")
    assert [line for line in stray if not line.startswith("serve_bench.py")] == []  # its address, and nothing of others
