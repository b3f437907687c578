"""Pictures in request bodies: base64, bare or as a data URL."""

import base64
import binascii
import re

from sfumato.core.errors import InvalidRequest, NotSupported
from sfumato.storage.sources import read_source

_DATA_URL = re.compile(r"data:image/[\w.+-]+;base64,", re.IGNORECASE)


def decode_picture(text: str, *, field: str) -> bytes:
    """Return the picture as PNG (`storage.sources.read_source`). It takes a while: call it off the event loop.

    Raises `NotSupported` for a URL, in upstream's words for a server that fetches none, and `InvalidRequest`.
    """
    if text[:8].casefold().startswith(("http://", "https://")):
        raise NotSupported("Requests not allowed", field=field, hint="Send the picture itself, in base64.")
    start = _DATA_URL.match(text)
    try:
        data = base64.b64decode(text[start.end() if start else 0 :], validate=False)
    except (binascii.Error, ValueError):
        raise InvalidRequest("Invalid encoded image", field=field, hint="Send the picture in base64.") from None
    return read_source(data, field=field)
