"""The comments and the state of a stream on the HTTP port, in front of an app that is a script."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

from autoglm.common import errors
from autoglm.inference.vllm.replay import replay_state
from autoglm.inference.vllm.replay.replay_state import ReplayState
from autoglm.inference.vllm.replay.rest_replay import RestReplay

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
Script = Callable[[ReplayState | None, Callable[[str], Awaitable[None]]], Awaitable[None]]


def event(index: int, text: str) -> str:
    return "data: " + json.dumps({"choices": [{"index": index, "text": text}]}) + "\n\n"


class App:
    """Responds with what a script sends, and keeps the requests."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self.body: dict[str, Any] = {}
        self.length = ""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.body = json.loads((await receive())["body"])
        self.length = dict(scope["headers"])[b"content-length"].decode()
        await send({"type": "http.response.start", "status": 200, "headers": []})

        async def say(text: str) -> None:
            await send({"type": "http.response.body", "body": text.encode(), "more_body": True})

        await self._script(replay_state.current_state(), say)
        await send({"type": "http.response.body", "body": b""})


async def post(
    app: App, path: str, body: dict[str, Any], *, opts_in: bool = True
) -> httpx.Response:
    transport = httpx.ASGITransport(app=RestReplay(app, parses_reasoning=False))
    async with httpx.AsyncClient(transport=transport, base_url="http://pod") as http:
        headers = {"x-autoglm-replay": "1"} if opts_in else {}
        return await http.post(path, json=body, headers=headers)


async def two_tokens(replay: ReplayState | None, say: Callable[[str], Awaitable[None]]) -> None:
    if replay is not None:
        replay.is_replaying = False
        replay.record(0, [5])
    await say(event(0, ""))
    if replay is not None:
        replay.record(0, [6])
    await say(event(0, "b"))
    await say('data: {"choices": [], "usage": {}}\n\n')
    await say("data: [DONE]\n\n")


async def test_tokens_stand_before_the_event_they_belong_to() -> None:
    response = await post(App(two_tokens), TEXT, {"stream": True})

    assert response.text == (
        ': autoglm-tokens {"index":0,"ids":[5]}\n' + event(0, "")
        + ': autoglm-tokens {"index":0,"ids":[6]}\n' + event(0, "b")
        + 'data: {"choices": [], "usage": {}}\n\ndata: [DONE]\n\n'
    )  # fmt: skip


async def test_the_role_of_a_chat_carries_no_tokens() -> None:
    response = await post(App(two_tokens), CHAT, {"stream": True})

    comments = [line for line in response.text.split("\n") if line.startswith(":")]
    assert comments == [
        ': autoglm-tokens {"index":0,"ids":[]}',
        ': autoglm-tokens {"index":0,"ids":[5,6]}',
    ]


@pytest.mark.parametrize(
    ("body", "opts_in"),
    [
        ({"stream": True}, False),
        ({"stream": False}, True),
        ({"stream": True, "echo": True}, True),
        ({"stream": True, "use_beam_search": True}, True),
        ({"stream": True, "prompt": ["a", "b"]}, True),
        ({"stream": True, "prompt": 'with "autoglm_resume" in it'}, False),
    ],
)
async def test_other_responses_pass_untouched(body: dict[str, Any], opts_in: bool) -> None:
    app = App(two_tokens)
    response = await post(app, TEXT, body, opts_in=opts_in)

    assert "autoglm-tokens" not in response.text
    assert app.body == body


@pytest.mark.parametrize("prompt", ["a", ["a"], [1, 2], [[1, 2]]])
async def test_one_prompt_is_one_prompt_in_every_form(prompt: Any) -> None:
    response = await post(App(two_tokens), TEXT, {"stream": True, "prompt": prompt})

    assert response.text.count("autoglm-tokens") == 2


async def test_the_state_never_reaches_vllm() -> None:
    app = App(two_tokens)
    state = {"choices": [{"index": 0, "token_ids": [1, 2]}]}
    await post(app, TEXT, {"stream": True, "prompt": "é", "autoglm_resume": state}, opts_in=False)

    assert app.body == {"stream": True, "prompt": "é"}
    assert int(app.length) == len('{"stream":true,"prompt":"é"}'.encode())


async def test_what_was_delivered_is_not_sent_again() -> None:
    async def script(replay: ReplayState | None, say: Callable[[str], Awaitable[None]]) -> None:
        assert replay is not None
        await say(event(0, "old"))
        await say(event(1, "role"))
        replay.is_replaying = False
        replay.record(0, [3])
        await say(event(0, "new"))

    state = {"choices": [{"index": 0, "token_ids": [1, 2]}]}
    response = await post(App(script), CHAT, {"stream": True, "n": 2, "autoglm_resume": state})

    assert response.text == (
        ': autoglm-tokens {"index":1,"ids":[]}\n' + event(1, "role")
        + ': autoglm-tokens {"index":0,"ids":[3]}\n' + event(0, "new")
    )  # fmt: skip


async def test_a_refusal_in_the_stream_becomes_a_status() -> None:
    async def script(replay: ReplayState | None, say: Callable[[str], Awaitable[None]]) -> None:
        assert replay is not None
        replay.reject("it is a test")
        await say('data: {"error": {}}\n\n')
        await say("data: [DONE]\n\n")

    response = await post(App(script), CHAT, {"stream": True, "autoglm_resume": {"choices": []}})

    assert response.status_code == errors.ResumeImpossible.http_status
    assert response.json()["error"]["code"] == "resume_impossible"
    assert "it is a test" in response.json()["error"]["message"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"stream": False}, 412),
        ({"stream": True, "echo": True}, 412),
        ({"stream": True, "prompt": ["a", "b"]}, 412),
        ({"stream": True, "autoglm_resume": {"choices": "all"}}, 400),
        ({"stream": True, "autoglm_resume": {"choices": [{"index": 1}]}}, 412),
    ],
)
async def test_what_cannot_be_carried_on_is_refused_at_once(
    body: dict[str, Any], status: int
) -> None:
    app = App(two_tokens)
    response = await post(app, TEXT, {"autoglm_resume": {"choices": []}} | body)

    assert (response.status_code, app.body) == (status, {})
