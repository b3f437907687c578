"""Routes of the hosted service that this version does not have: each says so, to callers with a key."""

from collections.abc import Awaitable, Callable

from fastapi import APIRouter, HTTPException, Response

from sfumato.api.auth import StablecogCaller

NOT_IMPLEMENTED = 501
_ANY = ("GET", "POST", "PUT", "PATCH", "DELETE")

ROUTES: tuple[tuple[tuple[str, ...], tuple[str, ...], str], ...] = (
    (("POST",), ("/v1/image/upscale/create", "/v1/image/upscale/create/", "/v1/image/upscale"), "Upscaling"),
    (("POST",), ("/v1/image/upscale/",), "Upscaling"),
    (("GET",), ("/v1/image/upscale/models", "/v1/image/upscale/models/", "/v1/image/models/upscale"), "Upscaling"),
    (("GET",), ("/v1/image/upscale/defaults", "/v1/image/upscale/defaults/"), "Upscaling"),
    (("GET",), ("/v1/image/defaults/upscale",), "Upscaling"),
    (("POST",), ("/v1/image/upload", "/v1/image/upload/"), "Uploading pictures"),
    (_ANY, ("/v1/audio/{rest:path}",), "Voiceover"),
    (_ANY, ("/v1/user", "/v1/user/{rest:path}"), "Account self-service"),
    (("GET",), ("/v1/gallery", "/v1/gallery/"), "The public gallery"),
    (("GET",), ("/v1/profile/{rest:path}",), "Public profiles"),
    (_ANY, ("/v1/admin/{rest:path}",), "Administration over HTTP"),
    (("GET",), ("/v1/stats",), "Statistics"),
    (("GET",), ("/v1/model/health/{rest:path}", "/v1/worker/health"), "Worker health over this path (see /readyz)"),
    (("POST",), ("/v1/worker/webhook",), "The worker webhook"),
    (("GET",), ("/v1/sse",), "The event stream"),
    (("POST",), ("/v1/email/check",), "Checking e-mail addresses"),
    (("POST",), ("/v1/stripe/{rest:path}",), "Payment"),
)
"""(methods, paths, what they are about)"""


def add_routes(router: APIRouter) -> None:
    """Add a route that refuses for each of them."""
    for methods, paths, subject in ROUTES:
        for path in paths:
            router.api_route(path, methods=list(methods), include_in_schema=False)(_refusal(subject))


def _refusal(subject: str) -> Callable[..., Awaitable[Response]]:
    async def refuse(_caller: StablecogCaller) -> Response:
        raise HTTPException(NOT_IMPLEMENTED, f"{subject} is not supported by this version of Sfumato.")

    return refuse
