"""Errors in AUTOMATIC1111's three shapes (docs/sdapi.md, section "Errors")."""

from fastapi import Response
from starlette.exceptions import HTTPException

from sfumato.api.sdapi.wire import FieldErrors, SdapiResponse, error_body, exception_body
from sfumato.core.errors import InsufficientCredits, InvalidRequest, SfumatoError, Unauthorized, UnknownSampler

_UNROUTED = (404, 405)
_FAULT = 500
_WIRE_NAMES = {
    "guidance_scale": "cfg_scale",
    "churn": "s_churn",
    "churn_min_sigma": "s_tmin",
    "churn_max_sigma": "s_tmax",
    "noise_scale": "s_noise",
}


def of_error(error: SfumatoError) -> Response:
    """Render an error of ours: a mistake of the caller as an HTTPException, a fault as its exception."""
    if isinstance(error, Unauthorized):
        headers = {"WWW-Authenticate": 'Basic realm="sfumato"'}
        return SdapiResponse(error_body(error.message), error.status, headers)
    if error.status >= _FAULT:
        return SdapiResponse(exception_body(type(error).__name__, error.message), error.status)
    if isinstance(error, UnknownSampler):
        what = "Scheduler" if error.field == "scheduler" else "Sampler"
        return SdapiResponse(error_body(f"{what} not found", hint=f"{error.message} {error.hint}"), error.status)
    if isinstance(error, InsufficientCredits):
        return SdapiResponse(error_body("insufficient_credits", hint=error.message), error.status)
    return SdapiResponse(error_body(_in_wire_words(error), hint=error.hint), error.status)


def _in_wire_words(error: SfumatoError) -> str:
    """Return the message with a field at its beginning called as it is on this wire."""
    field = error.field if isinstance(error, InvalidRequest) else None
    if field in _WIRE_NAMES and error.message.startswith(f"{field} "):
        return error.message.replace(field, _WIRE_NAMES[field], 1)
    return error.message


def of_http(error: HTTPException) -> Response:
    """Render a missing route or method as Starlette does, and what a handler raises as upstream does."""
    body = {"detail": error.detail} if error.status_code in _UNROUTED else error_body(error.detail)
    return SdapiResponse(body, error.status_code, error.headers)


def of_field_errors(error: FieldErrors) -> Response:
    """Render what does not fit the schema."""
    return SdapiResponse({"detail": error.errors}, 422)


def of_fault(_path: str) -> Response:
    """Render an exception nobody expected."""
    return SdapiResponse(exception_body("InternalServerError", "Something went wrong in the server."), _FAULT)
