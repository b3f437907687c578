"""All of Sfumato's own routes."""

from fastapi import APIRouter

from sfumato.api.native import health, images, pages


def add_native_routes(router: APIRouter) -> None:
    """Add the pages, the pictures, health and metrics."""
    for part in (pages, images, health):
        part.add_routes(router)
