"""Finished pictures at permanent public addresses.

An address holds a random identifier of 122 bits and nothing else: who has it may see the picture, nobody can guess it.
"""

from uuid import UUID

from fastapi import APIRouter, Request, Response

from sfumato.api.public import public
from sfumato.api.services import ServicesOf
from sfumato.core.errors import NotFound
from sfumato.storage import jobs

_FOREVER = "public, max-age=31536000, immutable"


@public
async def get_picture(output_id: str, request: Request, services: ServicesOf) -> Response:
    """Send a picture; nothing about it ever changes, so caches may keep it."""
    async with services.db.read() as session:
        output = await jobs.get_output(session, _canonical(output_id))
    headers = {
        "ETag": f'"{output.id}"',
        "Cache-Control": _FOREVER,
        "Content-Security-Policy": "default-src 'none'; sandbox",
        "Cross-Origin-Resource-Policy": "cross-origin",
    }
    if _is_known(request.headers.get("if-none-match", ""), headers["ETag"]):
        return Response(status_code=304, headers=headers)
    if request.method == "HEAD":
        headers["Content-Length"] = str(output.size_bytes)
        return Response(headers=headers, media_type=output.content_type)
    return Response(await services.objects.get(output.object_key), headers=headers, media_type=output.content_type)


def add_routes(router: APIRouter) -> None:
    """Add the pictures' route."""
    router.get("/images/{output_id}.png")(get_picture)
    router.head("/images/{output_id}.png", include_in_schema=False)(get_picture)


def _canonical(text: str) -> UUID:
    """Read an identifier in the one spelling that addresses use; raise `NotFound` for any other."""
    try:
        output_id = UUID(text)
    except ValueError:
        output_id = None
    if output_id is None or str(output_id) != text:
        raise NotFound("There is no such picture.")
    return output_id


def _is_known(if_none_match: str, etag: str) -> bool:
    tags = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
    return etag in tags or "*" in tags
