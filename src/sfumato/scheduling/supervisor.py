"""Keeps one engine alive, and carries its messages into the database, the object store and the progress board.

A job is settled, failed or put back by a conditional update that names the run of the engine it was given to: each
start of an engine is a run of its own, so nothing that an engine said before it died can end a job twice.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import TypeVar
from uuid import UUID

import structlog

from sfumato.core.errors import GenerationFailed
from sfumato.core.jobs import JobStatus
from sfumato.core.messages import (
    Cancel,
    Canceled,
    Failed,
    Finished,
    FromEngine,
    Generate,
    ImageReady,
    LoadModel,
    ModelLoaded,
    Ready,
    Started,
    Step,
    TurnStats,
)
from sfumato.core.models import ModelInfo, VaeInfo
from sfumato.models.registry import ModelRegistry
from sfumato.scheduling import outcomes
from sfumato.scheduling.hosts import Host
from sfumato.scheduling.metrics import Metrics
from sfumato.scheduling.progress import ProgressBoard
from sfumato.scheduling.queue import RunningJob
from sfumato.scheduling.runs import Run
from sfumato.storage.database import Database
from sfumato.storage.jobs import ClaimedJob
from sfumato.storage.objects import ObjectStore

_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 30.0

T = TypeVar("T")
logger = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What dispatcher and supervisors work with. `wake` makes the dispatcher look at the queue again."""

    db: Database
    objects: ObjectStore
    registry: ModelRegistry
    board: ProgressBoard
    metrics: Metrics
    max_job_attempts: int
    wake: Callable[[], None]
    pause: Callable[[float], Awaitable[None]]


@dataclass(frozen=True, kw_only=True)
class Materials:
    """What a job needs besides its row: its models, the first pass's first, a VAE, and its stored pictures by name."""

    models: Sequence[ModelInfo]
    vae: VaeInfo | None
    sources: dict[str, bytes]


class Supervisor:
    """One host, the engine that runs there now, and the jobs it has."""

    def __init__(self, host: Host, around: Surroundings) -> None:
        self._host = host
        self._around = around
        self._starts = 0
        self._ready: Ready | None = None
        self._models: set[tuple[str, str]] = set()
        self._runs: dict[UUID, Run] = {}
        self._finishing: dict[UUID, Run] = {}
        self._background: set[asyncio.Task[None]] = set()
        self._loop: asyncio.Task[None] | None = None
        self._is_stopping = False

    @property
    def ready(self) -> Ready | None:
        """What the engine has said of itself; None while it takes no jobs."""
        return self._ready

    @property
    def run_id(self) -> str:
        """The name of this start of the engine, under which it claims jobs."""
        return f"{self._host.id}.{self._starts}"

    @property
    def run_ids(self) -> list[str]:
        """The names of all starts so far."""
        return [f"{self._host.id}.{n}" for n in range(1, self._starts + 1)]

    @property
    def running(self) -> list[RunningJob]:
        """The jobs that the engine has."""
        return [run.as_running for run in self._runs.values()]

    def start(self) -> None:
        """Begin to keep an engine alive."""
        self._loop = asyncio.create_task(self._keep_alive())

    async def stop(self) -> None:
        """End the engine and finish storing what it has delivered; the jobs it had stay RUNNING under `run_ids`."""
        self._is_stopping = True
        if self._loop is not None:
            self._loop.cancel()
            await asyncio.gather(self._loop, return_exceptions=True)
        await self._host.stop()
        self._set_ready(None)
        while self._background:
            await asyncio.wait(self._background)

    def begin(self, claimed: ClaimedJob, materials: Materials) -> None:
        """Give the engine a job that was claimed under its present `run_id`."""
        self._runs[claimed.job.id] = Run(claimed=claimed, model=materials.models[0])
        for model in materials.models:
            self._introduce(model)
        request, add_ons = claimed.job.request, self._around.registry.add_ons
        self._host.send(
            Generate(
                job_id=str(claimed.job.id),
                request=request,
                pictures=materials.sources,
                vae_location=materials.vae.location if materials.vae else "",
                adapters=add_ons.loras.locations(request.adapters) if request.adapters else {},
                embeddings=add_ons.embeddings.locations(request.embeddings) if request.embeddings else {},
            )
        )

    def abandon(self, job_id: UUID) -> None:
        """Tell the engine, if it has this job, that someone else has ended it."""
        if run := self._finishing.get(job_id):
            run.is_abandoned = True
        if run := self._runs.get(job_id):
            run.is_abandoned = True
            self._host.send(Cancel(job_id=str(job_id)))

    def interrupt(self, job_id: UUID) -> bool:
        """Ask the engine for what it has of a job's pictures so far; False if it does not have the job."""
        if run := self._runs.get(job_id):
            run.is_interrupted = True
            self._host.send(Cancel(job_id=str(job_id), keep_partial=True))
        return job_id in self._runs or job_id in self._finishing

    async def recover(self, run_id: str) -> None:
        """Put back the jobs of a run that is over, but for those whose pictures have all come."""
        around = self._around
        recovery = await self._persist(
            lambda: outcomes.recover(
                around.db, [run_id], except_ids=list(self._finishing), max_attempts=around.max_job_attempts
            )
        )
        for job_id in recovery.requeued:
            around.board.requeued(job_id)
        for job in recovery.failed:
            around.board.ended(job.id)
            around.metrics.job_ended(job, JobStatus.FAILED)
        around.wake()

    async def _keep_alive(self) -> None:
        """Start the engine, carry out what it says, and start it again when it is gone."""
        pause_seconds = 0.0
        while True:
            self._starts += 1
            try:
                await self._host.start()
                async for event in self._host.events():
                    if isinstance(event, Finished):
                        pause_seconds = 0.0  # an engine that delivers may come back at once
                    self._handle(event)
            except Exception:
                logger.exception("an engine failed", engine=self.run_id)
            await self._bury()
            await self._around.pause(pause_seconds)
            pause_seconds = min(_LONGEST_PAUSE_SECONDS, 2 * pause_seconds or _FIRST_PAUSE_SECONDS)

    async def _bury(self) -> None:
        """Clean up after an engine that is gone, or that says what makes no sense."""
        logger.error("an engine is gone; its jobs wait for the next", engine=self.run_id, jobs=len(self._runs))
        self._set_ready(None)
        self._models.clear()
        self._runs.clear()
        self._around.metrics.engine_restarts.inc()
        await self._host.stop()
        await self.recover(self.run_id)

    def _set_ready(self, ready: Ready | None) -> None:
        self._around.metrics.engine_up.inc((ready is not None) - (self._ready is not None))
        self._ready = ready

    def _introduce(self, model: ModelInfo, *, preload: bool = False) -> None:
        if (model.name, model.location) not in self._models:
            self._models.add((model.name, model.location))
            self._host.send(
                LoadModel(name=model.name, family=model.family.value, location=model.location, preload=preload)
            )

    def _handle(self, event: FromEngine) -> None:
        """Carry out a message. Never waits: what takes time goes on in the background."""
        match event:
            case Ready():
                self._set_ready(event)
                self._introduce(self._around.registry.default, preload=True)
                self._around.wake()
            case Step():
                self._around.board.stepped(UUID(event.job_id), event.index, event.step, event.steps)
            case ImageReady():
                if run := self._runs.get(UUID(event.job_id)):
                    run.keep(event, self._around.objects, self._around.board)
            case Finished() | Failed() | Canceled():
                if run := self._runs.pop(UUID(event.job_id), None):
                    self._finishing[run.claimed.job.id] = run
                    self._in_background(self._finish(run, event))
                    self._around.wake()
            case TurnStats():
                self._around.metrics.turn(event)
            case ModelLoaded():
                logger.info("a model is loaded", model=event.name, seconds=round(event.seconds, 2))
            case Started():
                pass  # a job counts as started from its claim

    async def _finish(self, run: Run, event: Finished | Failed | Canceled) -> None:
        job = run.claimed.job
        if isinstance(event, Finished):
            self._around.metrics.finished(event)
        try:
            status = await self._persist(lambda: self._conclude(run, event))
            if status is not None:
                self._around.board.ended(job.id)
                self._around.metrics.job_ended(job, status, images=len(run.outputs))
            elif run.is_abandoned:
                await run.discard(self._around.objects)
        except Exception:
            logger.exception("a job could not be finished", job_id=str(job.id))
        finally:
            del self._finishing[job.id]

    async def _conclude(self, run: Run, event: Finished | Failed | Canceled) -> JobStatus | None:
        """Write down how a job ended, and return its status; None if it had ended otherwise before."""
        db, job, engine_id = self._around.db, run.claimed.job, run.claimed.engine_id
        match event:
            case Canceled():
                return JobStatus.CANCELED if await outcomes.cancel(db, job) else None
            case Failed():
                code, message = event.code, event.message
            case Finished():
                outputs = await run.stored()
                if outputs or run.is_interrupted:
                    done = await outcomes.succeed(db, run.claimed, outputs, event.notes)
                    return JobStatus.SUCCEEDED if done else None
                code, message = GenerationFailed.code, "None of the pictures could be made and stored."
        return JobStatus.FAILED if await outcomes.fail(db, job, code, message, engine_id=engine_id) else None

    async def _persist(self, operation: Callable[[], Awaitable[T]]) -> T:
        """Carry out a transaction, again and again while the database fails: a full disk must not lose a job.

        When the service stops it gives up; the next start finds the job as it was.
        """
        while True:
            try:
                return await operation()
            except Exception:
                if self._is_stopping:
                    raise
                logger.exception("the database could not be written; trying again")
                await self._around.pause(1.0)

    def _in_background(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
