"""What there is to generate with, what a caller has to spend, and whether the service is alive."""

from typing import Any

from fastapi import APIRouter, Response

from sfumato.accounts.credits import Grant, list_grants
from sfumato.api.auth import StablecogCaller
from sfumato.api.public import public
from sfumato.api.services import ServicesOf
from sfumato.api.stablecog.requests import defaults_for
from sfumato.api.stablecog.schedulers import SCHEDULERS
from sfumato.api.stablecog.wire import GoResponse, format_time
from sfumato.core.models import ModelInfo

MODELS_PATHS = ("/v1/image/generation/models", "/v1/image/generation/models/", "/v1/image/models/generate")
DEFAULTS_PATHS = ("/v1/image/generation/defaults", "/v1/image/generation/defaults/", "/v1/image/defaults/generate")
CREDITS_PATHS = ("/v1/credits", "/v1/credits/")
HEALTH_PATHS = ("/v1/health",)


@public
async def list_models(services: ServicesOf) -> Response:
    """List the models, the default one first, each with the schedulers it takes."""
    registry = services.registry
    models = sorted(registry.models, key=lambda model: model.id != registry.default.id)
    return GoResponse({"models": [_model(model, is_default=model.id == registry.default.id) for model in models]})


@public
async def show_defaults(services: ServicesOf) -> Response:
    """Tell what a generation that says nothing gets."""
    return GoResponse(defaults_for(services.registry.default))


async def list_credits(services: ServicesOf, caller: StablecogCaller) -> Response:
    """List the caller's credits; the total is what can be spent now."""
    async with services.db.read() as session:
        grants = await list_grants(session, caller.user_id)
    total = await services.service.balance(caller.user_id)
    return GoResponse({"total_remaining_credits": total, "credits": [_grant(grant) for grant in grants]})


@public
async def show_health() -> Response:
    """Say that the process answers; `/readyz` says whether it can generate."""
    return GoResponse({"status": "ok"})


def add_routes(router: APIRouter) -> None:
    """Add the routes under all their names."""
    for paths, endpoint in (
        (MODELS_PATHS, list_models),
        (DEFAULTS_PATHS, show_defaults),
        (CREDITS_PATHS, list_credits),
        (HEALTH_PATHS, show_health),
    ):
        for path in paths:
            router.get(path, include_in_schema=path == paths[0])(endpoint)


def _model(model: ModelInfo, *, is_default: bool) -> dict[str, Any]:
    return {
        "id": str(model.id),
        "name": model.name,
        "is_default": is_default,
        "available_schedulers": [{"id": str(item.id), "name": item.name} for item in SCHEDULERS],
        "default_width": model.default_width,
        "default_height": model.default_height,
    }


def _grant(grant: Grant) -> dict[str, Any]:
    return {
        "id": str(grant.id),
        "remaining_amount": grant.remaining,
        "expires_at": format_time(grant.expires_at),
        "type": {
            "id": str(grant.type_id),
            "name": grant.type_name,
            "amount": grant.type_amount,
            "description": grant.description,
        },
    }
