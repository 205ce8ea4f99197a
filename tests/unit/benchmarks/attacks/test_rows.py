"""Rows of the table of attacks, their verdicts, and the table of kinds."""

from __future__ import annotations

from dataclasses import replace

import pytest
from benchmarks.attacks.attacker import Order, Seen, attack
from benchmarks.attacks.beside import SENDS
from benchmarks.attacks.kinds import BY_NAME, KINDS
from benchmarks.attacks.rows import (
    COLUMNS,
    FAILED,
    HELD,
    UPSTREAM,
    Memory,
    Result,
    row,
    saw,
    verdict,
)
from benchmarks.attacks.run import PLANES
from benchmarks.neighbour import Outcome

WELL, BADLY = Outcome(0.010, "OK"), Outcome(2.0, "CANCELLED: reset")
RESULT = Result(
    *(BY_NAME["ping"], "embedded", [WELL] * 20, [WELL] * 20, [WELL] * 20),
    *(Seen({"OK": 3}, connections=1), Memory(100.0, 120.0, 110.0)),
)


def test_a_row_has_every_column() -> None:
    assert set(COLUMNS) <= set(row(RESULT))


def test_an_attack_that_costs_no_request_is_held() -> None:
    assert verdict(RESULT) == HELD
    assert row(RESULT)["p99 ratio"] == pytest.approx(1.0)


@pytest.mark.parametrize(
    "result",
    [replace(RESULT, attacked=[WELL, BADLY, WELL]), replace(RESULT, after=[WELL, BADLY])],
)
def test_a_failed_request_fails_the_row_and_names_its_error(result: Result) -> None:
    assert verdict(result) == FAILED
    assert str(row(result)["first error"]).endswith(BADLY.status)


def test_requests_that_failed_before_the_attack_are_not_its() -> None:
    assert verdict(replace(RESULT, quiet=[WELL, BADLY])) == HELD


def test_a_gateway_that_ended_fails_the_row() -> None:
    result = replace(RESULT, has_ended=True)
    assert verdict(result) == FAILED
    assert "the gateway ended" in str(row(result)["first error"])


def test_a_row_of_grpcio_names_the_issue_on_its_plane_alone() -> None:
    (name, plane), issue = next(iter(UPSTREAM.items()))
    result = replace(RESULT, kind=BY_NAME[name], plane=plane, attacked=[BADLY] * 2)
    assert verdict(result) == issue
    (other,) = set(PLANES) - {plane}
    assert verdict(replace(result, plane=other)) == FAILED


def test_the_rows_of_grpcio_are_of_kinds_of_grpc_on_the_plane_that_has_its_server() -> None:
    for (name, plane), issue in UPSTREAM.items():
        assert BY_NAME[name].wire == "gRPC"
        assert plane == "embedded"
        assert issue.startswith("https://github.com/grpc/grpc/")


def test_what_was_seen_has_statuses_by_number_and_when_connections_ended() -> None:
    seen = Seen({"401": 1, "200": 4}, connections=3, rejected=2, ended=[1.04, 0.5])
    assert saw(seen) == "200 x 4, 401, 2 of 3 ended after 0.5 to 1.0 s, 2 not opened"
    assert saw(Seen(connections=5)) == "5 open to the end"
    assert saw(Seen()) == ""


def test_kinds_have_names_of_their_own_and_a_neighbour_on_their_wire() -> None:
    assert len(BY_NAME) == len(KINDS)
    assert {kind.wire for kind in KINDS} == set(SENDS)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_kind_opens_connections_that_write_something(kind: object) -> None:
    connections = BY_NAME[str(getattr(kind, "name", ""))].connect("key")
    assert 0 < len(connections) <= 600
    assert all(isinstance(next(connection.writes), bytes) for connection in connections)


def test_nothing_but_loopback_is_attacked() -> None:
    with pytest.raises(ValueError, match="not a loopback address"):
        attack(Order("ping", "192.0.2.1", 80, 1.0, ""))
