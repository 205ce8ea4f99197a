"""The comparison of a gateway with its pod sees what it is there to see."""

from itertools import chain
from pathlib import Path

import pytest
from tests.support.parity import Difference, Outcome, outcome_of, problems
from tests.support.parity_bodies import bodies
from tests.support.parity_differences import GENERATING, OF_KIND
from tests.support.parity_grpc import requests

from autoglm.validation.http_apis import INFERENCE_POSTS, inference_post

DOCUMENT = Path(__file__).parents[3] / "docs/validation.md"
GOOD, BAD = Outcome(200), Outcome(400, "invalid")
ROW = Difference(("a",), 200, 400, "a", "because")


@pytest.mark.parametrize("other", [BAD, Outcome(200, stream=True), Outcome(200, "invalid")])
def test_an_unlisted_difference_is_a_problem(other: Outcome) -> None:
    assert problems({"a": GOOD}, {"a": GOOD}, ()) == []
    assert len(problems({"a": GOOD}, {"a": other}, ())) == 1


def test_a_listed_difference_is_none() -> None:
    assert problems({"a": GOOD}, {"a": BAD}, (ROW,)) == []


@pytest.mark.parametrize("seen", [{"a": GOOD}, {"a": Outcome(500)}, {"b": GOOD}])
def test_a_row_that_is_not_true_is_a_problem(seen: dict[str, Outcome]) -> None:
    pod = dict.fromkeys(seen, GOOD)
    assert any("listed" in problem for problem in problems(pod, seen, (ROW,)))


@pytest.mark.parametrize(
    ("status", "content_type", "text", "expected"),
    [
        (200, "application/json", "{}", Outcome(200)),
        (400, "application/json", '{"error": {"type": "BadRequestError"}}', BAD),
        (400, "application/json", '{"error": {"type": "invalid_request_error"}}', BAD),
        (400, "application/json", '{"error": "text"}', BAD),
        (400, "text/plain", "no JSON", BAD),
        (200, "text/event-stream", 'data: {"a": 1}\n\n', Outcome(200, stream=True)),
        (
            200,
            "text/event-stream; charset=utf-8",
            'event: error\ndata: {"error": {"type": "api_error"}}\n\n',
            Outcome(200, "api_error", stream=True),
        ),
        (200, "text/event-stream", 'data: {"error": null}\n\n', Outcome(200, stream=True)),
    ],
)
def test_errors_are_classed_in_every_format(
    status: int, content_type: str, text: str, expected: Outcome
) -> None:
    assert outcome_of(status, content_type, text) == expected


def test_names_are_unique() -> None:
    for named in (bodies(), requests()):
        assert len({one.name for one in named}) == len(named) > 200


def test_every_api_has_requests() -> None:
    found = {api.path for body in bodies() if (api := inference_post(body.path))}
    assert found == {api.path for api in INFERENCE_POSTS}


def test_every_deliberate_difference_is_documented() -> None:
    rows = {line for line in DOCUMENT.read_text().splitlines() if line.startswith("| ")}
    documented = rows - {"| request | pod | gateway | why |"}
    assert documented == {row.markdown for row in chain(GENERATING, *OF_KIND.values())}
