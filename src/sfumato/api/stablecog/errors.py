"""Errors as the hosted service words them: `{"error", "description"?}`, and `settings` where a generation failed."""

from typing import Any

from fastapi import Response
from fastapi.responses import PlainTextResponse
from starlette.exceptions import HTTPException

from sfumato.api.stablecog.wire import GoResponse
from sfumato.core.errors import (
    BodyTooLarge,
    Forbidden,
    GenerationTimeout,
    InsufficientCredits,
    NotFound,
    NotSupported,
    QueueFull,
    SfumatoError,
    Unauthorized,
)

NOT_SUPPORTED = "not_supported"
_NOT_FOUND_STATUS, _WRONG_METHOD_STATUS = 404, 405

_WORDS: dict[type[SfumatoError], tuple[int, str]] = {
    Unauthorized: (401, "Unauthorized"),
    Forbidden: (403, "Forbidden"),
    NotFound: (404, "not_found"),
    InsufficientCredits: (400, "insufficient_credits"),
    QueueFull: (400, "queue_limit_reached"),
    GenerationTimeout: (500, "TIMEOUT"),
}
"""Errors whose status and text are the hosted service's own; others keep our status."""


def of_error(error: SfumatoError) -> Response:
    """Render an error that did not come from a generation under way."""
    if isinstance(error, (NotSupported, BodyTooLarge)):
        return GoResponse({"error": error.code, "description": error.message}, error.status)
    status, text = words(error)
    return GoResponse({"error": text}, status)


def of_failed_generation(error: SfumatoError, settings: dict[str, Any]) -> Response:
    """Render an error of a generation whose settings are known, which this shape repeats."""
    status, text = words(error)
    return GoResponse({"error": text, "settings": settings}, status)


def words(error: SfumatoError) -> tuple[int, str]:
    """Return the status and the text of the `error` key."""
    for kind, answer in _WORDS.items():
        if isinstance(error, kind):
            return answer
    return error.status, error.message


def of_json_parse_error() -> Response:
    """Render a body that is not what the route reads."""
    return GoResponse({"error": "json_parse_error"}, 400)


def of_http(error: HTTPException) -> Response:
    """Render a missing route (text), a wrong method (nothing), or a route of a later version."""
    if error.status_code == _NOT_FOUND_STATUS:
        return PlainTextResponse("404 page not found\n", _NOT_FOUND_STATUS)
    if error.status_code == _WRONG_METHOD_STATUS:
        return Response(status_code=_WRONG_METHOD_STATUS, headers=error.headers)
    return GoResponse({"error": NOT_SUPPORTED, "description": error.detail}, error.status_code)


def of_fault(path: str) -> Response:
    """Render an exception nobody expected; the two spellings are the hosted service's, by route."""
    spelling = "occurred" if path.rstrip("/").endswith("outputs") else "occured"
    return GoResponse({"error": f"An unknown error has {spelling}"}, 500)
