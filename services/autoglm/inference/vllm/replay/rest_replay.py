"""Token replay on the HTTP port, around vLLM's own OpenAI app.

A gateway that sets `x-autoglm-replay: 1` finds a comment in front of each event of a stream of
chat or text completions, with the ids of all tokens since the last event of that choice:

    : autoglm-tokens {"index":0,"ids":[17,4]}
    data: {...}

A body with `autoglm_resume` resumes a broken stream; vLLM never sees that field. Everything
else passes through untouched. Streams whose events are not a function of the tokens get no
comments, so they are not carried on: several prompts, echoed prompts, beam search. Decides that;
called by the pod's HTTP server.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from autoglm.common import errors
from autoglm.inference.engine import AsgiApp, Message, Scope
from autoglm.inference.http.body import Receive, again, whole
from autoglm.inference.vllm.replay import tape
from autoglm.inference.vllm.replay.tape import ReplayState, Resume, replaying
from autoglm.validation.http_errors import to_http

Send = Callable[[Message], Awaitable[None]]
HEADER = b"x-autoglm-replay"
FIELD = "autoglm_resume"
_PATHS = ("/v1/chat/completions", "/v1/completions")
_EVENT = b"data: "


class _Body(msgspec.Struct):
    """What of a request decides whether its stream can be replayed, whatever types it has."""

    stream: Any = None
    n: Any = None
    prompt: Any = None
    echo: Any = None
    use_beam_search: Any = None
    tools: Any = None
    tool_choice: Any = None
    autoglm_resume: Any = None


class _Choice(msgspec.Struct):
    index: int = 0


class _Event(msgspec.Struct):
    choices: list[_Choice] = []


class RestReplay:
    """ASGI middleware."""

    def __init__(self, app: AsgiApp, parses_reasoning: bool) -> None:
        self._app = app
        self._parses_reasoning = parses_reasoning

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] not in _PATHS or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        body = await whole(receive)
        request_id = next((v for k, v in scope["headers"] if k == b"x-request-id"), b"")
        try:
            played = self._tape(scope, body)
        except errors.AutoGLMError as error:
            await _reject(send, error, request_id.decode("latin-1"))
            return
        if played is None:
            await self._app(scope, again(body, receive), send)
            return
        if played.choices is not None:
            body = _without_state(body)
            scope = _resized(scope, len(body))
        chat = scope["path"] == _PATHS[0]
        replayed = _ReplayedResponse(send, played, request_id.decode("latin-1"), has_roles=chat)
        with replaying(played):
            await self._app(scope, again(body, receive), replayed)

    def _tape(self, scope: Scope, body: bytes) -> ReplayState | None:
        """None for requests that are not replayed. Raises ResumeImpossible."""
        asks = any(k == HEADER and v == b"1" for k, v in scope["headers"])
        if not asks and f'"{FIELD}"'.encode() not in body:
            return None
        try:
            wanted = msgspec.json.decode(body, type=_Body)
        except msgspec.DecodeError:
            return None
        if wanted.autoglm_resume is None and not asks:
            return None
        reason = _objection(wanted)
        if wanted.autoglm_resume is None:
            return None if reason else ReplayState(is_stepwise=self._is_parsed(wanted))
        if reason:
            raise ReplayState().reject(reason)
        n = wanted.n if isinstance(wanted.n, int) else 1
        return tape.resumed(_state(wanted), n, is_stepwise=self._is_parsed(wanted))

    def _is_parsed(self, wanted: _Body) -> bool:
        has_tools = bool(wanted.tools) and wanted.tool_choice != "none"
        return has_tools or self._parses_reasoning


def _objection(wanted: _Body) -> str:
    if wanted.stream is not True:
        return "it is no stream"
    if wanted.echo:
        return "the prompt is part of its text"
    if wanted.use_beam_search:
        return "beams are searched together"
    prompt = wanted.prompt
    several = isinstance(prompt, list) and len(prompt) > 1
    return "it has several prompts" if several and not isinstance(prompt[0], int) else ""


def _state(wanted: _Body) -> list[tape.Choice]:
    try:
        return msgspec.convert(wanted.autoglm_resume, Resume).choices
    except msgspec.ValidationError as error:
        raise errors.InvalidRequest(f"{FIELD} is malformed: {error}.", field=FIELD) from error


def _without_state(body: bytes) -> bytes:
    fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    del fields[FIELD]
    return msgspec.json.encode(fields)


class _ReplayedResponse:
    """Forwards a response with the tokens of its events, without those delivered before."""

    def __init__(
        self, send: Send, played: ReplayState, request_id: str, *, has_roles: bool
    ) -> None:
        self._send = send
        self._played = played
        self._request_id = request_id
        self._begun = set(played.choices or ())
        self._has_roles = has_roles
        self._held: Message | None = None
        self._is_rejected = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start" and self._played.choices is not None:
            # Until it is known whether the stream can be resumed.
            self._held = message
            return
        if message["type"] == "http.response.body" and message.get("body"):
            message = {**message, "body": self._with_tokens(message["body"])}
        await self._pass(message)

    async def _pass(self, message: Message) -> None:
        if self._is_rejected:
            return
        if message["type"] == "http.response.body" and self._held is not None:
            if self._played.rejection is not None:
                self._is_rejected = True
                await _reject(self._send, self._played.rejection, self._request_id)
                return
            if not message.get("body") and message.get("more_body"):
                return
            held, self._held = self._held, None
            await self._send(held)
        await self._send(message)

    def _with_tokens(self, body: bytes) -> bytes:
        """Puts the token comment before an event; vLLM sends each event by itself."""
        if not body.startswith(_EVENT) or body.startswith(_EVENT + b"[DONE]"):
            return body
        choices = msgspec.json.decode(body[len(_EVENT) :], type=_Event).choices
        if not choices:
            return body
        index = choices[0].index
        if self._played.is_replaying and self._played.is_named(index):
            return b""
        # The first one of a chat carries the role only; its tokens are on their way already.
        is_role = self._has_roles and index not in self._begun
        self._begun.add(index)
        ids = [] if is_role else self._played.take(index)
        listed = ",".join(map(str, ids)).encode()
        return b': autoglm-tokens {"index":%d,"ids":[%s]}\n' % (index, listed) + body


def _resized(scope: Scope, length: int) -> Scope:
    others = [(k, v) for k, v in scope["headers"] if k != b"content-length"]
    return {**scope, "headers": [*others, (b"content-length", str(length).encode())]}


async def _reject(send: Send, error: errors.AutoGLMError, request_id: str) -> None:
    rejected = to_http(error, request_id, _PATHS[0])
    headers = [(k.encode(), v.encode("latin-1")) for k, v in rejected.headers.items()]
    headers.append((b"content-length", str(len(rejected.body)).encode()))
    await send({"type": "http.response.start", "status": rejected.status, "headers": headers})
    await send({"type": "http.response.body", "body": rejected.body})
