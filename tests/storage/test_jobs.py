"""Job and output rows: conditional steps forward, pages that miss and repeat nothing."""

from dataclasses import replace
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from sqlalchemy import update

from sfumato.accounts.keys import Caller
from sfumato.core.errors import NotFound
from sfumato.core.jobs import Dialect, Job, JobStatus, Output
from sfumato.core.requests import MAX_SEED, NoiseSource, PromptSyntax, SamplerOptions
from sfumato.storage import jobs
from sfumato.storage.database import Database
from sfumato.storage.jobs import ClaimedJob, OutputFilter
from sfumato.storage.tables import OutputRow, utc_now
from tests.factories import make_caller, make_request, open_database


async def insert(db: Database, caller: Caller, **request: object) -> Job:
    async with db.write() as session:
        return await jobs.insert_job(
            session,
            user_id=caller.user_id,
            api_key_id=caller.api_key_id,
            dialect=Dialect.STABLECOG,
            request=make_request(**request),
            cost_credits=1,
        )


async def claim(db: Database, job: Job, engine_id: str = "engine.1") -> ClaimedJob:
    async with db.write() as session:
        (claimed,) = await jobs.claim_jobs(session, [job.id], engine_id)
    return claimed


def outputs_of(claimed: ClaimedJob) -> list[Output]:
    now = utc_now()
    return [
        Output(
            id=output_id,
            job_id=claimed.job.id,
            index=index,
            seed=claimed.job.request.seed + index,
            width=64,
            height=64,
            object_key=f"{output_id}.png",
            content_type="image/png",
            size_bytes=100,
            infotext="a red apple",
            created_at=now,
            updated_at=now,
        )
        for index, output_id in enumerate(claimed.output_ids)
    ]


async def settle(db: Database, claimed: ClaimedJob) -> bool:
    async with db.write() as session:
        return await jobs.settle(session, claimed, outputs_of(claimed), ["a note"])


async def read(db: Database, job_id: UUID) -> Job:
    async with db.read() as session:
        return await jobs.get_job(session, job_id)


async def make_outputs(db: Database, caller: Caller, *counts: int) -> list[UUID]:
    """Run jobs of so many pictures each, and return the pictures' ids, newest first."""
    made: list[UUID] = []
    for count in counts:
        claimed = await claim(db, await insert(db, caller, image_count=count))
        await settle(db, claimed)
        made.extend(claimed.output_ids)
    return made[::-1]


async def test_a_request_comes_back_as_it_was(tmp_path: Path) -> None:
    async with open_database(tmp_path) as db:
        caller = await make_caller(db)
        job = await insert(
            db,
            caller,
            prompt='"ü"\n\x00 \U0001f34e',
            seed=MAX_SEED - 1,
            guidance_scale=7.25,
            prompt_syntax=PromptSyntax.A1111,
            noise_source=NoiseSource.CPU,
            sampler_options=SamplerOptions(eta=0.5, churn_max_sigma=3.0),
        )
        assert await read(db, job.id) == job
        assert job.status is JobStatus.QUEUED


async def test_a_job_is_not_found_under_another_user(tmp_path: Path) -> None:
    async with open_database(tmp_path) as db:
        caller = await make_caller(db)
        job = await insert(db, caller)
        async with db.read() as session:
            assert await jobs.get_job(session, job.id, user_id=caller.user_id) == job
            for job_id, user_id in ((job.id, uuid4()), (uuid4(), caller.user_id)):
                with pytest.raises(NotFound):
                    await jobs.get_job(session, job_id, user_id=user_id)


async def test_a_job_is_claimed_once(tmp_path: Path) -> None:
    async with open_database(tmp_path) as db:
        job = await insert(db, await make_caller(db), image_count=3)
        claimed = await claim(db, job)
        assert (claimed.job.status, claimed.job.attempts, len(set(claimed.output_ids))) == (JobStatus.RUNNING, 1, 3)
        async with db.write() as session:
            assert await jobs.claim_jobs(session, [job.id], "engine.2") == []


async def test_jobs_are_claimed_in_the_order_asked(tmp_path: Path) -> None:
    async with open_database(tmp_path) as db:
        caller = await make_caller(db)
        ids = [(await insert(db, caller)).id for _ in range(5)]
        wanted = [ids[i] for i in (3, 0, 4, 1, 2)]
        async with db.write() as session:
            assert [claimed.job.id for claimed in await jobs.claim_jobs(session, wanted, "e.1")] == wanted


async def test_a_job_succeeds_once_with_its_outputs(tmp_path: Path) -> None:
    async with open_database(tmp_path) as db:
        claimed = await claim(db, await insert(db, await make_caller(db), image_count=2, seed=40))
        assert await settle(db, claimed)
        assert not await settle(db, claimed)
        job = await read(db, claimed.job.id)
        assert job.status is JobStatus.SUCCEEDED
        assert [(output.id, output.index, output.seed) for output in job.outputs] == [
            (claimed.output_ids[0], 0, 40),
            (claimed.output_ids[1], 1, 41),
        ]
        assert job.finished_at is not None


async def test_only_the_engine_run_that_has_a_job_may_settle_or_fail_it(tmp_path: Path) -> None:
    async with open_database(tmp_path) as db:
        job = await insert(db, await make_caller(db))
        old = await claim(db, job, "engine.1")
        async with db.write() as session:
            assert await jobs.requeue_running(session, ["engine.1"], max_attempts=2) == [job.id]
        assert not await settle(db, old)
        new = await claim(db, job, "engine.2")
        assert not await settle(db, old)
        async with db.write() as session:
            assert not await jobs.fail(session, job.id, "generation_failed", "no", engine_id="engine.1")
        assert new.output_ids == old.output_ids
        assert new.job.attempts == 2
        assert await settle(db, new)


async def test_what_has_ended_neither_fails_nor_is_canceled(tmp_path: Path) -> None:
    async with open_database(tmp_path) as db:
        claimed = await claim(db, await insert(db, await make_caller(db)))
        await settle(db, claimed)
        async with db.write() as session:
            assert not await jobs.fail(session, claimed.job.id, "generation_failed", "no")
            assert not await jobs.cancel(session, claimed.job.id)
        assert (await read(db, claimed.job.id)).status is JobStatus.SUCCEEDED


async def test_a_queued_job_can_be_canceled_and_is_then_not_claimed(tmp_path: Path) -> None:
    async with open_database(tmp_path) as db:
        job = await insert(db, await make_caller(db))
        async with db.write() as session:
            assert await jobs.cancel(session, job.id)
            assert await jobs.claim_jobs(session, [job.id], "engine.1") == []


async def test_requeueing_leaves_jobs_that_are_excepted_or_have_no_attempt_left(tmp_path: Path) -> None:
    async with open_database(tmp_path) as db:
        caller = await make_caller(db)
        kept, spent, back = [await insert(db, caller) for _ in range(3)]
        for job in (kept, spent, back):
            await claim(db, job)
        async with db.write() as session:
            await jobs.requeue_running(session, max_attempts=9, except_ids=[kept.id, back.id])
        await claim(db, spent)
        async with db.write() as session:
            assert await jobs.requeue_running(session, max_attempts=2, except_ids=[kept.id]) == [back.id]
            assert [job.id for job in await jobs.running_jobs(session, except_ids=[kept.id])] == [spent.id]


async def test_an_orderly_stop_costs_a_job_no_attempt(tmp_path: Path) -> None:
    async with open_database(tmp_path) as db:
        job = await insert(db, await make_caller(db))
        await claim(db, job)
        async with db.write() as session:
            await jobs.requeue_running(session, ["engine.1"])
        job = await read(db, job.id)
        assert (job.status, job.attempts, job.started_at) == (JobStatus.QUEUED, 0, None)


async def test_the_queue_is_listed_oldest_first_and_knows_whose_engine_died(tmp_path: Path) -> None:
    async with open_database(tmp_path) as db:
        caller = await make_caller(db)
        first, second = await insert(db, caller), await insert(db, caller, image_count=2)
        await claim(db, second)
        async with db.write() as session:
            await jobs.requeue_running(session, max_attempts=2)
            waiting = await jobs.waiting_jobs(session)
            assert await jobs.count_queued(session) == await jobs.count_queued(session, caller.user_id) == 2
            assert await jobs.count_queued(session, uuid4()) == 0
        assert [(job.id, job.image_count, job.was_interrupted) for job in waiting] == [
            (first.id, 1, False),
            (second.id, 2, True),
        ]


@pytest.mark.parametrize("by_time_alone", [False, True])
@pytest.mark.parametrize("ascending", [False, True])
async def test_pages_of_outputs_miss_none_and_repeat_none(tmp_path: Path, by_time_alone: bool, ascending: bool) -> None:
    async with open_database(tmp_path) as db:
        caller, other = await make_caller(db), await make_caller(db)
        made = await make_outputs(db, caller, 4, 1, 3)
        await make_outputs(db, other, 2)
        seen: list[UUID] = []
        cursor = None
        while True:
            async with db.read() as session:
                page = await jobs.list_outputs(session, caller.user_id, cursor=cursor, limit=3, ascending=ascending)
            seen += [output.id for output, _ in page.items]
            assert all(output.job_id == job.id for output, job in page.items)
            if page.next is None:
                break
            cursor = page.next[0] if by_time_alone else page.next
        assert seen == (made[::-1] if ascending else made)


async def test_a_full_last_page_has_no_next(tmp_path: Path) -> None:
    async with open_database(tmp_path) as db:
        caller = await make_caller(db)
        await make_outputs(db, caller, 3)
        async with db.read() as session:
            assert (await jobs.list_outputs(session, caller.user_id, limit=3)).next is None
            assert (await jobs.list_outputs(session, caller.user_id, limit=2)).next is not None
            assert (await jobs.list_outputs(session, uuid4())).items == ()


async def test_filters_narrow_the_list_and_the_count_alike(tmp_path: Path) -> None:
    async with open_database(tmp_path) as db:
        caller = await make_caller(db)
        newest, middle, oldest = await make_outputs(db, caller, 1, 1, 1)
        async with db.write() as session:
            await session.execute(update(OutputRow).where(OutputRow.id == middle).values(is_favorited=True))
            middle_at = (await jobs.get_output(session, middle)).created_at
        for where, expected in (
            (OutputFilter(), [newest, middle, oldest]),
            (OutputFilter(is_favorited=True), [middle]),
            (OutputFilter(is_favorited=False), [newest, oldest]),
            (OutputFilter(models=["test-model"]), [newest, middle, oldest]),
            (OutputFilter(models=["other"]), []),
            (OutputFilter(gallery_statuses=["approved"]), []),
            (OutputFilter(created_from=middle_at), [newest, middle]),
            (OutputFilter(created_before=middle_at), [oldest]),
        ):
            async with db.read() as session:
                page = await jobs.list_outputs(session, caller.user_id, where=where)
                assert [output.id for output, _ in page.items] == expected
                assert await jobs.count_outputs(session, caller.user_id, where=where) == len(expected)


async def test_a_deleted_output_is_nowhere(tmp_path: Path) -> None:
    async with open_database(tmp_path) as db:
        caller = await make_caller(db)
        (output_id,) = await make_outputs(db, caller, 1)
        async with db.write() as session:
            await session.execute(update(OutputRow).values(deleted_at=utc_now()))
        async with db.read() as session:
            assert await jobs.count_outputs(session, caller.user_id) == 0
            with pytest.raises(NotFound):
                await jobs.get_output(session, output_id)


async def test_times_come_back_aware_and_to_the_microsecond(tmp_path: Path) -> None:
    async with open_database(tmp_path) as db:
        job = await insert(db, await make_caller(db))
        again = await read(db, job.id)
        assert again.created_at == job.created_at
        assert again.created_at.utcoffset() is not None


async def test_a_time_without_a_zone_is_refused(tmp_path: Path) -> None:
    async with open_database(tmp_path) as db:
        caller = await make_caller(db)
        claimed = await claim(db, await insert(db, caller))
        await settle(db, claimed)
        naive = replace(outputs_of(claimed)[0]).created_at.replace(tzinfo=None)
        with pytest.raises(Exception, match="without a zone"):
            async with db.write() as session:
                await session.execute(update(OutputRow).values(updated_at=naive))
