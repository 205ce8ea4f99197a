from typing import Any

import pytest

from autoglm.api.spec.traffic import Timeouts
from autoglm.gateway.proxy.timeouts import Limits, bounded, limits_of
from autoglm.validation import Operation, RequestInfo

STREAM = RequestInfo(Operation.GENERATE, "glm", streaming=True)
UNARY = RequestInfo(Operation.GENERATE, "glm")
DEFAULT = Limits(300.0, 60.0)


@pytest.mark.parametrize(("total", "deadline"), [(None, 60.0), (5.0, 5.0), (100.0, 60.0)])
def test_the_shorter_deadline_wins(make: Any, total: float | None, deadline: float) -> None:
    assert bounded(make.call(), Timeouts(total_seconds=total)).deadline == deadline


@pytest.mark.parametrize(
    ("ask", "timeouts", "limits"),
    [
        (STREAM, Timeouts(), DEFAULT),
        (STREAM, Timeouts(first_token_seconds=2), Limits(2, 60.0)),
        (STREAM, Timeouts(first_token_seconds=2, chunk_seconds=1), Limits(2, 1)),
        # Of a unary response neither can be seen.
        (UNARY, Timeouts(first_token_seconds=2, chunk_seconds=1), Limits()),
    ],
)
def test_a_resources_limits_come_before_the_gateways(
    make: Any, ask: RequestInfo, timeouts: Timeouts, limits: Limits
) -> None:
    assert limits_of(make.call(info=ask), timeouts, DEFAULT) == limits
