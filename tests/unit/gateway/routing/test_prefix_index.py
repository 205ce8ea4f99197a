from heapq import nlargest
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from tests.support.soak import examples

from autoglm.gateway.routing.prefix_index import PrefixIndex, salt_of

PROMPTS = st.lists(st.integers(0, 2), max_size=6)
URLS = st.sampled_from("abcd")


def blocks(path: list[int]) -> list[int]:
    """Names of the blocks of a prompt; equal beginnings have equal names."""
    names = [1]
    for step in path:
        names.append(names[-1] * 4 + step + 1)
    return names


class Index(RuleBasedStateMachine):
    """The index beside a plain one that remembers all blocks of all endpoints."""

    def __init__(self) -> None:
        super().__init__()
        self.index = PrefixIndex()
        self.known: dict[str, set[int]] = {}

    @rule(url=URLS, path=PROMPTS)
    def add(self, url: str, path: list[int]) -> None:
        self.index.add(url, blocks(path), 0)
        self.known.setdefault(url, set()).update(blocks(path))

    @rule(url=URLS)
    def forget(self, url: str) -> None:
        self.index.forget(url)
        self.known.pop(url, None)

    @rule(url=URLS, path=PROMPTS)
    def remove_the_end(self, url: str, path: list[int]) -> None:
        gone = blocks(path)[-1]
        below = {n for n in self.known.get(url, ()) if is_below(n, gone)}
        self.index.remove(url, sorted(below, reverse=True))
        self.known.get(url, set()).difference_update(below)

    @rule(path=PROMPTS, most=st.integers(0, 3), urls=st.sets(URLS))
    def find_holders(self, path: list[int], most: int, urls: set[str]) -> None:
        held, all_held = self.index.holders(blocks(path), 0), self.index.match(blocks(path), 0)
        assert held.longest == max(all_held.values(), default=0)
        assert held.deepest(most) == nlargest(most, all_held, key=all_held.__getitem__)
        assert held.of(urls) == {url: depth for url, depth in all_held.items() if url in urls}

    @rule(path=PROMPTS)
    def match(self, path: list[int]) -> None:
        names = blocks(path)
        wanted = {}
        for url, known in self.known.items():
            held = next((n for n, name in enumerate(names) if name not in known), len(names))
            if held:
                wanted[url] = held
        assert self.index.match(names, 0) == wanted

    @invariant()
    def counts_what_it_holds(self) -> None:
        assert len(self.index) == sum(map(len, self.known.values()))


def is_below(name: int, other: int) -> bool:
    while name > other:
        name = (name - 1) // 4 if name > 1 else 0
    return name == other


TestIndex = Index.TestCase
TestIndex.settings = settings(max_examples=examples(60), deadline=None)


@given(st.lists(st.tuples(URLS, PROMPTS), max_size=40), st.integers(1, 12))
def test_memory_is_bounded_and_beginnings_outlive_ends(
    added: list[tuple[str, list[int]]], most: int
) -> None:
    index = PrefixIndex(most_blocks=4 * most)
    for url, path in added:
        index.add(url, blocks(path), 0, capacity=most)
        assert index.blocks_of(url) <= most
    for _, path in added:
        for url, held in index.match(blocks(path), 0).items():
            assert all(url in index.match(blocks(path)[:n], 0) for n in range(1, held + 1))


def test_all_endpoints_share_one_bound() -> None:
    index = PrefixIndex(most_blocks=100)
    for n in range(50):
        index.add(f"pod-{n}", range(1000 * n, 1000 * n + 90), 0)
    for n in range(50):
        index.add(f"pod-{n}", range(1000 * n, 1000 * n + 90), 0)
    assert len(index) <= 100


def test_tenants_and_models_share_nothing() -> None:
    index, names = PrefixIndex(), list(range(1, 9))
    index.add("a", names, salt_of("one", "m"))
    assert index.match(names, salt_of("one", "m")) == {"a": 8}
    assert index.match(names, salt_of("two", "m")) == index.match(names, salt_of("one", "n")) == {}


def test_an_endpoint_that_comes_back_holds_nothing() -> None:
    index: Any = PrefixIndex()
    index.add("a", [1, 2], 0)
    index.add("b", [1], 0)
    index.forget("a")
    index.add("c", [9], 0)
    assert index.match([1, 2], 0) == {"b": 1}
    assert index.match([9], 0) == {"c": 1} and index.blocks_of("a") == 0
