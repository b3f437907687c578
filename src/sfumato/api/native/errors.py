"""Errors on Sfumato's own routes: `{"error": code, "message": sentence, "hint"?: what to do next}`."""

from fastapi import Response
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from sfumato.core.errors import SfumatoError, Unauthorized


def of_error(error: SfumatoError) -> Response:
    """Render an error of ours."""
    body = {"error": error.code, "message": error.message}
    if error.hint:
        body["hint"] = error.hint
    headers = {"WWW-Authenticate": "Bearer"} if isinstance(error, Unauthorized) else None
    return JSONResponse(body, error.status, headers)


def of_http(error: HTTPException) -> Response:
    """Render a missing route or method."""
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "error")
    return JSONResponse({"error": code, "message": f"{error.detail}."}, error.status_code, error.headers)


def of_fault(_path: str) -> Response:
    """Render an exception nobody expected."""
    return JSONResponse({"error": "internal_error", "message": "Something went wrong in the server."}, 500)
