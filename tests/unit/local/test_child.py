"""A child reports why it ended."""

from __future__ import annotations

from pathlib import Path

import pytest

from autoglm.local.child import free_addresses, last_line, with_free_ports
from autoglm.local.planning import Addresses


@pytest.mark.parametrize(
    ("log", "line"),
    [
        ("one\ntwo\n\n", "two"),
        ('x\n{"level": "info", "message": "listening"}\n', "listening"),
        ('{"cut', '{"cut'),
        ("[1]", "[1]"),
        ("x" * 9000, "x" * 200),
        ("\n", ""),
    ],
)
def test_the_last_line_that_is_not_empty_is_found(tmp_path: Path, log: str, line: str) -> None:
    (tmp_path / "log").write_text(log)

    assert last_line(tmp_path / "log") == line


def test_a_missing_log_has_no_last_line(tmp_path: Path) -> None:
    assert last_line(tmp_path / "log") == ""


def test_ports_are_promised_once() -> None:
    taken = [free_addresses() for _ in range(50)]
    given = free_addresses(taken)

    promised = {text for a in taken for text in (a.grpc, a.http, a.metrics)}
    assert not {given.grpc, given.http, given.metrics} & promised


def test_only_port_zero_is_replaced() -> None:
    given = with_free_ports(Addresses("127.0.0.1:0", "0.0.0.0:8080", "127.0.0.1:9090"))

    assert (given.http, given.metrics) == ("0.0.0.0:8080", "127.0.0.1:9090")
    assert not given.grpc.endswith(":0")
