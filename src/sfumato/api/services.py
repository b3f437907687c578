"""What every handler works with, built once by `api.serve` (or a test) and carried by the application."""

from dataclasses import dataclass
from typing import Annotated
from uuid import UUID

from fastapi import Depends, Request

from sfumato.models.registry import ModelRegistry
from sfumato.scheduling.service import GenerationService
from sfumato.settings import Settings
from sfumato.storage.database import Database
from sfumato.storage.objects import ObjectStore


@dataclass(frozen=True, kw_only=True)
class Services:
    """The parts below this layer."""

    settings: Settings
    db: Database
    objects: ObjectStore
    registry: ModelRegistry
    service: GenerationService


def services_of(request: Request) -> Services:
    """Return the application's services."""
    services: Services = request.app.state.services
    return services


ServicesOf = Annotated[Services, Depends(services_of)]


def base_url(request: Request) -> str:
    """Return the service's address without a final slash: `public_url`, or as the caller reached us."""
    return services_of(request).settings.public_url or str(request.base_url).rstrip("/")


def picture_url(request: Request, output_id: UUID) -> str:
    """Return the permanent public address of a picture."""
    return f"{base_url(request)}/images/{output_id}.png"
