"""Where engines run. A host starts one engine, carries messages to and from it, and says when it is gone."""

from collections.abc import AsyncIterator
from typing import Protocol

from sfumato.core.messages import FromEngine, ToEngine


class Host(Protocol):
    """A place for one engine at a time, which may be started again after it is gone.

    `id` is unique among all hosts of all processes that share a database, also of earlier ones.
    """

    @property
    def id(self) -> str: ...

    async def start(self) -> None:
        """Start an engine; it says `Ready` by itself. Raises `OSError` when it cannot be started."""

    def send(self, message: ToEngine) -> None:
        """Hand over a message without waiting. One for an engine that is gone is dropped: the end of `events` tells."""

    def events(self) -> AsyncIterator[FromEngine]:
        """Yield what the engine started last says, until it is gone."""

    async def stop(self) -> None:
        """End the engine, if there is one, and return when it is gone."""
