"""What an infotext says of image to image, inpainting, a second pass and a refiner (docs/sdapi.md, "Infotext")."""

from sfumato.core.passes import Hires, Inpainting, MaskedContent, Source
from sfumato.core.requests import GenerationRequest

Fields = dict[str, str | int | float]
_Optional = dict[str, str | int | float | None]


def pass_fields(request: GenerationRequest) -> Fields:
    """Return the keys and values for whatever a request asks beyond a prompt; none for text to image in one pass."""
    said: _Optional = {}
    if request.hires is not None:
        said = _hires(request.hires)
    elif request.source is not None:
        said = _source(request.source)
    if request.refiner is not None:
        said |= {"Refiner": request.refiner.title, "Refiner switch at": float(request.refiner.switch_at)}
    return {key: value for key, value in said.items() if value is not None}


def _hires(hires: Hires) -> _Optional:
    is_scaled = hires.scale is not None
    return {
        "Denoising strength": float(hires.strength),
        "Hires checkpoint": hires.model,
        "Hires sampler": hires.sampler,
        "Hires prompt": hires.prompt,
        "Hires negative prompt": hires.negative_prompt,
        "Hires schedule type": hires.schedule,
        "Hires upscale": float(hires.scale) if hires.scale is not None else None,
        "Hires resize": None if is_scaled else f"{hires.width}x{hires.height}",
        "Hires steps": hires.steps or None,
        "Hires upscaler": hires.upscaler,
    }


def _source(source: Source) -> _Optional:
    fields: _Optional = {"Denoising strength": float(source.strength)}
    if source.inpainting is not None:
        fields |= _inpainting(source.inpainting)
    fields["Noise multiplier"] = float(source.noise_multiplier) if source.noise_multiplier != 1 else None
    fields["Extra noise"] = float(source.extra_noise) if source.extra_noise else None
    return fields


def _inpainting(inpainting: Inpainting) -> _Optional:
    return {
        "Mask blur": inpainting.blur_x if inpainting.blur_x == inpainting.blur_y else None,
        "Mask blur x": inpainting.blur_x if inpainting.blur_x != inpainting.blur_y else None,
        "Mask blur y": inpainting.blur_y if inpainting.blur_x != inpainting.blur_y else None,
        "Mask mode": "Inpaint not masked" if inpainting.is_inverted else None,
        "Inpaint area": "Only masked" if inpainting.only_masked else None,
        "Masked area padding": inpainting.padding if inpainting.only_masked else None,
        "Masked content": None if inpainting.content is MaskedContent.ORIGINAL else inpainting.content.value,
    }
