"""What a body asks for beyond a prompt, as `core.passes`: a picture to begin from, a mask, a second pass."""

from dataclasses import dataclass
from typing import TypeVar

from sfumato.api.sdapi.fields import GenerationBody, Img2ImgBody, Txt2ImgBody
from sfumato.api.sdapi.options import Overrides
from sfumato.api.sdapi.pictures import decode_picture
from sfumato.core.errors import InvalidRequest, NotFound
from sfumato.core.passes import (
    LATENT_UPSCALERS,
    PIXEL_UPSCALERS,
    Hires,
    Inpainting,
    MaskedContent,
    Refiner,
    ResizeMode,
    Source,
    hires_size,
)
from sfumato.core.requests import LATENT_FACTOR
from sfumato.core.sampling import find_sampler, find_schedule
from sfumato.models.registry import ModelRegistry
from sfumato.storage.sources import name_of

_Value = TypeVar("_Value")

DEFAULT_STRENGTH = 0.75
"""Where upstream's field is null, which it then stumbles over in a second pass."""

RESIZE_MODES = tuple(ResizeMode)
MASKED_CONTENTS = tuple(MaskedContent)
_DEFAULT_BLUR = 4
_SAME = ("", "none", "use same checkpoint", "use same sampler", "use same scheduler")


@dataclass(frozen=True)
class Given:
    """A body's pictures, read: the files to store, and how they are used."""

    files: tuple[bytes, ...] = ()
    source: Source | None = None
    hires: Hires | None = None


def read_refiner(body: GenerationBody, registry: ModelRegistry) -> Refiner | None:
    """Read which model takes over, and when; from the first step on where that is null. Raises `UnknownModel`."""
    name = (body.refiner_checkpoint or "").strip()
    if name.casefold() in _SAME:
        return None
    model = registry.find(name)
    title = f"{model.name} [{model.short_hash}]" if model.short_hash else model.name
    return Refiner(model=model.name, switch_at=_or(body.refiner_switch_at, 0.0), title=title)


def read_img2img(body: Img2ImgBody, overrides: Overrides) -> Given:
    """Read the pictures and the mask of an img2img body. Call it off the event loop.

    Raises `NotFound` without a picture, in upstream's words, and `InvalidRequest` for fields out of range and pictures
    that are none.
    """
    if not body.init_images:
        raise NotFound("Init image not found")
    files = [decode_picture(text, field="init_images") for text in body.init_images]
    inpainting = None
    if body.mask:
        mask = decode_picture(body.mask, field="mask")
        inpainting = _inpainting(body, name_of(mask))
        files.append(mask)
    pictures = files[: len(body.init_images)]
    source = Source(
        pictures=tuple(name_of(picture) for picture in pictures),
        strength=_or(body.denoising_strength, DEFAULT_STRENGTH),
        resize_mode=_chosen(RESIZE_MODES, _or(body.resize_mode, 0), "resize_mode"),
        runs_all_steps=overrides.sampling.img2img_fix_steps,
        noise_multiplier=_or(body.initial_noise_multiplier, overrides.sampling.initial_noise_multiplier),
        extra_noise=overrides.sampling.img2img_extra_noise,
        inpainting=inpainting,
    )
    return Given(files=tuple(files), source=source)


def read_hires(body: Txt2ImgBody, registry: ModelRegistry) -> Given:
    """Read what a txt2img body asks of a second pass. Call it off the event loop.

    Raises `InvalidRequest`, `UnknownModel` or `UnknownSampler`.
    """
    if not body.enable_hr:
        return Given()
    upscaler = body.hr_upscaler or "Latent"
    if upscaler not in (*LATENT_UPSCALERS, *PIXEL_UPSCALERS):
        raise InvalidRequest(f"could not find upscaler named {upscaler}", field="hr_upscaler")
    width, height = first_size(body)
    enlarged, cropped = hires_size(
        width,
        height,
        scale=_or(body.hr_scale, 2.0),
        resize_x=_or(body.hr_resize_x, 0),
        resize_y=_or(body.hr_resize_y, 0),
    )
    first_pass = decode_picture(body.firstpass_image, field="firstpass_image") if body.firstpass_image else None
    checkpoint, sampler, schedule = (
        _unless_same(name) for name in (body.hr_checkpoint_name, body.hr_sampler_name, body.hr_scheduler)
    )
    is_scaled = not body.hr_resize_x and not body.hr_resize_y
    hires = Hires(
        width=_floor(cropped[0]),
        height=_floor(cropped[1]),
        enlarged_width=_floor(enlarged[0]),
        enlarged_height=_floor(enlarged[1]),
        upscaler=upscaler,
        steps=_or(body.hr_second_pass_steps, 0),
        strength=_or(body.denoising_strength, DEFAULT_STRENGTH),
        scale=_or(body.hr_scale, 2.0) if is_scaled else None,
        model=registry.find(checkpoint).name if checkpoint else None,
        sampler=find_sampler(sampler)[0].name if sampler else None,
        schedule=find_schedule(schedule).label if schedule else None,
        first_pass=name_of(first_pass) if first_pass else None,
    )
    return Given(files=(first_pass,) if first_pass else (), hires=hires)


def first_size(body: GenerationBody) -> tuple[int, int]:
    """Return the first pass's width and height: the older fields' for it, where they are given, else the picture's."""
    width, height = _or(body.width, 512), _or(body.height, 512)
    if isinstance(body, Txt2ImgBody) and body.enable_hr:
        width, height = body.firstphase_width or width, body.firstphase_height or height
    return _floor(width), _floor(height)


def _inpainting(body: Img2ImgBody, mask: str) -> Inpainting:
    both = body.mask_blur
    return Inpainting(
        mask=mask,
        blur_x=both if both is not None else _or(body.mask_blur_x, _DEFAULT_BLUR),
        blur_y=both if both is not None else _or(body.mask_blur_y, _DEFAULT_BLUR),
        is_soft=body.mask_round is False,
        content=_chosen(MASKED_CONTENTS, _or(body.inpainting_fill, 0), "inpainting_fill"),
        only_masked=body.inpaint_full_res is not False,
        padding=_or(body.inpaint_full_res_padding, 0),
        is_inverted=bool(body.inpainting_mask_invert),
    )


def _chosen(choices: tuple[_Value, ...], number: int, field: str) -> _Value:
    if not 0 <= number < len(choices):
        raise InvalidRequest(f"{field} must be between 0 and {len(choices) - 1}, not {number}.", field=field)
    return choices[number]


def _unless_same(name: str | None) -> str | None:
    return None if (name or "").strip().casefold() in _SAME else name


def _floor(side: int) -> int:
    return side // LATENT_FACTOR * LATENT_FACTOR


def _or(value: _Value | None, default: _Value) -> _Value:
    return default if value is None else value
