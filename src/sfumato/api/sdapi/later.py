"""Routes of AUTOMATIC1111 that this version does not have: each says so."""

from collections.abc import Awaitable, Callable

from fastapi import APIRouter, HTTPException, Response

from sfumato.api.auth import SdapiCaller

NOT_IMPLEMENTED = 501

POSTS = (
    "/sdapi/v1/extra-single-image",
    "/sdapi/v1/extra-batch-images",
    "/sdapi/v1/png-info",
    "/sdapi/v1/interrogate",
    "/sdapi/v1/create/embedding",
    "/sdapi/v1/create/hypernetwork",
    "/sdapi/v1/train/embedding",
    "/sdapi/v1/train/hypernetwork",
    "/sdapi/v1/unload-checkpoint",
    "/sdapi/v1/reload-checkpoint",
    "/sdapi/v1/server-kill",
    "/sdapi/v1/server-restart",
    "/sdapi/v1/server-stop",
)
GETS = (
    "/internal/quicksettings-hint",
    "/internal/sysinfo",
    "/internal/sysinfo-download",
    "/internal/profile-startup",
)


def add_routes(router: APIRouter) -> None:
    """Add a route that refuses for each of them."""
    for path in POSTS:
        router.post(path, include_in_schema=False)(_refusal(path))
    for path in GETS:
        router.get(path, include_in_schema=False)(_refusal(path))


def _refusal(path: str) -> Callable[..., Awaitable[Response]]:
    async def refuse(_caller: SdapiCaller) -> Response:
        raise HTTPException(NOT_IMPLEMENTED, f"{path} is not supported by this version of Sfumato.")

    return refuse
