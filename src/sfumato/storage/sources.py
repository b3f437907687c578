"""Pictures that clients send in: read once with limits, kept as PNG under the hash of their bytes."""

import hashlib
import io
import warnings
from collections.abc import Iterable

from PIL import Image, ImageOps

from sfumato.core.errors import InvalidRequest
from sfumato.storage.images import PNG_CONTENT_TYPE
from sfumato.storage.objects import ObjectStore

MAX_PIXELS = 4096 * 4096
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
_PREFIX = "sources"


def read_source(data: bytes, *, field: str) -> bytes:
    """Return a client's picture as PNG in RGB or RGBA, turned upright, with nothing else of the file in it.

    Of an animation the first frame is taken. Raises `InvalidRequest` naming `field` for what is no picture of a known
    format, is damaged, or has more than `MAX_PIXELS`.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            image = Image.open(io.BytesIO(data), formats=_FORMATS)
            if image.width * image.height > MAX_PIXELS:
                raise _too_large(field)
            upright = ImageOps.exif_transpose(image)
            has_alpha = "A" in upright.getbands() or "transparency" in upright.info
            plain = upright.convert("RGBA" if has_alpha else "RGB")
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _too_large(field) from None
    except InvalidRequest:
        raise
    except Exception as error:  # Pillow's decoders raise whatever damaged data makes them stumble over
        raise InvalidRequest(
            "Invalid encoded image", field=field, hint=f"{field} must be a picture: {', '.join(_FORMATS)}."
        ) from error
    buffer = io.BytesIO()
    plain.save(buffer, "png", compress_level=1)
    return buffer.getvalue()


def name_of(png: bytes) -> str:
    """Return the name a stored picture has in requests: its key in the object store."""
    return f"{_PREFIX}/{hashlib.sha256(png).hexdigest()}.png"


async def keep(objects: ObjectStore, pngs: Iterable[bytes]) -> None:
    """Store pictures under their names; what is stored already is written again with the same bytes."""
    for png in pngs:
        await objects.put(name_of(png), png, PNG_CONTENT_TYPE)


def _too_large(field: str) -> InvalidRequest:
    return InvalidRequest(f"The picture has more than {MAX_PIXELS} pixels.", field=field)
