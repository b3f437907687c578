"""Whether the service lives, whether it can generate, and its numbers."""

import structlog
from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse

from sfumato.api.auth import Administrator
from sfumato.api.public import public
from sfumato.api.services import Services, ServicesOf
from sfumato.storage import jobs

logger = structlog.get_logger(__name__)

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@public
async def show_liveness() -> Response:
    """Answer 200 as long as the process serves requests."""
    return JSONResponse({"status": "ok"})


@public
async def show_readiness(services: ServicesOf) -> Response:
    """Answer 200 when an engine is up and the database answers, else 503 with what is missing."""
    parts = {"engine": services.service.is_ready, "database": await _database_answers(services)}
    is_ready = all(parts.values())
    return JSONResponse({"status": "ok" if is_ready else "unavailable", **parts}, 200 if is_ready else 503)


async def show_metrics(services: ServicesOf, _caller: Administrator) -> Response:
    """Send the numbers in Prometheus' text format, to administrators."""
    return Response(services.service.metrics.render(), media_type=METRICS_TYPE)


def add_routes(router: APIRouter) -> None:
    """Add the routes of this module."""
    router.get("/healthz")(show_liveness)
    router.get("/readyz")(show_readiness)
    router.get("/metrics")(show_metrics)


async def _database_answers(services: Services) -> bool:
    try:
        async with services.db.read() as session:
            await jobs.count_queued(session)
    except Exception:
        logger.exception("the database does not answer")
        return False
    return True
