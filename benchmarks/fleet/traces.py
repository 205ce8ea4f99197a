"""The traces: what clients request of a fleet, the same for every policy. Seeded, so repeatable."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from random import Random

Tokens = list[int]


@dataclass(frozen=True, slots=True)
class Turn:
    """`said` is new in the prompt; `pause` is seconds since the last response."""

    said: Tokens
    output: Tokens
    pause: float


@dataclass(frozen=True, slots=True)
class Session:
    """One client's conversation. `opening` names it as a gateway would."""

    starts: float
    shared: Tokens
    turns: tuple[Turn, ...]


class Source:
    """Random numbers and texts of one trace. Texts are tokens that nothing else has."""

    def __init__(self, seed: int) -> None:
        self.rng = Random(seed)

    def text(self, tokens: int) -> Tokens:
        return [self.rng.getrandbits(31) for _ in range(tokens)]

    def length(self, mean: int) -> int:
        """From half the mean to half above it."""
        return self.rng.randint(mean // 2, mean + mean // 2)

    def arrivals(self, per_second: float, count: int) -> Iterator[float]:
        gaps = (self.rng.expovariate(per_second) for _ in range(count))
        return accumulate(gaps)

    def turn(self, said: int, output: int, pause: float = 0.0) -> Turn:
        wait = self.rng.expovariate(1 / pause) if pause else 0.0
        return Turn(self.text(self.length(said)), self.text(self.length(output)), wait)


def chat(source: Source, scale: float) -> list[Session]:
    """Conversations of six turns behind one short system prompt."""
    system = source.text(256)
    return [
        Session(at, system, tuple(source.turn(160, 60, 3.0) for _ in range(6)))
        for at in source.arrivals(45 * scale, int(1200 * scale))
    ]


def shared_prompts(source: Source, scale: float) -> list[Session]:
    """Single questions behind one of 200 long system prompts, some much more common than others."""
    systems = [source.text(1536) for _ in range(200)]
    weights = [1 / (rank + 1) for rank in range(len(systems))]
    return [
        Session(at, source.rng.choices(systems, weights)[0], (source.turn(96, 60),))
        for at in source.arrivals(260 * scale, int(6000 * scale))
    ]


def agents(source: Source, scale: float) -> list[Session]:
    """Agents that call tools: ten steps each behind one of three long lists of tools."""
    tools = [source.text(1024) for _ in range(3)]
    return [
        Session(
            at,
            source.rng.choice(tools),
            (source.turn(200, 30), *(source.turn(240, 30, 0.3) for _ in range(9))),
        )
        for at in source.arrivals(32 * scale, int(640 * scale))
    ]


def unique(source: Source, scale: float) -> list[Session]:
    """Prompts that have nothing in common, against which no cache helps."""
    return [
        Session(at, [], (source.turn(600, 60),))
        for at in source.arrivals(210 * scale, int(5000 * scale))
    ]


def hot_spot(source: Source, scale: float) -> list[Session]:
    """Half of all requests share one long beginning, the others nothing."""
    hot = source.text(2048)
    return [
        Session(at, hot if source.rng.random() < 0.5 else [], (source.turn(400, 60),))
        for at in source.arrivals(230 * scale, int(5000 * scale))
    ]


def unique_for_three_quarters(source: Source, scale: float) -> list[Session]:
    """As many unique prompts as a fleet can do of which half is half as fast."""
    return unique(source, 0.75 * scale)


TRACES: Mapping[str, Callable[[Source, float], list[Session]]] = {
    "chat": chat,
    "shared prompts": shared_prompts,
    "agents": agents,
    "unique": unique,
    "hot spot": hot_spot,
    "mixed fleet": unique_for_three_quarters,
    "mixed fleet, overloaded": unique,
    "small caches": agents,
}
