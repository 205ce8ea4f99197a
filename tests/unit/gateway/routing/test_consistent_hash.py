from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm.gateway.routing.consistent_hash import Ring, Rings, draws, name_of


@given(st.integers(0, 2**64 - 1))
def test_only_what_an_endpoint_had_moves_when_it_goes(name: int) -> None:
    urls = [f"grpc://10.0.0.{n}:50051" for n in range(9)]
    numbers = draws(name, urls)
    winner = urls[numbers.index(max(numbers))]
    for gone in urls:
        rest = [url for url in urls if url != gone]
        left = draws(name, rest)
        assert gone == winner or rest[left.index(max(left))] == winner


def test_names_spread_evenly() -> None:
    urls = [f"grpc://10.0.0.{n}:50051" for n in range(16)]
    won = Counter(
        max(zip(draws(name_of(str(n), 0), urls), urls, strict=True))[1] for n in range(16_000)
    )
    assert min(won.values()) > 800 and max(won.values()) < 1200


def test_rings_are_remade_when_endpoints_change_and_few_are_kept(make: Any) -> None:
    rings, views = Rings(most=2), tuple(make.view(n) for n in range(5))
    ring = rings.of(views)
    assert rings.of(views) is ring and rings.of(views[1:]) is not ring
    rings.of(views[2:])
    assert rings.of(views) is not ring


@pytest.mark.parametrize("place", [0, 2**63, 2**64 - 1])
def test_a_ring_goes_round(make: Any, place: int) -> None:
    ring = Ring([make.view(n) for n in range(10)])
    assert len(set(ring.around(place, 10))) == 10 and len(ring.around(place, 4)) == 4
