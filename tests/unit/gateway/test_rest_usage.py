"""Token counts are found in whole answers and at the end of streams."""

from __future__ import annotations

import pytest

from autoglm.gateway.call import Usage
from autoglm.gateway.rest_usage import usage_in

WHOLE = (
    b'{"choices": [{"finish_reason": "stop"}],'
    b' "usage": {"prompt_tokens": 3, "completion_tokens": 5}}'
)
STREAM = (
    b'cut off"}]}\n\ndata: {"choices": [{"finish_reason": "length"}], "usage": null}\n\n'
    b'data: {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 5}}\n\n'
    b"data: [DONE]\n\n"
)


@pytest.mark.parametrize(
    ("answer", "usage"),
    [
        (WHOLE, Usage(3, 5, ("stop",))),
        (STREAM, Usage(3, 5, ("length",))),
        (b'{"data": []}', None),
        (b'{"usage": 5}', None),
        (b"\xff", None),
        (b"", None),
    ],
)
def test_usage_is_what_the_answer_says(answer: bytes, usage: Usage | None) -> None:
    assert usage_in(answer) == usage
