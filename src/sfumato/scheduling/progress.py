"""How far each open job is, in memory: for whoever asks for progress and whoever waits for the end."""

import asyncio
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from sfumato.core.jobs import Job, JobStatus


@dataclass(frozen=True, kw_only=True)
class JobProgress:
    """How far a job is. `step` and `steps` are sums over its pictures; `fraction` goes from 0 to 1."""

    job_id: UUID
    user_id: UUID
    status: JobStatus
    step: int
    steps: int
    images_done: int
    image_count: int
    created_at: datetime
    started_at: datetime | None

    @property
    def fraction(self) -> float:
        return min(1.0, self.step / self.steps) if self.steps else 0.0


@dataclass(kw_only=True)
class _Entry:
    job: Job
    started_at: datetime | None = None
    steps: dict[int, tuple[int, int]] = field(default_factory=dict)
    images_done: set[int] = field(default_factory=set)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    was_dropped: bool = False

    def progress(self) -> JobProgress:
        request = self.job.request
        reported = [self.steps.get(index, (0, request.steps)) for index in range(request.image_count)]
        return JobProgress(
            job_id=self.job.id,
            user_id=self.job.user_id,
            status=JobStatus.RUNNING if self.started_at else JobStatus.QUEUED,
            step=sum(
                steps if index in self.images_done else min(step, steps) for index, (step, steps) in enumerate(reported)
            ),
            steps=sum(steps for _, steps in reported),
            images_done=len(self.images_done),
            image_count=request.image_count,
            created_at=self.job.created_at,
            started_at=self.started_at,
        )


class ProgressBoard:
    """All open jobs of this process. The database stays the truth; this is what need not be asked of it."""

    def __init__(self) -> None:
        self._entries: dict[UUID, _Entry] = {}

    @property
    def queue_depth(self) -> int:
        return sum(1 for entry in self._entries.values() if entry.started_at is None)

    def track(self, job: Job) -> None:
        """Begin to follow an open job, if it is not followed already."""
        self._entries.setdefault(job.id, _Entry(job=job, started_at=job.started_at))

    def started(self, job: Job) -> None:
        """Note that an engine has the job now."""
        self.track(job)
        self._entries[job.id].started_at = job.started_at

    def stepped(self, job_id: UUID, index: int, step: int, steps: int) -> None:
        """Note how far a picture is."""
        if entry := self._entries.get(job_id):
            entry.steps[index] = (step, steps)

    def image_done(self, job_id: UUID, index: int) -> None:
        """Note that a picture is stored."""
        if entry := self._entries.get(job_id):
            entry.images_done.add(index)

    def requeued(self, job_id: UUID) -> None:
        """Note that a job waits again and begins anew."""
        if entry := self._entries.get(job_id):
            entry.started_at = None
            entry.steps.clear()
            entry.images_done.clear()

    def ended(self, job_id: UUID) -> None:
        """Forget a job and wake whoever waits for its end."""
        if entry := self._entries.pop(job_id, None):
            entry.ended.set()

    def drop_all(self) -> None:
        """Forget all jobs, which have not ended, and wake whoever waits for them."""
        entries, self._entries = self._entries, {}
        for entry in entries.values():
            entry.was_dropped = True
            entry.ended.set()

    def follows(self, job_id: UUID) -> bool:
        """Whether a job is followed here."""
        return job_id in self._entries

    async def until_ended(self, job_id: UUID) -> bool:
        """Wait until a job has ended; False if it was dropped instead. One that is not followed has ended."""
        entry = self._entries.get(job_id)
        if entry is None:
            return True
        await entry.ended.wait()
        return not entry.was_dropped

    def progress(self, job_id: UUID) -> JobProgress | None:
        """Return how far an open job is; None if it is not open."""
        entry = self._entries.get(job_id)
        return entry.progress() if entry else None

    def active(self, user_id: UUID | None = None) -> list[JobProgress]:
        """Return all open jobs, of one user or of all, oldest first."""
        found = [entry.progress() for entry in self._entries.values() if user_id in (None, entry.job.user_id)]
        return sorted(found, key=lambda progress: (progress.created_at, progress.job_id))
