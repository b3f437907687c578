"""Identifiers: random for rows, derived for things that must be the same on every machine."""

import uuid

_NAMESPACE = uuid.UUID("5f0a7d8e-3c1b-5b0e-9c55-7a1d5f2c8a11")


def new_id() -> uuid.UUID:
    """Return a fresh random identifier (RFC 9562, version 4)."""
    return uuid.uuid4()


def derived_id(kind: str, name: str) -> uuid.UUID:
    """Return the identifier that every installation gives the same thing, such as a model of this name (version 5)."""
    return uuid.uuid5(_NAMESPACE, f"{kind}/{name}")
