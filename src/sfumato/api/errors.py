"""Which dialect a request speaks, by its path, and how each dialect says that something went wrong.

Every error ends here, so that no traceback and no text of an unexpected exception reaches a client.
"""

from collections.abc import Callable
from dataclasses import dataclass

import structlog
from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException

from sfumato.api.native import errors as native
from sfumato.api.sdapi import errors as sdapi
from sfumato.api.sdapi.wire import FieldErrors
from sfumato.api.stablecog import errors as stablecog
from sfumato.api.stablecog.wire import JsonParseError
from sfumato.core.errors import SfumatoError

logger = structlog.get_logger(__name__)

_MAX_LOGGED = 300  # characters of a reason, which may quote what the caller sent


@dataclass(frozen=True)
class Renderer:
    """How one wire renders: an error of ours, a missing route or method (by path), and a fault of the server."""

    of_error: Callable[[SfumatoError], Response]
    of_http: Callable[[HTTPException], Response]
    of_fault: Callable[[str], Response]


STABLECOG = Renderer(stablecog.of_error, stablecog.of_http, stablecog.of_fault)
SDAPI = Renderer(sdapi.of_error, sdapi.of_http, sdapi.of_fault)
NATIVE = Renderer(native.of_error, native.of_http, native.of_fault)

_PREFIXES = (("/v1/", STABLECOG), ("/sdapi/", SDAPI), ("/internal/", SDAPI), ("/controlnet/", SDAPI))


def renderer_for(path: str) -> Renderer:
    """Return how the dialect renders whose routes begin as this path does; Sfumato's own for any other."""
    return next((renderer for prefix, renderer in _PREFIXES if path.startswith(prefix)), NATIVE)


def add_error_handlers(app: FastAPI) -> None:
    """Have the application answer errors in the dialect of the request."""
    app.add_exception_handler(SfumatoError, _on_error)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(JsonParseError, _on_json_parse_error)
    app.add_exception_handler(FieldErrors, _on_field_errors)


def render_error(path: str, error: SfumatoError) -> Response:
    """Return the answer for an error on this path."""
    return renderer_for(path).of_error(error)


def render_fault(path: str) -> Response:
    """Return the answer for an exception nobody expected; it says nothing of what happened."""
    return renderer_for(path).of_fault(path)


async def _on_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, SfumatoError)
    logger.info("refused", code=error.code, reason=error.message[:_MAX_LOGGED])
    return render_error(request.url.path, error)


async def _on_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    logger.info("refused", code=error.status_code, reason=error.detail[:_MAX_LOGGED])
    return renderer_for(request.url.path).of_http(error)


async def _on_json_parse_error(_request: Request, _error: Exception) -> Response:
    logger.info("refused", code="json_parse_error")
    return stablecog.of_json_parse_error()


async def _on_field_errors(_request: Request, error: Exception) -> Response:
    assert isinstance(error, FieldErrors)
    logger.info("refused", code="field_errors", reason=error.errors[:10])
    return sdapi.of_field_errors(error)
