"""Where finished pictures lie: keys to bytes, on local disk or in any store that a URL names. Knows no tables."""

import re
from typing import Self

import obstore
from obstore.store import LocalStore, from_url
from obstore.store import ObjectStore as Store

from sfumato.core.errors import InvalidRequest, NotFound

_KEY = re.compile(r"[0-9A-Za-z_-][0-9A-Za-z._-]*(/[0-9A-Za-z_-][0-9A-Za-z._-]*)*")


class ObjectStore:
    """Whole objects by key. A put is atomic: a reader sees the old bytes or the new, never a part."""

    def __init__(self, store: Store) -> None:
        self._store = store
        # Local files have no content type: object_store refuses attributes for them.
        self._keeps_content_types = not isinstance(store, LocalStore)

    @classmethod
    def open(cls, url: str) -> Self:
        """Open `file:///folder` (made when missing) or an object store's URL such as `s3://bucket/prefix`.

        Raises `InvalidRequest` when the URL names no store this can open; the message never quotes it.
        """
        try:
            return cls(from_url(url, mkdir=True) if url.startswith("file:") else from_url(url))
        except Exception as error:  # obstore's own errors, ValueError, OSError: all mean the same to the caller
            raise InvalidRequest(
                f"The object store cannot be opened: {type(error).__name__}.",
                field="objects_url",
                hint="Use file:///folder, or the URL of a bucket.",
            ) from error

    async def put(self, key: str, data: bytes, content_type: str) -> None:
        """Store `data` under `key`, replacing what was there. Raises `ValueError` for a malformed key."""
        if not _KEY.fullmatch(key):
            raise ValueError(f"{key!r} cannot name an object")
        attributes = {"Content-Type": content_type} if self._keeps_content_types else None
        await obstore.put_async(self._store, key, data, attributes=attributes)

    async def get(self, key: str) -> bytes:
        """Return the bytes under `key`; raise `NotFound` when there are none."""
        if not _KEY.fullmatch(key):
            raise NotFound("There is no such picture.")
        try:
            found = await obstore.get_async(self._store, key)
            return bytes(await found.bytes_async())
        except FileNotFoundError:
            raise NotFound("There is no such picture.") from None

    async def delete(self, key: str) -> None:
        """Remove the object under `key`; an object that is not there is as good as removed."""
        if not _KEY.fullmatch(key):
            return
        try:
            await obstore.delete_async(self._store, key)
        except FileNotFoundError:
            return
