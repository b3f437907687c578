"""What this dialect remembers between requests, in memory, for the life of the application."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from sfumato.api.sdapi.options import CheckpointChoices
from sfumato.api.sdapi.styles import StyleBook
from sfumato.api.sdapi.tasks import Tasks


@dataclass(frozen=True, kw_only=True)
class SdapiState:
    """Each caller's chosen options and waiting tasks, and the styles of all."""

    checkpoints: CheckpointChoices
    tasks: Tasks
    styles: StyleBook


def _state_of(request: Request) -> SdapiState:
    state: SdapiState = request.app.state.sdapi
    return state


StateOf = Annotated[SdapiState, Depends(_state_of)]
