"""The queue's policy, by properties over any mix of users, sizes and interrupted jobs."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from sfumato.scheduling.queue import RunningJob, choose
from sfumato.storage.jobs import WaitingJob

START = datetime(2030, 1, 1, tzinfo=UTC)
USERS = [UUID(int=n) for n in range(1, 5)]

waiting_lists = st.lists(
    st.tuples(st.sampled_from(USERS), st.integers(1, 8), st.integers(0, 20), st.booleans()), max_size=15
).map(lambda rows: [waiting(100 + n, *row) for n, row in enumerate(rows)])
fresh_lists = st.lists(st.tuples(st.sampled_from(USERS), st.integers(1, 8), st.integers(0, 20)), max_size=15).map(
    lambda rows: [waiting(100 + n, *row) for n, row in enumerate(rows)]
)
running_lists = st.lists(st.tuples(st.sampled_from(USERS), st.integers(1, 8)), max_size=6).map(
    lambda rows: [running(500 + n, *row) for n, row in enumerate(rows)]
)
capacities = st.integers(1, 20)


def waiting(n: int, user: UUID, images: int = 1, second: int = 0, was_interrupted: bool = False) -> WaitingJob:
    return WaitingJob(
        id=UUID(int=n),
        user_id=user,
        image_count=images,
        created_at=START + timedelta(seconds=second),
        was_interrupted=was_interrupted,
    )


def running(n: int, user: UUID, images: int = 1, was_interrupted: bool = False) -> RunningJob:
    return RunningJob(id=UUID(int=n), user_id=user, image_count=images, was_interrupted=was_interrupted)


@given(waiting_lists, running_lists, capacities)
def test_what_is_chosen_waits_and_is_chosen_once(
    queue: list[WaitingJob], busy: list[RunningJob], capacity: int
) -> None:
    chosen = choose(queue, busy, capacity)
    assert len(set(chosen)) == len(chosen)
    assert set(chosen) <= {job.id for job in queue}


@given(waiting_lists, running_lists, capacities)
def test_only_the_last_job_may_go_over_the_capacity(
    queue: list[WaitingJob], busy: list[RunningJob], capacity: int
) -> None:
    sizes = {job.id: job.image_count for job in queue}
    in_flight = sum(job.image_count for job in busy)
    for job_id in choose(queue, busy, capacity):
        assert in_flight < capacity
        in_flight += sizes[job_id]


@given(waiting_lists.filter(bool), capacities)
def test_an_idle_engine_never_stays_idle_while_a_job_waits(queue: list[WaitingJob], capacity: int) -> None:
    assert choose(queue, [], capacity)


@given(fresh_lists, running_lists, capacities)
def test_room_is_filled_while_jobs_wait(queue: list[WaitingJob], busy: list[RunningJob], capacity: int) -> None:
    chosen = set(choose(queue, busy, capacity))
    in_flight = sum(job.image_count for job in busy) + sum(job.image_count for job in queue if job.id in chosen)
    assert in_flight >= capacity or len(chosen) == len(queue)


@given(waiting_lists, running_lists, capacities)
def test_each_user_is_served_in_order_of_age(queue: list[WaitingJob], busy: list[RunningJob], capacity: int) -> None:
    chosen = choose(queue, busy, capacity)
    for user in USERS:
        own = [job.id for job in sorted(queue, key=lambda job: (job.created_at, job.id)) if job.user_id == user]
        served = [job_id for job_id in chosen if job_id in own]
        assert served == own[: len(served)]


@given(fresh_lists, running_lists, capacities)
def test_nobody_is_served_while_a_waiting_user_has_fewer_pictures_in_flight(
    queue: list[WaitingJob], busy: list[RunningJob], capacity: int
) -> None:
    by_id = {job.id: job for job in queue}
    in_flight = dict.fromkeys(USERS, 0)
    for job in busy:
        in_flight[job.user_id] += job.image_count
    left = list(queue)
    for job_id in choose(queue, busy, capacity):
        job = by_id[job_id]
        assert in_flight[job.user_id] == min(in_flight[other.user_id] for other in left)
        left.remove(job)
        in_flight[job.user_id] += job.image_count


@given(waiting_lists, running_lists, capacities)
def test_a_job_whose_engine_died_runs_alone(queue: list[WaitingJob], busy: list[RunningJob], capacity: int) -> None:
    suspects = {job.id for job in queue if job.was_interrupted}
    chosen = choose(queue, busy, capacity)
    if suspects & set(chosen):
        assert len(chosen) == 1
        assert not busy
    assert choose(queue, [running(900, USERS[0], was_interrupted=True)], capacity) == []


@given(waiting_lists, running_lists, capacities, st.randoms())
def test_the_order_in_which_the_queue_is_read_does_not_matter(
    queue: list[WaitingJob], busy: list[RunningJob], capacity: int, random: st.DataObject
) -> None:
    shuffled = list(queue)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert choose(shuffled, busy, capacity) == choose(queue, busy, capacity)


def test_two_users_take_turns() -> None:
    ada, bob = USERS[:2]
    queue = [waiting(n, ada, second=n) for n in range(1, 4)] + [waiting(n, bob, second=n) for n in range(4, 7)]
    assert [job_id.int for job_id in choose(queue, [], 6)] == [1, 4, 2, 5, 3, 6]


def test_a_newcomer_goes_before_a_user_with_much_in_flight() -> None:
    ada, bob = USERS[:2]
    queue = [waiting(1, ada, second=1), waiting(2, bob, second=9)]
    assert [job_id.int for job_id in choose(queue, [running(50, ada, 3)], 4)] == [2]
