"""Making pictures larger between two passes: latents by interpolation, pixels by a resampling filter."""

from PIL import Image
from torch import Tensor
from torch.nn import functional

from sfumato.core.errors import InvalidRequest
from sfumato.core.passes import LATENT_UPSCALERS, PIXEL_UPSCALERS
from sfumato.core.requests import LATENT_FACTOR

_FILTERS = {"Lanczos": Image.Resampling.LANCZOS, "Nearest": Image.Resampling.NEAREST}


def is_latent_upscaler(name: str) -> bool:
    """Say whether an upscaler works on latents."""
    return name in LATENT_UPSCALERS


def enlarged_latents(latents: Tensor, size: tuple[int, int], upscaler: str) -> Tensor:
    """Interpolate latents (C, h, w) to those of a picture of `size` (width, height) pixels.

    The name says how: nearest, nearest-exact, bicubic, else bilinear; "antialiased" filters when it shrinks.
    """
    mode = next((mode for mode in ("nearest-exact", "nearest", "bicubic") if mode in upscaler), "bilinear")
    cells = size[1] // LATENT_FACTOR, size[0] // LATENT_FACTOR
    return functional.interpolate(
        latents.unsqueeze(0).float(), size=cells, mode=mode, antialias="antialiased" in upscaler
    )[0]


def enlarged_picture(picture: Image.Image, size: tuple[int, int], upscaler: str) -> Image.Image:
    """Bring a picture to `size` (width, height) pixels; raises `InvalidRequest` for an upscaler there is not."""
    if upscaler not in _FILTERS:
        # A latent upscaler whose latents do not carry over to the next model works on pixels instead.
        if is_latent_upscaler(upscaler):
            upscaler = "Lanczos"
        else:
            names = ", ".join((*LATENT_UPSCALERS, *PIXEL_UPSCALERS))
            raise InvalidRequest(
                f"There is no upscaler named {upscaler!r}.", field="hr_upscaler", hint=f"One of: {names}."
            )
    return picture.resize(size, _FILTERS[upscaler])
