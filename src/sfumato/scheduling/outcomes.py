"""The ways a job ends, each one transaction over its row, its credits and its key.

The row's conditional update goes first: whoever loses it moves no credits, so each job is settled or refunded once.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from sfumato.accounts import credits as ledger
from sfumato.accounts import keys
from sfumato.core.errors import EngineUnavailable
from sfumato.core.jobs import Job, Output
from sfumato.storage import jobs
from sfumato.storage.database import Database
from sfumato.storage.jobs import ClaimedJob


@dataclass(frozen=True, kw_only=True)
class Recovery:
    """What became of jobs whose engine died: those that wait again, and those that failed."""

    requeued: tuple[UUID, ...]
    failed: tuple[Job, ...]


async def succeed(db: Database, claimed: ClaimedJob, outputs: Sequence[Output], notes: Sequence[str]) -> bool:
    """End a job with the pictures that came, refund those that did not, count the key's use.

    False if the job had ended or was given to another engine meanwhile.
    """
    job = claimed.job
    missing = job.request.image_count - len(outputs)
    unused_credits = job.cost_credits * missing // job.request.image_count
    async with db.write() as session:
        if not await jobs.settle(session, claimed, outputs, notes):
            return False
        await _refund(session, job, unused_credits)
        if job.api_key_id is not None and outputs:
            await keys.record_use(session, job.api_key_id, job.cost_credits - unused_credits)
    return True


async def fail(db: Database, job: Job, code: str, message: str, *, engine_id: str | None = None) -> bool:
    """End an open job in failure and refund it; False if it had ended, or is not on `engine_id`, if given."""
    async with db.write() as session:
        if not await jobs.fail(session, job.id, code, message, engine_id=engine_id):
            return False
        await _refund(session, job, job.cost_credits)
    return True


async def cancel(db: Database, job: Job) -> bool:
    """End an open job as canceled and refund it; False if it had ended."""
    async with db.write() as session:
        if not await jobs.cancel(session, job.id):
            return False
        await _refund(session, job, job.cost_credits)
    return True


async def recover(
    db: Database, engine_ids: Collection[str] | None, *, except_ids: Collection[UUID] = (), max_attempts: int
) -> Recovery:
    """Requeue the jobs of engine runs that are gone (None: of all); those that had `max_attempts` fail instead."""
    message = f"The engine died {max_attempts} times in a row under this job."
    async with db.write() as session:
        requeued = await jobs.requeue_running(session, engine_ids, except_ids=except_ids, max_attempts=max_attempts)
        exhausted = await jobs.running_jobs(session, engine_ids, except_ids=except_ids)
        for job in exhausted:
            await jobs.fail(session, job.id, EngineUnavailable.code, message)
            await _refund(session, job, job.cost_credits)
    return Recovery(requeued=tuple(requeued), failed=tuple(exhausted))


async def _refund(session: AsyncSession, job: Job, amount: int) -> None:
    if amount > 0:
        await ledger.refund(session, job.user_id, job.id, amount)
