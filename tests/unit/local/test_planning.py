"""The next actions follow from desired and observed state."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm.local.planning import (
    Action,
    Forget,
    GiveUp,
    Plan,
    Policy,
    Process,
    Replica,
    Restart,
    Start,
    State,
    Stop,
    Workload,
    plan,
)

OLD, NEW = Process(("old",)), Process(("new",))
POLICY = Policy()
NOW = 1000.0


def workload(replicas: int, process: Process = NEW) -> Workload:
    return Workload("m", replicas, process)


def replica(
    index: int, state: State = State.READY, process: Process = NEW, since: float = NOW
) -> Replica:
    return Replica("m", index, workload(0, process).revision, state, since)


def actions(wanted: list[Workload], *observed: Replica, now: float = NOW) -> list[Action]:
    return list(plan(wanted, observed, now, POLICY).actions)


def test_everything_missing_starts_at_once() -> None:
    wanted = workload(2)

    assert plan([wanted], [], NOW, POLICY) == Plan((Start(wanted, 0), Start(wanted, 1)))


def test_there_is_no_action_when_observed_and_desired_state_agree() -> None:
    assert plan([workload(2)], [replica(0), replica(1)], NOW, POLICY) == Plan()


def test_the_highest_surplus_replica_goes_first() -> None:
    assert actions([workload(1)], replica(0), replica(1)) == [Stop("m-1")]


def test_a_surplus_replica_that_is_not_ready_goes_before_one_that_is() -> None:
    assert actions([workload(1)], replica(0, State.STARTING), replica(1)) == [Stop("m-0")]


def test_a_removed_workload_ends_with_all_its_replicas() -> None:
    observed = (replica(0), replica(1, State.EXITED), replica(2, State.STOPPING))

    assert actions([], *observed) == [Stop("m-0"), Forget("m-1")]


def test_an_exited_replica_waits_for_its_backoff() -> None:
    exited = replace(replica(0, State.EXITED), failures=3)

    assert plan([workload(1)], [exited], NOW + 3.9, POLICY) == Plan((), NOW + 4)
    assert plan([workload(1)], [exited], NOW + 4, POLICY) == Plan((Restart("m-0"),))


@pytest.mark.parametrize(
    ("failures", "seconds"), [(1, 1), (2, 2), (3, 4), (5, 16), (6, 30), (5000, 30)]
)
def test_backoff_doubles_up_to_its_limit(failures: int, seconds: float) -> None:
    assert POLICY.backoff(failures) == seconds


@pytest.mark.parametrize(
    ("state", "lasted", "failures"),
    [(State.READY, 59, 5), (State.READY, 60, 1), (State.STARTING, 200, 5)],
)
def test_only_a_good_while_forgets_failures(state: State, lasted: float, failures: int) -> None:
    ended = replace(replica(0, state), failures=4)

    assert POLICY.failures_after(ended, NOW + lasted) == failures


@pytest.mark.parametrize("progressed", [0.0, 5000.0])
def test_a_replica_is_given_up_when_its_start_has_stalled_for_longer_than_it_may(
    progressed: float,
) -> None:
    starting = replace(replica(0, State.STARTING), progressed=NOW + progressed)
    due = NOW + progressed + NEW.stall_seconds + POLICY.stall_margin

    assert plan([workload(1)], [starting], due - 1, POLICY) == Plan((), due)
    assert plan([workload(1)], [starting], due, POLICY) == Plan((GiveUp("m-0"),))


def test_a_failed_replica_waits_for_another_revision() -> None:
    failed = replica(0, State.FAILED)

    assert plan([workload(1)], [failed], NOW + 1e9, POLICY) == Plan()
    assert actions([workload(1)], replica(0, State.FAILED, OLD)) == [
        Forget("m-0"),
        Start(workload(1), 1),
    ]


def test_a_restarting_replica_keeps_its_place() -> None:
    assert actions([workload(1)], replica(0, State.RESTARTING)) == []


def test_the_gateway_may_wait_for_its_first_replica_without_limit() -> None:
    gateway = workload(1, replace(NEW, is_routed=False))
    starting = replica(0, State.STARTING, gateway.process)

    assert plan([gateway], [starting], NOW + 1e6, POLICY) == Plan()


def test_a_new_revision_starts_before_the_old_one_ends() -> None:
    wanted = workload(1)
    old = replica(0, process=OLD)

    assert actions([wanted], old) == [Start(wanted, 1)]
    assert actions([wanted], old, replica(1, State.STARTING)) == []
    assert actions([wanted], old, replica(1)) == [Stop("m-0")]


def test_one_replica_at_a_time_is_replaced() -> None:
    wanted = workload(2)
    old = (replica(0, process=OLD), replica(1, process=OLD))

    assert actions([wanted], *old) == [Start(wanted, 2)]
    assert actions([wanted], *old, replica(2)) == [Stop("m-1")]
    leaving = replica(1, State.STOPPING, OLD)
    assert actions([wanted], old[0], leaving, replica(2)) == []
    assert actions([wanted], old[0], replica(2)) == [Start(wanted, 1)]


def test_an_old_replica_that_is_not_ready_ends_at_once() -> None:
    wanted = workload(1)

    assert actions([wanted], replica(0, State.EXITED, OLD)) == [Forget("m-0"), Start(wanted, 1)]
    assert actions([wanted], replica(0, State.STARTING, OLD)) == [Stop("m-0"), Start(wanted, 1)]


def test_a_failing_new_revision_leaves_the_old_one_serving() -> None:
    new = replace(replica(1, State.EXITED), failures=6)

    assert actions([workload(1)], replica(0, process=OLD), new) == []


def advance(observed: list[Replica], todo: Plan, chosen: int, now: float) -> list[Replica]:
    """Carries out a plan; then one process, chosen at will, takes its next step."""
    after = {replica.id: replica for replica in observed}
    for action in todo.actions:
        match action:
            case Start(wanted, index):
                new = Replica(wanted.name, index, wanted.revision, State.STARTING, now)
                assert new.id not in after
                after[new.id] = new
            case Restart(id):
                after[id] = replace(after[id], state=State.STARTING, since=now)
            case Stop(id):
                after[id] = replace(after[id], state=State.STOPPING, since=now)
            case GiveUp(id):
                after[id] = replace(after[id], state=State.FAILING, since=now)
            case Forget(id):
                del after[id]
    moving = [r for r in after.values() if r.state in (State.STARTING, State.STOPPING)]
    if moving:
        moved = moving[chosen % len(moving)]
        if moved.state is State.STARTING:
            after[moved.id] = replace(moved, state=State.READY, since=now)
        else:
            del after[moved.id]
    return list(after.values())


@given(st.integers(1, 5), st.integers(1, 5), st.lists(st.integers(0, 10), min_size=60, max_size=60))
def test_a_rollout_never_goes_below_the_wanted_number_and_converges(
    before: int, wanted: int, order: list[int]
) -> None:
    observed = [replica(index, process=OLD) for index in range(before)]
    desired = workload(wanted)

    for step, chosen in enumerate(order):
        now = NOW + step
        observed = advance(observed, plan([desired], observed, now, POLICY), chosen, now)

        ready = sum(r.state is State.READY for r in observed)
        assert ready >= min(before, wanted)
        assert len(observed) <= max(before, wanted) + 1

    assert plan([desired], observed, NOW, POLICY) == Plan()
    assert [(r.revision, r.state) for r in observed] == [(desired.revision, State.READY)] * wanted
