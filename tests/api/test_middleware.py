"""What surrounds every request."""

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from structlog.contextvars import get_contextvars
from structlog.testing import capture_logs

from tests.api.harness import CREATE, TXT2IMG, run_api

LIMIT = 1024


async def chunks(size: int) -> AsyncIterator[bytes]:
    for _ in range(size // 256):
        yield b" " * 256


async def test_every_answer_names_its_request(tmp_path: Path) -> None:
    async with run_api(tmp_path) as api:
        first, second = [(await api.client.get(path)).headers["x-request-id"] for path in ("/healthz", "/nowhere")]
        assert re.fullmatch("[0-9a-f]{32}", first)
        assert first != second


async def test_a_plain_request_id_is_taken_over_and_any_other_replaced(tmp_path: Path) -> None:
    async with run_api(tmp_path) as api:
        taken = await api.client.get("/healthz", headers={"X-Request-Id": "abc-1.2_3"})
        replaced = await api.client.get("/healthz", headers={"X-Request-Id": "a b<script>"})
        assert taken.headers["x-request-id"] == "abc-1.2_3"
        assert re.fullmatch("[0-9a-f]{32}", replaced.headers["x-request-id"])


async def test_every_answer_tells_its_time_with_four_decimals(tmp_path: Path) -> None:
    async with run_api(tmp_path) as api:
        assert re.fullmatch(r"\d+\.\d{4}", (await api.get("/sdapi/v1/options")).headers["x-process-time"])


@pytest.mark.parametrize("announced", [True, False], ids=["announced", "chunked"])
async def test_a_body_over_the_limit_is_refused_in_the_dialects_shape(tmp_path: Path, announced: bool) -> None:
    body = b" " * (LIMIT * 2)
    text = f"The request body is over the limit of {LIMIT} bytes."
    async with run_api(tmp_path, max_body_bytes=LIMIT) as api:
        create = await api.client.post(
            CREATE, content=body if announced else chunks(LIMIT * 2), headers=api.user.bearer
        )
        txt2img = await api.client.post(
            TXT2IMG, content=body if announced else chunks(LIMIT * 2), headers=api.user.basic
        )
        assert (create.status_code, create.json()) == (413, {"error": "body_too_large", "description": text})
        assert txt2img.status_code == 413
        assert txt2img.json() == {"error": "HTTPException", "detail": text, "body": "", "errors": ""}
        assert await api.balance() == 100


async def test_a_body_of_the_limit_is_read(tmp_path: Path) -> None:
    async with run_api(tmp_path, max_body_bytes=LIMIT) as api:
        body = b'{"num_outputs": 1}'.ljust(LIMIT)
        assert (await api.client.post(CREATE, content=body, headers=api.user.bearer)).status_code == 200


@pytest.mark.parametrize(
    ("path", "status", "text"),
    [
        ("/v1/nowhere", 404, "404 page not found\n"),
        ("/v1/", 404, "404 page not found\n"),
        ("/v1/image/defaults/generate/", 404, "404 page not found\n"),
        ("/v1/image/generate", 405, ""),
        ("/sdapi/v1/nowhere", 404, '{"detail":"Not Found"}'),
        ("/controlnet/version", 404, '{"detail":"Not Found"}'),
        ("/sdapi/v1/txt2img", 405, '{"detail":"Method Not Allowed"}'),
        ("/nowhere", 404, '{"error":"not_found","message":"Not Found."}'),
    ],
)
async def test_missing_routes_and_methods_are_told_in_the_dialects_shape(
    tmp_path: Path, path: str, status: int, text: str
) -> None:
    async with run_api(tmp_path) as api:
        response = await api.client.get(path)
        assert (response.status_code, response.text) == (status, text)


@pytest.mark.parametrize(
    ("method", "path", "text"),
    [
        ("GET", "/v1/credits", '{"error":"An unknown error has occured"}\n'),
        ("GET", "/v1/image/outputs", '{"error":"An unknown error has occurred"}\n'),
        (
            "POST",
            TXT2IMG,
            '{"error":"InternalServerError","detail":"","body":"","errors":"Something went wrong in the server."}',
        ),
        ("GET", "/metrics", '{"error":"internal_error","message":"Something went wrong in the server."}'),
    ],
)
async def test_a_fault_tells_the_client_nothing_of_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, path: str, text: str
) -> None:
    async def explode(*_args: object, **_named: object) -> None:
        raise ZeroDivisionError("a secret of the server")

    async with run_api(tmp_path) as api:
        monkeypatch.setattr("sfumato.api.auth.authenticate", explode)
        with capture_logs() as lines:
            response = await api.client.request(method, path, headers=api.user.bearer, json={})
        assert (response.status_code, response.text) == (500, text)
        assert "x-request-id" in response.headers
        (failure,) = [line for line in lines if line["log_level"] == "error"]
        assert failure["event"] == "request failed"
        assert failure["exc_info"]


async def test_log_lines_of_a_refusal_can_be_found_by_the_request_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, object]] = []

    def record(_logger: object, _method: str, line: dict[str, object]) -> dict[str, object]:
        seen.append((str(line["event"]), get_contextvars().get("request_id")))
        return line

    async with run_api(tmp_path) as api:
        with capture_logs(processors=[record]):
            await api.client.post(CREATE, content=b"{", headers={**api.user.bearer, "X-Request-Id": "find-me"})
    assert ("refused", "find-me") in seen
    assert ("request", "find-me") in seen
