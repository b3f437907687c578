"""From submit to the end of a job, with an engine that the test plays: no job lost, no credit leaked, ever."""

import asyncio
import io
import random
import shutil
from contextlib import AbstractAsyncContextManager
from itertools import pairwise
from pathlib import Path
from uuid import uuid4

import pytest
from PIL import Image
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from sfumato.accounts.keys import list_keys
from sfumato.core.errors import (
    EngineUnavailable,
    GenerationTimeout,
    InsufficientCredits,
    InvalidRequest,
    NotFound,
    QueueFull,
    UnknownModel,
)
from sfumato.core.jobs import Dialect, Job, JobStatus
from sfumato.core.messages import Cancel, Canceled, Finished, Generate, LoadModel, Step, TurnStats
from sfumato.storage import images
from sfumato.storage.database import Database
from sfumato.storage.tables import CreditGrantRow, LedgerEntryRow
from tests.factories import Running, balance_of, make_caller, make_model, make_registry, make_request, run_service
from tests.fakes import FakeHost, colour_of


async def assert_ledger_adds_up(db: Database) -> None:
    async with db.read() as session:
        moved = await session.scalar(select(func.sum(LedgerEntryRow.amount)))
        left = await session.scalar(select(func.sum(CreditGrantRow.remaining)))
    assert moved == left


async def until_ended(running: Running, *jobs: Job) -> list[Job]:
    return list(await asyncio.gather(*(running.service.wait(job.id) for job in jobs)))


# A job that goes well.


async def test_a_job_becomes_stored_pictures_with_their_seeds_and_infotexts(tmp_path: Path) -> None:
    async with run_service(tmp_path) as running:
        caller = await make_caller(running.db, balance=10)
        job = await running.service.submit(caller, make_request(image_count=3, seed=40), Dialect.STABLECOG)
        assert job.status is JobStatus.QUEUED
        done = await running.service.wait(job.id)
        assert (done.status, done.attempts, done.cost_credits) == (JobStatus.SUCCEEDED, 1, 3)
        assert [output.seed for output in done.outputs] == [40, 41, 42]
        for output in done.outputs:
            png = await running.objects.get(output.object_key)
            assert len(png) == output.size_bytes
            assert images.read_text(png)["parameters"] == output.infotext
            assert f"Seed: {output.seed}" in output.infotext
            with Image.open(io.BytesIO(png)) as picture:
                assert picture.size == (64, 64)
                assert picture.getpixel((0, 0)) == tuple(colour_of(output.seed))
        assert await running.service.balance(caller.user_id) == 7
        (key,) = await list_keys(running.db, caller.user_id)
        assert (key.uses, key.credits_spent) == (1, 3)
        await assert_ledger_adds_up(running.db)


async def test_the_model_is_made_known_once_per_engine_and_before_its_first_job(tmp_path: Path) -> None:
    registry = make_registry(make_model(), make_model("other"))
    async with run_service(tmp_path, registry=registry) as running:
        caller = await make_caller(running.db)
        for model in ("other", "test-model", "OTHER"):
            job = await running.service.submit(caller, make_request(model=model), Dialect.NATIVE)
            await running.service.wait(job.id)
        named = [
            f"{type(message).__name__} {message.name if isinstance(message, LoadModel) else message.request.model}"
            for message in running.host.sent
            if isinstance(message, LoadModel | Generate)
        ]
        assert named == [
            "LoadModel test-model",
            "LoadModel other",
            "Generate other",
            "Generate test-model",
            "Generate other",
        ]


async def test_waiting_for_a_job_that_has_ended_returns_at_once(tmp_path: Path) -> None:
    async with run_service(tmp_path) as running:
        job = await running.service.submit(await make_caller(running.db), make_request(), Dialect.NATIVE)
        first, second = await until_ended(running, job, job)
        assert first == second == await running.service.wait(job.id, timeout_seconds=0)


async def test_progress_is_the_sum_over_pictures_and_gone_at_the_end(tmp_path: Path) -> None:
    async with run_service(tmp_path, host=FakeHost(automatic=False)) as running:
        caller = await make_caller(running.db)
        job = await running.service.submit(caller, make_request(image_count=2, steps=10), Dialect.NATIVE)
        generate = await running.host.next(Generate)
        running.host.emit(Step(job_id=generate.job_id, index=0, step=10, steps=10))
        running.host.emit(Step(job_id=generate.job_id, index=1, step=5, steps=10))
        running.host.emit(TurnStats(rows=2, images=2, jobs=1, seconds=0.1, overhead_seconds=0.001))
        await running.host.heard()
        assert b"sfumato_turn_rows_count 1.0" in running.service.metrics.render()
        progress = running.service.progress(job.id)
        assert progress is not None
        assert (progress.status, progress.step, progress.steps) == (JobStatus.RUNNING, 15, 20)
        assert progress.fraction == 0.75
        assert running.service.active(caller.user_id) == [progress]
        assert running.service.active(uuid4()) == []
        running.host.finish(generate)
        await running.service.wait(job.id)
        assert running.service.progress(job.id) is None
        assert running.service.active() == []


# What is refused is not charged.


async def test_a_refused_request_is_neither_charged_nor_queued(tmp_path: Path) -> None:
    async with run_service(tmp_path, host=FakeHost(says_ready=False)) as running:
        caller = await make_caller(running.db, balance=2)
        for request, error in (
            (make_request(model="nothing"), UnknownModel),
            (make_request(width=65), InvalidRequest),
            (make_request(guidance_scale=float("nan")), InvalidRequest),
            (make_request(image_count=3), InsufficientCredits),
        ):
            with pytest.raises(error):
                await running.service.submit(caller, request, Dialect.NATIVE)
        assert await balance_of(running.db, caller) == 2
        assert running.service.queue_depth == 0
        assert running.service.active() == []


async def test_fifty_submits_at_once_with_credits_for_ten_accept_ten(tmp_path: Path) -> None:
    async with run_service(tmp_path) as running:
        caller = await make_caller(running.db, balance=10)
        results = await asyncio.gather(
            *(running.service.submit(caller, make_request(seed=n), Dialect.NATIVE) for n in range(50)),
            return_exceptions=True,
        )
        accepted = [result for result in results if isinstance(result, Job)]
        assert len(accepted) == 10
        assert sum(isinstance(result, InsufficientCredits) for result in results) == 40
        assert await balance_of(running.db, caller) == 0
        assert all(job.status is JobStatus.SUCCEEDED for job in await until_ended(running, *accepted))
        await assert_ledger_adds_up(running.db)


async def test_the_queue_has_a_limit_for_each_user_and_one_for_all(tmp_path: Path) -> None:
    limits = {"max_queued_jobs_per_user": 2, "max_queued_jobs": 3}
    async with run_service(tmp_path, host=FakeHost(says_ready=False), **limits) as running:
        ada, bob = await make_caller(running.db), await make_caller(running.db)
        for caller in (ada, ada, bob):
            await running.service.submit(caller, make_request(), Dialect.NATIVE)
        for caller in (ada, bob):
            with pytest.raises(QueueFull):
                await running.service.submit(caller, make_request(), Dialect.NATIVE)
        assert [await balance_of(running.db, caller) for caller in (ada, bob)] == [98, 99]
        assert running.service.queue_depth == 3


# What goes wrong is refunded.


async def test_pictures_that_do_not_come_are_refunded(tmp_path: Path) -> None:
    async with run_service(tmp_path, host=FakeHost(automatic=False)) as running:
        caller = await make_caller(running.db, balance=10)
        job = await running.service.submit(caller, make_request(image_count=4), Dialect.NATIVE)
        running.host.finish(await running.host.next(Generate), images=3)
        done = await running.service.wait(job.id)
        assert (done.status, len(done.outputs)) == (JobStatus.SUCCEEDED, 3)
        assert await balance_of(running.db, caller) == 7
        (key,) = await list_keys(running.db, caller.user_id)
        assert key.credits_spent == 3


async def test_a_picture_that_cannot_be_stored_is_refunded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with run_service(tmp_path) as running:
        put = running.objects.put
        refused = iter([True])

        async def put_all_but_one(key: str, data: bytes, content_type: str) -> None:
            if next(refused, False):
                raise OSError("no space left on device")
            await put(key, data, content_type)

        monkeypatch.setattr(running.objects, "put", put_all_but_one)
        caller = await make_caller(running.db, balance=10)
        job = await running.service.submit(caller, make_request(image_count=2), Dialect.NATIVE)
        done = await running.service.wait(job.id)
        assert (done.status, len(done.outputs)) == (JobStatus.SUCCEEDED, 1)
        assert await balance_of(running.db, caller) == 9


async def test_a_job_without_any_picture_fails(tmp_path: Path) -> None:
    async with run_service(tmp_path, host=FakeHost(automatic=False)) as running:
        caller = await make_caller(running.db, balance=10)
        job = await running.service.submit(caller, make_request(), Dialect.NATIVE)
        running.host.finish(await running.host.next(Generate), images=0)
        done = await running.service.wait(job.id)
        assert (done.status, done.error_code) == (JobStatus.FAILED, "generation_failed")
        assert await balance_of(running.db, caller) == 10


async def test_a_failed_job_carries_its_error_and_is_refunded_whole(tmp_path: Path) -> None:
    async with run_service(tmp_path, host=FakeHost(automatic=False)) as running:
        caller = await make_caller(running.db, balance=10)
        job = await running.service.submit(caller, make_request(image_count=4), Dialect.NATIVE)
        generate = await running.host.next(Generate)
        running.host.image(generate, 0)
        running.host.fail(generate, "out_of_memory", "Too large.")
        done = await running.service.wait(job.id)
        assert (done.status, done.error_code, done.error_message) == (JobStatus.FAILED, "out_of_memory", "Too large.")
        assert done.outputs == ()
        assert await balance_of(running.db, caller) == 10
        (key,) = await list_keys(running.db, caller.user_id)
        assert (key.uses, key.credits_spent) == (0, 0)
        await assert_ledger_adds_up(running.db)


async def test_a_job_whose_model_is_gone_fails_and_the_queue_goes_on(tmp_path: Path) -> None:
    registry = make_registry(make_model(), make_model("other"))
    async with run_service(tmp_path, host=FakeHost(says_ready=False), registry=registry) as running:
        caller = await make_caller(running.db, balance=10)
        orphan = await running.service.submit(caller, make_request(model="other"), Dialect.NATIVE)
        fine = await running.service.submit(caller, make_request(), Dialect.NATIVE)
    async with run_service(tmp_path) as running:
        failed, done = await until_ended(running, orphan, fine)
        assert (failed.status, failed.error_code) == (JobStatus.FAILED, "unknown_model")
        assert done.status is JobStatus.SUCCEEDED
        assert await balance_of(running.db, caller) == 9


# Engines die.


async def test_a_job_survives_the_death_of_its_engine_with_the_same_seed_and_the_same_output_ids(
    tmp_path: Path,
) -> None:
    async with run_service(tmp_path, host=FakeHost(automatic=False)) as running:
        caller = await make_caller(running.db, balance=10)
        job = await running.service.submit(caller, make_request(image_count=2, seed=99), Dialect.NATIVE)
        first = await running.host.next(Generate)
        running.host.image(first, 0)
        running.host.die()
        second = await running.host.next(Generate)
        assert (second.job_id, second.request) == (first.job_id, first.request)
        running.host.finish(second)
        done = await running.service.wait(job.id)
        assert (done.status, done.attempts) == (JobStatus.SUCCEEDED, 2)
        assert [output.seed for output in done.outputs] == [99, 100]
        assert await balance_of(running.db, caller) == 8
        assert len(list((tmp_path / "objects").glob("*.png"))) == 2  # nothing orphaned by the first attempt


async def test_a_job_under_which_engines_die_twice_fails_and_is_refunded(tmp_path: Path) -> None:
    async with run_service(tmp_path, host=FakeHost(automatic=False), max_job_attempts=2) as running:
        caller = await make_caller(running.db, balance=10)
        job = await running.service.submit(caller, make_request(image_count=2), Dialect.NATIVE)
        for _ in range(2):
            await running.host.next(Generate)
            running.host.die()
        done = await running.service.wait(job.id)
        assert (done.status, done.error_code) == (JobStatus.FAILED, "engine_unavailable")
        assert await balance_of(running.db, caller) == 10
        await assert_ledger_adds_up(running.db)


async def test_a_job_that_kills_engines_takes_no_other_down_with_it(tmp_path: Path) -> None:
    async with run_service(tmp_path, host=FakeHost(automatic=False)) as running:
        caller = await make_caller(running.db, balance=10)
        poison, *others = [
            await running.service.submit(caller, make_request(seed=seed), Dialect.NATIVE) for seed in range(4)
        ]

        async def play_the_engine() -> None:
            seen: set[str] = set()
            while len(seen) < 4:  # all four are in the first engine's hands
                seen.add((await running.host.next(Generate)).job_id)
            running.host.die()
            while True:
                generate = await running.host.next(Generate)
                if generate.job_id == str(poison.id):
                    running.host.die()
                else:
                    running.host.finish(generate)

        engine = asyncio.create_task(play_the_engine())
        failed, *done = await until_ended(running, poison, *others)
        engine.cancel()
        assert failed.status is JobStatus.FAILED
        assert {job.status for job in done} == {JobStatus.SUCCEEDED}
        assert await balance_of(running.db, caller) == 7


async def test_an_engine_that_dies_after_its_last_picture_costs_the_job_nothing(tmp_path: Path) -> None:
    async with run_service(tmp_path, host=FakeHost(automatic=False)) as running:
        caller = await make_caller(running.db)
        job = await running.service.submit(caller, make_request(), Dialect.NATIVE)
        generate = await running.host.next(Generate)
        running.host.finish(generate)
        running.host.die()
        done = await running.service.wait(job.id)
        assert (done.status, done.attempts) == (JobStatus.SUCCEEDED, 1)


async def test_an_engine_that_talks_nonsense_is_replaced(tmp_path: Path) -> None:
    async with run_service(tmp_path, host=FakeHost(automatic=False)) as running:
        job = await running.service.submit(await make_caller(running.db), make_request(), Dialect.NATIVE)
        await running.host.next(Generate)
        running.host.emit(Finished(job_id="not an id"))
        running.host.finish(await running.host.next(Generate))
        assert (await running.service.wait(job.id)).status is JobStatus.SUCCEEDED
        assert running.host.starts == 2


async def test_messages_about_jobs_that_the_engine_does_not_have_change_nothing(tmp_path: Path) -> None:
    async with run_service(tmp_path, host=FakeHost(automatic=False)) as running:
        job = await running.service.submit(await make_caller(running.db), make_request(), Dialect.NATIVE)
        generate = await running.host.next(Generate)
        stranger = Generate(job_id=str(uuid4()), request=make_request())
        running.host.finish(stranger)
        running.host.image(generate, 5)  # there is no picture 5
        running.host.finish(generate)
        running.host.finish(generate)
        done = await running.service.wait(job.id)
        assert (done.status, len(done.outputs)) == (JobStatus.SUCCEEDED, 1)


async def test_an_engine_that_does_not_start_is_tried_again_after_longer_and_longer_pauses(tmp_path: Path) -> None:
    pauses: list[float] = []
    enough = asyncio.Event()

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 9:
            enough.set()
        await asyncio.sleep(0)

    host = FakeHost()
    host.start_error = OSError("no such file")
    async with run_service(tmp_path, host=host, pause=pause) as running:
        await enough.wait()
        assert pauses[:9] == [0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]
        assert not running.service.is_ready
        host.start_error = None
        job = await running.service.submit(await make_caller(running.db), make_request(), Dialect.NATIVE)
        assert (await running.service.wait(job.id)).status is JobStatus.SUCCEEDED
        assert running.service.is_ready
        assert running.service.engine_info is not None
        assert running.service.engine_info.device == "cpu"


async def test_jobs_are_shared_between_engines_and_move_when_one_dies(tmp_path: Path) -> None:
    one, other = FakeHost(automatic=False), FakeHost(automatic=False)
    async with run_service(tmp_path, host=one, more_hosts=[other]) as running:
        await asyncio.gather(one.next(LoadModel), other.next(LoadModel))  # both are up
        caller = await make_caller(running.db)
        jobs = [await running.service.submit(caller, make_request(), Dialect.NATIVE) for _ in range(2)]
        first, second = await asyncio.gather(one.next(Generate), other.next(Generate))
        assert {first.job_id, second.job_id} == {str(job.id) for job in jobs}
        one.start_error = OSError("gone for good")
        one.die()
        other.finish(second)
        other.finish(await other.next(Generate))
        assert {job.status for job in await until_ended(running, *jobs)} == {JobStatus.SUCCEEDED}


# Cancel and timeout.


async def test_canceling_a_queued_job_returns_its_credits(tmp_path: Path) -> None:
    async with run_service(tmp_path, host=FakeHost(says_ready=False)) as running:
        caller = await make_caller(running.db, balance=10)
        job = await running.service.submit(caller, make_request(image_count=4), Dialect.NATIVE)
        assert await balance_of(running.db, caller) == 6
        await running.service.cancel(job.id)
        await running.service.cancel(job.id)
        assert (await running.service.wait(job.id)).status is JobStatus.CANCELED
        assert await balance_of(running.db, caller) == 10
        assert running.service.queue_depth == 0


async def test_canceling_a_running_job_returns_its_credits_and_tells_the_engine(tmp_path: Path) -> None:
    async with run_service(tmp_path, host=FakeHost(automatic=False)) as running:
        caller = await make_caller(running.db, balance=10)
        job = await running.service.submit(caller, make_request(image_count=4), Dialect.NATIVE)
        generate = await running.host.next(Generate)
        running.host.image(generate, 0)
        waiter = asyncio.create_task(running.service.wait(job.id))
        await running.service.cancel(job.id)
        assert (await running.host.next(Cancel)).job_id == generate.job_id
        running.host.emit(Canceled(job_id=generate.job_id))
        assert (await waiter).status is JobStatus.CANCELED
        assert await balance_of(running.db, caller) == 10
        await assert_ledger_adds_up(running.db)


async def test_pictures_that_come_after_a_cancel_are_thrown_away(tmp_path: Path) -> None:
    async with run_service(tmp_path, host=FakeHost(automatic=False)) as running:
        caller = await make_caller(running.db, balance=10)
        job = await running.service.submit(caller, make_request(image_count=2), Dialect.NATIVE)
        generate = await running.host.next(Generate)
        running.host.image(generate, 0)
        await running.service.cancel(job.id)
        running.host.finish(generate)
        # The next job runs only after the first one's end was handled.
        after = await running.service.submit(caller, make_request(), Dialect.NATIVE)
        running.host.finish(await running.host.next(Generate))
        await running.service.wait(after.id)
        assert (await running.service.job(job.id)).status is JobStatus.CANCELED
        assert await balance_of(running.db, caller) == 9
    assert len(list((tmp_path / "objects").glob("*.png"))) == 1


async def test_an_interrupted_job_keeps_what_there_is_and_pays_for_that(tmp_path: Path) -> None:
    async with run_service(tmp_path, host=FakeHost(automatic=False)) as running:
        caller = await make_caller(running.db, balance=10)
        job = await running.service.submit(caller, make_request(image_count=4), Dialect.SDAPI)
        generate = await running.host.next(Generate)
        await running.service.cancel(job.id, keep_partial=True)
        assert (await running.host.next(Cancel)).keep_partial
        running.host.image(generate, 0, is_partial=True)
        running.host.emit(Finished(job_id=generate.job_id))
        done = await running.service.wait(job.id)
        assert (done.status, len(done.outputs)) == (JobStatus.SUCCEEDED, 1)
        assert await balance_of(running.db, caller) == 9


async def test_a_job_interrupted_before_its_first_picture_succeeds_with_none_and_costs_nothing(
    tmp_path: Path,
) -> None:
    async with run_service(tmp_path, host=FakeHost(automatic=False)) as running:
        caller = await make_caller(running.db, balance=10)
        job = await running.service.submit(caller, make_request(image_count=4), Dialect.SDAPI)
        generate = await running.host.next(Generate)
        await running.service.cancel(job.id, keep_partial=True)
        running.host.emit(Finished(job_id=generate.job_id))
        done = await running.service.wait(job.id)
        assert (done.status, done.outputs) == (JobStatus.SUCCEEDED, ())
        assert await balance_of(running.db, caller) == 10


async def test_interrupting_a_queued_job_cancels_it(tmp_path: Path) -> None:
    async with run_service(tmp_path, host=FakeHost(says_ready=False)) as running:
        caller = await make_caller(running.db, balance=10)
        job = await running.service.submit(caller, make_request(), Dialect.SDAPI)
        await running.service.cancel(job.id, keep_partial=True)
        assert (await running.service.wait(job.id)).status is JobStatus.CANCELED


async def test_a_job_nobody_knows_can_be_neither_canceled_nor_waited_for(tmp_path: Path) -> None:
    async with run_service(tmp_path) as running:
        for ask in (running.service.cancel, running.service.wait, running.service.job):
            with pytest.raises(NotFound):
                await ask(uuid4())
        assert running.service.progress(uuid4()) is None


@pytest.mark.parametrize("is_running", [False, True])
async def test_a_wait_that_takes_too_long_ends_the_job_and_refunds_it(tmp_path: Path, is_running: bool) -> None:
    host = FakeHost(automatic=False, says_ready=is_running)
    async with run_service(tmp_path, host=host) as running:
        caller = await make_caller(running.db, balance=10)
        job = await running.service.submit(caller, make_request(image_count=4), Dialect.STABLECOG)
        if is_running:
            await host.next(Generate)
        with pytest.raises(GenerationTimeout):
            await running.service.wait(job.id, timeout_seconds=0.001)
        ended = await running.service.wait(job.id)
        assert (ended.status, ended.error_code) == (JobStatus.FAILED, "generation_timeout")
        assert await balance_of(running.db, caller) == 10
        if is_running:
            assert (await host.next(Cancel)).job_id == str(job.id)


async def test_a_caller_who_goes_away_changes_nothing_for_the_job(tmp_path: Path) -> None:
    async with run_service(tmp_path, host=FakeHost(automatic=False)) as running:
        job = await running.service.submit(await make_caller(running.db), make_request(), Dialect.NATIVE)
        waiter = asyncio.create_task(running.service.wait(job.id, timeout_seconds=100))
        generate = await running.host.next(Generate)
        waiter.cancel()
        await asyncio.gather(waiter, return_exceptions=True)
        running.host.finish(generate)
        assert (await running.service.wait(job.id)).status is JobStatus.SUCCEEDED


# Stop and start.


async def test_queued_jobs_outlive_a_restart(tmp_path: Path) -> None:
    async with run_service(tmp_path, host=FakeHost(says_ready=False)) as running:
        caller = await make_caller(running.db, balance=10)
        jobs = [await running.service.submit(caller, make_request(seed=n), Dialect.NATIVE) for n in range(3)]
    async with run_service(tmp_path) as running:
        assert {job.status for job in await until_ended(running, *jobs)} == {JobStatus.SUCCEEDED}
        assert await balance_of(running.db, caller) == 7


async def test_a_stop_keeps_running_jobs_and_takes_no_attempt_from_them(tmp_path: Path) -> None:
    async with run_service(tmp_path, host=FakeHost(automatic=False)) as running:
        caller = await make_caller(running.db, balance=10)
        job = await running.service.submit(caller, make_request(seed=3), Dialect.NATIVE)
        generate = await running.host.next(Generate)
        waiter = asyncio.create_task(running.service.wait(job.id))
        await asyncio.sleep(0)
        await running.service.stop()
        with pytest.raises(EngineUnavailable):
            await waiter
        assert (await running.service.job(job.id)).status is JobStatus.QUEUED
    async with run_service(tmp_path, host=FakeHost(automatic=False)) as running:
        again = await running.host.next(Generate)
        assert again.request == generate.request
        running.host.finish(again)
        done = await running.service.wait(job.id)
        assert (done.status, done.attempts) == (JobStatus.SUCCEEDED, 1)


async def test_a_stop_finishes_storing_what_the_engine_has_delivered(tmp_path: Path) -> None:
    async with run_service(tmp_path, host=FakeHost(automatic=False)) as running:
        job = await running.service.submit(await make_caller(running.db), make_request(), Dialect.NATIVE)
        generate = await running.host.next(Generate)
        running.host.finish(generate)
        await running.host.heard()
        await running.service.stop()
        assert (await running.service.job(job.id)).status is JobStatus.SUCCEEDED


@pytest.mark.parametrize(("deaths", "expected"), [(1, JobStatus.SUCCEEDED), (2, JobStatus.FAILED)])
async def test_jobs_that_a_killed_server_left_running_are_run_again_or_refunded(
    tmp_path: Path, deaths: int, expected: JobStatus
) -> None:
    folders = [tmp_path / str(n) for n in range(deaths + 1)]
    for folder in folders:
        folder.mkdir()
    async with run_service(folders[0], host=FakeHost(says_ready=False)) as running:
        caller = await make_caller(running.db, balance=10)
        job = await running.service.submit(caller, make_request(), Dialect.NATIVE)
    for folder, following in pairwise(folders):
        async with run_service(folder, host=FakeHost(automatic=False)) as running:
            await running.host.next(Generate)
            await copy_as_a_kill_leaves_it(running, following)
    async with run_service(folders[-1]) as running:
        assert (await running.service.wait(job.id)).status is expected
        assert await balance_of(running.db, caller) == (9 if expected is JobStatus.SUCCEEDED else 10)
        await assert_ledger_adds_up(running.db)


async def copy_as_a_kill_leaves_it(running: Running, folder: Path) -> None:
    """Copy the database in the middle of everything: it says that the jobs run, and nobody runs them."""
    async with running.db.write():  # nobody writes meanwhile
        for file in running.settings.data_dir.glob("sfumato.db*"):
            shutil.copy(file, folder / file.name)


@pytest.mark.parametrize("ticks", range(0, 1200, 120))
async def test_a_stop_at_any_moment_loses_no_job(tmp_path: Path, ticks: int) -> None:
    async with run_service(tmp_path) as running:
        caller = await make_caller(running.db, balance=10)
        jobs = [await running.service.submit(caller, make_request(seed=n), Dialect.NATIVE) for n in range(4)]
        for _ in range(ticks):
            await asyncio.sleep(0)
    async with run_service(tmp_path) as running:
        done = await until_ended(running, *jobs)
        assert [(job.status, len(job.outputs), job.attempts) for job in done] == [(JobStatus.SUCCEEDED, 1, 1)] * 4
        assert await balance_of(running.db, caller) == 6
        await assert_ledger_adds_up(running.db)


@pytest.mark.parametrize("ticks", range(0, 1200, 120))
async def test_the_death_of_the_engine_at_any_moment_loses_no_job(tmp_path: Path, ticks: int) -> None:
    async with run_service(tmp_path) as running:
        caller = await make_caller(running.db, balance=10)
        jobs = [await running.service.submit(caller, make_request(seed=n), Dialect.NATIVE) for n in range(4)]
        for _ in range(ticks):
            await asyncio.sleep(0)
        running.host.die()
        assert {job.status for job in await until_ended(running, *jobs)} == {JobStatus.SUCCEEDED}
        assert await balance_of(running.db, caller) == 6


@pytest.mark.parametrize("ticks", range(0, 1200, 120))
async def test_a_cancel_at_any_moment_ends_in_pictures_or_credits_but_never_both(tmp_path: Path, ticks: int) -> None:
    async with run_service(tmp_path) as running:
        caller = await make_caller(running.db, balance=10)
        job = await running.service.submit(caller, make_request(image_count=2), Dialect.NATIVE)
        for _ in range(ticks):
            await asyncio.sleep(0)
        await running.service.cancel(job.id)
        ended = await running.service.wait(job.id)
        expected = {JobStatus.CANCELED: (0, 10), JobStatus.SUCCEEDED: (2, 8)}[ended.status]
        assert (len(ended.outputs), await balance_of(running.db, caller)) == expected
        # The engine goes on, whatever it was doing.
        after = await running.service.submit(caller, make_request(), Dialect.NATIVE)
        assert (await running.service.wait(after.id)).status is JobStatus.SUCCEEDED


async def test_a_result_that_the_database_refuses_at_first_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with run_service(tmp_path, host=FakeHost(automatic=False)) as running:
        caller = await make_caller(running.db, balance=10)
        job = await running.service.submit(caller, make_request(), Dialect.NATIVE)
        generate = await running.host.next(Generate)
        write, failures = running.db.write, iter([1, 2])

        def write_at_the_third_try() -> AbstractAsyncContextManager[AsyncSession]:
            if next(failures, None):
                raise OSError("disk is full")
            return write()

        monkeypatch.setattr(running.db, "write", write_at_the_third_try)
        running.host.finish(generate)
        assert (await running.service.wait(job.id)).status is JobStatus.SUCCEEDED
        assert await balance_of(running.db, caller) == 9


async def test_the_metrics_count_jobs_by_their_end_and_their_dialect(tmp_path: Path) -> None:
    async with run_service(tmp_path, host=FakeHost(automatic=False)) as running:
        caller = await make_caller(running.db)
        good = await running.service.submit(caller, make_request(image_count=2), Dialect.STABLECOG)
        running.host.finish(await running.host.next(Generate))
        await running.service.wait(good.id)
        bad = await running.service.submit(caller, make_request(), Dialect.SDAPI)
        await running.host.next(Generate)
        await running.service.cancel(bad.id)
        lines = running.service.metrics.render().decode().splitlines()
        for line in (
            'sfumato_jobs_total{dialect="stablecog",status="succeeded"} 1.0',
            'sfumato_jobs_total{dialect="sdapi",status="canceled"} 1.0',
            "sfumato_images_total 2.0",
            "sfumato_queue_wait_seconds_count 2.0",
            "sfumato_job_seconds_count 1.0",
            "sfumato_engine_up 1.0",
            "sfumato_engine_restarts_total 0.0",
        ):
            assert line in lines


# Everything at once.


@pytest.mark.parametrize("seed", range(3))
async def test_whatever_happens_every_job_ends_and_every_credit_is_accounted_for(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    host = FakeHost(automatic=False)
    async with run_service(tmp_path, host=host, max_images_in_flight=6, max_job_attempts=3) as running:
        callers = [await make_caller(running.db, balance=40) for _ in range(3)]

        async def play_the_engine() -> None:
            while True:
                generate = await host.next(Generate)
                match rng.randrange(6):
                    case 0:
                        host.die()
                    case 1:
                        host.fail(generate)
                    case 2:
                        host.finish(generate, images=rng.randint(0, generate.request.image_count))
                    case _:
                        host.finish(generate)

        async def use(n: int) -> tuple[Job, int]:
            caller = rng.choice(callers)
            job = await running.service.submit(caller, make_request(image_count=rng.randint(1, 3)), Dialect.NATIVE)
            if rng.randrange(4) == 0:
                await running.service.cancel(job.id)
            return await running.service.wait(job.id), n

        engine = asyncio.create_task(play_the_engine())
        ended = [job for job, _ in await asyncio.gather(*(use(n) for n in range(30)))]
        engine.cancel()
        assert all(job.status.is_final for job in ended)
        for caller in callers:
            delivered = sum(len(job.outputs) for job in ended if job.user_id == caller.user_id)
            assert await balance_of(running.db, caller) == 40 - delivered
        await assert_ledger_adds_up(running.db)
        assert running.service.active() == []
        metrics = running.service.metrics.render().decode()
        assert "sfumato_queue_depth 0.0" in metrics
