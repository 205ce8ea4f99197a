"""A child reports why it ended."""

from __future__ import annotations

from pathlib import Path

import pytest

from autoglm.common.process import ExitCode
from autoglm.local.child import Failure, free_addresses, last_line, with_free_ports
from autoglm.local.planning import Addresses


@pytest.mark.parametrize(
    ("log", "line"),
    [
        ("one\ntwo\n\n", "two"),
        ('x\n{"level": "info", "message": "listening"}\n', "listening"),
        ('{"cut', '{"cut'),
        ("[1]", "[1]"),
        ("x" * 9000, "x" * 400),
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


@pytest.mark.parametrize(
    ("code", "is_fixed", "is_final"),
    [
        (ExitCode.BAD_SETTINGS, False, True),
        (ExitCode.MODEL_NOT_FOUND, False, True),
        (ExitCode.GATED_MODEL, False, True),
        (ExitCode.HUB_UNREACHABLE, False, False),
        (ExitCode.START_STALLED, False, False),
        (ExitCode.ENGINE_DEAD, False, False),
        (ExitCode.ADDRESS_IN_USE, False, False),
        (ExitCode.ADDRESS_IN_USE, True, True),
        (-9, False, False),
        (1, False, False),
        (None, False, False),
    ],
)
def test_only_a_cause_that_a_restart_does_not_help_is_final(
    code: int | None, is_fixed: bool, is_final: bool
) -> None:
    assert Failure("x", code).is_final(has_fixed_addresses=is_fixed) is is_final
