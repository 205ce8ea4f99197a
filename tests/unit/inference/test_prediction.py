import math

import pytest

from autoglm import v1
from autoglm.inference.engine import EngineRequest
from autoglm.inference.prediction import predict, ranked, shares, text_of
from autoglm.simulator import EchoSettings, start


@pytest.mark.parametrize(
    ("logprobs", "scores"),
    [
        ([math.log(0.3), math.log(0.1)], [0.75, 0.25]),
        ([-2000.0, -2000.0], [0.5, 0.5]),
        ([-math.inf, -1.0], [0.0, 1.0]),
        ([-math.inf, -math.inf], [0.5, 0.5]),
        ([-3.0], [1.0]),
    ],
)
def test_scores_are_probabilities_among_the_labels(
    logprobs: list[float], scores: list[float]
) -> None:
    assert shares(logprobs) == pytest.approx(scores)


def test_the_likeliest_label_comes_first() -> None:
    found = ranked(["a", "b", "c"], [-2.0, -1.0, -2.0])
    assert [entry.label for entry in found] == ["b", "a", "c"]


@pytest.mark.parametrize(
    ("request_", "text"),
    [
        (v1.PredictRequest(input_data="x"), "x"),
        (v1.PredictRequest(input_data="x", task="Greet"), "Greet\n\nx"),
        (v1.PredictRequest(input_data="x", labels=["a"], task="Judge"), "Judge\n\nx"),
        (
            v1.PredictRequest(input_data="x", labels=["a", "b"]),
            "Classify the text as one of: a, b.\n\nx",
        ),
    ],
)
def test_the_task_is_in_front_of_the_text(request_: v1.PredictRequest, text: str) -> None:
    assert text_of(request_) == text


async def test_the_best_label_is_the_output_and_the_prompt_is_counted() -> None:
    engine = await start(EchoSettings())
    request = v1.PredictRequest(model_name="echo", input_data="an outage", labels=["x", "outage"])
    response = await predict(engine, request, EngineRequest("r"))
    assert (response.output, response.id, response.model_name) == ("outage", "r", "echo")
    assert response.usage.prompt_tokens > 0
    assert response.usage.completion_tokens == 0
    await engine.close()
