"""Which waiting jobs run next: pure policy over what waits and what runs. No clock, no database, no engine."""

from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sfumato.storage.jobs import WaitingJob


@dataclass(frozen=True, kw_only=True)
class RunningJob:
    """A job that an engine has. `was_interrupted`: an engine died under it before."""

    id: UUID
    user_id: UUID
    image_count: int
    was_interrupted: bool = False


def choose(waiting: Sequence[WaitingJob], running: Sequence[RunningJob], capacity_images: int) -> list[UUID]:
    """Return the jobs to start now, in order.

    Users take turns: next is a job of the user with the fewest pictures in flight, and of those the oldest.

    Jobs start while fewer than `capacity_images` pictures are in flight. The last one may go over: were it to wait for
    room, a job of many pictures could wait for ever behind small ones.

    A job under which an engine died runs alone. If it is the one that kills engines, it takes no other down with it
    a second time.
    """
    if any(job.was_interrupted for job in running):
        return []
    queues = _queues_by_user(waiting)
    in_flight: dict[UUID, int] = defaultdict(int)
    for job in running:
        in_flight[job.user_id] += job.image_count
    chosen: list[UUID] = []
    while queues and (total := sum(in_flight.values())) < capacity_images:
        user_id = min(queues, key=lambda user: (in_flight[user], *_age(queues[user][0])))
        candidate = queues[user_id][0]
        if candidate.was_interrupted:
            return chosen if total else [candidate.id]
        chosen.append(candidate.id)
        in_flight[user_id] += candidate.image_count
        queues[user_id].popleft()
        if not queues[user_id]:
            del queues[user_id]
    return chosen


def _queues_by_user(waiting: Sequence[WaitingJob]) -> dict[UUID, deque[WaitingJob]]:
    queues: dict[UUID, deque[WaitingJob]] = {}
    for job in sorted(waiting, key=_age):
        queues.setdefault(job.user_id, deque()).append(job)
    return queues


def _age(job: WaitingJob) -> tuple[datetime, UUID]:
    return job.created_at, job.id
