"""Limits of tenants through a gateway with a real echo pod, by OpenAI's client and ours."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import openai
import pytest
from tests.support import processes
from tests.support.processes import Process

from autoglm.client import Client, RetryPolicy
from autoglm.common import errors
from autoglm.gateway.identity.keys import new_key

pytestmark = pytest.mark.timeout(120)
TENANTS = ("counted", "metered", "free", "changed")
KEYS = {tenant: new_key(tenant) for tenant in TENANTS}
# Slow enough that nothing comes back while the tests run.
RULES: dict[str, Any] = {
    "tenants": {
        "counted": {"requestsPerMinute": 0.2, "burstSeconds": 900},
        "metered": {"tokensPerMinute": 1, "burstSeconds": 6000},
        "changed": {"requestsPerMinute": 0.001},
    }
}
HELLO: dict[str, Any] = {
    "model": "echo",
    "max_tokens": 8,
    "messages": [{"role": "user", "content": "one two three"}],
}


@pytest.fixture(scope="module")
def rules(tmp_path_factory: pytest.TempPathFactory, plane: str) -> Path:
    file = tmp_path_factory.mktemp("limits") / "tenants.json"
    file.write_text(json.dumps(RULES))
    return file


@pytest.fixture(scope="module")
def gateway(rules: Path, plane: str) -> Iterator[Process]:
    keys = rules.with_name("keys.json")
    keys.write_bytes(msgspec.json.encode({"keys": [entry for _, entry in KEYS.values()]}))
    pod = processes.echo_pod(rules.parent)
    files = ("--data-plane", plane, "--api-keys-file", str(keys), "--tenants-file", str(rules))
    gateway = processes.gateway(rules.parent, [pod], *files)
    with processes.running(pod, gateway):
        processes.eventually(lambda: gateway.ready_endpoints() > 0)
        yield gateway
        while OPENED:
            OPENED.pop().close()


OPENED: list[openai.OpenAI] = []


def openai_of(gateway: Process, tenant: str) -> openai.OpenAI:
    url, key = f"http://{gateway.http_address}/v1", KEYS[tenant][0]
    OPENED.append(openai.OpenAI(base_url=url, api_key=key, max_retries=0))
    return OPENED[-1]


def client_of(gateway: Process, tenant: str) -> Client:
    key, once = KEYS[tenant][0], RetryPolicy(attempts=1)
    return Client(gateway.grpc_address, model="echo", api_key=key, retries=once)


def test_requests_are_counted_over_both_wires_and_others_go_on(gateway: Process) -> None:
    rest = openai_of(gateway, "counted").chat.completions.with_raw_response
    assert rest.create(**HELLO).headers["x-ratelimit-remaining-requests"] == "2"
    with client_of(gateway, "counted") as client:
        client.chat("one", max_tokens=1)
        client.chat("one", max_tokens=1)
        with pytest.raises(errors.RateLimited, match="'counted'") as caught:
            client.chat("one", max_tokens=1)
    assert caught.value.retry_after and caught.value.retry_after > 100
    with pytest.raises(openai.RateLimitError) as refused:
        rest.create(**HELLO)
    assert int(refused.value.response.headers["retry-after"]) > 100
    assert refused.value.response.headers["x-ratelimit-remaining-requests"] == "0"
    openai_of(gateway, "free").chat.completions.create(**HELLO)
    assert 'autoglm_gateway_rate_limited_total{limit="requests"} 2.0' in gateway.get("/metrics")[1]


def test_tokens_are_settled_to_the_pods_own_count(gateway: Process) -> None:
    api = openai_of(gateway, "metered").chat.completions.with_raw_response

    def left() -> int:
        return int(api.create(**HELLO).headers["x-ratelimit-remaining-tokens"])

    used = openai_of(gateway, "free").chat.completions.create(**HELLO).usage
    assert used is not None
    first = left()
    assert left() == first - used.total_tokens
    with client_of(gateway, "metered") as client:
        list(client.chat_stream("one two three", max_tokens=8))
    list(
        openai_of(gateway, "metered").chat.completions.create(
            **HELLO, stream=True, stream_options={"include_usage": True}
        )
    )
    assert left() == first - 4 * used.total_tokens


def test_changed_rules_hold_without_a_restart(gateway: Process, rules: Path) -> None:
    api = openai_of(gateway, "changed").chat.completions
    api.create(**HELLO)
    with pytest.raises(openai.RateLimitError):
        api.create(**HELLO)
    rules.write_text(json.dumps({}))

    def is_free() -> bool:
        try:
            return bool(api.create(**HELLO).choices)
        except openai.RateLimitError:
            return False

    processes.eventually(is_free, what="the rules are gone")
