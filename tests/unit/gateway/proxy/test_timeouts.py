from typing import Any

import pytest

from autoglm.gateway.endpoints.deployments import Rules
from autoglm.gateway.proxy.timeouts import Limits, bounded, limits_of
from autoglm.validation import Operation, RequestInfo

STREAM = RequestInfo(Operation.GENERATE, "glm", streaming=True)
UNARY = RequestInfo(Operation.GENERATE, "glm")
DEFAULT = Limits(300.0, 60.0)


@pytest.mark.parametrize(("total", "deadline"), [(None, 60.0), (5.0, 5.0), (100.0, 60.0)])
def test_the_shorter_deadline_wins(make: Any, total: float | None, deadline: float) -> None:
    assert bounded(make.call(), Rules(total_seconds=total)).deadline == deadline


@pytest.mark.parametrize(
    ("ask", "rules", "limits"),
    [
        (STREAM, None, DEFAULT),
        (STREAM, Rules(), DEFAULT),
        (STREAM, Rules(first_token_seconds=2), Limits(2, 60.0)),
        (STREAM, Rules(first_token_seconds=2, chunk_seconds=1), Limits(2, 1)),
        # Of a unary response neither can be seen.
        (UNARY, Rules(first_token_seconds=2, chunk_seconds=1), Limits()),
    ],
)
def test_a_resources_limits_come_before_the_gateways(
    make: Any, ask: RequestInfo, rules: Rules | None, limits: Limits
) -> None:
    assert limits_of(make.call(info=ask), rules, DEFAULT) == limits
