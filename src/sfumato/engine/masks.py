"""Source pictures and masks in pixels: resizing, blurring, cropping to the masked part, putting the result back.

Pictures are Pillow images; masks are of mode "L", white where to paint. Knows no latents and no network.
"""

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageFilter, ImageOps

from sfumato.core.errors import InvalidRequest
from sfumato.core.passes import ResizeMode

Size = tuple[int, int]
"""Width and height in pixels."""

Box = tuple[int, int, int, int]
"""Left, top, right, bottom; the last two are outside."""

_OPAQUE_ABOVE = 128
_FILL_BLURS = ((256, 1), (64, 1), (16, 2), (4, 4), (2, 2), (0, 1))
"""Radius in pixels and times: the widest reaches the middle of a large hole, the narrowest meets its edge."""


def read_picture(data: bytes, background: str = "#ffffff") -> Image.Image:
    """Read a stored picture as RGB, laid on `background` where it is transparent."""
    image: Image.Image = Image.open(io.BytesIO(data))
    if "A" not in image.getbands() and "transparency" not in image.info:
        return image.convert("RGB")
    rgba = image.convert("RGBA")
    ground = Image.new("RGBA", rgba.size, background)
    return Image.alpha_composite(ground, rgba).convert("RGB")


def read_mask(data: bytes, *, is_soft: bool, is_inverted: bool) -> Image.Image:
    """Read a stored mask: the opacity of a picture that has any transparency, else its brightness."""
    image: Image.Image = Image.open(io.BytesIO(data))
    alpha = image.convert("RGBA").getchannel("A")
    has_alpha = alpha.getextrema() != (255, 255)
    mask = alpha if has_alpha else image.convert("L")
    if not is_soft:
        mask = mask.point(lambda value: 255 if value > _OPAQUE_ABOVE else 0)
    return ImageOps.invert(mask) if is_inverted else mask


def blurred(mask: Image.Image, sigma_x: int, sigma_y: int) -> Image.Image:
    """Blur a mask by a Gaussian of these deviations along each axis, cut off at two and a half of them."""
    values: NDArray[np.float32] = np.asarray(mask, dtype=np.float32)
    for axis, sigma in ((1, sigma_x), (0, sigma_y)):
        if sigma > 0:
            values = _convolved(values, sigma, axis)
    return Image.fromarray(np.clip(np.rint(values), 0, 255).astype(np.uint8))


def _convolved(values: NDArray[np.float32], sigma: int, axis: int) -> NDArray[np.float32]:
    radius = int(2.5 * sigma + 0.5)
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    weights /= weights.sum()
    padding = [(0, 0), (0, 0)]
    padding[axis] = (radius, radius)
    mode = "reflect" if values.shape[axis] > 1 else "edge"
    padded = np.pad(values, padding, mode=mode)  # type: ignore[call-overload]
    rows = np.apply_along_axis(lambda line: np.convolve(line, weights, "valid"), axis, padded)
    return np.asarray(rows, dtype=np.float32)


def resized(image: Image.Image, size: Size, mode: ResizeMode) -> Image.Image:
    """Bring a picture or mask to a size. LATENT is left to the latents; here it stretches."""
    if image.size == size:
        return image
    if mode is ResizeMode.CROP:
        return ImageOps.fit(image, size, Image.Resampling.LANCZOS)
    if mode is ResizeMode.FILL:
        return _filled_out(image, size)
    return image.resize(size, Image.Resampling.LANCZOS)


def _filled_out(image: Image.Image, size: Size) -> Image.Image:
    """Fit a picture into a size and stretch its outermost rows or columns over what is left free."""
    inner = ImageOps.contain(image, size, Image.Resampling.LANCZOS)
    left, top = (size[0] - inner.width) // 2, (size[1] - inner.height) // 2
    right, bottom = size[0] - inner.width - left, size[1] - inner.height - top
    values = np.asarray(inner)
    widths = [(top, bottom), (left, right), (0, 0)][: values.ndim]
    return Image.fromarray(np.pad(values, widths, mode="edge"))


def masked_region(mask: Image.Image, padding: int, proportions: Size) -> Box | None:
    """Return the box round what a mask shows, `padding` wider on each side and grown to the proportions asked for.

    It stays within the picture, so near an edge the proportions may not be reached. None if the mask is empty.
    """
    found = mask.getbbox()
    if found is None:
        return None
    left, top = max(found[0] - padding, 0), max(found[1] - padding, 0)
    right, bottom = min(found[2] + padding, mask.width), min(found[3] + padding, mask.height)
    wanted = proportions[0] / proportions[1]
    if (right - left) / (bottom - top) < wanted:
        left, right = _grown(left, right, round((bottom - top) * wanted), mask.width)
    else:
        top, bottom = _grown(top, bottom, round((right - left) / wanted), mask.height)
    return left, top, right, bottom


def _grown(low: int, high: int, length: int, limit: int) -> tuple[int, int]:
    """Grow a range about its middle to a length, moved so that it stays within 0..limit."""
    length = min(max(length, high - low), limit)
    start = low - (length - (high - low)) // 2
    start = min(max(start, 0), limit - length)
    return start, start + length


def surroundings(image: Image.Image, mask: Image.Image) -> Image.Image:
    """Return the picture with its masked part filled from what is round it, ever more blurred towards the middle."""
    known = image.convert("RGBA")
    known.putalpha(ImageOps.invert(mask))
    sharp = _premultiplied(known)
    result = Image.new("RGBA", image.size)
    for radius, times in _FILL_BLURS:
        layer = _divided(sharp.filter(ImageFilter.GaussianBlur(radius)))
        for _ in range(times):
            result = Image.alpha_composite(result, layer)
    return result.convert("RGB")


def _premultiplied(image: Image.Image) -> Image.Image:
    return image.convert("RGBa")


def _divided(image: Image.Image) -> Image.Image:
    return image.convert("RGBA")


@dataclass(frozen=True, kw_only=True)
class Overlay:
    """What is put back over a finished picture: the original where the mask is black.

    `box` says where the finished picture belongs in the original, if it shows only a part of it.
    """

    original: Image.Image
    mask: Image.Image
    box: Box | None = None

    def applied(self, finished: Image.Image) -> Image.Image:
        """Return the original with the painted part of `finished` in it."""
        painted = finished
        if self.box is not None:
            left, top, right, bottom = self.box
            painted = self.original.copy()
            painted.paste(finished.resize((right - left, bottom - top), Image.Resampling.LANCZOS), (left, top))
        return Image.composite(painted, self.original, self.mask)


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A source at the request's size: the picture, its mask there, and what is put back at the end."""

    picture: Image.Image
    mask: Image.Image | None = None
    overlay: Overlay | None = None


def prepared(
    image: Image.Image,
    size: Size,
    mode: ResizeMode,
    mask: Image.Image | None = None,
    *,
    only_masked: bool = False,
    padding: int = 0,
    fills: bool = False,
) -> Prepared:
    """Bring a source picture and its (already blurred) mask to a size.

    A mask that shows nothing is as none: the whole picture is painted. Raises `InvalidRequest` for a mask of other
    proportions than the picture's.
    """
    if mask is not None and mask.size != image.size:
        mask = _fitted(mask, image.size)
    if mask is None or mask.getbbox() is None:
        return Prepared(picture=resized(image, size, mode))
    box = masked_region(mask, padding, size) if only_masked else None
    if box is not None:
        overlay = Overlay(original=image, mask=_doubled(mask), box=box)
        image, mask = (resized(part.crop(box), size, ResizeMode.FILL) for part in (image, mask))
    else:
        image, mask = resized(image, size, mode), resized(mask, size, mode)
        overlay = Overlay(original=image, mask=_doubled(mask))
    return Prepared(picture=surroundings(image, mask) if fills else image, mask=mask, overlay=overlay)


def _fitted(mask: Image.Image, size: Size) -> Image.Image:
    if abs(mask.width * size[1] - mask.height * size[0]) > max(mask.width, mask.height):
        raise InvalidRequest(
            f"The mask is {mask.width} x {mask.height}, the picture {size[0]} x {size[1]}: their proportions differ.",
            field="mask",
        )
    return mask.resize(size, Image.Resampling.LANCZOS)


def _doubled(mask: Image.Image) -> Image.Image:
    # The painted part is kept a little beyond the half-way line of the blurred edge, so that no seam shows.
    return ImageChops.add(mask, mask)
