from autoglm.inference.settings import Rates
from autoglm.simulator.blocks import BlockPool
from autoglm.simulator.scheduler import Job, Scheduler

NO_WAIT = Rates()


def make(rates: Rates = NO_WAIT, slots: int = 8, blocks: int = 64) -> Scheduler:
    return Scheduler(rates, slots, BlockPool(blocks))


def submit(scheduler: Scheduler, *jobs: Job, now: float = 0.0) -> None:
    for job in jobs:
        scheduler.submit(job)
    scheduler.admit(now)


def test_the_first_token_is_due_after_prefill_and_the_next_at_the_rate() -> None:
    scheduler = make(Rates(token_rate=10, prefill_rate=100))
    job = Job([1] * 50)
    submit(scheduler, job)
    assert scheduler.wake_at() == 0.5
    assert scheduler.due(0.49) == []
    assert scheduler.due(0.5) == [job]
    scheduler.append(job, 2)
    assert scheduler.wake_at() == 0.6


def test_slots_are_given_by_priority_then_arrival() -> None:
    scheduler = make(slots=1)
    late, early, urgent = Job([1]), Job([1]), Job([1], priority=-1)
    for job in (early, late, urgent):
        scheduler.submit(job)
    order = []
    for _ in range(3):
        scheduler.admit(0)
        order += list(scheduler.running)
        scheduler.remove(order[-1])
    assert order == [urgent, early, late]


def test_a_cached_prefix_skips_prefill() -> None:
    scheduler = make(Rates(prefill_rate=100))
    first, second = Job(list(range(33))), Job(list(range(33)))
    submit(scheduler, first)
    scheduler.remove(first)
    submit(scheduler, second, now=1.0)
    assert second.cached_tokens == 32
    assert scheduler.wake_at() == 1.0 + 0.01


def test_who_finds_no_block_sends_the_latest_comer_back() -> None:
    scheduler = make(blocks=2)
    first, second = Job(list(range(15))), Job(list(range(20, 35)))
    submit(scheduler, first, second)
    for _ in range(2):
        for job in scheduler.due(0):
            scheduler.append(job, 99)
    assert list(scheduler.running) == [first]
    assert scheduler.waiting == 1
    scheduler.remove(first)
    scheduler.admit(0)
    assert list(scheduler.running) == [second]
    assert second.ids[:15] == list(range(20, 35))


def test_a_job_alone_can_fill_the_whole_budget() -> None:
    scheduler = make(blocks=2)
    job = Job([1] * 3)
    submit(scheduler, job)
    while len(job.ids) < scheduler.capacity:
        assert scheduler.due(0) == [job]
        scheduler.append(job, 1)
    assert scheduler.pool.usage == 1.0


def test_removing_frees_all_blocks() -> None:
    scheduler = make(slots=1)
    running, waiting = Job([1] * 40), Job([2] * 40)
    submit(scheduler, running, waiting)
    assert scheduler.tokens_in_flight == 80
    scheduler.remove(waiting)
    scheduler.remove(running)
    assert (scheduler.pool.used, scheduler.waiting, scheduler.tokens_in_flight) == (0, 0, 0)


def test_a_hanging_job_keeps_its_slot_and_is_never_due() -> None:
    scheduler = make()
    job = Job([1], hang_after=0)
    submit(scheduler, job)
    assert scheduler.due(1e9) == []
    assert scheduler.wake_at() is None
    assert scheduler.pool.used == 1
