"""Who is calling: a key in the `Authorization` header, read as each dialect's clients send it.

A handler asks for a caller by the type of a parameter (`caller: StablecogCaller`); there is no other way in but
`@public`. Keys themselves are checked by `sfumato.accounts.keys`.
"""

import base64
import binascii
from ipaddress import ip_address
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Depends, Request

from sfumato.accounts.keys import Caller, authenticate
from sfumato.accounts.users import Role, list_users
from sfumato.api.public import authenticates
from sfumato.api.services import ServicesOf
from sfumato.core.errors import Forbidden, Unauthorized
from sfumato.storage.database import Database

NO_CREDENTIALS = "Not authenticated"
BAD_CREDENTIALS = "Incorrect username or password"

_BEARER = "Bearer "
_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
_PROXY_HEADERS = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip")


@authenticates
async def stablecog_caller(request: Request, services: ServicesOf) -> Caller:
    """Take `Bearer` and a key, with that case and exactly once, as the hosted service does."""
    header = request.headers.get("authorization", "")
    if not header.startswith(_BEARER) or header.count(_BEARER) != 1:
        raise Unauthorized(NO_CREDENTIALS)
    return await authenticate(services.db, header.removeprefix(_BEARER))


@authenticates
async def sdapi_caller(request: Request, services: ServicesOf) -> Caller:
    """Take a key as a Bearer token, or as the password of HTTP Basic with any user name.

    On a server told to be open on loopback, a request that provably comes from this machine needs none, and then a
    header that says nothing useful is overlooked: several clients always send one.
    """
    key = _key_from(request.headers.get("authorization", ""))
    is_open = services.settings.sdapi_open_on_loopback and is_local(request)
    try:
        if key is None:
            raise Unauthorized(NO_CREDENTIALS)
        return await authenticate(services.db, key)
    except Unauthorized:
        if is_open:
            return await _first_administrator(services.db)
        raise Unauthorized(NO_CREDENTIALS if key is None else BAD_CREDENTIALS) from None


@authenticates
async def native_caller(request: Request, services: ServicesOf) -> Caller:
    """Take a key as a Bearer token or as the password of HTTP Basic; the latter serves browsers and scrapers."""
    key = _key_from(request.headers.get("authorization", ""))
    if key is None:
        raise Unauthorized("This needs an API key.", hint="Send it as `Authorization: Bearer sc-...`.")
    return await authenticate(services.db, key)


@authenticates
async def administrator(caller: Annotated[Caller, Depends(native_caller)]) -> Caller:
    """Take an administrator's key; raise `Forbidden` for any other."""
    if caller.role != Role.ADMIN:
        raise Forbidden("This is for administrators.")
    return caller


StablecogCaller = Annotated[Caller, Depends(stablecog_caller)]
SdapiCaller = Annotated[Caller, Depends(sdapi_caller)]
NativeCaller = Annotated[Caller, Depends(native_caller)]
Administrator = Annotated[Caller, Depends(administrator)]


def is_local(request: Request) -> bool:
    """Say whether a request comes from this machine and means to.

    The address must be loopback, no proxy may stand between, and the names in `Host` and `Origin` must be this
    machine's own: otherwise a web page open in a browser here could speak for its owner (DNS rebinding, cross-site
    requests).
    """
    if request.client is None or not _is_loopback(request.client.host):
        return False
    if any(name in request.headers for name in _PROXY_HEADERS):
        return False
    host = request.headers.get("host", "")
    if _name_of(f"//{host}") not in _LOOPBACK_NAMES:
        return False
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return False
    origin = request.headers.get("origin")
    return origin is None or origin.partition("://")[2].casefold() == host.casefold()


async def _first_administrator(db: Database) -> Caller:
    for user in await list_users(db):
        if user.role is Role.ADMIN and user.is_active:
            return Caller(user_id=user.id, username=user.username, role=user.role.value, api_key_id=None)
    raise Unauthorized(NO_CREDENTIALS)


def _key_from(header: str) -> str | None:
    scheme, _, credentials = header.strip().partition(" ")
    if scheme.casefold() == "bearer":
        return credentials.strip() or None
    if scheme.casefold() == "basic":
        return _password(credentials.strip())
    return None


def _password(credentials: str) -> str | None:
    try:
        user, colon, password = base64.b64decode(credentials, validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        return None
    return (password or user) if colon or user else None


def _is_loopback(address: str) -> bool:
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return False


def _name_of(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None
