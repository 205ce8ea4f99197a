"""The cases of `routers`: what is sent, with how many clients, and to which ways."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import click

from autoglm import v1
from autoglm.client.requests import hint_metadata
from benchmarks import load, ways
from benchmarks.ways import Way

_WORD = "word "
# Of a unary response.
_FEW_TOKENS = 4


@dataclass(frozen=True, slots=True)
class Case:
    """One row for each way. `prompt` is bytes, `pace` milliseconds before each message of
    `together` tokens, as pods gather them when they have many streams.
    """

    kind: load.Kind
    tokens: int
    clients: int
    prompt: int = 200
    pace: int = 0
    together: int = 1

    @property
    def name(self) -> str:
        wire, _, form = self.kind.partition("-")
        parts = [wire, "unary" if form == "unary" else str(self.tokens), f"x{self.clients}"]
        parts += [f"{self.prompt // 1000}kB"] if self.prompt >= 1000 else []
        parts += [f"by{self.together}"] if self.together > 1 else []
        parts += [f"{self.pace}ms"] if self.pace else []
        return "-".join(parts)

    @property
    def is_unary(self) -> bool:
        return self.kind.endswith("unary")

    @property
    def response(self) -> str:
        pace = f", {self.pace} ms apart" if self.pace else ""
        return f"{self.tokens}{pace}" + (f", by {self.together}" if self.together > 1 else "")

    def work(self) -> load.Work:
        wish = ways.wish(self.tokens, self.pace, self.together)
        text = f"{wish} {_WORD * (self.prompt // len(_WORD))}"
        return load.Work(ways.MODEL, text, self.tokens, is_chat=True)

    def ways(self, all_ways: Iterable[Way]) -> list[Way]:
        at_once = self.tokens * self.clients
        return [w for w in all_ways if self.address(w) and at_once <= w.most_tokens]

    def address(self, way: Way) -> str:
        return way.grpc if self.kind.startswith("grpc") else way.http

    def headers(self, way: Way, key: str) -> tuple[str, ...]:
        names = (f"x-api-key:{key}",)
        if not way.is_our_client:
            return names
        request = v1.GenerateRequest.FromString(self.work().message())
        metadata = hint_metadata(request).items()
        return names + tuple(f"{n}:{base64.b64encode(v).decode()}" for n, v in metadata)


def cases() -> list[Case]:
    found: list[Case] = []
    forms: tuple[tuple[load.Kind, load.Kind], ...] = (
        ("rest-unary", "rest-stream"),
        ("grpc-unary", "grpc-stream"),
    )
    for unary, stream in forms:
        found += [Case(unary, _FEW_TOKENS, clients) for clients in (1, 16, 64)]
        found += [Case(stream, 64, clients) for clients in (1, 16, 64, 256, 1000)]
        found += [Case(stream, 512, clients) for clients in (16, 64)]
        found += [Case(stream, 512, 64, together=8)]
        for size in (8_000, 200_000):
            found += [Case(unary, _FEW_TOKENS, 16, prompt=size), Case(stream, 64, 16, prompt=size)]
        found.append(Case(stream, 64, 1000, pace=20))
    return found


def quick_cases() -> list[Case]:
    return [
        Case("rest-unary", _FEW_TOKENS, 16),
        Case("rest-stream", 64, 16),
        Case("rest-stream", 512, 64),
        Case("grpc-stream", 64, 16),
    ]


def selected(patterns: Sequence[str], *, quick: bool) -> list[Case]:
    """Return the cases whose name matches a pattern (`*` stands for anything); all without one.

    Raises click.UsageError for a pattern that matches none.
    """
    if not patterns:
        return quick_cases() if quick else cases()
    every = cases()
    for pattern in patterns:
        if not any(fnmatchcase(case.name, pattern) for case in every):
            names = ", ".join(case.name for case in every)
            raise click.UsageError(f"--only {pattern}: no case has such a name; there are {names}")
    return [case for case in every if any(fnmatchcase(case.name, p) for p in patterns)]
