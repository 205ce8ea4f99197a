from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from autoglm.inference.kv.ledger import Kind, KvLedger, ends
from autoglm.validation.prefix_hash import Message, of_chat, of_text, of_token_ids

Step = tuple[str, list[int]]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["asked", "stored", "removed", "cleared"]), st.lists(st.integers(1, 9))
    ),
    max_size=60,
)


class Follower:
    """The state of a subscriber that receives every change."""

    def __init__(self) -> None:
        self.names: set[int] = set()

    def __call__(self, kind: Kind, names: Sequence[int]) -> None:
        if kind == "stored":
            self.names |= set(names)
        elif kind == "removed":
            self.names -= set(names)
        else:
            self.names.clear()


def play(ledger: KvLedger, step: Step) -> None:
    kind, numbers = step
    if kind == "asked":
        # Two names end in each block.
        ledger.requested([(100 * half + n, n) for n in numbers for half in (1, 2)])
    elif kind == "cleared":
        ledger.cleared()
    else:
        getattr(ledger, kind)(numbers)


@given(STEPS, st.integers(1, 12))
def test_who_hears_every_change_knows_what_is_held(steps: list[Step], most: int) -> None:
    follower = Follower()
    ledger = KvLedger(most, follower)
    cached: set[int] = set()
    for step in steps:
        play(ledger, step)
        kind, numbers = step
        if kind == "stored":
            cached |= set(numbers)
        elif kind == "removed":
            cached -= set(numbers)
        elif kind == "cleared":
            cached.clear()
        assert follower.names == set(ledger.held())
        assert {name % 100 for name in follower.names} <= cached
        assert len(ledger) <= most


def test_a_block_that_was_cached_before_anybody_named_it_is_reported_when_it_is_named() -> None:
    follower = Follower()
    ledger = KvLedger(8, follower)
    ledger.stored([1, 2])
    assert follower.names == set()
    ledger.requested([(11, 1), (13, 3)])
    assert follower.names == {11}


def test_beginnings_of_prompts_are_forgotten_last() -> None:
    follower = Follower()
    ledger = KvLedger(3, follower)
    ledger.stored(range(9))
    ledger.requested([(10 + n, n) for n in range(5)])
    assert follower.names == {10, 11, 12}


def test_named_token_ids_end_where_their_blocks_end() -> None:
    prefix = of_token_ids(range(200))
    blocks = list(range(12))
    assert [b for _, b in ends(prefix, 0, 200, blocks, 16)] == [3, 7, 11]
    # A block of the engine holds two that are named.
    assert [b for _, b in ends(prefix, 0, 200, [0], 128)] == [0, 0]


def test_a_salt_keeps_names_apart() -> None:
    prefix = of_token_ids(range(64))
    (one, _), (two, _) = (ends(prefix, salt, 64, [1, 2, 3, 4], 16)[0] for salt in (5, 6))
    assert one ^ 5 == two ^ 6 == prefix.blocks[0]


@given(st.integers(256, 5000), st.integers(1, 2000), st.sampled_from([16, 32, 128]))
def test_text_ends_in_proportion_and_never_behind_the_last_full_block(
    size: int, tokens: int, block: int
) -> None:
    blocks = list(range(tokens // block))
    found = [b for _, b in ends(of_text("x" * size), 0, tokens, blocks, block)]
    assert found == sorted(found)
    for number, index in enumerate(found, 1):
        end = number * 256 * tokens / size
        assert end <= (index + 1) * block < end + block + 1


def test_what_is_not_distinguished_still_counts_for_the_size() -> None:
    long = Message("user", ("x" * 2**20,))
    one, two = of_chat([long]), of_chat([long, Message("assistant", ("y" * 1000,))])
    assert two.blocks == one.blocks
    assert two.size == one.size + 1000
