"""The plug-in of `optimum-cli` and the exporter config in optimum's registry, with the real optimum."""

import json
import subprocess
import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from families import TINY, UNET2D
from helpers import environment

PLUGIN = "optimum.commands.register.register_edgegen"


def optimum_cli(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """`optimum-cli` of this Python, whatever stands first on the PATH."""
    command = [sys.executable, "-m", "optimum.commands.optimum_cli", *(str(one) for one in arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, env=environment(), check=False)


@pytest.fixture(scope="module")
def config() -> Any:
    """edgegen.integrations.optimum: many seconds of imports."""
    from edgegen.support.vendor_logs import DIFFUSERS, quiet

    with quiet(DIFFUSERS):
        import edgegen.integrations.optimum
    return edgegen.integrations.optimum


def test_help_is_shown_below_export_and_loads_nothing_heavy(tmp_path: Path) -> None:
    done = optimum_cli("export", "edgegen", "--help", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "--random-weights SEED" in done.stdout
    probe = (
        f"import sys, {PLUGIN}; print([m for m in ('torch', 'typer', 'edgegen', 'transformers') if m in sys.modules])"
    )
    loaded = subprocess.run([sys.executable, "-c", probe], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "[]"


def test_the_options_are_those_of_edgegen_export() -> None:
    import typer
    from optimum.commands.register.register_edgegen import OPTIONS, EdgegenExport

    from edgegen.cli.main import app

    group = typer.main.get_command(app)
    ours = {
        tuple(sorted((*option.opts, *option.secondary_opts)))
        for option in group.commands["export"].params
        if option.param_type_name == "option" and option.name != "help"
    }
    parser = ArgumentParser()
    EdgegenExport.parse_args(parser)
    shown = {tuple(sorted(action.option_strings)) for action in parser._actions if action.option_strings}
    assert shown - {("--help", "-h")} == ours
    assert len(OPTIONS) == len(ours)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["net"], ["--", "net"]),
        (["net", "--to", "onnx", "-o", "out dir"], ["--to=onnx", "--output=out dir", "--", "net"]),
        (["net", "--no-measure", "--etrecord"], ["--etrecord", "--no-measure", "--", "net"]),
        (["net", "--inputs", "a.npz", "--inputs", "b=c"], ["--inputs=a.npz", "--inputs=b=c", "--", "net"]),
        (["--random-weights", "0", "--json", "net"], ["--random-weights=0", "--json", "--", "net"]),
    ],
)
def test_words_for_edgegen(given: list[str], words: list[str]) -> None:
    from optimum.commands.register.register_edgegen import EdgegenExport, arguments_of

    parser = ArgumentParser()
    EdgegenExport.parse_args(parser)
    assert arguments_of(parser.parse_args(given)) == words


@pytest.mark.slow
def test_a_unet_is_exported_to_onnx(tmp_path: Path) -> None:
    TINY["unet2d"](tmp_path / "net")
    arguments = ["net", "--to", "onnx", "-o", "out", "--random-weights", "3", "--no-measure", "--json"]
    done = optimum_cli("export", "edgegen", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (one,) = json.loads(done.stdout)["exported"]
    (row,) = one["artifacts"]
    assert (tmp_path / "out" / row["file"]).stat().st_size == row["nbytes"]
    assert row["parity"]["status"] == "ok"
    assert row["parity"]["psnr_db"] > 60


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nowhere", "--to", "onnx"], 2, "nowhere"),
        (["net", "--to", "onxn"], 2, "Did you mean 'onnx'"),
        (["net", "--to", "onnx", "--recipe", "none.toml"], 2, "no file none.toml"),
    ],
)
def test_errors_are_edgegens_message_and_exit_code(
    arguments: list[str], code: int, message: str, tmp_path: Path
) -> None:
    done = optimum_cli("export", "edgegen", *arguments, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert message in done.stderr
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""


def registered(config: Any, settings: dict[str, Any]) -> Any:
    """The config that optimum's registry gives for a network with these settings."""
    from diffusers.configuration_utils import FrozenDict
    from optimum.exporters.tasks import TasksManager

    config.register()
    config.register()
    make = TasksManager.get_exporter_config_constructor(
        "edgegen", model_type="unet-2d", task=config.TASK, library_name="diffusers"
    )
    return make(FrozenDict({"in_channels": 3, **settings}))


def test_the_registry_knows_unet_2d(config: Any) -> None:
    found = registered(config, UNET2D)
    assert type(found) is config.UNet2DExporterConfig
    assert found._normalized_config.image_size == 8
    assert found._normalized_config.num_channels == 3
    assert list(found.inputs) == ["sample", "timestep"]
    assert found.outputs == {"out_sample": {0: "batch_size", 2: "height", 3: "width"}}


@pytest.mark.parametrize("framework", ["pt", "np"])
def test_dummy_inputs_have_the_shapes_of_the_network(config: Any, framework: str) -> None:
    found = registered(config, {**UNET2D, "in_channels": 6, "sample_size": (8, 16), "num_class_embeds": 3})
    inputs = found.generate_dummy_inputs(framework=framework, batch_size=4)
    assert {name: tuple(array.shape) for name, array in inputs.items()} == {
        "sample": (4, 6, 8, 16),
        "timestep": (),
        "class_labels": (4,),
    }
    assert 0 <= int(inputs["timestep"]) < 1000
    assert set(np.asarray(inputs["class_labels"]).tolist()) <= {0, 1, 2}


def test_a_network_of_diffusers_takes_the_dummy_inputs(config: Any) -> None:
    from families import diffusers_net

    net = diffusers_net("UNet2DModel", {**UNET2D, "num_class_embeds": 3})
    inputs = registered(config, dict(net.config)).generate_dummy_inputs(batch_size=2)
    assert net(**inputs).sample.shape == (2, 3, 8, 8)


def test_without_optimum_the_message_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    from edgegen.errors import MissingExtraError

    monkeypatch.delitem(sys.modules, "edgegen.integrations.optimum", raising=False)
    monkeypatch.setitem(sys.modules, "optimum.exporters.base", None)
    with pytest.raises(MissingExtraError, match=r"unet-2d needs 'optimum'.*pip install 'edgegen\[optimum\]'"):
        import edgegen.integrations.optimum  # noqa: F401
