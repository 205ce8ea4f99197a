from hypothesis import given
from hypothesis import strategies as st

from autoglm.gateway.admission.lane import LazyHeap

STEPS = st.lists(st.tuples(st.integers(0, 9), st.none() | st.integers(0, 20)), max_size=300)


@given(STEPS)
def test_top_is_the_smallest_key_however_keys_move(steps: list[tuple[int, int | None]]) -> None:
    keys: dict[int, float] = {}
    heap: LazyHeap[int] = LazyHeap(keys.get)
    for item, key in steps:
        before = keys.get(item)
        if key is None:
            keys.pop(item, None)
        else:
            keys[item] = key
            if before is None or key < before:
                heap.touch(item)
        top = heap.peek()
        assert (top is None) == (not keys)
        assert top is None or keys[top] == min(keys.values())


def test_items_that_are_touched_without_end_take_bounded_memory() -> None:
    key = [1e9]
    heap: LazyHeap[str] = LazyHeap(lambda item: key[0] if item == "falls" else 0.0)
    heap.touch("first")
    for _ in range(10_000):
        key[0] -= 1
        heap.touch("falls")
    assert len(heap) <= 200
