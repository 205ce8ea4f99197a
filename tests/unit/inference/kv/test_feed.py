import pytest

from autoglm.common.errors import RateLimited, StreamBroken
from autoglm.inference.kv.feed import MOST_SUBSCRIBERS, MOST_WAITING, Change, KvFeed


def named(feed: KvFeed, names: range) -> None:
    feed.ledger.requested([(name, name) for name in names])


def test_a_stream_begins_with_all_that_is_cached_and_continues_with_changes() -> None:
    feed = KvFeed(100)
    named(feed, range(1, 6))
    feed.ledger.stored([1, 2, 3])
    with feed.subscribed() as subscriber:
        assert [(k, sorted(n)) for k, n in subscriber.take()] == [
            ("cleared", []),
            ("stored", [1, 2, 3]),
        ]
        assert not subscriber.news.is_set()
        feed.ledger.stored([4])
        feed.ledger.stored([5])
        feed.ledger.removed([4])
        assert subscriber.take() == [("stored", [4, 5]), ("removed", [4])]


def test_who_begins_in_the_middle_misses_nothing() -> None:
    feed = KvFeed(100)
    named(feed, range(1, 9))
    with feed.subscribed() as early:
        feed.ledger.stored([1, 2, 3, 4])
        feed.ledger.removed([2])
        with feed.subscribed() as late:
            feed.ledger.stored([7])
            assert state(early.take()) == state(late.take()) == {1, 3, 4, 7}


def state(changes: list[Change]) -> set[int]:
    names: set[int] = set()
    for kind, some in changes:
        names = names | set(some) if kind == "stored" else names - set(some)
    return names


def test_an_empty_cache_makes_what_waits_superfluous() -> None:
    feed = KvFeed(100)
    named(feed, range(1, 9))
    with feed.subscribed() as subscriber:
        feed.ledger.stored([1, 2])
        feed.ledger.cleared()
        feed.ledger.stored([3])
        assert subscriber.take() == [("cleared", []), ("stored", [3])]


def test_a_slow_subscriber_is_cut_off_and_holds_nothing() -> None:
    feed = KvFeed(MOST_WAITING + 10)
    named(feed, range(MOST_WAITING + 2))
    with feed.subscribed() as slow, feed.subscribed() as quick:
        quick.take()
        for block in range(MOST_WAITING + 1):
            feed.ledger.stored([block])
            if block % 1000 == 0:
                quick.take()
        with pytest.raises(StreamBroken, match="subscribe again"):
            slow.take()
        assert not slow._changes
        quick.take()
    with feed.subscribed() as again:
        assert len(state(again.take())) == MOST_WAITING + 1


def test_messages_are_bounded() -> None:
    feed = KvFeed(30_000)
    named(feed, range(1, 20_001))
    feed.ledger.stored(range(1, 20_001))
    with feed.subscribed() as subscriber:
        sizes = [len(names) for _, names in subscriber.take()]
    assert sizes == [0, 8192, 8192, 3616]


def test_there_may_be_so_many_subscribers_and_no_more() -> None:
    feed, open_ones = KvFeed(10), []
    for _ in range(MOST_SUBSCRIBERS):
        opened = feed.subscribed()
        opened.__enter__()
        open_ones.append(opened)
    with pytest.raises(RateLimited), feed.subscribed():
        pass
    open_ones[0].__exit__(None, None, None)
    with feed.subscribed():
        pass
