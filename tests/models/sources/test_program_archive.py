"""A `.pt2`: read back equal, its signature guessed, and nothing in it run."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

from edgegen.errors import DataError
from edgegen.models.sources.load import load_sources

DYNAMIC = {0: Dim.DYNAMIC}
TOML = """
{head}
[[inputs]]
name = "z"
shape = ["batch_size", 3, 8, 8]
role = "noise"
[[outputs]]
shape = ["batch_size", 3, 8, 8]
role = "image"
"""


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.table = nn.Embedding(5, 3)
        self.constant = torch.arange(3.0)  # lifted as a constant tensor
        self.register_buffer("scale", torch.ones(3))
        self.scale: Tensor

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        shift = self.table(y) * self.scale + self.constant
        doubled = torch.cat([x, x]).reshape(2 * x.shape[0], -1)[: x.shape[0]].reshape(-1, 3, 8, 8)
        out: Tensor = self.conv(doubled) + shift[:, :, None, None]
        return out


class Timed(nn.Module):
    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return x * t[:, None, None, None]


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    inputs = torch.randn(2, 3, 8, 8), torch.tensor([1, 2])
    program = torch.export.export(Net().eval(), inputs, dynamic_shapes=(DYNAMIC, DYNAMIC))
    torch.export.save(program, tmp_path / "net.pt2")
    return tmp_path / "net.pt2"


def saved(module: nn.Module, inputs: tuple[Tensor, ...], path: Path, *, batch: bool = True) -> Path:
    shapes = tuple(DYNAMIC for _ in inputs) if batch else None
    torch.export.save(torch.export.export(module.eval(), inputs, dynamic_shapes=shapes), path)
    return path


def test_a_program_is_read_back_equal(archive: Path) -> None:
    (source,) = load_sources(str(archive))
    assert source.name == "net"
    assert [(spec.name, spec.shape, spec.role) for spec in source.signature.inputs] == [
        ("sample", ("batch_size", 3, 8, 8), "noise"),
        ("class_labels", ("batch_size",), "class"),
    ]
    assert source.signature.num_classes == 5
    assert source.signature.outputs[0].role == "image"
    assert "the signature is guessed" in source.about["notes"][0]
    assert source.about["parameters"] == 3 * 3 * 9 + 3 + 15
    x, y = torch.randn(4, 3, 8, 8), torch.tensor([0, 1, 2, 4])
    expected = torch.export.load(archive).module()(x, y)
    torch.testing.assert_close(source.module(x, y), expected)
    assert not any(part.training for part in source.module.modules())
    again = torch.export.export(source.module.eval(), (x, y), dynamic_shapes=(DYNAMIC, DYNAMIC))
    torch.testing.assert_close(again.module()(x[:3], y[:3]), expected[:3])
    assert again.graph_signature.user_inputs == ("sample", "class_labels")


def test_a_signature_file_names_and_fixes_the_time(tmp_path: Path) -> None:
    path = saved(Timed(), (torch.randn(2, 3, 8, 8), torch.rand(2)), tmp_path / "timed.pt2")
    with pytest.raises(DataError, match=r"input 't' has one number for each sample: a time\? .* time_argument = \"t\""):
        load_sources(str(path))
    signature = tmp_path / "s.toml"
    signature.write_text(TOML.format(head='time = 0.25\ntime_argument = "t"'))
    (source,) = load_sources(str(path), signature=signature)
    z = torch.randn(3, 3, 8, 8)
    torch.testing.assert_close(source.module(z=z), z / 4)
    signature.write_text(TOML.format(head='time = 0.25\ntime_argument = "u"'))
    with pytest.raises(DataError, match=r"the network refuses the inputs of its signature .*the program takes x, t"):
        load_sources(str(path), signature=signature)
    signature.write_text(TOML.format(head='weights = "w.safetensors"'))
    with pytest.raises(DataError, match=r"weights: a .pt2 has its own; leave the key out"):
        load_sources(str(path), signature=signature)


class Many(nn.Module):
    def forward(self, x: Tensor, image: Tensor, text: Tensor, robot: Tensor) -> Tensor:
        return x + image + (text.mean((1, 2)) + robot.mean(1))[:, None, None, None]


class Signal(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * x


def test_guessed_roles(tmp_path: Path) -> None:
    shapes = (2, 3, 8, 8), (2, 3, 8, 8), (2, 7, 16), (2, 5)
    path = saved(Many(), tuple(torch.randn(*shape) for shape in shapes), tmp_path / "many.pt2")
    (source,) = load_sources(str(path))
    assert [(spec.name, spec.role) for spec in source.signature.inputs] == [
        ("sample", "noise"),
        ("image", "image"),
        ("encoder_hidden_states", "text"),
        ("robot", "features"),
    ]
    path = saved(Signal(), (torch.randn(2, 6, 16),), tmp_path / "signal.pt2")
    assert load_sources(str(path))[0].signature.outputs[0].role == "signal"
    path = saved(Signal(), (torch.randn(1, 4, 8, 8),), tmp_path / "one.pt2", batch=False)
    (source,) = load_sources(str(path))
    assert source.signature.outputs[0].shape == (1, 4, 8, 8)
    assert source.signature.outputs[0].role == "latent"


class TwoOutputs(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x + 1, x + 2


class Counts(nn.Module):
    def forward(self, x: Tensor, n: Tensor) -> Tensor:
        return x + n[:, None, None]


def test_programs_that_leave_open_what_they_are(tmp_path: Path) -> None:
    def refuse(module: nn.Module, inputs: tuple[Tensor, ...], message: str) -> None:
        with pytest.raises(DataError, match=message):
            load_sources(str(saved(module, inputs, tmp_path / "p.pt2")))

    refuse(Signal(), (torch.randn(2, 3),), "its first input is no float tensor of three axes or more")
    refuse(Signal(), (torch.randn(2, 3, 4).double(),), "'x' is torch.float64; supported: float32, int64, int32")
    refuse(TwoOutputs(), (torch.randn(2, 3, 4),), "the program has 2 outputs; a source gives one tensor")
    refuse(
        Counts(), (torch.randn(2, 3, 4), torch.tensor([1, 2])), r"input 'n' .* is not used as a class; give --signature"
    )
    program = torch.export.export(Signal(), (torch.randn(2, 3, 4),), dynamic_shapes=({0: Dim.DYNAMIC, 2: Dim.DYNAMIC},))
    torch.export.save(program, tmp_path / "free.pt2")
    with pytest.raises(DataError, match=r"'x' has a dynamic size beside the batch: .*; export it with fixed ones"):
        load_sources(str(tmp_path / "free.pt2"))


def rewritten(archive: Path, change: Callable[[str, bytes], bytes | None], add: dict[str, bytes] | None = None) -> Path:
    """The archive with each record changed, or left out where `change` gives None."""
    target = archive.with_name("changed.pt2")
    with zipfile.ZipFile(archive) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            content = change(name, old.read(name))
            if content is not None:
                new.writestr(name, content)
        for name, content in (add or {}).items():
            new.writestr(f"net/{name}", content)
    return target


def in_program(change: Callable[[Any], None]) -> Callable[[str, bytes], bytes]:
    def apply(name: str, content: bytes) -> bytes:
        if not name.endswith("models/model.json"):
            return content
        program = json.loads(content)
        change(program)
        return json.dumps(program).encode()

    return apply


def in_payload(key: str, value: Any) -> Callable[[str, bytes], bytes]:
    def apply(name: str, content: bytes) -> bytes:
        if not name.endswith("weights_config.json"):
            return content
        config = json.loads(content)
        next(iter(config["config"].values()))[key] = value
        return json.dumps(config).encode()

    return apply


def nodes(program: Any) -> Any:
    return program["graph_module"]["graph"]["nodes"]


def an_operator(target: str) -> Callable[[str, bytes], bytes]:
    return in_program(lambda program: nodes(program)[0].update(target=target))


def a_size(text: str) -> Callable[[str, bytes], bytes]:
    def apply(name: str, content: bytes) -> bytes:
        if not name.endswith("models/model.json"):
            return content
        return content.replace(b"Symbol('s", text.encode() + b" + Symbol('s")

    return apply


def an_input_name(program: Any) -> None:
    program["graph_module"]["graph"]["inputs"][-1]["as_tensor"]["name"] = "x=print('run')"


def a_weight_name(program: Any) -> None:
    spec = program["graph_module"]["signature"]["input_specs"][0]
    spec["parameter"]["parameter_name"] = 'x", print("run"), "'


def a_guard(program: Any) -> None:
    program["guards_code"] = ["__import__('sys').exit('run')"]


def an_enum(program: Any) -> None:
    program["graph_module"]["module_call_graph"][0]["signature"]["in_spec"] = '{"__enum__": true, "fqn": "this:x"}'


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (in_payload("use_pickle", True), "'conv.weight' is a pickle, and is not read: it could run any code; save"),
        (in_payload("path_name", "custom_obj_0"), "'conv.weight' is a pickle"),
        (an_operator("torch.os.system"), "'torch.os.system' is not an operator of ATen"),
        (an_operator("_operator.methodcaller"), "'_operator.methodcaller' is not an operator of ATen"),
        (an_operator("torch.ops.aten.__class__.__base__"), "is not an operator of ATen"),
        (an_operator("torch.ops.load_library"), "is not an operator of ATen"),
        (an_operator("torch.ops.aten.from_file.default"), "is not an operator of ATen"),
        (an_operator("torch.ops.higher_order.triton_kernel_wrapper_mutation"), "is not an operator of ATen"),
        (an_operator("#custom:op"), "is not an operator of ATen"),
        (a_size("__import__('os').getpid()"), "is not the arithmetic of a size"),
        (in_program(an_input_name), "is not a name"),
        (in_program(a_weight_name), "is not the name of a weight"),
        (in_program(an_enum), "is arguments that are no plain tensors"),
    ],
)
def test_what_could_run_code_is_refused(archive: Path, change: Callable[[str, bytes], bytes], message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_sources(str(rewritten(archive, change)))


def test_what_is_not_needed_is_not_read(archive: Path) -> None:
    """Sample inputs that are no pickle at all, and a guard that would end the process."""

    def change(name: str, content: bytes) -> bytes:
        return b"cos\nsystem\n" if "sample_inputs" in name else in_program(a_guard)(name, content)

    (source,) = load_sources(str(rewritten(archive, change)))
    assert source.module(torch.randn(2, 3, 8, 8), torch.tensor([0, 1])).shape == (2, 3, 8, 8)


def test_archives_that_are_none_or_cut_short(archive: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no file .*none.pt2"):
        load_sources(str(tmp_path / "none.pt2"))
    (tmp_path / "cut.pt2").write_bytes(archive.read_bytes()[:3000])
    with pytest.raises(DataError, match=r"cut.pt2: not an archive of torch.export.save, or cut short"):
        load_sources(str(tmp_path / "cut.pt2"))

    def refuse(change: Callable[[str, bytes], bytes | None], message: str, **add: bytes) -> None:
        extra = {name.replace("__", "/"): content for name, content in add.items()}
        with pytest.raises(DataError, match=message):
            load_sources(str(rewritten(archive, change, extra)))

    refuse(lambda name, x: None if name.endswith("archive_format") else x, "not an archive of this torch's")
    refuse(lambda name, x: None if name.endswith("model.json") else x, "or cut short .*models/model.json")
    refuse(lambda name, x: None if name.endswith("weight_0") else x, "torch 2.* cannot read this program")
    refuse(lambda name, x: b"{" if name.endswith("weights_config.json") else x, "or cut short")
    refuse(lambda name, x: b"[]" if name.endswith("weights_config.json") else x, "or cut short")
    refuse(lambda _, x: x, "holds compiled machine code .*data/aotinductor/model/a", data__aotinductor__model__a=b"")
    refuse(lambda _, x: x, "data/weights/model.pt' is a pickle, as older versions", **{"data__weights__model.pt": b""})
