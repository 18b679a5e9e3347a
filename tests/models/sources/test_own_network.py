"""A user's own network: a factory from a module or a file, with its signature in TOML."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from edgegen.errors import DataError, UsageError
from edgegen.models.sources.load import load_sources
from edgegen.models.sources.source import Source
from edgegen.program.capture import capture
from edgegen.program.inputs import example_inputs

NET = """
import helper
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.table = nn.Embedding(4, 3)
        nn.init.zeros_(self.conv.weight)

    def forward(self, x, y, t):
        return helper.double(self.conv(x)) + (self.table(y) * t[:, None])[:, :, None, None]

def make():
    return Net()

def wrong(size):
    return Net()

def broken():
    raise ValueError("first line\\nno such file")

def other():
    return 3

class Pair(nn.Module):
    def forward(self, x):
        return x, x

class Half(nn.Module):
    def forward(self, x):
        return x.half()

number = 3
"""
SIGNATURE = """
time = 0.5
time_argument = "t"
[[inputs]]
name = "sample"
shape = ["batch_size", 3, 8, 8]
role = "noise"
[[inputs]]
name = "class_labels"
shape = ["batch_size"]
dtype = "int64"
role = "class"
high = 3
[[outputs]]
shape = ["batch_size", 3, 8, 8]
role = "image"
low = -1
high = 1
"""
PLAIN = """
[[inputs]]
name = "sample"
shape = ["batch_size", 3]
role = "noise"
[[outputs]]
name = "path"
shape = ["batch_size", 3]
role = "signal"
"""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A folder with net.py, a module beside it, and signature.toml."""
    (tmp_path / "net.py").write_text(NET)
    (tmp_path / "helper.py").write_text("def double(x):\n    return x + x\n")
    (tmp_path / "signature.toml").write_text(SIGNATURE)
    (tmp_path / "plain.toml").write_text(PLAIN)
    return tmp_path


def test_a_file_and_its_factory(own: Path) -> None:
    signature = own / "signature.toml"
    (source,) = load_sources(f"{own}/net.py:make", signature=signature)
    assert source.name == "make"
    assert source.about["family"] == "Net"
    assert source.about["time"] == 0.5
    assert [spec.name for spec in source.signature.inputs] == ["sample", "class_labels"]
    assert source.signature.num_classes == 4
    assert source.signature.outputs[0].name == "out_sample"
    x, y = torch.randn(3, 3, 8, 8), torch.tensor([0, 1, 3])
    net = source.module.net
    expected = 2 * net.conv(x) + (net.table(y) * 0.5)[:, :, None, None]
    torch.testing.assert_close(source.module(x, y), expected)
    torch.testing.assert_close(source.module(class_labels=y, sample=x), expected)
    shapes = ({0: torch.export.Dim.DYNAMIC}, {0: torch.export.Dim.DYNAMIC})
    program = torch.export.export(source.module, (x, y), dynamic_shapes=shapes)
    assert program.graph_signature.user_inputs == ("sample", "class_labels")


def test_names_that_are_words_of_python(own: Path) -> None:
    names = {"sample": "self", "class_labels": "class"}
    for name, word in names.items():
        (own / "signature.toml").write_text((own / "signature.toml").read_text().replace(f'"{name}"', f'"{word}"'))
    (source,) = load_sources(f"{own}/net.py:make", signature=own / "signature.toml")
    assert [spec.name for spec in source.signature.inputs] == ["self", "class"]
    x, y = torch.randn(3, 3, 8, 8), torch.tensor([0, 1, 3])
    net = source.module.net
    expected = 2 * net.conv(x) + (net.table(y) * 0.5)[:, :, None, None]
    torch.testing.assert_close(source.module(x, y), expected)
    torch.testing.assert_close(source.module(**{"class": y, "self_": x}), expected)
    program = capture(source.module, source.signature, batch=None)
    torch.testing.assert_close(program.module()(x, y), expected)


def test_a_module_in_the_current_folder(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(own)
    (own / "own_package").mkdir()
    (own / "own_package" / "__init__.py").write_text("")
    (own / "own_package" / "nets.py").write_text(NET)
    (source,) = load_sources("own_package.nets:make", signature=Path("signature.toml"))
    assert source.about["from"] == "factory"
    with pytest.raises(
        DataError, match=r"no_package cannot be imported: ModuleNotFoundError: No module named 'no_package'"
    ):
        load_sources("no_package:make", signature=Path("signature.toml"))


def test_weights_and_random_weights(own: Path) -> None:
    source = f"{own}/net.py:make"
    tensors = {
        "conv.weight": torch.randn(3, 3, 3, 3),
        "conv.bias": torch.randn(3),
        "table.weight": torch.randn(4, 3),
    }
    save_file(tensors, own / "net.safetensors")
    signature = own / "signature.toml"
    (given,) = load_sources(source, signature=signature)
    assert "weights are those that the factory gave" in given.about["notes"][0]
    signature.write_text('weights = "net.safetensors"\n' + SIGNATURE)
    (filled,) = load_sources(source, signature=signature)
    assert torch.equal(filled.module.net.conv.weight, tensors["conv.weight"])
    first, again = (load_sources(source, signature=signature, random_weights=7)[0] for _ in range(2))
    assert first.module.net.conv.weight.any()
    assert torch.equal(first.module.net.conv.weight, again.module.net.conv.weight)
    assert torch.equal(first.module.net.table.weight, again.module.net.table.weight)
    assert not torch.equal(first.module.net.table.weight, tensors["table.weight"])
    save_file({"conv.weight": torch.zeros(2)}, own / "net.safetensors")
    with pytest.raises(DataError, match=r"do not fit the network: 2 of its 3 tensors are missing, such as"):
        load_sources(source, signature=signature)
    (own / "net.safetensors").unlink()
    with pytest.raises(DataError, match=r"no file .*net.safetensors"):
        load_sources(source, signature=signature)
    signature.write_text('weights = "net.pt"\n' + SIGNATURE)
    with pytest.raises(
        DataError, match=r"net.pt: weights are read from .safetensors only: .* safetensors.torch.save_file"
    ):
        load_sources(source, signature=signature)


def test_factories_that_make_no_network(own: Path) -> None:
    def refuse(name: str, message: str, *, signature: str = "signature.toml") -> None:
        with pytest.raises(DataError, match=message):
            load_sources(f"{own}/net.py:{name}", signature=own / signature)

    refuse("mak", "no factory 'mak'; there are: .*Did you mean 'make'")
    refuse("number", "number is a int; needed is a function that makes the network")
    refuse("wrong", "the factory needs size; it is called without arguments")
    refuse("broken", "the factory failed: ValueError: first line no such file")
    refuse("other", "the factory gives a int; needed is a torch.nn.Module")
    refuse("Pair", "the network gives a tuple of 2 for sample .2, 3. float32; it must give one", signature="plain.toml")
    refuse("Half", "the network gives torch.float16; its signature says float32", signature="plain.toml")
    refuse("make", "the network refuses the inputs of its signature .sample .2, 3. float32", signature="plain.toml")
    (own / "signature.toml").write_text(SIGNATURE.replace('8, 8]\nrole = "image"', '8, 9]\nrole = "image"'))
    refuse("make", r"the network gives \(2, 3, 8, 8\) for .*; its signature says out_sample \(2, 3, 8, 9\)")
    with pytest.raises(UsageError, match=r"a network of your own needs --signature FILE, a TOML file"):
        load_sources(f"{own}/net.py:make")
    with pytest.raises(DataError, match=r"no file .*nothing.py"):
        load_sources(f"{own}/nothing.py:make", signature=own / "signature.toml")
    (own / "bad.py").write_text("import sys\nsys.exit('bye')\n")
    with pytest.raises(DataError, match=r"bad.py cannot be imported: SystemExit: bye"):
        load_sources(f"{own}/bad.py:make", signature=own / "signature.toml")


IN_TRAINING = """
import torch
from torch import nn
from torch.nn import functional as F

class Net(nn.Module):
    def __init__(self, norm):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm = nn.Conv2d(3, 3, 3, padding=1), norm

    def forward(self, x):
        return torch.tanh(self.norm(self.conv(x)))

class Stubborn(nn.BatchNorm2d):
    def train(self, mode=True):
        return super().train(True)

class Function(nn.Module):
    def __init__(self, run):
        super().__init__()
        self.run = run

    def forward(self, x):
        return self.run(x)

def stubborn(): return Net(Stubborn(3))
def untracked(): return Net(nn.BatchNorm2d(3, track_running_stats=False))
def function(): return Net(Function(lambda x: F.batch_norm(x, None, None, training=True)))
def mean(): return Net(Function(lambda x: x - x.mean(0, keepdim=True)))
def dropout(): return Net(Function(lambda x: F.dropout(x, 0.5, training=True)))

def train_mode(): return Net(nn.Sequential(nn.BatchNorm2d(3), nn.Dropout(0.5))).train()
def instance(): return Net(nn.InstanceNorm2d(3, affine=True))
def tracked(): return Net(nn.InstanceNorm2d(3, affine=True, track_running_stats=True))
def attention(): return Net(Function(lambda x: x.flatten(2).softmax(-1).view_as(x)))
"""
PICTURE = """
[[inputs]]
name = "x"
shape = ["batch_size", 3, 8, 8]
role = "noise"
[[outputs]]
shape = ["batch_size", 3, 8, 8]
role = "image"
"""


def test_a_network_in_training_mode_is_told_so_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(IN_TRAINING)
    (tmp_path / "net.toml").write_text(PICTURE)
    (tmp_path / "one.toml").write_text(PICTURE.replace('"batch_size"', "1"))

    def load(name: str, signature: str = "net.toml") -> Source:
        return load_sources(f"{tmp_path}/net.py:{name}", signature=tmp_path / signature)[0]

    for name, reason in (
        ("stubborn", r"net.norm \(Stubborn\) stays in training mode after eval\(\)"),
        ("untracked", r"net.norm \(BatchNorm2d\) has no running statistics"),
        ("function", "a norm with training=True, or a mean over the batch"),
        ("mean", "a norm with training=True, or a mean over the batch"),
    ):
        with pytest.raises(DataError, match=rf"depends on the others in the batch \({reason}\).*InstanceNorm2d") as e:
            load(name)
        assert "\n" not in str(e.value)
    with pytest.raises(DataError, match=r"depends on the others in the batch \(net.norm"):
        load("untracked", "one.toml")
    (tmp_path / "film.toml").write_text(PICTURE.replace('"batch_size"', "4"))
    assert load("mean", "film.toml").signature.inputs[0].shape[0] == 4
    with pytest.raises(DataError, match=r"gives something else at every run: .*dropout, call eval"):
        load("dropout")
    x = torch.randn(2, 3, 8, 8)
    for name in ("train_mode", "instance", "tracked", "attention"):
        module = load(name).module
        torch.testing.assert_close(module(x)[:1], module(x[:1]))
    norm = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3, track_running_stats=False))
    program = torch.export.export(norm, (x,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
    torch.export.save(program, tmp_path / "batch.pt2")
    with pytest.raises(DataError, match=r"batch.pt2: what the network makes of one sample depends on the others"):
        load_sources(str(tmp_path / "batch.pt2"))


def test_the_norm_that_is_advised_computes_the_same_for_one_image() -> None:
    batch, instance = nn.BatchNorm2d(3), nn.InstanceNorm2d(3, affine=True)
    nn.init.normal_(batch.weight)
    nn.init.normal_(batch.bias)
    instance.load_state_dict(dict(batch.named_parameters()))
    x = torch.randn(1, 3, 8, 8)
    torch.testing.assert_close(batch.train()(x), instance.eval()(x))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("time = 0.5\n", ""), "the signature: time and time_argument belong together"),
        (('role = "noise"', 'role = "noises"'), r"inputs\[1\]\.role: Input should be 'noise', 'class'.*found 'noises'"),
        (('role = "noise"', 'rol = "noise"'), r"inputs\[1\]\.rol: no key 'rol'; there are: .*Did you mean 'role'"),
        (('name = "sample"\n', 'name = "the sample"\n'), r"inputs\[1\]\.name: String should match pattern"),
        (('name = "sample"\n', 'name = "class_labels"\n'), "two inputs have the same name: class_labels, class_labels"),
        (("[[outputs]]\n", '[[outputs]]\nname = "sample"\n'), "an input and the output have the same name, sample; .*"),
        (("high = 3\n", ""), r"inputs\[2\]: a class needs high, the number of the last class"),
        (('["batch_size"]\ndtype', '["batch_size", 2]\ndtype'), r'a class has shape = \["batch_size"\]'),
        (
            ('["batch_size", 3, 8, 8]\nrole = "noise"', '[3, "batch_size"]\nrole = "noise"'),
            "can only be the first axis",
        ),
        (
            ('["batch_size", 3, 8, 8]\nrole = "noise"', '[1, 3, 8, 8]\nrole = "noise"'),
            "the first axes differ: 1, batch_size",
        ),
        (
            ('["batch_size", 3, 8, 8]\nrole = "noise"', '["b", 3]\nrole = "noise"'),
            r"inputs\[1\]\.shape\[1\].*found 'b'",
        ),
        (("low = -1", "low = 2"), r"outputs\[1\]: low = 2 is not below high = 1"),
        (('role = "class"\nhigh = 3', 'role = "features"\nhigh = 3'), "class_labels: whole numbers need low and high"),
        (("[[outputs]]", "[[output]]"), "output: no key 'output'; there are: .*Did you mean 'outputs'"),
        (("[[outputs]]", "[[inputs]]"), "outputs: missing; this key must be given"),
        (("time = 0.5", "time = "), "not TOML"),
        (('dtype = "int64"\nrole = "class"\nhigh = 3', 'role = "features"'), "the network refuses the inputs"),
    ],
)
def test_a_signature_that_cannot_be_read_names_the_key(own: Path, change: tuple[str, str], message: str) -> None:
    assert change[0] in SIGNATURE
    (own / "signature.toml").write_text(SIGNATURE.replace(*change))
    with pytest.raises(DataError, match=message) as caught:
        load_sources(f"{own}/net.py:make", signature=own / "signature.toml")
    assert "signature.toml" in str(caught.value) or "net.py" in str(caught.value)


def test_other_mistakes_in_a_signature(own: Path) -> None:
    two = SIGNATURE.replace("[[outputs]]", '[[inputs]]\nname = "b"\nshape = ["batch_size"]\ndtype = "int64"\n'
                            'role = "class"\nhigh = 2\n[[outputs]]')  # fmt: skip
    (own / "signature.toml").write_text(two)
    with pytest.raises(DataError, match="two inputs are classes; one can be"):
        load_sources(f"{own}/net.py:make", signature=own / "signature.toml")
    with pytest.raises(DataError, match=r"no file .*none.toml"):
        load_sources(f"{own}/net.py:make", signature=own / "none.toml")


def test_a_fixed_batch_is_kept(own: Path) -> None:
    (own / "signature.toml").write_text(SIGNATURE.replace('"batch_size"', "1"))
    (source,) = load_sources(f"{own}/net.py:make", signature=own / "signature.toml")
    assert source.signature.inputs[0].shape == (1, 3, 8, 8)
    arrays = example_inputs(source.signature, 1, 0)
    assert source.module(*map(torch.from_numpy, arrays.values())).shape == (1, 3, 8, 8)
