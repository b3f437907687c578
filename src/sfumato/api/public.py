"""The one marker that opens a route to callers without a key.

Every other route must take a caller in its signature; `create_app` refuses to build an application in which a route
does neither, so forgetting is an error at start and not an open door.
"""

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])
_PUBLIC = "__sfumato_public__"
_CALLER = "__sfumato_caller__"


def public(endpoint: Endpoint) -> Endpoint:
    """Mark a route's function as open to everyone."""
    setattr(endpoint, _PUBLIC, True)
    return endpoint


def authenticates(dependency: Endpoint) -> Endpoint:
    """Mark a dependency as one that raises unless the request carries a valid key."""
    setattr(dependency, _CALLER, True)
    return dependency


def is_public(route: BaseRoute) -> bool:
    """Say whether a route was declared open; only a plain route can be."""
    return isinstance(route, APIRoute) and getattr(route.endpoint, _PUBLIC, False)


def undeclared(routes: Iterable[BaseRoute]) -> list[str]:
    """Return the paths that neither ask for a caller nor are public, mounts and websockets included."""
    return [str(getattr(route, "path", route)) for route in routes if not is_public(route) and not _asks(route)]


def _asks(route: BaseRoute) -> bool:
    return isinstance(route, APIRoute) and _has_caller(route.dependant)


def _has_caller(dependant: Dependant) -> bool:
    if getattr(dependant.call, _CALLER, False):
        return True
    return any(_has_caller(inner) for inner in dependant.dependencies)
