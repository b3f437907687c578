"""All routes of the dialect."""

from fastapi import APIRouter

from sfumato.api.stablecog import generations, later, listings, outputs


def add_stablecog_routes(router: APIRouter) -> None:
    """Add every route under `/v1`."""
    for part in (generations, listings, outputs, later):
        part.add_routes(router)
