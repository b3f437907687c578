"""What this dialect remembers between requests, in memory, for the life of the application."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from sfumato.api.sdapi.options import CheckpointChoices
from sfumato.api.sdapi.tasks import Tasks


@dataclass(frozen=True, kw_only=True)
class SdapiState:
    """Each caller's chosen checkpoint and waiting tasks."""

    checkpoints: CheckpointChoices
    tasks: Tasks


def _state_of(request: Request) -> SdapiState:
    state: SdapiState = request.app.state.sdapi
    return state


StateOf = Annotated[SdapiState, Depends(_state_of)]
