"""From a model's location on disk to a `LoadedModel`: diffusers folders and single files of the known families."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from sfumato.core.errors import ModelLoadFailed, SfumatoError
from sfumato.core.requests import PromptSyntax
from sfumato.engine.conditioning import GUIDANCE, TEXT_EMBEDS, TIME_IDS, Conditioning
from sfumato.engine.device import Device, is_out_of_memory
from sfumato.engine.families import networks, original_file
from sfumato.engine.families.autoencoder import Autoencoder
from sfumato.engine.families.base import Denoiser, LatentCodec, LoadedModel, Prediction, size_bytes
from sfumato.engine.families.levels import noise_levels
from sfumato.engine.families.prediction import measured_prediction
from sfumato.engine.families.text import BertText, ClipText, read_tokenizer, shipped_clip_tokenizer
from sfumato.engine.families.text_xl import XlText
from sfumato.engine.families.weights import read_component, read_config
from sfumato.engine.prompt.encode import PromptEncoder

_WEIGHTS = "diffusion_pytorch_model"
_TEXT_WEIGHTS = "model"
_PROBE_CELLS = 32


def load_model(name: str, location: str, device: Device) -> LoadedModel:
    """Read a model's weights onto the device; raises `ModelLoadFailed` with what is wrong and where."""
    path = Path(location)
    with _blamed_on(location):
        if path.is_dir():
            return load_folder(name, path, device)
        if path.suffix == ".safetensors" and path.is_file():
            return load_file(name, path, device)
    raise ModelLoadFailed(f"{location} is neither a folder in diffusers layout nor a .safetensors file.")


def load_folder(name: str, folder: Path, device: Device) -> LoadedModel:
    """Load a folder in diffusers layout."""
    index = read_config(folder / "model_index.json")
    unet = networks.unet(_config(folder, "unet"), read_component(folder / "unet", _WEIGHTS), device)
    vae = _folder_vae(folder / "vae", _class_name(index, "vae"), device)
    text = _folder_text(folder, index, device)
    scheduler = read_config(folder / "scheduler" / "scheduler_config.json")
    try:
        prediction = Prediction(scheduler.get("prediction_type", "epsilon"))
    except ValueError as error:
        raise ModelLoadFailed(f"Models that predict {scheduler['prediction_type']!r} are not known.") from error
    return _assembled(name, unet, vae, text, scheduler, prediction, device)


def load_file(name: str, path: Path, device: Device) -> LoadedModel:
    """Load a checkpoint from one file in the layout of its family's original repository."""
    parts = original_file.read_parts(path)
    unet = networks.unet(parts.unet_config, parts.unet, device)
    vae = networks.vae("AutoencoderKL", parts.vae_config, parts.vae, device)
    text = _text(
        [networks.clip(tower.config, tower.tensors, device, projection=tower.projection) for tower in parts.towers],
        takes_summary=parts.unet_config["addition_embed_type"] is not None,
        tokenizer=shipped_clip_tokenizer(),
    )
    if parts.prediction is not None:
        return _assembled(name, unet, vae, text, parts.scheduler_config, parts.prediction, device)
    model = _assembled(name, unet, vae, text, parts.scheduler_config, Prediction.EPSILON, device)
    prompt = model.canvas(8 * _PROBE_CELLS, 8 * _PROBE_CELLS).conditioned(model.prompts.encode("", PromptSyntax.PLAIN))
    shape = (model.latent_channels, _PROBE_CELLS, _PROBE_CELLS)
    model.denoiser.prediction = measured_prediction(model.denoiser, prompt, shape)
    return model


def load_vae(location: str, codec: LatentCodec, device: Device) -> LatentCodec:
    """Read an autoencoder of its own to stand in for a model's; latents keep the model's scale.

    Raises `ModelLoadFailed`, also when it makes latents of another number of channels.
    """
    path = Path(location)
    with _blamed_on(location):
        if path.is_dir():
            vae = _folder_vae(path, str(_config(path).get("_class_name", "AutoencoderKL")), device)
        else:
            vae = networks.vae("AutoencoderKL", *original_file.read_vae(path, codec.scaling_factor), device)
    wanted, found = codec.autoencoder.latent_channels, int(vae.config.latent_channels)
    if wanted != found:
        raise ModelLoadFailed(f"{path.name} makes latents of {found} channels, the model takes {wanted}.")
    return codec.through(Autoencoder(vae, dtype=device.dtype, device=device.torch_device))


@contextmanager
def _blamed_on(location: str) -> Iterator[None]:
    """Turn whatever a damaged file makes the libraries do into `ModelLoadFailed`: it is nobody else's fault."""
    try:
        yield
    except SfumatoError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise ModelLoadFailed(f"{location} cannot be loaded ({type(error).__name__}: {error}).") from error


def _config(folder: Path, part: str = "") -> dict[str, Any]:
    return read_config(folder / part / "config.json")


def _class_name(index: dict[str, Any], part: str) -> str:
    entry = index.get(part)
    return str(entry[1]) if isinstance(entry, list) and len(entry) == 2 and entry[1] else ""


def _folder_vae(folder: Path, class_name: str, device: Device) -> Any:
    return networks.vae(class_name, _config(folder), read_component(folder, _WEIGHTS), device)


def _folder_text(folder: Path, index: dict[str, Any], device: Device) -> Any:
    classes = {part: _class_name(index, part) for part in ("text_encoder", "text_encoder_2")}
    parts = [part for part, class_name in classes.items() if class_name]
    if not parts:
        raise ModelLoadFailed(f"{folder} has no text encoder.")
    tokenizer = read_tokenizer(folder / parts[0].replace("text_encoder", "tokenizer"))
    if [classes[part] for part in parts] == ["BertModel"]:
        tensors = read_component(folder / "text_encoder", _TEXT_WEIGHTS)
        return BertText(networks.bert(_config(folder, "text_encoder"), tensors, device), tokenizer)
    towers = []
    for part in parts:
        if classes[part] not in ("CLIPTextModel", "CLIPTextModelWithProjection"):
            raise ModelLoadFailed(f"{folder}: text encoders of class {classes[part]!r} are not known.")
        tensors = read_component(folder / part, _TEXT_WEIGHTS)
        projection = tensors.pop("text_projection.weight", None)
        towers.append(networks.clip(_config(folder, part), tensors, device, projection=projection))
    return _text(towers, takes_summary="text_encoder_2" in parts, tokenizer=tokenizer)


def _text(towers: list[Any], *, takes_summary: bool, tokenizer: Any) -> ClipText:
    if takes_summary:
        return XlText(towers[0] if len(towers) > 1 else None, towers[-1], tokenizer)
    return ClipText(towers[0], tokenizer)


def _assembled(
    name: str, unet: Any, vae: Any, text: Any, scheduler: dict[str, Any], prediction: Prediction, device: Device
) -> LoadedModel:
    taken, made = int(unet.config.in_channels), int(vae.config.latent_channels)
    if taken not in (made, 2 * made + 1):
        raise ModelLoadFailed(
            f"The denoiser takes {taken} channels, the autoencoder makes {made}: only plain and inpainting "
            "checkpoints are known."
        )
    parts = dict(zip(("text_encoder", "text_encoder_2"), text.networks, strict=False))
    return LoadedModel(
        name=name,
        denoiser=Denoiser(
            _asked(unet),
            levels=noise_levels(scheduler),
            prediction=prediction,
            dtype=device.dtype,
            device=device.torch_device,
        ),
        prompts=PromptEncoder(text),
        codec=LatentCodec(
            Autoencoder(vae, dtype=device.dtype, device=device.torch_device),
            scaling_factor=float(vae.config.scaling_factor),
            shift_factor=float(vae.config.get("shift_factor") or 0.0),
        ),
        latent_channels=made,
        size_bytes=size_bytes(unet, vae, *text.networks),
        networks={"unet": unet, **parts},
        time_ids=_time_ids(unet, text),
        takes_picture=taken > made,
        guidance_width=int(unet.config.time_cond_proj_dim or 0),
    )


def _asked(unet: Any) -> Callable[[Tensor, Tensor, Conditioning], Tensor]:
    def network(x: Tensor, timestep: Tensor, told: Conditioning) -> Tensor:
        added = {name: told.extras[name] for name in (TEXT_EMBEDS, TIME_IDS) if name in told.extras}
        output: Tensor = unet(
            x,
            timestep,
            encoder_hidden_states=told.states,
            timestep_cond=told.extras.get(GUIDANCE),
            added_cond_kwargs=added or None,
            return_dict=False,
        )[0]
        return output

    return network


def _time_ids(unet: Any, text: Any) -> int:
    """Return how many numbers about the picture the denoiser takes, beside the prompt's summary."""
    kind = unet.config.addition_embed_type
    if kind in (None, "text"):  # "text" pools the states it is given anyway, as the built-in model does
        return 0
    if kind != "text_time" or not isinstance(text, XlText):
        raise ModelLoadFailed(f"Denoisers with an embedding of kind {kind!r} are not known.")
    numbers = int(unet.config.projection_class_embeddings_input_dim) - int(text.network.config.projection_dim)
    count, rest = divmod(numbers, int(unet.config.addition_time_embed_dim))
    if rest or count not in (5, 6):
        raise ModelLoadFailed(f"The denoiser takes {numbers} channels about the picture, which fits no known family.")
    return count
