"""Lists and watches of a scripted API server, in virtual time."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm.kube.reflector import BACKOFF, SHORT_SECONDS, Collection, Pacing, Reader, Reflector
from autoglm.kube.transport import Query, Refused, Unreachable

pytestmark = pytest.mark.looptime
BOTTOMLESS = b'{"metadata":{"resourceVersion":"2"},"spec":%s1%s}' % (b'{"a":' * 9_000, b"}" * 9_000)


def thing(name: str, version: int) -> bytes:
    return json.dumps({"metadata": {"name": name, "resourceVersion": str(version)}}).encode()


def page(version: int, *items: bytes, token: str = "") -> bytes:
    metadata = json.dumps({"resourceVersion": str(version), "continue": token}).encode()
    return b'{"metadata":%s,"items":[%s]}' % (metadata, b",".join(items))


def event(kind: str, body: bytes) -> bytes:
    return b'{"type":"%s","object":%s}\n' % (kind.encode(), body)


@dataclass
class Recorder:
    """A store that keeps what it is given."""

    lists: list[tuple[list[bytes], str]] = field(default_factory=list)
    there: list[bytes] = field(default_factory=list)
    gone: list[bytes] = field(default_factory=list)

    def replace(self, objects: Sequence[bytes], version: str) -> None:
        self.lists.append((list(objects), version))

    def put(self, body: bytes) -> None:
        self.there.append(body)

    def remove(self, body: bytes) -> None:
        self.gone.append(body)


@dataclass
class Server:
    """Gives `pages` and `watches` in turn, the last one for ever."""

    pages: list[bytes | Exception] = field(
        default_factory=lambda: list[bytes | Exception]([page(1)])
    )
    watches: list[Sequence[bytes | Exception | float]] = field(default_factory=list)
    """Lines; an error is raised, a number is seconds to wait."""
    listed: list[Query] = field(default_factory=list)
    watched: list[dict[str, str]] = field(default_factory=list)
    at: list[float] = field(default_factory=list)

    async def page(self, path: str, query: Query) -> bytes:
        self.listed.append(query)
        found = self.pages.pop(0) if len(self.pages) > 1 else self.pages[0]
        if isinstance(found, Exception):
            raise found
        return found

    async def lines(self, path: str, query: Query) -> AsyncIterator[bytes]:
        self.watched.append(dict(query))
        self.at.append(asyncio.get_running_loop().time())
        script = self.watches.pop(0) if len(self.watches) > 1 else self.watches[0]
        for step in script:
            if isinstance(step, Exception):
                raise step
            if isinstance(step, bytes):
                yield step
            else:
                await asyncio.sleep(step)

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Reader]:
        yield self


@asynccontextmanager
async def reflecting(
    server: Server, listing: Callable[[str], None] = lambda _: None
) -> AsyncIterator[tuple[Reflector[bytes], Recorder]]:
    store = Recorder()
    collection = Collection("things", "/things", bytes, (("labelSelector", "x"),))
    reflector = Reflector(collection, store, server.connect, Random(1), listing=listing)
    task = asyncio.create_task(reflector.run())
    yield reflector, store
    task.cancel()
    await asyncio.wait((task,))


async def test_a_list_in_many_pages_is_one_list_and_the_watch_begins_at_its_version() -> None:
    server = Server([page(7, b'{"a":1}', token="next"), page(7, b'{"a":2}')], [[1000.0]])
    async with reflecting(server) as (reflector, store):
        await reflector.synced.wait()
        await asyncio.sleep(1)
    assert store.lists == [([b'{"a":1}', b'{"a":2}'], "7")]
    assert ("continue", "next") in server.listed[1]
    assert server.watched[0]["resourceVersion"] == "7"
    assert server.watched[0]["labelSelector"] == "x"


async def test_watches_that_the_server_ends_at_once_do_not_spin() -> None:
    server = Server(watches=[[]])
    async with reflecting(server):
        await asyncio.sleep(60)
    assert len(server.watched) < 20


async def test_watches_that_end_after_one_event_do_not_spin_either() -> None:
    server = Server(watches=[[event("MODIFIED", thing("a", 2))]])
    async with reflecting(server) as (_, store):
        await asyncio.sleep(60)
    assert 60 <= len(server.watched) <= 120
    assert len(store.there) == len(server.watched)


async def test_a_watch_that_ended_after_its_minutes_resumes_at_once_at_the_last_version() -> None:
    bookmark = event("BOOKMARK", b'{"metadata":{"resourceVersion":"9"}}')
    server = Server(watches=[[event("ADDED", thing("a", 5)), 200.0, bookmark, 40.0], [1e6]])
    async with reflecting(server) as (_, store):
        await asyncio.sleep(300)
    assert [w["resourceVersion"] for w in server.watched] == ["1", "9"]
    assert server.at[1] - server.at[0] == pytest.approx(240)
    assert (len(store.lists), len(store.there)) == (1, 1)


@pytest.mark.parametrize(
    "error", [Unreachable("cut"), Refused(503, "Unavailable", ""), Refused(403, "Forbidden", "")]
)
async def test_an_outage_keeps_the_state_and_resumes_where_it_broke(error: Exception) -> None:
    server = Server(watches=[[event("ADDED", thing("a", 5)), error], [error], [error], [1e6]])
    async with reflecting(server) as (reflector, store):
        await asyncio.sleep(60)
        assert reflector.problem == str(error)
    assert [w["resourceVersion"] for w in server.watched] == ["1", "5", "5", "5"]
    assert len(store.lists) == 1


EXPIRED = event("ERROR", b'{"code":410,"message":"too old"}')


@pytest.mark.parametrize(
    ("end", "why"),
    [
        (EXPIRED, "expired"),
        (Refused(410, "Expired", ""), "expired"),
        (Refused(404, "NotFound", ""), "refused"),
        (Refused(504, "Timeout", "Too large resource version: 9, current: 3"), "refused"),
    ],
)
async def test_history_that_is_lost_is_listed_again(end: bytes | Exception, why: str) -> None:
    server = Server([page(1), page(8)], [[end], [1e6]])
    reasons: list[str] = []
    async with reflecting(server, reasons.append) as (_, store):
        await asyncio.sleep(30)
    assert reasons == ["start", why]
    assert [version for _, version in store.lists] == ["1", "8"]
    assert server.watched[-1]["resourceVersion"] == "8"


async def test_410_again_and_again_does_not_spin() -> None:
    server = Server(watches=[[EXPIRED]])
    async with reflecting(server):
        await asyncio.sleep(60)
    assert len(server.listed) < 20


async def test_a_collection_that_cannot_be_listed_says_why_until_it_can(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    down = [Refused(500, "InternalError", "conversion webhook failed")] * 8
    server = Server([*down, page(1)], [[1e6]])
    async with reflecting(server) as (reflector, _):
        await asyncio.sleep(1)
        assert "conversion webhook failed" in reflector.problem
        assert not reflector.synced.is_set()
        await asyncio.sleep(60)
        assert (reflector.problem, reflector.synced.is_set()) == ("", True)
    said = [r.getMessage() for r in caplog.records]
    assert sum("conversion webhook failed" in text for text in said) == 1
    assert said[-1] == "watching things again"


async def test_an_object_that_is_too_deep_is_cut_in_lists_and_events() -> None:
    server = Server([page(1, BOTTOMLESS)], [[event("ADDED", BOTTOMLESS), 1e6]])
    async with reflecting(server) as (reflector, store):
        await reflector.synced.wait()
        await asyncio.sleep(1)
    cut = b'{"metadata":{"resourceVersion":"2"},"spec":%snull%s}' % (b'{"a":' * 99, b"}" * 99)
    assert store.lists == [([cut], "1")]
    assert store.there == [cut]


# Delays before a collection is read again: never a tight loop, never late without a reason.

SHORT = st.floats(0, SHORT_SECONDS * 0.99)


def pacing(seed: int = 1) -> Pacing:
    return Pacing(Random(seed), BACKOFF)


@given(st.lists(st.tuples(SHORT, st.integers(0, 3)), min_size=20, max_size=60), st.integers())
def test_watches_that_end_early_begin_at_most_about_once_a_second(
    ends: list[tuple[float, int]], seed: int
) -> None:
    paced = pacing(seed)
    spent = sum(lasted + paced.ended(lasted, events) for lasted, events in ends)
    assert spent >= 0.1 * len(ends)


@given(st.integers())
def test_a_watch_that_lasted_begins_again_at_once(seed: int) -> None:
    paced = pacing(seed)
    for _ in range(5):
        paced.failed()
    assert paced.ended(240, 0) == 0
    assert paced.failures == 0


def test_delays_grow_to_the_bound_and_not_beyond() -> None:
    paced = pacing()
    delays = [paced.ended(0, 0) for _ in range(20)]
    assert delays[0] <= BACKOFF.first
    assert BACKOFF.most / 2 <= delays[-1] <= BACKOFF.most


def test_events_are_never_more_than_a_second_late_where_each_watch_brings_one() -> None:
    paced = pacing()
    assert all(paced.ended(0.01, 1) <= SHORT_SECONDS for _ in range(50))


@given(st.integers(1, 10_000), st.integers())
def test_backoff_is_bounded_and_never_zero(failures: int, seed: int) -> None:
    assert 0.05 <= BACKOFF.delay(failures, Random(seed)) <= 10.0


def test_the_servers_own_delay_is_kept() -> None:
    assert pacing().failed(retry_after=30) >= 30
