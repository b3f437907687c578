"""The web application: routes, middleware and error handlers around a set of services."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial

from fastapi import FastAPI
from fastapi.routing import APIRoute

import sfumato
from sfumato.api import openapi
from sfumato.api.errors import add_error_handlers
from sfumato.api.middleware import BodyLimit, RequestContext
from sfumato.api.native.router import add_native_routes
from sfumato.api.public import undeclared
from sfumato.api.sdapi.options import CheckpointChoices
from sfumato.api.sdapi.router import add_sdapi_routes
from sfumato.api.sdapi.state import SdapiState
from sfumato.api.sdapi.styles import StyleBook
from sfumato.api.sdapi.tasks import Tasks
from sfumato.api.services import Services
from sfumato.api.stablecog.router import add_stablecog_routes


def create_app(services: Services) -> FastAPI:
    """Build the application. Its lifespan starts the engines, stops them and closes the database.

    Raises `RuntimeError` when a route neither asks for a caller nor is public.
    """
    app = FastAPI(
        title="Sfumato",
        summary="Self-hosted image generation behind the Stablecog and AUTOMATIC1111 APIs",
        version=sfumato.__version__,
        lifespan=_lifespan(services),
        openapi_url=None,  # the pages serve the document and Swagger UI themselves, without other servers
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=_operation_id,
    )
    app.state.services = services
    app.state.sdapi = SdapiState(
        checkpoints=CheckpointChoices(services.registry), tasks=Tasks(), styles=StyleBook.of(services.settings)
    )
    for add_routes in (add_native_routes, add_stablecog_routes, add_sdapi_routes):
        add_routes(app.router)  # not as routers of their own: the walk below must see every route
    add_error_handlers(app)
    app.add_middleware(BodyLimit, max_bytes=services.settings.max_body_bytes)
    app.add_middleware(RequestContext)  # the last one added is the outermost
    app.openapi = partial(openapi.describe, app)  # type: ignore[method-assign]
    if open_by_mistake := undeclared(app.routes):
        raise RuntimeError(f"routes that neither ask for a caller nor are public: {open_by_mistake}")
    return app


def _lifespan(services: Services) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def run(_app: FastAPI) -> AsyncIterator[None]:
        try:
            await services.service.start()
            yield
        finally:
            await services.service.stop()
            await services.db.close()

    return run


def _operation_id(route: APIRoute) -> str:
    return f"{route.name}:{route.path_format}"
