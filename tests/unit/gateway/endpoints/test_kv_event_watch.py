"""A gateway's index beside the echo engine's cache, by way of names, ledger, feed and messages."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from tests.support.soak import examples

from autoglm import v1
from autoglm.gateway.endpoints.kv_event_watch import Lost, Reader
from autoglm.gateway.routing.prefix_index import PROMISE_SECONDS, PrefixIndex
from autoglm.inference.kv.feed import KvFeed
from autoglm.inference.kv.ledger import ends
from autoglm.inference.servicers.worker import message_of
from autoglm.simulator.blocks import BLOCK_SIZE, BlockPool, Key, block_hashes
from autoglm.validation.prefix_hash import BLOCK_TOKENS, of_token_ids

URL = "grpc://pod:50051"
SALT = 77
PATHS = st.lists(st.integers(0, 2), min_size=1, max_size=3)


def prompt(path: list[int]) -> list[int]:
    """Each number stands for a block as gateways name them; one token is left over."""
    return [100 * number + n for number in path for n in range(BLOCK_TOKENS)] + [9]


class Following(RuleBasedStateMachine):
    """One pod with a small cache, one gateway that follows it and loses messages now and then."""

    def __init__(self) -> None:
        super().__init__()
        self.feed = KvFeed(1000)
        self.pool = BlockPool(40, self.feed.ledger)
        self.running: list[list[Key]] = []
        self.sent: list[list[int]] = []
        self.index = PrefixIndex()
        self.lost = 0
        self.subscribe()

    def subscribe(self) -> None:
        self.opened = self.feed.subscribed()
        self.subscriber = self.opened.__enter__()
        self.reader, self.sequence = Reader(self.index, URL), 0

    @rule(path=PATHS)
    def send(self, path: list[int]) -> None:
        ids = prompt(path)
        named = ends(of_token_ids(ids), SALT, len(ids), block_hashes(ids), BLOCK_SIZE)
        self.feed.ledger.requested(named)
        self.sent.append(path)
        taken = self.pool.take(ids)
        if taken is not None:
            self.running.append(taken[0])

    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        if self.running:
            number = data.draw(st.integers(0, len(self.running) - 1))
            self.pool.release(self.running.pop(number))

    @rule()
    def drop_a_message(self) -> None:
        changes = self.subscriber.take()
        if changes:
            self.sequence += len(changes)
            self.lost += 1

    @rule()
    def die(self) -> None:
        """As the gateway sees it."""
        self.index.forget(URL)

    @invariant()
    def index_is_the_cache(self) -> None:
        try:
            self.read()
        except Lost:
            self.opened.__exit__(None, None, None)
            self.subscribe()
            self.read()
        if self.sequence != self.reader.sequence or not self.index.is_exact(URL):
            return  # Something was lost, and no later event has shown it.
        for path in self.sent:
            wanted = 0
            for name in block_hashes(prompt(path)):
                if not self.pool.is_cached(name):
                    break
                wanted += 1
            held = self.index.match(of_token_ids(prompt(path)).blocks, SALT).get(URL, 0)
            assert held == wanted * BLOCK_SIZE // BLOCK_TOKENS

    def read(self) -> None:
        for change in self.subscriber.take():
            self.sequence += 1
            self.reader.read(message_of(change, self.sequence))


TestFollowing = Following.TestCase
TestFollowing.settings = settings(max_examples=examples(60), deadline=None)


def message(sequence: int, **event: object) -> v1.SubscribeKvEventsResponse:
    return v1.SubscribeKvEventsResponse(sequence=sequence, **event)  # type: ignore[arg-type]  # one of three events


def cleared(sequence: int) -> v1.SubscribeKvEventsResponse:
    return message(sequence, cleared=v1.KvBlocksCleared())


def stored(sequence: int, *names: int) -> v1.SubscribeKvEventsResponse:
    return message(sequence, stored=v1.KvBlocksStored(block_hashes=names))


def removed(sequence: int, *names: int) -> v1.SubscribeKvEventsResponse:
    return message(sequence, removed=v1.KvBlocksRemoved(block_hashes=names))


@pytest.fixture
def index() -> PrefixIndex:
    return PrefixIndex()


@pytest.fixture
def reader(index: PrefixIndex) -> Reader:
    reader = Reader(index, URL)
    reader.read(cleared(1))
    return reader


def test_what_was_remembered_gives_way_to_what_the_pod_reports(index: PrefixIndex) -> None:
    index.add(URL, [1, 2], 0)
    reader = Reader(index, URL)
    assert not index.is_exact(URL)
    reader.read(cleared(1))
    reader.read(stored(2, 7, 8, 9))
    assert index.is_exact(URL)
    assert index.match([1, 2], 0) == {}
    assert index.match([7, 8, 9], 0) == {URL: 3}
    reader.read(removed(3, 8, 9))
    assert index.match([7, 8, 9], 0) == {URL: 1}


def test_a_gap_is_found(reader: Reader) -> None:
    reader.read(stored(2, 5))
    with pytest.raises(Lost, match="gap"):
        reader.read(stored(4, 6))


def test_a_pod_that_was_taken_for_dead_is_polled_again(index: PrefixIndex, reader: Reader) -> None:
    index.forget(URL)
    with pytest.raises(Lost, match="forgotten"):
        reader.read(stored(2, 5))
    assert index.match([5], 0) == {}


def test_what_was_sent_is_a_promise_that_the_pod_confirms_or_time_ends(
    index: PrefixIndex, reader: Reader
) -> None:
    index.add(URL, [1, 2], 0, now=0.0)
    index.add(URL, [5, 6], 0, now=1.0)
    assert index.match([1, 2], 0) == index.match([5, 6], 0) == {URL: 2}
    reader.read(stored(2, 1, 2))
    index.add(URL, [9], 0, now=1.5 + PROMISE_SECONDS)
    assert index.match([1, 2], 0) == {URL: 2}
    assert index.match([5, 6], 0) == {}


def test_an_evicted_block_is_promised_no_more_however_lately_it_was_sent(
    index: PrefixIndex, reader: Reader
) -> None:
    reader.read(stored(2, 1, 2))
    index.add(URL, [1, 2], 0, now=5.0)
    reader.read(removed(3, 2))
    assert index.match([1, 2], 0) == {URL: 1}


def test_a_pod_whose_events_end_is_remembered_and_ages_as_others_do(
    index: PrefixIndex, reader: Reader
) -> None:
    reader.read(stored(2, *range(1, 9)))
    index.unfollow(URL)
    assert not index.is_exact(URL)
    assert index.match(range(1, 9), 0) == {URL: 8}
    index.add(URL, [21, 22], 0, capacity=4)
    assert index.blocks_of(URL) == 4


def test_what_pods_report_is_bounded() -> None:
    index = PrefixIndex(most_blocks=100)
    readers = [Reader(index, f"pod-{number}") for number in range(4)]
    for reader in readers:
        reader.read(cleared(1))
    for sequence in range(2, 60):
        for reader in readers:
            reader.read(stored(sequence, *range(100 * sequence, 100 * sequence + 90)))
    for number in range(4):
        index.add(f"pod-{number}", range(1000), 0, now=float(number))
    assert sum(len(promised) for promised in index._promised.values()) <= len(index) <= 100
