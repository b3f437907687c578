"""What surrounds every request: its id, its log line, the last catch for exceptions, and the limit on its body.

Plain ASGI, so that nothing is buffered and the handlers see a client's disconnection.
"""

import re
import time
from uuid import uuid4

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sfumato.api.errors import render_error, render_fault
from sfumato.core.errors import BodyTooLarge

logger = structlog.get_logger(__name__)

REQUEST_ID_HEADER = "X-Request-Id"
PROCESS_TIME_HEADER = "X-Process-Time"
_GIVEN_ID = re.compile(r"[0-9A-Za-z._-]{1,64}")
_CLIENT_ERROR = 400


class RequestContext:
    """Gives a request an id (the caller's, if it is a plain word), in its answer and in every log line about it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get(REQUEST_ID_HEADER, "")
        answer = _Answer(send, given if _GIVEN_ID.fullmatch(given) else uuid4().hex)
        with structlog.contextvars.bound_contextvars(
            request_id=answer.request_id, method=scope["method"], path=scope["path"]
        ):
            await self._run(scope, receive, answer)

    async def _run(self, scope: Scope, receive: Receive, answer: "_Answer") -> None:
        try:
            await self._app(scope, receive, answer.send)
        except ClientDisconnect:
            logger.info("client left")
        except Exception:
            logger.exception("request failed")
            if answer.status is None:
                await render_fault(scope["path"])(scope, receive, answer.send)
        finally:
            is_quiet = answer.status is not None and answer.status < _CLIENT_ERROR and scope["method"] != "POST"
            log = logger.debug if is_quiet else logger.info
            log("request", status=answer.status, seconds=round(answer.seconds, 4))


class _Answer:
    """The way out of one request: adds the headers that every response has and remembers the status."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        self._started = time.perf_counter()
        self.request_id = request_id
        self.status: int | None = None

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._started

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers[REQUEST_ID_HEADER] = self.request_id
            headers[PROCESS_TIME_HEADER] = f"{self.seconds:.4f}"
            headers.setdefault("X-Content-Type-Options", "nosniff")
        await self._send(message)


class BodyLimit:
    """Refuses bodies over `max_bytes`: by what the request announces, and by what really comes."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        announced = Headers(scope=scope).get("content-length", "")
        if announced.isdecimal() and int(announced) > self._max_bytes:
            logger.info("refused", code=BodyTooLarge.code, announced_bytes=int(announced))
            await render_error(scope["path"], self._error())(scope, receive, send)
            return
        await self._app(scope, self._counted(receive), send)

    def _counted(self, receive: Receive) -> Receive:
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._max_bytes:
                raise self._error()
            return message

        return counted

    def _error(self) -> BodyTooLarge:
        return BodyTooLarge(f"The request body is over the limit of {self._max_bytes} bytes.")
