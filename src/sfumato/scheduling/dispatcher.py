"""Gives the queue's jobs to engines: chooses, claims in the database, hands over.

The database is the truth: a job belongs to an engine from the moment its conditional update is committed.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from uuid import UUID

import structlog

from sfumato.core.errors import NotFound, UnknownModel
from sfumato.core.jobs import JobStatus
from sfumato.core.messages import Ready
from sfumato.models.registry import ModelRegistry
from sfumato.scheduling import outcomes
from sfumato.scheduling.hosts import Host
from sfumato.scheduling.metrics import Metrics
from sfumato.scheduling.progress import ProgressBoard
from sfumato.scheduling.queue import choose
from sfumato.scheduling.supervisor import Materials, Supervisor, Surroundings
from sfumato.settings import Settings
from sfumato.storage import jobs
from sfumato.storage.database import Database
from sfumato.storage.jobs import ClaimedJob
from sfumato.storage.objects import ObjectStore

logger = structlog.get_logger(__name__)


class Dispatcher:
    """Owns the hosts, each through a supervisor. `pause` waits some seconds; tests give one that does not."""

    def __init__(
        self,
        *,
        db: Database,
        objects: ObjectStore,
        registry: ModelRegistry,
        hosts: Sequence[Host],
        settings: Settings,
        board: ProgressBoard,
        metrics: Metrics,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._around = Surroundings(
            db=db,
            objects=objects,
            registry=registry,
            board=board,
            metrics=metrics,
            max_job_attempts=settings.max_job_attempts,
            wake=self.wake,
            pause=pause,
        )
        self._capacity_per_engine = settings.max_images_in_flight
        self._engines = [Supervisor(host, self._around) for host in hosts]
        self._claiming: set[UUID] = set()
        self._woken = asyncio.Event()
        self._loop: asyncio.Task[None] | None = None
        self._is_stopping = False

    @property
    def ready_engines(self) -> list[Ready]:
        """What the engines that take jobs now have said of themselves."""
        return [engine.ready for engine in self._engines if engine.ready is not None]

    async def start(self) -> None:
        """Requeue what a process that is gone left running, then start the engines and the queue."""
        await outcomes.recover(self._around.db, None, max_attempts=self._around.max_job_attempts)
        async with self._around.db.read() as session:
            for job in await jobs.open_jobs(session):
                self._around.board.track(job)
        self._loop = asyncio.create_task(self._dispatch_forever())
        for engine in self._engines:
            engine.start()

    async def stop(self) -> None:
        """Stop the engines; the jobs they had wait for the next start and have lost no attempt."""
        self._is_stopping = True
        if self._loop is not None:
            # Not canceled: a write cut off in its middle can hold the database's lock until its connection is gone.
            self.wake()
            await asyncio.gather(self._loop, return_exceptions=True)
        await asyncio.gather(*(engine.stop() for engine in self._engines))
        run_ids = [run_id for engine in self._engines for run_id in engine.run_ids]
        async with self._around.db.write() as session:
            requeued = await jobs.requeue_running(session, run_ids)
        for job_id in requeued:
            self._around.board.requeued(job_id)

    def wake(self) -> None:
        """Look at the queue again soon."""
        self._woken.set()

    def abandon(self, job_id: UUID) -> None:
        """Drop a job that someone else has ended: it must not start, or its engine should stop."""
        self._claiming.discard(job_id)
        for engine in self._engines:
            engine.abandon(job_id)

    def interrupt(self, job_id: UUID) -> bool:
        """Ask for what there is of a job's pictures so far; False if no engine has the job."""
        return any(engine.interrupt(job_id) for engine in self._engines)

    async def _dispatch_forever(self) -> None:
        while not self._is_stopping:
            await self._woken.wait()
            self._woken.clear()
            if self._is_stopping:
                return
            try:
                await self._dispatch()
            except Exception:
                logger.exception("the queue could not be served; trying again")
                await self._around.pause(1.0)
                self.wake()

    async def _dispatch(self) -> None:
        engines = [engine for engine in self._engines if engine.ready]
        running = [job for engine in self._engines for job in engine.running]
        capacity = self._capacity_per_engine * len(engines)
        if sum(job.image_count for job in running) >= capacity:
            return
        async with self._around.db.read() as session:
            waiting = {job.id: job for job in await jobs.waiting_jobs(session)}
        shares: dict[Supervisor, list[UUID]] = {engine: [] for engine in engines}
        load = {engine: sum(job.image_count for job in engine.running) for engine in engines}
        for job_id in choose(list(waiting.values()), running, capacity):
            engine = min(engines, key=lambda engine: load[engine])
            shares[engine].append(job_id)
            load[engine] += waiting[job_id].image_count
        for engine, job_ids in shares.items():
            if job_ids:
                await self._claim(engine, job_ids)

    async def _claim(self, engine: Supervisor, job_ids: list[UUID]) -> None:
        run_id = engine.run_id
        self._claiming.update(job_ids)
        try:
            async with self._around.db.write() as session:
                claimed = await jobs.claim_jobs(session, job_ids, run_id)
            for job in claimed:
                materials = await self._materials_of(job)
                if engine.run_id != run_id or engine.ready is None:  # it died meanwhile
                    await engine.recover(run_id)
                    break
                if materials is None:
                    continue
                if job.job.id in self._claiming:  # else it was abandoned meanwhile
                    # No await from here on: between the check of the engine and the hand-over it must not change.
                    self._around.board.started(job.job)
                    self._around.metrics.job_started(job.job)
                    engine.begin(job, materials)
        finally:
            self._claiming.difference_update(job_ids)

    async def _materials_of(self, claimed: ClaimedJob) -> Materials | None:
        """Find what a job needs besides its row; None, and the job has failed, if some of it is no longer there."""
        job, registry = claimed.job, self._around.registry
        try:
            models = [registry.find(name) for name in job.request.models]
            return Materials(
                models=models,
                vae=registry.find_vae(job.request.vae, models[0]),
                sources={name: await self._around.objects.get(name) for name in job.request.stored_pictures},
            )
        except (UnknownModel, NotFound) as error:  # it was there when the job was accepted
            if await outcomes.fail(self._around.db, job, error.code, error.message, engine_id=claimed.engine_id):
                self._around.board.ended(job.id)
                self._around.metrics.job_ended(job, JobStatus.FAILED)
            return None
