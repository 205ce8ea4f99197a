from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm.inference.kv.ledger import KvLedger
from autoglm.inference.vllm.kv.translation import (
    AllBlocksCleared,
    Batch,
    BlockRemoved,
    BlockStored,
    Translator,
    block_names,
)

SIZE = 4


class Pod:
    """A translator, and which blocks of prompts it takes to be cached."""

    def __init__(self) -> None:
        self.ledger = KvLedger(1000)
        self.translator = Translator(SIZE, self.ledger)

    def depth(self, ids: list[int], adapter: str | None = None) -> int:
        """How many of the prompt's first blocks are cached."""
        names = block_names(ids, SIZE, adapter)
        self.ledger.requested([(name, name) for name in names])
        held = set(self.ledger.held())
        return next((n for n, name in enumerate(names) if name not in held), len(names))


def stored(ids: list[int], *, after: int = 0, **fields: Any) -> BlockStored:
    """The blocks of a prompt behind the first so many; vLLM's hashes are the tokens in front."""
    ends = range(SIZE, len(ids) + 1, SIZE)
    hashes: list[bytes | int] = [hash(tuple(ids[:end])) for end in ends]
    parent = hashes[after - 1] if after else None
    return BlockStored(hashes[after:], parent, ids[after * SIZE :], SIZE, **fields)


def removed(ids: list[int]) -> BlockRemoved:
    return BlockRemoved([hash(tuple(ids))])


IDS = list(range(12))


def test_messages_of_vllm_are_understood() -> None:
    raw = [
        1.5,
        [
            {
                **{"type": "BlockStored", "block_hashes": [7, b"x"], "parent_block_hash": None},
                **{"token_ids": IDS[:8], "block_size": SIZE, "lora_id": None, "medium": "GPU"},
                **{"lora_name": None, "extra_keys": [None, None], "group_idx": 0, "locality": None},
            },
            {"type": "BlockRemoved", "block_hashes": [b"x"], "medium": "GPU", "group_idx": 0},
        ],
        0,
    ]
    pod = Pod()
    for event in msgspec.msgpack.decode(msgspec.msgpack.encode(raw), type=Batch).events:
        pod.translator.apply(event)
    assert pod.depth(IDS) == 1


def test_blocks_continue_where_their_parent_ends() -> None:
    pod = Pod()
    pod.translator.apply(stored(IDS[:4]))
    pod.translator.apply(stored(IDS, after=1))
    assert pod.depth(IDS) == 3
    pod.translator.apply(removed(IDS))
    assert pod.depth(IDS) == 2


def test_a_block_that_is_held_twice_goes_with_its_last_copy() -> None:
    pod = Pod()
    pod.translator.apply(stored(IDS[:4]))
    pod.translator.apply(stored(IDS[:4]))
    pod.translator.apply(removed(IDS[:4]))
    assert pod.depth(IDS) == 1
    pod.translator.apply(removed(IDS[:4]))
    assert pod.depth(IDS) == 0


def test_adapters_share_nothing() -> None:
    pod = Pod()
    pod.translator.apply(stored(IDS, lora_name="a", extra_keys=[("a",)] * 3))
    assert (pod.depth(IDS, "a"), pod.depth(IDS, "b"), pod.depth(IDS)) == (3, 0, 0)


def test_blocks_with_images_and_all_behind_them_are_not_followed() -> None:
    pod = Pod()
    pod.translator.apply(stored(IDS[:8], extra_keys=[None, ("image", 3)]))
    pod.translator.apply(stored(IDS, after=2))
    assert pod.depth(IDS) == 1


@pytest.mark.parametrize("fields", [{"medium": "CPU"}, {"group_idx": 1}])
def test_slower_memory_and_further_groups_are_not_followed(fields: dict[str, Any]) -> None:
    pod = Pod()
    pod.translator.apply(stored(IDS, **fields))
    assert pod.depth(IDS) == 0


def test_an_emptied_cache_is_empty() -> None:
    pod = Pod()
    pod.translator.apply(stored(IDS))
    pod.translator.apply(AllBlocksCleared())
    assert pod.depth(IDS) == 0
    # Its parent is not known any more.
    pod.translator.apply(stored(IDS, after=2))
    assert pod.depth(IDS) == 0


PROMPTS = st.lists(st.integers(0, 1), min_size=1, max_size=3)


@given(st.lists(st.tuples(st.booleans(), PROMPTS), max_size=50))
def test_what_is_known_is_what_vllm_holds(steps: list[tuple[bool, list[int]]]) -> None:
    """vLLM holds copies, and drops ends before beginnings."""
    pod, copies = Pod(), dict[tuple[int, ...], int]()
    for is_stored, path in steps:
        ids = [number for number in path for _ in range(SIZE)]
        if is_stored:
            pod.translator.apply(stored(ids))
            for end in range(SIZE, len(ids) + 1, SIZE):
                copies[tuple(ids[:end])] = copies.get(tuple(ids[:end]), 0) + 1
        elif copies.get(tuple(ids)) and not any(
            count and len(held) > len(ids) and held[: len(ids)] == tuple(ids)
            for held, count in copies.items()
        ):
            pod.translator.apply(removed(ids))
            copies[tuple(ids)] -= 1
        for held, count in copies.items():
            depth = pod.depth(list(held))
            assert (depth == len(held) // SIZE) == (count > 0)


def test_blocks_of_a_salt_are_held_for_that_salt_only() -> None:
    pod = Pod()
    keys: list[Any] = [("lora", ["cache_salt", "acme"]), ("lora",), ("lora",)]
    pod.translator.apply(stored(IDS, extra_keys=keys, lora_name="lora"))
    held = {block.name for block in pod.translator._blocks.values()}

    assert held == set(block_names(IDS, SIZE, "lora", "acme"))
    assert not held & set(block_names(IDS, SIZE, "lora", "evil"))
    assert not held & set(block_names(IDS, SIZE, "lora"))


def test_a_salt_beside_an_image_is_not_followed() -> None:
    pod = Pod()
    keys: list[Any] = [(["an-image", 0], ["cache_salt", "acme"])]
    pod.translator.apply(stored(IDS[:SIZE], extra_keys=keys))

    assert not pod.translator._blocks
