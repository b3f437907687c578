"""The requests of this dialect that are under way, by task id, so that their owner can watch and interrupt them.

AUTOMATIC1111 knows one job at a time, whoever's it is; here every question is about the caller's own. Kept in memory
only: a task is an HTTP request waiting in this process.
"""

import secrets
import string
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from sfumato.core.requests import GenerationRequest

_REMEMBERED = 16  # finished tasks that still answer "completed", per user, as upstream
_ID_LETTERS = string.ascii_uppercase + string.digits


@dataclass(frozen=True, kw_only=True)
class Task:
    """A waiting request. `batches` are its `n_iter`; pictures of all batches are made by one job."""

    id: str
    job_id: UUID
    request: GenerationRequest
    batches: int
    started_at: datetime


@dataclass
class _OfUser:
    active: dict[UUID, Task] = field(default_factory=dict)
    finished: deque[str] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))
    last: Task | None = None


@dataclass(frozen=True)
class Tasks:
    """All users' tasks."""

    _users: dict[UUID, _OfUser] = field(default_factory=dict)

    @contextmanager
    def running(self, user_id: UUID, task: Task) -> Iterator[None]:
        """Hold a task as the user's while its request waits."""
        mine = self._users.setdefault(user_id, _OfUser())
        mine.active[task.job_id] = mine.last = task
        try:
            yield
        finally:
            del mine.active[task.job_id]
            mine.finished.append(task.id)

    def active(self, user_id: UUID) -> list[Task]:
        """Return the user's tasks, oldest first."""
        return list(self._users.get(user_id, _OfUser()).active.values())

    def find(self, user_id: UUID, task_id: str) -> Task | None:
        """Return the user's waiting task of this id."""
        return next((task for task in self.active(user_id) if task.id == task_id), None)

    def is_finished(self, user_id: UUID, task_id: str) -> bool:
        """Say whether a task is among the user's last finished ones."""
        return task_id in self._users.get(user_id, _OfUser()).finished

    def last(self, user_id: UUID) -> Task | None:
        """Return the task the user began last, waiting or finished."""
        return self._users.get(user_id, _OfUser()).last


def new_task_id() -> str:
    """Return an id as upstream makes them: `task(txt2img-XXXXXXX)`."""
    return f"task(txt2img-{''.join(secrets.choice(_ID_LETTERS) for _ in range(7))})"
