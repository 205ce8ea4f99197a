"""Greedy text is the same over every API, and the same as plain vLLM's."""

import json
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from tests.support import processes
from tests.support.processes import Served

from autoglm.client import Client

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(1200)]
ROOT = Path(__file__).parents[2]
LESSONS = yaml.safe_load((ROOT / "examples/tiny-glm/questions.yaml").read_text())
# Some that it was taught, and some that it was not.
QUESTIONS = [q["question"] for q in LESSONS["questions"]][::4] + ["Why?", "Tell me a story."]
MAX_TOKENS = 120
Chat = Callable[[str], str]


@pytest.fixture(scope="module")
def plain_vllm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """HOST:PORT of vLLM's own server on the same model."""
    logs = tmp_path_factory.mktemp("plain")
    with processes.plain_vllm(logs, ROOT / "examples/tiny-glm/model") as address:
        yield address


def by_rest(address: str) -> Chat:
    def chat(question: str) -> str:
        body = {
            "model": "tiny-glm",
            "messages": [{"role": "user", "content": question}],
            "temperature": 0,
            "max_tokens": MAX_TOKENS,
        }
        request = urllib.request.Request(
            f"http://{address}/v1/chat/completions",
            json.dumps(body).encode(),
            {"content-type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            content: str = json.load(answer)["choices"][0]["message"]["content"]
            return content

    return chat


def by_grpc(address: str) -> Chat:
    def chat(question: str) -> str:
        with Client(address) as client:
            stream = client.chat_stream(
                model="tiny-glm",
                messages=[{"role": "user", "content": question}],
                temperature=0,
                max_tokens=MAX_TOKENS,
            )
            return "".join(chunk.delta.content for chunk in stream)

    return chat


@pytest.mark.parametrize("question", QUESTIONS)
def test_every_way_gives_the_same_greedy_text(
    gateway: Served, plain_vllm: str, question: str
) -> None:
    ways = {
        "plain vLLM": by_rest(plain_vllm),
        "pod REST": by_rest(gateway.pod_http_address),
        "gateway REST": by_rest(gateway.http_address),
        "pod gRPC": by_grpc(gateway.pod_grpc_address),
        "gateway gRPC": by_grpc(gateway.grpc_address),
    }
    answers = {way: chat(question) for way, chat in ways.items()}
    assert answers == dict.fromkeys(ways, answers["plain vLLM"])
    assert answers["plain vLLM"]
