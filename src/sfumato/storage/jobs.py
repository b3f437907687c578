"""Job and output rows: written by conditional updates, read as `core.jobs` dataclasses.

Each function is a part of the caller's transaction. A job's status changes only from the status it is known to have,
so of two that would end a job one wins, and the other learns that it lost. Knows nothing of credits or engines.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import ColumnElement, func, insert, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncSession

from sfumato.core.errors import NotFound
from sfumato.core.ids import new_id
from sfumato.core.jobs import Dialect, Job, JobStatus, Output
from sfumato.core.requests import GenerationRequest
from sfumato.storage.tables import JobRow, OutputRow, utc_now

_OPEN = (JobStatus.QUEUED.value, JobStatus.RUNNING.value)


@dataclass(frozen=True, kw_only=True)
class WaitingJob:
    """What the queue needs to know of a queued job. `was_interrupted`: an engine died under it before."""

    id: UUID
    user_id: UUID
    image_count: int
    created_at: datetime
    was_interrupted: bool = False


@dataclass(frozen=True, kw_only=True)
class ClaimedJob:
    """A job that a run of an engine has; picture i is to be stored as `output_ids[i]`."""

    job: Job
    engine_id: str
    output_ids: tuple[UUID, ...]


@dataclass(frozen=True, kw_only=True)
class OutputFilter:
    """Which outputs to list; None or empty means any. Times are of the output, from the first and before the second."""

    models: Collection[str] = ()
    gallery_statuses: Collection[str] = ()
    is_favorited: bool | None = None
    created_from: datetime | None = None
    created_before: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class OutputPage:
    """One page of outputs with their jobs (whose own `outputs` are left empty); `next` is None on the last page."""

    items: tuple[tuple[Output, Job], ...]
    next: tuple[datetime, UUID] | None


async def insert_job(
    session: AsyncSession,
    *,
    user_id: UUID,
    api_key_id: UUID | None,
    dialect: Dialect,
    request: GenerationRequest,
    cost_credits: int,
) -> Job:
    """Put a job in the queue."""
    row = JobRow(
        user_id=user_id,
        api_key_id=api_key_id,
        dialect=dialect.value,
        status=JobStatus.QUEUED.value,
        request=msgspec.json.encode(request).decode(),
        model=request.model,
        image_count=request.image_count,
        cost_credits=cost_credits,
        output_ids=[str(new_id()) for _ in range(request.image_count)],
    )
    session.add(row)
    await session.flush()
    return _job(row)


async def get_job(session: AsyncSession, job_id: UUID, *, user_id: UUID | None = None) -> Job:
    """Return a job with its outputs. Raises `NotFound`, also when it is not `user_id`'s, if given."""
    row = await session.get(JobRow, job_id)
    if row is None or user_id not in (None, row.user_id):
        raise NotFound("There is no such job.")
    outputs = await session.scalars(
        select(OutputRow).where(OutputRow.job_id == job_id, OutputRow.deleted_at.is_(None)).order_by(OutputRow.index)
    )
    return replace(_job(row), outputs=tuple(_output(output) for output in outputs))


async def get_jobs(session: AsyncSession, job_ids: Collection[UUID]) -> dict[UUID, Job]:
    """Return these jobs with their outputs, in two queries; ids of no job are left out."""
    outputs: dict[UUID, list[Output]] = {job_id: [] for job_id in job_ids}
    query = select(OutputRow).where(OutputRow.job_id.in_(job_ids), OutputRow.deleted_at.is_(None))
    for row in await session.scalars(query.order_by(OutputRow.job_id, OutputRow.index)):
        outputs[row.job_id].append(_output(row))
    rows = await session.scalars(select(JobRow).where(JobRow.id.in_(job_ids)))
    return {row.id: replace(_job(row), outputs=tuple(outputs[row.id])) for row in rows}


async def open_jobs(session: AsyncSession) -> list[Job]:
    """Return all jobs that are queued or running, oldest first."""
    query = select(JobRow).where(JobRow.status.in_(_OPEN)).order_by(JobRow.created_at, JobRow.id)
    return [_job(row) for row in await session.scalars(query)]


async def count_queued(session: AsyncSession, user_id: UUID | None = None) -> int:
    """Return how many jobs wait, of one user or of all."""
    query = select(func.count()).select_from(JobRow).where(JobRow.status == JobStatus.QUEUED.value)
    if user_id is not None:
        query = query.where(JobRow.user_id == user_id)
    return int(await session.scalar(query) or 0)


async def waiting_jobs(session: AsyncSession) -> list[WaitingJob]:
    """Return the queue, oldest first."""
    query = (
        select(JobRow.id, JobRow.user_id, JobRow.image_count, JobRow.created_at, JobRow.attempts)
        .where(JobRow.status == JobStatus.QUEUED.value)
        .order_by(JobRow.created_at, JobRow.id)
    )
    return [
        WaitingJob(
            id=row.id,
            user_id=row.user_id,
            image_count=row.image_count,
            created_at=row.created_at,
            was_interrupted=row.attempts > 0,
        )
        for row in await session.execute(query)
    ]


async def claim_jobs(session: AsyncSession, job_ids: Sequence[UUID], engine_id: str) -> list[ClaimedJob]:
    """Give queued jobs to a run of an engine, in the order asked; those no longer queued are left out."""
    claimed = await session.scalars(
        update(JobRow)
        .where(JobRow.id.in_(job_ids), JobRow.status == JobStatus.QUEUED.value)
        .values(
            status=JobStatus.RUNNING.value,
            engine_id=engine_id,
            attempts=JobRow.attempts + 1,
            started_at=utc_now(),
        )
        .returning(JobRow)
    )
    rows = sorted(claimed, key=lambda row: job_ids.index(row.id))
    return [
        ClaimedJob(job=_job(row), engine_id=engine_id, output_ids=tuple(UUID(text) for text in row.output_ids))
        for row in rows
    ]


async def settle(session: AsyncSession, claimed: ClaimedJob, outputs: Sequence[Output], notes: Sequence[str]) -> bool:
    """End a running job in success with these outputs; False if it is no longer running on that engine.

    Outputs get their creation time here, each later than any other of the user: a page of outputs may then be
    continued from a time alone.
    """
    conditions = (JobRow.status == JobStatus.RUNNING.value, JobRow.engine_id == claimed.engine_id)
    if not await _end(session, claimed.job.id, conditions, JobStatus.SUCCEEDED, notes=list(notes)):
        return False
    if outputs:
        user_id = claimed.job.user_id
        latest = await session.scalar(select(func.max(OutputRow.created_at)).where(OutputRow.user_id == user_id))
        tick = timedelta(microseconds=1)
        first = max(utc_now(), latest + tick) if latest else utc_now()
        stamped = [replace(output, created_at=first + i * tick) for i, output in enumerate(outputs)]
        await session.execute(insert(OutputRow), [_output_values(output, user_id) for output in stamped])
    return True


async def fail(session: AsyncSession, job_id: UUID, code: str, message: str, *, engine_id: str | None = None) -> bool:
    """End an open job in failure; False if it has ended, or is not running on `engine_id`, if given."""
    conditions: tuple[ColumnElement[bool], ...] = (JobRow.status.in_(_OPEN),)
    if engine_id is not None:
        conditions = (JobRow.status == JobStatus.RUNNING.value, JobRow.engine_id == engine_id)
    return await _end(session, job_id, conditions, JobStatus.FAILED, error_code=code, error_message=message)


async def cancel(session: AsyncSession, job_id: UUID) -> bool:
    """End an open job as canceled; False if it has ended."""
    return await _end(session, job_id, (JobRow.status.in_(_OPEN),), JobStatus.CANCELED)


async def requeue_running(
    session: AsyncSession,
    engine_ids: Collection[str] | None = None,
    *,
    except_ids: Iterable[UUID] = (),
    max_attempts: int | None = None,
) -> list[UUID]:
    """Put running jobs of these engine runs (None: of all) back into the queue, and return their ids.

    Jobs that had `max_attempts` already are left as they are. None means that the interruption
    was no fault of the jobs': it is not counted as an attempt.
    """
    conditions = [JobRow.status == JobStatus.RUNNING.value, JobRow.id.not_in(list(except_ids))]
    values: dict[str, Any] = {"status": JobStatus.QUEUED.value, "engine_id": None, "started_at": None}
    if engine_ids is not None:
        conditions.append(JobRow.engine_id.in_(engine_ids))
    if max_attempts is None:
        values["attempts"] = JobRow.attempts - 1
    else:
        conditions.append(JobRow.attempts < max_attempts)
    returned = await session.scalars(update(JobRow).where(*conditions).values(**values).returning(JobRow.id))
    return list(returned)


async def running_jobs(
    session: AsyncSession, engine_ids: Collection[str] | None = None, *, except_ids: Iterable[UUID] = ()
) -> list[Job]:
    """Return the running jobs of these engine runs (None: of all)."""
    query = select(JobRow).where(JobRow.status == JobStatus.RUNNING.value, JobRow.id.not_in(list(except_ids)))
    if engine_ids is not None:
        query = query.where(JobRow.engine_id.in_(engine_ids))
    return [_job(row) for row in await session.scalars(query)]


async def list_outputs(
    session: AsyncSession,
    user_id: UUID,
    *,
    cursor: tuple[datetime, UUID] | datetime | None = None,
    limit: int = 50,
    ascending: bool = False,
    where: OutputFilter = OutputFilter(),
) -> OutputPage:
    """Return a user's outputs after `cursor`, newest first or oldest first.

    `OutputPage.next` is the cursor of the next page; its time alone will do, since no two outputs of a user share one.
    """
    query = select(OutputRow, JobRow).join(JobRow, JobRow.id == OutputRow.job_id).where(*_matching(user_id, where))
    order = (OutputRow.created_at, OutputRow.id)
    if isinstance(cursor, tuple):
        here = tuple_(*order)
        query = query.where(here > tuple_(*cursor) if ascending else here < tuple_(*cursor))
    elif cursor is not None:
        query = query.where(order[0] > cursor if ascending else order[0] < cursor)
    query = query.order_by(*(order if ascending else (column.desc() for column in order)))
    rows = (await session.execute(query.limit(limit + 1))).all()
    items = tuple((_output(output), _job(job)) for output, job in rows[:limit])
    has_more = len(rows) > limit and items
    return OutputPage(items=items, next=(items[-1][0].created_at, items[-1][0].id) if has_more else None)


async def count_outputs(session: AsyncSession, user_id: UUID, *, where: OutputFilter = OutputFilter()) -> int:
    """Return how many outputs `list_outputs` would list on all pages together."""
    query = select(func.count()).select_from(OutputRow).join(JobRow, JobRow.id == OutputRow.job_id)
    return int(await session.scalar(query.where(*_matching(user_id, where))) or 0)


async def get_output(session: AsyncSession, output_id: UUID) -> Output:
    """Return an output that is not deleted, whoever's it is. Raises `NotFound`."""
    row = await session.get(OutputRow, output_id)
    if row is None or row.deleted_at is not None:
        raise NotFound("There is no such picture.")
    return _output(row)


def _matching(user_id: UUID, where: OutputFilter) -> list[ColumnElement[bool]]:
    conditions = [OutputRow.user_id == user_id, OutputRow.deleted_at.is_(None)]
    if where.models:
        conditions.append(JobRow.model.in_(where.models))
    if where.gallery_statuses:
        conditions.append(OutputRow.gallery_status.in_(where.gallery_statuses))
    if where.is_favorited is not None:
        conditions.append(OutputRow.is_favorited == where.is_favorited)
    if where.created_from is not None:
        conditions.append(OutputRow.created_at >= where.created_from)
    if where.created_before is not None:
        conditions.append(OutputRow.created_at < where.created_before)
    return conditions


async def _end(
    session: AsyncSession,
    job_id: UUID,
    conditions: tuple[ColumnElement[bool], ...],
    status: JobStatus,
    **values: Any,
) -> bool:
    ended = await session.scalar(
        update(JobRow)
        .where(JobRow.id == job_id, *conditions)
        .values(status=status.value, finished_at=utc_now(), **values)
        .returning(JobRow.id)
    )
    return ended is not None


def _output_values(output: Output, user_id: UUID) -> dict[str, Any]:
    values = {name: getattr(output, name) for name in Output.__dataclass_fields__}
    return {**values, "user_id": user_id, "updated_at": output.created_at}


def _output(row: OutputRow) -> Output:
    return Output(**{name: getattr(row, name) for name in Output.__dataclass_fields__})


def _job(row: JobRow) -> Job:
    return Job(
        id=row.id,
        user_id=row.user_id,
        api_key_id=row.api_key_id,
        dialect=Dialect(row.dialect),
        status=JobStatus(row.status),
        request=msgspec.json.decode(row.request, type=GenerationRequest),
        cost_credits=row.cost_credits,
        attempts=row.attempts,
        created_at=row.created_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
        error_code=row.error_code,
        error_message=row.error_message,
        notes=tuple(row.notes),
    )
