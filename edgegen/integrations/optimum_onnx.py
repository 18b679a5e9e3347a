"""Makes the folder of an exported Stable Diffusion loadable by optimum-onnx's `ORTDiffusionPipeline`.

It needs model_index.json, a scheduler, a tokenizer, and for every network config.json and model.onnx.

    model.onnx   the program of our file without its weights: they are bytes of our file beside it (ONNX's external
                 data), so that nothing lies on the disk twice and an upload needs no links. The denoiser's has one
                 input more, `timestep`: the pipeline always gives it, and nothing reads it, as ours is folded.
    scheduler    our denoiser takes noise of deviation 1 and gives the clean latent x0. DDIM with prediction_type
                 "sample" (arXiv:2010.02502, eq. 12) goes to sqrt(a) x0 + sqrt(1 - a) e, and a = 1 after its last step.
                 It has one training time: to ask it for more steps is an error and not a wrong picture.
    decoder      our file undoes the scaling of the latents itself, so config.json says 1.
"""

import mmap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgegen.errors import DataError
from edgegen.models.diffusers.families import SCHEDULER
from edgegen.models.diffusers.pipelines import INDEX
from edgegen.models.diffusers.weights import CONFIG
from edgegen.support.bounded_files import read_bytes
from edgegen.support.extras import require
from edgegen.support.storage import atomic_path, read_json, write_bytes, write_json

MODEL = "model.onnx"  # the only name that optimum-onnx opens
# _class_name of the source -> _class_name in the folder. A consistency model's own pipeline asks for its own scheduler.
PIPELINES = {
    "StableDiffusionPipeline": "ORTStableDiffusionPipeline",
    "LatentConsistencyModelPipeline": "ORTStableDiffusionPipeline",
    "StableDiffusionXLPipeline": "ORTStableDiffusionXLPipeline",
}
CLASSES = "optimum.onnxruntime.modeling_diffusion"
# Our component -> its name in the pipeline (and its folder in the source), its class.
COMPONENTS = {
    "unet": ("unet", "ORTUnet"),
    "vae_decoder": ("vae", "ORTVae"),
    "text_encoder": ("text_encoder", "ORTTextEncoder"),
}
NEEDED = ("unet", "vae_decoder")  # without a text encoder the pipeline takes prompt_embeds
ABSENT = [None, None]
ONE_STEP = {
    "_class_name": "DDIMScheduler",
    "clip_sample": False,
    "num_train_timesteps": 1,
    "prediction_type": "sample",
    "set_alpha_to_one": True,
    "steps_offset": 1,  # diffusers warns of another; "trailing" does not use it
    "timestep_spacing": "trailing",
}
UNSCALED = {"scaling_factor": 1.0, "shift_factor": None, "latents_mean": None, "latents_std": None}
TOKENIZER = "tokenizer"
TOKENIZERS = ("CLIPTokenizer", "CLIPTokenizerFast")
TOKENIZER_CONFIG = "tokenizer_config.json"
VOCABULARY = ("vocab.json", "merges.txt", "special_tokens_map.json", "added_tokens.json", "tokenizer.json")
PLACES = ("_name_or_path", "name_or_path", "special_tokens_map_file", "tokenizer_file")  # on somebody's disk
SMALL = 1024  # bytes of a weight that is copied: to name its place takes a tenth of that


def write_ort_pipeline(source: Path, output: Path, files: Mapping[str, str]) -> bool:
    """Make `output`, where components lie as `output/<component>/<files[component]>`, a folder that can be loaded.

    `source` is the pipeline folder they come from. False, and nothing written, where optimum-onnx has no pipeline for
    it, or `files` lacks the denoiser or the decoder. Raises DataError for files of the source that cannot be read,
    StorageError where the disk refuses.
    """
    index = read_json(source / INDEX)
    kind = PIPELINES.get(index.get("_class_name"))
    if kind is None or not all(component in files for component in NEEDED):
        return False
    new_index: dict[str, Any] = {"_class_name": kind, "feature_extractor": ABSENT, "safety_checker": ABSENT}
    for component, (name, network) in COMPONENTS.items():
        new_index[name] = [CLASSES, network] if component in files else ABSENT
        if component in files:
            config = _settings(source / name / CONFIG)
            write_json(output / component / CONFIG, config | (UNSCALED if component == "vae_decoder" else {}))
            _write_model(output / component / files[component], timestep=component == "unet")
    write_json(output / "scheduler" / SCHEDULER, ONE_STEP)
    new_index["scheduler"] = ["diffusers", ONE_STEP["_class_name"]]
    has_tokenizer = "text_encoder" in files and _copy_tokenizer(source, output, index)
    new_index[TOKENIZER] = index[TOKENIZER] if has_tokenizer else ABSENT
    write_json(output / INDEX, dict(sorted(new_index.items())))  # last: a folder that has it is complete
    return True


def _settings(path: Path) -> dict[str, Any]:
    """The settings in `path` without the paths of the machine that wrote them."""
    settings = read_json(path)
    if not isinstance(settings, dict):
        raise DataError(f"{path}: holds {type(settings).__name__}, not settings")
    return {key: value for key, value in settings.items() if key not in PLACES}


def _copy_tokenizer(source: Path, output: Path, index: Mapping[str, Any]) -> bool:
    """Copies its files by name: other files of a tokenizer's folder may be programs."""
    folder = source / TOKENIZER
    is_known = index.get(TOKENIZER) in [["transformers", kind] for kind in TOKENIZERS]
    if not is_known or not (folder / TOKENIZER_CONFIG).is_file():
        return False
    write_json(output / TOKENIZER / TOKENIZER_CONFIG, _settings(folder / TOKENIZER_CONFIG))
    for name in VOCABULARY:
        if (folder / name).is_file():
            write_bytes(output / TOKENIZER / name, read_bytes(folder / name))
    return True


def _write_model(file: Path, *, timestep: bool) -> None:
    """model.onnx beside `file`: its program, with weights that are bytes of `file`; with one more input if `timestep`.

    Weights that lie in a third file already stay there.
    """
    require("onnx", purpose="writing an ONNX file")
    import onnx

    model = onnx.load(file, load_external_data=False)
    with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        _refer(model, content, file.name)
    if timestep:
        model.graph.input.append(onnx.helper.make_tensor_value_info("timestep", onnx.TensorProto.INT64, []))
    with atomic_path(file.with_name(MODEL)) as path:
        path.write_bytes(model.SerializeToString(deterministic=True))


def _refer(model: Any, content: mmap.mmap, location: str) -> None:
    """Replaces the bytes of each large weight by their offset in `content`, the file `location`.

    ONNX recommends offsets that are multiples of a page; these are not. onnxruntime then reads unaligned numbers,
    which x86-64 and arm64 allow, and optimum-onnx, which needs torch, runs on no others.
    """
    import onnx

    end = 0
    for tensor in model.graph.initializer:
        length = len(tensor.raw_data)
        offset = content.find(tensor.raw_data, end) if length >= SMALL else -1
        if offset >= 0:  # equal bytes are an equal weight, whichever place is found
            end = offset + length
            tensor.ClearField("raw_data")
            tensor.data_location = onnx.TensorProto.EXTERNAL
            for key, value in (("location", location), ("offset", str(offset)), ("length", str(length))):
                tensor.external_data.add(key=key, value=value)
