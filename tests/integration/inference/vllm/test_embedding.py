"""Vectors, by an engine that pools what the tiny GLM-4 computes."""

import dataclasses
import math
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from autoglm import v1
from autoglm.common import errors
from autoglm.inference import vllm
from autoglm.inference.engine import Engine, EngineOptions, EngineRequest

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.timeout(900),
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.usefixtures("metrics_kept"),
]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def pooling(options: EngineOptions) -> AsyncIterator[Engine]:
    pools = {"runner": "pooling", "convert": "embed"}
    args = {**options.engine_args, **pools}
    engine = await vllm.start(dataclasses.replace(options, engine_args=args))
    yield engine
    await engine.close()


async def test_each_text_has_its_vector(pooling: Engine, call: EngineRequest) -> None:
    texts = ["one", "two words", "one"]

    found = await pooling.embed(v1.EmbedRequest(model="tiny", texts=texts), call)

    first, second, third = [list(e.values) for e in found.embeddings]
    assert [e.index for e in found.embeddings] == [0, 1, 2]
    assert first == pytest.approx(third, abs=1e-2)
    assert first != second
    assert math.hypot(*first) == pytest.approx(1, abs=1e-2)
    assert found.usage.prompt_tokens > 3


async def test_what_the_model_does_not_do_is_said(pooling: Engine, call: EngineRequest) -> None:
    (model,) = pooling.models()

    assert list(model.tasks) == ["embed", "tokenize"]
    with pytest.raises(errors.Unimplemented, match="tiny does not generate"):
        await pooling.generate(v1.GenerateRequest(text="x"), call)
    with pytest.raises(errors.Unimplemented, match="tiny does not chat"):
        await pooling.chat(
            v1.ChatRequest(messages=[v1.ChatMessage(role="user", content="x")]), call
        )
