from autoglm.simulator.blocks import BlockPool, block_hashes

IDS = list(range(1000, 1064))


def test_equal_beginnings_have_equal_names() -> None:
    one, other = block_hashes(IDS), block_hashes(IDS[:32] + [1] * 32)
    assert one[:2] == other[:2]
    assert one[2] != other[2]


def test_a_released_prompt_is_found_again() -> None:
    pool = BlockPool(8)
    first = pool.take(IDS)
    assert first is not None and first[1] == 0
    pool.release(first[0])
    assert pool.used == 0
    again = pool.take(IDS)
    # The last token is always computed, so its block does not count.
    assert again is not None and again[1] == 48


def test_running_sequences_share_full_blocks() -> None:
    pool = BlockPool(8)
    assert pool.take(IDS) is not None
    assert pool.take(IDS) is not None
    assert pool.used == 4 + 2


def test_nothing_is_taken_when_room_is_short() -> None:
    pool = BlockPool(4)
    assert pool.take(IDS) is None
    assert pool.used == 0


def test_the_longest_unused_block_makes_room() -> None:
    pool = BlockPool(3)
    old, new = list(range(16)), list(range(50, 66))
    for ids in (old, new):
        taken = pool.take(ids)
        assert taken is not None
        pool.release(taken[0])
    big = pool.take([1] * 20)
    assert big is not None
    pool.release(big[0])
    assert (pool.take([*new, 1]) or ([], -1))[1] == 16


def test_generated_blocks_become_reusable() -> None:
    pool = BlockPool(8)
    taken = pool.take(IDS[:10])
    assert taken is not None
    keys = taken[0]
    assert pool.grow(keys, 17)
    pool.fill(keys, IDS[:16])
    pool.release(keys)
    assert (pool.take(IDS[:20]) or ([], -1))[1] == 16
