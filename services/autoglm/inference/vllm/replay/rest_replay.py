"""Token replay on the HTTP port, around vLLM's own OpenAI app.

Writes the comments of `validation.openai_stream` before the events of a stream, and resumes a
broken one; vLLM never sees the field that names it. Everything else passes through untouched.
Streams whose events are not a function of the tokens get no comments, so they are not resumed:
several prompts, echoed prompts, beam search.
"""

from __future__ import annotations

from typing import Any

import msgspec

from autoglm.common import errors
from autoglm.inference.engine import AsgiApp, Message, Receive, Scope, Send
from autoglm.inference.http.asgi import again, reject, whole
from autoglm.inference.vllm.replay import replay_state
from autoglm.inference.vllm.replay.replay_state import ReplayState, replaying
from autoglm.validation.openai_stream import (
    DATA,
    DONE,
    REPLAY_HEADER,
    REPLAY_PATHS,
    RESUME_FIELD,
    Event,
    Resume,
    token_comment,
)

_HEADER = REPLAY_HEADER.encode()


class _ReplayFields(msgspec.Struct):
    """The fields that decide whether a stream can be replayed, whatever types they have."""

    stream: Any = None
    n: Any = None
    prompt: Any = None
    echo: Any = None
    use_beam_search: Any = None
    tools: Any = None
    tool_choice: Any = None
    autoglm_resume: Any = None


class RestReplay:
    """ASGI middleware."""

    def __init__(self, app: AsgiApp, parses_reasoning: bool) -> None:
        self._app = app
        self._parses_reasoning = parses_reasoning

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"] if scope["type"] == "http" else ""
        if path not in REPLAY_PATHS or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        body = await whole(receive)
        name = next((v for k, v in scope["headers"] if k == b"x-request-id"), b"")
        request_id = name.decode("latin-1")
        try:
            state = self._state(scope, body)
        except errors.AutoGLMError as error:
            await reject(send, error, request_id, path)
            return
        if state is None:
            await self._app(scope, again(body, receive), send)
            return
        if state.choices is not None:
            fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
            del fields[RESUME_FIELD]
            body = msgspec.json.encode(fields)
            others = [(k, v) for k, v in scope["headers"] if k != b"content-length"]
            scope = {**scope, "headers": [*others, (b"content-length", b"%d" % len(body))]}
        with replaying(state):
            replayed = _ReplayedResponse(send, state, request_id, path)
            await self._app(scope, again(body, receive), replayed)

    def _state(self, scope: Scope, body: bytes) -> ReplayState | None:
        """Return the state of a stream to record or to resume; None for any other request.

        Raises ResumeImpossible, and InvalidRequest for a malformed `autoglm_resume`.
        """
        is_recorded = any(k == _HEADER and v == b"1" for k, v in scope["headers"])
        if not is_recorded and f'"{RESUME_FIELD}"'.encode() not in body:
            return None
        try:
            wanted = msgspec.json.decode(body, type=_ReplayFields)
        except msgspec.DecodeError:
            return None
        is_resumed = wanted.autoglm_resume is not None
        if not (is_recorded or is_resumed):
            return None
        reason = _objection(wanted)
        has_tools = bool(wanted.tools) and wanted.tool_choice != "none"
        is_stepwise = has_tools or self._parses_reasoning
        if not is_resumed:
            return None if reason else ReplayState(is_stepwise=is_stepwise)
        if reason:
            raise ReplayState().reject(reason)
        try:
            choices = msgspec.convert(wanted.autoglm_resume, Resume).choices
        except msgspec.ValidationError as error:
            problem = f"{RESUME_FIELD} is malformed: {error}."
            raise errors.InvalidRequest(problem, field=RESUME_FIELD) from error
        n = wanted.n if isinstance(wanted.n, int) else 1
        return replay_state.resumed(choices, n, is_stepwise=is_stepwise)


def _objection(wanted: _ReplayFields) -> str:
    """Return why the stream of this request cannot be replayed; empty where it can."""
    if wanted.stream is not True:
        return "it is no stream"
    if wanted.echo:
        return "the prompt is part of its text"
    if wanted.use_beam_search:
        return "beams are searched together"
    prompt = wanted.prompt
    several = isinstance(prompt, list) and len(prompt) > 1
    return "it has several prompts" if several and not isinstance(prompt[0], int) else ""


class _ReplayedResponse:
    """An ASGI `send` that adds the tokens of events, and drops events delivered before."""

    def __init__(self, send: Send, state: ReplayState, request_id: str, path: str) -> None:
        self._send = send
        self._state = state
        self._request_id = request_id
        self._path = path
        self._begun = set(state.choices or ())
        self._has_roles = path == REPLAY_PATHS[0]
        self._held: Message | None = None
        self._is_rejected = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start" and self._state.choices is not None:
            # Until it is known whether the stream can be resumed.
            self._held = message
            return
        is_body = message["type"] == "http.response.body"
        if is_body and message.get("body"):
            message = {**message, "body": self._with_tokens(message["body"])}
        if self._is_rejected:
            return
        if is_body and self._held is not None:
            if self._state.rejection is not None:
                self._is_rejected = True
                await reject(self._send, self._state.rejection, self._request_id, self._path)
                return
            if not message.get("body") and message.get("more_body"):
                return
            held, self._held = self._held, None
            await self._send(held)
        await self._send(message)

    def _with_tokens(self, body: bytes) -> bytes:
        """Put the token comment before an event; vLLM sends each event by itself."""
        if not body.startswith(DATA) or body.startswith(DONE):
            return body
        choices = msgspec.json.decode(body[len(DATA) :], type=Event).choices
        if not choices:
            return body
        index = choices[0].index
        if self._state.is_replaying and self._state.is_named(index):
            return b""
        # The first one of a chat carries the role only; its tokens are on their way already.
        is_role = self._has_roles and index not in self._begun
        self._begun.add(index)
        return token_comment(index, () if is_role else self._state.take(index)) + body
