"""Compares what a gateway and its pod make of the same requests. Pure, but for `outcomes`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp
from tests.support.parity_body import Body

CONCURRENCY = 8
SECONDS = 120
# Names of one class of error in the formats of OpenAI, Anthropic, vLLM and FastAPI.
_CLASSES: Mapping[str, str] = {
    "BadRequestError": "invalid",
    "Bad Request": "invalid",
    "invalid_request_error": "invalid",
    "NotFoundError": "not found",
    "Not Found": "not found",
    "not_found_error": "not found",
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """`error` is a class of errors, empty for none; `stream` is whether events were sent."""

    status: int
    error: str = ""
    stream: bool = False

    def __str__(self) -> str:
        return " ".join(filter(None, (str(self.status), self.error, "stream" * self.stream)))


@dataclass(frozen=True, slots=True)
class Difference:
    """Requests, by name, that a gateway treats otherwise than its pod on purpose.

    `pod` and `gateway` are statuses; `what` and `why` are for users, in Markdown.
    """

    names: Sequence[str]
    pod: int
    gateway: int
    what: str
    why: str

    @property
    def markdown(self) -> str:
        return f"| {self.what} | {self.pod} | {self.gateway} | {self.why} |"


def problems(
    pod: Mapping[str, Outcome], gateway: Mapping[str, Outcome], table: Iterable[Difference]
) -> list[str]:
    """Differences that are not in the table, and rows of the table that are not true."""
    row_of = {name: row for row in table for name in row.names}
    unlisted = [
        f"{name}: pod {expected}, gateway {gateway[name]}"
        for name, expected in pod.items()
        if name not in row_of and gateway[name] != expected
    ]
    untrue = [
        f"{name}: listed as {row.pod} and {row.gateway}, is {pod.get(name)} and {gateway.get(name)}"
        for name, row in row_of.items()
        if name not in pod or (pod[name].status, gateway[name].status) != (row.pod, row.gateway)
    ]
    return unlisted + untrue


def outcome_of(status: int, content_type: str, text: str) -> Outcome:
    if content_type.startswith("text/event-stream"):
        errors = [e for e in map(_error_of_event, text.split("\n\n")) if e]
        return Outcome(status, errors[0] if errors else "", stream=True)
    return Outcome(status, _error_class(text, status) if status >= 400 else "")


def _error_of_event(event: str) -> str:
    data = "".join(line[6:] for line in event.splitlines() if line.startswith("data: "))
    if '"error"' not in data:
        return ""
    parsed = json.loads(data)
    has_error = parsed.get("error") if isinstance(parsed, dict) else None
    return _error_class(data, 0) if has_error else ""


def _error_class(text: str, status: int) -> str:
    """By the error's type; by the status alone where it says all, or the format has no types."""
    if status == 404:
        return _of_status(status)
    try:
        error: Any = json.loads(text).get("error")
    except (ValueError, AttributeError):
        return _of_status(status)
    if isinstance(error, dict) and error.get("type"):
        return _CLASSES.get(error["type"], error["type"])
    return _of_status(status)


def _of_status(status: int) -> str:
    return {400: "invalid", 404: "not found"}.get(status, str(status))


async def outcomes(address: str, bodies: Sequence[Body]) -> dict[str, Outcome]:
    """Of each body, by its name, from HOST:PORT."""
    free = asyncio.Semaphore(CONCURRENCY)
    timeout = aiohttp.ClientTimeout(SECONDS)
    async with aiohttp.ClientSession(f"http://{address}", timeout=timeout) as session:

        async def post(body: Body) -> Outcome:
            headers = {"content-type": body.content_type} if body.content_type else {}
            async with (
                free,
                session.post(
                    body.path,
                    data=body.content,
                    headers=headers,
                    skip_auto_headers=["content-type"],
                ) as response,
            ):
                text = await response.text(errors="replace")
                return outcome_of(response.status, response.headers.get("content-type", ""), text)

        found = await asyncio.gather(*map(post, bodies))
    return {body.name: outcome for body, outcome in zip(bodies, found, strict=True)}
