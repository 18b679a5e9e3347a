"""The exporter config of `unet-2d` (diffusers' UNet2DModel) that optimum's registry lacks.

    from edgegen.integrations.optimum import register
    register()
    TasksManager.get_exporter_config_constructor(
        "edgegen", model_type="unet-2d", task=TASK, library_name="diffusers"
    )(config)

Importing this module imports optimum's exporters and with them transformers: many seconds. Nothing else here needs it.
"""

from typing import Any

from edgegen.errors import MissingExtraError

try:
    from optimum.exporters.base import ExporterConfig
    from optimum.exporters.tasks import TasksManager
    from optimum.utils import NormalizedConfig
    from optimum.utils.input_generators import DummyInputGenerator, DummyVisionInputGenerator
except ImportError as e:
    raise MissingExtraError("optimum", extra="optimum", purpose="the exporter config of unet-2d") from e

BACKEND = "edgegen"
MODEL_TYPE = "unet-2d"
TASK = "semantic-segmentation"  # optimum has no task of its own for denoisers and files unet-2d-condition here too
TRAIN_TIMESTEPS = 1000  # of diffusers' schedulers where the config of the network does not say


class TimeAndClassInputs(DummyInputGenerator):  # type: ignore[misc]  # optimum ships no types
    """Random `timestep` () and `class_labels` (batch,). Optimum's own generator of the time needs a vocabulary."""

    SUPPORTED_INPUT_NAMES = ("timestep", "class_labels")

    def __init__(self, task: str, normalized_config: Any, batch_size: int = 2, **_: Any) -> None:
        self.task = task
        self.batch_size = batch_size
        self.timesteps = getattr(normalized_config, "num_train_timesteps", TRAIN_TIMESTEPS)
        self.classes = getattr(normalized_config, "num_class_embeds", None)

    def generate(
        self, input_name: str, framework: str = "pt", int_dtype: str = "int64", float_dtype: str = "fp32"
    ) -> Any:
        """A torch (`framework` "pt") or numpy ("np") array of integers below the number of times or classes."""
        is_time = input_name == "timestep"
        return self.random_int_tensor(
            shape=[] if is_time else [self.batch_size],
            max_value=self.timesteps if is_time else self.classes,
            framework=framework,
            dtype=int_dtype,
        )


class UNet2DExporterConfig(ExporterConfig):  # type: ignore[misc]  # optimum ships no types
    """Inputs and outputs of a UNet2DModel, by the names that edgegen's files have.

    `sample` (batch, channels, height, width), `timestep` () and, with `num_class_embeds`, `class_labels` (batch,)
    give `out_sample` of the shape of an image. In edgegen's files the time is folded, so that `timestep` is absent.
    """

    NORMALIZED_CONFIG_CLASS = NormalizedConfig.with_args(
        image_size="sample_size", num_channels="in_channels", allow_new=True
    )
    DUMMY_INPUT_GENERATOR_CLASSES = (DummyVisionInputGenerator, TimeAndClassInputs)

    @property
    def inputs(self) -> dict[str, dict[int, str]]:
        """Name -> the axes that may vary."""
        axes: dict[str, dict[int, str]] = {"sample": {0: "batch_size", 2: "height", 3: "width"}, "timestep": {}}
        if getattr(self._normalized_config, "num_class_embeds", None) is not None:
            axes["class_labels"] = {0: "batch_size"}
        return axes

    @property
    def outputs(self) -> dict[str, dict[int, str]]:
        """Name -> the axes that may vary."""
        return {"out_sample": {0: "batch_size", 2: "height", 3: "width"}}


def register() -> None:
    """Enter the config into optimum's registry as backend "edgegen"; a second call changes nothing.

    Raises ValueError (optimum's) should a later optimum no longer know TASK.
    """
    TasksManager.create_register(BACKEND)(MODEL_TYPE, TASK, library_name="diffusers")(UNet2DExporterConfig)
