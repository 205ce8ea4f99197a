"""The next replicas of each revision follow from the observed ones."""

from __future__ import annotations

import pytest

from autoglm.operator.rollout import Group, ProfileUser, next_in_turn, next_step, waits


def group(revision: str, ready: int, replicas: int | None = None, present: int = 0) -> Group:
    replicas_of_spec = ready if replicas is None else replicas
    return Group(revision, replicas_of_spec, max(replicas_of_spec, present), ready, ready)


@pytest.mark.parametrize("desired", [0, 1, 7])
def test_without_an_old_revision_all_replicas_start_at_once(desired: int) -> None:
    assert next_step(desired, "new", []) == {"new": desired}


def test_the_first_new_replica_comes_before_an_old_one_goes() -> None:
    assert next_step(3, "new", [group("old", 3)]) == {"new": 1, "old": 3}


def test_nothing_moves_while_the_new_replica_loads() -> None:
    groups = [group("old", 3), group("new", 0, replicas=1)]

    assert next_step(3, "new", groups) == {"new": 1, "old": 3}


def test_an_old_replica_goes_for_each_new_one_that_takes_requests() -> None:
    groups = [group("old", 3), group("new", 1)]

    assert next_step(3, "new", groups) == {"new": 1, "old": 2}


def test_a_replica_that_is_ready_but_in_no_gateway_does_not_count() -> None:
    groups = [group("old", 3), Group("new", 1, present=1, ready=1, serving=0)]

    assert next_step(3, "new", groups) == {"new": 1, "old": 3}


def test_the_next_new_one_waits_until_the_old_one_is_gone() -> None:
    ending = Group("old", 2, present=3, ready=2, serving=2)

    assert next_step(3, "new", [ending, group("new", 1)])["new"] == 1
    assert next_step(3, "new", [group("old", 2), group("new", 1)])["new"] == 2


def test_gateways_that_lose_their_pools_end_no_old_replica() -> None:
    unknown = Group("old", 3, present=3, ready=3, serving=0)

    assert next_step(3, "new", [unknown]) == {"new": 1, "old": 3}


def test_old_replicas_that_do_not_serve_are_removed_at_once() -> None:
    assert next_step(2, "new", [group("old", 0, replicas=2)]) == {"new": 1, "old": 0}


def test_an_old_revision_with_nothing_left_is_finished() -> None:
    assert next_step(2, "new", [group("old", 0), group("new", 2)]) == {"new": 2}


def test_an_unproven_revision_gets_one_replica_however_many_are_missing() -> None:
    assert next_step(10, "new", [group("old", 1)]) == {"new": 1, "old": 1}


def test_a_proven_revision_fills_a_gap_at_once() -> None:
    groups = [group("old", 1), group("new", 1)]

    assert next_step(10, "new", groups) == {"new": 10 - 1 + 1, "old": 1}


def test_a_spec_that_flips_back_grows_the_old_revision_again() -> None:
    groups = [group("a", 2), group("b", 1)]

    assert next_step(3, "a", groups) == {"a": 3, "b": 1}


def test_load_grows_the_old_revision_while_the_new_one_fails() -> None:
    groups = [group("old", 3), group("new", 0, replicas=1)]

    assert next_step(6, "new", groups, is_failing=True) == {"new": 1, "old": 6}
    assert next_step(6, "new", groups, is_failing=False) == {"new": 1, "old": 3}


def test_an_old_revision_that_grows_may_load() -> None:
    loading = Group("old", 6, present=6, ready=3, serving=3)
    failing = group("new", 0, replicas=1)

    step = next_step(6, "new", [loading, failing], is_failing=True)

    assert step == {"new": 1, "old": 6}


def test_suspending_ends_every_revision() -> None:
    groups = [group("old", 2), group("new", 1)]

    assert next_step(0, "new", groups) == {"new": 0, "old": 0}


def user(
    name: str, in_effect: str = "old", *, serves: bool = True, is_replacing: bool = False
) -> ProfileUser:
    return ProfileUser(name, "p", in_effect, serves, is_replacing)


def test_a_changed_profile_is_the_turn_of_one_resource() -> None:
    users = [user("b"), user("a"), user("c")]

    assert [u.resource for u in users if not waits(u, users, "new")] == ["a"]


def test_the_others_wait_while_one_replaces_its_replicas() -> None:
    users = [user("a", "new", is_replacing=True), user("b"), user("c")]

    assert [u.resource for u in users if not waits(u, users, "new")] == ["a"]
    assert next_in_turn(users, "new") is None


def test_the_next_follows_once_the_first_has_replaced_its_replicas() -> None:
    users = [user("a", "new"), user("b"), user("c")]

    assert next_in_turn(users, "new") == users[1]


def test_a_correction_first_reaches_the_resource_that_the_mistake_reached() -> None:
    users = [user("a"), user("b", "mistake", is_replacing=True)]

    assert next_in_turn(users, "corrected") == users[1]


@pytest.mark.parametrize("is_replacing", [False, True])
def test_a_resource_that_does_not_serve_neither_waits_nor_is_waited_for(is_replacing: bool) -> None:
    users = [user("a", serves=False, is_replacing=is_replacing), user("b")]

    assert not any(waits(u, users, "new") for u in users)


def test_a_resource_without_an_earlier_profile_takes_it_at_once() -> None:
    users = [user("a"), user("b", "")]

    assert not waits(users[1], users, "new")


def test_nothing_waits_while_all_have_the_profile() -> None:
    users = [user("a", "new"), user("b", "new")]

    assert next_in_turn(users, "new") is None
    assert not any(waits(u, users, "new") for u in users)
