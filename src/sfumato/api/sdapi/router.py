"""All routes of the dialect."""

from fastapi import APIRouter

from sfumato.api.sdapi import later, listings, progress, txt2img


def add_sdapi_routes(router: APIRouter) -> None:
    """Add every route under `/sdapi/v1` and `/internal`."""
    for part in (txt2img, listings, progress, later):
        part.add_routes(router)
