"""load_weights: shared tensors, names with prefixes, averages beside the net; against the network that was saved."""

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file, save_model
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm
from torch.optim.swa_utils import AveragedModel

from edgegen.errors import DataError
from edgegen.models.weights import load_weights


class Net(nn.Module):
    """A convolution that is used twice under two names, and a norm with buffers."""

    def __init__(self, *, shared: bool = True) -> None:
        super().__init__()
        self.first, self.norm, self.head = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), nn.Conv2d(3, 1, 1)
        self.again = self.first if shared else nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.norm(self.again(self.first(x))))
        return out


def trained(seed: int = 0) -> Net:
    """A network with weights and buffers of its own."""
    torch.manual_seed(seed)
    net = Net()
    net(torch.randn(4, 3, 8, 8))
    return net.eval()


def tensors_of(net: nn.Module, prefix: str = "") -> dict[str, Tensor]:
    return {prefix + name: tensor.clone() for name, tensor in net.state_dict().items()}


def same(net: nn.Module, expected: nn.Module) -> None:
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(net.eval()(x), expected.eval()(x))


def test_shared_tensors_are_found_by_the_files_notes_and_by_the_network(tmp_path: Path) -> None:
    net = trained()
    save_model(net, str(tmp_path / "net.safetensors"))
    for target in (Net(), Net(shared=False)):
        assert load_weights(target, [tmp_path / "net.safetensors"]) == []
        same(target, net)
    tensors = {name: tensor for name, tensor in tensors_of(net).items() if not name.startswith("again")}
    save_file(tensors, tmp_path / "bare.safetensors")  # without notes
    target = Net()
    assert load_weights(target, [tmp_path / "bare.safetensors"]) == []
    same(target, net)
    with pytest.raises(DataError, match=r"do not fit the network: 2 of its 11 tensors are missing, such as again\."):
        load_weights(Net(shared=False), [tmp_path / "bare.safetensors"])


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "model.", "module._orig_mod.", "_orig_mod.module.model."])
@pytest.mark.parametrize("whole", [True, False])
def test_a_prefix_is_taken_off_and_told(prefix: str, whole: bool, tmp_path: Path) -> None:
    net, path = trained(), tmp_path / "net.safetensors"
    if whole:
        save_file(tensors_of(net, prefix), path)
    else:  # shared tensors once, the other name in the metadata
        wrapped: nn.Module = net
        for part in reversed(prefix.removesuffix(".").split(".")):
            wrapped = nn.ModuleDict({part: wrapped})
        save_model(wrapped, str(path))
    target = Net()
    notes = load_weights(target, [path])
    same(target, net)
    parts = ["_orig_mod."] * ("_orig_mod." in prefix) + [prefix.replace("_orig_mod.", "")]
    assert notes == [f"weights: '{part}' is taken off the names in the file" for part in parts if part]


def test_the_network_itself_may_be_compiled_or_have_such_a_name(tmp_path: Path) -> None:
    net, path = trained(), tmp_path / "net.safetensors"
    save_file(tensors_of(net), path)
    compiled = nn.ModuleDict({"_orig_mod": Net()})  # the names of torch.compile(net)
    assert load_weights(compiled, [path]) == []
    same(compiled["_orig_mod"], net)
    inner = nn.ModuleDict({"model": Net()})
    save_file(tensors_of(net, "module.model."), path)
    assert load_weights(inner, [path]) == ["weights: 'module.' is taken off the names in the file"]
    same(inner["model"], net)


def ema_pytorch(net: nn.Module, average: nn.Module) -> dict[str, Tensor]:
    counters = {"initted": torch.tensor(True), "step": torch.tensor(3)}
    return {**tensors_of(net, "online_model."), **tensors_of(average, "ema_model."), **counters}


def of_the_parameters_alone(net: nn.Module, average: nn.Module) -> dict[str, Tensor]:
    names = {name for name, _ in average.named_parameters()}
    averages = {f"ema.{name}": value for name, value in tensors_of(average).items() if name in names}
    return {**tensors_of(net), **averages, "ema.decay": torch.tensor(0.999)}


@pytest.mark.parametrize("trainer", [ema_pytorch, of_the_parameters_alone])
def test_the_average_is_taken_and_told(trainer: Callable[..., dict[str, Tensor]], tmp_path: Path) -> None:
    net, average = trained(), trained(1)
    save_file(trainer(net, average), tmp_path / "net.safetensors")
    target = Net()
    notes = load_weights(target, [tmp_path / "net.safetensors"])
    expected = copy.deepcopy(average)
    if trainer is of_the_parameters_alone:
        for name, buffer in expected.named_buffers():
            buffer.copy_(net.get_buffer(name))
    same(target, expected)
    assert "of 2 copies in the file the average is taken, ema" in notes[0]
    assert ("3 buffers of the other" in notes[0]) == (trainer is of_the_parameters_alone)
    assert notes[1].endswith("is not used")


def test_torchs_averaged_model(tmp_path: Path) -> None:
    net = trained()
    averaged = AveragedModel(net)
    save_model(averaged, str(tmp_path / "net.safetensors"))
    target = Net()
    notes = load_weights(target, [tmp_path / "net.safetensors"])
    same(target, net)
    assert notes == [
        "weights: 'module.' is taken off the names in the file",
        "weights: n_averaged of the file is not used",
    ]


def test_older_names_that_the_network_itself_knows(tmp_path: Path) -> None:
    net = weight_norm(nn.Conv2d(3, 3, 1))
    older = {"weight_g": torch.rand(3, 1, 1, 1), "weight_v": torch.randn(3, 3, 1, 1), "bias": torch.randn(3)}
    save_file(older, tmp_path / "net.safetensors")
    assert load_weights(net, [tmp_path / "net.safetensors"]) == []
    expected = torch._weight_norm(older["weight_v"], older["weight_g"], 0)
    torch.testing.assert_close(net.weight, expected)


def test_what_does_not_fit_is_told(tmp_path: Path) -> None:
    net, path = trained(), tmp_path / "net.safetensors"
    own = tensors_of(net)

    def refuse(tensors: dict[str, Tensor], message: str) -> None:
        save_file(tensors, path)
        with pytest.raises(DataError, match=message) as e:
            load_weights(Net(), [path])
        assert str(path) in str(e.value)

    critic = {f"critic.{name}": value.clone() for name, value in own.items()}
    refuse({**own, **critic}, r"holds this network 2 times: \*, critic\.\*\. Save the one that is meant alone")
    critic = {"critic.first.weight": torch.zeros(1)}
    refuse({**own, **critic}, "do not fit the network: 1 tensors of the file are not the network's, such as critic.fir")
    prefixed = {f"generator.{name}": value for name, value in own.items()}
    refuse({**prefixed, **critic}, r"\(its names after 'generator.'\): 1 tensors of the file are not the network's")
    refuse({k: v for k, v in own.items() if k != "head.bias"}, "1 of its 11 tensors are missing, such as head.bias")
    refuse({k: v for k, v in own.items() if "mean" not in k}, "1 of its 11 tensors are missing, such as norm.running_m")
    refuse({"a": torch.zeros(1)}, r"11 of its 11 tensors are missing, such as .*; 1 tensors of the file are not .* a$")
    refuse({**own, "head.bias": torch.zeros(2)}, r"head.bias is \[2\] in the file and \[1\] in the network")
    refuse({**own, "head.bias": torch.zeros(1, dtype=torch.int8)}, "head.bias is torch.int8, .*quantized already?")
    shadow = {f"shadow_params.{index}": p.data.clone() for index, p in enumerate(net.parameters())}
    refuse({**own, **shadow}, r"\d tensors of the file are not the network's, such as shadow_params.0")


def test_half_precision_in_several_files(tmp_path: Path) -> None:
    net = trained()
    halves = {name: value.half() if value.is_floating_point() else value for name, value in tensors_of(net).items()}
    names = sorted(halves)
    paths = [tmp_path / "1.safetensors", tmp_path / "2.safetensors"]
    save_file({name: halves[name] for name in names[:4]}, paths[0])
    save_file({name: halves[name] for name in names[4:]}, paths[1])
    target = Net()
    assert load_weights(target, paths) == []
    assert target.head.weight.dtype == torch.float32
    torch.testing.assert_close(target.head.weight, net.head.weight, rtol=1e-3, atol=1e-3)
