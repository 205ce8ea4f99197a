"""Classification by the model's own log-probabilities."""

import math

import pytest

from autoglm import v1
from autoglm.inference.engine import Engine, EngineRequest
from autoglm.inference.vllm.text.label_tree import log_sum

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.timeout(900),
    pytest.mark.asyncio(loop_scope="session"),
]


def predict(*labels: str) -> v1.PredictRequest:
    return v1.PredictRequest(
        model_name="tiny", task="What is the license?", input_data="", labels=labels
    )


async def test_scores_are_log_probabilities(engine: Engine, call: EngineRequest) -> None:
    found = await engine.label_logprobs(predict("yes", "no", "yes", "maybe so"), call)

    assert found[0] == found[2]
    assert all(math.isfinite(v) and v < 0 for v in found)
    assert log_sum([found[0], found[1], found[3]]) <= 0


async def test_a_label_has_no_share_in_its_extension(engine: Engine, call: EngineRequest) -> None:
    """What the model would say, cut short, is not a label."""
    answer = "Open-AutoGLM is published under the Apache License 2.0."

    whole, cut = await engine.label_logprobs(predict(answer, answer[:22]), call)

    assert whole > math.log(0.5)
    assert cut < math.log(0.05)


async def test_scores_agree_with_prompt_logprobs(engine: Engine, call: EngineRequest) -> None:
    """The long way round: the log-probabilities of prompt + label + end of turn as one prompt."""
    turn = v1.ChatMessage(role="user", content="What is the license?\n\n")
    chat = v1.TokenizeRequest(chat=v1.ChatMessages(messages=[turn]))
    prompt = list((await engine.tokenize(chat, call)).token_ids)
    label = list((await engine.tokenize(v1.TokenizeRequest(text="Yes. "), call)).token_ids)
    end = 1
    asked = v1.GenerateRequest(
        token_ids=v1.TokenIds(ids=[*prompt, *label, end]),
        sampling_params=v1.SamplingParams(prompt_logprobs=0, max_tokens=1),
    )
    entries = (await engine.generate(asked, call)).prompt_logprobs[-len(label) - 1 :]

    (found,) = await engine.label_logprobs(predict("Yes. "), call)

    assert found == pytest.approx(sum(e.logprob for e in entries), abs=0.3)


async def test_nothing_is_left_running(engine: Engine, call: EngineRequest) -> None:
    await engine.label_logprobs(predict("a", "b", "c"), call)

    assert engine.load().running + engine.load().waiting == 0
