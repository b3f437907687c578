"""What the wires, the command line and the page ask for: submit a request, wait for it, cancel it, see how far it is.

Knows every part of scheduling and ties them together; the work is theirs.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from sfumato.accounts import credits as ledger
from sfumato.accounts.keys import Caller
from sfumato.core.errors import EngineUnavailable, GenerationTimeout, QueueFull
from sfumato.core.jobs import Dialect, Job, JobStatus
from sfumato.core.requests import NO_VAE, GenerationRequest
from sfumato.models.registry import ModelRegistry
from sfumato.scheduling import outcomes
from sfumato.scheduling.dispatcher import Dispatcher
from sfumato.scheduling.hosts import Host
from sfumato.scheduling.metrics import Metrics
from sfumato.scheduling.progress import JobProgress, ProgressBoard
from sfumato.settings import Settings
from sfumato.storage import jobs
from sfumato.storage.database import Database
from sfumato.storage.objects import ObjectStore
from sfumato.storage.sources import keep

__all__ = ["EngineInfo", "GenerationService", "JobProgress"]

CREDITS_PER_IMAGE = 1


@dataclass(frozen=True, kw_only=True)
class EngineInfo:
    """The device an engine computes on, and the number format of its networks."""

    device: str
    precision: str
    memory_total_bytes: int


class GenerationService:
    """The front of scheduling. Between `start` and `stop` it serves; a job outlives it in the database."""

    def __init__(
        self,
        db: Database,
        objects: ObjectStore,
        registry: ModelRegistry,
        hosts: Sequence[Host],
        settings: Settings,
        *,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._db = db
        self._registry = registry
        self._settings = settings
        self._board = ProgressBoard()
        self._is_stopped = False
        self._objects = objects
        self.metrics = Metrics(lambda: self.queue_depth)
        self._dispatcher = Dispatcher(
            db=db,
            objects=objects,
            registry=registry,
            hosts=hosts,
            settings=settings,
            board=self._board,
            metrics=self.metrics,
            pause=pause,
        )

    async def start(self) -> None:
        """Take up what an earlier run left, and start the engines; returns before they are ready."""
        await self._dispatcher.start()

    async def stop(self) -> None:
        """Stop the engines; unfinished jobs stay accepted and run at the next start. Whoever waits for one is told."""
        self._is_stopped = True
        await self._dispatcher.stop()
        self._board.drop_all()

    @property
    def is_ready(self) -> bool:
        """Whether an engine takes jobs now."""
        return bool(self._dispatcher.ready_engines)

    @property
    def engine_info(self) -> EngineInfo | None:
        """What the first engine says of itself; None while there is none."""
        for ready in self._dispatcher.ready_engines:
            return EngineInfo(
                device=ready.device, precision=ready.precision, memory_total_bytes=ready.memory_total_bytes
            )
        return None

    @property
    def queue_depth(self) -> int:
        """How many jobs wait for an engine."""
        return self._board.queue_depth

    async def submit(
        self, caller: Caller, request: GenerationRequest, dialect: Dialect, sources: Sequence[bytes] = ()
    ) -> Job:
        """Accept a request: charge it and put it in the queue, in one transaction.

        `sources` are the pictures it names (`storage.sources`); they are stored first, so that a job in the queue
        never lacks one.
        Raises `InvalidRequest` or a kind of it, `QueueFull` or `InsufficientCredits`; nothing is charged then.
        """
        model = self._registry.find(request.model)
        vae = self._registry.find_vae(request.vae, model)
        vae_hash = (vae.short_hash if vae else None) or ""
        if request.hires is not None and request.hires.model is not None:
            second = self._registry.find(request.hires.model)
            request = replace(request, hires=replace(request.hires, model=second.name))
        if request.refiner is not None:
            refiner = self._registry.find(request.refiner.model)
            request = replace(request, refiner=replace(request.refiner, model=refiner.name))
        request = replace(request, model=model.name, vae=vae.name if vae else NO_VAE, vae_hash=vae_hash).validated()
        cost_credits = CREDITS_PER_IMAGE * request.image_count
        await keep(self._objects, sources)
        job: Job | None = None
        try:
            async with self._db.write() as session:
                await self._require_room(session, caller.user_id)
                job = await jobs.insert_job(
                    session,
                    user_id=caller.user_id,
                    api_key_id=caller.api_key_id,
                    dialect=dialect,
                    request=request,
                    cost_credits=cost_credits,
                )
                await ledger.charge(session, caller.user_id, job.id, cost_credits)
                self._board.track(job)
        except BaseException:
            if job is not None:
                self._board.ended(job.id)
            raise
        finally:
            # Also when this call is canceled in mid-commit: the job may be in the queue all the same.
            self._dispatcher.wake()
        return job

    async def job(self, job_id: UUID) -> Job:
        """Return a job as it is now. Raises `NotFound`."""
        async with self._db.read() as session:
            return await jobs.get_job(session, job_id)

    async def wait(self, job_id: UUID, *, timeout_seconds: float | None = None) -> Job:
        """Wait for a job's end and return it, with its outputs if it succeeded.

        After `timeout_seconds` the job is ended as failed and refunded, and `GenerationTimeout` is raised. Raises
        `EngineUnavailable` when the service stops; the job then runs at the next start. Raises `NotFound`.
        """
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._end_of(job_id)
        except TimeoutError:
            message = f"The pictures were not ready after {timeout_seconds:g} seconds."
            job = await self.job(job_id)
            if await outcomes.fail(self._db, job, GenerationTimeout.code, message):
                self._abandon(job, JobStatus.FAILED)
                raise GenerationTimeout(message, hint="Its credits are refunded; ask for less.") from None
        return await self.job(job_id)

    async def cancel(self, job_id: UUID, *, keep_partial: bool = False) -> None:
        """End a job and refund it; one that has ended stays as it is. Raises `NotFound`.

        With `keep_partial` an engine that has the job hands over the pictures as far as they are, and the job
        succeeds with those; pictures that were not begun are refunded.
        """
        if keep_partial and self._dispatcher.interrupt(job_id):
            return
        job = await self.job(job_id)
        if await outcomes.cancel(self._db, job):
            self._abandon(job, JobStatus.CANCELED)

    def progress(self, job_id: UUID) -> JobProgress | None:
        """Return how far an open job is; None if it has ended or never was."""
        return self._board.progress(job_id)

    def active(self, user_id: UUID | None = None) -> list[JobProgress]:
        """Return all jobs that wait or run, of one user or of all, oldest first."""
        return self._board.active(user_id)

    async def balance(self, user_id: UUID) -> int:
        """Return the credits that a user can spend now."""
        async with self._db.read() as session:
            return await ledger.balance(session, user_id)

    async def _require_room(self, session: AsyncSession, user_id: UUID) -> None:
        hint = "Try again when some of them are done."
        if await jobs.count_queued(session, user_id) >= self._settings.max_queued_jobs_per_user:
            raise QueueFull("Too many of your jobs are waiting.", hint=hint)
        if await jobs.count_queued(session) >= self._settings.max_queued_jobs:
            raise QueueFull("Too many jobs are waiting.", hint=hint)

    async def _end_of(self, job_id: UUID) -> None:
        if not self._board.follows(job_id):
            job = await self.job(job_id)
            if job.status.is_final:
                return
            self._board.track(job)
            if (await self.job(job_id)).status.is_final:  # it ended before it was followed
                self._board.ended(job_id)
                return
        if self._is_stopped or not await self._board.until_ended(job_id):
            raise EngineUnavailable(
                "The server is stopping; the job is kept.", hint="Its pictures will be in your history."
            )

    def _abandon(self, job: Job, status: JobStatus) -> None:
        self._board.ended(job.id)
        self._dispatcher.abandon(job.id)
        self.metrics.job_ended(job, status)
        self._dispatcher.wake()
